"""A tenant as one commit will leave it, while moves are folded into it.

A draft starts from what is known and gathers what the moves write; `seal` turns it into a `Change` with
one link of the trail. Everything here is memory: a draft that is refused is thrown away and folded
again from fresher state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.audit import Chain, Record, encode, genesis
from gateway.store.backend import (
    KINDS,
    Change,
    DeliveryPut,
    Doc,
    DocDrop,
    DocPut,
    JobDrop,
    JobPut,
    KeyRow,
    Kind,
    TenantDoc,
    TenantState,
    UserState,
    Want,
    encode_doc,
    story,
)
from gateway.store.contract import LedgerRow, Remains, TrailLink
from policies import webhooks
from policies.model import Entry, Usage
from policies.quota import IDLE
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.errors import Fault
    from gateway.store.contract import Shut
    from gateway.store.format import Forms
    from policies.model import Job

Mint = Callable[[], str]


class Missing(Exception):  # noqa: N818 - from fold to engine, never seen outside
    """The fold needs something that was not loaded. Raised before anything is written."""

    def __init__(self, add: Callable[[Want], None]) -> None:
        super().__init__()
        self.add = add
        """Adds what is missing to what is to be loaded."""


class Scene(Struct):
    """What is known of a tenant before a fold. None stands for what is known to be absent.

    A key that is not here is taken for free where it is to be bound: the commit proves it. `fenced` are
    leases known to be lost, as job or delivery and fence. `endpoints` are all of the tenant's, once known.
    With a `fault` the tenant cannot be read.
    """

    state: TenantState
    users: dict[str, UserState | None]
    jobs: dict[str, Job | None]
    keys: dict[tuple[str, str], KeyRow | None]
    fenced: set[tuple[str, int]]
    docs: dict[tuple[Kind, str], Doc | None] = {}
    deliveries: dict[str, Delivery | None] = {}
    endpoints: dict[str, Endpoint] | None = None
    fault: Fault | None = None


class Draft:
    """The state after the moves folded so far, and all they write."""

    def __init__(self, tenant: str, scene: Scene, now: int, mint: Mint, forms: Forms) -> None:
        self.tenant = tenant
        self.scene = scene
        self.at = now
        self.now = max(now, scene.state.doc.last_now)
        self.account = scene.state.doc.account
        self.tenant_doc = scene.state.doc
        self.wrote = False
        self._mint = mint
        self._forms = forms
        self._users: dict[str, UserState] = {}
        self._puts: dict[str, JobPut] = {}
        self._drops: dict[str, JobDrop] = {}
        self._keys: dict[tuple[str, str], KeyRow] = {}
        self._ledger: list[LedgerRow] = []
        self._records: list[Record] = []
        self._denials: dict[tuple[str, str | None, str | None], int] = {}
        self._docs: dict[tuple[Kind, str], DocPut | DocDrop] = {}
        self._deliveries: dict[str, DeliveryPut] = {}
        self._hushed: list[str] = []
        self._gate = False
        self._above = 0

    def user(self, subject: str) -> UserState:
        """Return a user's figures; one never seen gets a reference now."""
        user = self._users.get(subject)
        if user is None:
            if subject not in self.scene.users:
                raise Missing(lambda want: want.subjects.add(subject))
            user = self.scene.users[subject]
            if user is None:
                user = self._users[subject] = UserState(self._mint(), IDLE, fresh=True)
        return user

    def rest(self, subject: str) -> None:
        """Let a user have no figures: none are stored until there is something to tell."""
        user = self.user(subject)
        self._users[subject] = UserState(user.ref, IDLE, user.fresh)
        self.wrote = True

    def usage(self, subject: str) -> Usage:
        """Return both levels as they are in this draft."""
        return Usage(self.account, self.user(subject).account)

    def job(self, job: str, claimed: Job | None = None) -> Job | None:
        """Return a job as it is in this draft; one not loaded is taken as `claimed`, if that is given."""
        if job in self._drops:
            return None
        if job in self._puts:
            return self._puts[job].job
        if job not in self.scene.jobs and claimed is None:
            raise Missing(lambda want: want.jobs.add(job))
        return self.scene.jobs.get(job, claimed)

    def key(self, subject: str, key: str) -> KeyRow | None:
        """Return what a key is bound to in this draft."""
        return self._keys.get((subject, key)) or self.scene.keys.get((subject, key))

    def need_key(self, subject: str, key: str) -> None:
        """Insist on knowing whether a key is bound: an answer that binds nothing does not prove it."""
        if (subject, key) not in self.scene.keys:
            raise Missing(lambda want: want.keys.add((subject, key)))

    def made(self, job: str) -> Job | None:
        """Return a job of this id if one is known to be there, without loading any."""
        return self._puts[job].job if job in self._puts else self.scene.jobs.get(job)

    def bind(self, subject: str, key: str, row: KeyRow) -> None:
        """Bind a key: one that is free, or (`over`) whatever it is. Taken for free once, it must be."""
        before = self._keys.get((subject, key))
        over = row.over and (before is None or before.over)
        self._keys[subject, key] = replace(row, over=over)

    def post(
        self, subject: str, usage: Usage, entries: Sequence[Entry] = (), policy_version: str = ""
    ) -> None:
        """Take over both levels' figures and the ledger entries that made them so."""
        user = self.user(subject)
        self.wrote = True
        self.account = usage.tenant
        self._users[subject] = UserState(user.ref, usage.user, user.fresh)
        version = self.scene.state.version + 1
        for entry in entries:
            ref = "" if entry.level == "tenant" else user.ref
            row = LedgerRow(version, len(self._ledger), ref, entry, policy_version, self.now)
            self._ledger.append(row)

    def put(
        self, job: Job, *, expect: int, due: int | Literal["keep", "drop"] = "keep", fence: int | None = None
    ) -> None:
        """Write a job. It is encoded first: one that cannot be written fails its own move only."""
        before = self._puts.get(job.id)
        if before is not None:
            expect, fence = before.expect, fence if fence is not None else before.fence
            due = before.due if due == "keep" else due
        job, text = self._forms.written(job)
        self._puts[job.id] = JobPut(job, text, expect, fence, due)
        self.wrote = True

    def drop(self, job: Job) -> None:
        """Remove a stored job, also one that this draft has just ended."""
        before = self._puts.get(job.id)
        self._drops[job.id] = JobDrop(
            job.id, before.expect if before else job.version, Remains.of(job).places
        )
        self._forget(lambda delivery: delivery.job == job.id)
        self.wrote = True

    # -- what lies beside the jobs -------------------------------------------------------------------

    def doc(self, kind: Kind, name: str) -> Doc | None:
        """Return a service key or an upload as it is in this draft."""
        if (kind, name) in self._docs:
            put = self._docs[kind, name]
            return put.value if isinstance(put, DocPut) else None
        if (kind, name) not in self.scene.docs:
            raise Missing(lambda want: want.docs.add((kind, name)))
        return self.scene.docs[kind, name]

    def endpoints(self) -> dict[str, Endpoint]:
        """Return all endpoints as they are in this draft, oldest first."""
        if self.scene.endpoints is None:
            raise Missing(_endpoints)
        return with_docs(self.scene.endpoints, self._docs.values())

    def put_doc(self, value: Doc) -> None:
        """Write a document. It is encoded first, as a job is."""
        kind = KINDS[type(value)]
        self._docs[kind, value.id] = DocPut(value, encode_doc(value))
        self._count_hooks(kind)
        self.wrote = True

    def drop_doc(self, kind: Kind, name: str) -> None:
        """Remove a document; with an endpoint go its deliveries."""
        self._docs[kind, name] = DocDrop(kind, name)
        if kind == "endpoint":
            self._forget(lambda delivery: delivery.endpoint == name)
        self._count_hooks(kind)
        self.wrote = True

    def _count_hooks(self, kind: Kind) -> None:
        if kind == "endpoint":
            self.tenant_doc = replace(self.tenant_doc, hooks=len(self.endpoints()))

    def delivery(self, name: str) -> Delivery | None:
        """Return a delivery as it is in this draft."""
        if name in self._deliveries:
            return self._deliveries[name].delivery
        if name not in self.scene.deliveries:
            raise Missing(lambda want: want.deliveries.add(name))
        return self.scene.deliveries[name]

    def told(self, name: str) -> bool:
        """Whether this draft writes a delivery already: then no lease of before is worth anything."""
        return name in self._deliveries

    def news_of(self, ended: Job) -> list[Delivery]:
        """Return what is to be told of a job's end. Asked before anything is written of it."""
        if not self.tenant_doc.hooks:
            return []
        heard = [(each, webhooks.hears(each, ended)) for each in self.endpoints().values()]
        told = [webhooks.delivery(each, ended, event, self.now) for each, event in heard if event]
        return [replace(each, due_at=self.at) for each in told]

    def queue(self, delivery: Delivery, *, fresh: bool = True, fence: int | None = None) -> None:
        """Write a delivery, due when it says. One known to be there is not made again."""
        before = self._deliveries.get(delivery.id)
        if before is not None:
            fresh, fence = before.fresh, before.fence
        elif fresh and self.scene.deliveries.get(delivery.id) is not None:
            return
        put = DeliveryPut(delivery, encode_doc(delivery), delivery.due_at, fresh, fence)
        self._deliveries[delivery.id] = put
        self.wrote = True

    def hush(self, endpoint: str) -> None:
        """Let nothing be due that an endpoint was to be told so far; it is kept."""
        self._hushed.append(endpoint)
        for put in list(self._deliveries.values()):
            if put.delivery.endpoint == endpoint:
                self.queue(replace(put.delivery, due_at=None))

    def _forget(self, of: Callable[[Delivery], bool]) -> None:
        self._deliveries = {name: put for name, put in self._deliveries.items() if not of(put.delivery)}

    def shut(self, why: Shut | None) -> None:
        """Close the tenant, at a version above all that is known to be lost, or open it."""
        self.tenant_doc = replace(self.tenant_doc, shut=why)
        self._above = 0 if why is None else why.version
        self._gate = self.wrote = True

    def say(self, subject: str | None, record: Record) -> None:
        """Add a line to the trail; equal denials of one caller become one line with a count."""
        ref = self.user(subject).ref if subject else ""
        self.wrote = True
        if record.decision == "deny":
            alike = (ref, record.code, record.rule)
            at = self._denials.get(alike)
            if at is not None:
                self._records[at] = replace(self._records[at], count=self._records[at].count + 1)
                return
            self._denials[alike] = len(self._records)
        self._records.append(replace(record, at=self.now, ref=ref))

    def seal(self, chain: Chain) -> Change:
        """Return the change this draft amounts to: the tenant's next version, or a check of this one."""
        before = self.scene.state
        if not self.wrote:
            return Change(tenant=self.tenant, now=self.now, expect=before.version, story=story(before.doc))
        version = max(before.version, self._above) + 1
        head, link = self.tenant_doc.head, None
        if self._records:
            rows = encode(self._records)
            head = chain.link(head or genesis(self.tenant), rows)
            link = TrailLink(version, self.now, head, rows)
        of = self.tenant_doc
        kept = of.epoch, of.anchor, self._forms.form_after(of.f), of.hooks, of.shut
        doc = TenantDoc(self.account, head, self.now, *kept)
        return Change(
            tenant=self.tenant,
            now=self.now,
            expect=before.version,
            state=TenantState(version, doc),
            users=self._users,
            puts=list(self._puts.values()),
            drops=list(self._drops.values()),
            keys=self._keys,
            ledger=self._ledger,
            link=link,
            docs=list(self._docs.values()),
            deliveries=list(self._deliveries.values()),
            hushed=self._hushed,
            gate=self._gate,
            story=story(before.doc),
        )


def with_docs(endpoints: dict[str, Endpoint], docs: Iterable[DocPut | DocDrop]) -> dict[str, Endpoint]:
    """Return endpoints with those put and without those dropped among documents."""
    after = dict(endpoints)
    for each in docs:
        if isinstance(each, DocPut) and isinstance(each.value, Endpoint):
            after[each.value.id] = each.value
        elif isinstance(each, DocDrop) and each.kind == "endpoint":
            after.pop(each.id, None)
    return after


def _endpoints(want: Want) -> None:
    want.endpoints = True
