"""What a process does about a store that went back: notice, compare, close, tell.

A tenant that is behind what was seen of it is closed in its own document, so that all processes meet it
there. Whoever hears that the store may be another compares all that it remembers before anything goes on.
What is decided by nobody here: opening again is an operator's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.errors import Fault
from gateway.store.format import TooNew
from gateway.store.gate_moves import SYSTEM, ShutMove, rewound
from gateway.store.memory import Memory
from gateway.store.moves import SayMove

if TYPE_CHECKING:
    from gateway.store.backend import Backend, Loaded, Want
    from gateway.store.contract import Shut
    from gateway.store.flight import Hears, Patience
    from gateway.store.kept import Kept
    from gateway.store.moves import TenantMove

AGAIN_SECONDS: Final = 0.2
"""What lies between two attempts to close a tenant, where nobody asks for anything."""
TOGETHER: Final = 512
"""Tenants compared or closed at once."""


class Rewind:
    """A committer's part in it. `wake` has it look soon, `settle` commits moves until each has an answer."""

    def __init__(
        self,
        backend: Backend,
        kept: Kept,
        wake: Callable[[], None],
        settle: Callable[[Sequence[TenantMove]], Awaitable[None]],
        hears: Hears,
        patience: Patience,
    ) -> None:
        self.memory = Memory(backend.me)
        self._backend = backend
        self._kept = kept
        self._wake = wake
        self._settle = settle
        self._hears = hears
        self._patience = patience
        self._turned = False
        self._quiet = 0.0
        self._again: asyncio.TimerHandle | None = None

    @property
    def quiet(self) -> bool:
        """Whether nothing is admitted now, so that others close what only they knew of."""
        return time.perf_counter() < self._quiet

    def turned(self) -> None:
        """Take in that the store may not be the one that was written to."""
        self._turned = True
        self._wake()

    def meet(self, tenant: str, loaded: Loaded) -> None:
        """Compare what is there with what is known; what a tenant that went back was kept for is over."""
        known = tenant in self.memory.gone
        if self.memory.meet(tenant, loaded):
            self._kept.forget(tenant)
            if not known:
                self._wake()

    async def attend(self) -> None:
        """Do what is to be done before anything else is."""
        if self._turned:
            await self._look_back()
        if self.memory.gone:
            await self._shut()

    async def _look_back(self) -> None:
        """Compare all that is remembered with what is there, then take that for what goes on.

        For a moment after nothing is admitted: by then all other processes have looked too, and closed what
        only they knew of. What cannot be read now may be what was lost: this is told again while anything is
        strange, and until all was compared nothing is taken for ours.
        """
        self._turned = False
        strange = self._backend.strange()
        wants = self.memory.wants()
        met = [await self._met(wants[at : at + TOGETHER]) for at in range(0, len(wants), TOGETHER)]
        if not all(met):
            return
        self._kept.clear()
        if strange is not None:
            if lost := (self._backend.strange() or strange).lost:  # more may be known by now
                self.memory.lack(SYSTEM, lost)
            self._quiet = time.perf_counter() + self._patience.settle
            self._backend.accept(strange)

    async def _met(self, wants: list[Want]) -> bool:
        """Compare what is remembered of some; return whether all could be read.

        What is there and no text of ours is passed over: nothing can be written to it either.
        """
        try:
            there = await self._backend.load(wants)
        except (TooNew, msgspec.DecodeError):  # one by one, below: what one holds is not to stop all others
            there = []
        except Fault:
            return False
        if not there and len(wants) > 1:
            return all([await self._met([want]) for want in wants])
        for want, loaded in zip(wants, there, strict=False):
            if loaded.fault is None:
                self.meet(want.tenant, loaded)
        return all(loaded.fault is None or isinstance(loaded.fault, TooNew) for loaded in there)

    async def _shut(self) -> None:
        """Close the tenants that went back. One that cannot be closed yet is tried again soon."""
        gone = list(self.memory.gone.items())
        for at in range(0, len(gone), TOGETHER):
            await self._shut_some(gone[at : at + TOGETHER])
        if self.memory.gone and self._again is None:
            self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        self._wake()

    async def _shut_some(self, gone: list[tuple[str, Shut]]) -> None:
        """Close some, each for itself, and tell whom it concerns of those that are closed."""
        moves = {tenant: ShutMove(tenant, why) for tenant, why in gone if tenant != SYSTEM or why.lost}
        await self._settle([*moves.values()])
        open_yet = {tenant for tenant, move in moves.items() if move.done.exception() is not None}
        shut = [(tenant, why) for tenant, why in gone if tenant not in open_yet]
        await self._settle(
            [SayMove(SYSTEM, "", rewound(why, tenant)) for tenant, why in shut if not why.lost]
        )
        for tenant, why in shut:
            self.memory.closed(tenant)
            self._hears.rewound(tenant, why)
