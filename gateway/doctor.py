"""Recomputes every figure of the store from what it is made of, and reports each difference.

Ledger entries never change, so their sums say what every balance must be; open jobs say what must be
held and in flight; the trail's links say whether a line of it was altered. Nothing is repaired and
nothing is printed here. A back end opened read-only beside a running server is enough: a tenant is
read as of one moment.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from gateway.audit import Chain, genesis
from gateway.store.backend import TenantState, Want, anchored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store.backend import Anchor, Backend, Examined
    from gateway.store.contract import LedgerRow, Shut, TrailLink
    from policies.model import Account, Job

PAGE: Final = 500
"""Links of the trail read at a time."""


class Finding(Struct, frozen=True):
    """One thing to look at: a `difference`, which must not be, or a `flag` a job carries for the operator.

    `closed`: the tenant waits for its operator, because the store lost some of it.
    `of` names what it is about: the tenant, `user <ref>`, `job <id>` or `trail`. No subject stands here.
    """

    tenant: str
    kind: Literal["difference", "flag", "closed"]
    of: str
    detail: str


class Broken(Struct, frozen=True):
    """The first place where a tenant's trail does not hold. `version` is that link's, or the tenant's."""

    tenant: str
    version: int
    detail: str


class Verified(Struct, frozen=True):
    """A trail that holds: how many links, from which version on, since when."""

    tenant: str
    links: int
    since: int
    head: str


async def examine(backend: Backend, chain: Chain) -> list[Finding]:
    """Return what is wrong with the store, and the jobs its operator must look at; empty when all is well."""
    found: list[Finding] = []
    for tenant in await backend.tenants():
        found += findings(tenant, await backend.examine(tenant), chain)
    return found


async def verify_trail(backend: Backend, chain: Chain, tenant: str) -> Verified | Broken:
    """Follow a tenant's trail link by link; return the first that does not hold.

    May run beside a server: what is written after the start is left for the next time, and a trail
    that is cut by retention meanwhile is begun again at its new anchor.
    """
    while True:
        anchor, outcome = await _follow(backend, chain, tenant)
        if isinstance(outcome, Verified) or await _anchor_of(backend, tenant) == anchor:
            return outcome


async def _anchor_of(backend: Backend, tenant: str) -> Anchor | None:
    (loaded,) = await backend.load([Want(tenant)])
    state = loaded.sound().state
    return state.doc.anchor if state else None


async def _follow(backend: Backend, chain: Chain, tenant: str) -> tuple[Anchor | None, Verified | Broken]:
    (loaded,) = await backend.load([Want(tenant)])
    state = loaded.sound().state or TenantState()
    walk = _Walk(tenant, chain, state.doc.anchor)
    while True:
        page = await backend.links(tenant, walk.at, PAGE, up=True)
        links = [link for link in page if link.version <= state.version]
        broken = walk.over(links)
        if broken is not None:
            return state.doc.anchor, broken
        if not links:
            return state.doc.anchor, walk.end(state.doc.head, state.version)


class _Walk:
    """A walk along a trail: where it stands, and what the next link must continue."""

    def __init__(self, tenant: str, chain: Chain, anchor: Anchor | None) -> None:
        self.tenant = tenant
        self.chain = chain
        self.anchor = anchor
        self.at = self.since = anchor.version if anchor else 0
        self.head = anchor.head if anchor else genesis(tenant)
        self.links = 0

    def over(self, links: Iterable[TrailLink]) -> Broken | None:
        """Go over links in order; stop at the first that does not hold."""
        anchor = self.anchor
        if anchor and not self.chain.holds(anchor.head, anchored(anchor.version, anchor.at), anchor.seal):
            return Broken(
                self.tenant, anchor.version, "the anchor of the cut trail is not sealed by our keys"
            )
        for link in links:
            if link.version <= self.at:
                continue  # before the anchor, not removed yet
            if not self.chain.holds(self.head, link.rows, link.head):
                return Broken(self.tenant, link.version, "the link does not follow from the one before it")
            self.at, self.head = link.version, link.head
            self.links += 1
        return None

    def end(self, head: str, version: int) -> Verified | Broken:
        """Say whether the last link is the one the tenant remembers."""
        if (head or genesis(self.tenant)) != self.head:
            return Broken(self.tenant, version, "the trail ends before the link the tenant remembers")
        return Verified(self.tenant, self.links, self.since, head)


def findings(tenant: str, of: Examined, chain: Chain) -> list[Finding]:
    """Return what is wrong with a tenant, and its flagged jobs."""
    found = [
        Finding(tenant, "difference", name, detail)
        for check in (_unreadable, _figures, _holds, _jobs, _queue, _hooks, _versions)
        for name, detail in check(of)
    ]
    walk = _Walk(tenant, chain, of.state.doc.anchor)
    trail = walk.over(of.links) or walk.end(of.state.doc.head, of.state.version)
    if isinstance(trail, Broken):
        found.append(Finding(tenant, "difference", "trail", f"version {trail.version}: {trail.detail}"))
    found += [
        Finding(tenant, "flag", f"job {job.id}", job.operator_flag) for job in of.jobs if job.operator_flag
    ]
    if of.state.doc.shut is not None:
        shut = of.state.doc.shut
        found.append(Finding(tenant, "closed", "store" if shut.lost else "tenant", _lost(shut)))
    return found


