"""Drives one history of calls against a store and the plain model, and compares after each step.

A step that the two answer differently, or that leaves a figure different at any level, is a
`Difference`. Histories share a store under tenants of their own. Three faults that money must not
survive are here as doubles, to show that the comparison sees them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record
from gateway.store.backend import Change, Outcome, TenantState, UserState
from gateway.store.contract import Claim, Decide, Denied, Key, Retention
from gateway.store.engine import Engine
from policies import quota
from policies.model import Account, Deny, Entry, Job, Usage
from policies.quota import Admitted
from tests.contracts.model import A_MONTH, ATTEMPT, DAY, HOUR, LEASE, LIMITS, Level, Model
from tests.contracts.rig import SAID, Rig, admitting, attempt, counting, ending

SUBJECTS: Final = ("ann", "bob", "cat")
KEPT: Final = Retention(jobs_ms=2 * DAY, trail_ms=10 * DAY)
GIVEN: Final = Record(action="grant")
ENDS: Final = {"all": "succeeded", "half": "succeeded", "failed": "failed", "blocked": "blocked"}


def _limits(of: dict[str, int]) -> quota.Limits:
    return quota.Limits(of["submit"], of["flight"], of["cap"], of["write"])


TERMS: Final = quota.Terms(_limits(LIMITS["tenant"]), _limits(LIMITS["user"]), A_MONTH)


class Difference(AssertionError):  # noqa: N818 - a verdict of the comparison, not an error of the tests
    """Store and model disagree."""


def same(what: str, got: object, want: object) -> None:
    """Insist on equality."""
    if got != want:
        raise Difference(f"{what}: the store says {got!r}, the model {want!r}")


class History:
    """Two tenants and three users of one store, and the model of them."""

    kept = KEPT

    def __init__(
        self, rig: Rig, store: Engine, name: str, rule: Callable[[Job], Decide] | None = None
    ) -> None:
        self.rig = rig
        self.store = store
        self.model = Model()
        self.tenants = (f"{name}-a", f"{name}-b")
        self.claims: list[Claim] = []
        self.names: list[str] = []
        self.sent: list[tuple[Job, str]] = []
        self._rule = rule or (lambda job: admitting(job, TERMS))

    async def submit(self, tenant: int, subject: str, each: int, count: int, key: str | None) -> None:
        """Submit a new request, perhaps under a key."""
        name = self.tenants[tenant]
        line = "batch" if count % 2 else "interactive"
        what = f"{each} {count}"
        job = self.rig.job(name, subject, price_each=each, count=count, prompt=what, priority=line)
        if key is not None:
            self.sent.append((job, key))
        await self._submit(job, key)

    async def replay(self, which: int, body: str | None = None) -> None:
        """Send an earlier request again under its key, or another under it."""
        if self.sent:
            job, key = self.sent[which % len(self.sent)]
            request = replace(job.request, prompt=body or job.request.prompt)
            await self._submit(replace(job, id=self.rig.uuid(), request=request), key)

    async def _submit(self, job: Job, key: str | None) -> None:
        bound = None if key is None else Key(key, job.request.fingerprint())
        got = await self.store.submit(job, self._rule(job), SAID, key=bound)
        plain = {
            "id": job.id, "tenant": job.tenant, "subject": job.subject,
            "body": (job.request.prompt, job.request.count), "price": job.quoted, "each": job.price_each,
        }  # fmt: skip
        same("submit", word(got), self.model.submit(self.rig.clock.at, plain, key))
        self.names.append(job.id)
        await self.compare(job.tenant)

    def _named(self, which: int) -> tuple[str, str] | None:
        if not self.names:
            return None
        name = self.names[which % len(self.names)]
        job = self.model.jobs.get(name)
        return (job["tenant"] if job else self.tenants[0]), name

    async def cancel(self, which: int) -> None:
        """Cancel a job that was sent, whatever became of it."""
        if named := self._named(which):
            got = await self.store.cancel(*named, counting(TERMS), SAID)
            same("cancel", word(got), self.model.cancel(self.rig.clock.at, named[1]))
            await self.compare(named[0])

    async def erase(self, which: int) -> None:
        """Erase a job that was sent, whatever became of it."""
        if named := self._named(which):
            got = await self.store.erase(*named, counting(TERMS), SAID)
            same("erase", word(got), self.model.erase(self.rig.clock.at, named[1]))
            await self.compare(named[0])

    async def claim(self) -> None:
        """Lease all that is due."""
        claims = await self.store.claim(100, LEASE)
        same("claim", {claim.job.id for claim in claims}, self.model.claim(self.rig.clock.at))
        for claim in claims:
            self.model.leased(claim.job.id, claim.fence)
        self.claims += claims

    async def begin(self, which: int) -> None:
        """Begin an attempt under a lease, perhaps a lost one."""
        if self.claims:
            claim = self.claims[which % len(self.claims)]
            now = self.rig.clock.at
            got = await self.store.begin_attempt(claim, attempt(n=now, deadline_at=now + ATTEMPT))
            same("begin", word(got), self.model.begin(now, claim.job.id, claim.fence))

    async def record(self, which: int, how: str) -> None:
        """End a job under a lease, perhaps a lost one or a second time."""
        if not self.claims:
            return
        claim = self.claims[which % len(self.claims)]
        known = self.model.jobs.get(claim.job.id)
        if known and known["state"] == "queued" and how in ("all", "half"):
            if not self.model.holds(claim.job.id, claim.fence):
                return  # a worker that lost its lease before its first attempt has made nothing
            await self.begin(which)
        count = claim.job.request.count
        made = {"all": count, "half": (count + 1) // 2}.get(how, 0)
        code = "upstream_refused" if how == "blocked" else "upstream_failed"
        got = await self.store.record(claim, ending(made, code), Record(action="job.end"))
        end = (ENDS[how], made)
        same("record", word(got), self.model.record(self.rig.clock.at, claim.job.id, claim.fence, end))
        await self.compare(claim.job.tenant)

    async def grant(self, tenant: int, subject: str | None, amount: int, key: str) -> None:
        """Give credits, perhaps a second time."""
        name = self.tenants[tenant]

        def give(usage: Usage, now: int) -> quota.Posted:
            return quota.grant(usage, now, amount, "user" if subject else "tenant")

        got = await self.store.grant(name, subject, give, key, GIVEN)
        want = self.model.grant(name, subject, amount, key)
        same("grant", "replayed" if got.replayed else "granted", want)
        await self.compare(name)

    async def sweep(self) -> None:
        """Remove what is past its time, of all histories."""
        while True:
            swept = await self.store.sweep(self.kept)
            if not swept.more:
                break
        self.model.sweep(self.rig.clock.at, self.kept.jobs_ms)
        for tenant in self.tenants:
            await self.compare(tenant)

    async def reopen(self) -> None:
        """Stop and start."""
        await self.rig.shut(self.store)
        self.store = await self.rig.open()
        self.model.restart(self.rig.clock.at)

    async def compare(self, tenant: str) -> None:
        """Compare all figures of a tenant, its jobs, and what is kept in memory with what is stored."""
        of = await self.store.backend.examine(tenant)
        self.model.levels(tenant, "")
        same(tenant, plain(of.state.doc.account), self.model.tenants[tenant])
        mine = {subject: want for (name, subject), want in self.model.users.items() if name == tenant}
        shown = await asyncio.gather(*(self.store.usage(tenant, subject) for subject in mine))
        for (subject, want), usage in zip(mine.items(), shown, strict=True):
            user = of.users.get(subject)
            got = plain(user.account if user else Account(granted=None))
            same(f"{tenant}/{subject}", self._telling(got), self._telling(want))
            same("usage", usage, Usage(of.state.doc.account, user.account if user else usage.user))
        jobs = {job.id: (str(job.state), job.charged) for job in of.jobs}
        known = {i: (j["state"], j["charged"]) for i, j in self.model.jobs.items() if j["tenant"] == tenant}
        same(f"jobs of {tenant}", jobs, known)
        same("doctor", doctor.findings(tenant, of, self.rig.chain), [])

    def _telling(self, user: Level) -> Level:
        """Return a user's figures without those that tell nothing now: a sweep may have forgotten them."""
        now, month = self.rig.clock.at, user["month"] if user["spent"] else ""
        windows = {name: each for name, each in user["windows"].items() if now < each[0] + HOUR}
        return {**user, "month": month, "windows": windows}

    async def finish(self) -> None:
        """Cancel and end all that is open: then nothing is held any more."""
        self.rig.clock.forward(DAY)
        for which, name in enumerate(self.names):
            if self.model.jobs.get(name, {}).get("due") is not None:
                self.rig.clock.forward(HOUR)
                await self.cancel(which)
        self.rig.clock.forward(DAY)
        await self.claim()
        for which, claim in enumerate(self.claims):
            if self.model.holds(claim.job.id, claim.fence):
                await self.record(which, "failed")
        for tenant in self.model.tenants.values():
            same("held at the end", (tenant["held"], tenant["flight"]), (0, 0))


