"""Many callers at once, callers that go away, and back ends that fail, refuse or lose their replies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record, decode
from gateway.errors import Fault, StoreBusy, StoreUnavailable
from gateway.store.backend import Change, Loaded, Outcome, Refused, TenantDoc, TenantState, Want
from gateway.store.contract import Begun, Claim, Denied, Key, Recorded, Replayed, Submitted
from gateway.store.engine import LEASE_MS, Engine
from policies import quota
from policies.model import EXACT, Job, Reason, Usage
from tests.contracts.rig import (
    OPENERS,
    SAID,
    WIDE,
    Rig,
    admitting,
    attempt,
    counting,
    ending,
    put,
    rounds,
    submit,
    take,
)
from tests.contracts.watched import Watching

CALLERS = 64


async def sound(rig: Rig, store: Engine) -> bool:
    """Whether the doctor finds nothing."""
    return await doctor.examine(store.backend, rig.chain) == []


async def test_one_key_makes_one_job(rig: Rig, store: Engine) -> None:
    """Sixty-four identical submits with one key make one job and sixty-three replays of it."""
    answers = await asyncio.gather(*(submit(store, rig.job(), "k") for _ in range(CALLERS)))
    assert Counter(type(answer) for answer in answers) == {Submitted: 1, Replayed: CALLERS - 1}
    assert len({answer.job.id for answer in answers if isinstance(answer, Submitted | Replayed)}) == 1
    assert (await store.usage("acme", "ann")).tenant.held == 10
    assert await sound(rig, store)


@pytest.mark.parametrize(
    ("terms", "fit", "reason"),
    [
        (quota.Terms(WIDE, WIDE, 175), 17, Reason.INSUFFICIENT_CREDITS),
        (quota.Terms(replace(WIDE, monthly_cap=99), WIDE, 10**6), 9, Reason.MONTHLY_CAP_REACHED),
        (quota.Terms(WIDE, replace(WIDE, monthly_cap=99), 10**6), 36, Reason.MONTHLY_CAP_REACHED),
        (quota.Terms(replace(WIDE, in_flight=11), WIDE, 10**6), 11, Reason.TOO_MANY_IN_FLIGHT),
        (quota.Terms(WIDE, replace(WIDE, in_flight=3), 10**6), 12, Reason.TOO_MANY_IN_FLIGHT),
        (quota.Terms(replace(WIDE, submit=50), WIDE, 10**6), 50, Reason.RATE_LIMITED),
        (quota.Terms(WIDE, replace(WIDE, submit=5), 10**6), 20, Reason.RATE_LIMITED),
    ],
)
async def test_limits_admit_what_fits(
    rig: Rig, store: Engine, terms: quota.Terms, fit: int, reason: Reason
) -> None:
    """Sixty-four submits of four users at once are admitted as far as each limit goes, no further."""
    jobs = [rig.job(subject=f"u{number % 4}") for number in range(CALLERS)]
    answers = await asyncio.gather(*(submit(store, job, terms=terms) for job in jobs))
    reasons = [answer.deny.reason for answer in answers if isinstance(answer, Denied)]
    assert reasons == [reason] * (CALLERS - fit)
    assert await sound(rig, store)


async def test_denials_fold_in_trail(rig: Rig, store: Engine) -> None:
    """Equal denials of one caller in one commit are one line with their number."""
    none = quota.Terms(WIDE, replace(WIDE, in_flight=0), 100)
    await asyncio.gather(*(submit(store, rig.job(subject=s), terms=none) for s in ("ann", "bob") * 20))
    lines = [line for link in await store.audit_page("acme") for line in decode(link.rows)]
    assert sum(line.count for line in lines) == 40
    assert len(lines) <= 4
    assert {(line.decision, line.code, line.rule) for line in lines} == {
        ("deny", "too_many_in_flight", "limit.in_flight")
    }


async def test_left_caller_leaves_whole_job(rig: Rig, store: Engine) -> None:
    """Callers who go away in mid-submit leave their job whole or not at all: their key finds it."""
    jobs = [rig.job() for _ in range(CALLERS)]
    tasks = [asyncio.create_task(submit(store, job, f"k{n}")) for n, job in enumerate(jobs)]
    for number, task in enumerate(tasks):
        await rounds(number % 3)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    answers = [await submit(store, rig.job(), f"k{n}") for n in range(CALLERS)]
    kinds = Counter(type(answer) for answer in answers)
    assert kinds[Submitted] + kinds[Replayed] == CALLERS
    assert (await store.usage("acme", "ann")).user.flight == CALLERS
    assert await sound(rig, store)


class Double:
    """A back end in front of the real one. `before` and `after` may fail or change what is committed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.commits = 0
        self.reads = 0
        self.before: Callable[[Sequence[Change]], Awaitable[list[Outcome] | None]] | None = None
        self.fail_after = False
        self.slow = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def get(self, tenant: str, job: str) -> Job | None:
        """Read; where it is slow the answer takes a turn of the loop, as over a network."""
        self.reads += 1
        found: Job | None = await self._backend.get(tenant, job)
        if self.slow:
            await asyncio.sleep(0)
        return found

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit, unless `before` answers instead."""
        self.commits += 1
        if self.before is not None and (instead := await self.before(changes)) is not None:
            return instead
        outcomes: list[Outcome] = await self._backend.commit(changes)
        if self.fail_after:
            raise StoreUnavailable("the reply was lost")
        return outcomes


@pytest.fixture(params=sorted(OPENERS))
async def double(request: pytest.FixtureRequest, place: Path) -> Any:
    """A rig whose stores stand on a double; the double."""
    made: list[Double] = []

    def wrap(backend: Any) -> Any:
        made.append(Double(backend))
        return made[-1]

    rig = Rig(request.param, place, wrap)
    store = await rig.open()
    yield rig, store, made[0]
    await rig.close()


Doubled = tuple[Rig, Engine, Double]


async def test_failed_commit_leaves_nothing(double: Doubled) -> None:
    """When a commit fails all its callers hear so, nothing of it is there, and the next one works."""
    rig, store, backend = double

    async def fail(_changes: Sequence[Change]) -> None:
        raise StoreUnavailable("no disk")

    await put(store, rig.job())
    backend.before = fail
    answers = await asyncio.gather(
        *(submit(store, rig.job(), f"k{n}") for n in range(9)), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    backend.before = None
    assert (await store.usage("acme", "ann")).user.flight == 1
    again = [await submit(store, rig.job(), f"k{n}") for n in range(9)]
    assert {type(answer) for answer in again} == {Submitted}
    assert await sound(rig, store)


async def test_lost_reply_is_found_by_key(double: Doubled) -> None:
    """A commit whose reply is lost is found by its key: the second send is a replay, held once."""
    rig, store, backend = double
    backend.fail_after = True
    job = rig.job()
    with pytest.raises(StoreUnavailable):
        await submit(store, job, "k")
    backend.fail_after = False
    again = await submit(store, rig.job(), "k")
    assert isinstance(again, Replayed)
    assert again.job.id == job.id
    assert isinstance(await submit(store, job), Submitted)
    assert (await store.usage("acme", "ann")).user.held == 10
    assert await sound(rig, store)


def _refusing(backend: Any, times: int, other: Callable[[], Awaitable[None]]) -> None:
    """Let another process come first that many times: what is committed then is refused."""
    left = [times]

    async def before(_changes: Sequence[Change]) -> None:
        if left[0]:
            left[0] -= 1
            await other()

    backend.before = before


async def meddle(rig: Rig, backend: Any, tenant: str, subject: str) -> None:
    """Submit a job as another process would: by an engine of its own over the same file."""
    other = rig.engine(backend._backend)  # noqa: SLF001 - the one below the double
    await put(other, rig.job(tenant, subject))


@pytest.mark.parametrize("times", [1, 3, 10])
async def test_refused_batch_decides_again(double: Doubled, times: int) -> None:
    """Moves that meet a newer state are decided again from it, by each limit, and never counted twice."""
    rig, store, backend = double
    terms = quota.Terms(WIDE, replace(WIDE, in_flight=20), 10**6)
    await submit(store, rig.job(), terms=terms)
    _refusing(backend, times, lambda: meddle(rig, backend, "acme", "ann"))
    answers = await asyncio.gather(*(submit(store, rig.job(), f"k{n}", terms) for n in range(30)))
    kinds = Counter(type(answer) for answer in answers)
    assert kinds == {Submitted: 19 - times, Denied: 11 + times}
    assert (await store.usage("acme", "ann")).user.flight == 20
    assert await sound(rig, store)


async def test_denial_reads_fresh_figures(double: Doubled) -> None:
    """A denial from figures that another process has made old is not answered: it is decided again."""
    rig, store, backend = double
    terms = quota.Terms(WIDE, replace(WIDE, in_flight=1, write=1), 10**6)
    first = await submit(store, rig.job(), terms=terms)
    assert isinstance(first, Submitted)

    async def free() -> None:
        other = rig.engine(backend._backend)  # noqa: SLF001 - as above
        await other.cancel("acme", first.job.id, counting(), SAID)

    _refusing(backend, 1, free)
    assert isinstance(await submit(store, rig.job(), terms=terms), Submitted)


async def test_endless_refusals_end_busy(double: Doubled) -> None:
    """A tenant that loses every race is told the store is busy; others are served, and nothing is written."""
    rig, store, backend = double
    _refusing(backend, 99, lambda: meddle(rig, backend, "acme", "bob"))
    with pytest.raises(StoreBusy):
        await submit(store, rig.job())
    backend.before = None
    assert (await store.usage("acme", "ann")).user.flight == 0
    assert isinstance(await submit(store, rig.job()), Submitted)
    assert await sound(rig, store)


async def test_attempt_survives_refusals(double: Doubled) -> None:
    """An attempt whose job was changed meanwhile is written over the job as it is, while the lease holds."""
    rig, store, backend = double
    await put(store, rig.job())
    (claim,) = await take(store)
    begun = await store.begin_attempt(claim, attempt())
    assert isinstance(begun, Begun)

    async def ask() -> None:
        other = rig.engine(backend._backend)  # noqa: SLF001 - as above
        await other.cancel("acme", claim.job.id, counting(), SAID)

    _refusing(backend, 1, ask)
    noted = await store.note_attempt(Claim(begun.job, claim.fence), attempt(upstream_id="up_1"))
    assert isinstance(noted, Begun)
    assert noted.job.cancel_requested_at is not None
    assert noted.job.attempts[0].upstream_id == "up_1"


@pytest.mark.parametrize("poison", ["prompt", "subject", "key", "model", "amount"])
async def test_poison_fails_alone(rig: Rig, store: Engine, poison: str) -> None:
    """A call that cannot be written fails by itself: its neighbors are committed and the store goes on."""
    bad, key, record, decide = rig.job(), None, SAID, None
    match poison:
        case "prompt":
            bad = rig.job(prompt="\ud800")
        case "subject":
            bad = rig.job(subject="\ud800")
        case "key":
            key = Key("\ud800", "f")
        case "model":
            record = Record(action="job.submit", model="\ud800")
        case _:
            bad = rig.job(price_each=2**70)
            rich = quota.Limits(EXACT, EXACT, 2**80)
            decide = admitting(bad, quota.Terms(rich, rich, 2**80))
    verbs: list[Awaitable[Any]] = [submit(store, rig.job(f"t{n}")) for n in range(3)]
    verbs.insert(1, store.submit(bad, decide or admitting(bad), record, key=key))
    verbs.insert(3, submit(store, rig.job()))
    answers = await asyncio.gather(*verbs, return_exceptions=True)
    assert [type(answer) for answer in answers if not isinstance(answer, Exception)] == [Submitted] * 4
    assert isinstance(answers[1], UnicodeEncodeError | OverflowError)
    assert isinstance(await submit(store, rig.job()), Submitted)
    assert await sound(rig, store)


async def test_poisoned_attempt_fails_alone(rig: Rig, store: Engine) -> None:
    """What an upstream calls its job may be no text: that attempt fails, and the committer lives."""
    await put(store, rig.job())
    (claim,) = await take(store)
    with pytest.raises(UnicodeEncodeError):
        await store.begin_attempt(claim, attempt(upstream_id="\udfff"))
    assert isinstance(await store.begin_attempt(claim, attempt()), Begun)
    assert isinstance(await store.record(claim, ending(1), SAID), Recorded)


async def test_rule_that_raises_fails_alone(rig: Rig, store: Engine) -> None:
    """A bug in one call's rule is that call's, and its neighbors of the batch are served."""

    def broken(_usage: Usage, _now: int) -> Any:
        raise ZeroDivisionError

    answers = await asyncio.gather(
        submit(store, rig.job()), store.submit(rig.job(), broken, SAID), submit(store, rig.job()),
        store.count("acme", "ann", broken), return_exceptions=True,
    )  # fmt: skip
    kinds = [type(answer) for answer in answers]
    assert kinds == [Submitted, ZeroDivisionError, Submitted, ZeroDivisionError]


async def test_slow_read_wakes_waiter(double: Doubled) -> None:
    """A change between a slow read and the wait is not missed."""
    rig, store, backend = double
    backend.slow = True
    job = await put(store, rig.job())
    for version in range(1, 6):
        waiting = [asyncio.create_task(store.wait_job("acme", job.id, version, 60.0)) for _ in range(9)]
        await rounds(version)
        late = asyncio.create_task(store.wait_job("acme", job.id, version, 60.0))
        if version == 1:
            (claim,) = await take(store)
        begun = await store.begin_attempt(Claim(claim.job, claim.fence), attempt(n=version))
        assert isinstance(begun, Begun)
        claim = Claim(begun.job, claim.fence)
        assert await asyncio.wait_for(asyncio.gather(*waiting, late), 5) == [begun.job] * 10
    found = await store.get_job("acme", job.id, "ann")
    assert found is not None
    assert found.job.version == 6


async def test_waiters_share_their_reads(double: Doubled) -> None:
    """A thousand who wait for one job cost one read when they come and one when it changes."""
    rig, store, backend = double
    job = await put(store, rig.job())
    waiting = [asyncio.create_task(store.wait_job("acme", job.id, 1, 60.0)) for _ in range(1000)]
    await rounds()
    await store.cancel("acme", job.id, counting(), SAID)
    assert len({id(found) for found in await asyncio.gather(*waiting)}) == 1
    assert backend.reads == 2


async def test_claims_overlap_nowhere(rig: Rig, store: Engine) -> None:
    """Workers that claim at once never get the same job, while submits and cancels go on."""
    jobs = [rig.job(f"t{number % 5}") for number in range(100)]
    answers = await asyncio.gather(
        *(put(store, job) for job in jobs), *(store.claim(9, LEASE_MS) for _ in range(30))
    )
    claims = [claim for answer in answers if isinstance(answer, list) for claim in answer]
    claims += await store.claim(200, LEASE_MS)
    assert len({claim.job.id for claim in claims}) == len(claims) == len(jobs)


async def test_stranger_state_is_refused(double: Doubled) -> None:
    """A refusal tells the state as it is; an engine that trusted its own would be found by the version."""
    rig, store, backend = double
    await put(store, rig.job())
    stale = TenantState(0, TenantDoc())
    outcome = await backend._backend.commit([Change("acme", rig.clock.at, expect=0, state=stale)])  # noqa: SLF001
    assert isinstance(outcome[0], Refused)
    (loaded,) = await backend.load([Want("acme")])
    assert isinstance(loaded, Loaded)
    assert outcome[0].loaded.state == loaded.state
    assert issubclass(StoreBusy, Fault)


async def test_job_and_figures_agree(watched: Watching) -> None:
    """Who sees a job sees figures that know of it, however late its process hears of the commit."""
    rig, store, backend = watched
    await put(store, rig.job())
    backend.written.clear()
    backend.answered.clear()
    job = rig.job()
    submitting = asyncio.create_task(put(store, job))
    await backend.written.wait()
    reading = asyncio.create_task(store.get_job("acme", job.id, "ann"))
    await rounds()
    backend.answered.set()
    found = await reading
    assert found is not None
    assert (found.job, found.usage.user.held) == (await submitting, 20)
