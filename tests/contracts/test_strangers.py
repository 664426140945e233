"""Another process comes between a decision and its commit: what was decided is decided again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.store.contract import Absent, Dropped, Kept, Key, Replayed, Stale, Submitted
from gateway.store.engine import Engine
from policies.model import Job
from tests.contracts.beside import (
    LEASE,
    TOLD,
    all_of,
    delivered,
    failing,
    hooked,
    lease,
    putting,
    register,
    trial,
    trials,
    upload,
)
from tests.contracts.rig import SAID, admitting, counting
from tests.contracts.watched import Watching, stranger


async def test_lease_lost_before_commit(watched: Watching) -> None:
    """A delivery that another leases while its record is on its way is theirs to record."""
    rig, store, backend = watched
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 1)
    rig.clock.forward(1000)
    (notice,) = await lease(store)
    rig.clock.forward(LEASE)
    theirs: list[Any] = []

    async def claim() -> None:
        theirs.extend(await lease(stranger(rig, backend)))

    backend.meanwhile = claim
    assert await store.record_delivery(notice, failing(why="gone"), TOLD) == Stale()
    assert await store.list_endpoints("acme") == [hook]
    assert isinstance(await store.record_delivery(theirs[0], delivered), Kept)


async def test_tries_count_from_newest_endpoint(watched: Watching) -> None:
    """A try counts from the endpoint as another process has just left it."""
    rig, store, backend = watched
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 1)
    rig.clock.forward(1000)
    (notice,) = await lease(store)
    changed = replace(hook, failures=5, label="theirs")
    backend.meanwhile = lambda: register(stranger(rig, backend), changed)
    assert isinstance(await store.record_delivery(notice, failing()), Kept)
    assert await store.list_endpoints("acme") == [replace(changed, failures=6)]


@pytest.mark.parametrize("verb", ["put", "record"])
async def test_dropped_endpoint_ends_all(watched: Watching, verb: str) -> None:
    """Where another process drops the endpoint first, nothing is put or recorded for it."""
    rig, store, backend = watched
    hook = await hooked(rig, store)
    (name,) = await trials(rig, store, hook, 1)
    rig.clock.forward(1000)
    (notice,) = await lease(store)

    async def drop() -> None:
        rule = putting(Dropped(hook.id))
        await stranger(rig, backend).change_endpoint("acme", rule, counting(), TOLD, by="ann")

    backend.meanwhile = drop
    if verb == "put":
        again = replace(trial(rig, hook), id=name)
        assert await store.put_delivery(again, counting(), TOLD, by="ann") == Absent()
    else:
        assert await store.record_delivery(notice, delivered) == Stale()
    assert await all_of(store, hook) == ()


@pytest.mark.parametrize(("mode", "kind"), [("attach", Replayed), ("once", Replayed), ("renew", Submitted)])
async def test_foreign_binding_is_met(watched: Watching, mode: Any, kind: type[Any]) -> None:
    """A key that another process binds first answers for it, but to a first send, which binds it anew."""
    rig, store, backend = watched
    key = Key("f", rig.job().request.fingerprint(), mode)

    def sending(to: Engine, job: Job) -> Callable[[], Awaitable[Any]]:
        return lambda: to.submit(job, admitting(job), SAID, key=key)

    theirs = rig.job()
    backend.meanwhile = sending(stranger(rig, backend), theirs)
    answer: Any = await sending(store, rig.job())()
    assert isinstance(answer, kind)
    assert (answer.job.id == theirs.id) is (kind is Replayed)


async def test_foreign_upload_is_met(watched: Watching) -> None:
    """An upload that another process declares first, under the key or the id, is the one that is kept."""
    rig, store, backend = watched
    key, theirs = Key("k", "f"), upload(rig)

    def declare(to: Engine, mine: Any, bound: Key | None) -> Callable[[], Awaitable[Any]]:
        return lambda: to.put_upload(mine, counting(), TOLD, key=bound)

    backend.meanwhile = declare(stranger(rig, backend), theirs, key)
    assert await declare(store, upload(rig), key)() == Kept(theirs, replayed=True)
    other = upload(rig)
    backend.meanwhile = declare(stranger(rig, backend), other, None)
    assert await declare(store, replace(other, filename="mine"), None)() == Kept(other, replayed=True)
