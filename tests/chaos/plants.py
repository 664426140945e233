"""Faults to plant: each breaks one promise, and the harness must see it.

They are doubles that go in through constructors. A harness that stays green with one of these in the
house proves nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway.providers import open_adapter
from gateway.store.contract import Submitted
from policies import lifecycle
from policies.model import Hold, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.providers.adapter import Adapter
    from gateway.store.contract import Notice, Store
    from policies.model import Job

LATE_SECONDS = 0.1


def sent_blindly(kind: str, base_url: str | None) -> Adapter:
    """Return an adapter that claims its upstream honors idempotency keys: what is open is sent again."""
    adapter = open_adapter(kind, base_url)
    adapter.capabilities = replace(adapter.capabilities, idempotent=True)
    return adapter


class _Early:
    """A store that acknowledges a job before it is durable, and is another one in all else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._late: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def submit(self, job: Job, *rest: Any, key: Any = None) -> Submitted:
        """Say that the job is stored; store it a moment later."""

        async def later() -> None:
            await asyncio.sleep(LATE_SECONDS)
            await self._store.submit(job, *rest, key=key)

        task = asyncio.ensure_future(later())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return Submitted(lifecycle.accepted(job, job.created_at, "", Hold(0, "")), Usage())


def acknowledging(store: Store) -> Store:
    """Return a store that acknowledges before it commits."""
    return _Early(store)


class _Deaf:
    """A store that loses the first deliveries a process claims, and is another one in all else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim_deliveries(self, *claim: Any, **more: Any) -> Sequence[Notice]:
        """Lease them, and say that there are none."""
        claimed = await self._store.claim_deliveries(*claim, **more)
        lost, self._lost = not self._lost and bool(claimed), self._lost or bool(claimed)
        return () if lost else claimed


def losing(store: Store) -> Store:
    """Return a store that loses deliveries."""
    return _Deaf(store)
