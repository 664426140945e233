"""The sweep: what retention lets go of leaves the store, in bounded steps.

What names money, a key or the trail goes by moves, as it came; what only points at them the back end
removes by itself. Each thing is tried for itself: what one tenant or one node has in the way is no reason
to leave the others' lying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.errors import Fault, StoreClosed
from gateway.store.backend import KEYS_KEPT_MS, Anchor, anchored
from gateway.store.contract import Swept
from gateway.store.moves import AnchorMove, DropMove, RestMove
from gateway.store.shelf_moves import DropUploadMove
from policies.model import Job

if TYPE_CHECKING:
    from gateway.audit import Chain
    from gateway.store.backend import Backend
    from gateway.store.contract import Retention, TrailLink
    from gateway.store.moves import TenantMove

_T = TypeVar("_T")


class Broom:
    """Sweeps one store. `send` commits a move."""

    def __init__(self, backend: Backend, chain: Chain, send: Callable[[TenantMove], Awaitable[Any]]) -> None:
        self._backend = backend
        self._chain = chain
        self._send = send

    async def sweep(self, retention: Retention, budget: int) -> Swept:
        """Remove what is past its time, at most `budget` things of each sort."""
        tries, backend = Tries(), self._backend
        now = backend.clock()
        expired = await backend.expired(now, retention, budget)
        dropped = await self._sent(tries, map(DropMove, expired.jobs))
        links = await self._cut(tries, expired.links)
        keys = await tries.of(backend.drop_keys(now - max(retention.keys_ms, KEYS_KEPT_MS), budget)) or 0
        over = now - retention.uploads_ms
        moves = [DropUploadMove(tenant, upload, over) for tenant, upload in expired.uploads]
        uploads = sum(await self._sent(tries, moves))
        deliveries = await tries.of(backend.shelf.drop_over(now - retention.deliveries_ms, budget)) or 0
        idle = await tries.of(backend.idle(now, budget)) or {}
        users = sum(await self._sent(tries, (RestMove(*each) for each in idle.items())))
        jobs = tuple(job for job in dropped if isinstance(job, Job))
        more = max(len(dropped), keys, uploads, deliveries) >= budget or links > 0
        return Swept(jobs, keys, links, uploads, deliveries, users, more, tuple(tries.faults))

    async def _sent(self, tries: Tries, moves: Iterable[TenantMove]) -> list[Any]:
        """Commit moves; return the answers of those that were."""
        answers = await asyncio.gather(*(tries.of(self._send(move)) for move in moves))
        return [answer for answer in answers if answer is not None]

    async def _cut(self, tries: Tries, ends: Mapping[str, TrailLink]) -> int:
        """Cut trails, each after its newest link to go, once it is written down where the rest begins."""

        async def one(name: str, last: TrailLink) -> int:
            seal = self._chain.link(last.head, anchored(last.version, last.at))
            await self._send(AnchorMove(name, Anchor(last.version, last.at, last.head, seal)))
            return await self._backend.cut(name, last.version)

        cuts = await asyncio.gather(*(tries.of(one(name, last)) for name, last in ends.items()))
        return sum(links or 0 for links in cuts)


class Tries:
    """What is tried, each for itself. `faults` are what came of those that failed."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    async def of(self, step: Awaitable[_T]) -> _T | None:
        """Return what a step comes to; None where it fails. Of a closed tenant that is as it should be."""
        try:
            return await step
        except StoreClosed:
            return None
        except Fault as fault:
            self.faults.append(fault)
            return None
