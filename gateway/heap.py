"""Keeps the pauses of the garbage collector short, however many clients wait.

A full collection walks everything that lives: of five thousand waiting clients half a second, in which nobody
is served and the store seems silent. So what has survived one is put aside (`gc.freeze`), and the next walks
only what came since. A request that is over leaves no cycle behind (`edge.py`), so what dies among the things
put aside is freed all the same; what is not is looked for now and then.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Final

WHOLE_SECONDS: Final = 1800.0
"""What lies between two walks over everything."""
OLDEST: Final = 2
"""The generation whose collection is a full one."""


class Heap:
    """The objects of this process, from `start` to `stop`. For a process that is ours alone."""

    def __init__(self, seconds: float = WHOLE_SECONDS) -> None:
        self._seconds = seconds
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Put aside all there is, and from now on what survives a full collection."""
        gc.callbacks.append(_put_aside)
        self._walk()

    def stop(self) -> None:
        """Leave the collector as it was. Harmless twice."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
            gc.callbacks.remove(_put_aside)
            gc.unfreeze()

    def _walk(self) -> None:
        gc.unfreeze()
        gc.collect()
        self._next = asyncio.get_running_loop().call_later(self._seconds, self._walk)


def _put_aside(phase: str, told: dict[str, Any]) -> None:
    if phase == "stop" and told["generation"] == OLDEST:
        gc.freeze()
