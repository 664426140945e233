"""Rate, in-flight, credits, caps: who is admitted, what is held, what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import quota
from policies.bundle import PerLevel, Plan
from policies.model import Account, Deny, Entry, Hold, Job, JobRequest, JobState, Money, Reason, Usage, Window
from policies.quota import HOUR_MS, Admitted, Limits, Standing, Terms

NOW = 1_793_534_400_000
"""2026-11-01T12:00:00Z."""
DECEMBER = NOW + 30 * quota.DAY_MS
MONTH = "2026-11"
WIDE = Limits(submit=10**6, in_flight=10**6, monthly_cap=10**9)
OPEN = Terms(WIDE, WIDE, 0)
FUNDED = Usage(Account(granted=100, month=MONTH), Account(granted=None, month=MONTH))


def admit(usage: Usage, price: int = 10, terms: Terms = OPEN, now: int = NOW) -> Admitted | Deny:
    """Ask for one job."""
    return quota.admit(usage, now, job="j", price=price, terms=terms)


def admitted(usage: Usage, price: int = 10, terms: Terms = OPEN, now: int = NOW) -> Admitted:
    """Ask for one job that is admitted."""
    answer = admit(usage, price, terms, now)
    assert isinstance(answer, Admitted)
    return answer


def denied(usage: Usage, price: int = 10, terms: Terms = OPEN, now: int = NOW) -> Deny:
    """Ask for one job that is not admitted."""
    answer = admit(usage, price, terms, now)
    assert isinstance(answer, Deny)
    return answer


def ended(hold: Hold, charged: int = 0) -> Job:
    """Return an ended job with a hold."""
    request = JobRequest(prompt="p")
    return Job("j", "acme", "ann", request, state=JobState.SUCCEEDED, hold=hold, charged=charged)


def test_full_queue_comes_last() -> None:
    """A full queue refuses who would be admitted; who would not hears why, and nobody is refused by none."""
    full = Deny(Reason.QUEUE_FULL, "")
    for funds, why, answer in ((FUNDED, full, full), (Usage(), full, Reason.INSUFFICIENT_CREDITS)):
        said = quota.admission("j", 10, OPEN, why)(funds, NOW)
        assert isinstance(said, Deny)
        assert answer in (said, said.reason)
    assert quota.admission("j", 10, OPEN, None)(FUNDED, NOW) == admit(FUNDED)


def test_admission_holds_at_both_levels() -> None:
    """An admitted job's price is held, counted and in flight at both levels, and said in one entry."""
    answer = admitted(FUNDED, 30)
    assert answer.hold == Hold(30, MONTH)
    assert answer.entries == (Entry("hold", MONTH, "j", held=30, flight=1),)
    for account in (answer.usage.tenant, answer.usage.user):
        assert (account.held, account.spent, account.flight) == (30, 30, 1)
        assert account.windows == {"submit": Window(NOW, 1)}
    assert answer.usage.tenant.available == 70
    assert answer.usage.user.available is None


@pytest.mark.parametrize(
    ("terms", "usage", "reason"),
    [
        (Terms(WIDE, replace(WIDE, submit=0), 0), FUNDED, Reason.RATE_LIMITED),
        (Terms(replace(WIDE, submit=0), WIDE, 0), FUNDED, Reason.RATE_LIMITED),
        (Terms(WIDE, replace(WIDE, in_flight=0), 0), FUNDED, Reason.TOO_MANY_IN_FLIGHT),
        (Terms(replace(WIDE, in_flight=0), WIDE, 0), FUNDED, Reason.TOO_MANY_IN_FLIGHT),
        (OPEN, Usage(), Reason.INSUFFICIENT_CREDITS),
        (OPEN, replace(FUNDED, user=Account(granted=9)), Reason.INSUFFICIENT_CREDITS),
        (Terms(WIDE, replace(WIDE, monthly_cap=9), 0), FUNDED, Reason.MONTHLY_CAP_REACHED),
        (Terms(replace(WIDE, monthly_cap=9), WIDE, 0), FUNDED, Reason.MONTHLY_CAP_REACHED),
    ],
)
def test_each_limit_denies(terms: Terms, usage: Usage, reason: Reason) -> None:
    """Each limit is asked at each level, and names itself."""
    assert denied(usage, terms=terms).reason is reason


def test_limits_admit_up_to_edge() -> None:
    """Exactly what is left is admitted, one credit more is not, for credits as for the cap."""
    capped = Terms(replace(WIDE, monthly_cap=60), WIDE, 0)
    assert isinstance(admit(FUNDED, 100), Admitted)
    assert denied(FUNDED, 101).detail == "The job costs 101 credits; 100 are available."
    half = admitted(FUNDED, 40, capped).usage
    assert isinstance(admit(half, 20, capped), Admitted)
    assert "20 are left" in denied(half, 21, capped).detail


