"""One process at one Redis: its connections, the keys' names, its number among the others, the time.

What writes is sent by `surely`: where the reply is lost the same bytes go again, for as long as Redis
would still take them. Scripts refuse what is older than that, so whoever gets no answer at all knows that
nothing will be done later in their name.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.reads import Reading
from gateway.store.redis_keys import Names
from gateway.store.redis_link import Call, Command, Cut, Link, Rejected, Script, Silent, script
from gateway.store.redis_time import StoreTime

if TYPE_CHECKING:
    from gateway.store.redis_pack import Sheet

ALIVE_SECONDS: Final = 2.0
"""How late a script may be: as in the scripts."""
PATIENCE_SECONDS: Final = 1.9
"""How long a caller waits for Redis, whatever happens: then they hear that the store is not there."""
AGAIN_SECONDS: Final = 0.01
"""What lies between two sendings of the same bytes."""
SCRIPTS: Final = ("claim", "commit", "deliver", "lease")

MISTYPED: Final = Rejected("MISTYPED", "a key holds something else")
"""What a commit calls `t`."""

_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder()


class Judged(NamedTuple):
    """Of each group the verdicts on its changes, and in order what was read of those that were refused."""

    groups: list[list[Any]]
    read: Iterator[list[Any]]


class Site:
    """What all parts of the back end share."""

    def __init__(
        self, link: Link, names: Names, me: str, time: StoreTime, unreadable: Callable[[str], None]
    ) -> None:
        self.link = link
        self.names = names
        self.me = me
        self.time = time
        self.reading = Reading(unreadable)
        self._scripts: dict[str, Script] = {name: script(name) for name in SCRIPTS}
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Return the next number of what this process does."""
        return next(self._numbers)

    def call(self, name: str, keys: Sequence[str], *values: object) -> Call:
        """Return a call of a script, each of its values packed. Raises where one cannot be."""
        return Call(self._scripts[name], keys, [_pack.encode(value) for value in values])

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send what may be done twice, such as reads; return the replies, in order.

        A connection that broke while nobody used it is noticed by this, so there is a second try.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    return await self.link.ask(commands)
                except Cut:
                    return await self.link.ask(commands)
        except TimeoutError:
            raise Silent("redis: no answer") from None

    async def surely(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that may be sent twice; return the reply of each, or why it was `Rejected`.

        Raises `Silent` where Redis does not answer, and what stood in the way where it cannot be reached.
        """
        fault: StoreUnavailable = Silent("redis: no answer")
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        try:
            async with asyncio.timeout_at(until):
                while loop.time() < until:  # a cancellation may be lost in the library
                    try:
                        return await self.link.run(calls)
                    except StoreUnavailable as raised:
                        fault = raised
                    await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError:
            pass
        raise fault

    async def answers(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that may be sent twice; return what each replied. One that was refused is a fault."""
        return [unpack(reply) for reply in await self._done(calls)]

    def commit(
        self, sheet: Sheet, number: int, stamp: int, groups: Sequence[object], reads: Sequence[object] = ()
    ) -> Call:
        """Return a call of the commit script, with what is to be read of what it refuses."""
        values = (self.me, number, stamp, self.names.wake, sheet.types, groups)
        return self.call("commit", list(sheet.keys), values, reads)

    async def judged(self, calls: Sequence[Call], number: int) -> list[Judged | Rejected]:
        """Run commits of a number; return what each said, or why it was `Rejected`. Raises as `surely`."""
        sent = self.time.mark()
        replies = await self.surely(calls)
        return [each if isinstance(each, Rejected) else self._heard(each, sent, number) for each in replies]

    def _heard(self, reply: Any, sent: int, number: int) -> Judged:
        answer, now, groups = unpack(reply[0])
        self.time.learn(sent, now)
        if answer != number:
            raise StoreUnavailable("redis: the reply is another commit's")
        return Judged(groups, iter(reply[1]))

    async def applied(self, calls: Sequence[Call]) -> int:
        """Run commits that nobody decides anew; return how many of their changes were applied."""
        told = [unpack(reply[0]) for reply in await self._done(calls)]
        letters = [verdict[0] for _n, _t, groups in told for group in groups for verdict in group]
        if "t" in letters:
            raise MISTYPED.fault()
        return letters.count("a")

    async def _done(self, calls: Sequence[Call]) -> list[Any]:
        replies = await self.surely(calls)
        for reply in replies:
            if isinstance(reply, Rejected):
                raise reply.fault()
        return replies

    async def learn_time(self) -> None:
        """Ask Redis for its time."""
        sent = self.time.mark()
        ((seconds, micros),) = await self.ask([("TIME",)])
        self.time.learn(sent, int(seconds) * 1_000_000 + int(micros))


def unpack(reply: bytes) -> Any:
    """Return what a script packed."""
    return _unpack.decode(reply)
