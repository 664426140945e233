"""The store's time as a process knows it: Redis' own, carried on by a clock that only goes forward.

Each reply that brings Redis' time bounds it from both sides: it was read after the question was sent and
before the answer came. The estimate is moved into these bounds and no further, so that it follows a step
of the host's clock at the next reply and never leaps within them.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class StoreTime:
    """Redis' clock. Until the first reply it takes `wall` for it. Both given clocks tell microseconds."""

    def __init__(self, steady: Callable[[], int], wall: Callable[[], int]) -> None:
        self._steady = steady
        self._ahead = wall() - steady()

    def __call__(self) -> int:
        """Return the store's time in milliseconds."""
        return (self._steady() + self._ahead) // 1000

    def mark(self) -> int:
        """Return when a question is sent, for `learn`."""
        return self._steady()

    def learn(self, sent: int, told: int) -> None:
        """Take in what Redis told its time to be, in microseconds, between the mark `sent` and now."""
        lowest, highest = told - self._steady(), told - sent
        self._ahead = min(max(self._ahead, lowest), highest)


def steady_us() -> int:
    """Return microseconds that only go forward."""
    return time.monotonic_ns() // 1000


def wall_us() -> int:
    """Return this host's time in microseconds."""
    return time.time_ns() // 1000
