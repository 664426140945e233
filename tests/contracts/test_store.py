"""What callers may rely on of any store: submits, keys, lists, cancels, erasure, grants, counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record, decode
from gateway.errors import StoreUnavailable
from gateway.store.backend import KEYS_KEPT_MS
from gateway.store.contract import (
    Absent,
    Asked,
    Canceled,
    Claim,
    Conflict,
    Denied,
    Ended,
    Erased,
    Gone,
    JobFilter,
    Open,
    Replayed,
    Retention,
    Submitted,
)
from policies import quota
from policies.model import Deny, JobRequest, JobState, Reason, Usage
from tests.contracts.rig import (
    DAY,
    HOUR,
    NOVEMBER,
    OPEN_TERMS,
    SAID,
    WIDE,
    Rig,
    attempt,
    counting,
    ending,
    put,
    submit,
    take,
)

FOR_LONG = Retention(10 * DAY, 10 * DAY)

if TYPE_CHECKING:
    from gateway.store.engine import Engine

FULL = quota.Terms(WIDE, replace(WIDE, in_flight=1), 10**9)
"""One job in flight a user."""


async def test_submit_holds_and_stores(rig: Rig, store: Engine) -> None:
    """A submitted job is there with its first version, its hold, its place in time and a reference."""
    answer = await submit(store, rig.job(count=2))
    assert isinstance(answer, Submitted)
    job = answer.job
    assert (job.version, job.created_at, job.hold.amount, job.hold.month) == (1, NOVEMBER, 20, "2026-11")
    found = await store.get_job("acme", job.id, "ann")
    assert found is not None
    assert found.job == job
    assert found.usage == answer.usage == await store.usage("acme", "ann")
    assert (found.usage.user.held, found.usage.tenant.flight) == (20, 1)
    assert job.subject_ref == await store.ref_of("acme", "ann")


async def test_tenants_see_only_their_own(rig: Rig, store: Engine) -> None:
    """A job asked for under another tenant is not there, by read, list, cancel or erase."""
    job = await put(store, rig.job())
    assert await store.get_job("other", job.id, "ann") is None
    assert (await store.list_jobs("other", JobFilter(), before=None, limit=9)).jobs == ()
    assert await store.cancel("other", job.id, counting(), SAID) == Absent()
    assert await store.erase("other", job.id, counting(), SAID) == Absent()
    assert await store.usage("other", "ann") == Usage()


async def test_denied_submit_writes_nothing(rig: Rig, store: Engine) -> None:
    """A submit that is denied leaves figures, jobs and ledger as they are, and one line of the trail."""
    before = await put(store, rig.job())
    answer = await submit(store, rig.job(), terms=FULL)
    assert isinstance(answer, Denied)
    assert answer.deny.reason is Reason.TOO_MANY_IN_FLIGHT
    assert (await store.list_jobs("acme", JobFilter(), before=None, limit=9)).jobs == (before,)
    assert (await store.usage("acme", "ann")).user.flight == 1
    assert {row.entry.job for row in await store.ledger("acme") if row.entry.job} == {before.id}
    assert len(await store.audit_page("acme")) == 2


async def test_same_key_replays_job(rig: Rig, store: Engine) -> None:
    """The same request under the same key is the same job, in one batch or later, however it stands now."""
    first, again = await asyncio.gather(*(submit(store, rig.job(), "k") for _ in range(2)))
    assert isinstance(first, Submitted)
    assert again == await submit(store, rig.job(), "k") == Replayed(first.job, first.usage)
    await store.cancel("acme", first.job.id, counting(), SAID)
    later = await submit(store, rig.job(), "k")
    assert isinstance(later, Replayed)
    assert later.job.state is JobState.CANCELED


async def test_full_quota_still_replays(rig: Rig, store: Engine) -> None:
    """A replay is answered with its job even where a new submit would be denied."""
    first = await submit(store, rig.job(), "k", FULL)
    assert isinstance(first, Submitted)
    assert isinstance(await submit(store, rig.job(), "k2", FULL), Denied)
    again = await submit(store, rig.job(), "k", FULL)
    assert isinstance(again, Replayed)
    assert again.job == first.job
    await rig.shut(store)
    reopened = await submit(await rig.open(), rig.job(), "k", FULL)
    assert isinstance(reopened, Replayed)


async def test_key_binds_its_request(rig: Rig, store: Engine) -> None:
    """Another request under a bound key is a conflict, whether admitted by itself or not."""
    await submit(store, rig.job(), "k", FULL)
    assert await submit(store, rig.job(prompt="a ship"), "k", OPEN_TERMS) == Conflict()
    assert await submit(store, rig.job(prompt="a ship"), "k", FULL) == Conflict()


async def test_key_belongs_to_user(rig: Rig, store: Engine) -> None:
    """Users and tenants do not meet in their keys."""
    users = [("acme", "ann"), ("acme", "bob"), ("other", "ann"), ("acm", "eann")]
    answers = [await submit(store, rig.job(*user), "k") for user in users]
    assert all(isinstance(answer, Submitted) for answer in answers)


async def test_key_lives_three_days(rig: Rig, store: Engine) -> None:
    """A key answers until 72 hours are over, sweeps or not, and then makes a new job."""
    first = await submit(store, rig.job(), "k")
    rig.clock.forward(KEYS_KEPT_MS - 1)
    assert (await store.sweep(Retention(0, 0, keys_ms=1))).keys == 0
    assert isinstance(await submit(store, rig.job(), "k"), Replayed)
    rig.clock.forward(1)
    anew = await submit(store, rig.job(), "k")
    assert isinstance(first, Submitted)
    assert isinstance(anew, Submitted)
    again = await submit(store, rig.job(), "k")
    assert isinstance(again, Replayed)
    assert again.job.id == anew.job.id != first.job.id


async def test_swept_key_is_free(rig: Rig, store: Engine) -> None:
    """A key past its time is removed by the sweep, and only then counted."""
    await submit(store, rig.job(), "k")
    rig.clock.forward(KEYS_KEPT_MS)
    assert (await store.sweep(Retention(10 * DAY, 10 * DAY))).keys == 1
    assert isinstance(await submit(store, rig.job(), "k"), Submitted)


async def test_repeated_job_is_ours(rig: Rig, store: Engine) -> None:
    """The very job sent twice, in one batch or two, is stored and held once."""
    job = rig.job()
    answers = [*await asyncio.gather(submit(store, job), submit(store, job)), await submit(store, job)]
    assert all(isinstance(answer, Submitted) for answer in answers)
    assert (await store.usage("acme", "ann")).user.held == 10


async def test_cancel_queued_refunds_all(rig: Rig, store: Engine) -> None:
    """A queued job is canceled at once, its hold comes back, and a second cancel finds it ended."""
    job = await put(store, rig.job(count=4))
    answer = await store.cancel("acme", job.id, counting(), SAID)
    assert isinstance(answer, Canceled)
    assert (answer.job.state, answer.job.charged, answer.job.refunded) == (JobState.CANCELED, 0, 40)
    usage = await store.usage("acme", "ann")
    assert (usage.user.held, usage.user.flight, usage.tenant.spent) == (0, 0, 0)
    assert await store.cancel("acme", job.id, counting(), SAID) == Ended(answer.job)
    assert await store.claim(1, 1000) == []


async def test_cancel_running_asks_worker(rig: Rig, store: Engine) -> None:
    """A running job is not ended under its worker: it is asked, once, and keeps its hold."""
    await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    asked = await store.cancel("acme", claim.job.id, counting(), SAID)
    assert isinstance(asked, Asked)
    assert asked.job.cancel_requested_at == NOVEMBER
    assert await store.cancel("acme", claim.job.id, counting(), SAID) == asked
    assert (await store.usage("acme", "ann")).user.held == 10


async def test_denied_cancel_changes_nothing(rig: Rig, store: Engine) -> None:
    """A cancel above the window of writes is denied and the job stays as it is."""
    job = await put(store, rig.job())
    none = replace(OPEN_TERMS, user=replace(WIDE, write=0))
    answer = await store.cancel("acme", job.id, counting(none), SAID)
    assert isinstance(answer, Denied)
    found = await store.get_job("acme", job.id, "ann")
    assert found is not None
    assert found.job == job


async def test_admins_call_under_their_name(rig: Rig, store: Engine) -> None:
    """A cancel or delete of another's job is counted and told as the caller's; the hold is the owner's."""
    running = await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    queued = await put(store, rig.job())
    asked = await store.cancel("acme", running.id, counting(), SAID, by="boss")
    canceled = await store.cancel("acme", queued.id, counting(), SAID, by="boss")
    gone = await store.erase("acme", queued.id, counting(), SAID, by="boss")
    assert [type(answer) for answer in (asked, canceled, gone)] == [Asked, Canceled, Gone]
    ann, boss = await store.usage("acme", "ann"), await store.usage("acme", "boss")
    assert (ann.user.held, ann.user.flight, boss.user.held) == (10, 1, 0)
    assert "write" not in ann.user.windows
    assert boss.user.windows["write"].count == boss.tenant.windows["write"].count == 3
    told = [line.ref for link in (await store.audit_page("acme"))[:3] for line in decode(link.rows)]
    assert told == [await store.ref_of("acme", "boss")] * 3


