"""A tenant as one commit will leave it, while moves are folded into it.

A draft starts from what is known and gathers what the moves write; `seal` turns it into a `Change` with
one link of the trail. Everything here is memory: a draft that is refused is thrown away and folded
again from fresher state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.audit import Chain, Record, encode, genesis
from gateway.store.backend import (
    Change,
    JobDrop,
    JobPut,
    KeyRow,
    TenantDoc,
    TenantState,
    UserState,
    encode_job,
)
from gateway.store.contract import LedgerRow, Remains, TrailLink
from policies.model import Account, Entry, Usage

if TYPE_CHECKING:
    from policies.model import Job

Mint = Callable[[], str]


class Missing(Exception):  # noqa: N818 - from fold to engine, never seen outside
    """The fold needs something that was not loaded. Raised before anything is written."""

    def __init__(
        self, *, subject: str | None = None, job: str | None = None, key: tuple[str, str] | None = None
    ) -> None:
        super().__init__(subject, job, key)
        self.subject = subject
        self.job = job
        self.key = key


class Scene(Struct):
    """What is known of a tenant before a fold. None stands for what is known to be absent.

    A key that is not here is taken for free where it is to be bound: the commit proves it. `fenced` are
    leases known to be lost, as job and fence.
    """

    state: TenantState
    users: dict[str, UserState | None]
    jobs: dict[str, Job | None]
    keys: dict[tuple[str, str], KeyRow | None]
    fenced: set[tuple[str, int]]


class Draft:
    """The state after the moves folded so far, and all they write."""

    def __init__(self, tenant: str, scene: Scene, now: int, mint: Mint) -> None:
        self.tenant = tenant
        self.scene = scene
        self.now = max(now, scene.state.doc.last_now)
        self.account = scene.state.doc.account
        self.doc = scene.state.doc
        self.wrote = False
        self._mint = mint
        self._users: dict[str, UserState] = {}
        self._puts: dict[str, JobPut] = {}
        self._drops: dict[str, JobDrop] = {}
        self._keys: dict[tuple[str, str], KeyRow] = {}
        self._ledger: list[LedgerRow] = []
        self._records: list[Record] = []
        self._denials: dict[tuple[str, str | None, str | None], int] = {}

    def user(self, subject: str) -> UserState:
        """Return a user's figures; one never seen gets a reference now."""
        user = self._users.get(subject)
        if user is None:
            if subject not in self.scene.users:
                raise Missing(subject=subject)
            user = self.scene.users[subject]
            if user is None:
                user = self._users[subject] = UserState(self._mint(), Account(granted=None), fresh=True)
        return user

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
            raise Missing(job=job)
        return self.scene.jobs.get(job, claimed)

    def key(self, subject: str, key: str) -> KeyRow | None:
        """Return what a key is bound to in this draft."""
        return self._keys.get((subject, key)) or self.scene.keys.get((subject, key))

    def need_key(self, subject: str, key: str) -> None:
        """Insist on knowing whether a key is bound: an answer that binds nothing does not prove it."""
        if (subject, key) not in self.scene.keys:
            raise Missing(key=(subject, key))

    def made(self, job: str) -> Job | None:
        """Return a job of this id if one is known to be there, without loading any."""
        return self._puts[job].job if job in self._puts else self.scene.jobs.get(job)

    def bind(self, subject: str, key: str, row: KeyRow) -> None:
        """Bind a key that is free."""
        self._keys[subject, key] = row

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
        self._puts[job.id] = JobPut(job, encode_job(job), expect, fence, due)
        self.wrote = True

    def drop(self, job: Job) -> None:
        """Remove a stored job, also one that this draft has just ended."""
        before = self._puts.get(job.id)
        self._drops[job.id] = JobDrop(
            job.id, before.expect if before else job.version, Remains.of(job).places
        )
        self.wrote = True

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
        if not self.wrote:
            return Change(tenant=self.tenant, now=self.now, expect=self.scene.state.version)
        version = self.scene.state.version + 1
        head, link = self.doc.head, None
        if self._records:
            rows = encode(self._records)
            head = chain.link(head or genesis(self.tenant), rows)
            link = TrailLink(version, self.now, head, rows)
        doc = TenantDoc(self.account, head, self.now, self.doc.epoch, self.doc.anchor)
        return Change(
            tenant=self.tenant,
            now=self.now,
            expect=version - 1,
            state=TenantState(version, doc),
            users=self._users,
            puts=list(self._puts.values()),
            drops=list(self._drops.values()),
            keys=self._keys,
            ledger=self._ledger,
            link=link,
        )
