"""Due jobs in Redis: who comes next, leases, and giving them back.

Tenants take turns by shard, each by when it may be served, once for interactive jobs and once for batch; a
claim reads the heads of all shards, shares what it wants out among them, and leases by one script a shard.
Nothing is known of other processes: a lease is held while its fence is the newest, and what this process
holds it takes back when it ends. A process that dies keeps its leases until they run out. What was leased
is never lost to a fault that comes after: nobody else would make those jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from gateway.errors import StoreUnavailable
from gateway.store.backend import TURN_TENANTS, UNREADABLE_MS, News
from gateway.store.contract import Claim
from gateway.store.redis_keys import ref, shard_of
from gateway.store.redis_pack import LEASES, Sheet, told_to_others
from gateway.store.redis_reads import job_of
from policies.model import Priority
from policies.order import PRIORITIES

if TYPE_CHECKING:
    from gateway.store.redis_link import Call, Command
    from gateway.store.redis_site import Site

TICKS: Final = 4096
"""Turns of one millisecond that are told apart; as many as a sorted set's score has room for."""
QUIET_SECONDS: Final = 1.0
"""How long the batch line is taken to be as it was seen, where nobody says otherwise."""
Lease = tuple[str, str, int, Priority]
"""Tenant, job, fence, and the line it stands in."""
Verb = Literal["renew", "release", "reclaim"]


