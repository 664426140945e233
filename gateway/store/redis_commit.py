"""Commits to Redis: one script for many tenants, sent until it is known what became of it.

One commit is under way at a time, under a number that each tenant's document keeps. The next number goes
out once this one is known to be applied or is given up: what arrives late then finds a newer version or
number, or is too old to be taken. Where a tenant's version keeps moving under this process it stands in line
with the others who write there, and decides once it is its turn, from the state as it is then. A turn that
is not used passes on by itself: it is about speed and fairness only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from gateway.crash import Hook
from gateway.errors import StoreUnavailable
from gateway.store.backend import Applied, Change, Failed, Loaded, Outcome, Refused, Want
from gateway.store.format import TooNew
from gateway.store.guard import touched
from gateway.store.redis_keys import shard_of
from gateway.store.redis_link import Call, Command, Gone, Rejected, Silent
from gateway.store.redis_pack import Known, Packer, joined
from gateway.store.redis_reads import answered, asked, numbered
from gateway.store.redis_site import AGAIN_SECONDS, ALIVE_SECONDS, MISTYPED
from gateway.store.redis_turn import Turns, bundles

if TYPE_CHECKING:
    from gateway.store.redis_site import Site

PLACED_SECONDS: Final = 0.5
"""How long the places of new jobs count as they were told."""

Part = list[int]
"""Places of one tenant's changes."""


class Batch(NamedTuple):
    """Changes on their way, what is known of jobs they drop, and the moment when they were decided."""

    changes: Sequence[Change]
    known: dict[str, Known]
    mark: int


