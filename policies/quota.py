"""Rate, in-flight, credits, caps: who is admitted, what is held, what comes back.

The only arithmetic on credits. A balance changes by posting an `Entry` and in no other way, so the
ledger and the balances cannot drift apart: the figures of a level are the sums of its entries.
`available = granted - charged - held` never falls below zero; `spent` counts, by the month of its
hold, what the monthly cap is about. Rate windows are fixed and begin with the first counted call; a
denied call changes nothing.
"""

from __future__ import annotations

import datetime
import functools
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from policies.model import Account, Deny, Entry, Hold, Reason, Usage, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.bundle import Plan
    from policies.model import Job, Money

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
IN_FLIGHT_ESTIMATE_MS: Final = 5_000
"""When a place in flight may be free again: an image takes seconds. An estimate, and said to be one."""

Counter = Literal["submit", "write"]
WRITES_PER_HOUR: Final = 600


IDLE: Final = Account(granted=None)
"""The figures of a user of whom nothing is to be known."""


class Limits(Struct, frozen=True):
    """What one level may use. `monthly_cap` is in credits."""

    submit: int
    in_flight: int
    monthly_cap: int
    write: int = WRITES_PER_HOUR


class Terms(Struct, frozen=True):
    """The limits a call is measured by: the tenant's plan for the tenant, the token's for the user."""

    tenant: Limits
    user: Limits
    credits_per_month: int


class Admitted(Struct, frozen=True):
    """The usage after admission, the ledger's entries that make it so, and the job's hold."""

    usage: Usage
    entries: tuple[Entry, ...]
    hold: Hold


class Posted(Struct, frozen=True):
    """The usage after a posting, and the ledger's entries that make it so."""

    usage: Usage
    entries: tuple[Entry, ...]


class Standing(Struct, frozen=True):
    """How a counter stands at one level: calls left, and when the window ends."""

    limit: int
    remaining: int
    reset_at: int


def terms(tenant_plan: Plan, user_plan: Plan) -> Terms:
    """Return the limits of a caller whose tenant and token have these plans."""
    return Terms(
        tenant=Limits(
            submit=tenant_plan.submit_per_hour.tenant,
            in_flight=tenant_plan.in_flight.tenant,
            monthly_cap=tenant_plan.monthly_cap,
            write=tenant_plan.submit_per_hour.tenant,
        ),
        user=Limits(
            submit=user_plan.submit_per_hour.user,
            in_flight=user_plan.in_flight.user,
            monthly_cap=user_plan.monthly_cap,
        ),
        credits_per_month=tenant_plan.credits_per_month,
    )


@functools.lru_cache(maxsize=8)
def _month_of_day(day: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).strftime("%Y-%m")


