"""What the verdict is made of: a ledger replayed against limits, spans that overlap, runs that add up."""

from __future__ import annotations

import pytest

from gateway.store.contract import LedgerRow
from policies.model import Entry
from tests.chaos.limits import HOUR_MS, Caps, crowd, replayed
from tests.chaos.orders import Mix, by_number
from tests.chaos.plan import STORE, Profile, wanted
from tests.chaos.profiles import LONG, REDIS, SMOKE
from tests.chaos.table import table
from tests.chaos.troubles import KINDS, kind_of
from tests.chaos.verdict import Row, Verdict
from tests.fakes.behavior import Call

CAPS = Caps(flight=2, submits=3, credits=50, month=40)


def held(at: int = 0, credits_: int = 10, month: str = "2026-11") -> LedgerRow:
    """Return the entry of a submit."""
    return LedgerRow(1, 0, "ref", Entry("hold", month, job="j", held=credits_, flight=1), "", at)


def settled(at: int = 0, charged: int = 0, credits_: int = 10, month: str = "2026-11") -> LedgerRow:
    """Return the entry of an end."""
    entry = Entry("settle", month, job="j", held=-credits_, charged=charged, flight=-1)
    return LedgerRow(1, 0, "ref", entry, "", at)


PASSED = {
    "in flight": [held(), held(), held()],
    "submits": [row for _ in range(4) for row in (held(), settled())],
    "credits of 50": [held(credits_=30), settled(charged=30, credits_=30), held(30, 30, "2026-12")],
    "the month": [held(credits_=20), settled(charged=20, credits_=20), held(credits_=25)],
}


@pytest.mark.parametrize("limit", PASSED)
def test_passed_limit_is_seen(limit: str) -> None:
    """One entry too many of a kind is told, and nothing else with it."""
    (flaw,) = replayed(PASSED[limit], CAPS)
    assert limit in flaw


def test_reached_limits_are_kept() -> None:
    """What just fits is no flaw: a place given back is free, an hour on there are submits again."""
    rows = [held(), held(), settled(), settled(), held(), settled(), held(HOUR_MS)]
    assert list(replayed(rows, CAPS)) == []


def test_crowd_counts_what_overlaps() -> None:
    """Spans are counted where they lie over each other; one that ends makes room at once."""
    assert crowd([(0, 10), (5, 15), (10, 20), (30, 40)]) == 2
    assert crowd([(0, 10), (5, 15), (9, 20)]) == 3
    assert crowd([]) == 0


def test_verdicts_add_up() -> None:
    """Runs that follow each other are one: a promise broken in one is broken, faults are counted together."""
    one = Verdict((Row("a", ()), Row("b", ("x",), 1)), {"k": (1, 1)}, {"jobs": 5}, (10,))
    two = Verdict((Row("a", ("y",)), Row("b", ())), {"k": (2, 1), "l": (0, 3)}, {"jobs": 7}, (20,))
    both = one + two
    assert (both.broken(), both.injected, both.count) == ({"a"}, False, 5)
    assert (both.figures["jobs"], both.recoveries) == (12, (10, 20))
    assert "BROKEN" in table(both)
    assert one.kept


def test_profiles_are_large_enough() -> None:
    """The short run and the long one break at least as much, over as many jobs, as they are there for."""
    for profiles, times, jobs, faults in ((SMOKE, 1, 3_000, 150), (LONG, 10, 30_000, 2_000)):
        assert times * sum(profile.jobs for profile in profiles) >= jobs
        assert times * sum(sum(wanted(profile).values()) for profile in profiles) >= faults
    assert wanted(Profile(store=1, setup=REDIS)).keys() >= set(STORE)


def test_orders_come_again() -> None:
    """The same mix makes the same orders, and another seed makes others."""
    assert by_number(Mix(7, 0.5), 50) == by_number(Mix(7, 0.5), 50)
    assert by_number(Mix(7, 0.5), 50) != by_number(Mix(8, 0.5), 50)


@pytest.mark.parametrize(
    ("part", "outcome", "kind"),
    [
        ("create", "status_503", "whole 5xx"),
        ("create", "status_502", "gateway's 5xx"),
        ("poll", "status_429", "429"),
        ("create", "status_402", "denied"),
        ("image", "status_410", "link gone"),
        ("create", "deep", "nonsense"),
        ("image", "bomb", "no image"),
    ],
)
def test_upstream_faults_have_names(part: str, outcome: str, kind: str) -> None:
    """What an upstream did wrong stands in the table under a name of its own."""
    call = Call(0, part, "GET", "/", None, None, outcome)  # type: ignore[arg-type]
    assert kind_of(call) == f"upstream: {kind}" in KINDS
    assert kind_of(Call(0, "poll", "GET", "/", None, None, "running")) is None
