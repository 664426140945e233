"""Many processes on one Redis: limits hold across them, work is shared out, and they hear of each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway import doctor
from gateway.store.backend import News
from gateway.store.contract import Begun, Claim, Recorded, Replayed, Stale, Submitted
from gateway.store.engine import LEASE_MS, Engine
from tests.contracts.beside import ended, hooked
from tests.contracts.rig import SAID, admitting, attempt, counting, ending, put, submit, take
from tests.gateway.store.processes import Processes

MINUTES = 60_000


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


async def test_one_key_across_processes(many: Processes) -> None:
    """One key sent to four processes at once makes one job, and the others answer with it."""
    engines = [await many.process() for _ in range(4)]
    answers = await asyncio.gather(*(submit(engine, many.job(), "k") for engine in engines * 8))
    assert Counter(type(answer) for answer in answers) == {Submitted: 1, Replayed: 31}
    assert len({answer.job.id for answer in answers if isinstance(answer, Submitted | Replayed)}) == 1


async def test_processes_share_the_queue(many: Processes) -> None:
    """Jobs that many processes claim at once, while others are submitted, are leased once each."""
    engines = [await many.process() for _ in range(3)]
    jobs = [many.job(f"t{number % 7}") for number in range(90)]
    answers = await asyncio.gather(
        *(put(engines[number % 3], job) for number, job in enumerate(jobs)),
        *(engine.claim(9, LEASE_MS) for engine in engines * 9),
    )
    claims = [claim for answer in answers if isinstance(answer, list) for claim in answer]
    claims += [claim for engine in engines for claim in await engine.claim(90, LEASE_MS)]
    assert len({claim.job.id for claim in claims}) == len(claims) == 90


async def test_shortened_lease_counts(many: Processes) -> None:
    """Once a call is named, its job may be claimed when the shorter lease runs out, not its deadline's."""
    worker = await many.process()
    await put(worker, many.job())
    (claim,) = await worker.claim(1, 0)
    late = await worker.now() + 100 * MINUTES
    begun = await worker.begin_attempt(claim, attempt(deadline_at=late))
    assert isinstance(begun, Begun)
    assert await worker.claim(1, LEASE_MS) == []
    named = attempt(deadline_at=late, upstream_id="up_1")
    await worker.note_attempt(Claim(begun.job, claim.fence), named)
    due = await worker.backend.next_due()
    assert due is not None
    assert due <= await worker.now() + LEASE_MS


async def test_worker_settles_while_others_submit(many: Processes) -> None:
    """One process' records get through while others submit to the same tenant without a pause."""
    worker, *apis = [await many.process() for _ in range(4)]
    await asyncio.gather(*(put(apis[0], many.job()) for _ in range(40)))
    claims = await take(worker, 40)

    async def work(claim: Claim) -> object:
        begun = await worker.begin_attempt(claim, attempt(deadline_at=await worker.now() + 60_000))
        assert isinstance(begun, Begun)
        return await worker.record(Claim(begun.job, claim.fence), ending(1), SAID)

    async def flood(api: Engine) -> None:
        for _ in range(25):
            await asyncio.gather(*(put(api, many.job(subject=f"u{n}")) for n in range(8)))

    answers = await asyncio.gather(*(work(claim) for claim in claims), *(flood(api) for api in apis))
    assert Counter(type(answer) for answer in answers[:40]) == {Recorded: 40}
    usage = await worker.usage("acme", "ann")
    assert (usage.user.charged, usage.user.held, usage.tenant.flight) == (400, 0, 600)
    assert await doctor.examine(worker.backend, many.chain) == []


async def test_figures_are_everybodys(many: Processes) -> None:
    """What one process commits another shows at its next read, whatever it knew before."""
    one, two = await many.process(), await many.process()
    await put(one, many.job())
    assert (await two.usage("acme", "ann")).user.held == 10
    job = await put(two, many.job())
    assert (await one.usage("acme", "ann")).user.held == 20
    await two.cancel("acme", job.id, counting(), SAID)
    found = await one.get_job("acme", job.id, "ann")
    assert found is not None
    assert (found.usage.user.held, found.job.state) == (10, "canceled")


async def test_waiters_hear_other_processes(many: Processes) -> None:
    """Who waits for a job, or watches its subject, hears at once of what another process does to it."""
    api, worker = await many.process(), await many.process()
    job = await put(api, many.job())
    watch = api.watch("acme", "ann")
    waiting = asyncio.create_task(api.wait_job("acme", job.id, 1, 60.0))
    (claim,) = await take(worker)
    begun = await worker.begin_attempt(claim, attempt(deadline_at=await worker.now() + 60_000))
    assert isinstance(begun, Begun)
    assert await asyncio.wait_for(waiting, 5) == begun.job
    assert await watch.changed(5) == {job.id}


async def test_nobody_hears_their_own(many: Processes) -> None:
    """A process is told what others did, by commits and by leases given back, and not what it did itself."""
    backends = [many.over(), many.over()]
    one, two = (many.engine(backend) for backend in backends)
    heard: list[asyncio.Queue[News | None]] = [asyncio.Queue(), asyncio.Queue()]
    for backend, news in zip(backends, heard, strict=True):
        backend.listen(news.put_nowait, lambda: None)
        await backend.start()
        await backend.heard()
    job = await put(one, many.job())
    await two.give_back(await two.claim(1, LEASE_MS))
    await put(one, many.job("last"))
    await put(two, many.job("last"))
    async with asyncio.timeout(5):
        told = [[await news.get() for _ in range(3)] for news in heard]
    assert told[0][:2] == [None, News(due=True)]
    assert told[1][:2] == [None, News("acme", (("ann", job.id),), due=True)]
    assert [news and news.tenant for _, _, news in told] == ["last", "last"]


async def test_workers_hear_other_processes(many: Processes) -> None:
    """A worker that waits is woken by another's submit, and a deliverer by the end of another's job."""
    api, worker = await many.process(), await many.process()
    await hooked(many, api)
    waiting = asyncio.create_task(worker.work_due(60.0))
    telling = asyncio.create_task(worker.deliveries_due(60.0))
    await asyncio.sleep(0)
    many.clock.at = await api.now()
    await ended(many, api)
    await asyncio.wait_for(asyncio.gather(waiting, telling), 5)
    assert len(await worker.claim_deliveries(9, 1000)) == 1


async def test_new_process_takes_no_lease(many: Processes) -> None:
    """A process that starts leaves the leases of those that live; one that ends gives back its own alone."""
    one, two = await many.process(), await many.process()
    for _ in range(2):
        await put(one, many.job())
    (mine,), (theirs,) = await take(one), await take(two)
    late = await many.process()
    assert await late.claim(9, LEASE_MS) == []
    assert await one.renew([mine], LEASE_MS) == frozenset()
    await many.shut(two)
    (again,) = await take(late, 1)
    assert (again.job.id, await late.claim(9, LEASE_MS)) == (theirs.job.id, [])
    assert isinstance(await one.begin_attempt(mine, attempt()), Begun)
    assert isinstance(await one.begin_attempt(theirs, attempt()), Stale)


async def test_admitted_job_is_decided_by_redis(many: Processes) -> None:
    """A job's instants are of Redis' clock, however wrong the clock of the process that submits it is."""
    right, wrong = await many.process(), await many.process(ahead_ms=90 * MINUTES)
    job = many.job()
    answer = await wrong.submit(job, admitting(job), SAID)
    assert isinstance(answer, Submitted)
    assert abs(await right.now() - answer.job.created_at) < MINUTES
