"""Who comes first: tenants in turn whatever their backlog, interactive jobs before batch, and what waits."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.store.backend import Applied, Change, JobPut
from gateway.store.contract import Begun, Claim, Recorded
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.format import Forms
from policies.model import Priority
from policies.order import PRIORITIES, SHARE, Backlog, Line
from tests.contracts.rig import NOVEMBER, SAID, Rig, attempt, counting, ending, put, take

MANY = 10_000


async def fill(
    rig: Rig, store: Engine, n: int, tenant: str = "acme", priority: Priority = "interactive"
) -> None:
    """Submit jobs, and let a millisecond pass."""
    await asyncio.gather(*(put(store, rig.job(tenant, priority=priority)) for _ in range(n)))
    rig.clock.forward(1)


async def heap(rig: Rig, store: Engine, n: int, tenant: str) -> None:
    """Put jobs into the queue as a back end is given them, five hundred a commit; a millisecond passes."""
    jobs = [replace(rig.job(tenant), version=1, created_at=rig.clock.at) for _ in range(n)]
    for at in range(0, n, 500):
        puts = [JobPut(job, Forms().written(job)[1], 0, due=rig.clock.at) for job in jobs[at : at + 500]]
        assert await store.backend.commit([Change(tenant, rig.clock.at, puts=puts)]) == [Applied()]
    rig.clock.forward(1)


async def served(store: Engine, rounds: int, n: int = 1) -> list[str]:
    """Claim in rounds; return whose jobs came, and of which line, in their order."""
    claims = [claim for _ in range(rounds) for claim in await store.claim(n, LEASE_MS)]
    return [f"{claim.job.tenant} {claim.job.priority}" for claim in claims]


async def test_huge_backlog_delays_nobody(rig: Rig, store: Engine) -> None:
    """Behind ten thousand due jobs of one tenant another's first is among the next two claimed."""
    await heap(rig, store, MANY, "busy")
    await store.claim(64, LEASE_MS)
    await fill(rig, store, 3, "calm")
    assert "calm interactive" in await served(store, 2)
    await fill(rig, store, 1, "late")
    assert "late interactive" in await served(store, 1, 3)


