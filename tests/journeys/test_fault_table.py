"""What each fault of an upstream means, one test a cell: state, code, refund, calls seen, calls paid, flag.

Columns: S a call that makes the image itself (`main`), A one that starts a job, with an idempotency key
(`plus`) or without (`ai`), P asking how far it is, F fetching an image. Each cell is run on the real
worker, over HTTP, on a route of one entry and of two: the second, `spare`, is asked only where the table
says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from msgspec.structs import replace

from policies.lifecycle import JOB_ERRORS, RETRYABLE
from policies.model import Job, JobState, Shortfall
from tests.fakes.behavior import Behavior, Deed, Part
from tests.journeys.workbench import PRICE, workbench

if TYPE_CHECKING:
    from pathlib import Path

    from tests.journeys.workbench import Workbench

ALL = ("main", "plus", "ai")
UNKNOWN_STATUSES = (502, 504, 520, 522, 524)
NONSENSE: tuple[Deed, ...] = ("malformed", "huge", "deep", "wrong_type", "not_json")
FOREVER = 0
NO_TIME = 0.4
"""Seconds a call may take where the upstream answers never."""
MODERATED = (
    '{"error": {"code": "moderation_blocked", "message": "secret words", "type": "x"}, "status": "failed"}'
)
UNPAID = '{"error": {"code": "insufficient_quota", "message": "You exceeded your quota", "type": "x"}}'


class Lookups(NamedTuple):
    """Lookups of the upstream's name that come to nothing."""

    times: int = 99


class Base(NamedTuple):
    """Another base URL, at which nobody speaks HTTP. `{host}` and `{port}` are the fake's."""

    url: str


Fault = Behavior | Lookups | Base


class Fate(NamedTuple):
    """What becomes of a job of one image. `waits` are the pauses that are no pace of polling."""

    code: str | None
    calls: int
    paid: int
    spare: int = 0
    flag: str | None = None
    alarm: str | None = None
    waits: tuple[float, ...] | None = None


class Cell(NamedTuple):
    """One fault at one entry, and its fates on a route of one and of two."""

    name: str
    entry: str
    fault: Fault
    alone: Fate
    routed: Fate
    attempt_seconds: float = 10.0
    deadline_seconds: float = 120.0


def does(do: Deed, on: Part = "create", times: int = 1) -> Behavior:
    """Return a misdeed."""
    return Behavior(do, on=on, times=times)


def says(status: int, on: Part = "create", times: int = FOREVER, body: str | None = None) -> Behavior:
    """Return a whole answer of a status."""
    return Behavior("status", on=on, status=status, times=times, body=body)


def limits(milliseconds: int, on: Part = "create") -> Behavior:
    """Return one answer of 429 that says when to come again."""
    return Behavior("status", on=on, status=429, headers={"retry-after-ms": str(milliseconds)})


def unreachable() -> list[Cell]:
    """Nothing was sent: once more, then the next entry."""
    lost, over = Fate("upstream_failed", 0, 0, waits=(0.5,)), Fate(None, 0, 0, spare=1, waits=(0.5,))
    back = Fate(None, 1, 1, waits=(0.5,))
    cells = [Cell(f"{e}: no such name", e, Lookups(), lost, over) for e in ALL]
    cells += [Cell(f"{e}: no such name once", e, Lookups(1), back, back) for e in ALL]
    cells += [Cell(f"{e}: refused", e, Base("http://{host}:1/v1"), lost, over) for e in ALL]
    return cells + [Cell(f"{e}: no TLS", e, Base("https://{host}:{port}/v1"), lost, over) for e in ALL]


def limited() -> list[Cell]:
    """429: the next entry first, else at the time it asks for, at most a minute from now."""
    over = Fate(None, 1, 0, spare=1, waits=())
    return [
        Cell(f"{e}: 429 for {ms} ms", e, limits(ms), Fate(None, 2, 1, waits=(wait,)), over)
        for e in ALL
        for ms, wait in ((700, 0.7), (3_600_000, 60.0))
    ]


def denied() -> list[Cell]:
    """Our key, quota or bill: the next entry, and somebody is told."""
    lost = Fate("upstream_failed", 1, 0, alarm="provider_denied", waits=())
    over = Fate(None, 1, 0, spare=1, alarm="provider_denied", waits=())
    cells = [Cell(f"{e}: {s}", e, says(s), lost, over) for e in ALL for s in (401, 402, 403)]
    return [*cells, Cell("main: out of quota", "main", says(429, body=UNPAID), lost, over)]


