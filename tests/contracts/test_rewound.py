"""A store that lost what it had confirmed: who notices, what is closed, and how it is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import pytest

from gateway import doctor
from gateway.audit import Record, decode
from gateway.errors import StoreClosed, StoreUnavailable
from gateway.store.backend import Strange, Want
from gateway.store.contract import (
    Begun,
    Claim,
    Found,
    Kept,
    Notice,
    Recorded,
    Retention,
    Shut,
    Stale,
    Submitted,
)
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.flight import Patience
from gateway.store.gate_moves import SYSTEM
from policies import quota
from policies.model import Job, Usage
from tests.contracts.beside import LEASE, delivered, failing, hooked, lease, trials
from tests.contracts.rig import (
    DAY,
    HOUR,
    NOVEMBER,
    OPENERS,
    SAID,
    attempt,
    counting,
    ending,
    put,
    rounds,
    submit,
    take,
)
from tests.contracts.swapped import TwoStories

LINE = Record(action="x")
Verb = Callable[[TwoStories, Job], Awaitable[object]]


@pytest.fixture(params=sorted(OPENERS))
async def two(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[TwoStories]:
    """A store, and what it will go back to."""
    made = TwoStories(request.param, place)
    await made.open()
    yield made
    await made.close()


def give(usage: Usage, _now: int) -> quota.Posted:
    """Give nothing: what is posted does not matter here."""
    return quota.Posted(usage, ())


VERBS: dict[str, Verb] = {
    "submit": lambda two, _job: submit(two.store, two.rig.job()),
    "cancel": lambda two, job: two.store.cancel("acme", job.id, counting(), SAID),
    "count": lambda two, _job: two.store.count("acme", "ann", counting()),
    "grant": lambda two, _job: two.store.grant("acme", None, give, "g", SAID),
    "say": lambda two, _job: two.store.append_audit("acme", "ann", LINE),
}


async def of(store: Engine, tenant: str = "acme") -> Shut | None:
    """Return why a tenant is closed."""
    (loaded,) = await store.backend.load([Want(tenant)])
    assert loaded.state is not None
    return loaded.state.doc.shut


async def lines(store: Engine, tenant: str) -> list[Record]:
    """Return the lines of a trail, oldest first."""
    return [line for link in await store.audit_page(tenant, order="up") for line in decode(link.rows)]


async def noticed(two: TwoStories, store: Engine | None = None) -> Shut | None:
    """Have an engine meet what is there, twice: by the second time it is written down. Return the mark."""
    for _ in range(2):
        with pytest.raises(StoreClosed):
            await submit(store or two.store, two.rig.job())
    return await of(two.older)


@pytest.mark.parametrize("verb", sorted(VERBS))
async def test_lower_version_closes_tenant(two: TwoStories, verb: str) -> None:
    """Whatever meets a version below the known one is refused, changes nothing, and closes the tenant."""
    (job,) = await two.both()
    lost = [await put(two.store, two.rig.job()) for _ in range(3)]
    known, me = (await two.store.audit_page("acme"))[0], two.under.me
    before = await two.older.usage("acme", "ann")
    there = (await two.older.audit_page("acme"))[0]
    two.go_back()
    with pytest.raises(StoreClosed):
        await VERBS[verb](two, job)
    with pytest.raises(StoreClosed):
        await VERBS[verb](two, job)
    assert await two.store.usage("acme", "ann") == before
    assert (known.version, there.version) == (4, 1)
    want = Shut(NOVEMBER, me, 4, known.head, 1, there.head)
    assert await of(two.older) == want
    assert [(tenant, why.version, why.found) for tenant, why in two.told] == [("acme", 4, 1)]
    assert await two.older.get_job("acme", lost[0].id, "ann") is None


async def test_unknown_tenant_closes_too(two: TwoStories) -> None:
    """A tenant of whom the store knows nothing any more is closed as others are."""
    await put(two.store, two.rig.job())
    two.go_back()
    shut = await noticed(two)
    assert shut is not None
    assert (shut.version, shut.found, shut.found_head) == (1, 0, "")
    assert await doctor.examine(two.older.backend, two.rig.chain) != []


async def test_other_story_closes_tenant(two: TwoStories) -> None:
    """The version that is known, reached on another way, is no less a loss."""
    await two.both()
    await put(two.store, two.rig.job())
    two.rig.clock.forward(1)
    await put(two.older, two.rig.job())
    two.go_back()
    shut = await noticed(two)
    assert shut is not None
    assert (shut.version, shut.found) == (2, 2)
    assert shut.head != shut.found_head


async def test_faults_forget_nothing(two: TwoStories) -> None:
    """A commit of which nobody knows what became of it takes away nothing of what is known."""
    await two.both()
    await put(two.store, two.rig.job())
    two.under.failing = {two.under.commits + 1}
    with pytest.raises(StoreUnavailable):
        await submit(two.store, two.rig.job())
    two.go_back()
    await noticed(two)


async def test_closing_is_tried_again(two: TwoStories) -> None:
    """Where a tenant cannot be closed at once nothing is admitted meanwhile, and it is closed after."""
    await two.both()
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.failing = {two.under.commits + 2}  # the first finds it, the next closes
    with pytest.raises(StoreClosed):
        await submit(two.store, two.rig.job())
    await rounds()
    assert await noticed(two) is not None
    assert not two.under.failing
    assert len(two.told) == 1


async def test_closing_needs_no_caller(two: TwoStories) -> None:
    """A tenant that could not be closed at once is closed soon after, also where nobody asks for anything."""
    await two.both()
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.failing = {two.under.commits + 2}
    with pytest.raises(StoreClosed):
        await submit(two.store, two.rig.job())
    async with asyncio.timeout(5):
        await two.heard.wait()
    assert await of(two.older) is not None


async def test_unsure_closing_is_told_once(two: TwoStories) -> None:
    """However often a closing is tried that is done and not confirmed, one line tells the house of it."""
    await two.both()
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.unsure = True
    for _ in range(5):
        with pytest.raises((StoreClosed, StoreUnavailable)):
            await submit(two.store, two.rig.job())
    two.under.unsure = False
    async with asyncio.timeout(5):
        await two.heard.wait()
    assert len(await lines(two.older, SYSTEM)) == 1


async def test_job_that_went_back_closes(two: TwoStories) -> None:
    """An attempt that was begun and is lost closes the tenant, although its version never moved."""
    await two.both()
    (claim,) = await take(two.store)
    begun = await two.store.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)
    await take(two.older)
    two.go_back()
    with pytest.raises(StoreClosed):
        await two.store.record(Claim(begun.job, claim.fence), ending(1), SAID)
    shut = await noticed(two)
    assert shut is not None
    assert shut.job == claim.job.id
    found = await two.older.get_job("acme", claim.job.id, "ann")
    assert found is not None
    assert found.job.state == "queued"


async def test_closed_tenant_begins_nothing(two: TwoStories) -> None:
    """Of a closed tenant no attempt is begun, by whatever process; what came of earlier ones is kept."""
    await two.both(2)
    await put(two.store, two.rig.job())
    running, waiting = await take(two.older, 2)
    begun = await two.older.begin_attempt(running, attempt())
    assert isinstance(begun, Begun)
    two.go_back()
    await noticed(two)
    with pytest.raises(StoreClosed):
        await two.older.begin_attempt(waiting, attempt())
    noted = await two.older.note_attempt(Claim(begun.job, running.fence), attempt(upstream_id="u"))
    assert isinstance(noted, Begun)
    with pytest.raises(StoreClosed):
        await two.older.record(Claim(noted.job, running.fence), ending(1), SAID)
    assert await two.older.renew([running, waiting], LEASE_MS) == frozenset()


async def told(two: TwoStories) -> Notice:
    """Leave one delivery due, in a tenant that then goes back; lease it."""
    hook = await hooked(two.rig, two.older)
    await trials(two.rig, two.older, hook, 1)
    for _ in range(5):
        await put(two.store, two.rig.job())
    two.rig.clock.forward(HOUR)
    two.go_back()
    (notice,) = await lease(two.store)
    return notice


async def test_closed_tenant_is_told_once(two: TwoStories) -> None:
    """What came of a try of a delivery is written down of a closed tenant too: it is not sent again."""
    notice = await told(two)
    await noticed(two)
    assert isinstance(await two.older.record_delivery(notice, failing(why="gone"), LINE), Kept)
    assert await two.store.record_delivery(notice, failing()) == Stale()
    two.rig.clock.forward(HOUR)
    assert await two.store.claim_deliveries(9, LEASE) == []
    (finding,) = await doctor.examine(two.older.backend, two.rig.chain)
    assert finding.kind == "closed"
    assert [link.version for link in await two.older.audit_page("acme")] == [7, 6, 2, 1]


async def test_lost_versions_are_not_told_with(two: TwoStories) -> None:
    """A try is written down once its tenant is closed: no version that was lost is used again for it."""
    notice = await told(two)
    with pytest.raises(StoreClosed):
        await two.store.record_delivery(notice, delivered)
    assert await two.older.get_delivery("acme", notice.delivery.id) == notice.delivery
    await noticed(two)
    assert isinstance(await two.store.record_delivery(notice, delivered), Kept)
    assert (await two.older.backend.examine("acme")).state.version == 7


async def test_other_tenants_go_on(two: TwoStories) -> None:
    """Only what went back is closed; it can be read, and the others are as ever."""
    (job,) = await two.both()
    await two.both(tenant="other")
    await put(two.store, two.rig.job())
    two.go_back()
    await noticed(two)
    assert isinstance(await submit(two.store, two.rig.job("other")), Submitted)
    assert await of(two.older, "other") is None
    found = await two.store.get_job("acme", job.id, "ann")
    assert isinstance(found, Found)
    assert found.usage.user.held == 10


async def test_reopened_tenant_goes_on(two: TwoStories) -> None:
    """An operator opens it, once; its versions pass all that are lost; both trails say who and what."""
    await two.both()
    for _ in range(5):
        await put(two.store, two.rig.job())
    two.go_back()
    await noticed(two)
    (finding,) = await doctor.examine(two.older.backend, two.rig.chain)
    assert (finding.tenant, finding.kind) == ("acme", "closed")
    assert "knew of version 6" in finding.detail
    shut = await two.older.reopen("acme", "operator")
    assert shut is not None
    assert await two.older.reopen("acme", "operator") is None
    assert isinstance(await submit(two.store, two.rig.job()), Submitted)
    assert isinstance(await submit(two.older, two.rig.job()), Submitted)
    assert await doctor.examine(two.older.backend, two.rig.chain) == []
    mine = [(line.action, line.count) for line in await lines(two.older, "acme")][1:3]
    assert mine == [("store.rewound", 5), ("store.reopen", 1)]
    by = await two.older.ref_of(SYSTEM, "operator")
    ours = [(line.action, line.tenant, line.ref) for line in await lines(two.older, SYSTEM)]
    assert ours == [("store.rewound", "acme", ""), ("store.reopen", "acme", by)]
    versions = [link.version for link in await two.older.audit_page("acme", order="up")]
    assert versions == [1, 7, 8, 9, 10]
    (claim,) = await take(two.older)
    begun = await two.older.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)
    ended = await two.older.record(Claim(begun.job, claim.fence), ending(1), SAID)
    assert isinstance(ended, Recorded)


async def test_who_knew_more_is_written_down(two: TwoStories) -> None:
    """Of several processes that notice, the mark is that of the one which knew most."""
    await two.both()
    await put(two.store, two.rig.job())
    two.rig.clock.forward(1)
    other = Engine(two.under, two.rig.chain, lambda: "0" * 32)
    await other.usage("acme", "ann")
    assert isinstance(await submit(other, two.rig.job()), Submitted)
    two.go_back()
    first = await noticed(two)
    then = await noticed(two, other)
    assert first is not None
    assert then is not None
    assert (first.version, then.version) == (2, 3)


async def test_own_trail_is_never_closed(two: TwoStories) -> None:
    """The trail in which losses stand goes on from where it is when it was lost itself."""
    await two.older.append_audit(SYSTEM, "", LINE)
    for _ in range(3):
        await two.store.append_audit(SYSTEM, "", LINE)
    two.go_back()
    await two.store.append_audit(SYSTEM, "", LINE)
    await two.store.append_audit(SYSTEM, "", LINE)
    assert [tenant for tenant, _why in two.told] == [SYSTEM]
    assert await of(two.older, SYSTEM) is None
    actions = [line.action for line in await lines(two.older, SYSTEM)]
    assert sorted(actions) == ["store.rewound", "x", "x", "x"]


NEW = Strange(frozenset({"b"}))


async def test_changed_store_is_compared(two: TwoStories) -> None:
    """A process that is told that the store was changed looks at all it knows, whoever asks for anything."""
    await two.both()
    await two.both(tenant="other")
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.met = NEW
    two.under.turned()
    await two.heard.wait()
    assert [tenant for tenant, _why in two.told] == ["acme"]
    assert await of(two.older) is not None
    assert isinstance(await submit(two.store, two.rig.job("other")), Submitted)
    assert two.under.met is None


@pytest.mark.parametrize("deaf", ["all", "each"])
async def test_comparing_waits_for_the_store(two: TwoStories, deaf: Literal["all", "each"]) -> None:
    """While not all can be read the store is not taken for ours; when it can, nothing was forgotten."""
    await two.both()
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.met, two.under.deaf = NEW, deaf
    two.under.turned()
    with pytest.raises(StoreUnavailable):
        await submit(two.store, two.rig.job())
    assert two.under.met == NEW
    two.under.deaf = ""
    two.under.turned()  # as whoever finds it strange says again and again
    with pytest.raises(StoreClosed):
        await submit(two.store, two.rig.job())
    assert two.under.met is None


async def test_comparing_passes_over_nonsense(two: TwoStories) -> None:
    """A tenant whose document is none stops nobody from finding what was lost of another."""
    await two.both()
    await two.both(tenant="odd")
    await put(two.store, two.rig.job())
    two.go_back()
    two.under.met, two.under.odd = NEW, "odd"
    two.under.turned()
    async with asyncio.timeout(5):
        await two.heard.wait()
    assert [tenant for tenant, _why in two.told] == ["acme"]
    assert two.under.met is None


async def test_changed_store_settles_first(two: TwoStories) -> None:
    """For a moment after a change nothing is admitted, so that others close what only they knew of."""
    patient = two.engine(Patience(settle=60.0))
    await put(two.older, two.rig.job())
    before = await two.older.usage("acme", "ann")
    two.go_back()
    two.under.met = NEW
    two.under.turned()
    with pytest.raises(StoreUnavailable):
        await submit(patient, two.rig.job())
    assert await two.older.usage("acme", "ann") == before
    assert two.under.met is None
    await patient.close()


async def test_lost_bytes_stand_with_the_house(two: TwoStories) -> None:
    """Bytes of nobody knows whom close no tenant: they are told until an operator has seen it."""
    await two.both()
    two.under.met = Strange(frozenset({"b"}), 700)
    two.under.turned()
    await two.heard.wait()
    assert isinstance(await submit(two.store, two.rig.job()), Submitted)
    (finding,) = await doctor.examine(two.store.backend, two.rig.chain)
    assert (finding.tenant, finding.kind, finding.of) == (SYSTEM, "closed", "store")
    assert "the last 700 bytes" in finding.detail
    assert [line.action for line in await lines(two.store, SYSTEM)] == ["store.rewound"]
    assert await two.store.reopen(SYSTEM, "operator") is not None
    assert await doctor.examine(two.store.backend, two.rig.chain) == []


async def test_closed_tenant_stops_no_sweep(two: TwoStories) -> None:
    """What is past its time leaves while another tenant is closed, whose own stays until it is opened."""
    (job,) = await two.both()
    await two.older.cancel("acme", job.id, counting(), SAID)
    await put(two.store, two.rig.job())
    two.go_back()
    await noticed(two)
    ended = await put(two.store, two.rig.job("beta"))
    await two.store.cancel("beta", ended.id, counting(), SAID)
    await submit(two.store, two.rig.job("beta"), key="k")
    two.rig.clock.forward(5 * DAY)
    swept = await two.store.sweep(Retention(DAY, DAY))
    assert ([each.id for each in swept.jobs], swept.keys, swept.faults) == ([ended.id], 1, ())
    assert swept.links > 0
    await two.store.reopen("acme", "boss")
    assert [each.id for each in (await two.store.sweep(Retention(DAY, DAY))).jobs] == [job.id]
