"""A job's end and who is told of it are one commit: a delivery is there if and only if the end is."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Canceled, Gone, Recorded, Retention, Stale
from gateway.store.engine import Engine
from policies import webhooks
from tests.contracts.beside import all_of, ended, endpoint, hooked, lease, register, trials
from tests.contracts.rig import (
    DAY,
    NOVEMBER,
    SAID,
    Rig,
    attempt,
    counting,
    ending,
    put,
    take,
)
from tests.contracts.watched import Watching, stranger

KEEPING = Retention(30 * DAY, 400 * DAY)
FAILED = ("job.failed",)


async def test_end_queues_deliveries(rig: Rig, store: Engine) -> None:
    """What a job's end is told to, its subject's and the whole tenant's endpoints, is due with the end."""
    own, whole = await hooked(rig, store), await hooked(rig, store, subject="boss", scope="tenant")
    await hooked(rig, store, subject="bob")
    await hooked(rig, store, events=FAILED)
    await hooked(rig, store, tenant="other")
    job = await ended(rig, store)
    for hook in (own, whole):
        told = webhooks.delivery(hook, job, "job.succeeded", NOVEMBER)
        assert await all_of(store, hook) == (told,)
        assert await store.get_delivery("acme", told.id) == told
        assert await store.get_delivery("other", told.id) is None
    notices = await store.claim_deliveries(9, 1000)
    assert sorted(each.endpoint.id for each in notices) == [own.id, whole.id]
    assert [each.job for each in notices] == [job, job]


@pytest.mark.parametrize("running", [True, False])
async def test_only_ends_are_told(rig: Rig, store: Engine, *, running: bool) -> None:
    """A queued job's cancel is told; what a running one is asked is not, until it ends."""
    hook = await hooked(rig, store)
    job = await put(store, rig.job())
    (claim,) = await take(store)
    if running:
        await store.begin_attempt(claim, attempt())
    answer = await store.cancel("acme", job.id, counting(), SAID)
    assert [told.event for told in await all_of(store, hook)] == ([] if running else ["job.canceled"])
    if running:
        assert isinstance(await store.record(claim, ending(0), SAID), Recorded)
        assert len(await all_of(store, hook)) == 1
    else:
        assert isinstance(answer, Canceled)


async def test_endpoint_and_end_together(rig: Rig, store: Engine) -> None:
    """A job that ends in the batch that registers an endpoint is told to it, if it came second."""
    hook, late = endpoint(rig), endpoint(rig)
    jobs = [await put(store, rig.job()) for _ in range(2)]
    await asyncio.gather(
        store.cancel("acme", jobs[0].id, counting(), SAID),
        register(store, hook),
        store.cancel("acme", jobs[1].id, counting(), SAID),
        register(store, late),
    )
    assert [told.job for told in await all_of(store, hook)] == [jobs[1].id]
    assert await all_of(store, late) == ()


async def test_two_workers_queue_one(rig: Rig, store: Engine) -> None:
    """A job that two workers record at once is told once."""
    hook = await hooked(rig, store)
    await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    answers = await asyncio.gather(*(store.record(claim, ending(1), SAID) for _ in range(2)))
    assert [type(answer) for answer in answers] == [Recorded, Stale]
    assert len(await all_of(store, hook)) == 1


async def test_erased_jobs_are_not_told(rig: Rig, store: Engine) -> None:
    """Deliveries of a job go when it is erased, in the batch of its end too, or swept; tests stay."""
    hook = await hooked(rig, store)
    jobs = [await put(store, rig.job()) for _ in range(3)]
    cancels = [store.cancel("acme", job.id, counting(), SAID) for job in jobs]
    erased = await asyncio.gather(*cancels, store.erase("acme", jobs[0].id, counting(), SAID))
    assert isinstance(erased[-1], Gone)
    assert {told.job for told in await all_of(store, hook)} == {jobs[1].id, jobs[2].id}
    (notice, _other) = await lease(store, 2)
    assert notice.job is not None
    await store.erase("acme", notice.job.id, counting(), SAID)
    assert await store.record_delivery(notice, lambda told, hook, _now: (told, hook)) == Stale()
    await trials(rig, store, hook, 1)
    rig.clock.forward(30 * DAY)
    assert len((await store.sweep(KEEPING)).jobs) == 1
    assert [told.event for told in await all_of(store, hook)] == [webhooks.TEST]