def overloaded() -> list[Cell]:
    """A whole 500, 503 or 529: nothing was made; twice more, then the next entry."""
    lost = Fate("upstream_failed", 3, 0, waits=(0.5, 1.0))
    over = Fate(None, 3, 0, spare=1, waits=(0.5, 1.0))
    back = Fate(None, 3, 1, waits=(0.5, 1.0))
    cells = [Cell(f"{e}: {s}", e, says(s), lost, over) for e in ALL for s in (500, 503, 529)]
    return cells + [Cell(f"{e}: 503 twice", e, says(503, times=2), back, back) for e in ALL]


def unknown() -> list[Cell]:
    """It may have been made: one call and the truth, or the same again under the provider's own key."""
    cells = []
    deeds: tuple[tuple[Deed, int], ...] = (("hang", 1), ("half", 1), ("reset_after", 1), ("reset_before", 0))
    for entry in ("main", "ai"):
        for status in UNKNOWN_STATUSES:
            fate = Fate("outcome_unknown", 1, 0, flag="outcome_unknown", waits=())
            cells.append(Cell(f"{entry}: {status}", entry, says(status), fate, fate))
        for deed, paid in deeds:
            fate = Fate("outcome_unknown", 1, paid, flag="outcome_unknown", waits=())
            cells.append(Cell(f"{entry}: {deed}", entry, does(deed), fate, fate, NO_TIME))
    back = Fate(None, 2, 1, waits=(0.5,))
    lost = Fate("outcome_unknown", 6, 0, flag="outcome_unknown", waits=(0.5, 1.0, 2.0, 4.0, 8.0))
    cells += [Cell(f"plus: {s}", "plus", says(s), lost, lost) for s in UNKNOWN_STATUSES]
    cells += [Cell(f"plus: {s} once", "plus", says(s, times=1), back, back) for s in UNKNOWN_STATUSES]
    found = Fate(None, 2, 1, waits=(0.5, 3.0))  # the repeat finds the job, and is told when to ask for it
    return cells + [
        Cell(f"plus: {deed}", "plus", does(deed), found if paid else back, found if paid else back, NO_TIME)
        for deed, paid in deeds
    ]


def senseless() -> list[Cell]:
    """A whole answer that makes no sense: paid for, and not asked for again."""
    fate = Fate("upstream_failed", 1, 1, flag="paid_and_unusable", waits=())
    return [Cell(f"{e}: {deed}", e, does(deed), fate, fate) for e in ALL for deed in NONSENSE]


def refused() -> list[Cell]:
    """A refusal, whatever its status: blocked, and no other upstream is tried."""
    fate = Fate("upstream_refused", 1, 0, waits=())
    cells = [Cell(f"{e}: refusal", e, does("refusal"), fate, fate) for e in ALL]
    return cells + [
        Cell(f"{e}: refusal by {s}", e, says(s, body=MODERATED), fate, fate)
        for e, s in (("main", 200), ("main", 403), ("main", 429), ("main", 500), ("ai", 422), ("ai", 503))
    ]


PAID = [*unreachable(), *limited(), *denied(), *overloaded(), *unknown(), *senseless(), *refused()]


def arrange(bench: Workbench, cell: Cell) -> None:
    """Bring the fault about."""
    if isinstance(cell.fault, Lookups):
        bench.names.fail(cell.entry, cell.fault.times)
    elif isinstance(cell.fault, Behavior):
        bench.script(cell.entry, cell.fault)


async def check_money(bench: Workbench, job: Job) -> None:
    """Assert that nothing is held any more and exactly what was delivered is charged."""
    usage = await bench.usage()
    for account in (usage.tenant, usage.user):
        assert (account.held, account.flight, account.charged) == (0, 0, job.charged)
    assert job.charged == PRICE * len(job.outputs)
    assert job.refunded == job.hold.amount - job.charged
    assert sum(row.entry.charged for row in await bench.engine.ledger("acme")) == job.charged


