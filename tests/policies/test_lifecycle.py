"""Which job moves are legal, and what a job looks like after one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import lifecycle
from policies.lifecycle import IllegalMove
from policies.model import Attempt, Hold, Job, JobRequest, JobState, Money, Output, Shortfall, Step

NOW = 1_793_534_400_000
QUEUED = Job(
    "j", "acme", "ann", JobRequest(prompt="p", count=4), version=1, hold=Hold(40, "2026-11"), price_each=10,
    slots=(1, 1, 1, 1), route=(Step("main", "openai", "m"), Step("spare", "openai", "m")),
)  # fmt: skip
RUNNING = replace(QUEUED, state=JobState.RUNNING, started_at=NOW)
ENDED = [replace(QUEUED, state=state) for state in JobState if state.ended]


def output(index: int) -> Output:
    """Return an image."""
    return Output(index, f"k/{index}.png", "image/png", 64, 64, 9, "0" * 64)


def made(slot: int, *indexes: int, **fields: object) -> Attempt:
    """Return a slot's last attempt with these images, or with a code."""
    outputs = tuple(output(index) for index in indexes or ((slot,) if "code" not in fields else ()))
    return Attempt(slot, 1, 0, NOW, open=False, outputs=outputs, **fields)  # type: ignore[arg-type]


def conclude(*attempts: Attempt, job: Job = RUNNING) -> Job:
    """Return the job ended by these attempts."""
    return lifecycle.concluded(replace(job, attempts=attempts), NOW + 5)


MOVES: list[tuple[str, Callable[[Job], Job]]] = [
    ("began", lambda job: lifecycle.began(job, Attempt(0, 1, 0, NOW), NOW)),
    ("canceled", lambda job: lifecycle.canceled(job, NOW)),
    ("overdue", lambda job: lifecycle.overdue(job, NOW)),
    ("unreadable", lambda job: lifecycle.unreadable(job, NOW)),
    ("concluded", lambda job: conclude(made(0), job=job)),
    ("refused", lambda job: conclude(made(0, code="upstream_refused"), job=job)),
]


@pytest.mark.parametrize(("name", "move"), MOVES)
@pytest.mark.parametrize("job", ENDED)
def test_ended_jobs_stay_ended(name: str, move: Callable[[Job], Job], job: Job) -> None:
    """No move leads out of an end."""
    with pytest.raises(IllegalMove, match=str(job.state)):
        move(job)


@pytest.mark.parametrize(("name", "move"), MOVES)
@pytest.mark.parametrize("job", [QUEUED, RUNNING])
def test_open_jobs_move_forward(name: str, move: Callable[[Job], Job], job: Job) -> None:
    """An open job takes every move, a version each, but delivers nothing before it runs."""
    if name == "concluded" and job is QUEUED:
        with pytest.raises(IllegalMove):
            move(job)
        return
    after = move(job)
    assert after.version == job.version + 1
    assert after.state is not JobState.QUEUED
    assert (after.ended_at is not None) == after.state.ended


def test_moves_table_is_whole() -> None:
    """Every state has its row, ends have none to go to, and nothing goes back to the queue."""
    assert set(lifecycle.MOVES) == set(JobState)
    assert all(not lifecycle.MOVES[state] for state in JobState if state.ended)
    assert all(JobState.QUEUED not in targets for targets in lifecycle.MOVES.values())
    assert set(lifecycle.JOB_ERRORS) >= lifecycle.RETRYABLE


def test_accepted_job_has_hold() -> None:
    """A job enters with its first version, its instant, its reference and its hold."""
    job = lifecycle.accepted(replace(QUEUED, version=0), NOW, "r1", Hold(7, "2026-11"))
    assert (job.version, job.created_at, job.subject_ref, job.hold.amount) == (1, NOW, "r1", 7)


def test_first_attempt_starts_clock() -> None:
    """The first attempt makes a job run from then on; a later one closes its slot's earlier ones alone."""
    first = lifecycle.began(QUEUED, Attempt(0, 1, 0, NOW), NOW)
    other = lifecycle.began(first, Attempt(1, 1, 0, NOW), NOW + 1)
    again = lifecycle.began(other, Attempt(0, 2, 1, NOW), NOW + 2)
    assert (again.state, again.started_at, again.version) == (JobState.RUNNING, NOW, 4)
    assert [(a.slot, a.n, a.open) for a in again.attempts] == [(0, 1, False), (1, 1, True), (0, 2, True)]


def test_note_replaces_its_attempt() -> None:
    """What is known of an attempt replaces what was, and leaves the others."""
    job = lifecycle.began(lifecycle.began(QUEUED, Attempt(0, 1, 0, NOW), NOW), Attempt(1, 1, 0, NOW), NOW)
    named = Attempt(0, 1, 0, NOW, upstream_id="up_1")
    after = lifecycle.noted(job, named)
    assert after.attempts == (job.attempts[1], named)
    assert (after.state, after.version) == (JobState.RUNNING, job.version + 1)


def test_cancel_asks_running_jobs() -> None:
    """A job that is asked to stop still runs and keeps its hold."""
    asked = lifecycle.cancel_asked(RUNNING, NOW)
    assert (asked.state, asked.cancel_requested_at, asked.held) == (JobState.RUNNING, NOW, 40)


