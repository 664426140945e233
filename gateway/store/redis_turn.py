"""Turns at a tenant that many processes write to: who has one writes undisturbed for a moment.

Whoever was refused there twice in a row stands in line: asks, by a commit that writes nothing, until nobody
is before it, and is then told the state from which it decides. It goes on asking first for as long as it
meets others there. A turn that is not used passes on after a tenth of a second, and a commit that comes in
another's is only put in line: nothing but speed and fairness hangs on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.errors import StoreUnavailable
from gateway.store.backend import Loaded
from gateway.store.redis_keys import shard_of
from gateway.store.redis_link import Rejected
from gateway.store.redis_pack import Packer
from gateway.store.redis_reads import answered, numbered
from gateway.store.redis_site import MISTYPED, fault_of

if TYPE_CHECKING:
    from gateway.store.backend import Want
    from gateway.store.redis_link import Call
    from gateway.store.redis_site import Site

LOSSES: Final = 2
"""Refusals in a row after which this process asks for turns."""
CALM: Final = 8
"""Turns in a row that were had for the asking, after which none is asked for."""
WAIT_SECONDS: Final = 0.001
"""How long a process waits for each that is before it, until it asks again."""
LINE_SECONDS: Final = 1.0
"""How long it stands in line at most: then it takes its chance."""
PARTS: Final = 128
"""Tenants of one script, where it may serve more than a shard's: Redis does nothing else meanwhile."""


class Turns:
    """What one process knows of tenants that others write to as well."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._losses: Counter[str] = Counter()
        self._shared: dict[str, int] = {}

    def shared(self, tenant: str) -> bool:
        """Whether others write to a tenant, so that a turn is asked for before anything is decided."""
        return tenant in self._shared

    def won(self, tenant: str) -> None:
        """Take note of a commit that went through."""
        self._losses.pop(tenant, None)

    def lost(self, tenant: str, *, barred: bool) -> None:
        """Take note of a commit that came too late, or in another's turn."""
        self._losses[tenant] += 1
        if barred or self._losses[tenant] >= LOSSES:
            self._shared[tenant] = CALM

    async def wait(self, wants: Sequence[Want]) -> list[Loaded]:
        """Stand in line at tenants until it is this process' turn at one; return what is wanted of all."""
        loop = asyncio.get_running_loop()
        until, first = loop.time() + LINE_SECONDS, True
        while True:
            told = await self._ask(wants)
            for want, (before, _loaded) in zip(wants, told, strict=True):
                self._note(want.tenant, calm=first and not before)
            nearest = min(before for before, _loaded in told)
            if not nearest or loop.time() > until:
                return [loaded for _before, loaded in told]
            await asyncio.sleep(WAIT_SECONDS * nearest)
            first = False

    def _note(self, tenant: str, *, calm: bool) -> None:
        left = self._shared.get(tenant, CALM) - 1 if calm else CALM
        self._shared[tenant] = left
        if not left:
            del self._shared[tenant]

    async def _ask(self, wants: Sequence[Want]) -> list[tuple[int, Loaded]]:
        """Ask for turns; return of each tenant how many are before this process, and what is wanted."""
        number, room, reading = self._site.number(), self._site.names.room, self._site.reading
        together = bundles([want.tenant for want in wants], scattered=self._site.link.scattered)
        calls: list[Call] = []
        for some in together:
            packer = Packer(self._site.names)
            groups = [packer.asking(wants[at].tenant) for at in some]
            reads = [[numbered(packer.sheet, room(wants[at].tenant), wants[at])] for at in some]
            stamp = self._site.stamp(shard_of(wants[some[0]].tenant))
            calls.append(self._site.commit(packer.sheet, number, stamp, groups, reads))
        told: dict[int, tuple[int, Loaded]] = {}
        for some, judged in zip(together, await self._site.judged(calls, number), strict=True):
            fault = fault_of(judged)
            if fault is not None or isinstance(judged, Rejected | StoreUnavailable):
                told |= {at: (0, Loaded(fault=fault)) for at in some}
                continue
            for at, ((letter, *place),) in zip(some, judged.groups, strict=True):
                if letter == "t":
                    told[at] = 0, Loaded(fault=MISTYPED.fault())
                    continue
                before = 0 if letter == "m" else place[0] - 1 if letter == "w" else 1
                told[at] = before, answered(wants[at], iter(next(judged.read)), reading)
        return [told[at] for at in range(len(wants))]


def bundles(tenants: Sequence[str], *, scattered: bool) -> list[list[int]]:
    """Return which places of a list of tenants one script serves: a shard's, or as many as it may."""
    if not scattered:
        return [list(range(at, min(at + PARTS, len(tenants)))) for at in range(0, len(tenants), PARTS)]
    by_shard: defaultdict[int, list[int]] = defaultdict(list)
    for at, tenant in enumerate(tenants):
        by_shard[shard_of(tenant)].append(at)
    return list(by_shard.values())
