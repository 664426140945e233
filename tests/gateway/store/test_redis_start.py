"""Which Redis is a store, and how a process begins and ends with one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.errors import Refusal, StoreUnavailable
from gateway.store.opening import How, Place, open_backend, open_to_read
from gateway.store.redis import RedisBackend
from gateway.store.redis_fit import facts, unfit
from tests.contracts.rig import put, take
from tests.fakes.cluster import Cluster, one
from tests.fakes.redis import Redis, free_port, server
from tests.gateway.store.processes import Processes

GOOD = {
    "redis_version": "7.0.15",
    "cluster_enabled": "0",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
}


@pytest.fixture
def alone() -> Iterator[Redis]:
    """A Redis to be set wrong."""
    with Redis() as running:
        yield running


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("redis_version", "6.2.14", "7.0 or later is needed"),
        ("redis_version", "", "7.0 or later is needed"),
        ("cluster_enabled", "1", "part of a Cluster"),
        ("role", "slave", "give the primary's address"),
        ("maxmemory_policy", "allkeys-lru", "Set `maxmemory-policy noeviction`"),
        ("maxmemory_policy", "volatile-ttl", "Set `maxmemory-policy noeviction`"),
        ("aof_enabled", "0", "Set `appendonly yes`"),
    ],
)
def test_unfit_redis_is_told(name: str, value: str, words: str) -> None:
    """What would lose jobs or is not known to keep them is refused in a sentence that says what to set."""
    assert unfit(GOOD) is None
    told = unfit({**GOOD, name: value})
    assert told is not None
    assert words in told
    assert unfit({key: kept for key, kept in GOOD.items() if key != name}) is not None


def test_facts_are_read_line_by_line() -> None:
    """What Redis tells of itself is names and values; headings and blank lines are none."""
    assert facts(b"# Server\r\nredis_version:7.0.15\r\nos:Linux: x\r\n\r\n") == {
        "redis_version": "7.0.15",
        "os": "Linux: x",
    }


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", "may evict"),
        ("appendonly", "no", "keeps no log"),
    ],
)
async def test_start_asks_a_real_redis(alone: Redis, setting: str, value: str, words: str) -> None:
    """A start is refused by what the running Redis says, and goes on once it is set right."""
    backend = open_backend(Place(alone.url), How("me"))
    was = {"maxmemory-policy": "noeviction", "appendonly": "yes"}[setting]
    alone.say("CONFIG", "SET", setting, value)
    with pytest.raises(Refusal, match=words):
        await backend.start()
    alone.say("CONFIG", "SET", setting, was)
    await backend.start()
    await backend.close()


async def test_replica_is_refused_at_start(alone: Redis) -> None:
    """Who starts at a replica, or looks into it, is told in its sentence to go to the primary."""
    alone.ask("REPLICAOF", "127.0.0.1", str(free_port()))
    for backend in (open_backend(Place(alone.url), How("me")), open_to_read(Place(alone.url), "me")):
        with pytest.raises(Refusal, match="is a replica: give the primary's address"):
            await backend.look()
        await backend.close()


async def test_kinds_are_told_apart(alone: Redis) -> None:
    """A node of a Cluster is not taken for a Redis alone, nor that for a Cluster, nor for a sentinel."""
    node = one().nodes[0]
    cases = (
        (f"redis://127.0.0.1:{node.port}/0", "give it as redis.cluster://HOST:PORT"),
        (f"redis+cluster://127.0.0.1:{alone.port}", "is of no Cluster"),
        (f"redis+sentinel://127.0.0.1:{alone.port}/images", "cannot be used"),
        ("redis+cluster://127.0.0.1:1", "cannot be used"),
    )
    for url, words in cases:
        backend = open_backend(Place(url), How("me"))
        with pytest.raises(Refusal, match=words):
            await backend.start()
        await backend.close()


async def test_slots_without_a_node_are_refused() -> None:
    """A Cluster that has no node for some slots is refused, since their tenants would be served by nobody."""
    with Cluster(1, "--cluster-require-full-coverage", "no") as cluster:
        cluster.nodes[0].ask("CLUSTER", "DELSLOTSRANGE", "0", "8000")
        backend = open_backend(Place(cluster.url), How("me"))
        with pytest.raises(Refusal, match="slots that no node serves"):
            await backend.start()
        await backend.close()


async def test_every_node_is_judged() -> None:
    """A Cluster is refused for what one of its nodes says of itself."""
    node = one().nodes[0]
    node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    backend = open_backend(Place(one().url), How("me"))
    with pytest.raises(Refusal, match="may evict"):
        await backend.start()
    await backend.close()
    node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_later_schema_is_refused(alone: Redis) -> None:
    """A Redis that a later Safelight has written is left alone."""
    alone.say("SET", "safelight:schema", "2")
    backend = open_backend(Place(alone.url), How("me"))
    with pytest.raises(Refusal, match="holds schema 2; this Safelight knows schema 1"):
        await backend.start()
    await backend.close()


async def test_absent_redis_refuses_the_start(tmp_path: object) -> None:
    """Where no Redis answers, or it turns the password away, the start is refused without showing it."""
    told: list[str] = []
    for place in (Place("redis://127.0.0.1:1/0"), Place(server().url, lambda: "hushhush")):
        backend = open_backend(place, How("me"))
        with pytest.raises(Refusal, match="store cannot be used") as refused:
            await backend.start()
        told.append(f"{refused.value} {place}")
        await backend.close()
    assert "hush" not in "".join(told)


def test_file_to_read_must_be_there(tmp_path: object) -> None:
    """A file is not made by whoever only reads it."""
    place = Place(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(Refusal, match="there is no store"):
        open_to_read(place, "me")
    assert place.file is not None
    assert not place.file.exists()


async def test_end_needs_no_redis(alone: Redis) -> None:
    """A process ends in good order although its Redis has gone; its leases then run out by themselves."""
    many = Processes(alone.url)
    store = await many.process()
    await put(store, many.job())
    await take(store)
    alone.stop()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await many.close()


async def test_reader_leaves_a_replica(alone: Redis) -> None:
    """Whoever only reads hears from the sample that this is a replica now, and waits for the primary."""
    backend = open_backend(Place(alone.url), How("me"))
    assert isinstance(backend, RedisBackend)
    await backend.start()
    alone.ask("REPLICAOF", "127.0.0.1", str(free_port()))
    assert await backend.tenants() == []
    await backend.sample()
    with pytest.raises(StoreUnavailable):
        await backend.tenants()
    alone.ask("REPLICAOF", "NO", "ONE")
    assert await backend.tenants() == []
    await backend.close()


async def test_open_book_is_read_beside(alone: Redis) -> None:
    """Who opens the store to read sees what is there, and gives back no lease."""
    backend = open_to_read(Place(alone.url), "me")
    assert await backend.tenants() == []
    await backend.close()
    await backend.close()
