"""Holds each promise against three books that know nothing of each other.

Clients noted what they were told, each fake logged what it was asked and paid for, and the store is opened
after the last life. Each promise is a row: how often it was broken, and how often it may be. Verdicts of
several runs add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from policies import ids
from policies.model import JobState
from tests.chaos.books import open_books
from tests.chaos.limits import overdrawn, reached
from tests.chaos.listener import untold
from tests.chaos.plan import expected, pressed
from tests.chaos.recovery import recoveries
from tests.chaos.stage import PRICE, Open
from tests.chaos.troubles import kind_of, unknowable

if TYPE_CHECKING:
    from policies.model import Job
    from tests.chaos.books import Books
    from tests.chaos.plan import Profile
    from tests.chaos.stage import Stage

UPSTREAM: Final = "upstream: "


class Row(Struct, frozen=True):
    """One promise: what was found against it, and how much of that may be."""

    promise: str
    found: tuple[str, ...]
    allowed: int = 0

    @property
    def kept(self) -> bool:
        """Whether no more was found than may be."""
        return len(self.found) <= self.allowed

    def __add__(self, other: Row) -> Row:
        return Row(self.promise, self.found + other.found, self.allowed + other.allowed)


class Verdict(Struct, frozen=True):
    """All that a run came to. `faults` are those wanted and those seen, by kind; recoveries milliseconds."""

    rows: tuple[Row, ...]
    faults: Mapping[str, tuple[int, int]]
    figures: Mapping[str, int]
    recoveries: tuple[int, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether every promise was kept, under all the faults there should have been."""
        return self.injected and all(row.kept for row in self.rows)

    @property
    def injected(self) -> bool:
        """Whether all was broken as often as it was set out to, and anything at all."""
        return bool(self.count) and all(hits >= want for want, hits in self.faults.values())

    @property
    def count(self) -> int:
        """All faults."""
        return sum(hits for _, hits in self.faults.values())

    def broken(self) -> set[str]:
        """Return the promises that were not kept."""
        return {row.promise for row in self.rows if not row.kept}

    def __add__(self, other: Verdict) -> Verdict:
        kinds = dict.fromkeys((*self.faults, *other.faults))
        names = dict.fromkeys((*self.figures, *other.figures))
        pairs = {kind: (self.faults.get(kind, (0, 0)), other.faults.get(kind, (0, 0))) for kind in kinds}
        return Verdict(
            tuple(one + two for one, two in zip(self.rows, other.rows, strict=True)),
            {kind: (one[0] + two[0], one[1] + two[1]) for kind, (one, two) in pairs.items()},
            {name: self.figures.get(name, 0) + other.figures.get(name, 0) for name in names},
            self.recoveries + other.recoveries,
        )


async def compare(stage: Stage, profile: Profile, exposed: set[Open]) -> Verdict:
    """Open the books of a run whose gateway has stopped, and hold each promise against them."""
    return judged(await open_books(stage, profile, exposed), profile)


def judged(books: Books, profile: Profile) -> Verdict:
    """Hold each promise against the books."""
    left = _left_open(books)
    rows = (
        Row("every 202 came to an end", _lost(books)),
        Row("no upstream was paid twice", _paid_twice(books)),
        Row("what was delivered was paid for", _unpaid(books)),
        Row("nothing was charged twice", _charged_twice(books)),
        Row("one key made one job", _doubled(books)),
        Row("no client was surprised, every image opens", _surprises(books)),
        Row("every end was told to its webhook", _untold(books)),
        Row("no hold is stuck, nothing is in flight", _stuck(books)),
        Row("no limit was passed", overdrawn(books)),
        Row("every limit was reached", reached(books, pressed(profile))),
        Row("doctor finds no difference", books.differences),
        Row("every trail verifies", books.broken),
        Row("unknown outcomes are those left open", _unknown_else(books, left)),
        Row("unknown outcomes are flagged", _unflagged(books)),
        Row("outcome_unknown", _unknown(books), allowed=len(left)),
    )
    return Verdict(rows, _faults(books, profile), _figures(books), tuple(recoveries(books)))