async def test_admins_are_denied_under_their_name(rig: Rig, store: Engine) -> None:
    """A call above the caller's own window is denied and told as theirs, whoever owns the job."""
    job = await put(store, rig.job())
    none = replace(OPEN_TERMS, user=replace(WIDE, write=0))
    assert isinstance(await store.cancel("acme", job.id, counting(none), SAID, by="boss"), Denied)
    ((line,),) = [decode(link.rows) for link in (await store.audit_page("acme"))[:1]]
    assert (line.decision, line.ref) == ("deny", await store.ref_of("acme", "boss"))


async def test_cancel_and_erase_together(rig: Rig, store: Engine) -> None:
    """A job canceled and erased in one batch is gone, with its hold back and its place in the queue."""
    job = await put(store, rig.job())
    canceled, gone = await asyncio.gather(
        store.cancel("acme", job.id, counting(), SAID), store.erase("acme", job.id, counting(), SAID)
    )
    assert isinstance(canceled, Canceled)
    assert gone == Gone(canceled.job)
    assert await store.get_job("acme", job.id, "ann") is None
    assert (await store.usage("acme", "ann")).user.held == 0
    assert await store.claim(1, 1000) == []


async def test_erased_key_stays_bound(rig: Rig, store: Engine) -> None:
    """An open job is not erased; an ended one is, and its key then tells so instead of making another."""
    job = await submit(store, rig.job(), "k")
    assert isinstance(job, Submitted)
    assert await store.erase("acme", job.job.id, counting(), SAID) == Open()
    await store.cancel("acme", job.job.id, counting(), SAID)
    none = replace(OPEN_TERMS, tenant=replace(WIDE, write=0))
    assert isinstance(await store.erase("acme", job.job.id, counting(none), SAID), Denied)
    assert isinstance(await store.erase("acme", job.job.id, counting(), SAID), Gone)
    assert await store.erase("acme", job.job.id, counting(), SAID) == Absent()
    assert await submit(store, rig.job(), "k") == Erased()


