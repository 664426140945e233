"""A Redis that sentinels watch: whoever is the primary now, as one of them tells.

They are asked before the first call, each second, and where a call met trouble; an address they name is
taken only if whoever is there says that it is the primary and keeps what it is given. A primary that was
replaced is let go of at once, since what it takes is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from gateway.errors import StoreUnavailable
from gateway.store.redis_link import Call, Command, Link

LOOK_SECONDS: Final = 1.0
"""How old the sentinels' word may be."""
DOUBT_SECONDS: Final = 0.1
"""How old it may be where a call has met trouble."""


class Guarded:
    """Connections to the primary of a name. `judge` reads `INFO` and says what is wrong, if anything is."""

    scattered = False

    def __init__(
        self,
        sentinels: Sequence[Link],
        master: str,
        linked: Callable[[str], Link],
        judge: Callable[[bytes], str | None],
    ) -> None:
        self._sentinels = list(sentinels)
        self._master = master
        self._linked = linked
        self._judge = judge
        self._address = ""
        self._link: Link | None = None
        self._fault = StoreUnavailable("redis: no sentinel answers")
        self._looked = float("-inf")
        self._doubted = False
        self._looking = asyncio.Lock()
        self._closed = False

    def home(self, _key: str) -> str:
        """Return the address of the primary; empty where it is not known yet."""
        return self._address

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply of each, in order, or the fault that stood in the way."""
        try:
            return self._seen(await (await self._primary()).reach(commands))
        except StoreUnavailable as fault:
            return [fault] * len(commands)

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return the answer of each, why it was `Rejected`, or what stood in the way."""
        try:
            return self._seen(await (await self._primary()).run(calls))
        except StoreUnavailable as fault:
            return [fault] * len(calls)

    async def each(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        """Return what the primary replies, or the fault that stood in the way, by its name."""
        replies = await self.reach(commands)
        return {self._address: replies}

    def doubt(self, name: str) -> None:
        """Ask anew who the primary is."""
        self._doubted = True
        if self._link is not None and name == self._address:
            self._link.doubt(name)

    async def listen(self, channel: str) -> AsyncIterator[bytes | None]:
        """Yield what is published, after None once it is subscribed; ends by a `StoreUnavailable`."""
        async for message in (await self._primary()).listen(channel):
            yield message

    async def close(self) -> None:
        """Close all connections. Harmless twice."""
        self._closed = True
        links = [*self._sentinels, *([self._link] if self._link else [])]
        await asyncio.gather(*(link.close() for link in links))

    def _seen(self, replies: list[Any]) -> list[Any]:
        """Doubt a primary that fails."""
        self._doubted |= any(isinstance(reply, StoreUnavailable) for reply in replies)
        return replies

    async def _primary(self) -> Link:
        """Return a link to the primary. Raises where there is none that could be the store."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now > self._looked + (DOUBT_SECONDS if self._doubted or not self._link else LOOK_SECONDS):
                await self._look()
                self._looked = asyncio.get_running_loop().time()
        if self._link is None:
            raise self._fault
        return self._link

    async def _look(self) -> None:
        """Ask the sentinels. Where none answers what is known stands."""
        random.shuffle(self._sentinels)
        for sentinel in self._sentinels:
            (told,) = await sentinel.reach([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)])
            if isinstance(told, StoreUnavailable):
                self._fault = told
            elif told is None:
                self._fault = StoreUnavailable(f"redis: the sentinels know no {self._master}")
            else:
                host, port = (part.decode() for part in told)
                await self._meet(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                return

    async def _meet(self, address: str) -> None:
        """Take whoever is at an address for the primary, if it says so too."""
        self._doubted = False
        if address == self._address and self._link:
            return
        old, self._link, self._address = self._link, None, address
        if old:
            await old.close()
        link = self._linked(address)
        (told,) = await link.reach([("INFO",)])
        wrong = str(told) if isinstance(told, StoreUnavailable) else self._judge(told)
        if wrong is None:
            self._link = link
        else:
            self._fault = StoreUnavailable(wrong)
            await link.close()
