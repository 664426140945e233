"""Following a job: how long a rest is, when a wait is over, and that nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from gateway.callers import Caller
from gateway.following import LOOK_SECONDS, Following
from policies import quota
from policies.model import Job, JobState, Principal
from tests.contracts.rig import rounds
from tests.fakes.jobs import PLAN, FakeJobs, uuid


class Patient:
    """A subscription that hears of nothing and tells how long it was listened to."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.closed = 0

    async def changed(self, seconds: float) -> frozenset[str]:
        """Return at once."""
        self.waited.append(seconds)
        return frozenset()

    def close(self) -> None:
        """Count."""
        self.closed += 1


async def never() -> Job | None:
    """See no job."""
    return None


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.9), (0.5, 1.0), (0.75, 1.05)])
async def test_rests_differ_by_chance(chance: float, share: float) -> None:
    """A rest is a tenth shorter or longer than it is on average, as chance will have it, and has a bound."""
    watch = Patient()
    with Following(watch, never, lambda: chance) as following:
        assert not await following.rings()
        assert not await following.rings(40.0)
        assert not await following.rings(40.0, most=1.0)
    assert watch.waited == [pytest.approx(LOOK_SECONDS * share), pytest.approx(40 * share), 1.0]
    assert watch.closed == 1


def follow(jobs: FakeJobs, seconds: float) -> asyncio.Task[Job | None]:
    """Wait for the end of the first job."""
    who = Caller(Principal("acme", "ann"), PLAN, PLAN, quota.terms(PLAN, PLAN))

    async def wait() -> Job | None:
        with jobs.follow(who, uuid(1)) as one:
            return await one.until(lambda job: job.state.ended, jobs.jobs[uuid(1)], seconds)

    return asyncio.create_task(wait())


async def test_follower_waits_for_the_end() -> None:
    """A wait is over with the change it is for; at others it looks and waits on."""
    jobs = FakeJobs()
    jobs.put(1)
    waiting = follow(jobs, 60.0)
    await rounds()
    jobs.put(1, state=JobState.RUNNING)
    await rounds()
    assert not waiting.done()
    last = jobs.end(1)
    assert await waiting == last
    assert len(jobs.bell) == 0


async def test_follower_waits_no_longer() -> None:
    """A wait ends with its time, or where its job is gone, and at once for what is over already."""
    jobs = FakeJobs()
    job = jobs.put(1)
    assert await follow(jobs, 0.0) == job
    waiting = follow(jobs, 60.0)
    await rounds()
    del jobs.jobs[job.id]
    jobs.bell.ring_all()
    assert await waiting is None
    last = jobs.put(1, state=JobState.SUCCEEDED)
    assert await follow(jobs, 60.0) == last
