"""Several processes' worth of engines over one Redis, in one: each has connections and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from typing import Any
from uuid import uuid4

from gateway.errors import StoreClosed, StoreUnavailable
from gateway.store.contract import Submitted
from gateway.store.engine import Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_link import Call, Command, Cut, Gone, Link
from gateway.store.redis_time import StoreTime, steady_us, wall_us
from tests.contracts.rig import Rig, submit
from tests.fakes.redis import server


class Counting(Link):
    """Connections that count the commands they send, those that prove whose a reply is among them."""

    sent = 0
    calls = 0
    """How often something was sent, however many commands."""

    async def exchange(
        self, commands: Sequence[Command], *, signed: bool = False, asked: Container[int] = ()
    ) -> list[Any]:
        """Send and count."""
        self.calls += 1
        self.sent += len(commands) + int(bool(commands) and not signed)
        return await super().exchange(commands, signed=signed, asked=asked)


class Failing(Link):
    """Connections that fail: reads `deaf` says so of, and scripts of the hashes in `dumb`.

    `ran` are the hashes of the scripts that were run.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.deaf: Callable[[Command], bool] = lambda _command: False
        self.dumb: set[str] = set()
        self.ran: list[str] = []

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Read what may be read."""
        replies = await super().reach(commands)
        return [
            Cut("redis: cut") if self.deaf(each) else reply
            for each, reply in zip(commands, replies, strict=True)
        ]

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run what may be run."""
        if any(call.script.sha in self.dumb for call in calls):
            return [Gone("redis: not there")] * len(calls)
        self.ran += [call.script.sha for call in calls]
        return await super().run(calls)

    def once_ran(self, sha: str, word: str) -> None:
        """Fail what begins with a word once a script was run."""
        self.deaf = lambda command: command[0] == word and sha in self.ran


class Processes(Rig):
    """Engines over one Redis under a prefix of their own. Time is Redis' own unless a `clock` is given."""

    def __init__(self, url: str | None = None, prefix: str | None = None) -> None:
        self.url = url or server().url
        self.prefix = prefix or f"{uuid4().hex}:"
        self.replicas = 0
        self.more: dict[str, Any] = {}
        """What else is to be said of the place."""
        super().__init__("redis", __file__)  # type: ignore[arg-type]

    def over(self, url: str | None = None, *, ahead_ms: int = 0, link: Link | None = None) -> RedisBackend:
        """Return a back end as another process has it, whose host's clock is wrong by that much."""
        wrong = StoreTime(steady_us, lambda: wall_us() + 1000 * ahead_ms)
        place, how = Place(url or self.url, replicas=self.replicas, **self.more), How(uuid4().hex)
        return RedisBackend(place, how, prefix=self.prefix, time=wrong, link=link)

    async def process(self, url: str | None = None, *, ahead_ms: int = 0, link: Link | None = None) -> Engine:
        """Return a process that has started and hears the others."""
        backend = self.over(url, ahead_ms=ahead_ms, link=link)
        engine = self.engine(backend)
        await engine.start()
        await backend.heard()
        return engine


def backend(engine: Engine) -> RedisBackend:
    """Return what an engine stands on, as what it is."""
    assert isinstance(engine.backend, RedisBackend)
    return engine.backend


async def answered(many: Processes, engine: Engine, tenant: str) -> str:
    """Submit until there is an answer: `in`, or `closed`."""
    while True:
        try:
            assert isinstance(await submit(engine, many.job(tenant)), Submitted)
        except StoreClosed:
            return "closed"
        except StoreUnavailable:
            await asyncio.sleep(0)
        else:
            return "in"