async def test_pages_hold_under_inserts(rig: Rig, store: Engine) -> None:
    """Paging newest first shows every old job once, whatever is submitted between two pages."""
    old = [(await put(store, rig.job())).id for _ in range(7)]
    seen: list[str] = []
    before: int | None = None
    while True:
        page = await store.list_jobs("acme", JobFilter(), before=before, limit=3)
        seen += [job.id for job in page.jobs]
        await put(store, rig.job())
        before = page.next
        if before is None:
            break
    assert seen == old[::-1]


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        (JobFilter(), [3, 2, 1, 0]),
        (JobFilter(subject="ann"), [3, 1, 0]),
        (JobFilter(states=frozenset({JobState.CANCELED})), [0]),
        (JobFilter(states=frozenset({JobState.QUEUED, JobState.CANCELED}), subject="ann"), [3, 1, 0]),
        (JobFilter(operation="edit"), [3]),
        (JobFilter(operation="generate"), [2, 1, 0]),
        (JobFilter(model="fine"), [2]),
        (JobFilter(created_after=NOVEMBER + 1000), [3, 2]),
        (JobFilter(created_before=NOVEMBER + 1000), [0]),
        (JobFilter(metadata={"a.b": "1", "c": "x"}), [3]),
        (JobFilter(metadata={"a": "1"}), []),
    ],
)
async def test_list_filters_jobs(rig: Rig, store: Engine, where: JobFilter, numbers: list[int]) -> None:
    """Each filter keeps exactly the jobs it names, and together they all hold."""
    tagged = JobRequest(prompt="p", operation="edit", metadata={"a.b": "1", "c": "x"})
    jobs = [rig.job(), rig.job(), rig.job(subject="bob", model="fine"), replace(rig.job(), request=tagged)]
    for number, job in enumerate(jobs):
        await put(store, job)
        if number == 0:
            await store.cancel("acme", job.id, counting(), SAID)
        rig.clock.forward(1000)
    page = await store.list_jobs("acme", where, before=None, limit=9)
    assert [job.id for job in page.jobs] == [jobs[number].id for number in numbers]
    assert page.next is None


