"""The two stores a run stands on, and what can be done to them: a file, and a Redis behind a proxy.

Processes reach the Redis through the proxy, which cuts and delays them; whoever looks at the books reads
past it. Its log is synced before it answers, so a kill -9 of it may lose nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from gateway.store.opening import Place, open_to_read
from tests.fakes.cut import Cut
from tests.fakes.redis import Redis

if TYPE_CHECKING:
    from typing import Self

    from gateway.store.backend import Backend

Deed = Callable[[random.Random], Awaitable[None]]
"""Something that is done to a store; it returns once it is over."""
LOSING_SECONDS: Final = 0.4
LONGEST_DELAY: Final = 2.6
"""Longer than a commit is good for."""


class Ground(Protocol):
    """A store, by the address processes use. `deeds` are the faults it can have, by kind."""

    deeds: Mapping[str, Deed]

    @property
    def url(self) -> str:
        """Where processes find it."""
        ...

    def read(self) -> Backend | None:
        """Open it to read beside whoever writes; None where there is none yet."""
        ...

    def standing(self) -> AbstractAsyncContextManager[None]:
        """Keep it from being taken away while it is read."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class FileGround:
    """A SQLite file, which nothing happens to but the death of its process."""

    deeds: Mapping[str, Deed] = {}

    def __init__(self, folder: Path) -> None:
        self._file = folder / "safelight.db"

    @property
    def url(self) -> str:
        """Where processes find it."""
        return f"sqlite:///{self._file}"

    def read(self) -> Backend | None:
        """Open it to read."""
        return open_to_read(Place(self.url), "") if self._file.exists() else None

    def standing(self) -> AbstractAsyncContextManager[None]:
        """Do nothing: a file stays."""
        return nullcontext()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the file where it is."""


class RedisGround:
    """A Redis of its own, and the proxy before it."""

    def __init__(self, _folder: Path) -> None:
        self._redis = Redis("--appendfsync", "always")
        self._proxy = Cut(self._redis.port)
        self._quiet = asyncio.Lock()
        self.deeds: Mapping[str, Deed] = {
            "store: killed and restarted": self._restart,
            "store: connections cut": self._sever,
            "store: replies lost": self._lose,
            "store: answers delayed": self._delay,
        }

    @property
    def url(self) -> str:
        """Where processes find it."""
        return self._proxy.url

    def read(self) -> Backend | None:
        """Open it to read, past the proxy."""
        return open_to_read(Place(self._redis.url), uuid.uuid4().hex)

    async def __aenter__(self) -> Self:
        await self._proxy.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._proxy.__aexit__()
        self._redis.remove()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Keep it from being restarted while it is read."""
        async with self._quiet:
            yield

    async def _restart(self, dice: random.Random) -> None:
        async with self._quiet:
            await asyncio.to_thread(self._redis.stop)
            await asyncio.sleep(dice.uniform(0, 0.5))
            await asyncio.to_thread(self._redis.start)

    async def _sever(self, _dice: random.Random) -> None:
        self._proxy.sever()

    async def _lose(self, dice: random.Random) -> None:
        """Lose one reply of three, for as long as it takes to lose one."""
        before = self._proxy.lost
        self._proxy.cut = lambda _sent: dice.random() < 1 / 3
        while self._proxy.lost == before:  # noqa: ASYNC110 - replies are lost for a time, not until one is
            await asyncio.sleep(LOSING_SECONDS)
        self._proxy.cut = lambda _sent: False

    async def _delay(self, dice: random.Random) -> None:
        self._proxy.free.clear()
        await asyncio.sleep(dice.uniform(0.1, LONGEST_DELAY))
        self._proxy.free.set()
