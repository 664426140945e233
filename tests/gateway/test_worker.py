"""The worker: claims, renewals, drains, bugs that lose nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.lifetime import Lifetime
from gateway.store.engine import LEASE_MS
from policies.model import JobState
from tests.fakes.behavior import Behavior
from tests.fakes.raw_server import RawServer, Talk
from tests.journeys.workbench import PATIENCE, PRICE, reopened, upstreams, workbench

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.engine import Engine
    from tests.journeys.workbench import Workbench


class Wrapped:
    """A store that counts its renewals and can be told to fail at a verb."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.renewed = asyncio.Event()
        self.troubles: dict[str, list[Exception]] = {}
        self.troubled = asyncio.Event()

    def __getattr__(self, verb: str) -> Any:
        if self.troubles.get(verb):
            return self._fail(self.troubles[verb].pop(0))
        return getattr(self.engine, verb)

    def _fail(self, trouble: Exception) -> Any:
        async def fail(*_: Any) -> Any:
            self.troubled.set()
            raise trouble

        return fail

    async def renew(self, claims: Any, lease_ms: int) -> Any:
        """Renew, and say so."""
        if self.troubles.get("renewal"):
            raise self.troubles["renewal"].pop(0)
        lost = await self.engine.renew(claims, lease_ms)
        self.renewed.set()
        return lost


class Gate:
    """An upstream that answers nobody until the test is over."""

    def __init__(self) -> None:
        self.server = RawServer(self.hang)

    async def hang(self, talk: Talk) -> None:
        """Read a request and wait for the caller to leave."""
        await talk.request()
        await talk.gone()

    @property
    def base(self) -> dict[str, str]:
        """The base URL of the one entry."""
        return {"main": f"http://main.example.com:{self.server.port}/v1"}


def wrapped(bench: Workbench) -> Wrapped:
    """Return a workbench's store as these tests made it."""
    store = bench.parts.store
    assert isinstance(store, Wrapped)
    return store


# -- claims and leases -----------------------------------------------------------------------------


async def test_worker_makes_many_jobs(tmp_path: Path) -> None:
    """Jobs that come while a worker idles or works are all made, each once."""
    async with workbench(tmp_path, "main") as bench:
        jobs = [await bench.submit("main") for _ in range(10)]
        bench.worker.start()
        await bench.ended(jobs[0])
        jobs += [await bench.submit("main") for _ in range(10)]
        states = [(await bench.ended(job)).state for job in jobs]
        assert states == [JobState.SUCCEEDED] * 20
        assert bench.counts("main") == (20, 20)
        assert (await bench.usage()).tenant.charged == 20 * PRICE


async def test_worker_holds_its_bound(tmp_path: Path) -> None:
    """A worker never has more jobs than it may run at once, and takes the next when one ends."""
    async with workbench(tmp_path, "main", concurrency=2) as bench:
        bench.script("main", Behavior("slow", seconds=0.05, times=0))
        jobs = [await bench.submit("main") for _ in range(5)]
        bench.worker.start()
        most = 0
        for job in jobs:
            await bench.until(job, lambda found: bool(found.attempts))
            most = max(most, len(bench.worker))
        assert [(await bench.ended(job)).charged for job in jobs] == [PRICE] * 5
        assert most == 2


async def test_renewal_keeps_a_job(tmp_path: Path) -> None:
    """A job under way for longer than a lease stays its worker's, as the lease is renewed."""
    gate = Gate()
    async with (
        gate.server,
        workbench(tmp_path, "main", bases=gate.base, renew_seconds=0.01, store=Wrapped) as bench,
    ):
        await bench.submit("main")
        bench.worker.start()
        await gate.server.heard.wait()
        for _ in range(4):
            store = wrapped(bench)
            store.renewed.clear()
            await store.renewed.wait()
            bench.clock.ahead += 25_000
            store.renewed.clear()
            await store.renewed.wait()
            assert not await bench.engine.claim(1, LEASE_MS)
        assert len(bench.worker) == 1


async def test_lost_lease_cuts_the_run(tmp_path: Path) -> None:
    """A worker that learns that its lease is lost hangs up and records nothing: the other's end stands."""
    gate = Gate()
    async with (
        gate.server,
        workbench(
            tmp_path,
            "main",
            bases=gate.base,
            attempt_seconds=100.0,
            renew_seconds=0.01,
            store=Wrapped,
            concurrency=1,
        ) as bench,
    ):
        job = await bench.submit("main")
        wrapped(bench).troubles["renewal"] = [StoreUnavailable("gone")] * 10
        bench.worker.start()
        await gate.server.heard.wait()
        bench.clock.ahead += 180_000
        claim = await bench.claim()
        async with asyncio.timeout(PATIENCE):
            await gate.server.left.wait()
        ended = await bench.run(claim)
        assert ended is not None
        assert ended.operator_flag == "outcome_unknown"
        await bench.drain(PATIENCE)
        assert await bench.until(job, lambda _: True) == ended
        assert bench.told("job") == []


