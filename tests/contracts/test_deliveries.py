"""Deliveries: leased oldest first without one endpoint holding up another, recorded once, kept a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record
from gateway.store.contract import Absent, Denied, Kept, Retention, Stale
from tests.contracts.beside import (
    LEASE,
    NO_WRITES,
    TOLD,
    all_of,
    delivered,
    ended,
    endpoint,
    failing,
    hooked,
    ids,
    lease,
    lines,
    register,
    trial,
    trials,
    writes,
)
from tests.contracts.rig import DAY, HOUR, SAID, Rig, counting, put, rounds

if TYPE_CHECKING:
    from gateway.store.engine import Engine

SILENCED = Record(action="webhook.disabled")


async def test_oldest_due_come_first(rig: Rig, store: Engine) -> None:
    """Deliveries of all tenants are leased in the order they are due, each once."""
    hooks = [await hooked(rig, store, tenant=f"t{number}") for number in range(3)]
    made = [name for turn in range(2) for hook in hooks for name in await trials(rig, store, hook, turn + 1)]
    rig.clock.forward(DAY)
    told = {each.id: each for hook in hooks for each in await all_of(store, hook)}
    claimed = ids(await lease(store, 5, each=9)) + ids(await store.claim_deliveries(99, LEASE, each=9))
    assert sorted(claimed) == sorted(made)
    due = [told[name].due_at or 0 for name in claimed]
    assert due == sorted(due)
    assert await store.claim_deliveries(9, LEASE) == []


async def test_poisoned_endpoint_delays_nobody(rig: Rig, store: Engine) -> None:
    """Behind ten thousand due deliveries of one endpoint fifty others' are leased at once."""
    bad = await hooked(rig, store, tenant="bad")
    good = [await hooked(rig, store, tenant=f"t{number % 7}") for number in range(50)]
    await trials(rig, store, bad, 10_000)
    rig.clock.forward(DAY)
    mine = [name for hook in good for name in await trials(rig, store, hook, 2)]
    first = ids(await lease(store, 64))
    rest = ids(await store.claim_deliveries(99, LEASE, busy=[bad.id]))
    assert len(set(first) - set(mine)) <= 4
    assert sorted((set(first) & set(mine)) | set(rest)) == sorted(mine)


async def test_busy_endpoints_are_passed(rig: Rig, store: Engine) -> None:
    """A claim takes no more of an endpoint than it says, and nothing of those that are busy."""
    hooks = [await hooked(rig, store) for _ in range(3)]
    for hook in hooks:
        await trials(rig, store, hook, 5)
    rig.clock.forward(1000)
    claimed = await store.claim_deliveries(99, LEASE, each=2, busy=[hooks[0].id])
    assert Counter(each.endpoint.id for each in claimed) == {hooks[1].id: 2, hooks[2].id: 2}


async def test_lost_delivery_lease_is_fenced(rig: Rig, store: Engine) -> None:
    """A delivery whose lease expired is leased anew; who had it changes neither it nor its endpoint."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    (old,) = await lease(store)
    rig.clock.forward(LEASE - 1)
    assert await store.claim_deliveries(1, LEASE) == []
    rig.clock.forward(1)
    (new,) = await lease(store)
    assert new.fence > old.fence
    assert await store.record_delivery(old, failing(why="gone"), SILENCED) == Stale()
    await store.release_deliveries([old])
    assert await store.claim_deliveries(1, LEASE) == []
    assert await store.list_endpoints("acme") == [hook]
    assert isinstance(await store.record_delivery(new, delivered), Kept)


async def test_delivery_is_recorded_once(rig: Rig, store: Engine) -> None:
    """Of a try recorded twice, at once or later, the first counts, for the endpoint too."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    (notice,) = await lease(store)
    one, two = await asyncio.gather(*(store.record_delivery(notice, failing()) for _ in range(2)))
    assert isinstance(one, Kept)
    assert two == await store.record_delivery(notice, delivered) == Stale()
    assert await all_of(store, hook) == (one.value,)
    assert [each.failures for each in await store.list_endpoints("acme")] == [1]
    assert await doctor.examine(store.backend, rig.chain) == []


