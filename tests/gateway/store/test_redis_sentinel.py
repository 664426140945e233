"""A store that sentinels watch: its primary is found, followed, and refused where it could lose things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from gateway import doctor
from gateway.errors import Refusal, StoreUnavailable
from gateway.store.contract import Replayed, Submitted
from gateway.store.engine import Engine
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis_link import Call, Cut, Link, script
from gateway.store.redis_sentinel import Guarded
from policies.model import Job
from tests.contracts.rig import SAID, counting, put, submit
from tests.fakes.sentinel import NAME, Sentinel
from tests.gateway.store.processes import Processes


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinel]:
    """A primary, a replica, a sentinel. A test leaves all three running, whoever is the primary then."""
    with Sentinel() as made:
        yield made


@pytest.fixture
async def many(watched: Sentinel) -> AsyncIterator[Processes]:
    """An empty store there, and engines to be opened on it."""
    made = Processes(watched.url)
    yield made
    await made.close()


async def at_last(store: Engine, job: Job, key: str) -> Submitted | Replayed:
    """Submit under a key until there is a true answer."""
    while True:
        try:
            answer = await submit(store, job, key)
        except StoreUnavailable:
            continue
        assert isinstance(answer, Submitted | Replayed)
        return answer


async def test_replaced_primary_is_followed(watched: Sentinel, many: Processes) -> None:
    """Where the replica became the primary all goes on there: what was answered is, who waits hears."""
    api, other = await many.process(), await many.process()
    first = await put(api, many.job())
    waiting = asyncio.create_task(api.wait_job("acme", first.id, 1, 60.0))
    await asyncio.to_thread(watched.fail_over)
    again = await at_last(api, many.job(), "k")
    assert (await at_last(other, many.job(), "k")).job.id == again.job.id
    assert (await api.usage("acme", "ann")).user.held == 20
    await other.cancel("acme", first.id, counting(), SAID)
    found = await asyncio.wait_for(waiting, 10)
    assert found is not None
    assert found.state == "canceled"
    late = await many.process()
    assert (await late.usage("acme", "ann")).user.held == 10
    assert await doctor.examine(late.backend, many.chain) == []


class Told:
    """A Redis that says what it is told to say, to each call."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.closed = False

    async def reach(self, _commands: object) -> list[Any]:
        """Return the next reply, the last one again and again."""
        return [self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]]

    run = reach

    async def close(self) -> None:
        """Be closed."""
        self.closed = True


async def test_demoted_primary_is_let_go() -> None:
    """What a primary refuses for being a replica now was not done, and goes to whoever it is instead."""
    sentinel = Told([b"old", b"1"], [b"new", b"2"])
    redis = {"old:1": Told(b"info", Cut("redis: ReadOnlyError")), "new:2": Told(b"info", b"done")}
    guarded = Guarded([cast("Link", sentinel)], NAME, lambda at: cast("Link", redis[at]), lambda _info: None)
    call = Call(script("lease"), ["x"], ())
    (first,) = await guarded.run([call])
    assert (type(first), guarded.home("x")) == (Cut, "old:1")
    answer = first
    while isinstance(answer, Cut):
        (answer,) = await guarded.run([call])
    assert (answer, guarded.home("x"), redis["old:1"].closed) == (b"done", "new:2", True)
    await guarded.close()
    assert (sentinel.closed, redis["new:2"].closed) == (True, True)
    (answer,) = await guarded.run([call])
    assert isinstance(answer, StoreUnavailable)


async def test_unfit_successor_is_not_taken() -> None:
    """A Redis that sentinels name and that could lose things is given nothing, until it is set right."""
    named = Told(b"bad", b"bad", b"good", b"done")
    sentinel = cast("Link", Told([b"new", b"2"]))

    def judge(info: bytes) -> str | None:
        return "unfit" if info == b"bad" else None

    guarded = Guarded([sentinel], NAME, lambda _at: cast("Link", named), judge)
    told: list[Any] = []
    while b"done" not in told:
        told += await guarded.run([Call(script("lease"), ["x"], ())])
    assert {str(each) for each in told[:-1]} == {"unfit"}
    await guarded.close()


async def test_unfit_primary_is_refused(watched: Sentinel) -> None:
    """A primary that may lose what it is given is refused in its sentence, and an unknown name in another."""
    watched.primary.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    backend = open_backend(Place(watched.url), How("me"))
    with pytest.raises(Refusal, match="Set `maxmemory-policy noeviction`"):
        await backend.start()
    await backend.close()
    watched.primary.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    backend = open_backend(Place(watched.url.replace(NAME, "nobody")), How("me"))
    with pytest.raises(Refusal, match="the sentinels know no nobody"):
        await backend.start()
    await backend.close()


async def test_dead_sentinels_change_nothing(many: Processes, watched: Sentinel) -> None:
    """Where a sentinel does not answer another is asked; where none does, the known primary stays it."""
    many.url = watched.url.replace("://", "://127.0.0.1:1,")
    store = await many.process()
    await put(store, many.job())
    watched.sentinel.stop()
    watched.primary.ask("CLIENT", "KILL", "TYPE", "normal")
    await at_last(store, many.job(), "k")
    assert (await store.usage("acme", "ann")).user.held == 20
    with pytest.raises(Refusal, match="cannot be used"):
        await many.process()
    watched.sentinel.start()
    await many.process()
