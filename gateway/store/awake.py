"""A limit of time for what a process waits for that does not count while the process itself slept.

A process that was stopped, or whose host was, finds every limit passed when it goes on; what it waited for
may have come meanwhile, and saying otherwise would be untrue. It is given its time once more.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

SLEPT: Final = 0.5
"""Seconds a limit is noticed late, from which on the process slept and was not just busy."""


class Limit:
    """Raises `TimeoutError` in the block it is about, after so many seconds awake.

    `until` is when, by the loop's time; it moves when the process wakes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._over = False
        self.until = 0.0

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    @property
    def left(self) -> bool:
        """Whether there is time. Once there is none there never is: the block may have missed its end."""
        return not self._over and (self._loop.time() < self.until or self._asleep())

    def _wait(self) -> None:
        self.until = self._loop.time() + self._seconds
        self._next = self._loop.call_at(self.until, self._look)

    def _asleep(self) -> bool:
        return self._loop.time() - self.until > SLEPT

    def _look(self) -> None:
        """End the block, unless it was this process that was away."""
        if self._asleep():
            self._wait()
        else:
            self._over = True
            self._timeout.reschedule(self._loop.time())
