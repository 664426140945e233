"""Removes from Redis what is over: each thing by a look and a removal in one step, and in bounded numbers.

A removal moves no version and no figure, so it goes past the engine; the script that commits makes it, in
nobody's name: it may be done twice. Whatever a list said of a thing, the script looks again beforehand.
Deliveries go by their age, and those of a dropped endpoint, which nobody sees any more, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from gateway.store.redis_keys import ref, unref
from gateway.store.redis_pack import Sheet, Writes, forget

if TYPE_CHECKING:
    from gateway.store.redis_link import Call, Command
    from gateway.store.redis_site import Site

PENDING: Final = 200
"""How many past their time that cannot go yet a sweep steps over, such as what cannot be read; there are next
to none."""


class Removals:
    """What is to be removed of one tenant."""

    def __init__(self, site: Site, tenant: str) -> None:
        self.room = site.names.room(tenant)
        self.shard = site.names.shard(tenant)
        self._site = site
        self._sheet = Sheet()
        self._group = self._sheet(self.room.t, "hash")
        self._changes: list[Any] = []

    def writes(self) -> Writes:
        """Return an empty list of commands, for `add`."""
        return Writes(self._sheet)

    def add(self, writes: Writes, check: str, key: str, kind: str, *what: str | int) -> None:
        """Let commands be run if a key, of its kind, passes a check of the script."""
        self._changes.append(([[check, self._sheet(key, kind), *what]], writes.all(), "", -1, []))

    def call(self, number: int) -> Call:
        """Return the script's call, under a number."""
        site = self._site
        head = ("", number, site.stamp(self.room.shard), site.names.wake)
        group = [(self._group, self._changes)]
        return site.call("commit", list(self._sheet.keys), (*head, self._sheet.types, group, False), ())


class ByTenant(dict[str, Removals]):
    """Removals by tenant, each made when it is first asked for: a tenant takes one call of a number."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site

    def __missing__(self, tenant: str) -> Removals:
        made = self[tenant] = Removals(self._site, tenant)
        return made


async def remove(site: Site, some: Iterable[Removals]) -> int:
    """Remove; return how much passed its check."""
    number = site.number()
    return await site.applied([each.call(number) for each in some])


async def oldest(site: Site, name: str, before: int | None, budget: int) -> list[str]:
    """Return what the shards' lists of a name hold up to an instant (None: all), oldest first."""
    edge = "+inf" if before is None else before
    replies = await site.survey(
        [
            ("ZRANGEBYSCORE", getattr(shard, name), "-inf", edge, "WITHSCORES", "LIMIT", 0, budget)
            for shard in site.names.shards
        ]
    )
    found = sorted(
        (float(at), each.decode())
        for reply in replies
        for each, at in zip(reply[::2], reply[1::2], strict=True)
    )
    return [each for _at, each in found[:budget]]


async def drop_over(site: Site, before: int, budget: int) -> int:
    """Remove deliveries of dropped endpoints, and those made before an instant of which nothing is sent."""
    return await _drop_orphans(site, budget) + await _drop_old(site, before, budget)


async def _drop_old(site: Site, before: int, budget: int) -> int:
    """Remove deliveries past their time, unless they are due; what waits to be sent is stepped over."""
    texts = await oldest(site, "dlx", before, budget + PENDING)
    named = [(name, *unref(rest)) for name, rest in map(unref, texts)]
    room = site.names.room
    due = await site.ask([("ZSCORE", room(of).pending(to), name) for name, to, of in named])
    over = [each for each, at in zip(named, due, strict=True) if at is None][:budget]
    removals = ByTenant(site)
    for name, to, of in over:
        _over(removals[of], site, to, name)
    return await remove(site, removals.values())


async def _drop_orphans(site: Site, budget: int) -> int:
    """Remove deliveries whose endpoint was dropped; after the last, what hid them. Return how many."""
    endpoints = [unref(text) for text in await oldest(site, "dgone", None, budget)]
    share = max(budget // max(len(endpoints), 1), 1)
    first: list[Command] = [
        ("ZRANGE", site.names.room(tenant).told(endpoint), 0, share - 1) for endpoint, tenant in endpoints
    ]
    removals, ends = ByTenant(site), 0
    for (endpoint, tenant), names in zip(endpoints, await site.ask(first), strict=True):
        for name in names:
            _over(removals[tenant], site, endpoint, name.decode())
        if not names:
            ends += 1
            _forget_endpoint(removals[tenant], endpoint, tenant)
    return await remove(site, removals.values()) - ends


def _over(removals: Removals, site: Site, endpoint: str, name: str) -> None:
    """Remove a delivery from all that names it but its job's list, unless it is due after all."""
    writes = removals.writes()
    forget(removals.room, site.names, name, endpoint, writes)
    removals.add(writes, "q", removals.room.pending(endpoint), "zset", name)


def _forget_endpoint(removals: Removals, endpoint: str, tenant: str) -> None:
    """Remove the last traces of a dropped endpoint. Nothing was added to its list since it was dropped."""
    writes, room = removals.writes(), removals.room
    writes.hdel(room.hu, endpoint)
    writes.zrem(removals.shard.dgone, ref(endpoint, tenant))
    removals.add(writes, "q", room.told(endpoint), "zset", "")