async def test_tenants_without_endpoints_pay_nothing(watched: Watching) -> None:
    """Where a tenant has no endpoint, or none any more, its jobs end without anybody looking for one."""
    rig, store, backend = watched
    await ended(rig, store)
    assert backend.endpoints_read == 0
    assert not any(change.deliveries or change.docs for change in backend.changes)
    hook = await hooked(rig, store)
    reads = backend.endpoints_read
    for _ in range(5):
        await ended(rig, store)
    assert backend.endpoints_read == reads
    assert len(await all_of(store, hook)) == 5


async def test_restarted_store_finds_endpoints(rig: Rig, store: Engine) -> None:
    """After a restart the first job that ends is told to the endpoints of before."""
    hook = await hooked(rig, store)
    job = await put(store, rig.job())
    await rig.shut(store)
    store = await rig.open()
    await store.cancel("acme", job.id, counting(), SAID)
    assert [told.job for told in await all_of(store, hook)] == [job.id]


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_delivery_is_there_iff_end_is(watched: Watching, fails: str) -> None:
    """Whether a commit fails or its reply is lost, a delivery is there exactly where the job has ended."""
    rig, store, backend = watched
    hook = await hooked(rig, store)
    await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    backend.fails = [fails]
    with pytest.raises(StoreUnavailable):
        await store.record(claim, ending(1), SAID)
    backend.fails = []
    found = await store.get_job("acme", claim.job.id, "ann")
    assert found is not None
    assert len(await all_of(store, hook)) == int(found.job.state.ended) == int(fails == "after")
    answer = await store.record(claim, ending(1), SAID)
    assert isinstance(answer, Recorded if fails == "before" else Stale)
    assert len(await all_of(store, hook)) == 1
    assert await doctor.examine(store.backend, rig.chain) == []


async def test_crash_finds_delivery_written(rig: Rig) -> None:
    """A process that dies after a job's end, by record or cancel, has written down who is to be told."""
    points: list[str] = []

    def crash(point: str) -> None:
        points.append(point)
        if point == "delivery_queued":
            raise MemoryError

    store = Engine(rig.backend(), rig.chain, rig.uuid, crash=crash)
    await ended(rig, store)
    hook = await hooked(rig, store)
    with pytest.raises(MemoryError):
        await ended(rig, store)
    job = await put(store, rig.job())
    with pytest.raises(MemoryError):
        await store.cancel("acme", job.id, counting(), SAID)
    await store.close()
    assert points.count("recorded") == points.count("delivery_queued") == 2
    assert len(await all_of(await rig.open(), hook)) == 2


async def test_foreign_endpoints_are_met(watched: Watching) -> None:
    """An end decided before another process registered an endpoint is decided again, and told to it."""
    rig, store, backend = watched
    first = await hooked(rig, store)
    job = await put(store, rig.job())
    rig.clock.forward(1)
    hook = endpoint(rig)
    backend.meanwhile = lambda: register(stranger(rig, backend), hook)
    await store.cancel("acme", job.id, counting(), SAID)
    assert await store.list_endpoints("acme") == [first, hook]
    assert len(await all_of(store, hook)) == 1


async def test_disabled_endpoints_hear_nothing(rig: Rig, store: Engine) -> None:
    """Nothing is written down for an endpoint that is disabled, and nothing of its ends is told."""
    hook = await hooked(rig, store, disabled="asked")
    await ended(rig, store)
    assert await all_of(store, hook) == ()
    await register(store, replace(hook, disabled=None))
    assert await store.claim_deliveries(9, 1000) == []
