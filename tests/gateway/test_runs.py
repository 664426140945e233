"""Runs: what a crash leaves, what a cancel ends, whose end counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from gateway.audit import Record
from gateway.errors import StoreBusy, StoreUnavailable
from gateway.lifetime import Lifetime
from gateway.runs import Parted
from gateway.store.contract import Canceled
from policies.model import Job, JobState
from tests.fakes.behavior import Behavior
from tests.fakes.raw_server import RawServer, Talk
from tests.journeys.workbench import PRICE, reopened, upstreams, workbench

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.engine import Engine


class Died(BaseException):
    """The process is gone."""


class DiesAt:
    """A crash hook: the process dies when it passes a point for the n-th time."""

    def __init__(self, point: str, nth: int = 1) -> None:
        self.point = point
        self.left = nth

    def __call__(self, point: str) -> None:
        """Die at the point."""
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise Died


class Crash(NamedTuple):
    """Where a process dies over a job, and what the next one makes of it."""

    entry: str
    point: str
    code: str | None
    calls: int
    paid: int
    before: tuple[Behavior, ...] = ()
    nth: int = 1
    route: tuple[str, ...] = ()


BUSY = Behavior("status", status=503)
CRASHES = [
    # written down, not sent: nobody can know that
    Crash("main", "attempt_recorded", "outcome_unknown", 0, 0),
    Crash("ai", "attempt_recorded", "outcome_unknown", 0, 0),
    Crash("plus", "attempt_recorded", None, 1, 1),
    # answered, and the answer died with the process
    Crash("main", "upstream_answered", "outcome_unknown", 1, 1),
    Crash("ai", "upstream_answered", "outcome_unknown", 1, 1),
    Crash("plus", "upstream_answered", None, 2, 1),
    # the image is stored: without an id its job cannot say so
    Crash("main", "output_stored", "outcome_unknown", 1, 1),
    Crash("ai", "output_stored", None, 1, 1),
    Crash("plus", "output_stored", None, 1, 1),
    Crash("main", "recorded", None, 1, 1),
    # a closed attempt came to nothing: the next is a fresh one, and dies or not
    Crash("main", "attempt_recorded", "outcome_unknown", 1, 0, (BUSY,), 2),
    Crash("plus", "attempt_recorded", None, 2, 1, (BUSY,), 2),
]


async def crash(folder: Path, fakes: dict[str, Any], case: Crash) -> Job:
    """Run a job in a process that dies over it."""
    async with reopened(folder, fakes, crash=DiesAt(case.point, case.nth)) as bench:
        bench.script(case.entry, *case.before)
        job = await bench.submit(*(case.route or (case.entry,)))
        with pytest.raises(Died):
            await bench.run()
    return job


@pytest.mark.parametrize("case", CRASHES, ids=[f"{c.entry} {c.point} {c.nth}" for c in CRASHES])
async def test_crash_pays_nothing_twice(case: Crash, tmp_path: Path) -> None:
    """After a crash a job ends, its upstream is paid once at most, and what nobody knows is said to be so."""
    async with upstreams(case.entry) as fakes:
        job = await crash(tmp_path, fakes, case)
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert (None if ended.error is None else ended.error.code) == case.code
            assert bench.counts(case.entry) == (case.calls, case.paid)
            assert ended.operator_flag == case.code
            assert ended.charged == (PRICE if case.code is None else 0)
            usage = await bench.usage()
            assert (usage.tenant.held, usage.tenant.charged) == (0, ended.charged)
            keys = {call.idempotency_key for call in fakes[case.entry].seen("create")}
            assert len(keys) <= 1


@pytest.mark.parametrize("entry", ["main", "ai", "plus"])
async def test_crash_while_it_is_sent(entry: str, tmp_path: Path) -> None:
    """A process that dies with its request on the way leaves at most one paid call behind."""
    async with upstreams(entry) as fakes:
        job = await crash(tmp_path, fakes, Crash(entry, "upstream_sent", None, 0, 0))
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            calls, paid = bench.counts(entry)
            assert paid <= 1
            assert ended.state is (JobState.SUCCEEDED if entry == "plus" else JobState.FAILED)
            assert calls <= (2 if entry == "plus" else 1)


async def test_late_process_still_asks(tmp_path: Path) -> None:
    """A job whose upstream took it is asked for once even past its deadline: it may be done and paid."""
    async with upstreams("ai") as fakes:
        job = await crash(tmp_path, fakes, Crash("ai", "output_stored", None, 1, 1))
        async with reopened(tmp_path, fakes) as bench:
            bench.run_clock.ahead += 3_600_000
            ended = await bench.worked(job)
            assert (ended.state, bench.counts("ai")) == (JobState.SUCCEEDED, (1, 1))


class Drains:
    """A crash hook that does not crash: its process begins to stop when it passes a point."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.lifetime = Lifetime()

    def __call__(self, point: str) -> None:
        """Begin the drain."""
        if point == self.point:
            self.lifetime.begin_drain()