async def check(bench: Workbench, job: Job, fate: Fate, entry: str) -> None:
    """Assert a job's whole fate."""
    assert (None if job.error is None else job.error.code) == fate.code
    if fate.code is None:
        assert (job.state, len(job.outputs), job.shortfall) == (JobState.SUCCEEDED, 1, ())
        assert job.provider == ("spare" if fate.spare else entry)
    else:
        assert job.state is (JobState.BLOCKED if fate.code == "upstream_refused" else JobState.FAILED)
        assert job.shortfall == (Shortfall(0, fate.code, PRICE),)
        assert job.error is not None
        assert job.error.detail == JOB_ERRORS[fate.code]
        assert job.error.retryable is (fate.code in RETRYABLE)
    assert bench.counts(entry) == (fate.calls, fate.paid)
    assert job.operator_flag == fate.flag
    assert bench.alarms() == sorted({word for word in (fate.flag, fate.alarm) if word})
    assert not any(attempt.open for attempt in job.attempts)
    if fate.waits is not None:
        assert tuple(wait for wait in bench.waits if wait != 0.25) == fate.waits
    await check_money(bench, job)


@pytest.mark.parametrize("cell", PAID, ids=[cell.name for cell in PAID])
async def test_a_paid_call_goes_wrong(cell: Cell, tmp_path: Path) -> None:
    """Paid work is asked for again only where nothing was sent, nothing was made, or a key makes it one."""
    options = {
        "attempt_seconds": cell.attempt_seconds,
        "deadline_seconds": cell.deadline_seconds,
        "bases": {cell.entry: cell.fault.url} if isinstance(cell.fault, Base) else {},
    }
    async with workbench(tmp_path / "alone", cell.entry, **options) as bench:
        arrange(bench, cell)
        job = await bench.submit(cell.entry)
        await check(bench, await bench.worked(job), cell.alone, cell.entry)
    async with workbench(tmp_path / "routed", cell.entry, "spare", **options) as bench:
        arrange(bench, cell)
        job = await bench.submit(cell.entry, "spare")
        await check(bench, await bench.worked(job), cell.routed, cell.entry)
        assert bench.counts("spare") == (cell.routed.spare, cell.routed.spare)


class Polled(NamedTuple):
    """One fault of a poll, and the end of its job. `waits` are the first pauses after the first poll."""

    name: str
    fault: Fault
    code: str | None = None
    flag: str | None = None
    alarm: str | None = None
    waits: tuple[float, ...] | None = (0.5,)
    attempt_seconds: float = 10.0


LATE = ("upstream_timeout", "paid_and_late")
POLLS = [
    Polled("no such name", Lookups(2), waits=(0.5, 1.0)),
    Polled("no such name until the deadline", Lookups(), *LATE, waits=(0.5, 1.0, 2.0, 4.0, 8.0, 8.0)),
    Polled("429", limits(5_000, "poll"), waits=(5.0,)),
    Polled("429 past the deadline", limits(3_600_000, "poll"), *LATE, waits=()),
    *(Polled(f"{s} once", says(s, "poll", 1), alarm="provider_denied") for s in (401, 402, 403)),
    *(Polled(f"{s} for ever", says(s, "poll"), *LATE, "provider_denied", None) for s in (401, 402, 403)),
    *(Polled(f"{s} once", says(s, "poll", 1)) for s in (404, 500, 503, 529, *UNKNOWN_STATUSES)),
    *(Polled(f"{s} for ever", says(s, "poll"), *LATE, waits=None) for s in (404, 500, 503, 502)),
    *(Polled(d, does(d, "poll"), attempt_seconds=NO_TIME) for d in ("hang", "half")),
    *(Polled(d, does(d, "poll")) for d in ("reset_before", "reset_after")),
    *(Polled(f"{d} once", does(d, "poll")) for d in NONSENSE),
    *(
        Polled(f"{d} for ever", does(d, "poll", FOREVER), "upstream_failed", "paid_and_unusable", waits=None)
        for d in NONSENSE
    ),
    Polled("refusal", does("refusal", "poll"), "upstream_refused", waits=()),
    Polled("its job failed", does("failed", "poll"), "upstream_failed", waits=()),
]


@pytest.mark.parametrize("entry", ["plus", "ai"])
@pytest.mark.parametrize("cell", POLLS, ids=[cell.name for cell in POLLS])
async def test_a_poll_goes_wrong(cell: Polled, entry: str, tmp_path: Path) -> None:
    """A job that an upstream took is asked for until it answers or the deadline comes, and nobody else is."""
    async with workbench(tmp_path, entry, "spare", attempt_seconds=cell.attempt_seconds) as bench:
        if isinstance(cell.fault, Lookups):
            bench.names.fail(entry, cell.fault.times, after=1)
        elif isinstance(cell.fault, Behavior):
            bench.script(entry, cell.fault)
        job = await bench.worked(await bench.submit(entry, "spare"))
        await check(bench, job, Fate(cell.code, 1, 1, 0, cell.flag, cell.alarm), entry)
        assert bench.counts("spare") == (0, 0)
        if cell.waits is not None:
            assert tuple(w for w in bench.waits if w != 0.25)[: len(cell.waits) or 1] == cell.waits


