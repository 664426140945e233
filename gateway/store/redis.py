"""The store in a Redis that many processes share.

The same engine as over SQLite: here is only what it needs of a data base. Money moves by one script
(`scripts/commit.lua`), which compares and writes and holds no rule; everything of a tenant lies in one
shard (`redis_keys.py`). A commit is good for a shorter time than its caller waits: until then a lost reply
is asked for again with the same bytes and number, after that it is dead, and its number tells what became
of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from gateway.errors import Refusal, StoreUnavailable
from gateway.store import redis_reads as reads
from gateway.store.backend import (
    Applied,
    Change,
    Examined,
    Expired,
    Failed,
    Loaded,
    News,
    Outcome,
    Strange,
    Want,
)
from gateway.store.contract import Claim, JobFilter, LedgerRow, Page, Remains, Retention, TrailLink
from gateway.store.format import TooNew, Upgrade
from gateway.store.opening import How, Place
from gateway.store.reads import Reading
from gateway.store.redis_backlog import backlog
from gateway.store.redis_commit import Commits
from gateway.store.redis_examine import examine
from gateway.store.redis_fit import facts, unfit
from gateway.store.redis_keys import Names
from gateway.store.redis_lineage import ASKED, Lineage, replicates
from gateway.store.redis_link import ANSWER_SECONDS, BARRED, Command
from gateway.store.redis_nodes import Nodes, nodes_of, user_of
from gateway.store.redis_queue import Queue
from gateway.store.redis_rights import CURE, barred
from gateway.store.redis_roll import Roll
from gateway.store.redis_shelf import RedisShelf
from gateway.store.redis_site import PATIENCE_SECONDS, Site
from gateway.store.redis_sweep import Sweeping
from gateway.store.redis_time import StoreTime, steady_us, wall_us
from gateway.store.redis_wake import Ear
from policies.model import Job, Priority
from policies.order import Backlog

PREFIX: Final = "safelight:"
SAMPLE_SECONDS: Final = 1.0
"""How often it is asked whether Redis is still the same. What it loses at once is seen to be lost then."""
LOOKED: Final = 100
"""Jobs a page looks at at once, at least, once not all of the first fitted: each look is a trip."""
SCANNED: Final = 1_000
"""Jobs a page looks at, at most, before it is shown short."""


class RedisBackend:
    """A `Backend` over the Redis of a URL. Make it on the loop that uses it.

    A clock that is given replaces the store's time in what is decided; how long a commit is good is told by
    Redis' own all the same. A `link` that is given replaces the one to the place; one that is made gives up
    on an answer after `seconds`, if it is told.
    """

    alone = False

    def __init__(
        self,
        place: Place,
        how: How,
        *,
        prefix: str = PREFIX,
        time: StoreTime | None = None,
        link: Nodes | None = None,
        seconds: float | None = None,
    ) -> None:
        time = time or StoreTime(steady_us, wall_us)
        self.me = how.me
        self._lineage = Lineage()
        patience = (ANSWER_SECONDS, PATIENCE_SECONDS) if seconds is None else (seconds, seconds)
        nodes = link or nodes_of(place, self._lineage, patience[0])
        self._user, self._copied = user_of(place.url), place.replicas > 0
        self.forms = how.forms()
        reading = Reading(how.unreadable, self.forms)
        self._site = Site(nodes, Names(prefix), how.me, time, reading, patience[1])
        self.clock = how.clock or time
        self._roll = Roll(self._site, self.forms, self.clock, how.name)
        self._commits = Commits(self._site, how.crash, place.replicas)
        self._queue = Queue(self._site)
        self._sweeping = Sweeping(self._site)
        self.shelf = RedisShelf(self._site)
        self._ears: list[Ear] = []
        self._sampling: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self, told: Callable[[News | None], None], turned: Callable[[], None]) -> None:
        """Tell of what other processes do; None where news may have been missed."""

        def heard(news: News | None) -> None:
            if news is None or news.batch:
                self._queue.stir()
            told(news)

        self._ears.append(Ear(self._site, heard))
        self._lineage.watch(turned)

    def strange(self) -> Strange | None:
        """Return the histories that are met and not known."""
        return self._lineage.strange()

    def accept(self, strange: Strange) -> None:
        """Take histories for ours."""
        self._lineage.accept(strange)

    async def sample(self) -> None:
        """Ask how far the history has come, and whether it is the same."""
        for name, (told,) in (await self._site.link.each([ASKED])).items():
            if isinstance(told, StoreUnavailable):
                continue
            if replicates(facts(told)):
                self._site.link.doubt(name)
            else:
                self._lineage.meet(facts(told))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await self.sample()

    async def heard(self) -> None:
        """Return once all who listen do."""
        for ear in self._ears:
            await ear.up.wait()

    async def look(self) -> None:
        """Refuse a Redis that may lose what it is given, or that is not ours to use. Writes nothing."""
        try:
            await self._site.learn_time()
            told = await self._site.link.each([("INFO",)])
            self._judge([info for (info,) in told.values()])
            if wrong := await barred(self._site, self._user, copied=self._copied):
                raise Refusal(wrong)
            (found,) = await self._site.ask([("GET", self._site.names.schema)])
        except StoreUnavailable as fault:
            cure = f" {CURE}" if BARRED in str(fault) else ""
            raise Refusal(f"The store cannot be used: {fault}.{cure}") from fault
        refusal = self.forms.unfit(int(found)) if found is not None else None
        if refusal is not None:
            raise Refusal(f"This Redis holds {refusal}")

    def _judge(self, told: Iterable[Any]) -> None:
        """Refuse a store of which any part may lose what it is given, or is not there."""
        for info in told:
            if isinstance(info, StoreUnavailable):
                raise info
            if refusal := unfit(facts(info), scattered=self._site.link.scattered):
                raise Refusal(refusal)
        if not all(self._site.link.home(shard.at) for shard in self._site.names.shards):
            raise Refusal("This Redis Cluster has slots that no node serves. See `CLUSTER SLOTS`.")

    async def start(self) -> None:
        """Refuse what `look` refuses, then join those who are at this Redis."""
        await self.look()
        try:
            await self._roll.join()
        except TooNew as fault:  # it was finished just now
            raise Refusal(str(fault)) from fault
        await self.sample()
        self._lineage.armed = True
        self._sampling = asyncio.get_running_loop().create_task(self._sample(), name="store lineage")

    async def upgrade(self, *, finish: bool) -> Upgrade:
        """Say how the store stands between two forms; `finish`: write the newest from now on, if all can."""
        return await (self._roll.finish() if finish else self._roll.stands())

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Return what is wanted, in order."""
        return await self._commits.load(wants)

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all, durably, in order."""
        await self._roll.sure()
        lost = await self.shelf.point(changes)
        rest = [change for at, change in enumerate(changes) if at not in lost]
        told = iter(await self._commits.commit(rest) if rest else ())
        outcomes = [Failed(lost[at]) if at in lost else next(told) for at in range(len(changes))]
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self._ended(change)
        return outcomes

    def _ended(self, change: Change) -> None:
        """Note what became of leases by a change; look again where it put batch."""
        for put in change.puts:
            if put.job.priority == "batch":
                self._queue.stir()
            if put.fence is not None and put.due == "drop":
                self._queue.lose(change.tenant, put.job.id, put.fence)
            elif put.fence is not None and isinstance(put.due, int):
                self._queue.keep(change.tenant, put.job.id, put.fence, put.due)
        for told in change.deliveries:
            if told.fence is not None:
                self.shelf.lose(change.tenant, told.delivery.id)

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a line until `until`, tenants in turn."""
        return await self._queue.claim(n, now, until, priority)

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Extend leases; return the ids of those lost."""
        return await self._queue.renew(claims, until)

    async def release(self, claims: Sequence[Claim], due: int) -> None:
        """Make leased jobs due. Lost leases are passed over."""
        await self._queue.release(claims, due)

    async def get(self, tenant: str, job: str) -> Job | None:
        """Return one job."""
        (text,) = await self._site.together.ask([("HGET", self._site.names.room(tenant).job(job), "d")])
        return reads.job_of(self._site.reading, job, text)

    async def page(self, tenant: str, where: JobFilter, before: int | None, limit: int) -> Page:
        """Return jobs newest first. One that looked at many is shown short, and continues below."""
        shown: list[tuple[int, Job]] = []
        edge, looked, n = before, 0, limit + 1
        while True:
            places = await self._places(tenant, where, edge, n)
            texts = await self._site.ask(
                [("HGET", self._site.names.room(tenant).job(job), "d") for _at, job in places]
            )
            for (at, name), text in zip(places, texts, strict=True):
                job = reads.job_of(self._site.reading, name, text)
                if job is not None and reads.fits(job, where):
                    shown.append((at, job))
            looked += len(places)
            if len(shown) > limit:
                return Page(tuple(job for _at, job in shown[:limit]), shown[limit - 1][0])
            if len(places) < n:
                return Page(tuple(job for _at, job in shown))
            edge, n = places[-1][0], max(limit + 1, LOOKED)
            if looked >= SCANNED:
                return Page(tuple(job for _at, job in shown), edge)

    async def _places(
        self, tenant: str, where: JobFilter, before: int | None, n: int
    ) -> list[tuple[int, str]]:
        """Return places and ids of the newest jobs of the narrowest list there is."""
        room = self._site.names.room(tenant)
        key = room.ix if where.subject is None else room.by(where.subject)
        if where.states and not any(state.ended for state in where.states):
            key = room.open
        edge = "+inf" if before is None else f"({before}"
        command: Command = ("ZREVRANGEBYSCORE", key, edge, "-inf", "WITHSCORES", "LIMIT", 0, n)
        (found,) = await self._site.ask([command])
        return [(int(float(at)), name.decode()) for name, at in zip(found[::2], found[1::2], strict=True)]

    async def position(self, tenant: str, job: str, priority: Priority) -> int:
        """Return how many queued jobs of the tenant are older, in the job's line."""
        place = self._commits.place(job)
        if place is not None:
            return place
        room = self._site.names.room(tenant)
        waiting = room.waits(priority)
        (place,) = await self._site.together.ask([("ZRANK", waiting, job)])
        if place is not None:
            return int(place)
        (at,) = await self._site.ask([("ZSCORE", room.ix, job)])  # it waits no more
        if at is None:
            return 0
        (older,) = await self._site.ask([("ZCOUNT", waiting, "-inf", f"({at.decode()}")])
        return int(older)

    async def ledger(self, tenant: str, after: int, limit: int) -> list[LedgerRow]:
        """Return ledger rows above a version, in order."""
        key = self._site.names.room(tenant).led
        (entries,) = await self._site.ask([("XRANGE", key, f"{after + 1}-0", "+", "COUNT", limit)])
        return reads.ledger(entries, limit)

    async def links(self, tenant: str, before: int | None, limit: int, *, up: bool) -> list[TrailLink]:
        """Return trail links beside a version."""
        key = self._site.names.room(tenant).aud
        if up:
            command: Command = ("XRANGE", key, f"{(before or 0) + 1}-0", "+")
        else:
            command = ("XREVRANGE", key, "+" if before is None else f"({before}-0", "-")
        (entries,) = await self._site.ask([(*command, "COUNT", limit)])
        return reads.links(entries)

    async def ref_of(self, tenant: str, subject: str) -> str | None:
        """Return a subject's reference."""
        (found,) = await self._site.ask([("HGET", self._site.names.room(tenant).s, subject)])
        return None if found is None else str(found.decode())

    async def tenants(self) -> list[str]:
        """Return the names of all tenants."""
        replies = await self._site.ask([("SMEMBERS", shard.tenants) for shard in self._site.names.shards])
        return sorted(name.decode() for reply in replies for name in reply)

    async def examine(self, tenant: str) -> Examined:
        """Return everything of a tenant, of one moment."""
        return await examine(self._site, tenant)

    async def expired(self, now: int, retention: Retention, budget: int) -> Expired:
        """Return ended jobs, trail links and uploads that are past their time."""
        return await self._sweeping.expired(now, retention, budget)

    async def idle(self, now: int, budget: int) -> dict[str, list[str]]:
        """Return users, by tenant, whose figures tell nothing any more."""
        return await self._sweeping.idle(now, budget)

    async def cut(self, tenant: str, version: int) -> int:
        """Remove trail links up to a version; return how many."""
        return await self._sweeping.cut(tenant, version)

    async def drop_keys(self, before: int, budget: int) -> int:
        """Remove idempotency keys older than an instant; return how many."""
        return await self._sweeping.drop_keys(before, budget)

    async def remains(self, limit: int) -> list[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        return await self._sweeping.remains(limit)

    async def bury(self, remains: Sequence[Remains]) -> bool:
        """Forget remains."""
        return await self._sweeping.bury(remains)

    async def next_due(self) -> int | None:
        """Return the earliest instant at which something may be claimed."""
        return await self._queue.next_due()

    async def backlog(self, now: int) -> Backlog:
        """Return how many jobs are due and not leased, a line, and since when."""
        return await backlog(self._site, now)

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if a write would fail now."""
        names = self._site.names
        places = [shard.at for shard in names.shards] if self._site.link.scattered else [names.prefix]
        await self._site.survey([("SET", f"{place}ping", self._site.me) for place in places])

    async def close(self) -> None:
        """Give back what is leased and close all connections. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        for ear in self._ears:
            await ear.close()
        for step in (self._roll.leave, partial(self._queue.reclaim, self.clock()), self.shelf.reclaim):
            with contextlib.suppress(StoreUnavailable):  # then that runs out by itself, and the others do not
                await step()
        await self._site.link.close()
