"""Service keys: found by their hash, listed by their tenant, revoked for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.store.contract import Absent, Denied, Kept
from tests.contracts.beside import NO_WRITES, TOLD, lines, service_key, writes
from tests.contracts.rig import Rig, counting

if TYPE_CHECKING:
    from gateway.store.engine import Engine


async def test_keys_are_found_by_hash(rig: Rig, store: Engine) -> None:
    """A key is found by its hash whatever its tenant, after a restart too; another hash finds none."""
    ours, theirs = service_key(rig, digest="aa"), service_key(rig, "other", digest="bb")
    for key in (ours, theirs):
        assert await store.put_key(key, counting(), TOLD, by="boss") == Kept(key)
    await rig.shut(store)
    store = await rig.open()
    assert await store.find_key("aa") == ours
    assert await store.find_key("bb") == theirs
    assert await store.find_key("a") is None


async def test_keys_are_listed_by_tenant(rig: Rig, store: Engine) -> None:
    """A tenant's keys are listed newest first, revoked ones too, and no other tenant's."""
    keys = []
    for _ in range(3):
        keys.append(service_key(rig))
        await store.put_key(keys[-1], counting(), TOLD, by="boss")
        rig.clock.forward(1)
    await store.put_key(service_key(rig, "other"), counting(), TOLD, by="boss")
    await store.revoke_key("acme", keys[1].id, counting(), TOLD, by="boss")
    keys[1] = replace(keys[1], revoked_at=rig.clock.at)
    assert await store.list_keys("acme") == keys[::-1]
    assert await store.list_keys("nobody") == []


async def test_revoked_key_stays_so(rig: Rig, store: Engine) -> None:
    """Of many revocations the first counts and sets the instant; a key of another tenant is not there."""
    key = service_key(rig)
    await store.put_key(key, counting(), TOLD, by="boss")
    assert await store.revoke_key("other", key.id, counting(), TOLD, by="boss") == Absent()
    verbs = (store.revoke_key("acme", key.id, counting(), TOLD, by="boss") for _ in range(64))
    revoked = replace(key, revoked_at=rig.clock.at)
    assert await asyncio.gather(*verbs) == [Kept(revoked), *[Kept(revoked, replayed=True)] * 63]
    rig.clock.forward(1)
    again = await store.revoke_key("acme", key.id, counting(), TOLD, by="boss")
    assert again == Kept(revoked, replayed=True)
    assert await store.find_key(key.hash) == revoked
    assert await writes(store, "boss") == 2
    assert len(await lines(store)) == 2


async def test_repeated_key_is_kept_once(rig: Rig, store: Engine) -> None:
    """The very key put twice, at once or later, is kept and counted once."""
    key = service_key(rig)
    put = [store.put_key(key, counting(), TOLD, by="boss") for _ in range(2)]
    answers = [*await asyncio.gather(*put), await store.put_key(key, counting(), TOLD, by="boss")]
    assert answers == [Kept(key), Kept(key, replayed=True), Kept(key, replayed=True)]
    assert await writes(store, "boss") == 1


async def test_denied_keys_are_not_kept(rig: Rig, store: Engine) -> None:
    """Above the window a key is neither kept nor revoked, and the trail tells who tried."""
    key = service_key(rig)
    assert isinstance(await store.put_key(key, counting(NO_WRITES), TOLD, by="boss"), Denied)
    assert await store.list_keys("acme") == []
    await store.put_key(key, counting(), TOLD, by="boss")
    denied = await store.revoke_key("acme", key.id, counting(NO_WRITES), TOLD, by="boss")
    assert isinstance(denied, Denied)
    assert await store.find_key(key.hash) == key
    told = await lines(store)
    assert [line.decision for line in told] == ["deny", "allow", "deny"]
    assert {line.ref for line in told} == {await store.ref_of("acme", "boss")}