async def test_failed_try_is_due_again(rig: Rig, store: Engine) -> None:
    """A delivery that failed is leased again when it is due, with its tries; a delivered one never."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    (notice,) = await lease(store)
    first = await store.record_delivery(notice, failing(wait=5000))
    rig.clock.forward(4999)
    assert await store.claim_deliveries(1, LEASE) == []
    rig.clock.forward(1)
    (again,) = await lease(store)
    assert isinstance(first, Kept)
    assert again.delivery == first.value
    done = await store.record_delivery(again, delivered)
    assert isinstance(done, Kept)
    rig.clock.forward(30 * DAY)
    assert await store.claim_deliveries(1, LEASE) == []
    (told,) = await all_of(store, hook)
    assert (told.state, [each.status for each in told.tries], told.due_at) == ("delivered", [500, 204], None)
    assert [each.failures for each in await store.list_endpoints("acme")] == [0]


async def test_tries_of_one_endpoint_add_up(rig: Rig, store: Engine) -> None:
    """Tries recorded at once each count from the endpoint as the one before left it."""
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 4)
    rig.clock.forward(1000)
    await asyncio.gather(*(store.record_delivery(each, failing()) for each in await lease(store, 4)))
    assert [each.failures for each in await store.list_endpoints("acme")] == [4]


async def disabled(rig: Rig, store: Engine) -> tuple[list[str], str]:
    """Disable an endpoint by a try while another is under way; return all its deliveries and the latter."""
    hook = await hooked(rig, store)
    made = await trials(rig, store, hook, 5)
    rig.clock.forward(1000)
    one, two = await lease(store, 2)
    answers = await asyncio.gather(
        store.record_delivery(one, failing(why="failing"), SILENCED),
        store.put_delivery(trial(rig, hook), counting(), TOLD, by="ann"),
    )
    assert isinstance(answers[0], Kept)
    assert isinstance(await store.record_delivery(two, failing(), SILENCED), Kept)
    return made, two.delivery.id


async def test_disabled_endpoint_keeps_deliveries(rig: Rig, store: Engine) -> None:
    """When a try disables its endpoint all undelivered ones stay pending and are due no more, ever."""
    made, under_way = await disabled(rig, store)
    (hook,) = await store.list_endpoints("acme")
    assert (hook.disabled, hook.failures) == ("failing", 2)
    told = {each.id: each for each in await all_of(store, hook)}
    assert len(told) == len(made) + 1
    assert {(each.state, each.due_at) for each in told.values()} == {("pending", None)}
    assert len(told[under_way].tries) == 1
    await register(store, replace(hook, disabled=None, failures=0))
    rig.clock.forward(DAY)
    assert await store.claim_deliveries(99, LEASE, each=99) == []


async def test_disabling_is_told_once(rig: Rig, store: Engine) -> None:
    """The trail tells of the endpoint's owner, once, in the word that says why; other tries tell nothing."""
    await disabled(rig, store)
    told = [line for line in await lines(store) if line.action == SILENCED.action]
    assert [(line.code, line.ref) for line in told] == [("failing", await store.ref_of("acme", "ann"))]


async def test_owner_disables_endpoint(rig: Rig, store: Engine) -> None:
    """An endpoint that its owner disables is sent nothing more, not even what is written down after it."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    off = replace(hook, disabled="asked")
    job = await put(store, rig.job())
    await asyncio.gather(
        store.put_delivery(trial(rig, hook), counting(), TOLD, by="ann"),
        register(store, off),
        store.cancel("acme", job.id, counting(), SAID),
        store.put_delivery(trial(rig, hook), counting(), TOLD, by="ann"),
        register(store, hook),
    )
    assert await store.claim_deliveries(9, LEASE) == []
    assert [each.due_at for each in await all_of(store, hook)] == [None] * 3
    await ended(rig, store)
    assert len(await lease(store)) == 1


async def test_redelivery_keeps_tries(rig: Rig, store: Engine) -> None:
    """A delivery put again is due again, with its tries and its word; whoever holds it has lost it."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    (notice,) = await lease(store)
    await store.record_delivery(notice, failing(wait=HOUR))
    (told,) = await all_of(store, hook)
    again = replace(told, event="x", tries=(), state="pending", due_at=rig.clock.at)
    kept = await store.put_delivery(again, counting(), TOLD, by="ann")
    assert kept == Kept(replace(told, due_at=rig.clock.at), replayed=True)
    (held,) = await lease(store)
    await store.put_delivery(again, counting(), TOLD, by="ann")
    assert await store.record_delivery(held, delivered) == Stale()
    (newest,) = await lease(store)
    assert newest.delivery.tries == told.tries


async def test_redelivery_after_enabling_is_sent(rig: Rig, store: Engine) -> None:
    """What a disabled endpoint missed is sent once it is asked for, one by one."""
    made, _under_way = await disabled(rig, store)
    (hook,) = await store.list_endpoints("acme")
    await register(store, replace(hook, disabled=None))
    missed = await store.get_delivery("acme", made[3])
    assert missed is not None
    await store.put_delivery(replace(missed, due_at=rig.clock.at), counting(), TOLD, by="ann")
    assert ids(await lease(store)) == [made[3]]


async def test_tests_need_their_endpoint(rig: Rig, store: Engine) -> None:
    """A test is counted, told and sent without a job; not to an absent endpoint nor above the window."""
    hook, stranger = await hooked(rig, store), endpoint(rig)
    asked = trial(rig, hook)
    put_one = await store.put_delivery(asked, counting(), TOLD, by="boss")
    assert put_one == Kept(asked)
    assert await store.put_delivery(trial(rig, stranger), counting(), TOLD, by="boss") == Absent()
    denied = await store.put_delivery(trial(rig, hook), counting(NO_WRITES), TOLD, by="boss")
    assert isinstance(denied, Denied)
    assert await writes(store, "boss") == 1
    (notice,) = await lease(store)
    assert (notice.delivery, notice.endpoint, notice.job) == (asked, hook, None)


