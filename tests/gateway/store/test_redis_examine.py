"""A tenant read whole, page by page, while others write and retention takes: still of one moment."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Retention
from gateway.store.engine import Engine
from gateway.store.redis_examine import CHANGING, examine
from gateway.store.redis_keys import Names
from tests.contracts.beside import ended, hooked
from tests.contracts.rig import DAY, MEMORY, SAID, Rig, attempt, counting, ending, put, take
from tests.fakes.redis import server

KEPT: Final = Retention(10 * DAY, 10 * DAY)
COPY: Final = """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2]
newest[2] = string.gsub(newest[2], '"version":%d+', '"version":' .. string.match(ARGV[1], '%d+'))
return redis.call('XADD', KEYS[1], ARGV[1], unpack(newest))
"""
"""Adds the newest entry of a stream again, as one of a later version."""

Meanwhile = Callable[[], Awaitable[object]]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A place in a Redis, with a clock."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = Rig("redis", Path(folder))
        yield made
        await made.close()


class Busy:
    """A process' site: between two of its questions something happens, so many times, from the `first` on."""

    def __init__(self, store: Engine, meanwhile: Meanwhile, times: int = 9, first: int = 1) -> None:
        backend: Any = store.backend
        self._site = backend._site  # noqa: SLF001 - the one below the double
        self._meanwhile = meanwhile
        self.left = times
        self._before = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    async def ask(self, commands: Sequence[Any]) -> Any:
        """Ask; then let it happen."""
        replies = await self._site.ask(commands)
        self._before -= 1
        if self.left and self._before <= 0:
            self.left -= 1
            await self._meanwhile()
        return replies


async def lived(rig: Rig, store: Engine) -> None:
    """Have ended jobs, one that runs and two that wait, and an endpoint."""
    await hooked(rig, store)
    for made in (1, 0, 1):
        await ended(rig, store, made)
    await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    for _ in range(2):
        await put(store, rig.job())


async def test_pages_show_all(rig: Rig) -> None:
    """However small the pages are, they show what one look shows, in the order of arrival."""
    store = await rig.open()
    await lived(rig, store)
    whole = await store.backend.examine("acme")
    assert [len(whole.jobs), len(whole.queued), whole.endpoints] == [6, 3, 1]
    assert whole.ledger == tuple(await store.ledger("acme"))
    assert list(whole.links) == list(await store.audit_page("acme", before=0, limit=99, order="up"))
    for page in (1, 2, 6):
        assert await examine(Busy(store, rig.close, 0), "acme", page) == whole  # type: ignore[arg-type]


async def test_writers_part_no_books(rig: Rig) -> None:
    """Jobs that are made, end and are erased between two pages are no difference, and not shown."""
    store = await rig.open()
    await lived(rig, store)

    async def live() -> None:
        await put(store, rig.job())
        claims = await store.claim(1, 1)
        for claim in claims:
            await store.begin_attempt(claim, attempt())
            await store.record(claim, ending(1), SAID)
            await store.erase("acme", claim.job.id, counting(), SAID)
        rig.clock.forward(10)

    for first in range(1, 12):
        busy = Busy(store, live, 2, first)
        found = await examine(busy, "acme", 4)  # type: ignore[arg-type]
        assert busy.left == 0
        assert doctor.findings("acme", found, rig.chain) == []
        assert max(link.version for link in found.links) <= found.state.version
    assert await doctor.examine(store.backend, rig.chain) == []


async def test_cut_trails_are_read_again(rig: Rig) -> None:
    """Where retention cuts the trail between two pages it is read from its new beginning."""
    store = await rig.open()
    for _ in range(6):
        rig.clock.forward(DAY)
        await store.append_audit("acme", "ann", SAID)
    rig.clock.forward(8 * DAY)

    async def cut() -> None:
        await store.sweep(KEPT, budget=2)

    busy = Busy(store, cut)
    found = await examine(busy, "acme", 1)  # type: ignore[arg-type]
    assert doctor.findings("acme", found, rig.chain) == []
    assert found.state.doc.anchor is not None
    assert len(found.links) == 2


async def test_restless_tenants_are_told(rig: Rig) -> None:
    """A tenant that never stands still for two looks is no silent success."""
    store = await rig.open()
    busy = Busy(store, lambda: store.append_audit("acme", "ann", SAID), 10**6)
    await store.append_audit("acme", "ann", SAID)

    async def between(commands: Sequence[Any]) -> Any:
        """Have the version move within the look."""
        replies = await Busy.ask(busy, commands)
        if len(commands) > 1:
            replies[-1] = b"0"
        return replies

    busy.ask = between  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="faster than it can be read"):
        await examine(busy, "acme")  # type: ignore[arg-type]
    assert 10**6 - busy.left == 2 * CHANGING


@pytest.mark.parametrize("key", ["led", "aud"])
async def test_half_a_commit_is_shown(rig: Rig, key: str) -> None:
    """An entry newer than its tenant, as a commit that was cut in half would leave, is a difference."""
    store = await rig.open()
    await lived(rig, store)
    of = await store.backend.examine("acme")
    name = getattr(Names(f"{rig.place.name}:").room("acme"), key)
    text = server().say("EVAL", COPY, "1", name, f"{of.state.version + 1}-0")
    assert text.startswith(b"$")
    found = doctor.findings("acme", await store.backend.examine("acme"), rig.chain)
    assert f"version is {of.state.version}; the" in " ".join(each.detail for each in found)
