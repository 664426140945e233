"""The queue's order over many processes on one Redis, and what older processes leave in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway import doctor
from gateway.store.contract import Claim
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.redis_backlog import DOUBTED_MS, HEADS
from gateway.store.redis_keys import SHARDS, Names, ref
from policies.model import Priority
from policies.order import PRIORITIES, SHARE, Backlog
from tests.contracts.rig import SAID, counting, put
from tests.fakes.redis import server
from tests.gateway.store.processes import Counting, Processes


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


async def fill(many: Processes, store: Engine, n: int, tenant: str, priority: Priority) -> None:
    """Submit jobs."""
    await asyncio.gather(*(put(store, many.job(tenant, priority=priority)) for _ in range(n)))


async def one_by_one(engines: list[Engine], n: int) -> list[Claim]:
    """Claim single jobs, the processes one after the other, each time `n`."""
    return [claim for _ in range(n) for engine in engines for claim in await engine.claim(1, LEASE_MS)]


async def test_processes_keep_turns(many: Processes) -> None:
    """Two processes together serve tenants in turn, and a new tenant's job is among the next two claimed.

    Turns are told apart by the time as each process knows it, so each claims after the other's moment.
    """
    engines = [await many.process() for _ in range(2)]
    for tenant in ("a", "b", "c"):
        await fill(many, engines[0], 60, tenant, "interactive")
    served: Counter[str] = Counter()
    moment = 0
    for engine in engines * 30:
        while await engine.now() <= moment:  # noqa: ASYNC110 - a clock tells nobody that it went on
            await asyncio.sleep(0)
        served.update([claim.job.tenant for claim in await engine.claim(1, LEASE_MS)])
        moment = await engine.now()
    assert served == {"a": 20, "b": 20, "c": 20}
    await fill(many, engines[1], 1, "late", "interactive")
    assert "late" in {claim.job.tenant for claim in await one_by_one(engines, 2)}


async def test_processes_keep_the_share(many: Processes) -> None:
    """Batch gets one place of eight over all processes, as each keeps it for itself."""
    engines = [await many.process() for _ in range(2)]
    for priority in PRIORITIES:
        await fill(many, engines[0], 60, "acme", priority)
    claims = await one_by_one(engines, 3 * SHARE)
    assert Counter(claim.job.priority for claim in claims) == {"interactive": 42, "batch": 6}


def leave(many: Processes, priority: Priority, jobs: Sequence[str], due: int) -> None:
    """Put jobs of acme into a line as due then, as those stand there that an older process ended."""
    line = Names(many.prefix).shard("acme").line(priority)
    server().say("ZADD", line, *(word for job in jobs for word in (str(due), ref(job, "acme"))))


def depths(seen: Backlog) -> list[int]:
    """Return how many wait, a line."""
    return [seen.interactive.depth, seen.batch.depth]


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_look_mends_the_line(many: Processes, priority: Priority) -> None:
    """What an older process ended and left in a line is nobody's wait, and is removed by the next look."""
    engine = await many.process()
    await fill(many, engine, 2, "acme", priority)
    (claim,) = await engine.claim(1, LEASE_MS)
    true = await engine.backlog()
    old = await engine.now() - DOUBTED_MS - 1
    leave(many, priority, [claim.job.id, *(many.uuid() for _ in range(HEADS // 2))], old)
    first = await engine.backlog()
    assert [first.interactive.oldest_at, first.batch.oldest_at] == [
        true.interactive.oldest_at,
        true.batch.oldest_at,
    ]
    assert depths(await engine.backlog()) == depths(true)
    await engine.give_back([claim])
    assert sum(depths(await engine.backlog())) == 2


async def test_ended_job_leaves_the_queue(many: Processes) -> None:
    """A job that an older process ended and left in a queue it did not know is claimed by nobody."""
    engine = await many.process()
    job = await put(engine, many.job(priority="batch"))
    await engine.cancel("acme", job.id, counting(), SAID)
    queue = Names(many.prefix).room("acme").queue("batch")
    server().say("ZADD", queue, "0", job.id)
    server().say("ZADD", Names(many.prefix).shard("acme").turns("batch"), "0", "acme")
    assert await engine.claim(9, LEASE_MS) == []
    assert (await engine.backend.examine("acme")).queued == frozenset()
    assert await doctor.examine(engine.backend, many.chain) == []


async def test_look_mends_in_steps(many: Processes) -> None:
    """A line that holds nothing else for long is mended by so many places a look."""
    engine = await many.process()
    leave(many, "interactive", [many.uuid() for _ in range(HEADS + 1)], await engine.now() - DOUBTED_MS - 1)
    looks = [await engine.backlog() for _ in range(3)]
    assert [each.interactive.depth for each in looks] == [HEADS + 1, 1, 0]
    assert {each.interactive.oldest_at for each in looks} == {None}


async def test_look_costs_the_same() -> None:
    """A look asks as much of Redis after many tenants' jobs as before them: two things a shard and line."""
    many, link = Processes(), Counting(server().url)
    engine, costs = await many.process(link=link), []
    for tenants in (1, 90):
        await asyncio.gather(*(fill(many, engine, 2, f"t{n}", "batch") for n in range(tenants)))
        before = link.sent
        assert depths(await engine.backlog()) == [0, 2 * tenants + (tenants > 1) * 2]
        costs.append(link.sent - before)
    await many.close()
    assert costs[0] == costs[1] <= 2 * len(PRIORITIES) * SHARDS + 2


async def test_empty_line_is_not_looked_at(many: Processes) -> None:
    """Where nothing of batch was seen, claims look at the first line alone until something comes."""
    link = Counting(server().url)
    api, worker = await many.process(), await many.process(link=link)
    await worker.work_due(0.0)
    before = link.sent
    assert await worker.claim(64, LEASE_MS) == []
    assert SHARDS <= link.sent - before < 2 * SHARDS
    waiting = asyncio.create_task(worker.work_due(60.0))
    await asyncio.sleep(0)
    job = await put(api, many.job(priority="batch"))
    await asyncio.wait_for(waiting, 5)
    (claim,) = await worker.claim(64, LEASE_MS)
    assert claim.job.id == job.id


async def test_own_batch_is_seen_at_once(many: Processes) -> None:
    """A process that submits batch, or gives it back, finds it though it had seen none a moment before."""
    engine = await many.process()
    assert await engine.backend.next_due() is None
    await put(engine, many.job(priority="batch"))
    claims = await engine.claim(9, LEASE_MS)
    assert await engine.backend.next_due() is not None
    assert await engine.claim(9, LEASE_MS) == []
    await engine.give_back(claims)
    assert len(await engine.claim(9, LEASE_MS)) == 1
