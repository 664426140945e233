"""Replies that are lost, a Redis that freezes, restarts or forgets: no figure changes, answers are true."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Begun, Claim, Kept, Recorded, Replayed, Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.flight import Patience
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_link import ANSWER_SECONDS
from policies.webhooks import Endpoint
from tests.contracts.beside import all_of, delivered, hooked, lease
from tests.contracts.rig import SAID, attempt, counting, ending, put, submit, take
from tests.fakes.cluster import Cluster
from tests.fakes.cut import Cut
from tests.fakes.redis import Redis, server
from tests.gateway.store.processes import Processes

SCRIPTS = ("claim", "commit", "deliver", "lease")


@pytest.fixture
async def cut() -> AsyncIterator[Cut]:
    """What loses replies of the shared Redis."""
    async with Cut(server().port) as proxy:
        yield proxy


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


@pytest.fixture
def alone() -> Iterator[Redis]:
    """A Redis of one test, to be ill-treated."""
    with Redis() as running:
        yield running


def losing(proxy: Cut, times: int) -> None:
    """Lose the reply of each script so many times in a row, then let it through, then begin anew."""
    seen: list[bool] = []

    def lose(sent: bytes) -> bool:
        if b"EVALSHA" not in sent:
            return False
        seen.append(len(seen) % (times + 1) < times)
        return seen[-1]

    proxy.cut = lose


async def story(many: Processes, store: Engine) -> tuple[Engine, Endpoint]:
    """Submit, repeat, cancel, run, give back, tell; return what is left to look at."""
    hook = await hooked(many, store)
    one = await submit(store, many.job(count=2), "k")
    assert isinstance(one, Submitted)
    assert isinstance(await submit(store, many.job(count=2), "k"), Replayed)
    two = await put(store, many.job())
    await store.cancel("acme", two.id, counting(), SAID)
    (claim,) = await take(store)
    assert claim.job.id == one.job.id
    assert await store.renew([claim], LEASE_MS) == frozenset()
    await store.give_back([claim])
    (claim,) = await take(store)
    begun = await store.begin_attempt(claim, attempt(deadline_at=await store.now() + 60_000))
    assert isinstance(begun, Begun)
    assert isinstance(await store.record(Claim(begun.job, claim.fence), ending(1), SAID), Recorded)
    (notice, *others) = await lease(store, 2)
    await store.release_deliveries(others)
    assert isinstance(await store.record_delivery(notice, delivered), Kept)
    await store.erase("acme", two.id, counting(), SAID)
    return store, hook


async def figures(many: Processes, store: Engine, hook: Endpoint) -> list[Any]:
    """Return what the story comes to, and insist on a sound store."""
    assert await doctor.examine(store.backend, many.chain) == []
    of = await store.backend.examine("acme")
    rows = [(row.version, row.index, row.entry.kind, row.entry.held, row.entry.charged) for row in of.ledger]
    account = of.state.doc.account
    return [
        of.state.version,
        (account.held, account.charged, account.flight, account.spent, account.granted),
        {name: window.count for name, window in account.windows.items()},
        rows,
        [(job.state, job.version, job.charged) for job in of.jobs],
        [link.version for link in of.links],
        [(told.state, len(told.tries)) for told in await all_of(store, hook)],
    ]


async def test_lost_replies_of_a_cluster_change_none(many: Processes) -> None:
    """Where the reply of each script of a Cluster is lost, everything comes out the same."""
    want = await figures(many, *await story(many, await many.process()))
    with Cluster() as cluster:
        async with Cut(cluster.nodes[0].port) as proxy:
            cluster.nodes[0].ask("CONFIG", "SET", "cluster-announce-port", str(proxy.port))
            part = Processes(f"redis+cluster://127.0.0.1:{proxy.port}")
            losing(proxy, 1)
            assert await figures(part, *await story(part, await part.process())) == want
            assert proxy.lost >= 13
            await part.close()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_lost_replies_change_no_figure(many: Processes, cut: Cut, times: int) -> None:
    """Where the reply of each script is lost once, twice, three times, everything comes out the same."""
    plain = Processes()
    want = await figures(plain, *await story(plain, await plain.process()))
    await plain.close()
    store = await many.process(cut.url)
    losing(cut, times)
    left = await story(many, store)
    assert cut.lost >= 13 * times
    assert await figures(many, *left) == want


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_lost_reply_of_many_tenants(many: Processes, cut: Cut, times: int) -> None:
    """Where the reply of a script that serves many tenants is lost, each has made its job once."""
    store = await many.process(cut.url)
    losing(cut, times)
    tenants = [f"t{number}" for number in range(20)]
    answers = await asyncio.gather(*(submit(store, many.job(to), "k") for to in tenants * 2))
    assert Counter(type(answer) for answer in answers) == {Submitted: 20, Replayed: 20}
    assert cut.lost == times
    usages = [await store.usage(to, "ann") for to in tenants]
    assert {(usage.tenant.held, usage.user.flight) for usage in usages} == {(10, 1)}
    assert await doctor.examine(store.backend, many.chain) == []


async def test_forgotten_scripts_are_loaded(many: Processes) -> None:
    """A Redis that was told to forget all scripts is given them again, and nothing is done twice."""
    store = await many.process()
    for _ in range(2):
        server().say("SCRIPT", "FLUSH")
        await put(store, many.job())
    assert (await store.usage("acme", "ann")).user.held == 20
    assert await doctor.examine(store.backend, many.chain) == []


async def test_unreachable_redis_is_told_in_time(many: Processes, cut: Cut) -> None:
    """Where every reply is lost the caller hears so within two seconds or so, and the truth: it was done."""
    store = await many.process(cut.url)
    cut.cut = lambda sent: b"EVALSHA" in sent
    began = time.monotonic()
    answer = await submit(store, many.job(), "k")
    assert time.monotonic() - began < 3
    assert isinstance(answer, Submitted)
    assert (await store.usage("acme", "ann")).user.held == 10


async def test_frozen_redis_is_no_store(alone: Redis) -> None:
    """A frozen Redis is no store within two seconds; thawed, it does nothing of what is dead, and serves."""
    many = Processes(alone.url)
    store = await many.process()
    await put(store, many.job())
    alone.signal(signal.SIGSTOP)
    began = time.monotonic()
    verbs = (
        submit(store, many.job(), "k"),
        store.usage("acme", "ann"),
        store.claim(1, LEASE_MS),
        store.ping(),
    )
    answers = await asyncio.gather(*verbs, return_exceptions=True)
    took = time.monotonic() - began
    assert {type(answer) for answer in answers} <= {StoreUnavailable, *StoreUnavailable.__subclasses__()}
    assert took < 2
    with pytest.raises(StoreUnavailable):
        await store.ping()
    assert time.monotonic() - began > 2  # what was sent then is dead
    alone.signal(signal.SIGCONT)
    assert (await store.usage("acme", "ann")).user.held == 10
    assert isinstance(await submit(store, many.job(), "k"), Submitted)
    assert len(await store.claim(9, LEASE_MS)) == 2
    assert await doctor.examine(store.backend, many.chain) == []
    await many.close()


async def taken(store: Engine) -> bool:
    """Say whether a store takes what is written."""
    try:
        await store.append_audit("acme", "ann", SAID)
    except StoreUnavailable:
        return False
    return True


async def test_restarted_redis_goes_on(alone: Redis) -> None:
    """What was answered before Redis was killed is there after, and whoever waits hears again."""
    many = Processes(alone.url)
    many.patience = Patience(settle=0.0)
    api, worker = await many.process(), await many.process()
    job = await put(api, many.job())
    alone.say("CONFIG", "SET", "appendfsync", "always")
    again = await put(api, many.job())
    waiting = asyncio.create_task(api.wait_job("acme", again.id, 1, 60.0))
    for _ in range(5):  # by then it has read, and waits
        await api.usage("acme", "ann")
    alone.stop()
    with pytest.raises(StoreUnavailable):
        await submit(api, many.job())
    alone.start()
    while not await taken(worker):
        pass  # for a moment it is compared with what was known
    claims = {claim.job.id: claim for claim in await take(worker, 2)}
    assert set(claims) == {job.id, again.id}
    begun = await worker.begin_attempt(claims[again.id], attempt())
    assert isinstance(begun, Begun)
    assert await asyncio.wait_for(waiting, 10) == begun.job
    assert await doctor.examine(api.backend, many.chain) == []
    await many.close()


@pytest.mark.parametrize(
    ("name", "value", "code"), [("maxmemory", "1", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")]
)
async def test_full_redis_writes_nothing(alone: Redis, name: str, value: str, code: str) -> None:
    """A Redis that takes no writes leaves everything as it is, says so, and goes on when it does again."""
    many = Processes(alone.url)
    store = await many.process()
    await put(store, many.job())
    alone.say("CONFIG", "SET", name, value)
    with pytest.raises(StoreUnavailable, match=code):
        await submit(store, many.job(), "k")
    with pytest.raises(StoreUnavailable, match=code):
        await store.ping()
    alone.say("CONFIG", "SET", name, "0")
    assert (await store.usage("acme", "ann")).user.held == 10
    assert isinstance(await submit(store, many.job(), "k"), Submitted)
    assert await doctor.examine(store.backend, many.chain) == []
    await many.close()


async def test_reader_waits_as_told(cut: Cut) -> None:
    """A back end gives up on an answer after its own time, so that who reads much may wait longer."""
    backend = RedisBackend(Place(cut.url), How("reader"), seconds=0.05)
    cut.free.clear()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await backend.get("acme", "job")
    assert time.monotonic() - began < ANSWER_SECONDS
    cut.free.set()
    await backend.close()
