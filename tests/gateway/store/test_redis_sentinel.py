"""A store that sentinels watch: its primary is found, followed, and refused where it could lose things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest

from gateway import doctor
from gateway.errors import Refusal, StoreUnavailable
from gateway.store.contract import Replayed, Submitted
from gateway.store.engine import Engine
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis_link import Call, Cut, Link, script
from gateway.store.redis_sentinel import AWAY_SECONDS, DOUBT_SECONDS, LOOK_SECONDS, Guarded, Word
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


class Watch:
    """A sentinel that names who is in `word`, a word of what failover, and answers while it is `free`."""

    def __init__(self, word: Word | None) -> None:
        self.word = word
        self.free = asyncio.Event()
        self.free.set()
        self.asked = 0
        self.closed = False

    async def reach(self, commands: Sequence[object]) -> list[Any]:
        """Name the primary and list it; without a word, be out of reach."""
        self.asked += 1
        await self.free.wait()
        if self.word is None:
            return [Cut("gone")] * len(commands)
        host, _, port = self.word.address.encode().partition(b":")
        return [[host, port], [b"name", b"x", b"config-epoch", b"%d" % self.word.epoch]]

    async def close(self) -> None:
        """Be closed; who waits for an answer waits no longer."""
        self.closed = True
        self.word = None
        self.free.set()


def looks() -> list[asyncio.Task[Any]]:
    """Return the looks that are under way."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "store sentinels"]


class Tried:
    """A `Guarded` over doubles: Redis by their addresses. Time stands still but for `later`."""

    def __init__(self, redis: dict[str, Told], *watches: Watch) -> None:
        self.now = 0.0
        self.guarded = Guarded(
            [cast("Link", watch) for watch in watches],
            NAME,
            lambda at: cast("Link", redis[at]),
            lambda info: "unfit" if info == b"bad" else None,
            lambda: self.now,
        )

    async def run(self) -> Any:
        """Return the answer to a call, for which nobody is waited."""
        (answer,) = await asyncio.wait_for(self.guarded.run([Call(script("lease"), ["x"], ())]), 1)
        return answer

    async def later(self, seconds: float) -> str:
        """Return the address that is known some seconds later, when the sentinels have been asked."""
        self.now += seconds
        await self.run()
        await asyncio.gather(*looks())
        return self.guarded.home("x")


OLD, NEW = Word(1, "old:1"), Word(2, "new:2")


async def test_demoted_primary_is_let_go() -> None:
    """Where the primary is a replica now, whoever it is instead is asked for and takes its place."""
    watch, redis = Watch(OLD), {"old:1": Told(b"info", Cut("demoted")), "new:2": Told(b"info", b"done")}
    tried = Tried(redis, watch)
    assert isinstance(await tried.run(), Cut)
    watch.word = NEW
    assert await tried.later(DOUBT_SECONDS / 2) == "old:1"
    tried.now += DOUBT_SECONDS
    assert (await tried.run(), tried.guarded.home("x")) == (b"done", "new:2")
    watch.free.clear()
    tried.now += 2 * LOOK_SECONDS
    await tried.run()
    await tried.guarded.close()
    assert (watch.closed, redis["old:1"].closed, redis["new:2"].closed, looks()) == (True, True, True, [])
    assert isinstance(await tried.run(), StoreUnavailable)


async def test_unfit_successor_is_not_taken() -> None:
    """A Redis that sentinels name and that could lose things is given nothing, until it is set right."""
    tried = Tried({"new:2": Told(b"bad", b"bad", b"good", b"done")}, Watch(NEW))
    assert [str(await tried.run()) for _ in range(2)] == ["unfit", "unfit"]
    tried.now += 2 * DOUBT_SECONDS
    assert str(await tried.run()) == "unfit"
    tried.now += 2 * DOUBT_SECONDS
    assert await tried.run() == b"done"
    await tried.guarded.close()


async def test_silent_sentinel_holds_nobody_up() -> None:
    """Where sentinels are silent calls go to whom they named; one that was is left out for a while."""
    one, other = Watch(OLD), Watch(OLD)
    tried = Tried({"old:1": Told(b"info", b"done")}, one, other)
    assert await tried.run() == b"done"
    other.free.clear()
    other.word = None
    tried.now += 2 * LOOK_SECONDS
    assert [await tried.run() for _ in range(2)] == [b"done", b"done"]
    other.free.set()
    await tried.later(0)
    assert (one.asked, other.asked) == (2, 2)
    await tried.later(2 * LOOK_SECONDS)
    assert (one.asked, other.asked) == (3, 2)
    one.word = None
    await tried.later(2 * AWAY_SECONDS)
    assert (one.asked, other.asked) == (4, 3)
    await tried.later(2 * LOOK_SECONDS)
    assert (one.asked, other.asked) == (5, 4)  # nobody is left to ask instead
    assert await tried.run() == b"done"
    await tried.guarded.close()


async def test_older_word_is_not_believed() -> None:
    """Of sentinels that disagree the one with the latest failover is believed, and no older word after it."""
    watches, redis = [Watch(OLD), Watch(NEW), Watch(NEW)], {"old:1": Told(b"info"), "new:2": Told(b"info")}
    tried = Tried(redis, *watches)
    assert await tried.later(0) == "new:2"
    for watch in watches[1:]:
        watch.word = None
    assert await tried.later(2 * AWAY_SECONDS) == "new:2"
    watches[0].word = Word(4, "new:2")
    assert await tried.later(2 * AWAY_SECONDS) == "new:2"
    watches[0].word = Word(3, "old:1")
    redis["new:2"].replies = [b"bad"]
    assert await tried.later(2 * AWAY_SECONDS) == "new:2"
    watches[0].word = Word(5, "old:1")
    assert await tried.later(2 * AWAY_SECONDS) == "old:1"
    await tried.guarded.close()


async def test_word_of_new_sentinels_is_believed() -> None:
    """Sentinels set up anew count from nothing: most of them are believed once the known primary is none."""
    watches, redis = [Watch(NEW), Watch(NEW), Watch(NEW)], {"old:1": Told(b"info"), "new:2": Told(b"info")}
    tried = Tried(redis, *watches)
    assert await tried.later(0) == "new:2"
    for watch in watches:
        watch.word = Word(0, "old:1")
    assert await tried.later(2 * LOOK_SECONDS) == "new:2"
    redis["new:2"].replies = [b"bad"]
    assert await tried.later(2 * LOOK_SECONDS) == "old:1"
    await tried.guarded.close()


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
