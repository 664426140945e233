"""Webhooks: who hears of what, when a try is repeated, and when no more is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import webhooks
from policies.model import Deny, Flaw, Job, JobRequest, JobState, Principal, Reason, Role
from policies.webhooks import (
    EVENTS,
    HOUR_MS,
    LONGEST_ASKED_MS,
    LONGEST_REST_MS,
    MINUTE_MS,
    PLUS_DISABLE_AFTER,
    ROTATION_MS,
    TRIES_KEPT,
    WAITS_MS,
    Answered,
    Delivery,
    Endpoint,
    Form,
    Scope,
    Try,
)

if TYPE_CHECKING:
    from typing import Literal

NOON: Final = 1_795_176_000_000
FORMS: Final[tuple[Form, ...]] = ("native", "gptimage2_plus")
ENDED: Final = [state for state in JobState if state.ended]
USER: Final = frozenset({Role.USER})
ADMIN: Final = frozenset({Role.USER, Role.TENANT_ADMIN})


def endpoint(form: Form = "native", **fields: object) -> Endpoint:
    """Return Ann's endpoint, which hears all of its form's events."""
    made = {"id": "e1", "tenant": "acme", "subject": "ann", "url": "https://a.example.org", "secret": "s"}
    return Endpoint(**{**made, "form": form, "events": EVENTS[form], **fields})  # type: ignore[arg-type]


def job(state: JobState, subject: str = "ann") -> Job:
    """Return a job of the tenant in a state."""
    return Job("j1", "acme", subject, JobRequest(prompt="a lighthouse"), state=state)


def failed(status: int | None = 500, retry_after_ms: int | None = None) -> Answered:
    """Return a try that did not deliver."""
    return Answered(Try(NOON, status, None if status else "timeout"), retry_after_ms)


def after(
    told: Delivery, to: Endpoint, answered: Answered, *, chance: float = 0.0, most: int = 20, now: int = NOON
) -> tuple[Delivery, Endpoint]:
    """Return what a try leaves."""
    return webhooks.tried(told, to, answered, now, chance=chance, disable_after=most)


PENDING: Final = Delivery("d1", "acme", "e1", "job.succeeded", "j1", created_at=NOON, due_at=NOON)
TAKEN: Final = Answered(Try(NOON, 204, None, 12))


# -- who hears -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("form", FORMS)
def test_every_end_has_a_word(form: Form, state: JobState) -> None:
    """Each end of a job is one of the form's events, and an open job is none."""
    event = webhooks.hears(endpoint(form), job(state))
    assert (event in EVENTS[form]) == state.ended
    assert (event is None) != state.ended


@pytest.mark.parametrize("state", ENDED)
def test_seed_form_knows_two_events(state: JobState) -> None:
    """A plus endpoint hears of every end that made no picture as a failure, so that none waits for ever."""
    word = "succeeded" if state is JobState.SUCCEEDED else "failed"
    assert webhooks.event_of("gptimage2_plus", state) == f"generation.{word}"


@pytest.mark.parametrize(
    ("to", "whose", "heard"),
    [
        (endpoint(), "ann", True),
        (endpoint(), "bob", False),
        (endpoint(scope="tenant"), "bob", True),
        (endpoint(events=("job.failed",)), "ann", False),
        (endpoint(disabled="asked"), "ann", False),
        (endpoint(disabled="failing", scope="tenant"), "ann", False),
    ],
)
def test_endpoints_hear_their_own(*, to: Endpoint, whose: str, heard: bool) -> None:
    """An enabled endpoint hears the events it asked for, of its subject or of the whole tenant."""
    assert (webhooks.hears(to, job(JobState.SUCCEEDED, whose)) is not None) == heard


def test_delivery_is_made_once() -> None:
    """The same end told to the same endpoint is the same delivery, and any other is another."""
    ended = job(JobState.FAILED)
    one = webhooks.delivery(endpoint(), ended, "job.failed", NOON)
    assert one == webhooks.delivery(endpoint(), ended, "job.failed", NOON)
    assert (one.state, one.due_at, one.job, one.tries) == ("pending", NOON, "j1", ())
    others = {
        webhooks.delivery(endpoint(id="e2"), ended, "job.failed", NOON).id,
        webhooks.delivery(endpoint(), replace(ended, id="j2"), "job.failed", NOON).id,
        webhooks.delivery(endpoint(), ended, "generation.failed", NOON).id,
    }
    assert len({one.id, *others}) == 4


