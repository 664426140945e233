"""Faults to plant: each breaks one promise, and the harness must see it.

They are doubles that go in through constructors: around the store, behind its engine, or in an adapter's
place. A harness that stays green with one of these in the house proves nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec.structs import replace

from gateway.providers import open_adapter
from gateway.store.backend import Applied, Change, TenantState
from gateway.store.contract import Submitted
from policies import lifecycle
from policies.model import Account, Hold, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.app import Choices
    from gateway.providers.adapter import Adapter
    from gateway.store.backend import Backend, Outcome
    from gateway.store.contract import Claim, Notice, Store
    from policies.model import Job

Plant = Literal["", "blind", "deaf", "early", "fenceless", "resent", "twice", "unheld"]
LATE_SECONDS: Final = 0.1
EACH: Final = 5
"""Of so many commits of a kind one goes wrong."""


def planted(plant: Plant, choices: Choices) -> Choices:
    """Return what a process has in place of the real, with a fault where one is planted."""
    match plant:
        case "blind":
            return replace(choices, adapters=sent_blindly)
        case "deaf":
            return replace(choices, around=_Deaf)
        case "early":
            return replace(choices, around=_Early)
        case "fenceless":
            return replace(choices, behind=_Fenceless)
        case "resent":
            return replace(choices, behind=_Resent)
        case "twice":
            return replace(choices, behind=_Twice)
        case "unheld":
            return replace(choices, behind=_Unheld)
        case _:
            return choices


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


class _Deaf:
    """A store that loses the first deliveries a process claims, and is another one in all else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim_deliveries(self, *claim: Any, **more: Any) -> Sequence[Notice]:
        """Lease them, and say that there are none; nobody hears of them again."""
        claimed = await self._store.claim_deliveries(*claim, **more)
        lost, self._lost = not self._lost and bool(claimed), self._lost or bool(claimed)
        if lost:
            await self._store.release_deliveries(claimed, 3_600_000)
        return () if lost else claimed


class _Behind:
    """A back end whose commits are changed on their way, and another one in all else."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _due(self, *, fits: bool) -> bool:
        """Whether a commit is one of those that go wrong."""
        self._count += fits
        return fits and self._count % EACH == 0


class _Fenceless(_Behind):
    """Takes what a process writes whose lease another has by now."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Forget the fences."""
        for change in changes:
            change.puts = [replace(put, fence=None) for put in change.puts]
        return await self._backend.commit(changes)

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Say that no lease is lost."""
        await self._backend.renew(claims, until)
        return frozenset()


class _Resent(_Behind):
    """A client with its retries on: a reply that is taken for lost is asked for by a new commit."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit, and sometimes what moves money once more, under a new number."""
        outcomes = await self._backend.commit(changes)
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Applied) and change.state and self._due(fits=bool(change.ledger)):
                await self._backend.commit([_again(change, change.state)])
        return outcomes


def _again(change: Change, state: TenantState) -> Change:
    rows = [replace(row, version=row.version + 1) for row in change.ledger]
    return Change(
        change.tenant,
        change.now,
        expect=state.version,
        state=TenantState(state.version + 1, state.doc),
        ledger=rows,
    )


class _Twice(_Behind):
    """Gives a job's place in flight back twice when it ends."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Take one more off the places in flight of tenant and user."""
        for change in changes:
            ends = any(row.entry.kind == "settle" for row in change.ledger)
            if change.state is not None and self._due(fits=ends):
                doc = change.state.doc
                change.state = replace(change.state, doc=replace(doc, account=_freed(doc.account)))
                change.users = {
                    n: replace(user, account=_freed(user.account)) for n, user in change.users.items()
                }
        return await self._backend.commit(changes)


def _freed(account: Account) -> Account:
    return replace(account, flight=max(0, account.flight - 1))


class _Unheld(_Behind):
    """Holds for a job, and does not store it."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Leave new jobs out of some commits."""
        for change in changes:
            fresh = any(put.expect == 0 for put in change.puts)
            if self._due(fits=fresh):
                change.puts = [put for put in change.puts if put.expect]
        return await self._backend.commit(changes)
