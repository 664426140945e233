"""Leases in Redis over faults: what was leased is not thrown away, and what is over is not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_keys import Names, Room
from gateway.store.redis_link import script
from gateway.store.redis_pack import LEASES
from gateway.store.redis_shelf import Lease
from tests.contracts.beside import LEASE, hooked, ids, lease, trials
from tests.contracts.rig import SAID, Rig, attempt, counting, put, take
from tests.fakes.redis import server
from tests.gateway.store.processes import Failing

CLAIM, DELIVER, CHANGE = (script(name).sha for name in ("claim", "deliver", "lease"))


class Bench(Rig):
    """One engine over connections that fail, under a prefix and a clock of its own."""

    def __init__(self) -> None:
        super().__init__("redis", __file__)  # type: ignore[arg-type]
        self.prefix = f"{uuid4().hex}:"
        self.link = Failing(server().url)
        place, how = Place(server().url), How(uuid4().hex, self.clock)
        self.under = RedisBackend(place, how, prefix=self.prefix, link=self.link)
        self.store: Engine = self.engine(self.under)

    def held(self) -> int:
        """Return how many jobs the process takes itself to hold."""
        return len(self.under._queue.held)  # noqa: SLF001 - no verb tells it


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An engine over connections that fail."""
    made = Bench()
    yield made
    made.link.deaf, made.link.dumb = (lambda _command: False), set()
    await made.close()


async def test_later_fault_keeps_claims(bench: Bench) -> None:
    """A fault after jobs were leased and read takes them from nobody: they are claimed."""
    for tenant in ("a", "b", "c"):
        await put(bench.store, bench.job(tenant))
    bench.link.once_ran(CLAIM, "ZRANGEBYSCORE")
    assert len(await bench.store.claim(8, LEASE_MS)) == 3


@pytest.mark.parametrize("text", ["{nonsense", None])
async def test_what_stays_crooked_costs_no_claim(bench: Bench, text: str | None) -> None:
    """Where a job that cannot be read or is gone cannot be put aside, those leased with it are claimed."""
    one, two = await put(bench.store, bench.job()), await put(bench.store, bench.job("other"))
    room = Names(bench.prefix).room("acme").job(one.id)
    server().say("DEL", room)
    if text is not None:
        server().say("HSET", room, "d", text)
    bench.link.dumb, bench.link.deaf = {CHANGE}, lambda command: command[0] == "ZREM"
    assert [claim.job.id for claim in await bench.store.claim(8, LEASE_MS)] == [two.id]


async def test_unread_leases_are_the_last(bench: Bench) -> None:
    """Where what is leased cannot be read no more is leased for it, and that is said."""
    for _ in range(4):
        await put(bench.store, bench.job())
    bench.link.deaf = lambda command: command[0] == "HGET" and command[2:] == ("d",)
    with pytest.raises(StoreUnavailable):
        await bench.store.claim(1, LEASE_MS)
    bench.link.deaf = lambda _command: False
    assert len(await bench.store.claim(8, LEASE_MS)) == 3


async def test_canceled_leases_are_let_go(bench: Bench) -> None:
    """A lease of a job that its owner ended before it was begun is forgotten once it has run out."""
    for _ in range(3):
        job = await put(bench.store, bench.job())
        await take(bench.store)
        await bench.store.cancel("acme", job.id, counting(), SAID)
    await put(bench.store, bench.job())
    (claim,) = await take(bench.store)
    bench.clock.forward(LEASE_MS - 1)
    await bench.store.renew([claim], LEASE_MS)
    assert await bench.store.claim(1, LEASE_MS) == []
    assert bench.held() == 4
    bench.clock.forward(1)
    assert await bench.store.claim(1, LEASE_MS) == []
    assert bench.held() == 1


async def test_attempts_are_held_longer(bench: Bench) -> None:
    """A lease that an attempt made longer is held as long, and is taken back when the process ends."""
    job = await put(bench.store, bench.job())
    (claim,) = await take(bench.store)
    await bench.store.begin_attempt(claim, attempt(deadline_at=bench.clock.at + 2 * LEASE_MS))
    bench.clock.forward(LEASE_MS)
    assert await bench.store.claim(1, LEASE_MS) == []
    await bench.shut(bench.store)
    place, how = Place(server().url), How(uuid4().hex, bench.clock)
    after = bench.engine(RedisBackend(place, how, prefix=bench.prefix))
    assert [claim.job.id for claim in await take(after)] == [job.id]