@pytest.mark.parametrize("n", [1, 5, 64])
async def test_interactive_goes_first(rig: Rig, store: Engine, n: int) -> None:
    """While interactive jobs wait, one place of eight is batch's, however many are claimed at once."""
    await fill(rig, store, 3 * SHARE, "old", "batch")
    for tenant in ("ann", "bob"):
        await fill(rig, store, 4 * SHARE, tenant)
    came = await served(store, 64 // n, n)
    late = sum(each == "old batch" for each in came)
    assert late == len(came) // SHARE
    lines = Counter(came)
    assert abs(lines["ann interactive"] - lines["bob interactive"]) <= 1


async def test_batch_takes_what_is_free(rig: Rig, store: Engine) -> None:
    """Where fewer interactive jobs wait than there is room for, batch gets the rest, its tenants in turn."""
    await fill(rig, store, 2, "ann")
    for tenant in ("x", "y"):
        await fill(rig, store, 9, tenant, "batch")
    assert Counter(await served(store, 1, 10)) == {"ann interactive": 2, "x batch": 4, "y batch": 4}
    assert Counter(await served(store, 9)) == {"x batch": 5, "y batch": 4}


async def test_absent_batch_is_owed_nothing(rig: Rig, store: Engine) -> None:
    """What interactive jobs took while no batch waited is not made up for later."""
    await fill(rig, store, 64)
    await served(store, 40)
    await fill(rig, store, 20, "old", "batch")
    assert (await served(store, SHARE)).count("old batch") == 1
    assert (await served(store, 8)).count("old batch") == 1


async def test_one_tenant_has_both_lines(rig: Rig, store: Engine) -> None:
    """A tenant's own batch stands behind its interactive jobs, and counts only for batch's position."""
    late = await put(store, rig.job(priority="batch"))
    later = await put(store, rig.job(priority="batch"))
    first = await put(store, rig.job())
    assert [await store.position("acme", job) for job in (late, later, first)] == [0, 1, 0]
    assert await doctor.examine(store.backend, rig.chain) == []
    (claim,) = await take(store)
    assert claim.job.id == first.id
    assert {each.job.id for each in await take(store, 2)} == {late.id, later.id}


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_each_line_keeps_leases(rig: Rig, store: Engine, priority: Priority) -> None:
    """Leases, attempts, returns and ends are the same in both lines."""
    await fill(rig, store, 2, priority=priority)
    one, two = await take(store, 2)
    rig.clock.forward(LEASE_MS - 1)
    assert await store.renew([one], LEASE_MS) == frozenset()
    rig.clock.forward(1)
    (again,) = await take(store)
    assert again.job.id == two.job.id
    assert again.fence > two.fence
    assert await store.renew([two], LEASE_MS) == {two.job.id}
    await store.give_back([again])
    (back,) = await take(store)
    begun = await store.begin_attempt(back, attempt(deadline_at=rig.clock.at + 10 * LEASE_MS))
    assert isinstance(begun, Begun)
    rig.clock.forward(2 * LEASE_MS)
    assert [each.job.id for each in await store.claim(9, LEASE_MS)] == [one.job.id]
    answer = await store.record(Claim(begun.job, back.fence), ending(1), SAID)
    assert isinstance(answer, Recorded)
    await store.cancel("acme", one.job.id, counting(), SAID)
    rig.clock.forward(20 * LEASE_MS)
    assert await store.claim(9, LEASE_MS) == []
    assert (await store.backend.examine("acme")).queued == frozenset()


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_worker_hears_of_each_line(rig: Rig, store: Engine, priority: Priority) -> None:
    """A worker that waits looks as soon as something of either line is due."""
    await fill(rig, store, 1, priority=priority)
    await asyncio.wait_for(store.work_due(60.0), 5)
    assert await store.backend.next_due() == NOVEMBER


@pytest.mark.parametrize("priority", PRIORITIES)
async def test_restart_frees_each_line(rig: Rig, store: Engine, priority: Priority) -> None:
    """What a process held when it ended is due again for the next, in the line it stood in."""
    await fill(rig, store, 1, priority=priority)
    (held,) = await take(store)
    await rig.shut(store)
    (claim,) = await take(await rig.open())
    assert (claim.job.id, claim.job.priority) == (held.job.id, priority)


async def test_backlog_counts_what_waits(rig: Rig, store: Engine) -> None:
    """The backlog is what is due and not leased, of all tenants, a line, and since when the first is due."""
    assert await store.backlog() == Backlog(NOVEMBER)
    for tenant in ("acme", "ben"):
        await fill(rig, store, 2, tenant)
    await fill(rig, store, 3, "zoe", "batch")
    at = rig.clock.at
    assert await store.backlog() == Backlog(at, Line(4, NOVEMBER), Line(3, NOVEMBER + 2))
    claims = await take(store, 5)
    assert await store.backlog() == Backlog(at, Line(), Line(2, NOVEMBER + 2))
    await store.give_back(claims[:1], after_ms=10)
    assert (await store.backlog()).interactive == Line()
    rig.clock.forward(10)
    assert (await store.backlog()).interactive == Line(1, at + 10)
    rig.clock.forward(LEASE_MS)
    assert (await store.backlog()).interactive == Line(4, at + 10)


async def test_ended_jobs_leave_the_backlog(rig: Rig, store: Engine) -> None:
    """A job that was canceled, recorded or is under way does not wait."""
    for priority in PRIORITIES:
        await fill(rig, store, 3, priority=priority)
    claims = await take(store, 6)
    for claim in claims[:2]:
        await store.begin_attempt(claim, attempt(deadline_at=rig.clock.at + LEASE_MS))
        await store.record(claim, ending(1), SAID)
    for claim in claims[2:4]:
        await store.begin_attempt(claim, attempt(deadline_at=rig.clock.at + 9 * LEASE_MS))
    await store.give_back(claims[4:])
    for claim in claims[4:]:
        await store.cancel("acme", claim.job.id, counting(), SAID)
    rig.clock.forward(LEASE_MS)
    assert await store.backlog() == Backlog(rig.clock.at)
    rig.clock.forward(9 * LEASE_MS)
    seen = await store.backlog()
    assert seen.interactive.depth + seen.batch.depth == 2