def test_denials_come_in_order() -> None:
    """Of several limits met the first named is rate, then in flight, then credits, then the cap."""
    nothing = Limits(submit=0, in_flight=0, monthly_cap=0)
    order = []
    for opened in ("", "submit", "in_flight"):
        nothing = replace(nothing, **({opened: 10**6} if opened else {}))
        order.append(denied(Usage(), terms=Terms(nothing, nothing, 0)).reason)
    order.append(denied(FUNDED, terms=Terms(nothing, nothing, 0)).reason)
    assert order == [
        Reason.RATE_LIMITED,
        Reason.TOO_MANY_IN_FLIGHT,
        Reason.INSUFFICIENT_CREDITS,
        Reason.MONTHLY_CAP_REACHED,
    ]


@given(st.integers(1, 5), st.lists(st.integers(0, 2 * HOUR_MS), min_size=1, max_size=12))
def test_window_admits_exactly_its_limit(limit: int, gaps: list[int]) -> None:
    """A window begins with its first counted call, admits its limit, and `retry_after` is exact."""
    terms = Terms(WIDE, replace(WIDE, submit=limit), 0)
    usage, now, calls = replace(FUNDED, tenant=Account(granted=10**6, month=MONTH)), NOW, 0
    start = NOW
    for gap in gaps:
        now += gap
        if not calls or now >= start + HOUR_MS:
            start, calls = now, 0
        answer = quota.count(usage, now, "submit", terms)
        assert isinstance(answer, Usage) == (calls < limit)
        if isinstance(answer, Usage):
            usage, calls = answer, calls + 1
        else:
            assert answer.retry_after_ms == start + HOUR_MS - now
            assert isinstance(quota.count(usage, now + answer.retry_after_ms, "submit", terms), Usage)
            assert isinstance(quota.count(usage, now + answer.retry_after_ms - 1, "submit", terms), Deny)


def test_later_window_decides_retry() -> None:
    """Where both levels are full the call is admitted when the later of the two windows ends."""
    full = Usage(
        Account(windows={"submit": Window(NOW - 1000, 1)}), Account(windows={"submit": Window(NOW - 5, 1)})
    )
    one = Terms(replace(WIDE, submit=1), replace(WIDE, submit=1), 0)
    answer = quota.count(full, NOW, "submit", one)
    assert isinstance(answer, Deny)
    assert (answer.retry_after_ms, answer.rule) == (HOUR_MS - 5, "limit.submit")


def test_windows_do_not_mix() -> None:
    """Submits and other writes are counted apart."""
    terms = Terms(WIDE, replace(WIDE, submit=1, write=1), 0)
    once = quota.write(terms)(FUNDED, NOW)
    assert isinstance(once, Usage)
    assert isinstance(quota.count(once, NOW, "submit", terms), Usage)
    assert isinstance(quota.write(terms)(once, NOW), Deny)


def test_standing_tells_what_is_left() -> None:
    """A counter's standing is its limit before the first call, less each call after, whole again later."""
    terms = Terms(WIDE, replace(WIDE, submit=2), 0)
    usage = admitted(FUNDED, terms=terms).usage
    assert quota.standing(FUNDED.user, "submit", 2, NOW) == Standing(2, 2, NOW + HOUR_MS)
    assert quota.standing(usage.user, "submit", 2, NOW + 9) == Standing(2, 1, NOW + HOUR_MS)
    assert quota.standing(usage.user, "submit", 0, NOW + 9).remaining == 0
    assert quota.standing(usage.user, "submit", 2, NOW + HOUR_MS).remaining == 2


@pytest.mark.parametrize(("available", "granted"), [(0, 100), (30, 100), (100, 100), (250, 250)])
def test_month_tops_tenant_up(available: int, granted: int) -> None:
    """A tenant's first admission of a month fills it up to its plan and takes nothing from what is there."""
    old = Usage(Account(granted=available, month="2026-10", spent=77), Account(granted=None, month="2026-10"))
    answer = admitted(old, 0, Terms(WIDE, WIDE, 100))
    assert answer.usage.tenant.granted == granted
    assert answer.usage.tenant.spent == 0
    plans = [entry for entry in answer.entries if entry.kind == "plan"]
    assert plans == (
        [Entry("plan", MONTH, level="tenant", granted=100 - available)] if available < 100 else []
    )
    again = admitted(answer.usage, 0, Terms(WIDE, WIDE, 100))
    assert [entry.kind for entry in again.entries] == ["hold"]


def test_denied_month_writes_nothing() -> None:
    """A denial tops nothing up, and what is shown is what an admission would be measured by."""
    terms = Terms(WIDE, WIDE, 100)
    assert isinstance(admit(Usage(), 101, terms), Deny)
    shown = quota.as_of(Usage(), NOW, terms)
    assert (shown.tenant.granted, shown.tenant.month, shown.user.month) == (100, MONTH, MONTH)
    assert quota.as_of(shown, NOW, terms) is shown


