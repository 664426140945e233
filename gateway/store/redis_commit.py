"""Commits to Redis: one script for many tenants, sent until it is known what became of it.

One commit is under way at a time, under a number that each tenant's document keeps: the next number is
not used before this one is known to be applied or dead. A tenant whose version keeps moving under this
process is asked to be reserved for it for a moment; that is about speed only.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.crash import Hook
from gateway.errors import StoreUnavailable
from gateway.store.backend import Applied, Change, Failed, Loaded, Outcome, Refused, Want
from gateway.store.guard import touched
from gateway.store.redis_keys import shard_of
from gateway.store.redis_link import Call, Command, Rejected, Silent
from gateway.store.redis_pack import Known, Packer
from gateway.store.redis_reads import answered, asked, numbered
from gateway.store.redis_site import ALIVE_SECONDS, MISTYPED, unpack

if TYPE_CHECKING:
    from gateway.store.redis_site import Site

LOSSES: Final = 2
"""Refusals in a row after which a tenant is reserved."""
WAIT_SECONDS: Final = 0.001
"""How long a process waits where another has reserved a tenant."""

PARTS: Final = 128
"""Tenants of one script, where it may serve more than a shard's: Redis does nothing else meanwhile."""

Part = list[int]
"""Places of one tenant's changes."""


async def load(site: Site, wants: Sequence[Want]) -> list[Loaded]:
    """Return what is wanted, in order."""
    commands = [command for want in wants for command in asked(site.names.room(want.tenant), want)]
    replies = iter(await site.ask(commands))
    return [answered(want, replies, site.reading) for want in wants]


class Batch(NamedTuple):
    """Changes on their way, what is known of jobs they drop, and when they were decided."""

    changes: Sequence[Change]
    known: dict[str, Known]
    stamp: int