class Commits:
    """The commits of one process. `copies`: what is not known to be with replicas is not known to be done."""

    def __init__(self, site: Site, crash: Hook, copies: int = 0) -> None:
        self._site = site
        self._copies = copies
        self._crash = crash
        self._one = asyncio.Lock()
        self._turns = Turns(site)
        self._places: dict[str, int] = {}
        self._placed = 0.0

    def place(self, job: str) -> int | None:
        """Return how many stand before a job which the last commit put into its line, a moment ago."""
        fresh = asyncio.get_running_loop().time() < self._placed + PLACED_SECONDS
        return self._places.get(job) if fresh else None

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Return what is wanted, in order: at this process' turn, where all is shared and to be written.

        What cannot be read now has a `fault`, and troubles no other.
        """
        if wants and all(want.turn and self._turns.shared(want.tenant) for want in wants):
            return await self._turns.wait(wants)
        commands = [asked(self._site.names.room(want.tenant), want) for want in wants]
        replies = iter(await self._site.together.reach([each for some in commands for each in some]))
        told = [list(islice(replies, len(some))) for some in commands]
        return [self._answered(want, some) for want, some in zip(wants, told, strict=True)]

    def _answered(self, want: Want, replies: Sequence[Any]) -> Loaded:
        for reply in replies:
            if isinstance(reply, StoreUnavailable):
                return Loaded(fault=reply)
        return answered(want, iter(replies), self._site.reading)

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all; tell those that were not what is.

        Where all were refused, and turns are what it takes, that is the state at this process' turn.
        """
        mark = self._site.time.mark()  # what is decided is decided not long before
        async with self._one:
            known, found = await self._known(changes)
            if any(put.expect == 0 for change in changes for put in change.puts):
                self._crash("held")
            parts = [part for part in _by_tenant(changes) if found.keys().isdisjoint(part)]
            found |= await self._settle(Batch(changes, known, mark), parts)
            outcomes = [found[at] for at in range(len(changes))]
            refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
            if len(refused) < len(changes) or not all(self._in_turn(change) for change in changes):
                return outcomes
            there = await self._turns.wait([touched(change) for change in changes])
            return [
                replace(one, loaded=loaded) if loaded.fault is None else Failed(loaded.fault)
                for one, loaded in zip(refused, there, strict=True)
            ]

    def _in_turn(self, change: Change) -> bool:
        return change.expect is not None and self._turns.shared(change.tenant)

    async def _known(self, changes: Sequence[Change]) -> tuple[dict[str, Known], dict[int, Outcome]]:
        """Read what must be known of jobs that are dropped. A change that it cannot be read for fails."""
        drops = [(change.tenant, drop.job) for change in changes for drop in change.drops]
        commands: list[Command] = []
        for tenant, job in drops:
            room = self._site.names.room(tenant)
            commands += [("HGET", room.job(job), "u"), ("HGETALL", room.of_job(job))]
        replies = await self._site.reach(commands)
        known: dict[str, Known] = {}
        failed: dict[str, Outcome] = {}
        for (tenant, job), *told in zip(drops, replies[::2], replies[1::2], strict=True):
            faults = [reply for reply in told if isinstance(reply, StoreUnavailable)]
            if faults:
                failed[tenant] = Failed(faults[0])
                continue
            by = None if told[0] is None else told[0].decode()
            names = [name.decode() for name in told[1]]
            known[job] = Known(by, dict(zip(names[::2], names[1::2], strict=True)))
        return known, {at: failed[each.tenant] for at, each in enumerate(changes) if each.tenant in failed}

    async def _settle(self, batch: Batch, parts: Sequence[Part]) -> dict[int, Outcome]:
        """Send parts, as many together as one script may serve; return what became of each change.

        A shard that fails is no trouble of the others'.
        """
        number = self._site.number()
        tenants = [batch.changes[part[0]].tenant for part in parts]
        together = [
            [parts[at] for at in some] for some in bundles(tenants, scattered=self._site.link.scattered)
        ]
        calls = [self._call(batch, some, number) for some in together]
        outcomes: dict[int, Outcome] = {}
        lost: list[Part] = []
        told = await self._site.judged(calls, number)
        self._places, self._placed = {}, asyncio.get_running_loop().time()  # by now the last were asked for
        for some, judged in zip(together, told, strict=True):
            if isinstance(judged, Rejected):
                outcomes |= await self._apart(batch, some, number, judged)
            elif isinstance(judged, StoreUnavailable):
                outcomes |= _failed(some, judged)
                lost += [] if self._copies or isinstance(judged, Silent | Gone) else some
            else:
                for part, verdicts in zip(some, judged.groups, strict=True):
                    for at, verdict in zip(part, verdicts, strict=True):
                        outcome = self._outcome(batch.changes[at], verdict, judged.read)
                        done = isinstance(outcome, Applied)
                        outcomes[at] = Failed(judged.short) if done and judged.short else outcome
        return outcomes | (await self._ask(batch, lost, number) if lost else {})

    def _call(self, batch: Batch, parts: Sequence[Part], number: int) -> Call:
        """Return the script's call for parts, with the reads of what their moves will want if refused."""
        packer, changes, room = Packer(self._site.names), batch.changes, self._site.names.room
        groups = [packer.group([changes[at] for at in part], batch.known) for part in parts]
        reads = [
            [numbered(packer.sheet, room(changes[at].tenant), touched(changes[at])) for at in part]
            for part in parts
        ]
        stamp = self._site.stamp(shard_of(changes[parts[0][0]].tenant), batch.mark)
        return self._site.commit(packer.sheet, number, stamp, groups, reads, copies=self._copies > 0)

    def _outcome(self, change: Change, verdict: list[Any], read: Iterator[list[Any]]) -> Outcome:
        """Return what a verdict means, with the state as it is for what was refused."""
        letter, *lost = verdict
        if letter == "a":
            self._turns.won(change.tenant)
            self._place(change, lost)
            return Applied(shared=self._turns.shared(change.tenant))
        if letter == "t":
            return Failed(MISTYPED.fault())
        barred = letter == "w"
        if letter in "mw":
            self._turns.lost(change.tenant, barred=barred)
        try:
            there = answered(touched(change), iter(next(read)), self._site.reading)
        except (
            msgspec.DecodeError,
            TooNew,
        ):  # the others of the batch may be applied: it is this one's alone
            return Failed(StoreUnavailable("what is stored there cannot be read"))
        return Refused(there, frozenset(() if barred else lost), barred)

    def _place(self, change: Change, sizes: list[int]) -> None:
        """Note where new jobs stand. Of a number that was written down before no sizes are told."""
        for jobs, size in zip(joined(change).values() if sizes else (), sizes, strict=True):
            self._places |= zip(jobs, range(size - len(jobs), size), strict=True)

    async def _ask(self, batch: Batch, parts: Sequence[Part], number: int) -> dict[int, Outcome]:
        """Return what was applied of a number that is dead by now; of the rest nothing was written."""
        late = (batch.mark - self._site.time.mark()) / 1_000_000 + ALIVE_SECONDS
        if late > 0:
            await asyncio.sleep(late + AGAIN_SECONDS)
        return await self._written(batch, parts, number)

    async def _written(self, batch: Batch, parts: Sequence[Part], number: int) -> dict[int, Outcome]:
        """Return what tenants' documents say was applied of a number. What they cannot tell is not there."""
        field, room = f"op:{self._site.me}", self._site.names.room
        kept = await self._site.reach(
            [("HGET", room(batch.changes[part[0]].tenant).t, field) for part in parts]
        )
        outcomes: dict[int, Outcome] = {}
        for part, text in zip(parts, kept, strict=True):
            if text is None or isinstance(text, StoreUnavailable):
                continue
            last, _, rest = text.decode().partition(":")
            letters = rest.partition(":")[0] if int(last) == number else "-" * len(part)
            outcomes |= {at: Applied() for at, letter in zip(part, letters, strict=True) if letter == "a"}
        return outcomes

    async def _apart(
        self, batch: Batch, parts: Sequence[Part], number: int, why: Rejected
    ) -> dict[int, Outcome]:
        """Let one tenant's trouble be its own: send the parts of a script that failed one by one.

        But for what it wrote before it failed. What is no trouble of a tenant's is everybody's, and is not
        asked again.
        """
        if len(parts) == 1 or why.code != "ERR":
            return _failed(parts, why.fault())
        outcomes = await self._written(batch, parts, number)
        rest = [left for part in parts if (left := [at for at in part if at not in outcomes])]
        if self._copies:  # what was written is confirmed by nobody
            outcomes = dict.fromkeys(outcomes, Failed(why.fault()))
        for part in rest:
            outcomes |= await self._settle(batch, [part])
        return outcomes


def _failed(parts: Iterable[Part], why: StoreUnavailable) -> dict[int, Outcome]:
    return dict.fromkeys((at for part in parts for at in part), Failed(why))


def _by_tenant(changes: Sequence[Change]) -> list[Part]:
    parts: defaultdict[str, Part] = defaultdict(list)
    for at, change in enumerate(changes):
        parts[change.tenant].append(at)
    return list(parts.values())