class EndsSlowly(Wrapped):
    """A store that answers an end only after the next renewal."""

    async def record(self, *ended: Any) -> Any:
        """Record, and answer late."""
        answer = await self.engine.record(*ended)
        self.renewed.clear()
        await self.renewed.wait()
        return answer


async def test_ended_jobs_are_not_cut(tmp_path: Path) -> None:
    """A job that has just ended has no lease to lose: its end is told, whatever a renewal finds."""
    async with workbench(tmp_path, "main", renew_seconds=0.01, store=EndsSlowly) as bench:
        job = await bench.worked(await bench.submit("main"))
        assert [line["job"] for line in bench.told("job")] == [job.id]


# -- drain -----------------------------------------------------------------------------------------


async def test_drain_claims_nothing_more(tmp_path: Path) -> None:
    """From the begin of a drain on, what is submitted waits for another process."""
    async with upstreams("main") as fakes:
        async with reopened(tmp_path, fakes) as bench:
            bench.worker.start()
            await bench.ended(await bench.submit("main"))
            bench.lifetime.begin_drain()
            job = await bench.submit("main")
            await bench.drain(PATIENCE)
            assert (await bench.until(job, lambda _: True)).state is JobState.QUEUED
            assert bench.counts("main") == (1, 1)
        async with reopened(tmp_path, fakes) as bench:
            assert (await bench.worked(job)).state is JobState.SUCCEEDED


async def test_drain_lets_calls_finish(tmp_path: Path) -> None:
    """A call under way when the process stops has the drain's time, and its image is recorded."""
    async with workbench(tmp_path, "main", lifetime=Lifetime()) as bench:
        bench.script("main", Behavior("slow", seconds=0.3))
        job = await bench.submit("main")
        bench.worker.start()
        await bench.until(job, lambda found: bool(found.attempts))
        await bench.drain(PATIENCE)
        ended = await bench.until(job, lambda _: True)
        assert (ended.state, ended.charged) == (JobState.SUCCEEDED, PRICE)
        assert len(bench.worker) == 0


async def test_drain_finishes_the_fetch(tmp_path: Path) -> None:
    """Images of a call without an id are fetched in the drain, however often that must be tried."""
    async with workbench(tmp_path, "main", lifetime=Lifetime()) as bench:
        bench.script("main", Behavior("links"), Behavior("status", on="image", status=503))
        job = await bench.submit("main")
        bench.worker.start()
        await bench.until(job, lambda found: bool(found.attempts))
        await bench.drain(PATIENCE)
        assert (await bench.until(job, lambda _: True)).state is JobState.SUCCEEDED


async def test_drain_ends_and_cuts(tmp_path: Path) -> None:
    """A call that outlasts the drain is cut, and the next process says that nobody knows its outcome."""
    gate = Gate()
    async with gate.server, upstreams("main") as fakes:
        async with reopened(tmp_path, fakes, bases=gate.base) as bench:
            job = await bench.submit("main")
            bench.worker.start()
            await gate.server.heard.wait()
            await bench.drain(0.01)
            await gate.server.left.wait()
            assert (await bench.until(job, lambda _: True)).state is JobState.RUNNING
            assert len(await bench.engine.claim(1, LEASE_MS)) == 1
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert ended.operator_flag == "outcome_unknown"
            assert bench.counts("main") == (0, 0)


async def test_drain_outlives_store(tmp_path: Path) -> None:
    """A drain that cannot give its leases back ends all the same: they run out by themselves."""
    gate = Gate()
    async with gate.server, workbench(tmp_path, "main", bases=gate.base, store=Wrapped) as bench:
        await bench.submit("main")
        bench.worker.start()
        await gate.server.heard.wait()
        wrapped(bench).troubles["give_back"] = [StoreUnavailable("gone")]
        await bench.drain(0.01)
        assert len(bench.worker) == 0
        assert [line["kind"] for line in bench.told("fault")] == ["give back"]


