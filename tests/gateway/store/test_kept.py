"""What is left when all has gone that may: a short list, of keys in Redis and of rows in SQLite."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import apsw
import pytest

from gateway import doctor
from gateway.doctor import Verified
from gateway.store.contract import Dropped, Remains, Retention
from gateway.store.engine import LEASE_MS, Engine
from tests.contracts.beside import delivered, putting
from tests.contracts.rig import DAY, HOUR, MEMORY, SAID, Rig, attempt, counting, ending
from tests.fakes.redis import server
from tests.golden.make import Story, commands_of

KEPT: Final = Retention(10 * DAY, 10 * DAY)
ROOM: Final = r"\{s\d+\}:(\w+)(?::(?:acme|the other))?(?::.*)?"
FOR_EVER: Final = {
    "schema",  # of the whole store
    "tenants", "weight", "hashes",  # of a shard: a name, a number a tenant; a pointer a service key
    "t", "s", "led",  # of a tenant: its document, references of its users, the ledger
    "u", "ky", "i",  # figures of users who paid, service keys, keys of grants
}  # fmt: skip
"""What stands in Redis for ever. Whatever is not here must go."""
FIELDS: Final = {"t": {"v", "d"}, "u": {"ann", "bob jones"}}
"""Of these which fields: what holds a tenant's figures, and users who paid."""
TABLES: Final = {"tenants": 2, "users": 2, "subjects": 7, "docs": 1, "idem": 2, "ledger": 18}
"""How many rows SQLite keeps for ever, by table."""


@pytest.fixture(params=["redis", "sqlite"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """A place where a store has been through all that can happen."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = Rig(request.param, Path(folder))
        await Story(made).tell()
        yield made
        await made.close()


async def finish(rig: Rig, store: Engine) -> None:
    """End what is open, tell what is due, drop what its owners may, and let all of it get old."""
    for claim in await store.claim(99, LEASE_MS):
        await store.begin_attempt(claim, attempt(deadline_at=rig.clock.at + HOUR))
        await store.record(claim, ending(1), SAID)
    rig.clock.forward(2 * HOUR)
    while notices := await store.claim_deliveries(99, LEASE_MS):
        for notice in notices:
            await store.record_delivery(notice, delivered)
    for hook in await store.list_endpoints("acme"):
        await store.change_endpoint("acme", putting(Dropped(hook.id)), counting(), SAID, by="ann")
    rig.clock.forward(200 * DAY)
    assert await store.claim(99, LEASE_MS) == []
    assert await store.claim_deliveries(99, LEASE_MS) == []


async def sweep(store: Engine) -> list[Remains]:
    """Sweep in small steps until there is no more, and bury what that leaves, once its blobs were deleted."""
    while (await store.sweep(KEPT, budget=3)).more:
        pass
    for _ in range(9):  # users are gone through all the time
        assert not (await store.sweep(KEPT, budget=3)).more
    buried: list[Remains] = []
    while remains := await store.remains(5):
        assert await store.buried(remains)
        buried += remains
    return buried


async def test_little_stands_for_ever(rig: Rig) -> None:
    """After all has gone by policy nothing is left but what is listed, the books balance, the trails hold."""
    store = await rig.open()
    await finish(rig, store)
    buried = await sweep(store)
    assert len(buried) == 7 + 1  # jobs, and an upload
    assert await doctor.examine(store.backend, rig.chain) == []
    for tenant in await store.backend.tenants():
        assert isinstance(await doctor.verify_trail(store.backend, rig.chain, tenant), Verified)
    await rig.shut(store)
    assert await left(rig) == []


async def left(rig: Rig) -> list[str]:
    """Return what is left and should not be, of whichever store this is."""
    file = rig.place / "safelight.db"
    return left_in_sqlite(file) if file.exists() else await left_in_redis(f"{rig.place.name}:")


async def left_in_redis(prefix: str) -> list[str]:
    """Return keys under a prefix, and fields of tenants' documents, that are not to stand for ever."""
    found = []
    for _verb, key, *words in await commands_of(server().url, prefix):
        match = re.fullmatch(ROOM, key)
        name = match.group(1) if match else key
        fields = {word for word in words[::2] if not word.startswith("op:")}  # the newest of a few processes
        if name not in FOR_EVER or fields - FIELDS.get(name, fields):
            found.append(f"{key} {sorted(fields)}")
    return found


def left_in_sqlite(file: Path) -> list[str]:
    """Return tables that have other numbers of rows than stand for ever."""
    connection = apsw.Connection(str(file))
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    counts = {name: connection.execute(f"SELECT count(*) FROM {name}").get for name in names}
    connection.close()
    return [f"{name} {n}" for name, n in counts.items() if n != TABLES.get(name, 0)]
