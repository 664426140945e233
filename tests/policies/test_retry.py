"""When again, or never: each cell of the fault table that is decided here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.retry import (
    FETCH_TRIES,
    LONGEST_WAIT_MS,
    RESEND_TRIES,
    TRIES,
    Again,
    Failure,
    Next,
    Phase,
    Stop,
    Trouble,
    Verdict,
    after,
    backoff_ms,
)

PAID = (Phase.SYNC, Phase.SUBMIT)
LONG = 10**9
UNKNOWN = Stop("outcome_unknown", flag="outcome_unknown")
FAILED = Stop("upstream_failed")
REJECTED = Stop("output_rejected", flag="paid_and_unusable")
USELESS = Stop("upstream_failed", flag="paid_and_unusable")


def trouble(phase: Phase, kind: Failure, tries: int = 1, **fields: object) -> Trouble:
    """Return a failure with time left and no other entry, unless said."""
    return Trouble(phase, kind, tries, **{"more": False, "left_ms": LONG, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", PAID)
@pytest.mark.parametrize(
    ("kind", "tries", "more", "verdict"),
    [
        (Failure.UNREACHABLE, 1, True, Again(500)),
        (Failure.UNREACHABLE, 2, True, Next()),
        (Failure.UNREACHABLE, 2, False, FAILED),
        (Failure.OVERLOADED, 1, False, Again(500)),
        (Failure.OVERLOADED, 2, True, Again(1000)),
        (Failure.OVERLOADED, 3, True, Next()),
        (Failure.OVERLOADED, 3, False, FAILED),
        (Failure.RATE_LIMITED, 1, True, Next()),
        (Failure.RATE_LIMITED, 9, False, Again(8000)),
        (Failure.DENIED, 1, True, Next()),
        (Failure.DENIED, 1, False, FAILED),
        (Failure.INVALID, 1, True, Next()),
        (Failure.INVALID, 1, False, FAILED),
        (Failure.UNKNOWN, 1, True, UNKNOWN),
        (Failure.MALFORMED, 1, True, USELESS),
        (Failure.LOST, 1, True, FAILED),
        (Failure.EXPIRED, 1, True, FAILED),
    ],
)
def test_paid_call_by_table(phase: Phase, kind: Failure, tries: int, *, more: bool, verdict: Verdict) -> None:
    """A paid call goes on as the fault table says."""
    assert after(trouble(phase, kind, tries, more=more)) == verdict


@pytest.mark.parametrize(
    ("kind", "asked", "wait"),
    [
        (Failure.RATE_LIMITED, 7_000, 7_000),
        (Failure.RATE_LIMITED, 0, 500),
        (Failure.RATE_LIMITED, 10**7, LONGEST_WAIT_MS),
        (Failure.OVERLOADED, 7_000, 7_000),
        (Failure.OVERLOADED, 10**7, LONGEST_WAIT_MS),
    ],
)
def test_upstream_names_its_wait(kind: Failure, asked: int, wait: int) -> None:
    """What an upstream asks for is waited, within a minute and not in a rush."""
    assert after(trouble(Phase.SYNC, kind, retry_after_ms=asked)) == Again(wait)


@pytest.mark.parametrize("kind", [Failure.UNREACHABLE, Failure.OVERLOADED, Failure.RATE_LIMITED])
def test_deadline_ends_waiting(kind: Failure) -> None:
    """A wait that would pass the deadline is not begun: the next entry is asked, or none."""
    assert after(trouble(Phase.SYNC, kind, left_ms=500)) == FAILED
    if kind is not Failure.RATE_LIMITED:
        assert after(trouble(Phase.SYNC, kind, left_ms=500, more=True)) == Next()


def test_key_allows_same_again() -> None:
    """With an idempotency key the same attempt is sent again, so often and while there is time."""
    same = trouble(Phase.SUBMIT, Failure.UNKNOWN, idempotent=True)
    assert after(same) == Again(500, resend=True)
    assert after(trouble(Phase.SUBMIT, Failure.UNKNOWN, RESEND_TRIES, idempotent=True)) == UNKNOWN
    assert after(trouble(Phase.SUBMIT, Failure.UNKNOWN, idempotent=True, left_ms=500)) == UNKNOWN


@pytest.mark.parametrize("kind", list(Failure))
@pytest.mark.parametrize("idempotent", [True, False])
def test_doubt_outlives_later_answers(kind: Failure, *, idempotent: bool) -> None:
    """While an earlier send may have been taken, what tells of this send alone settles nothing."""
    verdict = after(trouble(Phase.SUBMIT, kind, more=True, doubt=True, idempotent=idempotent))
    if kind in (Failure.MALFORMED, Failure.LOST, Failure.EXPIRED):
        assert isinstance(verdict, Stop)
    else:
        assert verdict == (Again(500, resend=True) if idempotent else UNKNOWN)


def test_polls_go_on_until_deadline() -> None:
    """Polling waits as it is asked to until the deadline, and stops at once where the job is lost."""
    assert after(trouble(Phase.POLL, Failure.RATE_LIMITED, 3, retry_after_ms=9_000)) == Again(9_000)
    assert after(trouble(Phase.POLL, Failure.DENIED, 99)) == Again(8_000)
    assert after(trouble(Phase.POLL, Failure.LOST)) == FAILED
    assert after(trouble(Phase.POLL, Failure.MALFORMED, left_ms=500)) == USELESS
    late = after(trouble(Phase.POLL, Failure.OVERLOADED, left_ms=500))
    assert late == Stop("upstream_timeout", flag="paid_and_late")


@pytest.mark.parametrize("kind", list(Failure))
def test_refused_links_stay_refused(kind: Failure) -> None:
    """An image is fetched again unless its link is refused, so often, and while there is time."""
    hopeless = {Failure.DENIED, Failure.INVALID, Failure.MALFORMED, Failure.EXPIRED}
    assert after(trouble(Phase.FETCH, kind)) == (REJECTED if kind in hopeless else Again(500))
    assert after(trouble(Phase.FETCH, kind, FETCH_TRIES)) == REJECTED
    assert after(trouble(Phase.FETCH, kind, left_ms=500)) == REJECTED


TROUBLES = st.builds(
    Trouble,
    phase=st.sampled_from(Phase),
    kind=st.sampled_from(Failure),
    tries=st.integers(1, 100),
    more=st.booleans(),
    left_ms=st.integers(0, 200_000),
    idempotent=st.booleans(),
    doubt=st.booleans(),
    retry_after_ms=st.none() | st.integers(0, 10**7),
    chance=st.floats(0, 1, exclude_max=True),
)


@given(TROUBLES)
def test_no_paid_work_twice(each: Trouble) -> None:
    """Nothing that may have been done is asked for again without a key, here or at the next entry."""
    verdict = after(each)
    if each.phase in PAID and (each.kind is Failure.UNKNOWN or each.doubt) and not isinstance(verdict, Stop):
        assert each.idempotent
        assert isinstance(verdict, Again)
        assert verdict.resend
    if isinstance(verdict, Again) and verdict.resend:
        assert each.idempotent


@given(TROUBLES)
def test_waits_end_before_deadline(each: Trouble) -> None:
    """A wait is positive and over before the deadline; only a route with more goes on to the next."""
    verdict = after(each)
    if isinstance(verdict, Again):
        assert 0 < verdict.after_ms < each.left_ms
    if isinstance(verdict, Next):
        assert each.more
        assert each.phase in PAID


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_to_ceiling(tries: int, chance: float) -> None:
    """Waits double from half a second to eight, spread by a quarter to either side."""
    middle = min(8_000, 500 * 2 ** min(tries - 1, 10))
    assert int(middle * 0.75) <= backoff_ms(tries, chance) <= middle * 1.25


def test_tries_are_as_promised() -> None:
    """A whole 5xx is asked for at most three times, an unreachable entry twice."""
    assert TRIES == {Failure.UNREACHABLE: 2, Failure.OVERLOADED: 3}