class Queue:
    """The queue of jobs. `held` is what this process has leased, by tenant and job, and until when."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._served = 0
        self._stirs = 0
        self._quiet = 0.0, 0.0
        self.held: dict[tuple[str, str], tuple[Lease, int]] = {}

    def stir(self) -> None:
        """Look at the batch line anew: something may have come into it.

        Most of the time nothing is there, and to look would cost each claim as much as the first line does.
        """
        self._stirs += 1
        self._quiet = 0.0, 0.0

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a line until `until`, tenants in turn.

        A shard that fails is left out; raises where nothing is leased for that reason.
        """
        self._let_go(now)
        if priority == "batch" and now < self._batch_due():
            return []
        claims: list[Claim] = []
        out: dict[int, StoreUnavailable] = {}
        while len(claims) < n:
            try:
                found = await self._lap(n - len(claims), (now, until), priority, out)
            except StoreUnavailable:
                if claims:
                    break
                raise
            if found is None:
                break
            claims += found
        if out and not claims:
            raise next(iter(out.values()))
        return claims

    async def _lap(
        self, n: int, times: tuple[int, int], priority: Priority, out: dict[int, StoreUnavailable]
    ) -> list[Claim] | None:
        """Lease up to `n` once around; None where nobody waits. Shards that fail are put `out`."""
        waiting = await self._waiting(n, times[0], priority, out)
        if not waiting:
            return None
        answers = await self._lease(await self._weighed(waiting), n, times, priority)
        out |= {at: answer for at, answer in answers.items() if isinstance(answer, StoreUnavailable)}
        leases = [each for some in answers.values() if isinstance(some, list) for each in some]
        return await self._read(leases, times, out)

    async def next_due(self) -> int | None:
        """Return the earliest instant at which something may be claimed."""
        batch = self._batch_due()
        lines = PRIORITIES if batch == 0 else PRIORITIES[:1]
        stirs, shards = self._stirs, self._site.names.shards
        heads = await self._site.survey(
            [("ZRANGE", shard.turns(priority), 0, 0, "WITHSCORES") for priority in lines for shard in shards]
        )
        firsts = [
            min((float(head[1]) for head in some if head), default=math.inf)
            for some in (heads[: len(shards)], heads[len(shards) :])
        ]
        if len(lines) > 1 and stirs == self._stirs:
            self._quiet = firsts[1], asyncio.get_running_loop().time() + QUIET_SECONDS
        due = min(firsts[0], batch or firsts[1])
        return None if due == math.inf else int(due)

    def _batch_due(self) -> float:
        """Return when the first of batch is due, as was seen a moment ago; 0 where that is not known."""
        due, until = self._quiet
        return due if asyncio.get_running_loop().time() < until else 0.0

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Extend leases; an open attempt's longer lease is never shortened."""
        lost = await self._change("renew", [_lease(claim) for claim in claims], until)
        for claim in claims:
            self.keep(claim.job.tenant, claim.job.id, claim.fence, until)
        for lease in lost:
            self.lose(*lease[:3])
        return frozenset(job for _tenant, job, *_rest in lost)

    async def release(self, claims: Iterable[Claim], due: int) -> None:
        """Make leased jobs due. Lost leases are passed over."""
        leases = [_lease(claim) for claim in claims]
        self.stir()
        await self._change("release", leases, due)
        for lease in leases:
            self.lose(*lease[:3])

    async def reclaim(self, now: int) -> None:
        """Make all this process holds due, and worth nothing to it."""
        await self._change("reclaim", [lease for lease, _until in self.held.values()], now)
        self.held.clear()

    def keep(self, tenant: str, job: str, fence: int, until: int) -> None:
        """Note that a lease is held longer."""
        held = self.held.get((tenant, job))
        if held is not None and held[0][2] == fence:
            self.held[tenant, job] = held[0], max(held[1], until)

    def lose(self, tenant: str, job: str, fence: int) -> None:
        """Note that a lease is no longer held."""
        held = self.held.get((tenant, job))
        if held is not None and held[0][2] == fence:
            del self.held[tenant, job]

    def _let_go(self, now: int) -> None:
        """Forget leases that have run out: nothing else tells of a job that others end before it is begun."""
        for name in [name for name, (_lease, until) in self.held.items() if until <= now]:
            del self.held[name]

    async def _waiting(
        self, n: int, now: int, priority: Priority, out: Container[int]
    ) -> list[tuple[float, str]]:
        """Return the tenants whose turn has come, the longest waiting first; none of shards left out."""
        most = max(n, TURN_TENANTS)
        shards = [shard for at, shard in enumerate(self._site.names.shards) if at not in out]
        heads = await self._site.survey(
            [
                ("ZRANGEBYSCORE", key, "-inf", f"({now + 1}", "WITHSCORES", "LIMIT", 0, most)
                for key in (shard.turns(priority) for shard in shards)
            ]
        )
        found = [
            (float(score), tenant.decode())
            for head in heads
            for tenant, score in zip(head[::2], head[1::2], strict=True)
        ]
        return sorted(found)[:most]

    async def _weighed(self, waiting: Sequence[tuple[float, str]]) -> dict[str, int]:
        """Return the tenants in order, with how many jobs each gets a turn."""
        names = self._site.names
        weights = await self._site.survey([("HGET", names.shard(name).weight, name) for _at, name in waiting])
        return {name: max(int(weight or 1), 1) for (_at, name), weight in zip(waiting, weights, strict=True)}

    async def _lease(
        self, weights: dict[str, int], n: int, times: tuple[int, int], priority: Priority
    ) -> dict[int, list[Lease] | StoreUnavailable]:
        """Lease by turns, from now until then; return by shard what is leased, or why there is no answer."""
        turns = self._turns(share(weights, n), times[0])
        by_shard: defaultdict[int, list[str]] = defaultdict(list)
        for tenant in turns:
            by_shard[shard_of(tenant)].append(tenant)
        number = self._site.number()
        calls: list[Call] = []
        for at, tenants in by_shard.items():
            shard = self._site.names.shards[at]
            keys = [shard.turns(priority), shard.fence, f"{shard.at}claims:{self._site.me}"]
            keys.append(shard.line(priority))
            keys += [self._site.names.room(tenant).queue(priority) for tenant in tenants]
            asks = [(tenant, *turns[tenant]) for tenant in tenants]
            calls.append(self._site.call("claim", keys, (number, self._site.stamp(at), *times, asks)))
        answers = await self._site.answers(calls)
        return {
            at: answer
            if isinstance(answer, StoreUnavailable)
            else [(tenants[place - 1], job, fence, priority) for place, job, fence in answer]
            for (at, tenants), answer in zip(by_shard.items(), answers, strict=True)
        }

    def _turns(self, shares: Sequence[tuple[str, int]], now: int) -> dict[str, tuple[int, float]]:
        """Return of each tenant how many it gets in all, and the turn after: behind all served before."""
        turns: dict[str, tuple[int, float]] = {}
        for tenant, most in shares:
            self._served = (self._served + 1) % TICKS
            turns[tenant] = turns.get(tenant, (0, 0.0))[0] + most, now + self._served / TICKS
        return turns

    async def _read(
        self, leases: Sequence[Lease], times: tuple[int, int], out: dict[int, StoreUnavailable]
    ) -> list[Claim]:
        """Return what was leased; what cannot be read goes far behind, what is over or gone leaves the queue.

        The latter are ends by a process of before, which did not know where the job stood. A shard that
        cannot be asked is put `out`; its leases run out by themselves, as do those that cannot be put right.
        """
        commands: list[Command] = [
            ("HGET", self._site.names.room(tenant).job(job), "d") for tenant, job, *_rest in leases
        ]
        texts = await self._site.reach(commands)
        claims, bad, over = [], [], []
        for lease, text in zip(leases, texts, strict=True):
            tenant, name, fence, _line = lease
            if isinstance(text, StoreUnavailable):
                out[shard_of(tenant)] = text
                continue
            job = job_of(self._site.reading, name, text)
            if text is None or (job is not None and job.state.ended):
                over.append(lease)
            elif job is not None:
                claims.append(Claim(job, fence))
                self.held[tenant, name] = lease, times[1]
            else:
                bad.append(lease)
        with contextlib.suppress(StoreUnavailable):
            await self._change("release", bad, times[0] + UNREADABLE_MS)
            await self._forget(over)
        return claims

    async def _forget(self, leases: Sequence[Lease]) -> None:
        commands: list[Command] = []
        for tenant, job, _fence, priority in leases:
            shard, name = self._site.names.shard(tenant), ref(job, tenant)
            commands.append(("ZREM", self._site.names.room(tenant).queue(priority), job))
            commands += [("ZREM", shard.line(priority), name), ("HDEL", shard.fence, name)]
        await self._site.ask(commands)

    async def _change(self, verb: Verb, leases: Sequence[Lease], due: int) -> list[Lease]:
        """Run a verb over leases, a script a shard; return those that were lost."""
        lost: list[Lease] = []
        for at in range(0, len(leases), LEASES):
            lost += await self._change_some(verb, leases[at : at + LEASES], due)
        return lost

    async def _change_some(self, verb: Verb, leases: Sequence[Lease], due: int) -> list[Lease]:
        by_shard: defaultdict[int, list[Lease]] = defaultdict(list)
        for lease in leases:
            by_shard[shard_of(lease[0])].append(lease)
        site, calls = self._site, []
        late = any(priority == "batch" for *_job, priority in leases)
        news = "" if verb == "renew" else told_to_others(site.me, News(due=True, batch=late))
        for at, some in by_shard.items():
            shard, sheet = site.names.shards[at], Sheet()
            rows = [
                (
                    sheet(shard.fence, "hash"), ref(job, tenant),
                    sheet(site.names.room(tenant).queue(priority), "zset"), job, tenant, fence, due,
                    sheet(shard.turns(priority), "zset"), sheet(shard.line(priority), "zset"),
                )
                for tenant, job, fence, priority in some
            ]  # fmt: skip
            values = (verb, site.stamp(at), site.names.wake, news, rows)
            calls.append(site.call("lease", list(sheet.keys), values))
        answers = await site.answers(calls)
        return [
            some[place - 1]
            for some, answer in zip(by_shard.values(), answers, strict=True)
            if not isinstance(answer, StoreUnavailable)
            for place in answer
        ]


def share(weights: dict[str, int], n: int) -> list[tuple[str, int]]:
    """Return who gets how many, turn by turn, until `n` are shared out. Everybody is taken to have enough."""
    shares: list[tuple[str, int]] = []
    while n > 0:
        for tenant, weight in weights.items():
            if n > 0:
                shares.append((tenant, min(weight, n)))
                n -= min(weight, n)
    return shares


def _lease(claim: Claim) -> Lease:
    return claim.job.tenant, claim.job.id, claim.fence, claim.job.priority
