"""How thin a back end is: it loads, commits, claims and reads. It holds no rule.

A `Change` is all that one commit does to one tenant. Its version is the tenant's only lock: it covers
users, ledger, trail and every job write that moves money. A change without a version touches one
leased job and nothing else; the job's version and its fence guard it. A back end checks everything a
change expects before it writes any of it, and refuses a change whole, with the state as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from gateway.errors import Fault
from gateway.store.contract import (
    Claim,
    JobFilter,
    LedgerRow,
    Page,
    Remains,
    Retention,
    Shut,
    TrailLink,
)
from gateway.store.shelf_backend import Shelf
from policies.model import Account, Job, Priority, ServiceKey, Upload
from policies.order import Backlog
from policies.quota import IDLE
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.store.format import Forms, Upgrade

SCHEMA: Final = 1
"""The newest form a store is written in, by number: see `format.py`."""
KEYS_KEPT_MS: Final = 72 * 3_600_000
"""How long an idempotency key stays bound, whatever the job's retention."""
UNREADABLE_MS: Final = 24 * 3_600_000
"""How long a job that cannot be read is left alone before it is tried again."""
TURN_TENANTS: Final = 16
"""Tenants served by one claim at most."""

Doc = Endpoint | Upload | ServiceKey
Kind = Literal["endpoint", "upload", "key"]
KINDS: Final[dict[type[Doc], Kind]] = {Endpoint: "endpoint", Upload: "upload", ServiceKey: "key"}

_json = msgspec.json.Encoder()


def encode_doc(value: Doc | Delivery) -> str:
    """Return the stored form of what lies beside the jobs."""
    return _json.encode(value).decode()


class Anchor(Struct, frozen=True):
    """Where a trail that was cut begins: the last link removed, sealed."""

    version: int
    at: int
    head: str
    seal: str


def anchored(version: int, at: int) -> bytes:
    """Return what an anchor's seal is made over, after the head it continues."""
    return f"anchor {version} {at}".encode()


class TenantDoc(Struct, frozen=True, omit_defaults=True):
    """What is kept of a tenant. `last_now` never goes back; `head` is the trail's newest link.

    `hooks` is the number of endpoints: where it is 0 a job's end looks for none. One that is `shut` takes
    no change but to be opened.
    """

    account: Account = Account()
    head: str = ""
    last_now: int = 0
    epoch: int = 0
    anchor: Anchor | None = None
    f: int = 1
    hooks: int = 0
    shut: Shut | None = None


def story(doc: TenantDoc) -> str:
    """Return what tells a document from another of the same version: its part with head and instant.

    As it is encoded: whoever compares looks for it in what is stored.
    """
    head = f'"head":"{doc.head}",' if doc.head else ""
    return f'{head}"last_now":{doc.last_now}'


class TenantState(Struct, frozen=True):
    """A tenant's document and its version; version 0 is a tenant that has not come to be."""

    version: int = 0
    doc: TenantDoc = TenantDoc()


class UserState(Struct, frozen=True):
    """A user's figures and the reference that stands for them. `fresh`: not stored yet.

    Only the reference of an idle user is stored.
    """

    ref: str
    account: Account = IDLE
    fresh: bool = False


class KeyRow(Struct, frozen=True):
    """What an idempotency key is bound to: a job, or an upload. `over`: bound over whatever was there."""

    fingerprint: str
    job: str
    at: int
    over: bool = False


class JobPut(Struct, frozen=True):
    """One job as it will be. `expect` is the stored version (0: must be absent), `due` its queue entry."""

    job: Job
    doc: str
    expect: int
    fence: int | None = None
    due: int | Literal["keep", "drop"] = "keep"


class JobDrop(Struct, frozen=True):
    """One job that will be gone, and the folders its blobs lie in."""

    job: str
    expect: int
    places: tuple[str, ...] = ()


class DocPut(Struct, frozen=True):
    """One document as it will be, whatever is there."""

    value: Doc
    doc: str

    @property
    def kind(self) -> Kind:
        """The kind it is kept under."""
        return KINDS[type(self.value)]

    @property
    def id(self) -> str:
        """Its id, one of its kind."""
        return self.value.id


class DocDrop(Struct, frozen=True):
    """One document that will be gone: an endpoint with all its deliveries, an upload but for its blobs."""

    kind: Kind
    id: str


