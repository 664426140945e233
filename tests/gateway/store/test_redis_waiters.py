"""Many who wait cost the store nothing but a look each now and then: shown by counting what is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.following import Following
from gateway.store.contract import Begun, Claim
from gateway.store.engine import Engine
from policies.model import Job
from tests.contracts.rig import SAID, attempt, ending, put, rounds, take
from tests.fakes.redis import server
from tests.gateway.store.processes import Counting, Processes

WAITERS = 300


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


def following(engine: Engine, job: Job) -> Following:
    """Follow a job as the API does."""
    watch = engine.watch(job.tenant, job=job.id)
    return Following(watch, lambda: engine.wait_job(job.tenant, job.id, 0, 0.0), lambda: 0.5)


async def until_ended(engine: Engine, job: Job) -> Job | None:
    """Wait for the end of a job."""
    with following(engine, job) as one:
        return await one.until(lambda job: job.state.ended, job, 60.0)


async def test_waiters_ask_nothing(many: Processes) -> None:
    """While nothing happens nobody asks the store; an end costs one read where it is waited for, no other."""
    links = [Counting(server().url) for _ in range(2)]
    apis = [await many.process(link=link) for link in links]
    worker = await many.process()
    jobs = await asyncio.gather(*(put(worker, many.job(f"t{n % 7}")) for n in range(WAITERS)))
    claims = await take(worker, WAITERS)
    begun = [
        await worker.begin_attempt(each, attempt(deadline_at=await worker.now() + 60_000)) for each in claims
    ]
    waiting = [asyncio.create_task(until_ended(apis[n % 2], job)) for n, job in enumerate(jobs)]
    await rounds()
    before = [link.sent for link in links]
    await rounds(200)
    assert [link.sent for link in links] == before
    for claim, answer in zip(claims, begun, strict=True):
        assert isinstance(answer, Begun)
        await worker.record(Claim(answer.job, claim.fence), ending(1), SAID)
    ended = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert [job is not None and job.state.ended for job in ended] == [True] * WAITERS
    sent = sum(link.sent for link in links) - sum(before)
    assert WAITERS <= sent <= 4 * WAITERS  # two changes of each job, each a read and its share of a batch


async def test_looks_share_their_way(many: Processes) -> None:
    """Looks that many take in one turn are one read each and travel together."""
    link = Counting(server().url)
    api = await many.process(link=link)
    jobs = await asyncio.gather(*(put(api, many.job()) for _ in range(WAITERS)))
    ones = [following(api, job) for job in jobs]
    before = link.sent
    assert await asyncio.gather(*(one.look() for one in ones)) == jobs
    assert link.sent == before + WAITERS + 1
    for one in ones:
        one.__exit__()