class Commits:
    """The commits of one process."""

    def __init__(self, site: Site, crash: Hook) -> None:
        self._site = site
        self._crash = crash
        self._one = asyncio.Lock()
        self._losses: Counter[str] = Counter()
        self._barred = False
        """Whether a tenant was found reserved by another."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all; tell those that were not what is."""
        stamp = self._site.time()  # what is decided is decided just before
        async with self._one:
            known = await self._known(changes)
            if any(put.expect == 0 for change in changes for put in change.puts):
                self._crash("held")
            self._barred = False
            outcomes = await self._settle(Batch(changes, known, stamp), _by_tenant(changes))
        if self._barred:
            await asyncio.sleep(WAIT_SECONDS)
        return [outcomes[at] for at in range(len(changes))]

    async def _known(self, changes: Sequence[Change]) -> dict[str, Known]:
        """Read what must be known of jobs that are dropped."""
        drops = [(self._site.names.room(c.tenant), drop.job) for c in changes for drop in c.drops]
        commands: list[Command] = []
        for room, job in drops:
            commands += [("HGET", room.job(job), "u"), ("HGETALL", room.of_job(job))]
        replies = await self._site.ask(commands)
        known = {}
        for (_room, job), subject, told in zip(drops, replies[::2], replies[1::2], strict=True):
            names = [name.decode() for name in told]
            by = None if subject is None else subject.decode()
            known[job] = Known(by, dict(zip(names[::2], names[1::2], strict=True)))
        return known

    async def _settle(self, batch: Batch, parts: Sequence[Part]) -> dict[int, Outcome]:
        """Send parts, as many together as one script may serve; return what became of each change."""
        number = self._site.number()
        together = _by_shard(batch.changes, parts) if self._site.link.scattered else _pieces(parts)
        calls = [self._call(batch, some, number) for some in together]
        sent = self._site.time.mark()
        try:
            replies = await self._site.surely(calls)
        except Silent:
            raise
        except StoreUnavailable as lost:
            return await self._ask(batch, parts, number, lost)
        outcomes: dict[int, Outcome] = {}
        for some, reply in zip(together, replies, strict=True):
            if isinstance(reply, Rejected):
                outcomes |= await self._apart(batch, some, reply)
                continue
            (answer, now, groups), read = unpack(reply[0]), iter(reply[1])
            self._site.time.learn(sent, now)
            if answer != number:
                raise StoreUnavailable("redis: the reply is another commit's")
            for part, verdicts in zip(some, groups, strict=True):
                for at, verdict in zip(part, verdicts, strict=True):
                    outcomes[at] = self._outcome(batch.changes[at], verdict, read)
        return outcomes

    def _call(self, batch: Batch, parts: Sequence[Part], number: int) -> Call:
        """Return the script's call for parts, with the reads of what their moves will want if refused."""
        packer, changes, room = Packer(self._site.names, self._site.me), batch.changes, self._site.names.room
        groups = [
            packer.group(
                [(changes[at], batch.known, self._losses[changes[at].tenant] >= LOSSES) for at in part]
            )
            for part in parts
        ]
        reads = [
            [numbered(packer.sheet, room(changes[at].tenant), touched(changes[at])) for at in part]
            for part in parts
        ]
        values = (self._site.me, number, batch.stamp, self._site.names.wake, packer.sheet.types, groups)
        return self._site.call("commit", list(packer.sheet.keys), values, reads)

    def _outcome(self, change: Change, verdict: list[str], read: Iterator[list[Any]]) -> Outcome:
        """Return what a verdict means, with the state as it is for what was refused."""
        letter, *lost = verdict
        if letter == "a":
            self._losses.pop(change.tenant, None)
            return Applied()
        if letter == "t":
            return Failed(MISTYPED.fault())
        self._losses[change.tenant] += int(letter in "mw")
        self._barred |= letter == "w"
        there = answered(touched(change), iter(next(read)), self._site.reading)
        return Refused(there, frozenset(lost))

    async def _ask(
        self, batch: Batch, parts: Sequence[Part], number: int, lost: StoreUnavailable
    ) -> dict[int, Outcome]:
        """Return what became of a number that is dead by now: applied, or nothing was written."""
        late = (batch.stamp - self._site.time()) / 1000 + ALIVE_SECONDS
        if late > 0:
            await asyncio.sleep(late + WAIT_SECONDS)
        field, room = f"op:{self._site.me}", self._site.names.room
        kept = await self._site.ask(
            [("HGET", room(batch.changes[part[0]].tenant).t, field) for part in parts]
        )
        outcomes: dict[int, Outcome] = {}
        for part, text in zip(parts, kept, strict=True):
            last, _, rest = (text or b"0:").decode().partition(":")
            letters = rest.partition(":")[0] if int(last) == number else "-" * len(part)
            for at, letter in zip(part, letters, strict=True):
                outcomes[at] = Applied() if letter == "a" else Failed(lost)
        return outcomes

    async def _apart(self, batch: Batch, parts: Sequence[Part], why: Rejected) -> dict[int, Outcome]:
        """Let one tenant's trouble be its own: send the parts of a script that failed one by one.

        What is no trouble of a tenant's is everybody's, and is not asked again.
        """
        if len(parts) == 1 or why.code != "ERR":
            return dict.fromkeys((at for part in parts for at in part), Failed(why.fault()))
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            outcomes |= await self._settle(batch, [part])
        return outcomes


def _by_tenant(changes: Sequence[Change]) -> list[Part]:
    parts: defaultdict[str, Part] = defaultdict(list)
    for at, change in enumerate(changes):
        parts[change.tenant].append(at)
    return list(parts.values())


def _pieces(parts: Sequence[Part]) -> list[Sequence[Part]]:
    return [parts[at : at + PARTS] for at in range(0, len(parts), PARTS)]


def _by_shard(changes: Sequence[Change], parts: Iterable[Part]) -> list[Sequence[Part]]:
    by_shard: defaultdict[int, list[Part]] = defaultdict(list)
    for part in parts:
        by_shard[shard_of(changes[part[0]].tenant)].append(part)
    return list(by_shard.values())
