"""How work is shared out: turns, leases, fences, attempts, and who is woken by what."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.contract import (
    Asked,
    Begun,
    Canceled,
    Claim,
    Gone,
    JobFilter,
    Leases,
    Recorded,
    Remains,
    Replayed,
    Retention,
    Stale,
    Submitted,
)
from gateway.store.engine import LEASE_MS, LEASES, Engine
from policies import lifecycle
from policies.model import Job, JobState
from tests.contracts.rig import (
    DAY,
    NOVEMBER,
    SAID,
    Rig,
    attempt,
    counting,
    ending,
    put,
    rounds,
    submit,
    take,
)

if TYPE_CHECKING:
    from gateway.store.backend import Backend


async def claimed(rig: Rig, store: Engine, **fields: object) -> Claim:
    """Submit a job and lease it."""
    await put(store, rig.job(**fields))  # type: ignore[arg-type]
    (claim,) = await take(store)
    return claim


async def held(store: Engine) -> tuple[int, int, int]:
    """Return what ann has held, was charged, and has in flight."""
    user = (await store.usage("acme", "ann")).user
    return user.held, user.charged, user.flight


async def test_claims_come_oldest_first(rig: Rig, store: Engine) -> None:
    """A tenant's jobs are leased in the order they came, each once."""
    jobs = []
    for _ in range(5):
        jobs.append((await put(store, rig.job())).id)
        rig.clock.forward(1)
    claims = [*await store.claim(2, LEASE_MS), *await store.claim(9, LEASE_MS)]
    assert [claim.job.id for claim in claims] == jobs
    assert await store.claim(9, LEASE_MS) == []


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("n", [1, 3, 50])
async def test_tenants_take_turns(rig: Rig, store: Engine, n: int, step: int) -> None:
    """Whatever is claimed at once and however fast, no tenant is served twice more than another."""
    tenants = [f"t{number:02}" for number in range(20)]
    await asyncio.gather(*(put(store, rig.job(tenant)) for tenant in tenants for _ in range(10)))
    served: Counter[str] = Counter()
    while sum(served.values()) < 100:
        served.update(claim.job.tenant for claim in await store.claim(n, LEASE_MS))
        rig.clock.forward(step)
        assert max(served.values()) - min(served[tenant] for tenant in tenants) <= 1


async def test_weight_widens_turns(rig: Rig, store: Engine) -> None:
    """A tenant of weight four is given four jobs a turn where others get one."""
    for weight, tenant in ((4, "pro"), (1, "free")):
        await asyncio.gather(*(put(store, rig.job(tenant, weight=weight)) for _ in range(20)))
    served = Counter(claim.job.tenant for claim in await store.claim(20, LEASE_MS))
    assert served == {"pro": 16, "free": 4}


