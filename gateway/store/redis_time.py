"""The store's time as a process knows it: Redis' own, carried on by a clock that only goes forward.

Each reply that brings Redis' time bounds it from both sides: it was read after the question was sent and
before the answer came. The estimate is moved into these bounds and no further, so that it follows a step
of the host's clock at the next reply and never leaps within them. Of several nodes each has an estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class StoreTime:
    """Redis' clock, or the clocks of several. Until the first reply it takes `wall` for them.

    Each node that has a part of the store has a clock of its own, and judges by it how late a commit is.
    What is decided is decided by one of them, the leader's, in all processes alike. Both given clocks tell
    microseconds.
    """

    def __init__(self, steady: Callable[[], int], wall: Callable[[], int]) -> None:
        self._steady = steady
        self._last = wall() - steady()
        self._ahead: dict[str, int] = {}
        self._leader: Callable[[], str] = str

    def led_by(self, leader: Callable[[], str]) -> None:
        """Say who tells whose clock the store's time is: asked whenever a node was heard of.

        One that was not heard of itself leaves the time as it is.
        """
        self._leader = leader

    def __call__(self) -> int:
        """Return the store's time in milliseconds."""
        return (self._steady() + self._last) // 1000

    def at(self, mark: int, node: str) -> int:
        """Return a moment by a node's clock, in milliseconds."""
        return (mark + self._ahead.get(node, self._last)) // 1000

    def mark(self) -> int:
        """Return this moment, for `at` and `learn`."""
        return self._steady()

    def learn(self, sent: int, told: int, node: str = "") -> None:
        """Take in what a node told its time to be, in microseconds, between the mark `sent` and now."""
        lowest, highest = told - self._steady(), told - sent
        self._ahead[node] = min(max(self._ahead.get(node, self._last), lowest), highest)
        self._last = self._ahead.get(self._leader(), self._last)


def steady_us() -> int:
    """Return microseconds that only go forward."""
    return time.monotonic_ns() // 1000


def wall_us() -> int:
    """Return this host's time in microseconds."""
    return time.time_ns() // 1000
