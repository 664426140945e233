"""What a store can be asked: complete, atomic sentences.

Tenant comes first, always. Expected results are values; only `StoreUnavailable` and `StoreBusy` are
raised. A verb that changes something takes its rule with it (`Decide`, `Change`): a pure function of
the state as it is at that moment and of the store's own time, which may run more than once. The store
knows *that* something is decided, never *what*. No meaning hangs on a TTL: an expiry that matters is a
stored instant. Webhook rows, ledger and trail are written in the same step as what they tell of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from gateway.audit import Record
from gateway.errors import Fault
from gateway.store.bell import ANY
from gateway.store.shelf import (
    DeliveryPage,
    Dropped,
    Endpoints,
    Hooks,
    Kept,
    Keys,
    Notice,
    Told,
    Uploads,
)
from policies.model import Attempt, Deny, Entry, Job, JobState, Usage
from policies.order import Backlog
from policies.quota import Admitted, Posted

__all__ = [  # of what lies beside: the rest of this module is its own
    "ANY",
    "DeliveryPage",
    "Dropped",
    "Endpoints",
    "Hooks",
    "Kept",
    "Keys",
    "Notice",
    "Told",
    "Uploads",
]

Decide = Callable[[Usage, int], Admitted | Deny]
"""From the usage as it is and the store's time to what is admitted."""

Count = Callable[[Usage, int], Usage | Deny]
"""Counts a call that is not a submit against its window."""

End = Callable[[Job, int], Job]
"""From a job as it is now to the same job ended."""


class Key(Struct, frozen=True):
    """An idempotency key, and the fingerprint of the request it came with.

    `once`: binds a free key; a bound one answers. The two others are of requests that bring no key and
    are told by their fingerprint alone. `attach`: a repeat; answers with the job the key is bound to, if
    that is open or succeeded and the key was bound at most `within_ms` ago, and else binds the key anew.
    `renew`: a first send; makes a job whatever the key is bound to, and binds the key to it.
    """

    text: str
    fingerprint: str
    mode: Literal["once", "attach", "renew"] = "once"
    within_ms: int = 3_600_000


class Submitted(Struct, frozen=True):
    """The job is in the store, its credits are held."""

    job: Job
    usage: Usage


class Replayed(Struct, frozen=True):
    """The key had made this job already; it is returned as it is now."""

    job: Job
    usage: Usage


class Conflict(Struct, frozen=True):
    """The key had been used with another request."""


class Erased(Struct, frozen=True):
    """The key had made a job that was deleted."""


class Denied(Struct, frozen=True):
    """The rule said no. Nothing was written but a line of the trail."""

    deny: Deny
    usage: Usage


class Found(Struct, frozen=True):
    """A job and its reader's usage, of one read."""

    job: Job
    usage: Usage


class Canceled(Struct, frozen=True):
    """The job was queued and is canceled; its hold came back."""

    job: Job


class Asked(Struct, frozen=True):
    """The job runs; its worker has been asked to stop."""

    job: Job


class Ended(Struct, frozen=True):
    """The job was over already."""

    job: Job


class Absent(Struct, frozen=True):
    """There is no such job."""


class Open(Struct, frozen=True):
    """The job has not ended, so it cannot be erased."""


class Gone(Struct, frozen=True):
    """The job has been erased; its blobs are the caller's to delete, and `remains` until they are."""

    job: Job


class Remains(Struct, frozen=True):
    """What may be left of a job that was dropped: blobs in `places`, and its text in the store's log."""

    tenant: str
    job: str
    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job) -> Remains:
        """Return what a job leaves behind: the folders its outputs lie in."""
        places = {output.key.rpartition("/")[0] for output in job.outputs}
        return cls(job.tenant, job.id, tuple(sorted(places)))


class Claim(Struct, frozen=True):
    """A leased job. Only the newest `fence` of a job may change it."""

    job: Job
    fence: int


class Leases(Struct, frozen=True):
    """How long what a process took is its own, in milliseconds.

    `job_ms` is a claim's length unless it is renewed; `attempt_margin_ms` comes on top of an open attempt's
    deadline, `delivery_margin_ms` on top of a delivery's, before another process may take it.
    """

    job_ms: int = 30_000
    attempt_margin_ms: int = 10_000
    delivery_margin_ms: int = 30_000

    @property
    def renew_seconds(self) -> float:
        """When a claim is renewed: at a third of its time."""
        return self.job_ms / 3000


