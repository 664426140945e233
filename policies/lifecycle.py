"""Which job moves are legal, and what a job looks like after one.

One table. A job moves `queued -> running -> ended`; `running` begins with the first attempt and never
goes back. Every function returns a new job, one version on, and refuses a move the table lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from policies.model import Job, JobError, JobState, Shortfall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.model import Attempt, Hold, Money, Output

_S = JobState
MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.BLOCKED, _S.CANCELED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.BLOCKED, _S.CANCELED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.BLOCKED: frozenset(),
    _S.CANCELED: frozenset(),
}

RETRYABLE: Final = frozenset({"upstream_failed", "upstream_timeout", "deadline_exceeded", "output_rejected"})
"""Job errors after which the same submit may work. Nothing is owed after any of them."""


class IllegalMove(Exception):  # noqa: N818 - a bug of the caller, named for what it is
    """A move the table lacks."""


class Part(Struct, frozen=True):
    """What came of one image: an output, or the code of why there is none."""

    index: int
    output: Output | None = None
    code: str = ""
    stage: str = "upstream"


def _move(job: Job, to: JobState) -> None:
    if to not in MOVES[job.state]:
        raise IllegalMove(f"{job.state} -> {to}")


def accepted(job: Job, now: int, ref: str, hold: Hold) -> Job:
    """Return a job as it enters the store: its first version, with its hold."""
    return replace(job, version=1, created_at=now, subject_ref=ref, hold=hold)


def began(job: Job, attempt: Attempt, now: int) -> Job:
    """Return the job with an attempt written down; the first one makes it run."""
    if job.state is not _S.RUNNING:
        _move(job, _S.RUNNING)
    return replace(
        job,
        version=job.version + 1,
        state=_S.RUNNING,
        started_at=job.started_at or now,
        attempts=(*job.attempts, attempt),
    )


def noted(job: Job, attempt: Attempt) -> Job:
    """Return the job with what is now known of an attempt."""
    attempts = tuple(attempt if (a.slot, a.n) == (attempt.slot, attempt.n) else a for a in job.attempts)
    return replace(job, version=job.version + 1, attempts=attempts)


def cancel_asked(job: Job, now: int) -> Job:
    """Return a running job whose end has been asked for."""
    return replace(job, version=job.version + 1, cancel_requested_at=now)


def canceled(job: Job, now: int) -> Job:
    """Return a job canceled before anything was delivered: nothing is charged."""
    return failed(job, now, "canceled", "The job was canceled.", "input", state=_S.CANCELED)


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
        attempts=tuple(replace(a, open=False) for a in job.attempts),
        shortfall=tuple(Shortfall(i, code, each) for i in range(job.request.count)),
        error=JobError(code, detail, stage, code in RETRYABLE),  # type: ignore[arg-type]
        operator_flag=flag or job.operator_flag,
    )


def delivered(
    job: Job,
    now: int,
    parts: Sequence[Part],
    *,
    cost: Money | None = None,
    provider: str | None = None,
    flag: str | None = None,
) -> Job:
    """Return a job ended with at least one image: those are charged, the others come back."""
    _move(job, _S.SUCCEEDED)
    outputs = tuple(part.output for part in parts if part.output)
    if not outputs:
        raise IllegalMove("delivered nothing")
    missing = tuple(Shortfall(p.index, p.code, job.price_each) for p in parts if not p.output)
    return replace(
        job,
        version=job.version + 1,
        state=_S.SUCCEEDED,
        ended_at=now,
        charged=job.price_each * len(outputs),
        attempts=tuple(replace(a, open=False) for a in job.attempts),
        outputs=outputs,
        shortfall=missing,
        provider=provider,
        provider_cost=cost,
        operator_flag=flag or job.operator_flag,
    )