async def test_position_counts_older_queued(rig: Rig, store: Engine) -> None:
    """A job's position is how many of its tenant's queued jobs are older: running and ended ones are not."""
    jobs = [await put(store, rig.job()) for _ in range(4)]
    await put(store, rig.job("other"))
    assert [await store.position("acme", job) for job in jobs] == [0, 1, 2, 3]
    await store.cancel("acme", jobs[1].id, counting(), SAID)
    (claim,) = [claim for claim in await take(store, 4) if claim.job.id == jobs[0].id]
    await store.begin_attempt(claim, attempt())
    assert await store.position("acme", jobs[3]) == 1


async def test_grant_is_given_once(rig: Rig, store: Engine) -> None:
    """A grant under a key is given once for ever, to the tenant or to one user."""

    def to_tenant(usage: Usage, now: int) -> quota.Posted:
        return quota.grant(usage, now, 50, "tenant")

    def to_user(usage: Usage, now: int) -> quota.Posted:
        return quota.grant(usage, now, 30, "user")

    given = await store.grant("acme", None, to_tenant, "g1", Record(action="grant"))
    assert (given.replayed, given.usage.tenant.granted) == (False, 50)
    rig.clock.forward(100 * DAY)
    await store.sweep(Retention(0, 400 * DAY))
    again = await store.grant("acme", None, to_tenant, "g1", Record(action="grant"))
    assert (again.replayed, again.usage.tenant.granted) == (True, 50)
    user = await store.grant("acme", "ann", to_user, "g2", Record(action="grant"))
    assert (user.usage.user.granted, user.usage.tenant.granted) == (30, 50)
    assert [row.ref != "" for row in await store.ledger("acme")] == [False, True]


async def test_old_grant_is_given_once(rig: Rig, store: Engine) -> None:
    """A grant's key of long ago is found too when what else is written just then refuses the first answer."""

    def post(usage: Usage, now: int) -> quota.Posted:
        return quota.grant(usage, now, 50, "tenant")

    await put(store, rig.job())
    first = await store.grant("acme", None, post, "g1", SAID)
    rig.clock.forward(4 * DAY)
    (claim,) = await take(store)
    again, *_rest = await asyncio.gather(
        store.grant("acme", None, post, "g1", SAID),
        store.cancel("acme", claim.job.id, counting(), SAID),
        store.begin_attempt(claim, attempt()),
    )
    assert (again.replayed, again.usage.tenant.granted) == (True, first.usage.tenant.granted)


async def test_leap_of_the_clock_heals(rig: Rig, store: Engine) -> None:
    """Jobs that come after a clock that leapt ahead was put right are due at once."""
    rig.clock.forward(3 * HOUR)
    await put(store, rig.job())
    rig.clock.forward(-3 * HOUR)
    job = await put(store, rig.job())
    assert [claim.job.id for claim in await store.claim(9, 60_000)] == [job.id]


async def test_count_holds_its_window(rig: Rig, store: Engine) -> None:
    """Calls are counted up to the limit, denied until the window ends, and counted again then."""
    few = replace(OPEN_TERMS, user=replace(WIDE, write=2))
    for _ in range(2):
        assert isinstance(await store.count("acme", "ann", counting(few)), Usage)
        rig.clock.forward(1000)
    denied = await store.count("acme", "ann", counting(few))
    assert isinstance(denied, Deny)
    assert denied.retry_after_ms == HOUR - 2000
    rig.clock.forward(HOUR - 2001)
    assert isinstance(await store.count("acme", "ann", counting(few)), Deny)
    rig.clock.forward(1)
    assert isinstance(await store.count("acme", "ann", counting(few)), Usage)


async def test_time_never_goes_back(rig: Rig, store: Engine) -> None:
    """A tenant's time stands still while the host's clock is behind it."""
    await put(store, rig.job())
    rig.clock.forward(-40 * DAY)
    job = await put(store, rig.job())
    assert (job.created_at, job.hold.month) == (NOVEMBER, "2026-11")