class Begun(Struct, frozen=True):
    """The attempt is durable: now it may be sent."""

    job: Job


class Recorded(Struct, frozen=True):
    """The job has ended, settled, in one step."""

    job: Job


class Stale(Struct, frozen=True):
    """The lease is lost or the job is over: nothing was changed, nothing may be sent."""

    job: Job | None = None


class Granted(Struct, frozen=True):
    """The credits are there. `replayed`: they were before."""

    usage: Usage
    replayed: bool = False


class JobFilter(Struct, frozen=True):
    """Which jobs to list. `subject` None means the whole tenant; instants are `created_at` bounds."""

    subject: str | None = None
    states: frozenset[JobState] = frozenset()
    operation: str | None = None
    model: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: Mapping[str, str] = {}


class Page(Struct, frozen=True):
    """Newest first; `next` continues below the last, None at the end."""

    jobs: tuple[Job, ...]
    next: int | None = None


class LedgerRow(Struct, frozen=True):
    """One entry as it is kept."""

    version: int
    index: int
    ref: str
    entry: Entry
    policy_version: str
    at: int


class TrailLink(Struct, frozen=True):
    """One sealed commit of the trail."""

    version: int
    at: int
    head: str
    rows: bytes


class Swept(Struct, frozen=True):
    """What one bounded step of the sweep removed. `jobs` are among `remains` until they are buried.

    `users` are those whose figures told nothing. They are looked for all the time, and make no `more`.
    `faults` stood in the way of some, and of nothing else. What belongs to a closed tenant stays, unsaid.
    """

    jobs: tuple[Job, ...] = ()
    keys: int = 0
    links: int = 0
    uploads: int = 0
    deliveries: int = 0
    users: int = 0
    more: bool = False
    faults: tuple[Fault, ...] = ()


class Retention(Struct, frozen=True):
    """How long things are kept, in milliseconds after their end (jobs) or their making (the others)."""

    jobs_ms: int
    trail_ms: int
    keys_ms: int = 72 * 3_600_000
    uploads_ms: int = 24 * 3_600_000
    """After their `expires_at`: a job made in the last minute still reads its uploads."""
    deliveries_ms: int = 30 * 24 * 3_600_000


class Shut(Struct, frozen=True, omit_defaults=True):
    """Why a tenant is closed: the process `by` knew of a `version` and `head` that the store had lost.

    `found` is what was there instead; `job` is one whose version went back, if that showed it. `lost` stands
    with the house's own tenant, which stays open: bytes that the store as a whole is known to lack.
    """

    at: int
    by: str
    version: int = 0
    head: str = ""
    found: int = 0
    found_head: str = ""
    job: str | None = None
    lost: int = 0


class Watch(Protocol):
    """A subscription: told which jobs changed. Registered before anything is read, so nothing is missed."""

    async def changed(self, seconds: float) -> frozenset[str]:
        """Wait for changes; return the ids of changed jobs, empty when the time ran out.

        `ANY` among them: others may have changed too, and nobody knows which.
        """
        ...

    def close(self) -> None:
        """End the subscription. Harmless twice."""
        ...


