"""What is past its time in Redis: found by age, shard by shard, and removed in bounded steps.

Nothing hangs on a TTL: each shard has lists by instant (`end` jobs, `kx` keys, `upx` uploads, `ax` trails,
`gone` what dropped jobs left). What a list names may have changed since: whoever removes looks again. For
ever stand a tenant's name, weight, document, references, ledger and keys of grants; until their owners drop
them service keys and endpoints; a process' last answers for an hour, of which nobody asks after two seconds.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.store.backend import Expired
from gateway.store.contract import Remains, Retention, TrailLink
from gateway.store.redis_keys import ref, shard_of, unref
from gateway.store.redis_past import PENDING, ByTenant, Removals, oldest, remove
from gateway.store.redis_reads import idle_users, job_of, links

if TYPE_CHECKING:
    from gateway.store.redis_link import Command
    from gateway.store.redis_site import Site

_places = msgspec.json.Decoder(tuple[str, ...])


class Sweeping:
    """What an engine asks when it sweeps."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pages: list[bytes] = [b"0"] * len(site.names.shards)
        self._going: dict[str, bytes] = {}
        """Whose users are being gone through, and where."""

    async def expired(self, now: int, retention: Retention, budget: int) -> Expired:
        """Return ended jobs, trail links and uploads that are past their time."""
        room = self._site.names.room
        found = await oldest(self._site, "end", now - retention.jobs_ms, budget + PENDING)
        ended = [unref(name) for name in found]
        texts = await self._site.ask([("HGET", room(tenant).job(job), "d") for job, tenant in ended])
        jobs = [
            job_of(self._site.reading, job, text) for (job, _tenant), text in zip(ended, texts, strict=True)
        ]
        uploads = await oldest(self._site, "upx", now - retention.uploads_ms, budget)
        return Expired(
            tuple(job for job in jobs if job is not None)[:budget],
            await self._cuts(now - retention.trail_ms, budget),
            tuple((tenant, upload) for upload, tenant in map(unref, uploads)),
        )

    async def _cuts(self, at: int, budget: int) -> dict[str, TrailLink]:
        """Return the newest link to cut of trails that begin before an instant, `budget` links in all."""
        tenants = await oldest(self._site, "ax", at, budget)
        share = max(budget // max(len(tenants), 1), 1)
        trails = await self._site.ask(
            [("XRANGE", self._site.names.room(tenant).aud, "-", "+", "COUNT", share) for tenant in tenants]
        )
        cuts: dict[str, TrailLink] = {}
        for tenant, entries in zip(tenants, trails, strict=True):
            past = [link for link in links(entries) if link.at <= at]
            if past:
                cuts[tenant] = msgspec.structs.replace(past[-1], rows=b"")
            else:  # a cut was not noted
                await self._note(tenant, entries)
        return cuts

    async def cut(self, tenant: str, version: int) -> int:
        """Remove trail links up to a version."""
        aud = self._site.names.room(tenant).aud
        removed, rest = await self._site.ask(
            [("XTRIM", aud, "MINID", f"{version + 1}-0"), ("XRANGE", aud, "-", "+", "COUNT", 1)]
        )
        await self._note(tenant, rest)
        return int(removed)

    async def _note(self, tenant: str, rest: list[Any]) -> None:
        """Note when the first link of a trail was made; a trail that is empty is in no list."""
        ax = self._site.names.shard(tenant).ax
        if rest:
            await self._site.ask([("ZADD", ax, "XX", "GT", links(rest)[0].at, tenant)])
            return
        removals = Removals(self._site, tenant)
        writes = removals.writes()
        writes.zrem(ax, tenant)
        removals.add(writes, "x", removals.room.aud, "stream", 1)
        await remove(self._site, [removals])

    async def drop_keys(self, before: int, budget: int) -> int:
        """Remove idempotency keys older than an instant, unless bound anew. Grants' keys are in no list."""
        removals = ByTenant(self._site)
        for name, tenant in map(unref, await oldest(self._site, "kx", before, budget)):
            some = removals[tenant]
            writes, key = some.writes(), some.room.named(name)
            writes.zrem(some.shard.kx, ref(name, tenant))
            writes.delete(key, "hash")
            some.add(writes, "k", key, "hash", before)
        return await remove(self._site, removals.values())

    async def idle(self, now: int, budget: int) -> dict[str, list[str]]:
        """Return users whose figures tell nothing, among the next: a page of each of the next tenants."""
        shards, room = self._site.names.shards, self._site.names.room
        if len(self._going) < budget:
            told = await self._site.survey(
                [("SSCAN", shard.tenants, at) for shard, at in zip(shards, self._pages, strict=True)]
            )
            pages: list[tuple[bytes, list[bytes]]] = [
                page or (at, []) for page, at in zip(told, self._pages, strict=True)
            ]
            self._pages = [at for at, _names in pages]
            for name in (name.decode() for _at, names in pages for name in names):
                self._going.setdefault(name, b"0")
        some = list(itertools.islice(self._going.items(), budget))
        share = max(budget // max(len(some), 1), 1)
        parts = await self._site.survey([("HSCAN", room(name).u, at, "COUNT", share) for name, at in some])
        found = {}
        for (name, _at), part in zip(some, parts, strict=True):
            at, users = part or (b"0", [])
            del self._going[name]
            if at != b"0":
                self._going[name] = at
            found[name] = idle_users(users, now)
        return {name: users for name, users in found.items() if users}

    async def remains(self, limit: int) -> list[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        left = await oldest(self._site, "gone", None, limit)
        names = self._site.names
        texts = await self._site.ask([("HGET", names.shard(unref(each)[1]).places, each) for each in left])
        found = zip(map(unref, left), texts, strict=True)
        return [Remains(tenant, name, _places.decode(text or b"[]")) for (name, tenant), text in found]

    async def bury(self, remains: Sequence[Remains]) -> bool:
        """Forget remains. What Redis' own log still holds of them goes when it next rewrites it."""
        by_shard: defaultdict[int, list[Command]] = defaultdict(list)
        for each in remains:
            shard, name = self._site.names.shard(each.tenant), ref(each.job, each.tenant)
            by_shard[shard_of(each.tenant)] += [("HDEL", shard.places, name), ("ZREM", shard.gone, name)]
        await self._site.ask([command for commands in by_shard.values() for command in commands])
        return True