async def test_month_starts_afresh(rig: Rig, store: Engine) -> None:
    """A new month fills the tenant up to its plan and frees the cap; November's refund leaves December's."""
    terms = quota.Terms(replace(WIDE, monthly_cap=100), WIDE, 100)
    old = await submit(store, rig.job(price_each=90), terms=terms)
    assert isinstance(old, Submitted)
    assert isinstance(await submit(store, rig.job(price_each=20), terms=terms), Denied)
    rig.clock.forward(30 * DAY)
    assert isinstance(await submit(store, rig.job(price_each=20), terms=terms), Submitted)
    tenant = (await store.usage("acme", "ann")).tenant
    assert (tenant.month, tenant.spent, tenant.granted, tenant.available) == ("2026-12", 20, 190, 80)
    await store.cancel("acme", old.job.id, counting(), SAID)
    tenant = (await store.usage("acme", "ann")).tenant
    assert (tenant.spent, tenant.available) == (20, 170)


async def test_ledger_pages_whole_versions(rig: Rig, store: Engine) -> None:
    """A reader who continues above the last version it got misses no entry, however small its pages."""
    await asyncio.gather(*(put(store, rig.job()) for _ in range(5)))
    await asyncio.gather(*(put(store, rig.job()) for _ in range(4)))
    whole = await store.ledger("acme")
    assert len(whole) == 10
    for limit in range(1, 12):
        paged = list(await store.ledger("acme", limit=limit))
        while more := await store.ledger("acme", after=paged[-1].version, limit=limit):
            paged += more
        assert paged == whole


async def test_reopened_store_has_all(rig: Rig, store: Engine) -> None:
    """What was answered is there after close and open: jobs, figures, keys, ledger, trail, queue."""
    job = await put(store, rig.job())
    await submit(store, rig.job(), "k")
    await store.cancel("acme", job.id, counting(), SAID)
    before = [await store.usage("acme", "ann"), await store.ledger("acme"), await store.audit_page("acme")]
    await rig.shut(store)
    again = await rig.open()
    assert before == [
        await again.usage("acme", "ann"), await again.ledger("acme"), await again.audit_page("acme")
    ]  # fmt: skip
    assert isinstance(await submit(again, rig.job(), "k"), Replayed)
    await take(again)


async def test_closed_store_says_so(rig: Rig, store: Engine) -> None:
    """Close writes what was accepted; after it every verb says the store is unavailable."""
    await store.ping()
    waiting = [asyncio.create_task(submit(store, rig.job())) for _ in range(3)]
    await asyncio.sleep(0)
    await rig.shut(store)
    assert {type(answer) for answer in await asyncio.gather(*waiting)} == {Submitted}
    job = rig.job()
    for verb in (
        submit(store, job), store.ping(), store.claim(1, 1), store.get_job("acme", job.id, "ann"),
        store.begin_attempt(Claim(job, 1), attempt()), store.record(Claim(job, 1), ending(1), SAID),
    ):  # fmt: skip
        with pytest.raises(StoreUnavailable):
            await verb


async def test_idle_users_are_forgotten(rig: Rig, store: Engine) -> None:
    """Figures that tell nothing go step by step; who paid, counts or was given stays, and each reference."""
    await put(store, rig.job())
    await store.grant("acme", "bob", lambda usage, now: quota.grant(usage, now, 5, "user"), "g", SAID)
    for subject in ("cat", "dan", "eve"):
        await store.append_audit("acme", subject, SAID)
        await store.count("acme", subject, counting())
    refs = {name: await store.ref_of("acme", name) for name in ("ann", "bob", "cat", "dan", "eve")}
    rig.clock.forward(HOUR - 1)
    assert (await store.sweep(FOR_LONG)).users == 0
    rig.clock.forward(1)
    before = {name: await store.usage("acme", name) for name in refs}
    assert sum([(await store.sweep(FOR_LONG, budget=2)).users for _ in range(9)]) == 3
    assert sum([(await store.sweep(FOR_LONG)).users for _ in range(3)]) == 0
    assert {name: await store.ref_of("acme", name) for name in refs} == refs
    after = {name: await store.usage("acme", name) for name in refs}
    assert {name: usage.user.windows for name, usage in after.items() if name not in ("ann", "bob")} == {
        "cat": {}, "dan": {}, "eve": {}
    }  # fmt: skip
    assert (after["ann"], after["bob"]) == (before["ann"], before["bob"])
    await store.count("acme", "eve", counting())
    assert (await store.usage("acme", "eve")).user.windows["write"].count == 1
    assert await store.ref_of("acme", "eve") == refs["eve"]
    assert await doctor.examine(store.backend, rig.chain) == []