class Store(Keys, Uploads, Hooks, Protocol):
    """Everything that is kept, behind atomic verbs."""

    async def start(self) -> None:
        """Refuse to start on a store that may lose what it is given. Once, before anything else."""
        ...

    async def submit(
        self, job: Job, decide: Decide, record: Record, *, key: Key | None = None
    ) -> Submitted | Replayed | Conflict | Erased | Denied:
        """Look up the key, decide, and write job, hold, ledger and trail: all or nothing."""
        ...

    async def get_job(self, tenant: str, job: str, reader: str) -> Found | None:
        """Return a job of the tenant and the reader's usage."""
        ...

    async def list_jobs(self, tenant: str, where: JobFilter, *, before: int | None, limit: int) -> Page:
        """Return jobs newest first, stable under inserts. A page may be short and still have a `next`."""
        ...

    async def position(self, tenant: str, job: Job) -> int:
        """Return how many queued jobs of the tenant are older, in the job's line."""
        ...

    async def cancel(
        self, tenant: str, job: str, count: Count, record: Record, *, by: str | None = None
    ) -> Canceled | Asked | Ended | Absent | Denied:
        """End a queued job, or ask a running one's worker to. An ended job is left as it is.

        `by` is the subject who calls, counted and told of; None stands for the job's owner.
        """
        ...

    async def erase(
        self, tenant: str, job: str, count: Count, record: Record, *, by: str | None = None
    ) -> Gone | Open | Absent | Denied:
        """Forget an ended job: prompt, inputs, outputs. Its key stays bound and answers `Erased`.

        `by` as of `cancel`.
        """
        ...

    async def claim(self, n: int, lease_ms: int) -> Sequence[Claim]:
        """Lease due jobs, tenants in turn: interactive ones first, and of each eight one of batch."""
        ...

    async def renew(self, claims: Sequence[Claim], lease_ms: int) -> frozenset[str]:
        """Extend leases; return the ids of jobs whose lease was lost."""
        ...

    async def give_back(self, claims: Sequence[Claim], after_ms: int = 0) -> None:
        """Let others have the jobs, at once or after a while. Lost leases are passed over."""
        ...

    async def begin_attempt(self, claim: Claim, attempt: Attempt) -> Begun | Stale:
        """Write an attempt down, durably, before it is sent."""
        ...

    async def note_attempt(self, claim: Claim, attempt: Attempt) -> Begun | Stale:
        """Write down what is now known of an attempt: its upstream id, its next request, its close."""
        ...

    async def record(self, claim: Claim, end: End, record: Record) -> Recorded | Stale:
        """End the job, settle its hold, tell the trail: one step, once."""
        ...

    async def wait_job(self, tenant: str, job: str, after: int, seconds: float) -> Job | None:
        """Return the job once its version passes `after`, or as it is when the time ran out."""
        ...

    def watch(self, tenant: str, subject: str | None = None, job: str | None = None) -> Watch:
        """Subscribe to changes of a job, of a subject's jobs, or of all the tenant's."""
        ...

    async def work_due(self, seconds: float) -> None:
        """Return when there may be something to claim, or when the time ran out."""
        ...

    async def backlog(self) -> Backlog:
        """Return what is due and nobody works on, over all tenants. Asked about once a second."""
        ...

    async def usage(self, tenant: str, subject: str) -> Usage:
        """Return both levels as they are."""
        ...

    async def count(self, tenant: str, subject: str, count: Count) -> Usage | Deny:
        """Count a call that changes nothing else."""
        ...

    async def grant(
        self, tenant: str, subject: str | None, post: Callable[[Usage, int], Posted], key: str, record: Record
    ) -> Granted:
        """Give credits once per `key`, to the tenant or to one user."""
        ...

    async def ledger(self, tenant: str, after: int = 0, limit: int = 1000) -> Sequence[LedgerRow]:
        """Return ledger entries of versions above `after`, in order: about `limit`, whole versions."""
        ...

    async def append_audit(self, tenant: str, subject: str, record: Record) -> None:
        """Tell the trail something that changed nothing else."""
        ...

    async def reopen(self, tenant: str, by: str) -> Shut | None:
        """Open a tenant that was closed because the store lost some of it; return why, None if it was not.

        A closed tenant can be read; what would change it raises `StoreClosed`, but for what is noted of its
        attempts and of tries of its deliveries. `by` is told the trail.
        """
        ...

    async def audit_page(
        self,
        tenant: str,
        *,
        before: int | None = None,
        limit: int = 100,
        order: Literal["up", "down"] = "down",
    ) -> Sequence[TrailLink]:
        """Return links of the trail, newest first or (`up`) oldest first above `before`."""
        ...

    async def ref_of(self, tenant: str, subject: str) -> str | None:
        """Return the reference that stands for a subject in ledger and trail."""
        ...

    async def sweep(self, retention: Retention, budget: int = 200) -> Swept:
        """Remove what is past its time, at most `budget` things. Open jobs are never removed."""
        ...

    async def remains(self, limit: int = 200) -> Sequence[Remains]:
        """Return what dropped jobs left behind, oldest first. Written in one step with the drop."""
        ...

    async def buried(self, remains: Sequence[Remains]) -> bool:
        """Forget remains whose blobs were deleted, once no text of theirs is in the store's files.

        False where another process reads the old text just now: they stay, to be buried again.
        """
        ...

    async def now(self) -> int:
        """Return the store's time."""
        ...

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store would not take a write now."""
        ...

    async def close(self) -> None:
        """Write what was accepted, then let go."""
        ...
