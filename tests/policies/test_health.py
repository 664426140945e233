"""The breaker: when an upstream is left alone, and when it is asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.health import COOL_MS, ENOUGH, MAX_COOL_MS, WINDOW, WINDOW_MS, Health, asked, may_ask, observe

NOW = 1_000_000


def after(outcomes: str, now: int = NOW) -> Health:
    """Return what is known after outcomes written as `+` and `-`, all at one instant."""
    health = Health()
    for sign in outcomes:
        health = observe(health, sign == "+", now)
    return health


def test_few_failures_conclude_nothing() -> None:
    """Fewer outcomes than enough leave the upstream asked, all of them failures or not."""
    assert may_ask(after("-" * (ENOUGH - 1)), NOW)


def test_half_failing_opens() -> None:
    """Half of enough outcomes failing opens; a call before the pause is over is not sent."""
    health = after("+++---")
    assert not may_ask(health, NOW + COOL_MS - 1)
    assert may_ask(health, NOW + COOL_MS)


def test_mostly_good_stays_closed() -> None:
    """Less than half failing opens nothing, and asking while closed changes nothing."""
    health = after("++++--+-+")
    assert may_ask(health, NOW)
    assert asked(health, NOW) == health


def test_old_outcomes_count_no_more() -> None:
    """Failures older than the window are forgotten."""
    health = observe(after("----"), ok=False, now=NOW + WINDOW_MS)
    assert may_ask(health, NOW + WINDOW_MS)


def test_one_probe_a_pause() -> None:
    """Once a probe is out the next waits for another pause, even when the first never reports."""
    later = NOW + COOL_MS
    health = asked(after("-----"), later)
    assert not may_ask(health, later + COOL_MS - 1)
    assert may_ask(health, later + COOL_MS)


def test_good_probe_closes() -> None:
    """A probe that succeeds closes, and the failures before it are forgotten."""
    assert observe(asked(after("-----"), NOW + COOL_MS), ok=True, now=NOW + COOL_MS) == Health()


def test_failed_probes_double_the_pause() -> None:
    """Each failed probe doubles the pause, up to the longest."""
    health, now, pauses = after("-----"), NOW, []
    for _ in range(6):
        now = health.ask_at
        health = observe(asked(health, now), ok=False, now=now)
        pauses.append(health.ask_at - now)
    assert pauses == [20_000, 40_000, 80_000, MAX_COOL_MS, MAX_COOL_MS, MAX_COOL_MS]


def test_stragglers_change_nothing() -> None:
    """Failures of calls that were under way when it opened do not lengthen the pause."""
    health = after("-----")
    assert observe(health, ok=False, now=NOW + 1) == health


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20_000)), max_size=80))
def test_memory_and_pause_are_bounded(history: list[tuple[bool, int]]) -> None:
    """Whatever happens, a bounded past is kept and a question is let through within the longest pause."""
    health, now = Health(), NOW
    for ok, wait in history:
        now += wait
        if may_ask(health, now):
            health = asked(health, now)
        health = observe(health, ok, now)
        assert len(health.recent) <= WINDOW
        assert may_ask(health, now + MAX_COOL_MS)
