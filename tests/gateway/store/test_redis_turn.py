"""Turns at a tenant that many processes write to: few tries, nobody left behind, and no more than needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import doctor
from gateway.store.backend import Want
from gateway.store.contract import Submitted
from gateway.store.engine import PATIENCE, Engine
from gateway.store.redis_keys import Names
from gateway.store.redis_turn import CALM, PARTS, Turns, bundles
from policies.model import Usage
from tests.contracts.rig import SAID, admitting, counting, put
from tests.fakes.redis import server
from tests.gateway.store.processes import Counting, Processes

FAR = 10**15


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


def turns(store: Engine) -> Turns:
    """Return what a process knows of turns."""
    backend: Any = store.backend
    made: Turns = backend._commits._turns  # noqa: SLF001 - no verb tells it
    return made


async def test_rivals_need_few_tries(many: Processes) -> None:
    """Three processes that submit to one tenant without a pause ask the rule a few times a job."""
    engines = [await many.process() for _ in range(3)]
    tries: dict[str, int] = {}

    async def call(engine: Engine) -> None:
        for _ in range(12):
            job = many.job()
            rule = admitting(job)

            def counted(usage: Any, now: int, rule: Any = rule, name: str = job.id) -> Any:
                tries[name] = tries.get(name, 0) + 1
                return rule(usage, now)

            assert isinstance(await engine.submit(job, counted, SAID), Submitted)

    await asyncio.gather(*(call(engine) for engine in engines * 8))
    assert len(tries) == 3 * 8 * 12
    assert max(tries.values()) <= 10
    assert await doctor.examine(engines[0].backend, many.chain) == []


async def test_turns_are_asked_first(many: Processes) -> None:
    """Where others write too a process asks for its turn before it decides, until that never takes a wait."""
    link = Counting(many.url)
    store = await many.process(link=link)
    await put(store, many.job())
    turns(store).lost("acme", barred=True)
    for left in range(CALM, 0, -1):
        assert turns(store).shared("acme")
        sent = link.sent
        await put(store, many.job())
        assert link.sent == sent + (1 if left == CALM else 2)  # what was kept is dropped by the first
    assert turns(store).shared("acme")
    await put(store, many.job())
    assert not turns(store).shared("acme")
    sent = link.sent
    await put(store, many.job())
    await put(store, many.job())
    assert link.sent == sent + 2


async def test_line_is_first_come(many: Processes) -> None:
    """Who asks is told how many are before it, keeps its place, and is let in when they are gone."""
    stores = [await many.process() for _ in range(3)]
    await put(stores[0], many.job())
    doc, want = Names(many.prefix).room("acme").t, Want("acme", turn=True)
    server().say("HSET", doc, "line", f"{FAR} another")
    asked = [turns(store)._ask([want]) for store in stores * 2]  # noqa: SLF001 - one asking, no wait
    assert [(await each)[0][0] for each in asked] == [1, 2, 3, 1, 2, 3]
    waiting = asyncio.create_task(turns(stores[1]).wait([want]))
    me = stores[1].backend._site.me  # type: ignore[attr-defined]  # noqa: SLF001 - how it is named
    server().say("HSET", doc, "line", f"{FAR} {me}")
    (there,) = await asyncio.wait_for(waiting, 5)
    assert there.state == (await stores[1].backend.load([Want("acme")]))[0].state


async def test_unused_turns_pass_on(many: Processes) -> None:
    """A process that died in its turn, or in line, holds nobody up once its time is over."""
    store = await many.process()
    await put(store, many.job())
    doc = Names(many.prefix).room("acme").t
    server().say("HSET", doc, "line", f"{await store.now() - 1000} dead buried")
    await put(store, many.job())
    assert not turns(store).shared("acme")
    assert server().say("HEXISTS", doc, "line") == b":0"
    server().say("HSET", doc, "line", f"{await store.now() + 50} dead buried")
    await put(store, many.job())
    assert turns(store).shared("acme")


def test_scripts_serve_what_they_may() -> None:
    """One script serves as many tenants as it may, or where shards are scattered those of one shard."""
    names = [f"t{number}" for number in range(PARTS + 2)]
    assert [len(some) for some in bundles(names, scattered=False)] == [PARTS, 2]
    by_shard = bundles(names, scattered=True)
    assert sorted(at for some in by_shard for at in some) == list(range(PARTS + 2))
    assert len({some[0] for some in by_shard}) == len(by_shard) > 40


async def test_turn_outlives_no_clock(many: Processes) -> None:
    """A turn that would last for hours, since the clock went back, bars nobody for longer than any does."""
    store = await many.process()
    await put(store, many.job())
    server().say("HSET", Names(many.prefix).room("acme").t, "line", f"{FAR} gone")
    async with asyncio.timeout(PATIENCE.commit / 2):
        await put(store, many.job())


async def test_odd_document_is_its_tenants(many: Processes) -> None:
    """Where what a refusal tells of one tenant cannot be read, what was applied of others stands, once."""
    one, two = await many.process(), await many.process()
    await put(one, many.job())
    await put(one, many.job("beta", "bob"))
    await put(two, many.job("beta", "bob"))
    server().say("HSET", Names(many.prefix).room("beta").u, "bob", "{")
    calls = [one.count("acme", "ann", counting()), one.count("beta", "bob", counting())]
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, Usage) for answer in told] == [True, False]
    assert (await one.usage("acme", "ann")).user.windows["write"].count == 1