async def test_drain_returns_waiting_jobs(tmp_path: Path) -> None:
    """A job that waits to ask its upstream again is due for others once its process stops."""
    async with upstreams("ai") as fakes:
        async with reopened(tmp_path, fakes, lifetime=Lifetime()) as bench:
            bench.script("ai", Behavior("status", on="poll", status=503, headers={"retry-after": "60"}))
            job = await bench.submit("ai")
            bench.worker.start()
            await bench.until(job, lambda found: any(a.upstream_id for a in found.attempts))
            await bench.drain(PATIENCE)
            bench.clock.ahead += 60_000
            (claim,) = await bench.engine.claim(1, LEASE_MS)
            assert claim.job.id == job.id
        async with reopened(tmp_path, fakes) as bench:
            assert (await bench.worked(job)).state is JobState.SUCCEEDED
            assert bench.counts("ai") == (1, 1)


async def test_idle_worker_drains_at_once(tmp_path: Path) -> None:
    """A worker that never began, and one that has nothing to do, stop without waiting."""
    async with workbench(tmp_path, "main") as bench:
        await bench.worker.drain(PATIENCE)
        bench.worker.start()
        await bench.drain(PATIENCE)
        assert len(bench.worker) == 0


# -- bugs and faults -------------------------------------------------------------------------------


class Bug:
    """A crash hook that is a bug: it raises what nobody expects, once."""

    def __init__(self, point: str) -> None:
        self.point = point

    def __call__(self, point: str) -> None:
        """Raise."""
        if point == self.point:
            self.point = ""
            raise ZeroDivisionError(point)


@pytest.mark.parametrize(
    ("entry", "point", "code"),
    [
        ("main", "attempt_recorded", "outcome_unknown"),
        ("main", "upstream_answered", "outcome_unknown"),
        ("plus", "upstream_answered", None),
        ("ai", "output_stored", None),
    ],
)
async def test_bug_gives_job_back(entry: str, point: str, code: str | None, tmp_path: Path) -> None:
    """A bug in a run is told as one, and its job is taken up again from what is written."""
    async with workbench(tmp_path, entry, crash=Bug(point)) as bench:
        job = await bench.submit(entry)
        bench.worker.start()
        await bench.until(job, lambda found: bool(found.attempts))
        await bench.idle()
        await bench.pass_time(5_000)
        ended = await bench.ended(job)
        assert (None if ended.error is None else ended.error.code) == code
        assert bench.counts(entry)[1] <= 1
        assert [line["error"] for line in bench.told("bug")] == ["ZeroDivisionError"]


@pytest.mark.parametrize("verb", ["claim", "work_due", "begin_attempt", "give_back"])
@pytest.mark.parametrize("trouble", [StoreUnavailable("gone"), ZeroDivisionError("bug")])
async def test_worker_outlives_trouble(verb: str, trouble: Exception, tmp_path: Path) -> None:
    """A store that fails, or a bug around it, stops no worker: the jobs are made afterwards."""
    async with workbench(tmp_path, "main", store=Wrapped) as bench:
        store = wrapped(bench)
        store.troubles[verb] = [trouble]
        if verb == "give_back":
            store.troubles["begin_attempt"] = [StoreUnavailable("gone")]
        bench.worker.start()
        job = await bench.submit("main")
        await store.troubled.wait()
        await bench.idle()
        if verb in ("begin_attempt", "give_back"):
            await bench.pass_time(LEASE_MS)
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
        assert bench.counts("main") == (1, 1)


async def test_renewal_outlives_bug(tmp_path: Path) -> None:
    """Leases are renewed after a bug in renewing them, as they are after a fault."""
    gate = Gate()
    async with (
        gate.server,
        workbench(tmp_path, "main", bases=gate.base, renew_seconds=0.01, store=Wrapped) as bench,
    ):
        await bench.submit("main")
        wrapped(bench).troubles["renewal"] = [ZeroDivisionError("bug"), StoreUnavailable("gone")]
        bench.worker.start()
        await gate.server.heard.wait()
        await wrapped(bench).renewed.wait()
        assert wrapped(bench).troubles["renewal"] == []


# -- what is told ----------------------------------------------------------------------------------


async def test_each_end_is_told(tmp_path: Path) -> None:
    """A job's end is one line with its figures, and one that the operator must look at an alarm besides."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", Behavior("no_image"))
        job = await bench.worked(await bench.submit("main", slots=(2,)))
        assert "output_rejected" in bench.alarms()
        assert "paid_and_unusable" in bench.alarms()
        (line,) = bench.told("job")
        assert line["job"] == job.id
        assert (line["state"], line["code"]) == ("failed", "output_rejected")
        assert (line["charged"], line["refunded"], line["shortfall"]) == (0, 2 * PRICE, 2)
        assert line["operator_flag"] == "paid_and_unusable"
