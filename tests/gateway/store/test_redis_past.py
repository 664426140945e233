"""What a sweep of Redis does in one step: a bounded number of things, none in the way of others."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from gateway import doctor
from gateway.doctor import Verified
from gateway.store.contract import DeliveryPage, Dropped, Retention, Stale, Submitted
from gateway.store.engine import Engine
from gateway.store.redis_keys import Names
from tests.contracts.beside import all_of, delivered, hooked, lease, putting, trials
from tests.contracts.rig import DAY, MEMORY, SAID, Rig, counting, put, submit
from tests.fakes.redis import server

KEPT: Final = Retention(10 * DAY, 10 * DAY)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A place in a Redis, with a clock."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = Rig("redis", Path(folder))
        yield made
        await made.close()


@pytest.fixture
def names(rig: Rig) -> Names:
    """The names of the keys."""
    return Names(f"{rig.place.name}:")


def size(verb: str, key: str) -> int:
    """Return how much a key holds."""
    return int(server().say(verb, key).removeprefix(b":"))


async def drop(store: Engine, endpoint: str) -> None:
    """Drop an endpoint of acme's."""
    await store.change_endpoint("acme", putting(Dropped(endpoint)), counting(), SAID, by="ann")


async def test_dropped_endpoint_is_emptied_slowly(rig: Rig, names: Names) -> None:
    """A dropped endpoint's deliveries are gone at once for all who ask, and from Redis a few a step."""
    store, room = await rig.open(), names.room("acme")
    hook, other = await hooked(rig, store), await hooked(rig, store)
    told = await trials(rig, store, hook, 5)
    (kept,) = await trials(rig, store, other, 1)
    rig.clock.forward(1000)
    (leased,) = await lease(store, busy=(other.id,))
    await drop(store, hook.id)
    assert await store.list_deliveries("acme", hook.id, before=None, limit=2) == DeliveryPage(())
    assert [await store.get_delivery("acme", name) for name in told] == [None] * 5
    assert isinstance(await store.record_delivery(leased, delivered), Stale)
    assert [each.delivery.id for each in await store.claim_deliveries(9, 1000)] == [kept]
    assert size("HLEN", room.dl) == 6
    swept = [await store.sweep(KEPT, budget=2) for _ in range(4)]
    assert [(step.deliveries, step.more) for step in swept] == [(2, True), (2, True), (1, False), (0, False)]
    left = [size("HLEN", room.dl), size("HLEN", room.df), size("ZCARD", names.shard("acme").dlx)]
    assert left == [1, 1, 1]
    assert [size("EXISTS", key) for key in (room.hu, room.told(hook.id), names.shard("acme").dgone)] == [
        0
    ] * 3
    assert [each.id for each in await all_of(store, other)] == [kept]


async def test_trails_are_cut_in_steps(rig: Rig, names: Names) -> None:
    """A step cuts so many links in all, however many trails are old; an empty one is left alone."""
    store = await rig.open()
    tenants = ("one", "two", "three")
    for _ in range(3):
        await asyncio.gather(*(store.append_audit(tenant, "ann", SAID) for tenant in tenants))
    rig.clock.forward(11 * DAY)
    steps = [await store.sweep(KEPT, budget=5) for _ in range(4)]
    assert [(step.links, step.more) for step in steps] == [(3, True), (3, True), (3, True), (0, False)]
    assert [size("EXISTS", names.shard(tenant).ax) for tenant in tenants] == [0] * 3
    for tenant in tenants:
        assert isinstance(await doctor.verify_trail(store.backend, rig.chain, tenant), Verified)
    await store.append_audit("two", "ann", SAID)
    rig.clock.forward(11 * DAY)
    assert (await store.sweep(KEPT)).links == 1
    assert await doctor.examine(store.backend, rig.chain) == []


@pytest.mark.parametrize("left", [0, 1])
async def test_unnoted_cuts_hide_no_trail(rig: Rig, names: Names, left: int) -> None:
    """A trail whose cut died before it was noted is noted by the next step, and is in nobody's way."""
    store = await rig.open()
    await store.append_audit("acme", "ann", SAID)
    if left:
        rig.clock.forward(11 * DAY)
        await store.append_audit("acme", "ann", SAID)
    server().say("XTRIM", names.room("acme").aud, "MINID", "2-0")
    rig.clock.forward(0 if left else 11 * DAY)
    await store.append_audit("other", "ann", SAID)
    assert (await store.sweep(KEPT, budget=1)).links == 0
    noted = server().say("ZSCORE", names.shard("acme").ax, "acme")
    assert (noted == b"$-1") is (left == 0)
    rig.clock.forward(11 * DAY)
    assert [(await store.sweep(KEPT, budget=1)).links for _ in range(left + 2)] == [1] * (left + 1) + [0]


async def test_unreadable_jobs_hold_up_no_sweep(rig: Rig, names: Names) -> None:
    """Ended jobs that cannot be read stay, and those behind them go."""
    store = await rig.open()
    jobs = [await put(store, rig.job()) for _ in range(4)]
    for job in jobs:
        rig.clock.forward(1)
        await store.cancel("acme", job.id, counting(), SAID)
    for job in jobs[:2]:
        server().say("HSET", names.room("acme").job(job.id), "d", "{nonsense")
    rig.clock.forward(11 * DAY)
    swept = [await store.sweep(KEPT, budget=2) for _ in range(2)]
    assert [[job.id for job in step.jobs] for step in swept] == [[jobs[2].id, jobs[3].id], []]
    assert size("ZCARD", names.room("acme").ix) == 2


async def test_old_numbers_go_along(rig: Rig, names: Names) -> None:
    """With what a sweep removes of a tenant go numbers of processes long silent; it leaves none itself."""
    store, document = await rig.open(), names.room("acme").t
    await submit(store, rig.job(), "k")
    now = time.time_ns() // 1_000_000  # Redis' own time, which this machine's is
    fresh, old = (f"1:a:{now - ago}" for ago in (0, 3_700_000))
    server().say("HSET", document, "op:fresh", fresh, "op:old", old)
    assert size("HLEN", document) == 5
    rig.clock.forward(3 * DAY)
    assert (await store.sweep(KEPT)).keys == 1
    assert size("HLEN", document) == 4
    assert server().say("HGET", document, "op:old") == b"$-1"
    assert isinstance(await submit(store, rig.job(), "k"), Submitted)