def word(answer: Any) -> str:
    """Return an answer's name, or why it was denied."""
    return str(answer.deny.reason) if isinstance(answer, Denied) else type(answer).__name__


def plain(account: Account) -> Level:
    """Return a level as the model writes it."""
    windows = {name: (window.start_at, window.count) for name, window in account.windows.items()}
    return {name: getattr(account, name) for name in account.__struct_fields__} | {"windows": windows}


async def step(history: History, coin: Random) -> None:
    """Take one random step."""
    which, tenant = coin.randrange(1000), int(coin.random() < 0.2)
    subject = coin.choices(SUBJECTS, (6, 2, 1))[0]
    match coin.choices(STEPS, WEIGHTS)[0]:
        case "submit":
            key = coin.choice((None, "k1", "k2", "k3"))
            each, count = coin.choice((1, 10, 40)), coin.choice((1, 1, 2, 4))
            await history.submit(tenant, subject, each, count, key)
        case "replay":
            await history.replay(which, coin.choice((None, None, "another")))
        case "record":
            await history.record(which, coin.choice(tuple(ENDS)))
        case "grant":
            to = coin.choice((None, subject))
            await history.grant(tenant, to, coin.choice((5, 60)), coin.choice("gh"))
        case "wait":
            history.rig.clock.forward(coin.choices(WAITS, (6, 6, 4, 4, 4, 1, 2))[0])
        case "begin" | "cancel" | "erase" as verb:
            await getattr(history, verb)(which)
        case verb:
            await getattr(history, verb)()


