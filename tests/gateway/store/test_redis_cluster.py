"""A store on a Cluster of three primaries: slots on the move, nodes that are away, replies that are lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Denied, Replayed, Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_cluster import Cluster as Links
from gateway.store.redis_keys import Names, shard_of
from gateway.store.redis_link import Link, Rejected
from gateway.store.redis_time import StoreTime, steady_us, wall_us
from policies import quota
from tests.contracts.rig import WIDE, put, submit, take
from tests.fakes.cluster import Cluster
from tests.gateway.store.processes import Processes

SMALL = quota.Terms(WIDE, WIDE, 30)
"""Credits for three jobs."""


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """Three primaries. A test leaves every slot whole, wherever it is."""
    with Cluster(3, "--cluster-require-full-coverage", "no") as made:
        yield made


@pytest.fixture
async def many(three: Cluster) -> AsyncIterator[Processes]:
    """An empty store there, and engines to be opened on it."""
    made = Processes(three.url)
    yield made
    await made.close()


def tenant_on(cluster: Cluster, many: Processes, node: int, but: str = "") -> str:
    """Return a tenant whose shard is on a node, and not another tenant's."""
    for number in range(1000):
        name = f"t{number}"
        if shard_of(name) != shard_of(but) and cluster.home(slot_of(cluster, many, name)) == node:
            return name
    raise AssertionError(f"no tenant is on node {node}")


def slot_of(cluster: Cluster, many: Processes, tenant: str) -> int:
    """Return the slot of a tenant."""
    return cluster.slot(Names(many.prefix).shard(tenant).at)


async def sound(many: Processes, store: Engine) -> None:
    """Insist on a sound store."""
    assert await doctor.examine(store.backend, many.chain) == []


async def test_tenants_lie_on_all_nodes(three: Cluster, many: Processes) -> None:
    """Tenants of all nodes are served in one batch, by several processes; work is found wherever it is."""
    one, two = await many.process(), await many.process()
    tenants = [tenant_on(three, many, node) for node in range(3)]
    answers = await asyncio.gather(
        *(submit(each, many.job(name), "k") for name in tenants for each in (one, two))
    )
    assert Counter(type(answer) for answer in answers) == {Submitted: 3, Replayed: 3}
    assert {claim.job.tenant for claim in await take(two, 3)} == set(tenants)
    await sound(many, one)


async def test_moved_slot_is_followed(three: Cluster, many: Processes) -> None:
    """Where a slot has moved everything goes on there, for who knew the old place and for who did not."""
    store = await many.process()
    name = tenant_on(three, many, 0)
    first = await put(store, many.job(name))
    three.move(slot_of(three, many, name), 1)
    await put(store, many.job(name))
    late = await many.process()
    assert (await late.usage(name, "ann")).user.held == 20
    assert {claim.job.id for claim in await take(late, 2)} >= {first.id}
    three.move(slot_of(three, many, name), 2)
    assert (await store.usage(name, "ann")).user.held == 20
    await sound(many, store)


async def test_moving_slot_reads_true(three: Cluster, many: Processes) -> None:
    """However many keys of a tenant have moved already, what is read is what is there, never less."""
    store = await many.process()
    name = tenant_on(three, many, 0)
    job = await put(store, many.job(name))
    slot = slot_of(three, many, name)
    there = (
        await store.usage(name, "ann"),
        await store.backend.examine(name),
        await store.get_job(name, job.id, "ann"),
    )
    of = three.begin(slot, 1)
    while three.carry(slot, of, 1, most=1):
        late = await many.process()
        seen = (
            await late.usage(name, "ann"),
            await late.backend.examine(name),
            await late.get_job(name, job.id, "ann"),
        )
        assert seen == there
        await many.shut(late)
    three.end(slot, of, 1)
    await sound(many, store)


async def test_moving_slot_gives_no_fresh_limits(three: Cluster, many: Processes) -> None:
    """While a slot moves its tenants are told to come again, nobody else is, and no limit begins anew."""
    store = await many.process()
    name = tenant_on(three, many, 0)
    other = tenant_on(three, many, 0, but=name)
    for _ in range(2):
        assert isinstance(await submit(store, many.job(name), terms=SMALL), Submitted)
    slot = slot_of(three, many, name)
    of = three.begin(slot, 1)
    kept = 0
    while three.carry(slot, of, 1, most=4):
        moving, still = await asyncio.gather(
            submit(store, many.job(name), f"k{kept}", SMALL),
            submit(store, many.job(other), f"k{kept}"),
            return_exceptions=True,
        )
        kept += 1
        assert isinstance(moving, StoreUnavailable)
        assert str(moving) in ("redis: TRYAGAIN", "redis: ASK")
        assert isinstance(still, Submitted)
    three.end(slot, of, 1)
    answers = [await submit(store, many.job(name), f"k{at}", SMALL) for at in range(2)]
    assert [type(answer) for answer in answers] == [Submitted, Denied]
    assert (await store.usage(name, "ann")).user.held == 30
    assert kept > 1
    await sound(many, store)