# -- when again ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "waits"),
    [
        ("native", [5, 60, 300, 1800, 7200, 18_000, 21_600, 36_000]),
        ("gptimage2_plus", [30, 120, 600]),
    ],
)
def test_schedule_is_as_documented(form: Form, waits: list[int]) -> None:
    """A delivery that is never taken is tried again after each wait of its form's schedule, then given up."""
    told, seen = replace(PENDING), []
    while told.state == "pending":
        told, _ = after(told, endpoint(form), failed())
        seen.append(None if told.due_at is None else (told.due_at - NOON) // 1000)
    assert seen == [*waits, None]
    assert (told.state, len(told.tries)) == ("failed", len(waits) + 1)


def test_native_schedule_fills_a_day() -> None:
    """Our own retries are spread over 24 hours and none comes later, however chance falls."""
    total = sum(WAITS_MS["native"])
    assert 23 * HOUR_MS < total <= 24 * HOUR_MS


@given(chance=st.floats(0, 1, exclude_max=True), tries=st.integers(0, 7))
def test_chance_shortens_our_waits(chance: float, tries: int) -> None:
    """Chance takes at most a fifth of a wait away, and never adds to one."""
    told, _ = after(replace(PENDING, tries=(Try(1),) * tries), endpoint(), failed(), chance=chance)
    assert told.due_at is not None
    assert 0.8 * WAITS_MS["native"][tries] - 1 <= told.due_at - NOON <= WAITS_MS["native"][tries]


@given(chance=st.floats(0, 1, exclude_max=True), asked=st.integers(0, 10**9))
def test_seed_waits_are_exact(chance: float, asked: int) -> None:
    """The other form's document knows its waits alone: neither chance nor a Retry-After moves them."""
    told, _ = after(PENDING, endpoint("gptimage2_plus"), failed(503, asked), chance=chance)
    assert told.due_at == NOON + 30_000


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(None, 5_000), (0, 5_000), (4_000, 5_000), (90_000, 90_000), (10**9, LONGEST_ASKED_MS)],
)
def test_retry_after_is_capped(asked: int | None, wait: int) -> None:
    """A receiver may put a try off by an hour at most, and never brings one forward."""
    told, _ = after(PENDING, endpoint(), failed(503, asked))
    assert told.due_at == NOON + wait


@pytest.mark.parametrize(
    ("status", "taken"),
    [(status, True) for status in (200, 204, 299)] + [(s, False) for s in (199, 301, 304, 404, 500, None)],
)
def test_only_2xx_is_taken(*, status: int | None, taken: bool) -> None:
    """Every 2xx delivers; a redirect, any other status and no whole answer do not."""
    told, to = after(PENDING, endpoint(failures=3), Answered(Try(NOON, status)))
    assert (told.state == "delivered") == taken
    assert to.failures == (0 if taken else 4)


def test_delivered_is_over() -> None:
    """What was taken is not due again, and keeps the tries it took."""
    told, _ = after(replace(PENDING, tries=(Try(1, 500),)), endpoint(), TAKEN)
    assert (told.state, told.due_at, told.id) == ("delivered", None, "d1")
    assert told.tries == (Try(1, 500), TAKEN.tried)


def test_tries_are_kept_bounded() -> None:
    """However often a delivery is sent again by hand, only its newest tries are kept."""
    told = PENDING
    for at in range(TRIES_KEPT + 5):
        told, _ = after(replace(told, state="pending"), endpoint(), Answered(Try(at, 500)), most=100)
    assert (len(told.tries), told.tries[-1].at, told.state) == (TRIES_KEPT, TRIES_KEPT + 4, "failed")