def test_old_hold_spares_new_month() -> None:
    """November's hold settled in December returns its credits, and December's cap does not move."""
    november = admitted(FUNDED, 40)
    december = admitted(november.usage, 10, Terms(WIDE, WIDE, 0), DECEMBER)
    posted = quota.settle(december.usage, ended(november.hold, 30), 30, Money(5))
    assert posted.entries == (
        Entry("settle", MONTH, "j", held=-40, charged=30, flight=-1, provider_cost=Money(5)),
    )
    tenant = posted.usage.tenant
    assert (tenant.month, tenant.spent, tenant.held, tenant.charged) == ("2026-12", 10, 10, 30)
    assert tenant.available == 60


@pytest.mark.parametrize("charged", [-1, 11])
def test_charge_stays_within_hold(charged: int) -> None:
    """Nobody is charged more than was held, nor less than nothing."""
    with pytest.raises(ValueError, match="outside the hold"):
        quota.settle(FUNDED, ended(Hold(10, MONTH)), charged)


def test_first_budget_covers_earlier_use() -> None:
    """A user's first grant is all available, whatever they drew on the tenant before; a second adds."""
    used = admitted(FUNDED, 40).usage
    first = quota.grant(used, NOW, 25, "user")
    assert first.usage.user.available == 25
    assert first.usage.tenant == used.tenant
    second = quota.grant(first.usage, NOW, 5, "user")
    assert second.usage.user.available == 30
    whole = quota.grant(used, NOW, 7, "tenant")
    assert (whole.usage.tenant.available, whole.usage.user.granted) == (67, None)


@pytest.mark.parametrize(
    ("account", "idle"),
    [
        (quota.IDLE, True),
        (Account(granted=None, month=MONTH, windows={"write": Window(NOW - HOUR_MS, 9)}), True),
        (Account(granted=None, windows={"write": Window(NOW - HOUR_MS + 1, 1)}), False),
        (Account(granted=None, windows={"a": Window(0, 1), "b": Window(NOW, 1)}), False),
        (Account(granted=0), False),
        (Account(granted=None, charged=1), False),
        (Account(granted=None, held=1, flight=1), False),
        (Account(granted=None, flight=1), False),
    ],
)
def test_idle_figures_tell_nothing(account: Account, *, idle: bool) -> None:
    """Who moved no credits, has no budget and counts in no open window is idle; else not."""
    assert quota.idle(account, NOW) is idle


def test_terms_take_both_plans() -> None:
    """The tenant is measured by its own plan, the user by the token's."""
    free = Plan(100, 100, PerLevel(60, 600), PerLevel(1, 10), 2, 1, 1000, ("standard",))
    pro = Plan(9000, 8000, PerLevel(600, 6000), PerLevel(5, 50), 10, 4, 4000, ("standard",))
    assert quota.terms(pro, free) == Terms(
        Limits(6000, 50, 8000, write=6000), Limits(60, 1, 100, write=quota.WRITES_PER_HOUR), 9000
    )


@pytest.mark.parametrize(
    ("now", "month"),
    [(0, "1970-01"), (NOW, "2026-11"), (1_798_761_599_999, "2026-12"), (1_798_761_600_000, "2027-01")],
)
def test_months_are_utc(now: int, month: str) -> None:
    """A month begins at midnight UTC of its first day."""
    assert quota.month_of(now) == month


STEPS = st.lists(
    st.tuples(st.sampled_from(["submit", "end", "grant", "wait"]), st.integers(0, 60), st.booleans()),
    max_size=40,
)


@given(STEPS)
def test_figures_are_sums_of_entries(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever happens, each figure is the sum of its entries and nothing available falls below zero."""
    terms = Terms(replace(WIDE, monthly_cap=300), replace(WIDE, monthly_cap=200, in_flight=5), 150)
    usage, now, holds = Usage(), NOW, list[Hold]()
    entries: list[Entry] = []
    for verb, amount, side in steps:
        if verb == "submit" and isinstance(answer := admit(usage, amount, terms, now), Admitted):
            holds.append(answer.hold)
            usage, entries = answer.usage, [*entries, *answer.entries]
        elif verb == "end" and holds:
            hold = holds.pop(amount % len(holds))
            posted = quota.settle(usage, ended(hold), hold.amount if side else hold.amount // 2)
            usage, entries = posted.usage, [*entries, *posted.entries]
        elif verb == "grant":
            posted = quota.grant(usage, now, amount, "tenant" if side else "user")
            usage, entries = posted.usage, [*entries, *posted.entries]
        elif verb == "wait":
            now += amount * quota.DAY_MS
        for account, other in ((usage.tenant, "user"), (usage.user, "tenant")):
            mine = [entry for entry in entries if entry.level != other]
            assert account.held == sum(entry.held for entry in mine) == sum(hold.amount for hold in holds)
            assert account.charged == sum(entry.charged for entry in mine)
            assert account.flight == sum(entry.flight for entry in mine) == len(holds)
            assert (account.granted or 0) == sum(entry.granted for entry in mine)
            of_month = [entry for entry in mine if entry.month == account.month]
            assert account.spent == sum(entry.held + entry.charged for entry in of_month)
            assert account.available is None or account.available >= 0