async def test_stale_turns_hide_none(rig: Rig, store: Engine) -> None:
    """Tenants whose turn has come and who have nothing due do not keep others from theirs."""
    for number in range(20):
        await put(store, rig.job(f"t{number:02}"))
    claims = await take(store, 20)
    rig.clock.forward(LEASE_MS // 2)
    await store.renew(claims, LEASE_MS)
    rig.clock.forward(LEASE_MS // 2)
    await put(store, rig.job("zoe"))
    assert [claim.job.tenant for claim in await store.claim(5, LEASE_MS)] == ["zoe"]


async def test_lost_lease_is_fenced(rig: Rig, store: Engine) -> None:
    """An expired lease is due again under a new fence, and the old one changes nothing any more."""
    old = await claimed(rig, store)
    rig.clock.forward(LEASE_MS - 1)
    assert await store.claim(1, LEASE_MS) == []
    rig.clock.forward(1)
    (new,) = await take(store)
    assert new.fence > old.fence
    assert await store.renew([old, new], LEASE_MS) == {old.job.id}
    assert await store.begin_attempt(old, attempt()) == Stale(new.job)
    assert isinstance(await store.record(old, ending(0), SAID), Stale)
    await store.give_back([old])
    assert await store.claim(1, LEASE_MS) == []
    assert isinstance(await store.begin_attempt(new, attempt()), Begun)
    assert await held(store) == (10, 0, 1)


async def test_renewed_lease_stays(rig: Rig, store: Engine) -> None:
    """A renewed lease runs from its renewal."""
    claim = await claimed(rig, store)
    rig.clock.forward(LEASE_MS - 1)
    assert await store.renew([claim], LEASE_MS) == frozenset()
    rig.clock.forward(LEASE_MS - 1)
    assert await store.claim(1, LEASE_MS) == []


async def test_open_attempt_outlasts_lease(rig: Rig, store: Engine) -> None:
    """While a paid call may be under way nobody else claims its job; once its id is noted, they may."""
    claim = await claimed(rig, store)
    begun = await store.begin_attempt(claim, attempt(deadline_at=NOVEMBER + 120_000))
    assert isinstance(begun, Begun)
    await store.renew([claim], LEASE_MS)
    rig.clock.forward(120_000 + LEASES.attempt_margin_ms - 1)
    assert await store.claim(1, LEASE_MS) == []
    named = attempt(deadline_at=NOVEMBER + 120_000, upstream_id="up_1")
    await store.note_attempt(Claim(begun.job, claim.fence), named)
    rig.clock.forward(LEASE_MS)
    (again,) = await take(store)
    assert again.job.attempts == (named,)


async def test_leases_are_as_given(rig: Rig) -> None:
    """What is leased is an engine's own for as long as it was built with, an open attempt with its margin."""
    engine = rig.engine(rig.backend(), leases=Leases(job_ms=2_000, attempt_margin_ms=1_000))
    await put(engine, rig.job())
    (claim,) = await engine.claim(1, 2_000)
    await engine.begin_attempt(claim, attempt(deadline_at=NOVEMBER + 5_000))
    rig.clock.forward(5_999)
    assert await engine.claim(1, 2_000) == []
    rig.clock.forward(1)
    assert len(await engine.claim(1, 2_000)) == 1
    await rig.shut(engine)


async def test_first_attempt_runs_job(rig: Rig, store: Engine) -> None:
    """Claims leave a job queued; the first attempt makes it run, and giving it back does not undo that."""
    claim = await claimed(rig, store)
    assert (claim.job.state, claim.job.version) == (JobState.QUEUED, 1)
    begun = await store.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)
    assert (begun.job.state, begun.job.version) == (JobState.RUNNING, 2)
    await store.give_back([claim], after_ms=500)
    assert await store.claim(1, LEASE_MS) == []
    rig.clock.forward(500)
    (again,) = await take(store)
    assert again.job == begun.job


@pytest.mark.parametrize(
    ("made", "code", "state", "charged"),
    [
        (4, "", JobState.SUCCEEDED, 40),
        (2, "upstream_failed", JobState.SUCCEEDED, 20),
        (0, "upstream_failed", JobState.FAILED, 0),
        (0, "upstream_refused", JobState.BLOCKED, 0),
    ],
)
async def test_record_charges_delivered_images(
    rig: Rig, store: Engine, made: int, code: str, state: JobState, charged: int
) -> None:
    """Each image delivered is charged, the rest of the hold comes back, and both together are the hold."""
    claim = await claimed(rig, store, count=4)
    await store.begin_attempt(claim, attempt())
    answer = await store.record(claim, ending(made, code), SAID)
    assert isinstance(answer, Recorded)
    assert (answer.job.state, answer.job.charged, answer.job.refunded) == (state, charged, 40 - charged)
    assert await held(store) == (0, charged, 0)
    assert await store.claim(1, 1) == []
    settle = (await store.ledger("acme"))[-1]
    assert (settle.entry.kind, settle.entry.charged, settle.entry.held) == ("settle", charged, -40)


async def test_record_settles_once(rig: Rig, store: Engine) -> None:
    """A record sent again, together or later, finds the job over and moves no money."""
    claim = await claimed(rig, store)
    await store.begin_attempt(claim, attempt())
    one, two = await asyncio.gather(*(store.record(claim, ending(1), SAID) for _ in range(2)))
    assert isinstance(one, Recorded)
    assert two == Stale(one.job) == await store.record(claim, ending(0), SAID)
    assert await held(store) == (0, 10, 0)


async def test_newest_worker_wins_batch(rig: Rig, store: Engine) -> None:
    """Two workers record one job in one batch: the newer lease counts, whichever came first."""
    old = await claimed(rig, store)
    await store.begin_attempt(old, attempt())
    rig.clock.forward(DAY)
    (new,) = await take(store)
    lost, won = await asyncio.gather(store.record(old, ending(0), SAID), store.record(new, ending(1), SAID))
    assert isinstance(lost, Stale)
    assert isinstance(won, Recorded)
    assert await held(store) == (0, 10, 0)


async def test_record_meets_later_job(rig: Rig, store: Engine) -> None:
    """A record from an older version of a job, its lease still held, is decided again from the newer."""
    claim = await claimed(rig, store)
    await store.begin_attempt(claim, attempt())
    asked = await store.cancel("acme", claim.job.id, counting(), SAID)
    assert isinstance(asked, Asked)
    answer = await store.record(claim, ending(1), SAID)
    assert isinstance(answer, Recorded)
    assert answer.job.version > asked.job.version
    assert answer.job.state is JobState.SUCCEEDED


@pytest.mark.parametrize("record_first", [True, False])
async def test_cancel_and_record_race(rig: Rig, store: Engine, *, record_first: bool) -> None:
    """Of a cancel and a record in one batch the first counts, and the hold is settled once."""
    claim = await claimed(rig, store)
    verbs = [store.record(claim, ending(0), SAID), store.cancel("acme", claim.job.id, counting(), SAID)]
    await asyncio.gather(*(verbs if record_first else verbs[::-1]))
    found = await store.get_job("acme", claim.job.id, "ann")
    assert found is not None
    assert found.job.state is (JobState.FAILED if record_first else JobState.CANCELED)
    assert await held(store) == (0, 0, 0)


async def test_cancel_and_attempt_race(rig: Rig, store: Engine) -> None:
    """A cancel beside the first attempt either ends the job unsent or asks its worker: never both."""
    claim = await claimed(rig, store)
    canceled, begun = await asyncio.gather(
        store.cancel("acme", claim.job.id, counting(), SAID), store.begin_attempt(claim, attempt())
    )
    assert (type(canceled), type(begun)) in {(Canceled, Stale), (Asked, Begun)}


async def test_canceled_job_stops_worker(rig: Rig, store: Engine) -> None:
    """A worker that was about to send for a job canceled meanwhile is told not to."""
    claim = await claimed(rig, store)
    ended = await store.cancel("acme", claim.job.id, counting(), SAID)
    assert isinstance(ended, Canceled)
    assert await store.begin_attempt(claim, attempt()) == Stale(ended.job)
    assert isinstance(await store.record(claim, lifecycle.overdue, SAID), Stale)


async def test_restart_takes_leases_back(rig: Rig, store: Engine) -> None:
    """After a restart every open job is due at once, and the leases of before are worth nothing."""
    claim = await claimed(rig, store)
    begun = await store.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)
    await rig.shut(store)
    again = await rig.open()
    assert await again.begin_attempt(Claim(begun.job, claim.fence), attempt(n=2)) == Stale(begun.job)
    (new,) = await take(again)
    assert new.job.attempts == begun.job.attempts
    assert new.fence > claim.fence


