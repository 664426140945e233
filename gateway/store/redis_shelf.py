"""What lies beside the jobs, in Redis: service keys, uploads, endpoints, and leases of deliveries.

Endpoints stand in line as tenants do, each by its earliest delivery due, so that one with ten thousand due
holds up nobody. A service key is found by its hash in two steps: who it may belong to, written before the
key itself is and worth nothing alone, and then the key as that tenant has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.backend import UNREADABLE_MS, DocPut, News
from gateway.store.contract import DeliveryPage, Notice
from gateway.store.redis_keys import ref, shard_of, unref
from gateway.store.redis_pack import LEASES, Sheet, told_to_others
from gateway.store.redis_past import drop_over
from gateway.store.redis_reads import delivery, doc, dropped, endpoints, job_of, since
from gateway.store.redis_together import whole
from policies.model import ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.store.backend import Change
    from gateway.store.redis_link import Call, Command
    from gateway.store.redis_site import Site

Line = tuple[float, str, str]
"""When something of an endpoint is due, the endpoint, its tenant."""


class Lease(NamedTuple):
    """A leased delivery; `due` is when it was due by its own word, `until` when the lease runs out."""

    tenant: str
    endpoint: str
    name: str
    fence: int
    due: int = 0
    until: int = 0


class RedisShelf:
    """A `Shelf` over Redis. `held` is what this process has leased."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.held: dict[tuple[str, str], Lease] = {}

    # -- documents ------------------------------------------------------------------------------------

    async def key_of(self, digest: str) -> ServiceKey | None:
        """Return the service key of a hash, of whatever tenant."""
        (owner,) = await self._site.ask([("HGET", self._site.names.shard(digest).hashes, digest)])
        if owner is None:
            return None
        name, tenant = unref(owner.decode())
        (text,) = await self._site.ask([("HGET", self._site.names.room(tenant).ky, name)])
        found = doc(self._site.reading, "key", name, text)
        return found if isinstance(found, ServiceKey) and found.hash == digest else None

    async def point(self, changes: Sequence[Change]) -> dict[int, StoreUnavailable]:
        """Say who may have the keys that are put, before they are kept; return by place where that failed."""
        puts = [
            (at, doc) for at, change in enumerate(changes) for doc in change.docs if isinstance(doc, DocPut)
        ]
        keys = [(at, put.value) for at, put in puts if isinstance(put.value, ServiceKey)]
        pointers: list[Command] = [
            ("HSET", self._site.names.shard(key.hash).hashes, key.hash, ref(key.id, key.tenant))
            for _at, key in keys
        ]
        told = zip(keys, await self._site.reach(pointers) if pointers else (), strict=True)
        return {at: fault for (at, _key), fault in told if isinstance(fault, StoreUnavailable)}

    async def keys(self, tenant: str) -> list[ServiceKey]:
        """Return a tenant's keys, newest first."""
        (reply,) = await self._site.ask([("HVALS", self._site.names.room(tenant).ky)])
        found = [doc(self._site.reading, "key", "", text) for text in reply]
        known = [key for key in found if isinstance(key, ServiceKey)]
        return sorted(known, key=lambda key: (key.created_at, key.id), reverse=True)

    async def upload(self, tenant: str, upload: str) -> Upload | None:
        """Return one upload."""
        (text,) = await self._site.ask([("HGET", self._site.names.room(tenant).up, upload)])
        found = doc(self._site.reading, "upload", upload, text)
        return found if isinstance(found, Upload) else None

    async def endpoints(self, tenant: str) -> list[Endpoint]:
        """Return a tenant's endpoints, oldest first."""
        (reply,) = await self._site.ask([("HGETALL", self._site.names.room(tenant).ep)])
        return endpoints(self._site.reading, reply)

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None:
        """Return one delivery."""
        room = self._site.names.room(tenant)
        hushed, text = await self._site.ask([("HGETALL", room.hu), ("HGET", room.dl, delivery_id)])
        return delivery(self._site.reading, delivery_id, text, since(hushed))

    async def page(self, tenant: str, endpoint: str, before: int | None, limit: int) -> DeliveryPage:
        """Return deliveries newest first; one more than asked tells whether there are older ones."""
        room, edge = self._site.names.room(tenant), "+inf" if before is None else f"({before}"
        order: Command = ("ZREVRANGEBYSCORE", room.told(endpoint), edge, "-inf", "WITHSCORES")
        (found,) = await self._site.ask([(*order, "LIMIT", 0, limit + 1)])
        names, places = found[: 2 * limit : 2], found[1 : 2 * limit : 2]
        if not names:
            return DeliveryPage(())
        hushed, texts = await self._site.ask([("HGETALL", room.hu), ("HMGET", room.dl, *names)])
        if dropped(since(hushed), endpoint):
            return DeliveryPage(())
        told = [
            delivery(self._site.reading, name.decode(), text, since(hushed))
            for name, text in zip(names, texts, strict=True)
        ]
        more = int(float(places[-1])) if len(found) > 2 * limit else None
        return DeliveryPage(tuple(each for each in told if each is not None), more)

    # -- the queue of deliveries ----------------------------------------------------------------------

    async def claim(self, n: int, each: int, busy: Sequence[str], now: int, until: int) -> list[Notice]:
        """Lease up to `n` due deliveries until `until`, oldest due first, at most `each` an endpoint.

        What cannot be read goes far behind, and others come in its place. A fault ends the search, and takes
        nothing from what is leased and read; raises where that is nothing.
        """
        for name in [name for name, lease in self.held.items() if lease.until <= now]:
            del self.held[name]
        notices: list[Notice] = []
        again = True
        while again and len(notices) < n:
            try:
                lines = await self._lines(busy, n - len(notices), now)
                leases = await self._lease(lines, n - len(notices), each, now, until)
                again = await self._sort(leases, notices, now + UNREADABLE_MS)
            except StoreUnavailable:
                if not notices:
                    raise
                break
        return notices

    async def _sort(self, leases: Sequence[Lease], notices: list[Notice], behind: int) -> bool:
        """Add what was leased and can be read to `notices`; return whether others may come for the rest.

        Raises the first fault, after the others' were added: leases that it hides run out by themselves.
        """
        found = await self._read(leases)
        notices += [notice for notice in found if isinstance(notice, Notice)]
        whole([notice for notice in found if isinstance(notice, StoreUnavailable)])
        bad = [lease for lease, notice in zip(leases, found, strict=True) if notice is None]
        await self._change("release", [lease._replace(due=behind) for lease in bad])
        return bool(bad)

    async def release(self, notices: Sequence[Notice], due: int) -> None:
        """Make leased deliveries due. Lost leases are passed over."""
        leases = [
            Lease(told.delivery.tenant, told.endpoint.id, told.delivery.id, told.fence, due)
            for told in notices
        ]
        await self._change("release", leases)
        for lease in leases:
            self.lose(lease.tenant, lease.name)

    async def reclaim(self) -> None:
        """Make all this process holds due when it was before, and worth nothing to it."""
        await self._change("reclaim", list(self.held.values()))
        self.held.clear()

    def lose(self, tenant: str, name: str) -> None:
        """Note that a lease is no longer held."""
        self.held.pop((tenant, name), None)

    async def next_due(self, busy: Sequence[str]) -> int | None:
        """Return the earliest instant at which a delivery of any but `busy` endpoints may be claimed."""
        lines = await self._lines(busy, 1, None)
        return min((int(due) for due, _endpoint, _tenant in lines), default=None)

    async def drop_over(self, before: int, budget: int) -> int:
        """Remove deliveries made before an instant of which nothing more is sent."""
        return await drop_over(self._site, before, budget)

    async def _lines(self, busy: Sequence[str], n: int, now: int | None) -> list[Line]:
        """Return the endpoints with something due by `now` (None: at any time), the oldest first."""
        most = n + len(busy)
        replies = await self._site.survey(
            [
                ("ZRANGEBYSCORE", shard.dturn, "-inf", "+inf" if now is None else now, "WITHSCORES",
                 "LIMIT", 0, most)
                for shard in self._site.names.shards
            ]
        )  # fmt: skip
        found = [
            (float(due), *unref(name.decode()))
            for reply in replies
            for name, due in zip(reply[::2], reply[1::2], strict=True)
        ]
        return sorted(line for line in found if line[1] not in busy)[:n]

    async def _lease(self, lines: Sequence[Line], n: int, each: int, now: int, until: int) -> list[Lease]:
        """Lease the oldest due of these endpoints."""
        room, site = self._site.names.room, self._site
        heads = await site.survey(
            [
                ("ZRANGEBYSCORE", room(of).pending(to), "-inf", now, "WITHSCORES", "LIMIT", 0, each)
                for _due, to, of in lines
            ]
        )
        oldest = sorted(
            (float(due), name.decode(), to, of)
            for (_at, to, of), head in zip(lines, heads, strict=True)
            for name, due in zip(head[::2], head[1::2], strict=True)
        )[:n]
        chosen: dict[tuple[str, str], list[str]] = {(to, of): [] for _due, to, of in lines}
        for _due, name, to, of in oldest:
            chosen[to, of].append(name)
        got = await self._take(chosen, now, until)
        return [got[name, of] for _due, name, _to, of in oldest if (name, of) in got]

    async def _take(
        self, chosen: dict[tuple[str, str], list[str]], now: int, until: int
    ) -> dict[tuple[str, str], Lease]:
        """Lease what is chosen by endpoint; also puts right when each endpoint comes again."""
        by_shard: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for to, of in chosen:
            by_shard[shard_of(of)].append((to, of))
        site, calls = self._site, []
        number = site.number()
        for at, some in by_shard.items():
            head = (number, site.stamp(at), now, until)
            calls.append(self._taking(at, [(*each, chosen[each]) for each in some], head))
        got: dict[tuple[str, str], Lease] = {}
        for some, answer in zip(by_shard.values(), await site.answers(calls), strict=True):
            if isinstance(answer, StoreUnavailable):  # others' are not held up by it
                continue
            for place, name, fence in answer:
                to, of = some[place - 1]
                got[name, of] = Lease(of, to, name, fence, until=until)
        return got

    def _taking(self, at: int, some: Sequence[tuple[str, str, list[str]]], head: tuple[int, ...]) -> Call:
        site, sheet = self._site, Sheet()
        shard = site.names.shards[at]
        sheet(shard.dturn, "zset")
        sheet(f"{shard.at}claims:{site.me}", "hash")
        rows = [
            (
                sheet(site.names.room(of).df, "hash"), sheet(site.names.room(of).pending(to), "zset"),
                ref(to, of), *names,
            )
            for to, of, names in some
        ]  # fmt: skip
        return site.call("deliver", list(sheet.keys), (*head, rows))

    async def _read(self, leases: Sequence[Lease]) -> list[Notice | StoreUnavailable | None]:
        """Return what was leased with endpoint and job; None where one of them cannot be read, or a fault."""
        room, reading, reach = self._site.names.room, self._site.reading, self._site.reach
        texts = await reach([("HGET", room(each.tenant).dl, each.name) for each in leases])
        hooks = await reach([("HGET", room(each.tenant).ep, each.endpoint) for each in leases])
        told = [
            None if isinstance(text, StoreUnavailable) else delivery(reading, lease.name, text, {})
            for lease, text in zip(leases, texts, strict=True)
        ]
        jobs = await reach(
            [
                ("HGET", room(lease.tenant).job((each and each.job) or ""), "d")
                for lease, each in zip(leases, told, strict=True)
            ]
        )
        replies = zip(texts, hooks, jobs, strict=True)
        faults = [[each for each in some if isinstance(each, StoreUnavailable)] for some in replies]
        found = zip(leases, told, hooks, jobs, strict=True)
        return [some[0] if some else self._notice(*each) for some, each in zip(faults, found, strict=True)]

    def _notice(
        self, lease: Lease, told: Delivery | None, hook_text: bytes | None, job_text: bytes | None
    ) -> Notice | None:
        reading = self._site.reading
        hook = doc(reading, "endpoint", lease.endpoint, hook_text)
        if told is None or not isinstance(hook, Endpoint):
            return None
        job = None if told.job is None else job_of(reading, told.job, job_text)
        if told.job is not None and job is None:
            return None
        self.held[lease.tenant, lease.name] = lease._replace(due=told.due_at or 0)
        return Notice(told, hook, job, lease.fence)

    async def _change(self, verb: str, leases: Sequence[Lease]) -> None:
        """Run a verb over leases, a script a shard."""
        for at in range(0, len(leases), LEASES):
            await self._change_some(verb, leases[at : at + LEASES])

    async def _change_some(self, verb: str, leases: Sequence[Lease]) -> None:
        by_shard: defaultdict[int, list[Lease]] = defaultdict(list)
        for lease in leases:
            by_shard[shard_of(lease.tenant)].append(lease)
        site, calls = self._site, []
        news = told_to_others(site.me, News(outbox=True))
        for at, some in by_shard.items():
            sheet = Sheet()
            turns = site.names.shards[at].dturn
            rows = [
                (
                    sheet(site.names.room(of).df, "hash"), name,
                    sheet(site.names.room(of).pending(to), "zset"), name, ref(to, of), fence, due,
                    sheet(turns, "zset"),
                )
                for of, to, name, fence, due, _until in some
            ]  # fmt: skip
            values = (verb, site.stamp(at), site.names.wake, news, rows)
            calls.append(site.call("lease", list(sheet.keys), values))
        await site.answers(calls)
