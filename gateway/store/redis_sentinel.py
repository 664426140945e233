"""A Redis that sentinels watch: whoever is the primary now, as one of them tells.

They are asked before the first call, each second, and where a call met trouble; where a primary is known
already, for a moment only, so that a sentinel that is silent holds nobody up. Of those who answer he is
believed who knows of the latest failover, and none who knows of an older one while the known primary stands.
An address they name is taken only if whoever is there says that it is the primary and keeps what it is given.
A primary that was replaced is let go of at once, since what it takes is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.redis_link import Call, Command, Link

LOOK_SECONDS: Final = 1.0
"""How old the sentinels' word may be."""
DOUBT_SECONDS: Final = 0.1
"""How old it may be where a call has met trouble."""
MOMENT_SECONDS: Final = 0.05
"""How long their answer is waited for where a primary is known."""
AWAY_SECONDS: Final = 5.0
"""How long a sentinel that does not answer is passed over, if another does."""


class Word(NamedTuple):
    """Whom a sentinel names, and the number of the failover that made it the primary."""

    epoch: int
    address: str


class Guarded:
    """Connections to the primary of a name. `judge` reads `INFO` and says what is wrong, if anything is.

    `steady` tells seconds that only go forward.
    """

    scattered = False

    def __init__(
        self,
        sentinels: Sequence[Link],
        master: str,
        linked: Callable[[str], Link],
        judge: Callable[[bytes], str | None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sentinels = list(sentinels)
        self._master = master
        self._linked = linked
        self._judge = judge
        self._steady = steady
        self._address = ""
        self._epoch = -1
        self._link: Link | None = None
        self._fault = StoreUnavailable("redis: no sentinel answers")
        self._began = self._looked = float("-inf")
        self._doubted = False
        self._away: dict[Link, float] = {}
        self._looking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
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
        await asyncio.gather(*(sentinel.close() for sentinel in self._sentinels))
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await asyncio.gather(*self._closing, *([self._link.close()] if self._link else []))

    def _seen(self, replies: list[Any]) -> list[Any]:
        """Doubt a primary that fails."""
        self._doubted |= any(isinstance(reply, StoreUnavailable) for reply in replies)
        return replies

    async def _primary(self) -> Link:
        """Return a link to the primary as it is known. Raises where there is none that could be the store."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        now = self._steady()
        late = self._looked + (DOUBT_SECONDS if self._doubted or not self._link else LOOK_SECONDS)
        if (self._looking is None or self._looking.done()) and now > late:
            self._began = now
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="store sentinels")
        if self._looking is not None and not self._looking.done():
            if self._link is not None and now < self._began + MOMENT_SECONDS:
                await asyncio.wait([self._looking], timeout=self._began + MOMENT_SECONDS - now)
            if self._link is None:
                await asyncio.wait([self._looking])
        if self._link is None:
            raise self._fault
        return self._link

    async def _look(self) -> None:
        """Ask the sentinels, but those that were silent lately. Where none answers what is known stands."""
        self._doubted = False
        now = self._steady()
        some = [each for each in self._sentinels if self._away.get(each, now) <= now] or self._sentinels
        told = await asyncio.gather(*(self._told(each) for each in some))
        words = [word for word in told if word is not None]
        if words:
            word = max(words, key=lambda each: (each.epoch, words.count(each)))
            if await self._better(word, most=2 * words.count(word) > len(self._sentinels)):
                await self._meet(word)
        self._looked = self._steady()

    async def _better(self, word: Word, *, most: bool) -> bool:
        """Say whether to go by a word.

        By one that is no newer than what is known, as sentinels that were set up anew have it, only where
        most of them have, and the known primary is none any more.
        """
        if word.address == self._address:
            self._epoch = max(self._epoch, word.epoch)
            return self._link is None
        if word.epoch > self._epoch:
            return True
        return most and (self._link is None or await self._wrong(self._link) is not None)

    async def _told(self, sentinel: Link) -> Word | None:
        """Return what a sentinel says; it names a new primary before it lists it."""
        asked = (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master), ("SENTINEL", "MASTER", self._master))
        where, listed = await sentinel.reach(asked)
        if where is None:
            self._fault = StoreUnavailable(f"redis: the sentinels know no {self._master}")
            return None
        for told in (where, listed):
            if isinstance(told, StoreUnavailable):
                self._fault = told
                self._away[sentinel] = self._steady() + AWAY_SECONDS
                return None
        host, port = (part.decode() for part in where)
        epoch = int(listed[listed.index(b"config-epoch") + 1])
        return Word(epoch, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    async def _meet(self, word: Word) -> None:
        """Let go of the known primary, and take whoever is at an address for it, if it says so too."""
        old, self._link = self._link, None
        self._epoch, self._address = word
        if old is not None:  # which takes its time where its host is hung
            closing = asyncio.get_running_loop().create_task(old.close(), name="store closing")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        link = self._linked(self._address)
        wrong = await self._wrong(link)
        if wrong is None:
            self._link = link
        else:
            self._fault = StoreUnavailable(wrong)
            await link.close()

    async def _wrong(self, link: Link) -> str | None:
        """Say what is wrong with a primary, if anything is."""
        (told,) = await link.reach([("INFO",)])
        return str(told) if isinstance(told, StoreUnavailable) else self._judge(told)