def month_of(now: int) -> str:
    """Return the UTC calendar month of an instant, as `YYYY-MM`."""
    return _month_of_day(now // DAY_MS)


def _moved(account: Account, entry: Entry, granted: int) -> Account:
    """Return a level after an entry. The cap counts an entry only in the month it belongs to."""
    spent = entry.held + entry.charged if entry.month == account.month else 0
    return Account(
        granted=_granted(account.granted, granted),
        charged=account.charged + entry.charged,
        held=account.held + entry.held,
        flight=account.flight + entry.flight,
        month=account.month,
        spent=account.spent + spent,
        windows=account.windows,
    )


def _granted(granted: int | None, more: int) -> int | None:
    return granted if not more else (granted or 0) + more


def post(usage: Usage, entry: Entry) -> Usage:
    """Return both levels after an entry of the ledger. Grants count at the level they name."""
    tenant, user = usage.tenant, usage.user
    if entry.level != "user":
        tenant = _moved(tenant, entry, entry.granted)
    if entry.level != "tenant":
        user = _moved(user, entry, entry.granted if entry.level == "user" else 0)
    return Usage(tenant, user)


def _in_month(account: Account, month: str) -> Account:
    return account if account.month == month else replace(account, month=month, spent=0)


def _top_up(usage: Usage, month: str, credits_per_month: int) -> tuple[Usage, tuple[Entry, ...]]:
    """Turn both levels to the month; the tenant's first commit of a month fills it up to its plan."""
    fresh = usage.tenant.month != month
    usage = Usage(_in_month(usage.tenant, month), _in_month(usage.user, month))
    lack = credits_per_month - (usage.tenant.available or 0)
    if not fresh or lack <= 0:
        return usage, ()
    entry = Entry(kind="plan", month=month, level="tenant", granted=lack)
    return post(usage, entry), (entry,)


def as_of(usage: Usage, now: int, terms: Terms) -> Usage:
    """Return the usage a caller would be measured by now: this month, topped up. For showing."""
    month = month_of(now)
    if usage.tenant.month == usage.user.month == month:
        return usage
    return _top_up(usage, month, terms.credits_per_month)[0]


def standing(account: Account, counter: Counter, limit: int, now: int) -> Standing:
    """Return how a counter stands: with no window running, a call now would begin one."""
    window = account.windows.get(counter)
    if window is None or now >= window.start_at + HOUR_MS:
        return Standing(limit, limit, now + HOUR_MS)
    return Standing(limit, max(0, limit - window.count), window.start_at + HOUR_MS)


def _counted(account: Account, counter: Counter, now: int) -> Account:
    window = account.windows.get(counter)
    if window is None or now >= window.start_at + HOUR_MS:
        window = Window(now, 1)
    else:
        window = Window(window.start_at, window.count + 1)
    return replace(account, windows={**account.windows, counter: window})


def count(usage: Usage, now: int, counter: Counter, terms: Terms) -> Usage | Deny:
    """Count one call against both levels' windows, or deny it with the instant it would be admitted."""
    full = [
        stand.reset_at
        for stand in (
            standing(usage.user, counter, getattr(terms.user, counter), now),
            standing(usage.tenant, counter, getattr(terms.tenant, counter), now),
        )
        if stand.remaining == 0
    ]
    if full:
        return Deny(
            Reason.RATE_LIMITED,
            "Too many calls in this hour's window.",
            retry_after_ms=max(full) - now,
            rule=f"limit.{counter}",
        )
    return Usage(_counted(usage.tenant, counter, now), _counted(usage.user, counter, now))


def write(terms: Terms) -> Callable[[Usage, int], Usage | Deny]:
    """Return the rule a store asks for every call that writes and makes no job."""
    return lambda usage, now: count(usage, now, "write", terms)


def _flight(usage: Usage, terms: Terms) -> Deny | None:
    if usage.user.flight >= terms.user.in_flight or usage.tenant.flight >= terms.tenant.in_flight:
        return Deny(
            Reason.TOO_MANY_IN_FLIGHT,
            "As many jobs are queued or running as the plan allows.",
            retry_after_ms=IN_FLIGHT_ESTIMATE_MS,
            rule="limit.in_flight",
        )
    return None


def idle(account: Account, now: int) -> bool:
    """Say whether a user's figures tell nothing any more: no credits moved, and no window is open."""
    over = all(now >= window.start_at + HOUR_MS for window in account.windows.values())
    return over and replace(account, month="", windows={}) == IDLE


def _money(usage: Usage, price: int, terms: Terms) -> Deny | None:
    for account in (usage.user, usage.tenant):
        available = account.available
        if available is not None and price > available:
            return Deny(
                Reason.INSUFFICIENT_CREDITS,
                f"The job costs {price} credits; {available} are available.",
                rule="credits.available",
            )
    for account, cap in ((usage.user, terms.user.monthly_cap), (usage.tenant, terms.tenant.monthly_cap)):
        if account.spent + price > cap:
            return Deny(
                Reason.MONTHLY_CAP_REACHED,
                f"The job costs {price} credits; {max(0, cap - account.spent)} are left of this month's cap.",
                rule="credits.monthly_cap",
            )
    return None


def admit(usage: Usage, now: int, *, job: str, price: int, terms: Terms) -> Admitted | Deny:
    """Admit a job that will cost at most `price`, holding that much, or say why not.

    Asked in this order: rate, in flight, credits, cap; at each the user before the tenant.
    """
    month = month_of(now)
    usage, topped = _top_up(usage, month, terms.credits_per_month)
    counted = count(usage, now, "submit", terms)
    if isinstance(counted, Deny):
        return counted
    denied = _flight(usage, terms) or _money(usage, price, terms)
    if denied:
        return denied
    hold = Entry(kind="hold", month=month, job=job, held=price, flight=1)
    return Admitted(post(counted, hold), (*topped, hold), Hold(price, month))


def admission(
    job: str, price: int, terms: Terms, full: Deny | None
) -> Callable[[Usage, int], Admitted | Deny]:
    """Return the rule a store asks for a new job. `full`: why the queue takes none.

    The caller's own limits come first: who has no credits left is not told to come again.
    """

    def decide(usage: Usage, now: int) -> Admitted | Deny:
        admitted = admit(usage, now, job=job, price=price, terms=terms)
        return admitted if full is None or isinstance(admitted, Deny) else full

    return decide


def settle(usage: Usage, job: Job, charged: int, cost: Money | None = None) -> Posted:
    """Give back what a job held, charge what it delivered. Called once, with the job's own hold.

    The entry carries the hold's month: a hold of November settled in December leaves December's cap
    alone. `charged` never passes the hold.
    """
    if not 0 <= charged <= job.hold.amount:
        raise ValueError(f"charge {charged} outside the hold of {job.hold.amount}")
    entry = Entry(
        kind="settle",
        month=job.hold.month,
        job=job.id,
        held=-job.hold.amount,
        charged=charged,
        flight=-1,
        provider_cost=cost,
    )
    return Posted(post(usage, entry), (entry,))


def grant(usage: Usage, now: int, credits_: int, level: Literal["tenant", "user"]) -> Posted:
    """Give credits to a level. A user without a budget of their own gets one.

    What such a user drew on the tenant before is granted along, so that all of `credits_` is available.
    """
    first = level == "user" and usage.user.granted is None
    drawn = usage.user.charged + usage.user.held if first else 0
    entry = Entry(kind="grant", month=month_of(now), level=level, granted=credits_ + drawn)
    return Posted(post(usage, entry), (entry,))
