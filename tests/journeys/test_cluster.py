"""Two houses on a Cluster of three primaries while the busy tenants' slots go from node to node and back.

A caller may be told to come again, by 503 with `Retry-After`, and nothing else may be seen of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

import pytest

from gateway import doctor
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis import PREFIX
from gateway.store.redis_keys import Names
from policies.bundle import PerLevel
from tests.fakes.cluster import Cluster
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage
from tests.journeys.test_limits import plan_of
from tests.journeys.visitor import Reply, Visitor

if TYPE_CHECKING:
    from typing import Self

    from tests.fakes.server import Fake

TENANTS: Final = ("acme", "globex")
FIT: Final = 12
"""Jobs a tenant has credits for."""
KEYS: Final = 3 * FIT
MOVES: Final = 12
WAVE: Final = 24
"""Calls at once; a slot is moved at least between two waves."""
MANY: Final = PerLevel(1000, 1000)


@pytest.fixture
def three() -> Iterator[Cluster]:
    """Three empty primaries."""
    with Cluster(3, "--appendfsync", "no") as made:
        yield made


@pytest.fixture
async def houses(opening: Opening, upstream: Fake, three: Cluster) -> AsyncIterator[list[Stage]]:
    """Two houses on them, which the doctor visits when the test is over."""
    tight = {"credits_per_month": 10 * FIT, "in_flight": MANY, "submit_per_hour": MANY}
    plot = {"providers": entry(upstream), "store": three.url, "bundle": lambda b: plan_of(b, **tight)}
    stages = [await opening(**plot) for _ in range(2)]
    yield stages
    backend = open_backend(Place(three.url), How("doctor"))
    await backend.look()
    assert await doctor.examine(backend, stages[0].house.chain) == []
    for tenant in TENANTS:
        assert isinstance(await doctor.verify_trail(backend, stages[0].house.chain, tenant), doctor.Verified)
    await backend.close()


class Mover:
    """Moves the tenants' slots from node to node, `MOVES` times in all."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._slots = [cluster.slot(Names(PREFIX).shard(tenant).at) for tenant in TENANTS]
        self._moved = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._task

    async def another(self) -> None:
        """Wait for one move more."""
        await self._moved.acquire()

    async def _run(self) -> None:
        for at in range(MOVES):
            slot = self._slots[at % len(self._slots)]
            to = (self._cluster.home(slot) + 1) % 3
            await asyncio.to_thread(self._cluster.move, slot, to)
            self._moved.release()


async def knock(who: Visitor, key: str) -> Reply:
    """Submit under a key until there is an answer other than to come again."""
    while True:
        reply = await who.submit(key=key)
        if reply.status != 503:
            return reply
        assert int(reply.headers["retry-after"]) > 0


async def ended(who: Visitor, job: str) -> str:
    """Wait for a job's end, coming again as often as that is asked; return its state."""
    while True:
        reply = await who.get(f"/v1/jobs/{job}?wait=20")
        if reply.status == 200 and reply.json["ended"]:
            return str(reply.json["state"])
        assert reply.status in (200, 503), reply


async def test_slots_move_and_nothing_is_lost(houses: list[Stage], upstream: Fake, three: Cluster) -> None:
    """Each key is one job at either house, as many as credits allow are made, and each is paid once."""
    callers = [
        (house, tenant, f"{tenant}-{n}") for tenant in TENANTS for n in range(KEYS) for house in houses
    ]
    async with Mover(three) as mover:
        replies: list[Reply] = []
        for at in range(0, len(callers), WAVE):
            wave = callers[at : at + WAVE]
            calls = (knock(house.visit(tenant=tenant), key) for house, tenant, key in wave)
            replies += await asyncio.gather(*calls)
            await mover.another()
        jobs: defaultdict[str, set[str]] = defaultdict(set)
        for (*_caller, key), reply in zip(callers, replies, strict=True):
            if reply.status in (200, 202):
                jobs[key].add(reply.json["id"])
            else:
                assert reply.code == "insufficient_credits", reply
        of = {key: key.partition("-")[0] for key in jobs}
        assert Counter(of.values()) == dict.fromkeys(TENANTS, FIT)
        assert {len(ids) for ids in jobs.values()} == {1}
        waits = [ended(houses[0].visit(tenant=of[key]), job) for key, (job,) in jobs.items()]
        states = Counter(await asyncio.gather(*waits))
    assert states == {"succeeded": 2 * FIT}
    assert upstream.paid == 2 * FIT
    for tenant in TENANTS:
        account = (await houses[1].house.store.usage(tenant, "ann")).tenant
        assert (account.charged, account.held, account.flight) == (10 * FIT, 0, 0)
