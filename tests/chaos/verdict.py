"""Compares three books that know nothing of each other: the clients', the upstreams', and the store's.

Clients noted what they were told, each fake logged what it was asked and paid for, and the store is opened
read-only after the last life. Each promise is a row: how often it was broken, and how often it may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway import doctor
from gateway.app import chain_of
from gateway.secrets import Secret
from gateway.store.sqlite import SqliteBackend
from policies import ids
from policies.model import JobState
from tests.chaos.listener import arrivals, untold
from tests.chaos.orders import Said, by_number, read_book
from tests.chaos.stage import FAKES, SECRET, Open, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.backend import Examined
    from policies.model import Job
    from tests.chaos.orders import Order

SHOWN = 5


class Row(Struct, frozen=True):
    """One promise: what was found against it, and how much of that may be."""

    promise: str
    found: tuple[str, ...]
    allowed: int = 0

    @property
    def kept(self) -> bool:
        """Whether no more was found than may be."""
        return len(self.found) <= self.allowed


class Verdict(Struct, frozen=True):
    """All that a run came to."""

    rows: tuple[Row, ...]
    deaths: Mapping[str, tuple[int, int]]
    figures: Mapping[str, int]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept, under all the deaths there should have been."""
        return self.injected and all(row.kept for row in self.rows)

    @property
    def injected(self) -> bool:
        """Whether the run killed as often as it set out to, and at all."""
        return bool(self.figures["deaths"]) and all(hits >= want for want, hits in self.deaths.values())

    def broken(self) -> set[str]:
        """Return the promises that were not kept."""
        return {row.promise for row in self.rows if not row.kept}

    def __str__(self) -> str:
        deaths = [f"  {point:<20}{want:>8}{hits:>8}" for point, (want, hits) in self.deaths.items()]
        promises = [
            f"  {row.promise:<44}{len(row.found):>6}{row.allowed:>9}  {'kept' if row.kept else 'BROKEN'}"
            for row in self.rows
        ]
        wrong = [
            f"  {row.promise}: {each}" for row in self.rows if not row.kept for each in row.found[:SHOWN]
        ]
        figures = ", ".join(f"{name} {count}" for name, count in self.figures.items())
        return "\n".join(
            [figures, f"  {'death at':<20}{'wanted':>8}{'hits':>8}", *deaths]
            + [f"  {'promise':<44}{'found':>6}{'allowed':>9}", *promises, *wrong]
            + ([] if self.injected else ["  not all deaths happened: this run proves nothing"])
        )


class Books(Struct, frozen=True):
    """What everybody says of one run."""

    said: Sequence[Said]
    known: Mapping[int, Order]
    paid: Mapping[str, Counter[str]]
    tenants: Mapping[str, Examined]
    exposed: frozenset[Open]

    @property
    def jobs(self) -> list[Job]:
        """Every job the store holds."""
        return [job for tenant in self.tenants.values() for job in tenant.jobs]

    def orders(self, word: str) -> set[int]:
        """Return the orders of which something was noted."""
        return {line.order for line in self.said if line.said == word}


async def compare(stage: Stage, seed: int, wanted: Mapping[str, int], exposed: set[Open]) -> Verdict:
    """Open the books of a run whose gateway has stopped, and hold each promise against them."""
    said = read_book(stage.folder / "clients")
    backend = SqliteBackend(stage.store, lambda: 0, read_only=True)
    chain = chain_of((Secret(SECRET),))
    try:
        different = tuple(str(f) for f in await doctor.examine(backend, chain) if f.kind == "difference")
        trails = [await doctor.verify_trail(backend, chain, name) for name in await backend.tenants()]
        tenants = {name: await backend.examine(name) for name in await backend.tenants()}
    finally:
        await backend.close()
    books = Books(
        said=said,
        known=by_number(seed, max((line.order for line in said), default=0)),
        paid={name: _paid(stage, name) for name in FAKES},
        tenants=tenants,
        exposed=frozenset(exposed),
    )
    broken = tuple(str(trail) for trail in trails if isinstance(trail, doctor.Broken))
    hits = stage.hits()
    rows = (
        Row("every 202 came to an end", _lost(books)),
        Row("no upstream was paid twice", _paid_twice(books)),
        Row("what was delivered was paid for", _unpaid(books)),
        Row("one key made one job", _doubled(books)),
        Row("no client was surprised, every image opens", _surprises(books)),
        Row("every end was told to its webhook", _untold(books, stage)),
        Row("no hold is stuck, nothing is in flight", _stuck(books)),
        Row("doctor finds no difference", different),
        Row("every trail verifies", broken),
        Row("unknown outcomes are those left open", _unknown_else(books)),
        Row("unknown outcomes are flagged", _unflagged(books)),
        Row("outcome_unknown", _unknown(books), allowed=len(exposed)),
    )
    return Verdict(
        rows, {point: (want, hits[point]) for point, want in wanted.items()}, _figures(books, stage)
    )


def _figures(books: Books, stage: Stage) -> dict[str, int]:
    states = Counter(str(job.state) for job in books.jobs)
    return {
        "lives": stage.lives,
        "deaths": stage.hits().total(),
        "accepted": len(books.orders("accepted")),
        "unknown submits": len(books.orders("unknown")),
        "replays": len(books.orders("replayed")),
        "deleted": len(books.orders("deleted")),
        "paid calls": sum(paid.total() for paid in books.paid.values()),
        "told": len(arrivals(stage.folder / "webhooks")),
        "told again": sum(count - 1 for count in arrivals(stage.folder / "webhooks").values()),
        "sent again under a key": sum(call.outcome == "replayed" for call in stage.calls("plus")),
        **dict(sorted(states.items())),
    }


