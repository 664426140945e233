"""Four processes of sixty-four callers each, on one Redis, with clocks minutes apart: limits are exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from policies import quota
from policies.model import Reason, Usage
from tests.contracts.rig import HOUR, WIDE, submit
from tests.fakes.redis import server
from tests.gateway.store.crowd import CALLERS, SUBJECTS, Crowd, Order, Told
from tests.gateway.store.processes import Processes

MINUTES = 60_000
SKEWS = (0, 5 * MINUTES, -5 * MINUTES, 1)
FIT = 256
"""What each limit here leaves room for: a fifth of what is asked for."""
CALLS = 5 * FIT // (len(SKEWS) * CALLERS)
EACH = FIT // len(SUBJECTS)
PREFIX = f"{uuid4().hex}:"

pytestmark = pytest.mark.xdist_group("crowd")


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Four processes, started once."""
    with Crowd(server().url, PREFIX, SKEWS) as made:
        yield made


@pytest.fixture
async def here() -> AsyncIterator[Processes]:
    """Engines of the test, beside them."""
    made = Processes(prefix=PREFIX)
    yield made
    await made.close()


async def rush(crowd: Crowd, here: Processes, tenant: str, terms: quota.Terms) -> Counter[str]:
    """Return what all were answered; every job was made at Redis' time, and the books balance."""
    store = await here.process()
    before = await store.now()
    told: list[Told] = await asyncio.to_thread(crowd.all, Order(tenant, terms, CALLS))
    assert [sum(each.words.values()) for each in told] == [CALLERS * CALLS] * len(SKEWS)
    made = [at for each in told for at in (each.first, each.last) if at is not None]
    assert before - 1000 <= min(made) <= max(made) <= await store.now() + 1000
    assert doctor.findings(tenant, await store.backend.examine(tenant), here.chain) == []
    return sum((Counter(each.words) for each in told), Counter())


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (quota.Terms(WIDE, WIDE, 10 * FIT + 7), Reason.INSUFFICIENT_CREDITS),
        (quota.Terms(replace(WIDE, monthly_cap=10 * FIT + 9), WIDE, 10**6), Reason.MONTHLY_CAP_REACHED),
        (quota.Terms(WIDE, replace(WIDE, monthly_cap=10 * EACH + 9), 10**6), Reason.MONTHLY_CAP_REACHED),
        (quota.Terms(replace(WIDE, in_flight=FIT), WIDE, 10**6), Reason.TOO_MANY_IN_FLIGHT),
        (quota.Terms(WIDE, replace(WIDE, in_flight=EACH), 10**6), Reason.TOO_MANY_IN_FLIGHT),
        (quota.Terms(replace(WIDE, submit=FIT), WIDE, 10**6), Reason.RATE_LIMITED),
        (quota.Terms(WIDE, replace(WIDE, submit=EACH), 10**6), Reason.RATE_LIMITED),
    ],
    ids=["credits", "cap", "user cap", "in flight", "user in flight", "rate", "user rate"],
)
async def test_limits_hold_across_processes(
    crowd: Crowd, here: Processes, terms: quota.Terms, reason: Reason
) -> None:
    """Four processes with clocks minutes apart admit together what each limit allows, and no more."""
    answers = await rush(crowd, here, uuid4().hex, terms)
    assert answers == {"Submitted": FIT, str(reason): 4 * FIT}


async def test_user_credits_hold_across_processes(crowd: Crowd, here: Processes) -> None:
    """Users who were given so many credits spend them once, whichever process they ask."""
    store = await here.process()

    def give(usage: Usage, now: int) -> quota.Posted:
        return quota.grant(usage, now, 10 * EACH + 3, "user")

    for subject in SUBJECTS:
        await store.grant("given", subject, give, subject, Record(action="grant"))
    answers = await rush(crowd, here, "given", quota.Terms(WIDE, WIDE, 10**6))
    assert answers == {"Submitted": FIT, str(Reason.INSUFFICIENT_CREDITS): 4 * FIT}


async def test_old_window_holds_across_processes(crowd: Crowd, here: Processes) -> None:
    """A window with three minutes left is not over for a process whose own clock is five minutes ahead."""
    store = await here.process()
    terms = quota.Terms(replace(WIDE, submit=FIT + 1), WIDE, 10**6)
    then = await store.now() - HOUR + 3 * MINUTES
    how = How(uuid4().hex, lambda: then)
    earlier = here.engine(RedisBackend(Place(server().url), how, prefix=PREFIX))
    await earlier.start()
    await submit(earlier, here.job("began"), terms=terms)
    assert await rush(crowd, here, "began", terms) == {
        "Submitted": FIT,
        str(Reason.RATE_LIMITED): 4 * FIT,
    }