async def test_slots_move_under_load(three: Cluster, many: Processes) -> None:
    """Four processes submit to tenants whose slots go from node to node: limits are exact, no job is lost."""
    engines = [await many.process() for _ in range(4)]
    tenants = [tenant_on(three, many, 0), tenant_on(three, many, 1)]
    terms = quota.Terms(replace(WIDE, in_flight=40), WIDE, 10**6)
    taken: dict[str, set[str]] = {name: set() for name in tenants}
    done = asyncio.Event()

    async def keep_asking(store: Engine, name: str, at: int) -> None:
        while not done.is_set() or at % 10 == 0:
            job, key = many.job(name), f"k{at}"
            try:
                answer = await submit(store, job, key, terms)
            except StoreUnavailable:
                continue
            if isinstance(answer, Submitted | Replayed):
                taken[name].add(answer.job.id)
            if done.is_set():
                return
            at += 1000

    async def keep_moving() -> None:
        for to in (2, 1, 0, 2):
            for name in tenants:
                await asyncio.to_thread(three.move, slot_of(three, many, name), to)
        done.set()

    callers = [keep_asking(engines[at % 4], tenants[at % 2], at) for at in range(16)]
    await asyncio.gather(keep_moving(), *callers)
    for name in tenants:
        held = await engines[0].backend.examine(name)
        assert {job.id for job in held.jobs} == taken[name]
        assert len(taken[name]) == 40
    await sound(many, engines[0])


async def test_node_away_is_its_own_trouble(three: Cluster, many: Processes) -> None:
    """Where a node is gone its tenants are told so at once, the others' work goes on, and it is met again."""
    store = await many.process()
    names = [tenant_on(three, many, node) for node in range(3)]
    for name in names:
        await put(store, many.job(name))
    three.nodes[1].stop()
    began = time.monotonic()
    for _ in range(5):
        submits = (submit(store, many.job(name)) for name in names)
        answers = await asyncio.gather(*submits, return_exceptions=True)
        assert [isinstance(answer, Submitted) for answer in answers] == [True, False, True]
        assert isinstance(answers[1], StoreUnavailable)
    assert time.monotonic() - began < 2
    await store.ping()
    assert {claim.job.tenant for claim in await store.claim(99, LEASE_MS)} == {names[0], names[2]}
    three.nodes[1].start()
    answer: object = None
    while not isinstance(answer, Submitted):
        (answer,) = await asyncio.gather(submit(store, many.job(names[1]), "k"), return_exceptions=True)
    assert (await store.usage(names[1], "ann")).user.held == 20
    assert len(await store.claim(99, LEASE_MS)) == 2
    await sound(many, store)


@pytest.mark.parametrize("wrong_ms", [-5000, 100, 5000])
async def test_wrong_clock_of_a_node_is_learned(three: Cluster, many: Processes, wrong_ms: int) -> None:
    """A node whose clock is not as it was thought to be is believed, and its tenants are served as others."""
    known = StoreTime(steady_us, wall_us)
    backend = RedisBackend(Place(many.url), How(uuid4().hex), prefix=many.prefix, time=known)
    store = many.engine(backend)
    await store.start()
    names = [tenant_on(three, many, node) for node in (1, 2)]
    node = f"127.0.0.1:{three.nodes[1].port}"
    known.learn(known.mark(), wall_us() + 1000 * wrong_ms, node)
    await asyncio.gather(*(put(store, many.job(name)) for name in names))
    assert abs(known.at(known.mark(), node) - known()) < 50
    known.learn(known.mark(), wall_us() + 1000 * wrong_ms, node)
    claims = [*await store.claim(9, LEASE_MS), *await store.claim(9, LEASE_MS)]
    assert sorted(claim.job.tenant for claim in claims) == sorted(names)
    assert [(await store.usage(name, "ann")).user.held for name in names] == [10, 10]
    await sound(many, store)


async def test_every_node_is_given_the_scripts(three: Cluster, many: Processes) -> None:
    """Nodes that were told to forget all scripts are given them again, each those it lacks."""
    store = await many.process()
    tenants = [tenant_on(three, many, node) for node in range(3)]
    for node in three.nodes:
        node.ask("SCRIPT", "FLUSH")
    await asyncio.gather(*(put(store, many.job(name)) for name in tenants))
    assert [(await store.usage(name, "ann")).user.held for name in tenants] == [10, 10, 10]
    await sound(many, store)


class Node:
    """A node that tells who has which slot, and its listeners their channel while it is open."""

    def __init__(self, slots: list[Any] | Rejected) -> None:
        self.slots = slots
        self.open = False

    async def exchange(self, commands: object) -> list[Any]:
        """Return the slots."""
        self.open = True
        return [self.slots]

    async def listen(self, channel: str) -> AsyncIterator[bytes]:
        """Tell the channel."""
        if self.open:
            yield channel.encode()

    async def close(self) -> None:
        """Be closed."""
        self.open = False


def cluster_of(nodes: dict[str, Node]) -> Links:
    """Return connections to nodes, all of which are seeds."""
    return Links(list(nodes), lambda name: cast("Link", nodes[name]))


@pytest.mark.parametrize("word", [[], Rejected("ERR", "")])
async def test_removed_seed_is_passed_over(word: list[Any] | Rejected) -> None:
    """A node that was removed and still runs is not believed, not listened to, and let go of."""
    for _ in range(20):  # nodes are asked in any order
        gone, node = Node(word), Node([[0, 16383, [b"a", 1]]])
        links = cluster_of({"gone:1": gone, "a:1": node})
        assert [heard async for heard in links.listen("x")] == [b"x"]
        assert (links.home("x"), node.open, gone.open) == ("a:1", True, False)
    with pytest.raises(StoreUnavailable, match="gone:1"):
        await cluster_of({"gone:1": Node(word)}).each([("TIME",)])
