"""What earlier formats wrote is read, answers as it did, and goes on. `make.py` says what is in it.

A test here that fails is no reason to make a store anew: processes of both versions meet what is there.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gateway import doctor
from gateway.doctor import Verified
from gateway.store.contract import Conflict, Erased, Kept, Key, Recorded, Remains, Replayed
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.redis_link import Link
from policies.model import JobState
from tests.contracts.beside import delivered
from tests.contracts.rig import (
    DAY,
    HOUR,
    MEMORY,
    NOVEMBER,
    SAID,
    Rig,
    attempt,
    counting,
    ending,
    output,
    put,
    submit,
    take,
)
from tests.fakes.redis import server
from tests.golden.make import KEPT, STORES, WORD, giving

WRITTEN: Final = sorted(path.name for path in STORES.iterdir())
KINDS: Final = ("redis", "sqlite")


class Left(Rig):
    """A store as it was left by a version of before, at the moment it was left."""

    def __init__(self, kind: str, written: str, place: Path) -> None:
        super().__init__(kind, place)
        self.clock.at = NOVEMBER + 11 * DAY
        self.kind = kind
        self.folder = STORES / written
        self.named: dict[str, str] = json.loads((self.folder / "named.json").read_text())[kind]
        for _ in range(100):  # what it made has these numbers
            self.uuid()

    async def fill(self) -> Engine:
        """Put what was written where a store is looked for, and open it."""
        if self.kind == "sqlite":
            data = gzip.decompress((self.folder / "safelight.db.gz").read_bytes())
            (self.place / "safelight.db").write_bytes(data)
        else:
            lines = (self.folder / "redis.jsonl").read_text().splitlines()
            link = Link(server().url)
            await link.ask(
                [(verb, f"{self.place.name}:{key}", *rest) for verb, key, *rest in map(json.loads, lines)]
            )
            await link.close()
        store = await self.open()
        await store.start()
        return store


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for one test, in memory if there is such."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(params=[(kind, written) for kind in KINDS for written in WRITTEN], ids="-".join)
async def left(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Left]:
    """Each store that was ever written."""
    kind, written = request.param
    rig = Left(kind, written, place)
    yield rig
    await rig.close()


async def sound(rig: Left, store: Engine) -> None:
    """Prove that the books balance and the trails hold."""
    assert await doctor.examine(store.backend, rig.chain) == []
    assert await store.backend.tenants() == ["acme", "the other"]
    for tenant in ("acme", "the other"):
        assert isinstance(await doctor.verify_trail(store.backend, rig.chain, tenant), Verified)


async def test_books_of_before_balance(left: Left) -> None:
    """Of a store that an earlier format wrote, the books balance and the trails hold, cut ones too."""
    store = await left.fill()
    await sound(left, store)
    trail = await doctor.verify_trail(store.backend, left.chain, "acme")
    assert isinstance(trail, Verified)
    assert trail.since > 0
    usage = await store.usage("acme", "ann")
    assert (usage.user.granted, usage.user.charged, usage.user.held, usage.user.flight) == (510, 30, 20, 2)


async def test_jobs_of_before_answer(left: Left) -> None:
    """Jobs of each state, and keys bound to them, answer as they did."""
    store, named = await left.fill(), left.named
    states = {name: (await found(store, named[name])).state for name in JOBS}
    assert states == JOBS
    made = await found(store, named["succeeded"])
    assert (made.request.prompt, len(made.outputs), made.charged, len(made.shortfall)) == (WORD, 2, 20, 1)
    assert (await found(store, named["other"], "the other")).subject == "bob jones"
    replayed = await submit(store, left.job(prompt=WORD, weight=4), "again")
    assert isinstance(replayed, Replayed)
    assert replayed.job.id == named["queued"]
    assert isinstance(await submit(store, left.job(prompt="another"), "again"), Conflict)
    assert (await store.grant("acme", None, giving("tenant"), "spring", SAID)).replayed
    assert (await store.grant("acme", "ann", giving("user"), "ann's", SAID)).replayed


JOBS: Final = {
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "canceled": JobState.CANCELED,
    "running": JobState.RUNNING,
    "queued": JobState.QUEUED,
}


async def found(store: Engine, job: str, tenant: str = "acme") -> Any:
    """Return a job that is there."""
    there = await store.get_job(tenant, job, "ann")
    assert there is not None
    return there.job


async def test_shelf_of_before_answers(left: Left) -> None:
    """Service keys, uploads, endpoints and deliveries are found as they were, hushed ones still."""
    store, named = await left.fill(), left.named
    key = await store.find_key("d1g357")
    assert key is not None
    assert (key.id, key.subject) == (named["key"], "ann")
    upload = await store.get_upload("acme", named["upload"])
    assert upload is not None
    again = msgspec.structs.replace(upload, id=left.uuid())
    bound = Key("picture", "f" * 64)
    assert await store.put_upload(again, counting(), SAID, key=bound) == Kept(upload, replayed=True)
    hooks = {hook.id: hook.disabled for hook in await store.list_endpoints("acme")}
    assert hooks == {named["own"]: None, named["whole"]: None, named["hushed"]: "gone"}
    told = [await store.get_delivery("acme", named[name]) for name in ("delivered", "again", "silent")]
    assert [(each.state, each.due_at) for each in told if each] == [
        ("delivered", None), ("pending", NOVEMBER + 11 * DAY + HOUR), ("pending", None)
    ]  # fmt: skip


async def test_work_of_before_goes_on(left: Left) -> None:
    """What was under way is claimed where it stood, ends, and is told; new work is done beside it."""
    store, named = await left.fill(), left.named
    new = await put(store, left.job(prompt=WORD))
    claims = {claim.job.id: claim for claim in await take(store, 3)}
    assert set(claims) == {named["running"], named["queued"], new.id}
    (sent,) = claims[named["running"]].job.attempts
    assert (sent.open, sent.upstream_id, sent.next) == (True, "up_1", b"poll")
    for claim in claims.values():
        if claim.job.id != named["running"]:
            await store.begin_attempt(claim, attempt(deadline_at=left.clock.at + HOUR))
        assert isinstance(await store.record(claim, ending(1), SAID), Recorded)
    left.clock.forward(HOUR)
    told: set[str] = set()
    while notices := await store.claim_deliveries(99, LEASE_MS):
        for notice in notices:
            assert isinstance(await store.record_delivery(notice, delivered), Kept)
        told |= {notice.delivery.id for notice in notices}
    assert len(told) == 2 * (3 + 3) - 1
    assert named["again"] in told
    assert told.isdisjoint({named["delivered"], named["silent"]})
    await sound(left, store)


async def test_leavings_of_before_go(left: Left) -> None:
    """Retention takes what an earlier format wrote: jobs, keys, rows of the trail, images."""
    store, named = await left.fill(), left.named
    assert await store.remains() == [Remains("acme", named["gone"], (str(Path(output(0).key).parent),))]
    assert await store.buried(await store.remains())
    left.clock.forward(11 * DAY)
    while (await store.sweep(KEPT)).more:
        pass
    for name in ("succeeded", "failed", "canceled"):
        assert await store.get_job("acme", named[name], "ann") is None
    assert await found(store, named["queued"])
    assert {each.job for each in await store.remains()} == {
        named[name] for name in ("succeeded", "failed", "canceled", "other")
    }
    fresh = await submit(store, left.job(prompt="another"), "again")
    assert not isinstance(fresh, Conflict | Erased | Replayed)
    await sound(left, store)
