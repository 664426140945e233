"""Several processes' worth of engines over one Redis, in one: each has connections and a clock of its own."""

from __future__ import annotations

from uuid import uuid4

from gateway.store.engine import Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_time import StoreTime, steady_us, wall_us
from tests.contracts.rig import Rig
from tests.fakes.redis import server


class Processes(Rig):
    """Engines over one Redis under a prefix of their own. Time is Redis' own unless a `clock` is given."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or server().url
        self.prefix = f"{uuid4().hex}:"
        self._made: list[Engine] = []
        super().__init__("redis", __file__)  # type: ignore[arg-type]

    def over(self, url: str | None = None, *, ahead_ms: int = 0) -> RedisBackend:
        """Return a back end as another process has it, whose host's clock is wrong by that much."""
        wrong = StoreTime(steady_us, lambda: wall_us() + 1000 * ahead_ms)
        return RedisBackend(Place(url or self.url), How(uuid4().hex), prefix=self.prefix, time=wrong)

    async def process(self, url: str | None = None, *, ahead_ms: int = 0) -> Engine:
        """Return a process that has started and hears the others."""
        backend = self.over(url, ahead_ms=ahead_ms)
        engine = self.engine(backend)
        await engine.start()
        await backend.heard()
        return engine
