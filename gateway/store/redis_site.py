"""One process at its Redis: its connections, the keys' names, its number among the others, the time.

What writes is sent by `surely`: where the reply is lost the same bytes go again, for as long as Redis
would still take them. Scripts refuse what is older than that, so whoever gets no answer at all knows that
nothing will be done later in their name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.awake import Limit
from gateway.store.reads import Reading
from gateway.store.redis_keys import Names
from gateway.store.redis_link import Call, Command, Cut, Gone, Rejected, Script, Silent, Unconfirmed, script
from gateway.store.redis_time import StoreTime
from gateway.store.redis_together import Together, whole

if TYPE_CHECKING:
    from gateway.store.redis_nodes import Nodes
    from gateway.store.redis_pack import Sheet

ALIVE_SECONDS: Final = 1.8
"""How late a commit may be, as in its script: less than a caller waits, who is told that nothing was done."""
PATIENCE_SECONDS: Final = 1.9
"""How long a caller waits for Redis, whatever happens: then they hear that the store is not there."""
AGAIN_SECONDS: Final = 0.01
"""What lies between two sendings of the same bytes."""
SCRIPTS: Final = ("claim", "commit", "deliver", "lease", "may", "roll")

MISTYPED: Final = Rejected("MISTYPED", "a key holds something else")
"""What a commit calls `t`."""

_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder()


class Judged(NamedTuple):
    """Of each group the verdicts on its changes, and in order what was read of those that were refused.

    `short`: what was done is had by too few replicas.
    """

    groups: list[list[Any]]
    read: Iterator[list[Any]]
    short: Unconfirmed | None = None


class Site:
    """What all parts of the back end share."""

    def __init__(
        self,
        link: Nodes,
        names: Names,
        me: str,
        time: StoreTime,
        reading: Reading,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.link = link
        self.names = names
        self.me = me
        self.time = time
        self.time.led_by(lambda: link.home(names.shards[0].at))
        self.reading = reading
        self._patience = patience
        self._scripts: dict[str, Script] = {name: script(name) for name in SCRIPTS}
        self._numbers = itertools.count(1)
        self.together = Together(self.reach)
        """For reads of a point, of which there may be many at once."""

    def number(self) -> int:
        """Return the next number of what this process does."""
        return next(self._numbers)

    def call(self, name: str, keys: Sequence[str], *values: object) -> Call:
        """Return a call of a script, each of its values packed. Raises where one cannot be."""
        return Call(self._scripts[name], keys, [_pack.encode(value) for value in values])

    def stamp(self, shard: int, mark: int | None = None) -> int:
        """Return a moment (now, where none is given) by the clock of whoever has a shard, in milliseconds."""
        node = self.link.home(self.names.shards[shard].at)
        return self.time.at(self.time.mark() if mark is None else mark, node)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send what may be done twice, such as reads; return the replies, in order."""
        return whole(await self.reach(commands))

    async def survey(self, commands: Sequence[Command]) -> list[Any]:
        """Return what there is to hear of lists: an empty one for a shard that cannot be asked now.

        Raises where none can.
        """
        replies = await self.reach(commands)
        faults = [reply for reply in replies if isinstance(reply, StoreUnavailable)]
        if faults and len(faults) == len(replies):
            raise faults[0]
        return [[] if isinstance(reply, StoreUnavailable) else reply for reply in replies]

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Send what may be done twice; return the reply of each, or the fault that stood in the way.

        A connection that broke while nobody used it is noticed by this, so there is a second try.
        """
        replies: list[Any] = [Silent("redis: no answer")] * len(commands)
        try:
            async with asyncio.timeout(self._patience):
                replies = await self.link.reach(commands)
                broken = [at for at, reply in enumerate(replies) if isinstance(reply, Cut)]
                if broken:
                    again = await self.link.reach([commands[at] for at in broken])
                    for at, reply in zip(broken, again, strict=True):
                        replies[at] = reply
        except TimeoutError:
            pass
        return replies

    async def surely(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that may be sent twice; return the reply of each, or why there is none.

        That is why it was `Rejected`, `Silent` where Redis does not answer, what stood in the way where it
        cannot be reached, or `Gone` where it is known not to be there and was sent nothing.
        """
        quiet = Silent("redis: no answer")
        replies: list[Any] = [quiet] * len(calls)
        left, sent = list(range(len(calls))), set[int]()
        try:
            async with Limit(self._patience) as limit:
                while left and limit.left:
                    again = await self.link.run([calls[at] for at in left])
                    for at, reply in zip(left, again, strict=True):
                        replies[at] = quiet if isinstance(reply, Gone) and at in sent else reply
                    sent.update(left)
                    left = [at for at, reply in zip(left, again, strict=True) if _again(reply)]
                    if left:
                        await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError:
            pass
        return replies

    async def answers(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts that may be sent twice; return what each answered, or the fault it came to.

        Whose clock is not as it was thought to be is asked for the time. Raises where there are only faults.
        """
        replies = await self.surely(calls)
        if any(isinstance(reply, Rejected) and reply.code == "LATE" for reply in replies):
            with contextlib.suppress(StoreUnavailable):  # a node that is away
                await self.learn_time()
        faults = [fault for fault in map(fault_of, replies) if fault is not None]
        if faults and len(faults) == len(replies):
            raise faults[0]
        return [fault_of(reply) or unpack(reply) for reply in replies]

    def commit(
        self,
        sheet: Sheet,
        number: int,
        stamp: int,
        groups: Sequence[object],
        reads: Sequence[object] = (),
        *,
        copies: bool = False,
    ) -> Call:
        """Return a call of the commit script, with what is to be read of what it refuses."""
        values = (self.me, number, stamp, self.names.wake, sheet.types, groups, copies)
        return self.call("commit", list(sheet.keys), values, reads)

    async def judged(self, calls: Sequence[Call], number: int) -> list[Judged | Rejected | StoreUnavailable]:
        """Run commits of a number; return what each said, or why there is no word of it, as `surely` does."""
        sent = self.time.mark()
        replies = await self.surely(calls)
        return [self._heard(call, reply, sent, number) for call, reply in zip(calls, replies, strict=True)]

    def _heard(self, call: Call, reply: Any, sent: int, number: int) -> Judged | Rejected | StoreUnavailable:
        short = reply if isinstance(reply, Unconfirmed) else None
        if short is not None:
            reply = short.reply
        if isinstance(reply, Rejected | StoreUnavailable):
            return reply
        answer, now, groups = unpack(reply[0])
        self.time.learn(sent, now, self.link.home(call.keys[0]))
        if answer != number:
            return StoreUnavailable("redis: the reply is another commit's")
        return Judged(groups, iter(reply[1]), short)

    async def applied(self, calls: Sequence[Call]) -> int:
        """Run commits that nobody decides anew; return how many of their changes were applied."""
        replies = await self.surely(calls)
        for fault in map(fault_of, replies):
            if fault is not None:
                raise fault
        told = [unpack(reply[0]) for reply in replies]
        letters = [verdict[0] for _n, _t, groups in told for group in groups for verdict in group]
        if "t" in letters:
            raise MISTYPED.fault()
        return letters.count("a")

    async def learn_time(self) -> None:
        """Ask each primary for its time. Raises where one does not tell it, after the others were heard."""
        sent = self.time.mark()
        told = await self.link.each([("TIME",)])
        for node, (reply,) in told.items():
            if not isinstance(reply, StoreUnavailable):
                self.time.learn(sent, int(reply[0]) * 1_000_000 + int(reply[1]), node)
        whole([reply for (reply,) in told.values()])


def fault_of(reply: object) -> StoreUnavailable | None:
    """Return the fault that came in place of a reply; None where a reply came."""
    if isinstance(reply, Rejected):
        return reply.fault()
    return reply if isinstance(reply, StoreUnavailable) else None


def _again(reply: object) -> bool:
    """Say whether what came is worth another try."""
    return isinstance(reply, StoreUnavailable) and not isinstance(reply, Gone | Unconfirmed)


def unpack(reply: bytes) -> Any:
    """Return what a script packed."""
    return _unpack.decode(reply)