WAITS: Final = (1, 1000, LEASE, ATTEMPT + LEASE, HOUR, 2 * DAY, 31 * DAY)
STEPS: Final = ("submit", "claim", "record", "wait", "replay", "cancel", "begin", "erase", "grant", "sweep")
WEIGHTS: Final = (30, 14, 18, 12, 8, 8, 6, 3, 3, 2)


class Faulty(ABC):
    """A back end that commits something else than it was given: the base of planted faults."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit the changes with the fault in them."""
        for change in changes:
            self.spoil(change)
        outcomes: list[Outcome] = await self._backend.commit(changes)
        return outcomes

    @abstractmethod
    def spoil(self, change: Change) -> None:
        """Plant the fault."""


def repost(change: Change, alter: Callable[[Entry], Entry | None]) -> None:
    """Post an altered copy of each settlement on top of it, in the figures alone."""
    if change.state is None:
        return
    for row in change.ledger:
        extra = alter(row.entry) if row.entry.kind == "settle" else None
        if extra is None:
            continue
        for subject, user in change.users.items():
            if user.ref == row.ref:
                usage = quota.post(Usage(change.state.doc.account, user.account), extra)
                doc = replace(change.state.doc, account=usage.tenant)
                change.state = TenantState(change.state.version, doc)
                change.users = {**change.users, subject: UserState(user.ref, usage.user, user.fresh)}


class SettlesTwice(Faulty):
    """Every settlement counts twice."""

    def spoil(self, change: Change) -> None:
        """Post each settlement again."""
        repost(change, lambda entry: entry)


class KeepsRefund(Faulty):
    """What a job did not deliver is charged all the same."""

    def spoil(self, change: Change) -> None:
        """Charge what should have come back."""
        repost(
            change,
            lambda entry: Entry("settle", entry.month, entry.job, charged=-entry.held - entry.charged),
        )


def ghostly(job: Job) -> Decide:
    """Admit a job and hold as much again for one that does not exist."""
    decide = admitting(job, TERMS)

    def admit(usage: Usage, now: int) -> Admitted | Deny:
        admitted = decide(usage, now)
        if isinstance(admitted, Deny):
            return admitted
        ghost = replace(admitted.entries[-1], job="ghost")
        return Admitted(quota.post(admitted.usage, ghost), (*admitted.entries, ghost), admitted.hold)

    return admit
