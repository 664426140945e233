"""The engine: every verb of the contract, once, over any back end.

Calls that change something become moves (`moves.py`) and go to the committer (`committer.py`), which folds
all that wait over what it knows of each tenant and commits the lot in one go: a busy tenant makes bigger
batches, not longer queues. Reads go to the back end. Waiters are woken by name and read for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway.crash import Hook, nowhere
from gateway.errors import StoreUnavailable
from gateway.store.backend import Backend, News
from gateway.store.bell import Bell, due_in
from gateway.store.broom import Broom
from gateway.store.committer import Committer
from gateway.store.contract import (
    Begun,
    Claim,
    Found,
    Granted,
    JobFilter,
    Leases,
    LedgerRow,
    Page,
    Recorded,
    Remains,
    Retention,
    Shut,
    Stale,
    Swept,
    TrailLink,
    Watch,
)
from gateway.store.flight import QUIET, Hears, Patience
from gateway.store.gate_moves import SYSTEM, ReopenMove, reopened
from gateway.store.moves import (
    AttemptMove,
    BeginMove,
    CancelMove,
    CountMove,
    EraseMove,
    GrantMove,
    RecordMove,
    SayMove,
    SubmitMove,
)
from gateway.store.places import Places
from gateway.store.shelf_moves import (
    ChangeEndpointMove,
    DropUploadMove,
    PutDeliveryMove,
    PutKeyMove,
    PutUploadMove,
    RecordDeliveryMove,
    RevokeKeyMove,
)
from policies import lifecycle, order
from policies.model import Attempt, Deny, Job, ServiceKey, Upload, Usage
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.audit import Chain, Record
    from gateway.store import contract

SAFETY_READ_SECONDS: Final = 15.0
LEASES: Final = Leases()
PATIENCE: Final = Patience()
LEASE_MS: Final = LEASES.job_ms
"""How long a claim lasts unless it is renewed."""


class Engine:
    """A `Store` over a `Backend`. Start it on the loop that calls it."""

    def __init__(
        self,
        backend: Backend,
        chain: Chain,
        mint: Callable[[], str],
        *,
        crash: Hook = nowhere,
        hears: Hears = QUIET,
        patience: Patience = PATIENCE,
        leases: Leases = LEASES,
    ) -> None:
        self.backend = backend
        self._leases = leases
        self._crash = crash
        self._patience = patience
        self._bell = Bell()
        self._outbox = asyncio.Event()
        self._busy: Sequence[str] = ()
        hears = hears._replace(queued=self._outbox.set)
        self._committer = Committer(backend, chain, self._bell, mint, hears, patience)
        self._send = self._committer.send
        self._broom = Broom(backend, chain, self._send)
        self._due = asyncio.Event()
        self._places = Places(backend)
        self._tick: dict[tuple[str, str], tuple[int, Job | None]] = {}
        self._reading: dict[tuple[str, str], tuple[int, asyncio.Future[Job | None]]] = {}
        backend.listen(self._heard, self._committer.turned)

    async def start(self) -> None:
        """Refuse to start on a store that may lose what it is given. Call it once, before anything else."""
        await self.backend.start()

    def _heard(self, news: News | None) -> None:
        """Wake whoever waits for what another process did; everybody, where news may have been missed."""
        if news is None:
            self._bell.ring_all()
        else:
            for subject, job in news.jobs:
                self._bell.ring(news.tenant, subject, job)
        if news is None or news.due:
            self._due.set()
        if news is None or news.outbox:
            self._outbox.set()

    # -- verbs that change something -----------------------------------------------------------------

    async def submit(
        self, job: Job, decide: contract.Decide, record: Record, *, key: contract.Key | None = None
    ) -> contract.Submitted | contract.Replayed | contract.Conflict | contract.Erased | contract.Denied:
        """Look up the key, decide, and write job, hold, ledger and trail: all or nothing."""
        move = SubmitMove(job, decide, record, key)
        answer: Any = await self._send(move)
        self._crash("job_stored")
        self._due.set()
        return answer  # type: ignore[no-any-return]

    async def cancel(
        self, tenant: str, job: str, count: contract.Count, record: Record, *, by: str | None = None
    ) -> contract.Canceled | contract.Asked | contract.Ended | contract.Absent | contract.Denied:
        """End a queued job, or ask a running one's worker to."""
        move = CancelMove(tenant, job, count, record, by)
        answer = await self._send(move)
        if move.queued:
            self._crash("delivery_queued")
        return answer  # type: ignore[no-any-return]

    async def erase(
        self, tenant: str, job: str, count: contract.Count, record: Record, *, by: str | None = None
    ) -> contract.Gone | contract.Open | contract.Absent | contract.Denied:
        """Forget an ended job."""
        move = EraseMove(tenant, job, count, record, by)
        return await self._send(move)  # type: ignore[no-any-return]

    async def begin_attempt(self, claim: Claim, attempt: Attempt) -> Begun | Stale:
        """Write an attempt down, durably, before it is sent."""
        move = BeginMove(claim, attempt, self._leased_until)
        return await self._send(move)  # type: ignore[no-any-return]

    async def note_attempt(self, claim: Claim, attempt: Attempt) -> Begun | Stale:
        """Write down what is now known of an attempt."""
        move = AttemptMove(claim, lambda job, _now: lifecycle.noted(job, attempt), self._leased_until)
        return await self._send(move)  # type: ignore[no-any-return]

    async def record(self, claim: Claim, end: contract.End, record: Record) -> Recorded | Stale:
        """End the job, settle its hold, tell the trail: one step, once."""
        move = RecordMove(claim, end, record)
        answer = await self._send(move)
        self._crash("recorded")
        if move.queued:
            self._crash("delivery_queued")
        return answer  # type: ignore[no-any-return]

    async def count(self, tenant: str, subject: str, count: contract.Count) -> Usage | Deny:
        """Count a call that changes nothing else."""
        move = CountMove(tenant, subject, count)
        return await self._send(move)  # type: ignore[no-any-return]

    async def grant(self, tenant: str, subject: str | None, post: Any, key: str, record: Record) -> Granted:
        """Give credits once per `key`."""
        move = GrantMove(tenant, subject, post, key, record)
        return await self._send(move)  # type: ignore[no-any-return]

    async def append_audit(self, tenant: str, subject: str, record: Record) -> None:
        """Tell the trail something that changed nothing else."""
        move = SayMove(tenant, subject, record)
        await self._send(move)
        self._crash("audit_appended")

    def _leased_until(self, job: Job, now: int) -> int:
        """Return when a leased job may be claimed by another: never while a paid call may be under way."""
        margin = self._leases.attempt_margin_ms
        calls = [a.deadline_at + margin for a in job.attempts if a.open and a.upstream_id is None]
        return max([now + self._leases.job_ms, *calls])

    async def reopen(self, tenant: str, by: str) -> Shut | None:
        """Open a closed tenant again; return why it was closed, None where it was not."""
        shut: Shut | None = await self._send(ReopenMove(tenant, by))
        if shut is not None:
            await self._send(SayMove(SYSTEM, by, reopened(tenant)))
        return shut

    async def claim(self, n: int, lease_ms: int) -> Sequence[Claim]:
        """Lease due jobs, tenants in turn, interactive ones first."""
        claims = await self._places.claim(n, lease_ms)
        if claims:
            self._crash("claimed")
        return claims

    async def renew(self, claims: Sequence[Claim], lease_ms: int) -> frozenset[str]:
        """Extend leases; return the ids of jobs whose lease was lost."""
        return await self.backend.renew(claims, self.backend.clock() + lease_ms)

    async def give_back(self, claims: Sequence[Claim], after_ms: int = 0) -> None:
        """Let others have the jobs."""
        await self.backend.release(claims, self.backend.clock() + after_ms)
        self._due.set()
        if claims:
            self._crash("lease_returned")

    async def sweep(self, retention: Retention, budget: int = 200) -> Swept:
        """Remove what is past its time, at most `budget` things of each sort."""
        return await self._broom.sweep(retention, budget)

    async def remains(self, limit: int = 200) -> Sequence[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        return await self.backend.remains(limit)

    async def buried(self, remains: Sequence[Remains]) -> bool:
        """Forget remains whose blobs were deleted, once no text of theirs is in the store's files."""
        return await self.backend.bury(remains)

    # -- service keys and uploads --------------------------------------------------------------------

    async def put_key(
        self, key: ServiceKey, count: contract.Count, record: Record, *, by: str
    ) -> contract.Kept | contract.Denied:
        """Keep a new service key."""
        move = PutKeyMove(key, count, record, by)
        return await self._send(move)  # type: ignore[no-any-return]

    async def revoke_key(
        self, tenant: str, key: str, count: contract.Count, record: Record, *, by: str
    ) -> contract.Kept | contract.Absent | contract.Denied:
        """Revoke a key, for ever."""
        move = RevokeKeyMove(tenant, key, count, record, by)
        return await self._send(move)  # type: ignore[no-any-return]

    async def find_key(self, digest: str) -> ServiceKey | None:
        """Return the key of a hash (hex), whatever its tenant."""
        return await self.backend.shelf.key_of(digest)

    async def list_keys(self, tenant: str) -> Sequence[ServiceKey]:
        """Return all keys of a tenant, newest first."""
        return await self.backend.shelf.keys(tenant)

    async def put_upload(
        self, upload: Upload, count: contract.Count, record: Record, *, key: contract.Key | None = None
    ) -> contract.Kept | contract.Conflict | contract.Erased | contract.Denied:
        """Keep what was declared of an upload, or return the one its key made before."""
        move = PutUploadMove(upload, count, record, key)
        return await self._send(move)  # type: ignore[no-any-return]

    async def get_upload(self, tenant: str, upload: str) -> Upload | None:
        """Return an upload of the tenant."""
        return await self.backend.shelf.upload(tenant, upload)

    async def drop_upload(self, tenant: str, upload: str) -> None:
        """Forget an upload. Harmless twice."""
        move = DropUploadMove(tenant, upload)
        await self._send(move)

    # -- webhooks ------------------------------------------------------------------------------------

    async def change_endpoint(
        self, tenant: str, change: contract.Endpoints, count: contract.Count, record: Record, *, by: str
    ) -> contract.Kept | contract.Dropped | contract.Absent | contract.Denied:
        """Put or drop one endpoint by a rule over all of the tenant's."""
        move = ChangeEndpointMove(tenant, change, count, record, by)
        return await self._send(move)  # type: ignore[no-any-return]

    async def list_endpoints(self, tenant: str) -> Sequence[Endpoint]:
        """Return all endpoints of the tenant, oldest first."""
        return await self.backend.shelf.endpoints(tenant)

    async def put_delivery(
        self, delivery: Delivery, count: contract.Count, record: Record, *, by: str
    ) -> contract.Kept | contract.Absent | contract.Denied:
        """Make a delivery due: a new one (a test), or one of before again."""
        move = PutDeliveryMove(delivery, count, record, by)
        return await self._send(move)  # type: ignore[no-any-return]

    async def get_delivery(self, tenant: str, delivery: str) -> Delivery | None:
        """Return a delivery."""
        return await self.backend.shelf.delivery(tenant, delivery)

    async def list_deliveries(
        self, tenant: str, endpoint: str, *, before: int | None, limit: int
    ) -> contract.DeliveryPage:
        """Return an endpoint's deliveries, newest first."""
        return await self.backend.shelf.page(tenant, endpoint, before, limit)

    async def claim_deliveries(
        self, n: int, lease_ms: int, *, busy: Sequence[str] = (), each: int = 4
    ) -> Sequence[contract.Notice]:
        """Lease due deliveries, at most `each` an endpoint and none of `busy` endpoints, oldest due first."""
        self._busy = tuple(busy)
        self._outbox.clear()
        now = self.backend.clock()
        return await self.backend.shelf.claim(n, each, self._busy, now, now + lease_ms)

    async def record_delivery(
        self, notice: contract.Notice, told: contract.Told, record: Record | None = None
    ) -> contract.Kept | Stale:
        """Write down what came of a try, for the delivery and its endpoint, in one step."""
        move = RecordDeliveryMove(notice, told, record)
        answer = await self._send(move)
        self._crash("delivery_recorded")
        return answer  # type: ignore[no-any-return]

    async def release_deliveries(self, notices: Sequence[contract.Notice], after_ms: int = 0) -> None:
        """Make leased deliveries due again, untried."""
        await self.backend.shelf.release(notices, self.backend.clock() + after_ms)
        self._outbox.set()

    async def deliveries_due(self, seconds: float) -> None:
        """Return when there may be a delivery to claim, or when the time ran out.

        What is due at endpoints that were busy at the last claim does not count until a delivery was
        queued, recorded or released since.
        """
        if self._outbox.is_set():
            self._busy = ()
        await due_in(
            self._outbox, lambda: self.backend.shelf.next_due(self._busy), self.backend.clock, seconds
        )

    # -- verbs that read -----------------------------------------------------------------------------

    async def get_job(self, tenant: str, job: str, reader: str) -> Found | None:
        """Return a job of the tenant and the reader's usage."""
        if not self.backend.alone:
            return await self._committer.found(tenant, job, reader)
        found = await self._read(tenant, job)
        return Found(found, await self.usage(tenant, reader)) if found else None

    async def list_jobs(self, tenant: str, where: JobFilter, *, before: int | None, limit: int) -> Page:
        """Return jobs newest first."""
        return await self.backend.page(tenant, where, before, limit)

    async def position(self, tenant: str, job: Job) -> int:
        """Return how many queued jobs of the tenant are older, in the job's line."""
        return await self.backend.position(tenant, job.id, job.priority)

    async def wait_job(self, tenant: str, job: str, after: int, seconds: float) -> Job | None:
        """Return the job once its version passes `after`, or as it is when the time ran out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        watch = self._bell.watch(tenant, None, job)
        try:
            while True:
                found = await self._read_together(tenant, job)
                left = until - loop.time()
                if found is None or found.version > after or left <= 0:
                    return found
                await watch.changed(min(left, SAFETY_READ_SECONDS))
        finally:
            watch.close()

    def watch(self, tenant: str, subject: str | None = None, job: str | None = None) -> Watch:
        """Subscribe to changes of a job, of a subject's jobs, or of all the tenant's."""
        return self._bell.watch(tenant, subject, job)

    async def work_due(self, seconds: float) -> None:
        """Return when there may be something to claim, or when the time ran out."""
        await due_in(self._due, self.backend.next_due, self.backend.clock, seconds)

    async def backlog(self) -> order.Backlog:
        """Return what is due and nobody works on, over all tenants."""
        return await self.backend.backlog(self.backend.clock())

    async def usage(self, tenant: str, subject: str) -> Usage:
        """Return both levels as they are."""
        return await self._committer.account(tenant, subject)

    async def ledger(self, tenant: str, after: int = 0, limit: int = 1000) -> Sequence[LedgerRow]:
        """Return ledger entries of versions above `after`, in order."""
        return await self.backend.ledger(tenant, after, limit)

    async def audit_page(
        self,
        tenant: str,
        *,
        before: int | None = None,
        limit: int = 100,
        order: Literal["up", "down"] = "down",
    ) -> Sequence[TrailLink]:
        """Return links of the trail."""
        return await self.backend.links(tenant, before, limit, up=order == "up")

    async def ref_of(self, tenant: str, subject: str) -> str | None:
        """Return the reference that stands for a subject."""
        return await self.backend.ref_of(tenant, subject)

    async def now(self) -> int:
        """Return the store's time."""
        return self.backend.clock()

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store would not take a write now."""
        if not self._committer.alive:
            raise StoreUnavailable("the store is closed")
        try:
            async with asyncio.timeout(self._patience.commit):
                await self.backend.ping()
        except TimeoutError:
            raise StoreUnavailable("the store does not answer") from None

    async def close(self) -> None:
        """Write what was accepted, then let go."""
        try:
            await self._committer.close()
        finally:
            await self.backend.close()

    async def _read(self, tenant: str, job: str) -> Job | None:
        """Read a job once a tick, however many wait for it; a read begun before a change is not shared."""
        name, rings = (tenant, job), self._bell.rings
        kept = self._tick.get(name)
        if kept is not None and kept[0] == rings:
            return kept[1]
        found = await self.backend.get(tenant, job)
        if not self._tick:
            asyncio.get_running_loop().call_soon(self._tick.clear)
        self._tick[name] = (rings, found)
        return found

    async def _read_together(self, tenant: str, job: str) -> Job | None:
        """Read a job as one of many who wait for it: they share a read that is under way.

        Not for a caller who may have been told more than a read that began before they came.
        """
        name, task = (tenant, job), asyncio.current_task()
        before = task.cancelling() if task else 0
        while True:
            under_way = self._reading.get(name)
            if under_way is None or under_way[0] != self._bell.rings:
                return await self._read_for_all(name)
            try:
                return await asyncio.shield(under_way[1])
            except asyncio.CancelledError:
                if not under_way[1].cancelled() or (task and task.cancelling() > before):
                    raise

    async def _read_for_all(self, name: tuple[str, str]) -> Job | None:
        mine = self._bell.rings, asyncio.get_running_loop().create_future()
        self._reading[name] = mine
        try:
            found = await self._read(*name)
            mine[1].set_result(found)
        finally:
            mine[1].cancel()  # nobody's answer came: the next of those who share it reads
            if self._reading.get(name) is mine:
                del self._reading[name]
        return found