@pytest.mark.parametrize(
    ("entry", "behavior", "route"),
    [
        ("main", BUSY, ("main",)),
        ("main", Behavior("status", status=429), ("main", "spare")),
        ("main", Behavior("status", status=401), ("main", "spare")),
        ("plus", Behavior("reset_after"), ("plus", "spare")),
        ("ai", Behavior("slow", seconds=0), ("ai", "spare")),
    ],
)
async def test_drain_between_calls_loses_nothing(
    entry: str, behavior: Behavior, route: tuple[str, ...], tmp_path: Path
) -> None:
    """A job parted from its process after a whole answer goes on where it stood, and is paid once."""
    drains = Drains("upstream_answered")
    async with upstreams(*route) as fakes:
        async with reopened(tmp_path, fakes, crash=drains, lifetime=drains.lifetime) as bench:
            bench.script(entry, behavior)
            job = await bench.submit(*route)
            bench.worker.start()
            await drains.lifetime.stopping.wait()
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert (ended.state, ended.operator_flag) == (JobState.SUCCEEDED, None)
            assert sum(fake.paid for fake in fakes.values()) == 1


async def test_stopping_process_begins_nothing(tmp_path: Path) -> None:
    """A job claimed by a process that stops is given back with no attempt made."""
    async with workbench(tmp_path, "main") as bench:
        bench.lifetime.begin_drain()
        await bench.submit("main")
        with pytest.raises(Parted) as parted:
            await bench.run()
        assert parted.value.after_ms == 0
        assert bench.counts("main") == (0, 0)


async def test_doubt_is_kept_by_crash(tmp_path: Path) -> None:
    """What may have been taken before a crash is not made elsewhere because its upstream now says no."""
    async with upstreams("plus", "spare") as fakes:
        job = await crash(
            tmp_path, fakes, Crash("plus", "upstream_answered", None, 0, 0, route=("plus", "spare"))
        )
        async with reopened(tmp_path, fakes) as bench:
            bench.script("plus", Behavior("status", status=401, times=2))
            ended = await bench.worked(job)
            assert (ended.state, ended.provider) == (JobState.SUCCEEDED, "plus")
            assert (bench.counts("plus"), bench.counts("spare")) == ((4, 1), (0, 0))


async def test_stopping_process_repeats_nothing(tmp_path: Path) -> None:
    """A call that could be sent again under its key is not sent by a process that stops."""
    async with upstreams("plus") as fakes:
        await crash(tmp_path, fakes, Crash("plus", "attempt_recorded", None, 0, 0))
        async with reopened(tmp_path, fakes) as bench:
            bench.lifetime.begin_drain()
            with pytest.raises(Parted):
                await bench.run()
            assert bench.counts("plus") == (0, 0)


async def test_done_slots_stay_done(tmp_path: Path) -> None:
    """A process that goes on with a job makes only the slots that are not done yet."""
    async with upstreams("main") as fakes:
        async with reopened(tmp_path, fakes, lifetime=Lifetime()) as bench:
            late = {"retry-after": "60"}
            bench.script("main", Behavior("status", status=429, headers=late, match='"n":2'))
            job = await bench.submit("main", slots=(1, 2))
            bench.worker.start()
            await bench.until(
                job, lambda found: sorted(a.done for a in found.attempts if not a.open) == [0, 1]
            )
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert [output.index for output in ended.outputs] == [0, 1, 2]
            assert (ended.charged, bench.counts("main")) == (3 * PRICE, (3, 2))


# -- cancel ----------------------------------------------------------------------------------------


async def hang(talk: Talk) -> None:
    """Read a request and wait for the caller to leave."""
    await talk.request()
    await talk.gone()