async def test_sweep_spares_open_jobs(rig: Rig, store: Engine) -> None:
    """The sweep removes ended jobs past their time, in bounded steps; open ones stay however old."""
    ended = [await put(store, rig.job()) for _ in range(3)]
    for job in ended:
        await store.cancel("acme", job.id, counting(), SAID)
    first = await submit(store, rig.job(), "k")
    assert isinstance(first, Submitted)
    rig.clock.forward(30 * DAY)
    late = await put(store, rig.job())
    await store.cancel("acme", late.id, counting(), SAID)
    keeping = Retention(30 * DAY, 400 * DAY)
    swept = [await store.sweep(keeping, budget=2) for _ in range(3)]
    assert [len(step.jobs) for step in swept] == [2, 1, 0]
    assert {job.id for step in swept for job in step.jobs} == {job.id for job in ended}
    assert [step.more for step in swept] == [True, False, False]
    left = (await store.list_jobs("acme", JobFilter(), before=None, limit=9)).jobs
    assert {job.id for job in left} == {first.job.id, late.id}
    assert not isinstance(await submit(store, rig.job(), "k"), Replayed)


class Keyless:
    """A back end that cannot remove keys, and is another one in all else."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def drop_keys(self, before: int, budget: int) -> int:
        """Fail."""
        raise StoreUnavailable(f"{before} {budget}")


async def test_sweep_goes_round_faults(rig: Rig) -> None:
    """Where a part of the sweep fails the others are done all the same, and the fault is told with them."""
    broken: Any = Keyless(rig.backend())
    store = rig.engine(broken)
    job = await put(store, rig.job())
    await store.cancel("acme", job.id, counting(), SAID)
    rig.clock.forward(30 * DAY)
    swept = await store.sweep(Retention(30 * DAY, 30 * DAY))
    assert ([each.id for each in swept.jobs], swept.links > 0, swept.users) == ([job.id], True, 1)
    assert [type(fault) for fault in swept.faults] == [StoreUnavailable]


async def test_remains_outlive_restarts(rig: Rig, store: Engine) -> None:
    """What a dropped job leaves is known from its drop on, erased or swept, until it is buried."""
    claims = [await claimed(rig, store) for _ in range(3)]
    for claim in claims:
        await store.begin_attempt(claim, attempt())
        await store.record(claim, ending(1), SAID)
    erased = [claim.job.id for claim in claims[:2]]
    for job in erased:
        rig.clock.forward(1)
        assert isinstance(await store.erase("acme", job, counting(), SAID), Gone)
    rig.clock.forward(30 * DAY)
    await store.sweep(Retention(30 * DAY, 400 * DAY))
    await rig.shut(store)
    store = await rig.open()
    remains = list(await store.remains())
    assert remains == [Remains("acme", claim.job.id, (f"{'0' * 16}/x",)) for claim in claims]
    assert await store.remains(1) == remains[:1]
    assert await store.buried(remains[1:])
    assert await store.remains() == remains[:1]
    assert await store.buried(remains)
    assert await store.remains() == []


async def test_waiter_is_woken(rig: Rig, store: Engine) -> None:
    """Those who wait for a job get its next version as soon as it is durable, and share the read."""
    claim = await claimed(rig, store)
    waiting = [asyncio.create_task(store.wait_job("acme", claim.job.id, 1, 60.0)) for _ in range(50)]
    await rounds()
    assert not any(task.done() for task in waiting)
    begun = await store.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)
    assert await asyncio.gather(*waiting) == [begun.job] * 50


async def test_waiter_misses_nothing(rig: Rig, store: Engine) -> None:
    """A job that has changed already is returned at once; one that has not, when the time is up."""
    job = await put(store, rig.job())
    assert await store.wait_job("acme", job.id, 0, 60.0) == job
    assert await store.wait_job("acme", job.id, 1, 0.0) == job
    assert await store.wait_job("acme", job.id, 1, 0.01) == job
    assert await store.wait_job("acme", rig.uuid(), 0, 60.0) is None


async def test_watch_tells_its_scope(rig: Rig, store: Engine) -> None:
    """A watch tells the changed jobs of its job, subject or tenant, those of before it looked too."""
    ann = await put(store, rig.job())
    tenant, subject, job = (
        store.watch("acme"), store.watch("acme", "ann"), store.watch("acme", job=ann.id)
    )  # fmt: skip
    bob = await put(store, rig.job(subject="bob"))
    await put(store, rig.job("other"))
    new = await put(store, rig.job())
    await store.cancel("acme", ann.id, counting(), SAID)
    assert await tenant.changed(1) == {ann.id, bob.id, new.id}
    assert await subject.changed(1) == {ann.id, new.id}
    assert await job.changed(1) == {ann.id}
    assert await job.changed(0) == frozenset()
    job.close()
    job.close()
    await store.cancel("acme", new.id, counting(), SAID)
    assert await job.changed(0.01) == frozenset()
    assert await subject.changed(0) == {new.id}


async def test_worker_hears_of_work(rig: Rig, store: Engine) -> None:
    """A worker that waits returns on a submit, on a job given back, and at once where one is due."""
    waiting = asyncio.create_task(store.work_due(60.0))
    await rounds()
    await put(store, rig.job())
    await waiting
    await store.work_due(60.0)
    claims = await take(store)
    await store.work_due(0.0)
    waiting = asyncio.create_task(store.work_due(60.0))
    await rounds()
    assert not waiting.done()
    await store.give_back(claims)
    await waiting


class Gated:
    """A back end whose next read of a job waits to fail, and which is another one in all else."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.gate: asyncio.Event | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def get(self, tenant: str, job: str) -> Job | None:
        """Read, or wait and fail."""
        if self.gate is not None:
            gate, self.gate = self.gate, None
            await gate.wait()
            raise StoreUnavailable("cut")
        return await self._backend.get(tenant, job)


async def test_canceled_sharer_stays_canceled(rig: Rig) -> None:
    """Who is canceled in the moment in which the read they share fails does not read on."""
    under: Any = Gated(rig.backend())
    store = rig.engine(under)
    job = await put(store, rig.job())
    gate = under.gate = asyncio.Event()
    reader = asyncio.create_task(store.wait_job("acme", job.id, job.version, 60))
    await rounds()
    sharer = asyncio.create_task(store.wait_job("acme", job.id, job.version, 60))
    await rounds()
    reader.add_done_callback(lambda _reader: sharer.cancel())
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.wait((reader, sharer))
    assert sharer.cancelled()
    assert isinstance(reader.exception(), StoreUnavailable)
