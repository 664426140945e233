"""What is past its time in Redis: found by age, shard by shard, and removed in bounded steps.

Nothing hangs on a TTL: each shard has lists by instant (`end` jobs, `kx` keys, `upx` uploads, `ax` trails,
`gone` what dropped jobs left). What a list names may have changed since: whoever removes looks again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.store.backend import Expired
from gateway.store.contract import Remains, Retention, TrailLink
from gateway.store.redis_keys import ref, shard_of, unref
from gateway.store.redis_pack import Sheet, Writes
from gateway.store.redis_reads import job_of, links

if TYPE_CHECKING:
    from gateway.store.redis_link import Call, Command
    from gateway.store.redis_site import Site

_places = msgspec.json.Decoder(tuple[str, ...])


class Sweeping:
    """What an engine asks when it sweeps."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def expired(self, now: int, retention: Retention, budget: int) -> Expired:
        """Return ended jobs, trail links and uploads that are past their time."""
        room = self._site.names.room
        ended = [unref(name) for name in await self._oldest("end", now - retention.jobs_ms, budget)]
        texts = await self._site.ask([("HGET", room(tenant).job(job), "d") for job, tenant in ended])
        jobs = [
            job_of(self._site.reading, job, text) for (job, _tenant), text in zip(ended, texts, strict=True)
        ]
        uploads = await self._oldest("upx", now - retention.uploads_ms, budget)
        return Expired(
            tuple(job for job in jobs if job is not None),
            await self._cuts(now - retention.trail_ms, budget),
            tuple((tenant, upload) for upload, tenant in map(unref, uploads)),
        )

    async def _cuts(self, at: int, budget: int) -> dict[str, TrailLink]:
        """Return the newest link to cut of each trail that begins before an instant."""
        tenants = await self._oldest("ax", at, budget)
        trails = await self._site.ask(
            [("XRANGE", self._site.names.room(tenant).aud, "-", "+", "COUNT", budget) for tenant in tenants]
        )
        cuts: dict[str, TrailLink] = {}
        for tenant, entries in zip(tenants, trails, strict=True):
            past = [link for link in links(entries) if link.at <= at]
            if past:
                cuts[tenant] = msgspec.structs.replace(past[-1], rows=b"")
        return cuts

    async def cut(self, tenant: str, version: int) -> int:
        """Remove trail links up to a version; say when the first of the rest was made."""
        room, shard = self._site.names.room(tenant), self._site.names.shard(tenant)
        removed, rest = await self._site.ask(
            [
                ("XTRIM", room.aud, "MINID", f"{version + 1}-0"),
                ("XRANGE", room.aud, "-", "+", "COUNT", 1),
            ]
        )
        oldest = links(rest)[0].at if rest else self._site.time()
        await self._site.ask([("ZADD", shard.ax, "XX", "GT", oldest, tenant)])
        return int(removed)

    async def drop_keys(self, before: int, budget: int) -> int:
        """Remove idempotency keys older than an instant. Grants' keys are in no list."""
        by_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for name, tenant in map(unref, await self._oldest("kx", before, budget)):
            by_tenant[tenant].append(name)
        return await self._remove(
            [self._forgetting(tenant, keys, before) for tenant, keys in by_tenant.items()]
        )

    def _forgetting(self, tenant: str, keys: Sequence[str], before: int) -> Call:
        """Return the script that removes keys of a tenant, each unless it was bound anew."""
        room, shard, sheet = self._site.names.room(tenant), self._site.names.shard(tenant), Sheet()
        changes = []
        for name in keys:
            writes, key = Writes(sheet), room.named(name)
            writes.zrem(shard.kx, ref(name, tenant))
            writes.delete(key, "hash")
            changes.append(([["k", sheet(key, "hash"), before]], writes.all(), "", -1))
        return self._changing(sheet, sheet(room.t, "hash"), changes)

    async def remains(self, limit: int) -> list[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        left = await self._oldest("gone", None, limit)
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

    async def _oldest(self, name: str, before: int | None, budget: int) -> list[str]:
        """Return what the shards' lists of a name hold up to an instant, oldest first."""
        edge = "+inf" if before is None else before
        replies = await self._site.ask(
            [
                ("ZRANGEBYSCORE", getattr(shard, name), "-inf", edge, "WITHSCORES", "LIMIT", 0, budget)
                for shard in self._site.names.shards
            ]
        )
        found = sorted(
            (float(at), each.decode())
            for reply in replies
            for each, at in zip(reply[::2], reply[1::2], strict=True)
        )
        return [each for _at, each in found[:budget]]

    async def _remove(self, calls: Sequence[Call]) -> int:
        """Run scripts that remove; return how many of their changes were applied."""
        answers = await self._site.answers(calls)
        return sum(verdict[0] == "a" for _n, _t, groups in answers for group in groups for verdict in group)

    def _changing(self, sheet: Sheet, group: int, changes: Sequence[Any]) -> Call:
        head = (f"{self._site.me}.sweep", self._site.number(), self._site.time(), self._site.names.wake)
        return self._site.call("commit", list(sheet.keys), (*head, sheet.types, [(group, changes)]))