@pytest.mark.parametrize(
    ("attempts", "flag"),
    [
        ((), None),
        ((Attempt(0, 1, 0, NOW, open=False),), None),
        ((Attempt(0, 1, 0, NOW),), "paid_and_canceled"),
        (
            (Attempt(0, 1, 0, NOW, open=False, code="outcome_unknown", flag="outcome_unknown"),),
            "outcome_unknown",
        ),
        ((made(0),), "paid_and_canceled"),
    ],
)
def test_cancel_flags_possible_spend(attempts: tuple[Attempt, ...], flag: str | None) -> None:
    """A cancel charges nothing; what an upstream may have been paid is the operator's to see."""
    job = lifecycle.canceled(replace(RUNNING, attempts=attempts), NOW)
    assert (job.state, job.charged, job.refunded, job.operator_flag) == (JobState.CANCELED, 0, 40, flag)
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == ("canceled", False)
    assert not any(a.open or a.outputs or a.next for a in job.attempts)


def test_unreadable_input_is_no_retry() -> None:
    """A job whose inputs cannot be read ends at that stage, all given back; the same again is no use."""
    job = lifecycle.unreadable(QUEUED, NOW)
    assert job.error is not None
    assert (job.error.code, job.error.stage, job.error.retryable) == ("input_unreadable", "input", False)
    assert (job.state, job.charged, job.refunded) == (JobState.FAILED, 0, job.hold.amount)


def test_overdue_job_may_be_retried() -> None:
    """A job past its deadline fails with all its hold back, and may be sent again."""
    job = lifecycle.overdue(QUEUED, NOW)
    assert job.error is not None
    assert (job.state, job.error.code, job.error.retryable) == (JobState.FAILED, "deadline_exceeded", True)
    assert job.shortfall == tuple(Shortfall(i, "deadline_exceeded", 10) for i in range(4))


def test_part_delivered_is_success() -> None:
    """Two images of four are delivered and charged; the other two name why and what came back."""
    job = conclude(
        made(0, cost=Money(3)),
        made(1, code="upstream_failed", cost=Money(5)),
        made(2),
        made(3, code="output_rejected", flag="paid_and_unusable", cost=Money(7, "EUR")),
    )
    assert (job.state, job.charged, job.refunded) == (JobState.SUCCEEDED, 20, 20)
    assert [image.index for image in job.outputs] == [0, 2]
    assert job.shortfall == (Shortfall(1, "upstream_failed", 10), Shortfall(3, "output_rejected", 10))
    assert (job.operator_flag, job.provider, job.error) == ("paid_and_unusable", "main", None)
    assert job.provider_cost == Money(8)
    assert (job.ended_at, any(a.outputs for a in job.attempts)) == (NOW + 5, False)


def test_last_attempt_of_slot_counts() -> None:
    """What a slot came to is what its last attempt came to, and by whom."""
    second = replace(made(0), n=2, step=1)
    job = conclude(made(0, code="upstream_failed"), second, job=replace(RUNNING, slots=(4,)))
    assert (job.state, job.provider, job.provider_cost) == (JobState.SUCCEEDED, "spare", None)


def test_slot_of_many_counts_through() -> None:
    """A slot that makes several images fills the indexes that are its own."""
    wide = replace(RUNNING, slots=(2, 2))
    job = conclude(made(0, 0), made(1, code="upstream_failed"), job=wide)
    assert [short.index for short in job.shortfall] == [1, 2, 3]
    assert [short.code for short in job.shortfall] == ["upstream_failed"] * 3


@pytest.mark.parametrize(
    ("codes", "state", "code", "retryable"),
    [
        (("upstream_failed", "upstream_timeout"), JobState.FAILED, "upstream_failed", True),
        (("upstream_failed", "upstream_refused"), JobState.BLOCKED, "upstream_refused", False),
        (("outcome_unknown", "upstream_failed"), JobState.FAILED, "outcome_unknown", False),
    ],
)
def test_nothing_delivered_names_cause(
    codes: tuple[str, ...], state: JobState, code: str, *, retryable: bool
) -> None:
    """With no image a job is blocked if an upstream refused, else failed by its first slot's cause."""
    slots = [made(slot, code=each, cost=Money(2)) for slot, each in enumerate(codes)]
    job = conclude(*slots, job=replace(RUNNING, operator_flag="kept"))
    assert job.error is not None
    assert (job.state, job.error.code, job.error.retryable) == (state, code, retryable)
    assert (job.charged, job.refunded, job.provider_cost) == (0, 40, Money(4))
    assert job.operator_flag == "kept"
    assert job.error.detail == lifecycle.JOB_ERRORS[code]


@given(st.lists(st.sampled_from(["", "upstream_failed", "upstream_refused", "output_rejected"]), min_size=4,
                max_size=4))  # fmt: skip
def test_charge_and_refund_make_hold(codes: list[str]) -> None:
    """However a job ends, outputs and shortfalls are its count, charge and refunds its hold."""
    job = conclude(*(made(slot, code=code) if code else made(slot) for slot, code in enumerate(codes)))
    assert len(job.outputs) + len(job.shortfall) == 4
    assert job.charged + sum(short.refunded for short in job.shortfall) == job.hold.amount
    assert job.charged == 10 * codes.count("")