def _lost(shut: Shut) -> str:
    """Say what a process knew of a tenant and what was there instead."""
    at = datetime.datetime.fromtimestamp(shut.at / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if shut.lost:
        return f"{at}: the last {shut.lost} bytes that the process {shut.by} had seen of the store are lost"
    known = f"version {shut.version} ({shut.head or 'no trail'})"
    there = f"version {shut.found} ({shut.found_head or 'no trail'})"
    if shut.job is not None:
        there += f", job {shut.job} behind what it had been"
    return f"closed at {at}: the process {shut.by} knew of {known}, and the store had {there}"


def _unreadable(of: Examined) -> Iterator[tuple[str, str]]:
    """Every stored job can be read: one that cannot is in no figure that open jobs are summed to."""
    yield from ((f"job {job}", "is stored and unreadable") for job in sorted(of.unreadable))


def _levels(of: Examined) -> Iterator[tuple[str, Account, Sequence[LedgerRow], Sequence[Job]]]:
    """Yield each level with the ledger entries and the open jobs that make its figures."""
    opened = [job for job in of.jobs if not job.state.ended]
    yield "tenant", of.state.doc.account, [row for row in of.ledger if row.entry.level != "user"], opened
    rows: dict[str, list[LedgerRow]] = {user.ref: [] for user in of.users.values()}
    for row in of.ledger:
        if row.entry.level != "tenant":
            rows.setdefault(row.ref, []).append(row)
    for user in of.users.values():
        mine = [job for job in opened if job.subject_ref == user.ref]
        yield f"user {user.ref}", user.account, rows[user.ref], mine


def _unlike(name: str, pairs: dict[str, tuple[int, int]], source: str) -> Iterator[tuple[str, str]]:
    for what, (figure, summed) in pairs.items():
        if figure != summed:
            yield name, f"{what} is {figure}; {source} {summed}"


def _figures(of: Examined) -> Iterator[tuple[str, str]]:
    """Each figure is the sum of its ledger entries, and nothing is held that is not there."""
    for name, account, rows, _jobs in _levels(of):
        entries = [row.entry for row in rows]
        month = sum(entry.held + entry.charged for entry in entries if entry.month == account.month)
        pairs = {
            "granted": (account.granted or 0, sum(entry.granted for entry in entries)),
            "charged": (account.charged, sum(entry.charged for entry in entries)),
            "held": (account.held, sum(entry.held for entry in entries)),
            "in flight": (account.flight, sum(entry.flight for entry in entries)),
            f"spent in {account.month}": (account.spent, month),
        }
        yield from _unlike(name, pairs, "the ledger says")
        if account.available is not None and account.available < 0:
            yield name, f"available is {account.available}"
    refs = {user.ref for user in of.users.values()}
    strangers = {row.ref for row in of.ledger if row.entry.level != "tenant"} - refs
    yield from ((f"user {ref}", "the ledger has entries, and no figures are kept") for ref in strangers)


def _holds(of: Examined) -> Iterator[tuple[str, str]]:
    """What is held and in flight is what open jobs hold, and how many they are."""
    for name, account, _rows, jobs in _levels(of):
        pairs = {
            "held": (account.held, sum(job.held for job in jobs)),
            "in flight": (account.flight, len(jobs)),
        }
        yield from _unlike(name, pairs, "open jobs say")


def _jobs(of: Examined) -> Iterator[tuple[str, str]]:
    """A job has one hold, and once it has ended one settlement, each of its own amounts."""
    entries = [row.entry for row in of.ledger]
    holds = [entry for entry in entries if entry.kind == "hold"]
    settles = [entry for entry in entries if entry.kind == "settle"]
    held = Counter(entry.job for entry in holds)
    settled = Counter(entry.job for entry in settles)
    amounts = {(entry.job, entry.month, entry.held) for entry in holds}
    ends = {(entry.job, entry.month, -entry.held, entry.charged) for entry in settles}
    for job in of.jobs:
        name, hold = f"job {job.id}", job.hold
        counts = {"holds": (held[job.id], 1), "settlements": (settled[job.id], int(job.state.ended))}
        yield from _unlike(name, counts, "the number must be")
        if held[job.id] == 1 and (job.id, hold.month, hold.amount) not in amounts:
            yield name, f"its hold of {hold.amount} is another in the ledger"
        end = (job.id, hold.month, hold.amount, job.charged)
        if job.state.ended and settled[job.id] == 1 and end not in ends:
            yield name, f"its charge of {job.charged} is another in the ledger"


def _queue(of: Examined) -> Iterator[tuple[str, str]]:
    """Open jobs are in the queue, and nothing else is."""
    opened = {job.id for job in of.jobs if not job.state.ended}
    yield from ((f"job {job}", "is open and not in the queue") for job in sorted(opened - of.queued))
    yield from (
        (f"job {job}", "is in the queue and not open") for job in sorted(of.queued - opened - of.unreadable)
    )


def _hooks(of: Examined) -> Iterator[tuple[str, str]]:
    """A tenant knows how many endpoints it has: where it knew of none, nobody would be told."""
    yield from _unlike("tenant", {"hooks": (of.state.doc.hooks, of.endpoints)}, "endpoints are")


def _versions(of: Examined) -> Iterator[tuple[str, str]]:
    """Nothing is newer than the tenant."""
    newest = {
        "ledger": max((row.version for row in of.ledger), default=0),
        "trail": max((link.version for link in of.links), default=0),
    }
    for what, version in newest.items():
        if version > of.state.version:
            yield "tenant", f"version is {of.state.version}; the {what} has {version}"
