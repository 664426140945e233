"""A Redis Cluster: who has which slot, and what is done where a slot is on the move or its node away.

What a node has refused (it has not the slot, or not all keys of it yet, or not the script) it has not
done, so that alone is sent again, for a moment; what was sent and not answered never is. A node that does
not answer is passed over for a moment, so that the others' work does not wait for it. What is to be done
twice without harm goes again from the first that was refused on, and that one goes first by itself: of a
load, the document stays the oldest.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence
from typing import Any, Final, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from gateway.errors import StoreUnavailable
from gateway.store.redis_link import BARRED, Away, Call, Command, Gone, Link, Rejected, Silent, called

REFUSED_SECONDS: Final = 0.25
"""How long is tried again what a node refuses. Others in the same batch wait as long."""
AWAY_SECONDS: Final = 1.0
"""How long a node that does not answer is passed over."""
AGAIN_SECONDS: Final = 0.01
"""What lies between two tries."""
LOOK_SECONDS: Final = 0.2
"""What lies at least between two questions who has which slot."""
REFUSALS: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "NOSCRIPT")
"""What a node says of a command that it has not done."""


class Sent(NamedTuple):
    """Commands on their way, and their replies as they come. If they are scripts, their texts by hash."""

    commands: Sequence[Command]
    replies: list[Any]
    texts: dict[str, str]

    @property
    def signed(self) -> bool:
        """Whether they are scripts, which give back a nonce."""
        return bool(self.texts)


class Line:
    """Places of commands of one slot that are done one after the other.

    `asked` is the node that the first of them is to be asked for, where the slot is on its way there. The
    others go on only after it: what has not moved yet would be looked for in vain there. `moved` says that
    the line was sent elsewhere once.
    """

    __slots__ = ("asked", "moved", "places", "slot")

    def __init__(self, slot: int, places: Sequence[int]) -> None:
        self.slot = slot
        self.places = places
        self.asked = ""
        self.moved = False

    @property
    def next(self) -> Sequence[int]:
        """What goes next."""
        return self.places[:1] if self.asked else self.places


class Cluster:
    """Connections to the primaries of a Cluster. Names of nodes are `HOST:PORT`; `seeds` are some of them."""

    scattered = True

    def __init__(self, seeds: Sequence[str], linked: Callable[[str], Link]) -> None:
        self._seeds = tuple(seeds)
        self._linked = linked
        self._links: dict[str, Link] = {}
        self._homes: list[str] = [""] * REDIS_CLUSTER_HASH_SLOTS
        self._names: frozenset[str] = frozenset()
        self._away: dict[str, float] = {}
        self._stale = True
        self._looked = 0.0
        self._looking = asyncio.Lock()
        self._closed = False

    def home(self, key: str) -> str:
        """Return the name of the primary that has a key; empty where nobody is known to."""
        return self._homes[key_slot(key.encode())]

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply of each, in order, or the fault that stood in the way.

        A command's key stands behind its name.
        """
        places: defaultdict[int, list[int]] = defaultdict(list)
        for at, command in enumerate(commands):
            places[key_slot(str(command[1]).encode())].append(at)
        lines = [Line(slot, ats) for slot, ats in places.items()]
        replies = await self._done(Sent(commands, [None] * len(commands), {}), lines)
        return [reply.fault() if isinstance(reply, Rejected) else reply for reply in replies]

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return the reply of each, why it was `Rejected`, or what stood in the way."""
        lines = [Line(key_slot(call.keys[0].encode()), (at,)) for at, call in enumerate(calls)]
        texts = {call.script.sha: call.script.text for call in calls}
        return await self._done(Sent([called(call) for call in calls], [None] * len(calls), texts), lines)

    async def each(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        """Return what each primary replies, or the fault that stood in the way, by its name.

        Where one does not answer it is asked at once who is there in its place: nobody else may be asking.
        """
        told: dict[str, list[Any]] = {}
        for _ in range(2):
            await self._look()
            names = sorted(self._names - told.keys())
            replies = await asyncio.gather(*(self._link(name).reach(commands) for name in names))
            told |= zip(names, replies, strict=True)
            for name, some in zip(names, replies, strict=True):
                for fault in some:
                    if isinstance(fault, StoreUnavailable):
                        self._missed(name, fault)
        return {name: some for name, some in told.items() if name in self._names}

    def doubt(self, _name: str) -> None:
        """Ask anew who has what."""
        self._stale = True

    async def listen(self, channel: str) -> AsyncIterator[bytes | None]:
        """Yield what is published, after None once it is subscribed; ends by a `StoreUnavailable`.

        What is published at one node is heard at all: any will do.
        """
        await self._look()
        node = next(name for name in self._some() if name in self._names)
        async for message in self._link(node).listen(channel):
            yield message

    async def close(self) -> None:
        """Close all connections. Harmless twice."""
        self._closed = True
        await asyncio.gather(*(link.close() for link in self._links.values()))

    # -- sending --------------------------------------------------------------------------------------

    async def _done(self, sent: Sent, lines: Sequence[Line]) -> list[Any]:
        """Send lines to whoever has their slots, until nothing is refused or for a moment; return replies."""
        loop = asyncio.get_running_loop()
        until = loop.time() + REFUSED_SECONDS
        while lines:
            try:
                await self._look()
            except StoreUnavailable as fault:
                return [fault] * len(sent.replies)
            await self._round(sent, lines)
            lines = [line for line in lines if _left(line, sent.replies)]
            refused = [line for line in lines if _refused(sent.replies[line.places[0]])]
            if loop.time() > until:
                break
            await self._heed(sent, refused)
        for line in lines:  # what was not reached has no reply, which is not the same as nothing there
            first = sent.replies[line.places[0]]
            why = first if _refused(first) else Rejected("TRYAGAIN", "its slot is on the move")
            for at in line.places:
                sent.replies[at] = why
        return sent.replies

    async def _round(self, sent: Sent, lines: Iterable[Line]) -> None:
        """Send what goes next, to all nodes at the same time, and put the replies in their places."""
        by_node: defaultdict[str, list[Line]] = defaultdict(list)
        for line in lines:
            by_node[line.asked or self._homes[line.slot]].append(line)
        await asyncio.gather(*(self._send(node, sent, some) for node, some in by_node.items()))

    async def _send(self, node: str, sent: Sent, lines: Sequence[Line]) -> None:
        """Send to a node. What it is only about to get it must be asked for by a word more."""
        places = [(at, bool(line.asked)) for line in lines for at in line.next]
        asked = {number for number, (_at, asked) in enumerate(places) if asked}
        replies = await self._told(
            node, [sent.commands[at] for at, _asked in places], asked, signed=sent.signed
        )
        for (at, _asked), reply in zip(places, replies, strict=True):
            sent.replies[at] = reply

    async def _told(
        self, node: str, commands: Sequence[Command], asked: Container[int], *, signed: bool
    ) -> list[Any]:
        if not node:
            return [Rejected("CLUSTERDOWN", "nobody is known to have the slot")] * len(commands)
        if self._away.get(node, 0.0) > asyncio.get_running_loop().time():
            return [Gone("redis: the node is away")] * len(commands)
        try:
            return await self._link(node).exchange(commands, signed=signed, asked=asked)
        except StoreUnavailable as fault:
            return [self._missed(node, fault)] * len(commands)

    async def _heed(self, sent: Sent, refused: Iterable[Line]) -> None:
        """Do what refusals ask for: go elsewhere, bring the script along, or wait a little."""
        lacking: defaultdict[str, set[str]] = defaultdict(set)
        wait = 0.0
        for line in refused:
            at, told_by, line.asked = line.places[0], line.asked or self._homes[line.slot], ""
            reply = sent.replies[at]
            if reply.code == "ASK":
                line.asked = _address(reply.text, told_by)
            elif reply.code == "MOVED":
                wait = AGAIN_SECONDS if line.moved else wait  # they send us to and fro
                line.moved, self._stale = True, True
                self._homes[line.slot] = _address(reply.text, told_by)
            elif reply.code == "NOSCRIPT":
                lacking[told_by].add(sent.texts[str(sent.commands[at][1])])
            else:
                wait, self._stale = AGAIN_SECONDS, self._stale or reply.code == "CLUSTERDOWN"
        loading = [[("SCRIPT", "LOAD", text) for text in texts] for texts in lacking.values()]
        loads = zip(lacking, loading, strict=True)
        await asyncio.gather(*(self._link(node).reach(commands) for node, commands in loads))
        await asyncio.sleep(wait)

    # -- who has what ---------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask who has which slot, where that may have changed. Raises where nobody has ever told."""
        if not self._dated():
            return
        async with self._looking:
            if not self._dated():
                return
            fault = StoreUnavailable("redis: no node of the Cluster")
            for name in self._some():
                try:
                    (reply,) = await self._link(name).exchange([("CLUSTER", "SLOTS")])
                except StoreUnavailable as raised:
                    fault = self._missed(name, raised)
                    continue
                if isinstance(reply, Rejected) and reply.code == BARRED:
                    raise reply.fault()
                if isinstance(reply, Rejected):
                    fault = StoreUnavailable(f"redis: {name} is of no Cluster, or does not say who has what")
                elif not reply:  # it was removed
                    fault = StoreUnavailable(f"redis: {name} knows of no slots")
                else:
                    await self._take(name, reply)
                    break
            self._looked = asyncio.get_running_loop().time()
        if not self._names:
            raise fault

    def _dated(self) -> bool:
        """Say whether to ask who has what. Not all the time, where a node is away for long."""
        late = self._looked + LOOK_SECONDS < asyncio.get_running_loop().time()
        return self._stale and (late or not self._names)

    async def _take(self, by: str, told: Sequence[Any]) -> None:
        """Take in who has which slot, and let go of nodes that have none.

        Seeds too: on a connection from before, one that gets slots again is not asked whose history it has.
        """
        homes = [""] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in told:
            name = _address(f"x {(host or b'').decode()}:{port}", by)
            homes[first : last + 1] = [name] * (last + 1 - first)
        self._homes, self._names, self._stale = homes, frozenset(homes) - {""}, False
        gone = self._links.keys() - self._names
        await asyncio.gather(*(self._links.pop(name).close() for name in gone))

    def _some(self) -> list[str]:
        """Return the nodes there are to ask, in any order, those that are away last."""
        names = [*self._names, *(seed for seed in self._seeds if seed not in self._names)]
        random.shuffle(names)
        now = asyncio.get_running_loop().time()
        return sorted(names, key=lambda name: self._away.get(name, 0.0) > now)

    def _missed(self, node: str, fault: StoreUnavailable) -> StoreUnavailable:
        """Note that a node did not answer. One that cannot be reached was sent nothing."""
        if not isinstance(fault, Away | Silent):
            return fault
        self._away[node] = asyncio.get_running_loop().time() + AWAY_SECONDS
        self._stale = True
        return Gone(str(fault)) if isinstance(fault, Away) else fault

    def _link(self, node: str) -> Link:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if node not in self._links:
            self._links[node] = self._linked(node)
        return self._links[node]


def _left(line: Line, replies: Sequence[Any]) -> bool:
    """Leave in a line what is still to be done: from the first that was refused on. Say whether it is any."""
    went = line.next
    done = next((n for n, at in enumerate(went) if _refused(replies[at])), len(went))
    line.places = line.places[done:]
    if done:
        line.asked = ""
    return bool(line.places)


def _refused(reply: object) -> bool:
    return isinstance(reply, Rejected) and reply.code in REFUSALS


def _address(text: str, by: str) -> str:
    """Return the node of `SLOT HOST:PORT`; one that tells no host means its own."""
    host, _, port = text.partition(" ")[2].rpartition(":")
    host = host or by.rpartition(":")[0]
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
