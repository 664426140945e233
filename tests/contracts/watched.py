"""A back end that is watched: what is asked of it, and what fails or comes between at a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.store.backend import Change, Loaded, Outcome, Want
from gateway.store.engine import Engine
from tests.contracts.rig import Rig


class Watched:
    """A back end in front of the real one: notes what is asked of it, and fails when it is told to."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.endpoints_read = 0
        self.changes: list[Change] = []
        self.fails: list[str] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.written = asyncio.Event()
        self.answered = asyncio.Event()
        self.answered.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Load, counting those who want endpoints."""
        self.endpoints_read += sum(want.endpoints for want in wants)
        loaded: list[Loaded] = await self._backend.load(wants)
        return loaded

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit; `fails` says when it may not, `meanwhile` what another process does first, once.

        What is `written` is answered for once `answered` is set.
        """
        if "before" in self.fails:
            raise StoreUnavailable("no disk")
        self.changes += changes
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        outcomes: list[Outcome] = await self._backend.commit(changes)
        self.written.set()
        await self.answered.wait()
        if "after" in self.fails:
            raise StoreUnavailable("the reply was lost")
        return outcomes


Watching = tuple[Rig, Engine, Watched]


def stranger(rig: Rig, backend: Watched) -> Engine:
    """Return an engine over the same store, as another process would have it."""
    return rig.engine(backend._backend)  # noqa: SLF001 - the one below the double
