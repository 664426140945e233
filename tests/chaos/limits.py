"""Whether a limit was ever passed: the ledger replayed entry by entry, and the clients' own books beside it.

The ledger says what was held, for whom and when, in the order it was committed. Clients know less, and
what they know must fit all the same: a job is surely in flight from its 202 to the end it was told of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.chaos.stage import PLAN, TIGHT

if TYPE_CHECKING:
    from gateway.store.contract import LedgerRow
    from tests.chaos.book import Said
    from tests.chaos.books import Books

HOUR_MS: Final = 3_600_000
CODES: Final = {
    "narrow": "too_many_in_flight",
    "metered": "rate_limited",
    "thrifty": "insufficient_credits",
    "capped": "monthly_cap_reached",
}
"""What a tenant's tight limit answers."""


class Caps(NamedTuple):
    """What one level may have: jobs in flight, submits an hour, credits for ever (None: all), and a month."""

    flight: int
    submits: int
    credits: int | None
    month: int


def caps_of(tenant: str, level: str) -> Caps:
    """Return the limits of a tenant or its users."""
    plan: dict[str, Any] = {**PLAN, **TIGHT.get(tenant, {})}
    budget = plan["credits_per_month"] if level == "tenant" else None
    return Caps(plan["in_flight"][level], plan["submit_per_hour"][level], budget, plan["monthly_cap"])


def overdrawn(books: Books) -> tuple[str, ...]:
    """Return each time a limit was passed, by the store's book or by the clients'."""
    wrong: list[str] = []
    for name, tenant in books.tenants.items():
        by_user: defaultdict[str, list[LedgerRow]] = defaultdict(list)
        for row in tenant.ledger:
            by_user[row.ref].append(row)
        wrong += (f"{name}: {flaw}" for flaw in replayed(tenant.ledger, caps_of(name, "tenant")))
        for ref, rows in by_user.items():
            wrong += (f"{name}/{ref}: {flaw}" for flaw in replayed(rows, caps_of(name, "user")))
    return (*wrong, *_told(books))


def replayed(rows: Iterable[LedgerRow], caps: Caps) -> Iterator[str]:
    """Replay a level's entries; tell where a limit was passed."""
    flight = held = charged = 0
    spent: defaultdict[str, int] = defaultdict(int)
    window, count = -HOUR_MS, 0
    for row in rows:
        entry = row.entry
        flight += entry.flight
        held += entry.held
        charged += entry.charged
        spent[entry.month] += entry.held + entry.charged
        if entry.kind != "hold":
            continue
        window, count = (row.at, 1) if row.at >= window + HOUR_MS else (window, count + 1)
        if flight > caps.flight:
            yield f"{flight} in flight of {caps.flight}"
        if count > caps.submits:
            yield f"{count} submits in an hour of {caps.submits}"
        if caps.credits is not None and held + charged > caps.credits:
            yield f"{held + charged} credits of {caps.credits}"
        if spent[entry.month] > caps.month:
            yield f"{spent[entry.month]} credits of the month's {caps.month}"


def _told(books: Books) -> Iterator[str]:
    """Hold the limits of tight tenants against what their clients were told."""
    for name in TIGHT:
        lines = [line for line in books.said if books.known[line.order].tenant == name]
        accepted = {line.order: line for line in lines if line.said == "accepted"}
        ended = {line.order: line for line in lines if line.said == "ended"}
        for level in ("tenant", "user"):
            caps = caps_of(name, level)
            for who, orders in _levels(books, list(accepted), level):
                surely = [(accepted[n].at, ended[n].over) for n in orders if n in ended]
                if (most := crowd(surely)) > caps.flight:
                    yield f"{name}/{who}: clients saw {most} in flight of {caps.flight}"
                if _busiest(accepted[n] for n in orders) > caps.submits:
                    yield f"{name}/{who}: clients had more than {caps.submits} accepted in an hour"
                cost = sum(ended[n].charged for n in orders if n in ended)
                if cost > min(caps.month, caps.month if caps.credits is None else caps.credits):
                    yield f"{name}/{who}: clients were charged {cost}"


def _levels(books: Books, orders: list[int], level: str) -> Iterator[tuple[str, list[int]]]:
    if level == "tenant":
        yield "", orders
        return
    for subject in {books.known[n].subject for n in orders}:
        yield subject, [n for n in orders if books.known[n].subject == subject]


def crowd(spans: Sequence[tuple[int, int]]) -> int:
    """Return how many spans lie over one instant at most. An end makes room at once."""
    steps = sorted([(begin, 1) for begin, end in spans if end > begin] + [(e, -1) for b, e in spans if e > b])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def _busiest(lines: Iterable[Said]) -> int:
    """Return how many jobs were accepted within the hour from the first: no run is longer."""
    times = sorted(line.at for line in lines)
    return sum(at < times[0] + HOUR_MS for at in times) if times else 0


def reached(books: Books, tenants: Iterable[str]) -> tuple[str, ...]:
    """Return the tight limits that denied nothing: who never reaches a limit cannot pass it."""
    denied = {
        (books.known[line.order].tenant, line.detail)
        for line in books.said
        if line.said in ("denied", "crowded")
    }
    return tuple(f"{name}: nothing was denied" for name in tenants if (name, CODES[name]) not in denied)