# -- when no more ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "most"), [("native", 3), ("gptimage2_plus", PLUS_DISABLE_AFTER)])
def test_run_of_failures_disables(form: Form, most: int) -> None:
    """The last failed try of a run over any deliveries disables the endpoint; the undelivered is kept."""
    to = endpoint(form)
    for n in range(most - 1):
        told, to = after(replace(PENDING, id=f"d{n}"), to, failed(), most=3)
        assert (to.disabled, to.failures) == (None, n + 1)
        assert told.due_at is not None
    told, to = after(PENDING, to, failed(), most=3)
    assert (to.disabled, told.state, told.due_at) == ("failing", "pending", None)


@pytest.mark.parametrize("form", FORMS)
def test_success_begins_anew(form: Form) -> None:
    """Any 2xx of any delivery resets the count, so a receiver that answers now and then stays enabled."""
    to = endpoint(form, failures=PLUS_DISABLE_AFTER - 1)
    _, to = after(PENDING, to, TAKEN, most=8)
    _, to = after(PENDING, to, failed(), most=8)
    assert (to.failures, to.disabled) == (1, None)


@pytest.mark.parametrize(("form", "why"), [("native", "gone"), ("gptimage2_plus", None)])
def test_gone_disables_at_once(form: Form, why: str | None) -> None:
    """A 410 ends our own form's deliveries at once; the other's document does not know it."""
    told, to = after(PENDING, endpoint(form), failed(410))
    assert to.disabled == why
    assert (told.due_at is None) == (why is not None)
    assert told.state == "pending"


@pytest.mark.parametrize("why", ["asked", "failing", "gone"])
def test_first_reason_stays(why: Literal["asked", "failing", "gone"]) -> None:
    """A try that was under way when an endpoint was disabled does not change why, and is not repeated."""
    told, to = after(PENDING, endpoint(disabled=why, failures=30), failed(410))
    assert (to.disabled, told.due_at) == (why, None)


def test_last_try_fails_for_good() -> None:
    """The try after the last wait is a delivery's end, also where it disables the endpoint."""
    spent = replace(PENDING, tries=(Try(1),) * len(WAITS_MS["native"]))
    told, to = after(spent, endpoint(failures=2), failed(), most=3)
    assert (told.state, told.due_at, to.disabled) == ("failed", None, "failing")


def test_enabling_counts_anew() -> None:
    """Switching on forgets why and how often; switching off keeps the reason there was."""
    on = webhooks.enabled(endpoint(disabled="failing", failures=20), wanted=True)
    assert (on.disabled, on.failures) == (None, 0)
    assert webhooks.enabled(on, wanted=False).disabled == "asked"
    assert webhooks.enabled(endpoint(disabled="gone"), wanted=False).disabled == "gone"


@given(st.integers(0, 10**6))
def test_rest_grows_to_minutes(failures: int) -> None:
    """A failing endpoint is left alone for longer each time, at least a second and at most five minutes."""
    rest = webhooks.rest_ms(failures)
    assert 1000 <= rest <= LONGEST_REST_MS == 5 * MINUTE_MS
    assert rest <= webhooks.rest_ms(failures + 1) <= max(rest * 2, 1000)


def test_rests_outlast_an_outage() -> None:
    """With the usual setting a busy endpoint is down for the most of an hour before it is disabled."""
    assert sum(webhooks.rest_ms(n) for n in range(4, 20)) > 50 * MINUTE_MS


@pytest.mark.parametrize(("form", "seconds"), [("native", 15), ("gptimage2_plus", 5)])
def test_tries_have_their_time(form: Form, seconds: int) -> None:
    """The setting bounds our own form's tries; the other's document says five seconds."""
    assert webhooks.seconds_of(form, 15) == seconds


# -- who may, and with what ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "to", "there"),
    [
        (Principal("acme", "ann", USER), endpoint(), True),
        (Principal("acme", "bob", USER), endpoint(), False),
        (Principal("acme", "boss", ADMIN), endpoint(), True),
        (Principal("acme", "boss", ADMIN), endpoint(scope="tenant", subject="boss"), True),
        (Principal("acme", "boss", USER), endpoint(scope="tenant", subject="boss"), False),
        (Principal("globex", "ann", ADMIN), endpoint(), False),
    ],
)
def test_endpoints_have_their_eyes(*, who: Principal, to: Endpoint, there: bool) -> None:
    """A subject sees their own endpoints, an admin the tenant's, and who is no admin none of the tenant's."""
    assert webhooks.sees(who, to) == there