class DeliveryPut(Struct, frozen=True):
    """One delivery as it will be; `fresh`: it must be absent, else it must be there. Leases of before end.

    `due` is when it may be claimed, `fence` the lease it is changed under, if it is.
    """

    delivery: Delivery
    doc: str
    due: int | None
    fresh: bool = False
    fence: int | None = None


class Change(Struct):
    """All that one commit does to one tenant.

    `hushed` are endpoints whose deliveries of before are no longer due; this change's own may be. `begins`:
    refused where the tenant is shut, although no version is expected. `gate`: shuts the tenant, or opens it.
    `story` is that of the document expected: a version is reached twice where a store went back.
    """

    tenant: str
    now: int
    expect: int | None = None
    state: TenantState | None = None
    users: dict[str, UserState] = {}
    puts: list[JobPut] = []
    drops: list[JobDrop] = []
    keys: dict[tuple[str, str], KeyRow] = {}
    ledger: list[LedgerRow] = []
    link: TrailLink | None = None
    docs: list[DocPut | DocDrop] = []
    deliveries: list[DeliveryPut] = []
    hushed: list[str] = []
    begins: bool = False
    gate: bool = False
    story: str = ""

    @property
    def beside(self) -> bool:
        """Whether anything but jobs is touched. A job that is dropped takes its deliveries along."""
        return bool(self.docs or self.deliveries or self.hushed or self.drops)