async def test_cancel_closes_the_socket(tmp_path: Path) -> None:
    """A cancel of a call under way hangs up, gives all back, and flags what the upstream may ask for."""
    async with RawServer(hang) as server:
        base = f"http://main.example.com:{server.port}/v1"
        async with workbench(tmp_path, "main", bases={"main": base}) as bench:
            job = await bench.submit("main", slots=(2,))
            bench.worker.start()
            await server.heard.wait()
            await bench.cancel(job)
            ended = await bench.ended(job)
            await server.left.wait()
            assert ended.error is not None
            assert (ended.state, ended.error.code) == (JobState.CANCELED, "canceled")
            assert (ended.charged, ended.refunded) == (0, 2 * PRICE)
            assert ended.operator_flag == "paid_and_canceled"
            assert (await bench.usage()).tenant.held == 0
            assert len(server.requests) == 1


async def test_cancel_ends_a_wait(tmp_path: Path) -> None:
    """A job canceled while it waits for its next attempt ends at once, and nothing was paid."""
    async with workbench(tmp_path, "main", lifetime=Lifetime()) as bench:
        late = {"retry-after": "60"}
        bench.script("main", Behavior("status", status=429, headers=late))
        job = await bench.submit("main")
        bench.worker.start()
        await bench.until(job, lambda found: any(not a.open for a in found.attempts))
        await bench.cancel(job)
        ended = await bench.ended(job)
        assert (ended.state, ended.operator_flag) == (JobState.CANCELED, None)
        assert bench.counts("main") == (1, 0)


async def test_cancel_drops_finished_slots(tmp_path: Path) -> None:
    """A cancel while one of two slots is done delivers nothing, charges nothing, and says it was paid."""
    async with workbench(tmp_path, "main", lifetime=Lifetime()) as bench:
        late = {"retry-after": "60"}
        bench.script("main", Behavior("status", status=429, headers=late, match='"n":2'))
        job = await bench.submit("main", slots=(1, 2))
        bench.worker.start()
        await bench.until(job, lambda found: sorted(a.done for a in found.attempts if not a.open) == [0, 1])
        await bench.cancel(job)
        ended = await bench.ended(job)
        assert (ended.outputs, ended.charged) == ((), 0)
        assert ended.operator_flag == "paid_and_canceled"


async def test_canceled_while_queued_is_unsent(tmp_path: Path) -> None:
    """A job canceled between its claim and its first attempt has ended, and its run sends nothing."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main")
        claim = await bench.claim()
        found = await bench.engine.cancel("acme", job.id, lambda usage, _now: usage, Record("job.cancel"))
        assert isinstance(found, Canceled)
        with pytest.raises(Parted) as parted:
            await bench.run(claim)
        assert parted.value.after_ms is None
        assert bench.counts("main") == (0, 0)


async def test_cancel_is_kept_by_crash(tmp_path: Path) -> None:
    """A cancel that was asked for before a crash is done by the next process, which asks nobody."""
    async with upstreams("ai") as fakes:
        job = await crash(tmp_path, fakes, Crash("ai", "output_stored", None, 1, 1))
        async with reopened(tmp_path, fakes) as bench:
            await bench.cancel(job)
            polls = len(fakes["ai"].seen("poll"))
            ended = await bench.worked(job)
            assert (ended.state, ended.operator_flag) == (JobState.CANCELED, "paid_and_canceled")
            assert len(fakes["ai"].seen("poll")) == polls


class Wrapped:
    """A store with some verbs of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.calls: list[str] = []

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.engine, verb)


class CancelsFirst(Wrapped):
    """A cancel is committed just before each end."""

    async def record(self, claim: Any, end: Any, record: Any) -> Any:
        """Cancel, then record."""
        await self.engine.cancel("acme", claim.job.id, lambda usage, _now: usage, Record("job.cancel"))
        return await self.engine.record(claim, end, record)


async def test_finished_beats_asked_cancel(tmp_path: Path) -> None:
    """A cancel that comes while a finished job is being recorded is too late: the images are charged."""
    async with workbench(tmp_path, "main", store=CancelsFirst) as bench:
        job = await bench.run_to_end(await bench.submit("main"))
        assert (job.state, job.charged) == (JobState.SUCCEEDED, PRICE)
        assert job.cancel_requested_at is not None
        usage = await bench.usage()
        assert (usage.tenant.held, usage.tenant.charged, usage.tenant.flight) == (0, PRICE, 0)


# -- the store -------------------------------------------------------------------------------------