def _faults(books: Books, profile: Profile) -> dict[str, tuple[int, int]]:
    """Count faults: those of processes and of the store by their marks, those of upstreams by their logs."""
    seen = Counter(each.kind for each in books.marks)
    seen.update(kind for calls in books.calls.values() for call in calls if (kind := kind_of(call)))
    want = expected(profile)
    kinds = [*want, *sorted(kind for kind in seen if kind.startswith(UPSTREAM) and kind not in want)]
    return {kind: (want.get(kind, 0), seen[kind]) for kind in kinds}


def _left_open(books: Books) -> set[Open]:
    """Return paid calls of which nobody can know: open and unnamed at a fault, or left so by an upstream."""
    asked = {call.prompt for calls in books.calls.values() for call in calls if unknowable(call)}
    spoiled = {
        Open(job.id, attempt.slot, attempt.n)
        for job in books.jobs
        if job.request.prompt in asked
        for attempt in job.attempts
        if attempt.upstream_id is None and attempt.code == "outcome_unknown"
    }
    return spoiled | books.exposed


def _figures(books: Books) -> dict[str, int]:
    states = Counter(str(job.state) for job in books.jobs)
    return {
        "accepted": len(books.orders("accepted")),
        "unknown submits": len(books.orders("unknown")),
        "denied by a limit": len(books.orders("denied")),
        "replays": len(books.orders("replayed")),
        "deleted": len(books.orders("deleted")),
        "paid calls": sum(paid.total() for paid in books.paid.values()),
        "told": len(books.told),
        "told again": sum(count - 1 for count in books.told.values()),
        "sent again under a key": sum(call.outcome == "replayed" for call in books.calls["plus"]),
        **dict(sorted(states.items())),
    }


def _charged_twice(books: Books) -> tuple[str, ...]:
    """Return jobs, erased ones too, that the ledger holds or settles more than once, or for another sum."""
    wrong = []
    for name, tenant in books.tenants.items():
        kinds = Counter((row.entry.job, row.entry.kind) for row in tenant.ledger if row.entry.job)
        wrong += [f"{name}: {job} has {n} entries of {kind}" for (job, kind), n in kinds.items() if n > 1]
    told: dict[str, int] = {line.job: line.charged for line in books.said if line.said == "ended"}
    for job in books.jobs:
        if told.get(ids.shown(job.id), job.charged) != job.charged:
            wrong.append(f"{job.id}: its client was told {told[ids.shown(job.id)]}, charged {job.charged}")
    return tuple(wrong)


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
        if job.charged != PRICE * len(job.outputs):
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
        if line.said == "ended" and line.state == JobState.SUCCEEDED and _looked(books, line.order, deleted):
            wrong += [] if opened.get(line.job) else [f"order {line.order}: no image was opened"]
    return tuple(wrong)


def _looked(books: Books, order: int, deleted: set[int]) -> bool:
    return books.known[order].looked_at and order not in deleted


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


def _untold(books: Books) -> tuple[str, ...]:
    """Return ended jobs of which no webhook heard; one that was deleted may have been forgotten untold."""
    ended = {job.id: str(job.state) for job in books.jobs if job.state.ended}
    return tuple(sorted(untold(books.told, ended)))


def _unflagged(books: Books) -> tuple[str, ...]:
    """Return jobs with an unknown outcome of which no operator is told."""
    flags = {job.id: job.operator_flag for job in books.jobs}
    return tuple(
        f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books)) if not flags[each.job]
    )


def _unknown(books: Books) -> tuple[str, ...]:
    """Return the paid calls that ended as nobody's knowledge."""
    return tuple(f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books)))


def _unknown_else(books: Books, left: set[Open]) -> tuple[str, ...]:
    """Return calls given up as unknown although no fault found them open and unnamed."""
    return tuple(f"{each.job} slot {each.slot}" for each in sorted(_unknown_calls(books) - left))


def _unknown_calls(books: Books) -> set[Open]:
    return {
        Open(job.id, attempt.slot, attempt.n)
        for job in books.jobs
        for attempt in job.attempts
        if attempt.code == "outcome_unknown"
    }