class Want(Struct):
    """What to load of a tenant. `endpoints`: all of them. `turn`: it is about to be written to.

    `figures`: of users only those are wanted; a reference may be left out.
    """

    tenant: str
    state: bool = True
    subjects: set[str] = set()
    jobs: set[str] = set()
    keys: set[tuple[str, str]] = set()
    docs: set[tuple[Kind, str]] = set()
    deliveries: set[str] = set()
    endpoints: bool = False
    turn: bool = False
    figures: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is wanted."""
        return bool(
            self.state
            or self.subjects
            or self.jobs
            or self.keys
            or self.docs
            or self.deliveries
            or self.endpoints
        )


class Loaded(Struct):
    """What was there. Absent users and keys are left out; absent jobs, documents, deliveries are None.

    With a `fault` nothing could be read of it, though perhaps of others.
    """

    state: TenantState | None = None
    users: dict[str, UserState] = {}
    jobs: dict[str, Job | None] = {}
    keys: dict[tuple[str, str], KeyRow] = {}
    docs: dict[tuple[Kind, str], Doc | None] = {}
    deliveries: dict[str, Delivery | None] = {}
    endpoints: dict[str, Endpoint] | None = None
    fault: Fault | None = None

    def sound(self) -> Loaded:
        """Return it, or raise its fault."""
        if self.fault is not None:
            raise self.fault
        return self


class Applied(Struct, frozen=True):
    """The change is durable. `shared`: others write there too just now, so that what is known is soon old."""

    shared: bool = False


class Refused(Struct, frozen=True):
    """Nothing of the change was written. `fenced` are jobs and deliveries whose lease is lost.

    `barred`: it was not even looked at, since it is another process' turn to write there.
    """

    loaded: Loaded
    fenced: frozenset[str] = frozenset()
    barred: bool = False


class Failed(Struct, frozen=True):
    """Nobody knows of this change what became of it, or why it could not be written."""

    why: Fault


Outcome = Applied | Refused | Failed


class News(Struct, frozen=True, array_like=True):
    """What another process did: jobs it changed (subject and id) of a tenant, and where there is work."""

    tenant: str = ""
    jobs: tuple[tuple[str, str], ...] = ()
    due: bool = False
    outbox: bool = False
    batch: bool = False
    """Of what is due, whether any is batch."""


class Examined(Struct, frozen=True):
    """Everything of a tenant that can be recomputed, from one moment. `unreadable` are ids of jobs."""

    state: TenantState
    users: dict[str, UserState]
    ledger: tuple[LedgerRow, ...]
    jobs: tuple[Job, ...]
    queued: frozenset[str]
    links: tuple[TrailLink, ...]
    unreadable: frozenset[str] = frozenset()
    endpoints: int = 0


class Expired(Struct, frozen=True):
    """What is past its time: ended jobs, the newest link to cut, by tenant, uploads as tenant and id."""

    jobs: tuple[Job, ...] = ()
    links: dict[str, TrailLink] = {}
    uploads: tuple[tuple[str, str], ...] = ()


class Strange(NamedTuple):
    """Names of histories that are not known, and how many bytes of a known one they lack, at least."""

    names: frozenset[str]
    lost: int = 0


class Backend(Protocol):
    """What an engine needs of a data base."""

    @property
    def shelf(self) -> Shelf:
        """What it keeps beside the jobs."""
        ...

    @property
    def me(self) -> str:
        """The name of this process."""
        ...

    @property
    def forms(self) -> Forms:
        """How documents are written and read."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no other process may write, so that what is kept of a tenant is true."""
        ...

    def listen(self, told: Callable[[News | None], None], turned: Callable[[], None]) -> None:
        """Tell of what other processes do; None where news may have been missed.

        `turned`: the store may not be the one that was written to. It takes no commit until `accept`.
        """
        ...

    def strange(self) -> Strange | None:
        """Return what of the store is not known to be what was written to."""
        ...

    def accept(self, strange: Strange) -> None:
        """Take the store as it is: all that is remembered was compared with it."""
        ...

    async def look(self) -> None:
        """Refuse a store that may lose what it is given, or is not ours to use. Writes nothing."""
        ...

    async def start(self) -> None:
        """Refuse what `look` refuses, then make the store ours."""
        ...

    async def upgrade(self, *, finish: bool) -> Upgrade:
        """Say how the store stands between two forms; `finish`: write the newest from now on, if all can."""
        ...

    def clock(self) -> int:
        """Return the store's time."""
        ...

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Return what is wanted, in order, what cannot be read now with a `fault`."""
        ...

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all, durably, in order."""
        ...

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a line until `until`, tenants in turn."""
        ...

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Extend leases; return the ids of those lost."""
        ...

    async def release(self, claims: Sequence[Claim], due: int) -> None:
        """Make leased jobs due. Lost leases are passed over."""
        ...

    async def get(self, tenant: str, job: str) -> Job | None:
        """Return one job."""
        ...

    async def page(self, tenant: str, where: JobFilter, before: int | None, limit: int) -> Page:
        """Return jobs newest first."""
        ...

    async def position(self, tenant: str, job: str, priority: Priority) -> int:
        """Return how many queued jobs of the tenant are older, in the job's line."""
        ...

    async def ledger(self, tenant: str, after: int, limit: int) -> list[LedgerRow]:
        """Return ledger rows above a version, in order."""
        ...

    async def links(self, tenant: str, before: int | None, limit: int, *, up: bool) -> list[TrailLink]:
        """Return trail links beside a version: below it newest first, or (`up`) above it oldest first."""
        ...

    async def ref_of(self, tenant: str, subject: str) -> str | None:
        """Return a subject's reference."""
        ...

    async def tenants(self) -> list[str]:
        """Return the names of all tenants."""
        ...

    async def examine(self, tenant: str) -> Examined:
        """Return everything of a tenant, of one moment."""
        ...

    async def expired(self, now: int, retention: Retention, budget: int) -> Expired:
        """Return ended jobs, trail links and uploads that are past their time."""
        ...

    async def idle(self, now: int, budget: int) -> dict[str, list[str]]:
        """Return users, by tenant, whose stored figures tell nothing any more; each call looks on further.

        It looks at about `budget` users. One that is found meets the rule again before anything is removed.
        """
        ...

    async def cut(self, tenant: str, version: int) -> int:
        """Remove trail links up to a version; return how many."""
        ...

    async def drop_keys(self, before: int, budget: int) -> int:
        """Remove idempotency keys older than an instant; return how many."""
        ...

    async def remains(self, limit: int) -> list[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        ...

    async def bury(self, remains: Sequence[Remains]) -> bool:
        """Wipe what was dropped from the log, then forget remains; do neither while a reader needs it."""
        ...

    async def next_due(self) -> int | None:
        """Return the earliest instant at which something may be claimed."""
        ...

    async def backlog(self, now: int) -> Backlog:
        """Return how many jobs are due and not leased, a line, and since when. Cheap, however many."""
        ...

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if a write would fail now."""
        ...

    async def close(self) -> None:
        """Let go of everything. Harmless twice."""
        ...
