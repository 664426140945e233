"""The sweep: what retention lets go of leaves the store, in bounded steps.

What names money, a key or the trail goes by moves, as it came; what only points at them the back end
removes by itself. What a step may remove is asked first, so that two processes that sweep at once do the
same thing twice at worst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

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


class Broom:
    """Sweeps one store. `send` commits a move."""

    def __init__(self, backend: Backend, chain: Chain, send: Callable[[TenantMove], Awaitable[Any]]) -> None:
        self._backend = backend
        self._chain = chain
        self._send = send

    async def sweep(self, retention: Retention, budget: int) -> Swept:
        """Remove what is past its time, at most `budget` things of each sort."""
        now = self._backend.clock()
        expired = await self._backend.expired(now, retention, budget)
        dropped = await asyncio.gather(*(self._send(DropMove(job)) for job in expired.jobs))
        links = await self._cut(expired.links)
        keys = await self._backend.drop_keys(now - max(retention.keys_ms, KEYS_KEPT_MS), budget)
        over = now - retention.uploads_ms
        moves = [DropUploadMove(tenant, upload, over) for tenant, upload in expired.uploads]
        uploads = sum(await asyncio.gather(*map(self._send, moves)))
        deliveries = await self._backend.shelf.drop_over(now - retention.deliveries_ms, budget)
        idle = await self._backend.idle(now, budget)
        users = sum(await asyncio.gather(*(self._send(RestMove(*each)) for each in idle.items())))
        jobs = tuple(job for job in dropped if isinstance(job, Job))
        more = max(len(expired.jobs), keys, len(expired.uploads), deliveries) >= budget or links > 0
        return Swept(jobs, keys, links, uploads, deliveries, users, more)

    async def _cut(self, ends: Mapping[str, TrailLink]) -> int:
        """Cut trails, each after its newest link to go, once it is written down where the rest begins."""
        moves = []
        for name, last in ends.items():
            seal = self._chain.link(last.head, anchored(last.version, last.at))
            moves.append(AnchorMove(name, Anchor(last.version, last.at, last.head, seal)))
        await asyncio.gather(*map(self._send, moves))
        return sum([await self._backend.cut(name, last.version) for name, last in ends.items()])
