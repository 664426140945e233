"""A Redis that lost what it had confirmed: a replica that was behind takes over, or a log that was short."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Begun, Stale, Submitted
from gateway.store.flight import Patience
from gateway.store.redis_keys import Names
from tests.contracts.rig import attempt, put, submit
from tests.fakes.cut import Cut
from tests.fakes.redis import Redis, server
from tests.fakes.replica import Pair
from tests.fakes.sentinel import Sentinel
from tests.gateway.store.processes import Processes, answered, backend

TENANTS = tuple(f"t{n}" for n in range(8))
LOSING = TENANTS[:4]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary and its replica."""
    with Pair() as made:
        yield made


@pytest.fixture
async def way(pair: Pair) -> AsyncIterator[Cut]:
    """The way to whoever is the primary."""
    async with Cut(pair.primary.port) as proxy:
        yield proxy


@pytest.fixture
async def many(way: Cut) -> AsyncIterator[Processes]:
    """Processes that go that way."""
    made = Processes(way.url)
    made.patience = Patience(settle=1.0)
    yield made
    await made.close()


@pytest.fixture
def watched() -> Iterator[Sentinel]:
    """A primary, a replica, a sentinel."""
    with Sentinel() as made:
        yield made


async def lose(many: Processes, part: Callable[[], None], fail_over: Callable[[], None]) -> None:
    """Lose 640 confirmed submits in a failover, and insist on what comes of it.

    No process admits anything to a tenant that lost some, be it one that knew nothing of what was lost; the
    other tenants go on, and an operator opens the rest.
    """
    engines = [await many.process() for _ in range(3)]
    for tenant in TENANTS:
        for engine in engines:
            await put(engine, many.job(tenant))
    await asyncio.to_thread(part)
    await asyncio.gather(*(put(engines[n % 2], many.job(LOSING[n % 4])) for n in range(640)))
    await backend(engines[2]).sample()
    await asyncio.to_thread(fail_over)
    asked = [(engine, tenant) for engine in engines for tenant in TENANTS]
    answers = await asyncio.gather(*(answered(many, *each) for each in asked))
    found = {(tenant, answer) for (_engine, tenant), answer in zip(asked, answers, strict=True)}
    assert found == {(tenant, "closed" if tenant in LOSING else "in") for tenant in TENANTS}
    findings = await doctor.examine(engines[2].backend, many.chain)
    told = Counter((finding.tenant, finding.kind, finding.of) for finding in findings)
    assert told == {("_", "closed", "store"): 1} | {(tenant, "closed", "tenant"): 1 for tenant in LOSING}
    for tenant in ("_", *LOSING):
        assert await engines[0].reopen(tenant, "operator") is not None
    for tenant in TENANTS:
        for engine in engines:
            assert isinstance(await submit(engine, many.job(tenant)), Submitted)
    assert await doctor.examine(engines[0].backend, many.chain) == []


async def test_lost_tenants_are_closed_by_all(many: Processes, pair: Pair, way: Cut) -> None:
    """Where a replica takes over in the old one's place, what it lacks is closed by all who live."""
    loop = asyncio.get_running_loop()

    def fail_over() -> None:
        pair.fail_over()
        loop.call_soon_threadsafe(way.turn, pair.replica.port)

    await lose(many, pair.part, fail_over)


async def test_sentinels_promote_less(watched: Sentinel) -> None:
    """Where sentinels promote a replica that was cut off, what it lacks is closed by all who live."""
    many = Processes(watched.url)
    many.patience = Patience(settle=1.0)

    def fail_over() -> None:
        watched.primary.stop()
        watched.changed()

    await lose(many, watched.part, fail_over)
    await many.close()


async def test_whole_failover_closes_nothing(many: Processes, pair: Pair, way: Cut) -> None:
    """A replica that has everything takes over, and all goes on: nothing is closed, nothing told."""
    engine = await many.process()
    await put(engine, many.job())
    await backend(engine).sample()
    pair.level()
    pair.fail_over()
    way.turn(pair.replica.port)
    assert await answered(many, engine, "acme") == "in"
    assert await doctor.examine(engine.backend, many.chain) == []


async def test_demoted_primary_is_left_behind(many: Processes, pair: Pair, way: Cut) -> None:
    """Where the address leads to another primary and what was connected to the old one stays, all goes on."""
    many.patience = Patience(settle=0.0)
    engine = await many.process()
    await put(engine, many.job())
    pair.level()
    pair.replica.ask("REPLICAOF", "NO", "ONE")
    pair.primary.ask("REPLICAOF", "127.0.0.1", str(pair.replica.port))
    way.lead(pair.replica.port)
    assert await asyncio.wait_for(answered(many, engine, "acme"), 10) == "in"
    late = await many.process(pair.replica.url)
    assert (await late.usage("acme", "ann")).user.held == 20


async def test_commits_are_not_sent_elsewhere(many: Processes, pair: Pair, way: Cut) -> None:
    """A commit that is under way at a failover is not sent to whoever took over."""
    engine = await many.process()
    await put(engine, many.job())
    pair.level()
    way.free.clear()
    sending = asyncio.create_task(submit(engine, many.job("new")))
    await way.held.wait()
    pair.fail_over()
    way.turn(pair.replica.port)
    way.free.set()
    with pytest.raises(StoreUnavailable):
        await sending
    assert await answered(many, engine, "new") == "in"
    assert (await engine.usage("new", "ann")).tenant.flight == 1


async def test_short_log_closes_tenant() -> None:
    """A Redis that comes back without the end of its log is noticed by those who know what stood there."""
    with Redis() as alone:
        many = Processes(alone.url)
        many.patience = Patience(settle=0.0)
        engine = await many.process()
        await put(engine, many.job())
        await put(engine, many.job("other"))
        (log,) = alone.folder.glob("appendonlydir/*.incr.aof")
        size = log.stat().st_size
        await put(engine, many.job())
        alone.stop()
        assert log.stat().st_size > size
        os.truncate(log, size)
        alone.start()
        assert await answered(many, engine, "acme") == "closed"
        assert await answered(many, engine, "other") == "in"
        (finding,) = await doctor.examine(engine.backend, many.chain)
        assert (finding.tenant, finding.kind) == ("acme", "closed")
        await many.close()


async def test_lost_leases_have_other_numbers() -> None:
    """A lease that Redis lost is given again under another fence: who had it before may do nothing."""
    many = Processes()
    store = await many.process()
    await put(store, many.job())
    (old,) = await store.claim(1, 0)
    server().ask("DEL", Names(many.prefix).shard("acme").fence)
    while await store.now() <= old.fence:
        pass
    (new,) = await store.claim(1, 0)
    assert new.job == old.job
    assert isinstance(await store.begin_attempt(old, attempt()), Stale)
    assert isinstance(await store.begin_attempt(new, attempt()), Begun)
    await many.close()