PARTS: dict[str, Callable[[Room], str]] = {
    "delivery": lambda room: room.dl,
    "endpoint": lambda room: room.ep,
    "job": lambda room: room.job(""),
}


@pytest.mark.parametrize("part", sorted(PARTS))
async def test_unread_delivery_takes_none_along(bench: Bench, part: str) -> None:
    """A delivery of which a part cannot be read just now leaves others leased; alone it is a fault."""
    found, hooks = [], [await hooked(bench, bench.store, tenant=tenant) for tenant in ("acme", "other")]
    for hook in hooks:
        found += await trials(bench, bench.store, hook, 1)
    bench.clock.forward(1000)
    key = PARTS[part](Names(bench.prefix).room("acme"))
    bench.link.deaf = lambda command: command[:2] == ("HGET", key)
    assert ids(await bench.store.claim_deliveries(8, LEASE)) == found[1:]
    bench.clock.forward(LEASE)
    with pytest.raises(StoreUnavailable):
        await bench.store.claim_deliveries(8, LEASE, busy=[hooks[1].id])
    bench.link.deaf = lambda _command: False
    assert ids(await bench.store.claim_deliveries(8, LEASE)) == found[1:]
    bench.clock.forward(LEASE)
    assert sorted(ids(await bench.store.claim_deliveries(8, LEASE))) == sorted(found)


@pytest.mark.parametrize("fails", ["release", "search"])
async def test_later_fault_keeps_deliveries(bench: Bench, fails: str) -> None:
    """A fault after some deliveries were leased and read, when others are looked for, costs none of them."""
    hook = await hooked(bench, bench.store)
    bad, good = await trials(bench, bench.store, hook, 2)
    server().say("HSET", Names(bench.prefix).room("acme").dl, bad, "1 {nonsense")
    bench.clock.forward(1000)
    if fails == "search":
        bench.link.once_ran(CHANGE, "ZRANGEBYSCORE")
    else:
        bench.link.dumb = {CHANGE}
    assert ids(await bench.store.claim_deliveries(8, LEASE)) == [good]


async def test_outdated_deliveries_are_let_go(bench: Bench) -> None:
    """A leased delivery of which nothing more was heard is forgotten once its lease has run out."""
    hook = await hooked(bench, bench.store)
    await trials(bench, bench.store, hook, 2)
    bench.clock.forward(1000)
    await lease(bench.store, 2)
    held = bench.under.shelf.held
    bench.clock.forward(LEASE - 1)
    assert await bench.store.claim_deliveries(8, LEASE) == []
    assert len(held) == 2
    bench.clock.forward(1)
    await lease(bench.store, 1)
    assert len(held) == 1


async def test_many_deliveries_return_in_parts(bench: Bench) -> None:
    """However many deliveries a process holds when it ends, no script gives back more than its share."""
    shelf = bench.under.shelf
    for number in range(LEASES + 1):
        name = f"n{number}"
        shelf.held["acme", name] = Lease("acme", "hook", name, 1)
    before = len(bench.link.ran)
    await shelf.reclaim()
    assert bench.link.ran[before:] == [CHANGE] * 2
    assert shelf.held == {}


async def test_end_gives_back_all_it_can(bench: Bench) -> None:
    """A process that cannot say that it leaves gives back its jobs all the same, and its deliveries."""
    job, hook = await put(bench.store, bench.job()), await hooked(bench, bench.store)
    (told,) = await trials(bench, bench.store, hook, 1)
    await bench.store.start()
    bench.clock.forward(1000)
    await take(bench.store)
    await lease(bench.store)
    bench.link.deaf = lambda command: command[0] == "HDEL"
    await bench.shut(bench.store)
    place, how = Place(server().url), How(uuid4().hex, bench.clock)
    after = bench.engine(RedisBackend(place, how, prefix=bench.prefix))
    assert [claim.job.id for claim in await take(after)] == [job.id]
    assert ids(await lease(after)) == [told]