async def test_released_deliveries_are_due(rig: Rig, store: Engine) -> None:
    """A lease given back is due at once or after a while, untried; one of a disabled endpoint is not."""
    hook = await hooked(rig, store)
    await ended(rig, store)
    (notice,) = await lease(store)
    await store.release_deliveries([notice], after_ms=500)
    assert await store.claim_deliveries(1, LEASE) == []
    rig.clock.forward(500)
    (again,) = await lease(store)
    assert again.delivery == notice.delivery
    await register(store, replace(hook, disabled="asked"))
    await store.release_deliveries([again])
    assert await store.claim_deliveries(1, LEASE) == []


async def test_restart_takes_delivery_leases_back(rig: Rig, store: Engine) -> None:
    """After a restart what was leased is due at once under a new fence, what waits for its try waits on."""
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 2)
    rig.clock.forward(1000)
    one, two = await lease(store, 2)
    await store.record_delivery(one, failing(wait=HOUR))
    await rig.shut(store)
    store = await rig.open()
    assert await store.record_delivery(two, delivered) == Stale()
    assert ids(await lease(store)) == [two.delivery.id]
    rig.clock.forward(HOUR)
    assert set(ids(await lease(store, 2))) == {one.delivery.id, two.delivery.id}


async def test_deliveries_are_paged(rig: Rig, store: Engine) -> None:
    """Pages show each delivery of an endpoint once, newest first, whatever is queued in between."""
    hook, other = await hooked(rig, store), await hooked(rig, store)
    made = await trials(rig, store, hook, 7)
    await trials(rig, store, other, 2)
    shown: list[str] = []
    before = None
    while True:
        page = await store.list_deliveries("acme", hook.id, before=before, limit=3)
        shown += [each.id for each in page.deliveries]
        await trials(rig, store, hook, 1)
        before = page.next
        if before is None:
            break
    assert shown == made[::-1]
    assert (await store.list_deliveries("other", hook.id, before=None, limit=3)).deliveries == ()


async def test_sent_deliveries_are_swept(rig: Rig, store: Engine) -> None:
    """Of old deliveries those of which nothing more is sent are removed, in bounded steps; others wait on."""
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 4)
    rig.clock.forward(1000)
    *sent, waiting = await lease(store, 4)
    await asyncio.gather(*(store.record_delivery(each, delivered) for each in sent))
    await store.record_delivery(waiting, failing(wait=99 * DAY))
    keeping = Retention(90 * DAY, 400 * DAY, deliveries_ms=30 * DAY)
    rig.clock.forward(30 * DAY - 1001)
    assert (await store.sweep(keeping)).deliveries == 0
    rig.clock.forward(1)
    swept = [await store.sweep(keeping, budget=2) for _ in range(3)]
    assert [(step.deliveries, step.more) for step in swept] == [(2, True), (1, False), (0, False)]
    assert [each.id for each in await all_of(store, hook)] == [waiting.delivery.id]


async def test_deliverer_hears_of_work(rig: Rig, store: Engine) -> None:
    """A deliverer that waits returns when a job ends, one is given back, or one is due."""
    hook = await hooked(rig, store)
    waiting = asyncio.create_task(store.deliveries_due(60.0))
    await rounds()
    assert not waiting.done()
    await ended(rig, store)
    await waiting
    notices = await lease(store)
    await store.deliveries_due(0.0)
    waiting = asyncio.create_task(store.deliveries_due(60.0))
    await rounds()
    assert not waiting.done()
    await store.release_deliveries(notices)
    await waiting
    await store.deliveries_due(60.0)
    assert len(await all_of(store, hook)) == 1


async def test_busy_endpoint_wakes_nobody(rig: Rig, store: Engine) -> None:
    """What is due at a busy endpoint does not end the wait, until a delivery of it is recorded."""
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 9)
    rig.clock.forward(1000)
    held, *_others = await lease(store, 4)
    assert await store.claim_deliveries(9, LEASE, busy=[hook.id]) == []
    waiting = asyncio.create_task(store.deliveries_due(60.0))
    await rounds()
    assert not waiting.done()
    await store.record_delivery(held, delivered)
    await waiting
    await store.deliveries_due(60.0)
    assert len(await lease(store, 1)) == 1


@pytest.mark.parametrize("taken", [True, False])
async def test_poisoned_try_fails_alone(rig: Rig, store: Engine, *, taken: bool) -> None:
    """A try that cannot be written fails by itself: its neighbor's is recorded, and it is still leased."""
    hook = await hooked(rig, store)
    await trials(rig, store, hook, 2)
    rig.clock.forward(1000)
    one, two = await lease(store, 2)
    rule = delivered if taken else failing()
    answers = await asyncio.gather(
        store.record_delivery(one, lambda told, at, _now: (replace(told, event="\ud800"), at)),
        store.record_delivery(two, rule),
        return_exceptions=True,
    )
    assert isinstance(answers[0], UnicodeEncodeError)
    assert isinstance(answers[1], Kept)
    assert isinstance(await store.record_delivery(one, rule), Kept)
