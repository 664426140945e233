"""Limits of time: they end what takes too long, and forgive a process that slept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from gateway.store.awake import SLEPT, Limit


class Clocked(asyncio.SelectorEventLoop):
    """A loop whose time can be moved on."""

    ahead = 0.0

    def time(self) -> float:
        """Return the time, and what it was moved by."""
        return super().time() + self.ahead


def on(main: Callable[[Clocked], Awaitable[None]]) -> None:
    """Run something on a loop of its own."""
    loop = Clocked()

    async def run() -> None:
        await main(loop)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())


async def turns() -> None:
    """Let the loop go round."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_limit_ends_what_is_late() -> None:
    """What takes longer than it may is ended."""
    left: list[bool] = []

    async def wait(loop: Clocked) -> None:
        async with Limit(5) as limit:
            left.append(limit.left)
            loop.ahead += 5 + SLEPT / 2
            left.append(limit.left)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        on(wait)
    assert left == [True, False]


def test_sleeper_gets_its_time_again() -> None:
    """A process that slept past its limit waits once more, and then it is over."""
    waits: list[float] = []

    async def wait(loop: Clocked) -> None:
        async with Limit(5) as limit:
            loop.ahead += 60
            await turns()
            waits.append(limit.until - loop.time())
            loop.ahead += 5
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        on(wait)
    assert 4 < waits[0] <= 5


def test_missed_end_stays_the_end() -> None:
    """Who swallows the end of their time sees that there is none left, however late they look."""
    left: list[bool] = []

    async def wait(loop: Clocked) -> None:
        async with Limit(5) as limit:
            loop.ahead += 5
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            loop.ahead += 60
            left.append(limit.left)

    on(wait)
    assert left == [False]


def test_limit_leaves_no_trace() -> None:
    """What ended in time is not ended later."""

    async def main(loop: Clocked) -> None:
        async with Limit(5):
            await turns()
        loop.ahead += 5
        await turns()

    on(main)