@pytest.mark.parametrize(
    ("roles", "scope", "reason"),
    [
        (USER, "own", None),
        (ADMIN, "own", None),
        (ADMIN, "tenant", None),
        (USER, "tenant", Reason.FORBIDDEN),
    ],
)
def test_tenant_is_heard_by_admins(roles: frozenset[Role], scope: Scope, reason: Reason | None) -> None:
    """Anybody may hear of their own jobs, the tenant's admins alone of the whole tenant's."""
    answer = webhooks.may_register(Principal("acme", "ann", roles), scope)
    assert getattr(answer, "reason", None) == reason


@pytest.mark.parametrize(("count", "whose", "fits"), [(0, "ann", True), (2, "bob", True), (2, "ann", False)])
def test_plan_bounds_a_subject(*, count: int, whose: str, fits: bool) -> None:
    """A subject has at most as many endpoints as the plan says, whatever others have."""
    there = [endpoint(id=f"e{n}", subject=whose) for n in range(count)]
    answer = webhooks.registered(there, endpoint(id="new"), 2, NOON)
    if fits:
        assert answer == endpoint(id="new", created_at=NOON)
    else:
        assert isinstance(answer, Deny)
        assert (answer.reason, answer.rule) == (Reason.WEBHOOK_LIMIT, "limit.webhooks")


@pytest.mark.parametrize(
    ("named", "answer"),
    [
        (None, EVENTS["native"]),
        (("job.failed", "job.succeeded", "job.failed"), ("job.succeeded", "job.failed")),
        ((), (Flaw("/events", "names no event"),)),
        (("job.failed", "job.made", "generation.failed"), (1, 2)),
    ],
)
def test_events_are_chosen(named: tuple[str, ...] | None, answer: tuple[object, ...]) -> None:
    """All events where none are named, each once and in order; what is none of the form's is pointed at."""
    events = webhooks.chosen("native", named)
    if not isinstance(events, Deny):
        assert events == answer
    elif named:
        assert [flaw.pointer for flaw in events.flaws] == [f"/events/{at}" for at in answer]
    else:
        assert events.flaws == answer


def test_change_keeps_the_rest() -> None:
    """What is not given stays as it was, why an endpoint is disabled too."""
    to = endpoint(label="old", failures=7, disabled="failing")
    assert webhooks.changed(to, url=None, events=None, label=None) == to
    after = webhooks.changed(to, url=None, events=("job.failed",), label="")
    assert after == replace(to, events=("job.failed",), label="")


@pytest.mark.parametrize(("url", "failures"), [("https://b.example.org", 0), ("https://a.example.org", 7)])
def test_new_address_begins_anew(url: str, failures: int) -> None:
    """Failed tries are counted of an address: another one begins at none."""
    to = webhooks.changed(endpoint(failures=7), url=url, events=None, label=None)
    assert (to.url, to.failures) == (url, failures)


def test_rotation_keeps_both_a_day() -> None:
    """After a rotation the new secret and the one before are live for a day, then the new one alone."""
    to = webhooks.rotated(endpoint(secret="old"), "new", NOON)
    assert webhooks.live(to, NOON + ROTATION_MS - 1) == ("new", "old")
    assert webhooks.live(to, NOON + ROTATION_MS) == ("new",)
    assert webhooks.live(endpoint(), NOON) == ("s",)


def test_next_rotation_ends_the_oldest() -> None:
    """Two secrets are live at most: a rotation within the day ends the one that was rotated out before."""
    to = webhooks.rotated(webhooks.rotated(endpoint(secret="old"), "new", NOON), "newer", NOON + HOUR_MS)
    assert webhooks.live(to, NOON + HOUR_MS) == ("newer", "new")
    assert webhooks.live(to, NOON + HOUR_MS + ROTATION_MS - 1) == ("newer", "new")
