"""Commits to Redis: one script a shard, sent until it is known what became of it.

One commit is under way at a time, under a number that each tenant's document keeps: the next number is
not used before this one is known to be applied or dead. A tenant whose version keeps moving under this
process is asked to be reserved for it for a moment; that is about speed only.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.crash import Hook
from gateway.errors import StoreUnavailable
from gateway.store.backend import Applied, Change, Failed, Loaded, Outcome, Refused, Want
from gateway.store.guard import touched
from gateway.store.redis_keys import shard_of
from gateway.store.redis_link import Call, Command, Rejected, Silent
from gateway.store.redis_pack import Known, Packer
from gateway.store.redis_reads import answered, asked
from gateway.store.redis_site import ALIVE_SECONDS, unpack

if TYPE_CHECKING:
    from gateway.store.redis_site import Site

LOSSES: Final = 2
"""Refusals in a row after which a tenant is reserved."""
WAIT_SECONDS: Final = 0.001
"""How long a process waits where another has reserved a tenant."""

Verdict = list[str] | StoreUnavailable
"""A letter of the script with names of lost leases, or why there is none."""
Part = list[int]
"""Places of one tenant's changes."""


async def load(site: Site, wants: Sequence[Want]) -> list[Loaded]:
    """Return what is wanted, in order."""
    commands = [command for want in wants for command in asked(site.names.room(want.tenant), want)]
    replies = iter(await site.ask(commands))
    return [answered(want, replies, site.reading) for want in wants]


class Commits:
    """The commits of one process."""

    def __init__(self, site: Site, crash: Hook) -> None:
        self._site = site
        self._crash = crash
        self._one = asyncio.Lock()
        self._losses: Counter[str] = Counter()

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all; tell those that were not what is."""
        stamp = self._site.time()  # what is decided is decided just before
        async with self._one:
            known = await self._known(changes)
            if any(put.expect == 0 for change in changes for put in change.puts):
                self._crash("held")
            verdicts = await self._verdicts(changes, _by_tenant(changes), known, stamp)
        return await self._outcomes(changes, verdicts)

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

    async def _verdicts(
        self, changes: Sequence[Change], parts: Sequence[Part], known: dict[str, Known], stamp: int
    ) -> dict[int, Verdict]:
        """Send parts, a script a shard; return the verdict on each change."""
        number, by_shard = self._site.number(), _by_shard(changes, parts)
        calls = [self._call(changes, some, known, (number, stamp)) for some in by_shard]
        sent = self._site.time.mark()
        try:
            replies = await self._site.surely(calls)
        except Silent:
            raise
        except StoreUnavailable as lost:
            return await self._ask(changes, parts, number, stamp, lost)
        verdicts: dict[int, Verdict] = {}
        for some, reply in zip(by_shard, replies, strict=True):
            if isinstance(reply, Rejected):
                verdicts |= await self._apart(changes, some, known, (number, stamp), reply)
                continue
            answer, now, groups = unpack(reply)
            self._site.time.learn(sent, now)
            if answer != number:
                raise StoreUnavailable("redis: the reply is another commit's")
            for part, letters in zip(some, groups, strict=True):
                verdicts |= dict(zip(part, letters, strict=True))
        return verdicts

    def _call(
        self, changes: Sequence[Change], parts: Sequence[Part], known: dict[str, Known], head: tuple[int, int]
    ) -> Call:
        packer = Packer(self._site.names, self._site.me)
        groups = [
            packer.group([(changes[at], known, self._losses[changes[at].tenant] >= LOSSES) for at in part])
            for part in parts
        ]
        values = (self._site.me, *head, self._site.names.wake, packer.sheet.types, groups)
        return self._site.call("commit", list(packer.sheet.keys), values)

    async def _ask(
        self,
        changes: Sequence[Change],
        parts: Sequence[Part],
        number: int,
        stamp: int,
        lost: StoreUnavailable,
    ) -> dict[int, Verdict]:
        """Return what became of a number that is dead by now: applied, or nothing was written."""
        late = (stamp - self._site.time()) / 1000 + ALIVE_SECONDS
        if late > 0:
            await asyncio.sleep(late + WAIT_SECONDS)
        field, room = f"op:{self._site.me}", self._site.names.room
        kept = await self._site.ask([("HGET", room(changes[part[0]].tenant).t, field) for part in parts])
        verdicts: dict[int, Verdict] = {}
        for part, text in zip(parts, kept, strict=True):
            last, _, rest = (text or b"0:").decode().partition(":")
            letters = rest.partition(":")[0] if int(last) == number else "-" * len(part)
            for at, letter in zip(part, letters, strict=True):
                verdicts[at] = ["a"] if letter == "a" else lost
        return verdicts

    async def _apart(
        self,
        changes: Sequence[Change],
        parts: Sequence[Part],
        known: dict[str, Known],
        head: tuple[int, int],
        why: Rejected,
    ) -> dict[int, Verdict]:
        """Let one tenant's trouble be its own: send the parts of a script that failed one by one.

        What is no trouble of a tenant's is everybody's, and is not asked again.
        """
        if len(parts) == 1 or why.code not in ("MISTYPED", "ERR"):
            return dict.fromkeys((at for part in parts for at in part), why.fault())
        verdicts: dict[int, Verdict] = {}
        for part in parts:
            verdicts |= await self._verdicts(changes, [part], known, head[1])
        return verdicts

    async def _outcomes(self, changes: Sequence[Change], verdicts: dict[int, Verdict]) -> list[Outcome]:
        """Return what became of each change, with the state as it is for those that were refused."""
        outcomes: dict[int, Outcome] = {}
        refused: dict[int, frozenset[str]] = {}
        for at, verdict in verdicts.items():
            if isinstance(verdict, StoreUnavailable):
                outcomes[at] = Failed(verdict)
            elif verdict[0] == "a":
                outcomes[at] = Applied()
                self._losses.pop(changes[at].tenant, None)
            else:
                refused[at] = frozenset(verdict[1:])
                self._losses[changes[at].tenant] += int(verdict[0] in "mw")
        if any(verdicts[at][0] == "w" for at in refused):  # type: ignore[index]
            await asyncio.sleep(WAIT_SECONDS)
        loaded = await load(self._site, [touched(changes[at]) for at in refused])
        for (at, lost), there in zip(refused.items(), loaded, strict=True):
            outcomes[at] = Refused(there, lost)
        return [outcomes[at] for at in range(len(changes))]


def _by_tenant(changes: Sequence[Change]) -> list[Part]:
    parts: defaultdict[str, Part] = defaultdict(list)
    for at, change in enumerate(changes):
        parts[change.tenant].append(at)
    return list(parts.values())


def _by_shard(changes: Sequence[Change], parts: Iterable[Part]) -> list[list[Part]]:
    by_shard: defaultdict[int, list[Part]] = defaultdict(list)
    for part in parts:
        by_shard[shard_of(changes[part[0]].tenant)].append(part)
    return list(by_shard.values())
