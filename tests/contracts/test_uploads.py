"""Uploads: declared once, kept while they may be used, and gone with what they leave behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway.store.contract import Conflict, Denied, Erased, Kept, Key, Remains, Retention
from tests.contracts.beside import NO_WRITES, TOLD, lines, upload, writes
from tests.contracts.rig import DAY, HOUR, Rig, counting, put, submit

if TYPE_CHECKING:
    from gateway.store.engine import Engine
    from policies.model import Upload

KEEPING = Retention(30 * DAY, 400 * DAY, uploads_ms=DAY)


async def declare(store: Engine, declared: Upload, key: str | None = None, form: str = "f") -> Any:
    """Put an upload, under a key if there is one."""
    bound = None if key is None else Key(key, form)
    return await store.put_upload(declared, counting(), TOLD, key=bound)


async def test_uploads_belong_to_tenants(rig: Rig, store: Engine) -> None:
    """What was declared is there for its tenant alone, after a restart and after its expiry too."""
    declared = upload(rig)
    assert await declare(store, declared) == Kept(declared)
    assert await store.get_upload("other", declared.id) is None
    await rig.shut(store)
    rig.clock.forward(2 * HOUR)
    assert await (await rig.open()).get_upload("acme", declared.id) == declared


async def test_one_key_declares_one_upload(rig: Rig, store: Engine) -> None:
    """Sixty-four identical declarations with one key are one upload, counted and told once."""
    answers = await asyncio.gather(*(declare(store, upload(rig), "k") for _ in range(64)))
    answers.append(await declare(store, upload(rig), "k"))
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: 64}
    assert len({answer.value.id for answer in answers}) == 1
    assert await writes(store) == len(await lines(store)) == 1


async def test_denied_upload_is_told_once(rig: Rig, store: Engine) -> None:
    """A declaration under a key that is denied is one line of the trail, whatever is written beside it."""
    answer, _counted = await asyncio.gather(
        store.put_upload(upload(rig), counting(NO_WRITES), TOLD, key=Key("k", "f")),
        store.count("acme", "ann", counting()),
    )
    assert isinstance(answer, Denied)
    assert len(await lines(store)) == 1


async def test_upload_key_binds_its_request(rig: Rig, store: Engine) -> None:
    """Another request under a key that declared an upload or made a job conflicts; a dropped one is gone."""
    declared = upload(rig)
    await declare(store, declared, "k")
    assert await declare(store, upload(rig), "k", "g") == Conflict()
    assert await submit(store, rig.job(), "k") == Conflict()
    await submit(store, rig.job(), "j")
    assert await declare(store, upload(rig), "j") == Conflict()
    await store.drop_upload("acme", declared.id)
    assert await declare(store, upload(rig), "k") == Erased()


async def test_same_upload_lives_longer(rig: Rig, store: Engine) -> None:
    """An upload put again is the one that is there, its expiry the later of the two; nothing is counted."""
    first = upload(rig)
    await declare(store, first)
    later = replace(first, filename="x.png", expires_at=first.expires_at + 5)
    longer = replace(first, expires_at=later.expires_at)
    assert await declare(store, later, "k") == Kept(longer, replayed=True)
    assert await declare(store, first) == Kept(longer, replayed=True)
    assert await declare(store, upload(rig), "k") == Kept(longer, replayed=True)
    assert await store.get_upload("acme", first.id) == longer
    assert await writes(store) == 1


async def test_denied_uploads_are_not_kept(rig: Rig, store: Engine) -> None:
    """A declaration above the window keeps nothing and binds no key; a bound key answers all the same."""
    declared = upload(rig)
    denied = await store.put_upload(declared, counting(NO_WRITES), TOLD, key=Key("k", "f"))
    assert isinstance(denied, Denied)
    assert await store.get_upload("acme", declared.id) is None
    assert await declare(store, declared, "k") == Kept(declared)
    again = await store.put_upload(upload(rig), counting(NO_WRITES), TOLD, key=Key("k", "f"))
    assert again == Kept(declared, replayed=True)
    assert [line.decision for line in await lines(store)] == ["deny", "allow"]


async def test_reopened_store_knows_upload_keys(rig: Rig, store: Engine) -> None:
    """A key that is denied after a restart answers with the upload it declared before."""
    declared = upload(rig)
    await declare(store, declared, "k")
    await rig.shut(store)
    again = await (await rig.open()).put_upload(upload(rig), counting(NO_WRITES), TOLD, key=Key("k", "f"))
    assert again == Kept(declared, replayed=True)


async def test_dropped_upload_remains(rig: Rig, store: Engine) -> None:
    """An upload that is dropped leaves its name to the burial, once; dropping it again is harmless."""
    declared = upload(rig)
    await declare(store, declared)
    for _ in range(2):
        await store.drop_upload("acme", declared.id)
    await store.drop_upload("other", declared.id)
    assert await store.get_upload("acme", declared.id) is None
    remains = await store.remains()
    assert remains == [Remains("acme", declared.id)]
    assert await store.buried(remains)
    assert await store.remains() == []


async def test_upload_put_again_remains_no_more(rig: Rig, store: Engine) -> None:
    """An upload that is put again after its drop takes its place back with it; the last of both counts."""
    declared = upload(rig)
    await declare(store, declared)
    await store.drop_upload("acme", declared.id)
    other = upload(rig)
    await declare(store, other)
    await asyncio.gather(declare(store, declared), store.drop_upload("acme", other.id))
    assert await store.get_upload("acme", declared.id) == declared
    assert await store.remains() == [Remains("acme", other.id)]
    await asyncio.gather(store.drop_upload("acme", declared.id), declare(store, declared))
    assert await store.remains() == [Remains("acme", other.id)]
    await asyncio.gather(declare(store, other), store.drop_upload("acme", other.id))
    assert await store.remains() == [Remains("acme", other.id)]


async def test_expired_uploads_are_swept(rig: Rig, store: Engine) -> None:
    """An upload is swept a while after its expiry, in bounded steps; one used again meanwhile is not."""
    old = [upload(rig) for _ in range(3)]
    for each in old:
        await declare(store, each)
    await put(store, rig.job())
    rig.clock.forward(HOUR + DAY - 1)
    assert (await store.sweep(KEEPING)).uploads == 0
    await declare(store, replace(old[1], expires_at=rig.clock.at + HOUR))
    rig.clock.forward(1)
    swept = [await store.sweep(KEEPING, budget=1) for _ in range(3)]
    assert [(step.uploads, step.more) for step in swept] == [(1, True), (1, True), (0, False)]
    assert await store.get_upload("acme", old[1].id) is not None
    assert {each.job for each in await store.remains()} == {old[0].id, old[2].id}
