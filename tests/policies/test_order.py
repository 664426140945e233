"""Which line a job waits in, how places are shared between the two, and when nothing more is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import order
from policies.bundle import PerLevel, Plan
from policies.model import Deny, Priority, Reason
from policies.order import SHARE, STALE_MS, Backlog, Bounds, Line

PLAN = Plan(100, 100, PerLevel(60, 600), PerLevel(1, 10), 2, 1, 1000, ("standard",))
NOW = 1_795_176_000_000
BOUNDS = Bounds(depth=10, age_ms=1_000)
PLACES = st.lists(st.integers(0, 70), max_size=60)


@pytest.mark.parametrize(
    ("tenant", "user", "line"),
    [
        ("interactive", "interactive", "interactive"),
        ("interactive", "batch", "batch"),
        ("batch", "interactive", "batch"),
        ("batch", "batch", "batch"),
    ],
)
def test_either_plan_makes_batch(tenant: Priority, user: Priority, line: Priority) -> None:
    """A job is batch where the tenant's plan says so or the caller's own."""
    plans = [replace(PLAN, priority=each) for each in (tenant, user)]
    assert order.priority(*plans) == line


@given(PLACES)
def test_both_lines_get_their_share(claims: list[int]) -> None:
    """Where both lines are long, batch gets one place of each eight, never fewer nor more."""
    since, places, late = 0, 0, 0
    for n in claims:
        share = order.kept(since, n)
        since = order.owed(since, n, share, n)
        places, late = places + n, late + share
        assert late == places // SHARE
        assert since == places % SHARE


@pytest.mark.parametrize(
    ("before", "given", "late", "n", "after"),
    [
        (0, 1, 0, 1, 1),
        (7, 1, 1, 1, 0),
        (7, 1, 0, 1, 0),
        (7, 2, 1, 2, 1),
        (3, 2, 1, 2, 0),
        (0, 3, 0, 3, 3),
        (5, 2, 1, 64, 0),
    ],
)
def test_owed_follows_what_came(before: int, given: int, late: int, n: int, after: int) -> None:
    """What batch is owed grows by each place given; it is nothing where none waited, or room was left."""
    assert order.owed(before, given, late, n) == after


def seen(interactive: tuple[int, int], batch: tuple[int, int]) -> Backlog:
    """Return a backlog of now: of each line how many wait, and for how long the first has."""
    lines = [Line(depth, NOW - age if depth else None) for depth, age in (interactive, batch)]
    return Backlog(NOW, *lines)


@pytest.mark.parametrize(
    ("interactive", "batch", "first", "second"),
    [
        ((0, 0), (0, 0), None, None),
        ((9, 999), (0, 0), None, None),
        ((10, 0), (0, 0), "queue.depth", "queue.depth"),
        ((1, 1_000), (0, 0), "queue.age", "queue.age"),
        ((4, 0), (6, 0), None, "queue.depth"),
        ((4, 0), (5, 999), None, None),
        ((0, 0), (10, 5_000), None, "queue.depth"),
        ((1, 0), (1, 1_000), None, "queue.age"),
    ],
)
def test_full_queue_takes_no_more(
    interactive: tuple[int, int], batch: tuple[int, int], first: str | None, second: str | None
) -> None:
    """A bound that is reached refuses; what waits in batch refuses batch alone, what waits before it both."""
    for line, rule in (("interactive", first), ("batch", second)):
        answer = order.full(seen(interactive, batch), line, BOUNDS, NOW)  # type: ignore[arg-type]
        assert (None if answer is None else answer.rule) == rule


def test_bounds_follow_the_deadline() -> None:
    """The first may wait for half of the time a job has."""
    assert Bounds.of(7, 900) == Bounds(7, 450_000)


def test_refusal_says_when_again() -> None:
    """A refusal is `queue_full` and says when to come again."""
    answer = order.full(seen((99, 0), (0, 0)), "interactive", BOUNDS, NOW)
    assert isinstance(answer, Deny)
    assert (answer.reason, answer.retry_after_ms) == (Reason.QUEUE_FULL, order.FULL_ESTIMATE_MS)


def test_old_look_refuses_nobody() -> None:
    """A look at the queue that is too old says nothing: who is refused is refused by what is."""
    old = seen((99, 99_999), (0, 0))
    assert order.full(old, "batch", BOUNDS, NOW + STALE_MS) is not None
    assert order.full(old, "batch", BOUNDS, NOW + STALE_MS + 1) is None
    assert order.full(Backlog(), "interactive", BOUNDS, NOW) is None


def test_age_never_runs_backwards() -> None:
    """A job due later than the clock of the reader has waited for nothing."""
    assert [Line(1, at).age_ms(NOW) for at in (NOW - 7, NOW, NOW + 7)] == [7, 0, 0]
