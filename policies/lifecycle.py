"""Which job moves are legal, and what a job looks like after one.

One table. A job moves `queued -> running -> ended`; `running` begins with the first attempt and never
goes back. Every function returns a new job, one version on, and refuses a move the table lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from policies.model import Job, JobError, JobState, Money, Shortfall

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.model import Attempt, Hold

_S = JobState
MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.BLOCKED, _S.CANCELED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.BLOCKED, _S.CANCELED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.BLOCKED: frozenset(),
    _S.CANCELED: frozenset(),
}

JOB_ERRORS: Final[Mapping[str, str]] = {
    "upstream_failed": "The provider could not make the image.",
    "upstream_refused": "The provider's content policy refused it.",
    "upstream_timeout": "The provider did not finish in time.",
    "outcome_unknown": "The connection to the provider broke before it answered. Nothing is charged.",
    "deadline_exceeded": "The job was not made before its deadline.",
    "input_unreadable": "An input image could not be read.",
    "output_rejected": "What the provider sent is not an image that can be delivered.",
    "canceled": "The job was canceled.",
}
"""Why a job ends without a picture, and what its owner is told."""

RETRYABLE: Final = frozenset({"upstream_failed", "upstream_timeout", "deadline_exceeded", "output_rejected"})
"""Job errors after which the same submit may work. Nothing is owed after any of them."""


class IllegalMove(Exception):  # noqa: N818 - a bug of the caller, named for what it is
    """A move the table lacks."""


def _move(job: Job, to: JobState) -> None:
    if to not in MOVES[job.state]:
        raise IllegalMove(f"{job.state} -> {to}")


def accepted(job: Job, now: int, ref: str, hold: Hold) -> Job:
    """Return a job as it enters the store: its first version, with its hold."""
    return replace(job, version=1, created_at=now, subject_ref=ref, hold=hold)


def began(job: Job, attempt: Attempt, now: int) -> Job:
    """Return the job with an attempt written down; the first one makes it run.

    It closes the slot's earlier attempts: a new one is made only when those came to nothing.
    """
    if job.state is not _S.RUNNING:
        _move(job, _S.RUNNING)
    earlier = tuple(replace(a, open=False) if a.slot == attempt.slot else a for a in job.attempts)
    return replace(
        job,
        version=job.version + 1,
        state=_S.RUNNING,
        started_at=job.started_at or now,
        attempts=(*earlier, attempt),
    )


def noted(job: Job, attempt: Attempt) -> Job:
    """Return the job with what is now known of an attempt, or of a slot for which none was made."""
    others = tuple(a for a in job.attempts if (a.slot, a.n) != (attempt.slot, attempt.n))
    return replace(job, version=job.version + 1, attempts=(*others, attempt))


def cancel_asked(job: Job, now: int) -> Job:
    """Return a running job whose end has been asked for."""
    return replace(job, version=job.version + 1, cancel_requested_at=now)


def canceled(job: Job, now: int) -> Job:
    """Return a job canceled before anything was delivered: nothing is charged.

    With an attempt open the upstream may still ask for money, and with images made it will; that is the
    operator's, and flagged. So is what an attempt was flagged for before the cancel.
    """
    paid = any(attempt.open or attempt.outputs for attempt in job.attempts)
    flag = next((attempt.flag for attempt in job.attempts if attempt.flag), None)
    flag = "paid_and_canceled" if paid else flag
    return failed(job, now, "canceled", JOB_ERRORS["canceled"], "input", state=_S.CANCELED, flag=flag)


def overdue(job: Job, now: int) -> Job:
    """Return a job ended because it was not made before its deadline."""
    return failed(job, now, "deadline_exceeded", JOB_ERRORS["deadline_exceeded"], "upstream")


def unreadable(job: Job, now: int) -> Job:
    """Return a job ended because what it was to begin from cannot be read: no upstream was asked."""
    return failed(job, now, "input_unreadable", JOB_ERRORS["input_unreadable"], "input")


def failed(
    job: Job,
    now: int,
    code: str,
    detail: str,
    stage: str,
    *,
    state: JobState = _S.FAILED,
    flag: str | None = None,
) -> Job:
    """Return a job ended with nothing delivered: the whole hold comes back."""
    _move(job, state)
    each = job.hold.amount // job.request.count
    return replace(
        job,
        version=job.version + 1,
        state=state,
        ended_at=now,
        charged=0,
        attempts=tuple(replace(a, open=False, outputs=(), next=None) for a in job.attempts),
        shortfall=tuple(Shortfall(i, code, each) for i in range(job.request.count)),
        error=JobError(code, detail, stage, code in RETRYABLE),  # type: ignore[arg-type]
        operator_flag=flag or job.operator_flag,
    )


def concluded(job: Job, now: int) -> Job:
    """Return a job ended by what its slots came to: charged for each image, the rest given back.

    One image or more is success. None is blocked where an upstream refused, else failed, with the first
    slot's code.
    """
    last = {attempt.slot: attempt for attempt in job.attempts}
    ends = [last[slot] for slot in sorted(last)]
    outputs = tuple(output for end in ends for output in end.outputs)
    flag = next((end.flag for end in ends if end.flag), None)
    if not outputs:
        return _nothing(job, now, ends, flag)
    _move(job, _S.SUCCEEDED)
    provider = job.route[next(end.step for end in ends if end.outputs)].entry
    return replace(
        job,
        version=job.version + 1,
        state=_S.SUCCEEDED,
        ended_at=now,
        charged=job.price_each * len(outputs),
        attempts=tuple(replace(a, open=False, outputs=(), next=None) for a in job.attempts),
        outputs=outputs,
        shortfall=_shortfall(job, ends, {output.index for output in outputs}),
        provider=provider,
        provider_cost=_sum(end.cost for end in ends if end.cost),
        operator_flag=flag or job.operator_flag,
    )


def _nothing(job: Job, now: int, ends: Sequence[Attempt], flag: str | None) -> Job:
    refused = next((end for end in ends if end.code == "upstream_refused"), None)
    end = refused or next(end for end in ends if end.code)
    state = _S.BLOCKED if refused else _S.FAILED
    ended = failed(job, now, end.code or "", JOB_ERRORS[end.code or ""], end.stage, state=state, flag=flag)
    return replace(ended, provider_cost=_sum(end.cost for end in ends if end.cost))


def _shortfall(job: Job, ends: Sequence[Attempt], there: set[int]) -> tuple[Shortfall, ...]:
    codes: list[str] = []
    for end in ends:
        codes += [end.code or "upstream_failed"] * job.slots[end.slot]
    return tuple(Shortfall(i, code, job.price_each) for i, code in enumerate(codes) if i not in there)


def _sum(costs: Iterable[Money]) -> Money | None:
    """Add what upstreams ask for; costs in several currencies are told by the first alone."""
    kept = list(costs)
    if not kept:
        return None
    currency = kept[0].currency
    return Money(sum(cost.micros for cost in kept if cost.currency == currency), currency)