class Falters(Wrapped):
    """A store whose verbs fail some times before they work."""

    def __init__(self, engine: Engine, **times: int) -> None:
        super().__init__(engine)
        self.times = times

    def __getattr__(self, verb: str) -> Any:
        if self.times.get(verb, 0) > 0:
            self.times[verb] -= 1
            self.calls.append(verb)
            return self.fail
        return super().__getattr__(verb)

    async def fail(self, *_: Any) -> Any:
        """Fail as a store does."""
        raise StoreBusy("refused") if len(self.calls) % 2 else StoreUnavailable("gone")


@pytest.mark.parametrize("verb", ["record", "note_attempt", "wait_job"])
async def test_store_may_falter_after_pay(verb: str, tmp_path: Path) -> None:
    """A store that does not answer for some seconds costs no image that is paid for."""
    stores: list[Falters] = []

    def falters(engine: Engine) -> Any:
        stores.append(Falters(engine, **{verb: 3}))
        return stores[0]

    async with workbench(tmp_path, "ai", store=falters) as bench:
        job = await bench.run_to_end(await bench.submit("ai"))
        assert (job.state, bench.counts("ai")) == (JobState.SUCCEEDED, (1, 1))
        assert stores[0].calls[0] == verb


async def test_nothing_is_sent_unrecorded(tmp_path: Path) -> None:
    """Where an attempt cannot be written down it is not sent, and the run ends as the store's fault."""
    async with workbench(tmp_path, "main", store=lambda e: Falters(e, begin_attempt=1)) as bench:
        await bench.submit("main")
        with pytest.raises((StoreBusy, StoreUnavailable)):
            await bench.run()
        assert bench.counts("main") == (0, 0)


class Unheard(Wrapped):
    """A store that writes the first attempt down, and is not known to have."""

    async def begin_attempt(self, claim: Any, attempt: Any) -> Any:
        """Begin, and fail once."""
        self.calls.append("begin_attempt")
        begun = await self.engine.begin_attempt(claim, attempt)
        if len(self.calls) == 1:
            raise StoreUnavailable("too few replicas")
        return begun


async def test_unconfirmed_attempt_is_closed(tmp_path: Path) -> None:
    """An attempt that may stand there unsent is closed as such: the job is made later, and paid for once."""
    async with workbench(tmp_path, "main", store=Unheard) as bench:
        job = await bench.submit("main")
        claim = await bench.claim()
        with pytest.raises(StoreUnavailable):
            await bench.run(claim)
        assert bench.counts("main") == (0, 0)
        found = await bench.engine.get_job("acme", job.id, "ann")
        assert found is not None
        assert [attempt.open for attempt in found.job.attempts] == [False]
        await bench.engine.give_back([claim])
        ended = await bench.worked(job)
        assert (ended.state, bench.counts("main")) == (JobState.SUCCEEDED, (1, 1))


# -- leases and deadlines --------------------------------------------------------------------------


async def test_lost_lease_sends_nothing(tmp_path: Path) -> None:
    """A run whose job another worker took since changes nothing and calls nobody."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main")
        old = await bench.claim()
        bench.clock.ahead += 60_000
        ended = await bench.run_to_end(job)
        with pytest.raises(Parted):
            await bench.run(old)
        found = await bench.until(job, lambda _: True)
        assert (found, bench.counts("main")) == (ended, (1, 1))


async def test_late_result_changes_nothing(tmp_path: Path) -> None:
    """A result that comes after another worker ended the job is thrown away: that end stands."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", Behavior("slow", seconds=0.3))
        job = await bench.submit("main")
        making = asyncio.create_task(bench.run(await bench.claim()))
        await bench.until(job, lambda found: bool(found.attempts))
        bench.clock.ahead += 60_000
        ended = await bench.run_to_end(job)
        assert ended.operator_flag == "outcome_unknown"
        with pytest.raises(Parted):
            await making
        assert (await bench.until(job, lambda _: True)) == ended
        assert (await bench.usage()).tenant.charged == 0


async def test_overdue_jobs_are_not_begun(tmp_path: Path) -> None:
    """A job that was not begun by its deadline ends with no attempt, and its hold comes back."""
    async with workbench(tmp_path, "main", deadline_seconds=60) as bench:
        job = await bench.submit("main")
        bench.run_clock.ahead += 60_000
        ended = await bench.run_to_end(job)
        assert ended.error is not None
        assert (ended.error.code, ended.attempts, ended.charged) == ("deadline_exceeded", (), 0)
        assert bench.counts("main") == (0, 0)