class Fetched(NamedTuple):
    """One fault of the first of four fetches: how often it is tried, and whether the image is delivered.

    `fresh` is the number of polls that ask for a new link; without a job to ask, none can be had.
    """

    name: str
    fault: Fault
    tries: int = 2
    delivered: bool = True
    fresh: int = 0
    alarms: tuple[str, ...] = ()
    attempt_seconds: float = 10.0


GONE = (403, 404, 410)
IMAGES = [
    Fetched("no such name", Lookups(3), tries=1),
    Fetched("no such name four times", Lookups(4), tries=0, delivered=False),
    Fetched("429", limits(5_000, "image")),
    *(Fetched(f"{s}", says(s, "image", 1), tries=1, delivered=False) for s in (400, 401, 402)),
    *(Fetched(f"{s} once", says(s, "image", 1), fresh=1) for s in GONE),
    *(Fetched(f"{s} for ever", says(s, "image", 2), delivered=False, fresh=1) for s in GONE),
    *(Fetched(f"{s} once", says(s, "image", 1)) for s in (500, 503, 529, *UNKNOWN_STATUSES)),
    *(Fetched(f"{s} three times", says(s, "image", 3), tries=4) for s in (500, 502)),
    *(Fetched(f"{s} four times", says(s, "image", 4), tries=4, delivered=False) for s in (503, 504)),
    *(Fetched(d, does(d, "image"), attempt_seconds=NO_TIME) for d in ("hang", "half")),
    *(Fetched(d, does(d, "image")) for d in ("reset_before", "reset_after")),
    Fetched("huge", does("huge", "image"), tries=1, delivered=False),
    *(
        Fetched(d, does(d, "image"), tries=1, delivered=False, alarms=("output_rejected",))
        for d in ("no_image", "truncated", "bomb")
    ),
]


@pytest.mark.parametrize("entry", ALL)
@pytest.mark.parametrize("cell", IMAGES, ids=[cell.name for cell in IMAGES])
async def test_a_fetch_goes_wrong(cell: Fetched, entry: str, tmp_path: Path) -> None:
    """An image that cannot be had is that index's loss: the others are delivered, and it is not charged."""
    async with workbench(tmp_path, entry, "spare", attempt_seconds=cell.attempt_seconds) as bench:
        if entry == "main":
            bench.script(entry, does("links"))
        if isinstance(cell.fault, Lookups):
            bench.names.fail(entry, cell.fault.times, after=1 if entry == "main" else 2)
        elif isinstance(cell.fault, Behavior):
            once = entry == "main" and cell.fresh
            bench.script(entry, replace(cell.fault, times=1) if once else cell.fault)
        job = await bench.worked(await bench.submit(entry, "spare", slots=(4,)))
        renewable = not cell.fresh or entry != "main"
        delivered = cell.delivered and renewable
        assert job.state is JobState.SUCCEEDED
        assert [output.index for output in job.outputs] == ([0, 1, 2, 3] if delivered else [1, 2, 3])
        assert job.shortfall == (() if delivered else (Shortfall(0, "output_rejected", PRICE),))
        flag = None if delivered else "paid_and_unusable"
        assert job.operator_flag == flag
        assert bench.alarms() == sorted({word for word in (*cell.alarms, flag) if word})
        assert len(bench.fakes[entry].seen("image")) == 3 + (cell.tries if renewable else 1)
        assert len(bench.fakes[entry].seen("poll")) == (0 if entry == "main" else 2 + cell.fresh)
        assert (bench.counts(entry), bench.counts("spare")) == ((1, 1), (0, 0))
        await check_money(bench, job)


@pytest.mark.parametrize("deed", ["no_image", "truncated", "bomb"])
@pytest.mark.parametrize("entry", ALL)
async def test_no_image_at_all(deed: Deed, entry: str, tmp_path: Path) -> None:
    """A job whose only image cannot be delivered has failed, and its whole hold comes back."""
    async with workbench(tmp_path, entry, "spare") as bench:
        bench.script(entry, does(deed, "create" if entry == "main" else "image"))
        job = await bench.worked(await bench.submit(entry, "spare"))
        fate = Fate("output_rejected", 1, 1, flag="paid_and_unusable", alarm="output_rejected")
        await check(bench, job, fate, entry)
        assert bench.counts("spare") == (0, 0)