def _paid(stage: Stage, fake: str) -> Counter[str]:
    """Count paid work by what names it: the key of the slot, where one is sent, else the prompt."""
    calls = [call for call in stage.calls(fake) if call.paid]
    return Counter(call.idempotency_key or call.prompt for call in calls)


def _lost(books: Books) -> tuple[str, ...]:
    """Return acknowledged jobs that are open, or not there although nobody deleted them."""
    there = {ids.shown(job.id): job for job in books.jobs}
    deleted = books.orders("deleted")
    lost = []
    for line in books.said:
        job = there.get(line.job)
        gone = job is None and line.order not in deleted
        if line.said == "accepted" and (gone or (job is not None and not job.state.ended)):
            lost.append(f"order {line.order}, {line.job}: {'gone' if job is None else job.state}")
    told = {line.order for line in books.said if line.said == "ended"}
    lost += [f"order {n}: its client never saw an end" for n in sorted(books.orders("accepted") - told)]
    lost += [f"{job.id}: {job.state}, and nobody was told of it" for job in books.jobs if not job.state.ended]
    return tuple(lost)


def _paid_twice(books: Books) -> tuple[str, ...]:
    return tuple(
        f"{name}: {work} {count} times"
        for name, paid in books.paid.items()
        for work, count in paid.items()
        if count > 1
    )


def _unpaid(books: Books) -> tuple[str, ...]:
    """Return delivered slots for which the upstream's own book has no payment."""
    wrong = []
    for job in books.jobs:
        paid = books.paid[job.route[0].entry]
        by_slot = sum(paid[f"{job.id}-{slot}"] for slot in range(len(job.slots)))
        delivered = len({_slot_of(job, output.index) for output in job.outputs})
        if delivered > max(by_slot, paid[job.request.prompt]):
            wrong.append(f"{job.id}: {delivered} calls delivered, {by_slot} paid")
        if job.charged != job.price_each * len(job.outputs):
            wrong.append(f"{job.id}: charged {job.charged} for {len(job.outputs)} images")
    return tuple(wrong)


def _slot_of(job: Job, index: int) -> int:
    slot = 0
    while index >= sum(job.slots[: slot + 1]):
        slot += 1
    return slot


def _doubled(books: Books) -> tuple[str, ...]:
    """Return orders that made more than one job, or whose replays were answered with another."""
    made = Counter(job.request.prompt for job in books.jobs)
    wrong = [f"{prompt}: {count} jobs" for prompt, count in made.items() if count > 1]
    ids_of: dict[int, set[str]] = {}
    for line in books.said:
        if line.said in ("accepted", "replayed"):
            ids_of.setdefault(line.order, set()).add(line.job)
    return tuple(wrong + [f"order {n}: {sorted(jobs)}" for n, jobs in ids_of.items() if len(jobs) > 1])


def _surprises(books: Books) -> tuple[str, ...]:
    """Return answers no client should get, and images a job has that its client could not open."""
    wrong = [f"order {s.order}: {s.said} {s.detail}" for s in books.said if s.said in ("surprise", "missing")]
    deleted = books.orders("deleted")
    wrong += [f"order {n}: erased by nobody" for n in sorted(books.orders("erased") - deleted)]
    opened = {line.job: line.images for line in books.said if line.said == "ended" and line.images}
    for line in books.said:
        if line.said == "ended" and line.state == JobState.SUCCEEDED and line.order not in deleted:
            wrong += [] if opened.get(line.job) else [f"order {line.order}: no image was opened"]
    return tuple(wrong)


def _stuck(books: Books) -> tuple[str, ...]:
    wrong = []
    for name, tenant in books.tenants.items():
        accounts = {name: tenant.state.doc.account}
        accounts |= {f"{name}/{subject}": user.account for subject, user in tenant.users.items()}
        wrong += [
            f"{at}: held {a.held}, in flight {a.flight}" for at, a in accounts.items() if a.held or a.flight
        ]
        wrong += [f"{name}: {job} is queued" for job in sorted(tenant.queued)]
    return tuple(wrong)


def _untold(books: Books, stage: Stage) -> tuple[str, ...]:
    """Return ended jobs of which no webhook heard; one that was deleted may have been forgotten untold."""
    ended = {job.id: str(job.state) for job in books.jobs if job.state.ended}
    return tuple(sorted(untold(stage.folder / "webhooks", ended)))


def _unflagged(books: Books) -> tuple[str, ...]:
    """Return jobs with an unknown outcome of which no operator is told."""
    flags = {job.id: job.operator_flag for job in books.jobs}
    return tuple(
        f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books)) if not flags[each.job]
    )


def _unknown(books: Books) -> tuple[str, ...]:
    """Return the paid calls that ended as nobody's knowledge."""
    return tuple(f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books)))


def _unknown_else(books: Books) -> tuple[str, ...]:
    """Return calls given up as unknown although no death found them open and unnamed."""
    return tuple(f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books) - books.exposed))


def _unknown_calls(books: Books) -> set[Open]:
    return {
        Open(job.id, attempt.slot, attempt.n)
        for job in books.jobs
        for attempt in job.attempts
        if attempt.code == "outcome_unknown"
    }
