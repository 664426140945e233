"""One process's life: starting, ready, draining, stopped. Readiness, streams and worker read it.

No signals, no tasks, no deadline: who owns the process says when. The one idea: a wait that should end
with the process is a `pause`, which tells whether it was cut short, so that no loop sleeps past a stop.
The life only moves forward; a drain that comes before the start was done wins over it.
"""

from __future__ import annotations

import asyncio
import enum


class Phase(enum.IntEnum):
    """Where a process stands, in order."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    STOPPED = 3


class Lifetime:
    """The life of one process. Its methods belong to the event loop's thread."""

    __slots__ = ("phase", "stopping")

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.stopping = asyncio.Event()
        """Set from the drain on, for ever."""

    @property
    def ready(self) -> bool:
        """Whether new work is welcome here."""
        return self.phase is Phase.READY

    @property
    def draining(self) -> bool:
        """Whether the process is on its way out, or out."""
        return self.phase >= Phase.DRAINING

    def become_ready(self) -> None:
        """Welcome work. Changes nothing once a drain began."""
        self._advance(Phase.READY)

    def begin_drain(self) -> None:
        """Turn new work away and end every pause. May be called again."""
        self._advance(Phase.DRAINING)
        self.stopping.set()

    def end(self) -> None:
        """Say that nothing runs any more."""
        self.begin_drain()
        self._advance(Phase.STOPPED)

    async def pause(self, seconds: float) -> bool:
        """Wait, but not past the begin of the drain. True means: stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return False
        return True

    def _advance(self, phase: Phase) -> None:
        self.phase = max(self.phase, phase)
