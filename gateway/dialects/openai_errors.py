"""OpenAI's errors, as our problems and our jobs' ends are told in them.

Its SDKs make an exception of the status and look at `code`; they send again by themselves, twice, and go
by `x-should-retry` where it is given. So it always is: `true` only where nothing is paid for, or where the
repeat finds the job that runs. One table a kind of trouble, the status first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.dialects.speech import refusal_headers, tell
from gateway.errors import CATALOGUE
from policies.model import JobState

if TYPE_CHECKING:
    from gateway.api.exchange import Answer, Headers
    from gateway.errors import Problem
    from policies.model import Flaw, Job

REQUEST: Final = "invalid_request_error"
SERVER: Final = "server_error"
BLOCKED: Final = "image_generation_user_error"

MODEL: Final = "model"
IMPOSSIBLE: Final = frozenset({"stream", "partial_images", "markup"})
"""What this API has and we cannot do; to pass over it would be to sell another thing."""

PARAMS: Final[Mapping[str, str]] = {
    "count": "n",
    "format": "output_format",
    "inputs": "image",
    "operation": MODEL,
}
"""What this API calls fields of ours."""


class Row(NamedTuple):
    """How one kind of trouble is told. `retry` is whether to send again by itself."""

    status: int
    type: str
    code: str
    param: str | None = None
    retry: bool = False


# fmt: off
PROBLEMS: Final[Mapping[str, Row]] = {
    "invalid_request": Row(400, REQUEST, "invalid_value"),
    "unsupported_option": Row(400, REQUEST, "invalid_value"),
    "reference_rejected": Row(400, REQUEST, "invalid_value", "image"),
    "upload_expired": Row(400, REQUEST, "invalid_value", "image"),
    "upload_incomplete": Row(400, REQUEST, "invalid_value", "image"),
    "prompt_blocked": Row(400, BLOCKED, "moderation_blocked", "prompt"),
    "unauthenticated": Row(401, REQUEST, "invalid_api_key"),
    "idempotency_key_reused": Row(409, REQUEST, "idempotency_key_reused"),
    "insufficient_credits": Row(429, "insufficient_quota", "insufficient_quota"),
    "monthly_cap_reached": Row(429, "insufficient_quota", "insufficient_quota"),
    "rate_limited": Row(429, "requests", "rate_limit_exceeded", retry=True),
    "too_many_in_flight": Row(429, "requests", "rate_limit_exceeded", retry=True),
}
"""Our problems, where they are told in other words than ours."""

ENDS: Final[Mapping[str, Row]] = {
    "input_unreadable": Row(400, REQUEST, "invalid_value", "image"),
    "canceled": Row(409, REQUEST, "canceled"),
    "outcome_unknown": Row(500, SERVER, "outcome_unknown"),
}
"""Jobs that ended without a picture, by their error's code."""
FAILED: Final = Row(502, SERVER, "upstream_failed", retry=True)
"""Every other end: nothing was made, nothing is owed."""
# fmt: on

NO_MODEL: Final = Row(404, REQUEST, "model_not_found", MODEL)
IMPOSSIBLE_ROW: Final = Row(400, REQUEST, "unsupported_parameter")
STILL_RUNNING: Final = Row(504, SERVER, "still_running", retry=True)


def of_problem(problem: Problem) -> Answer:
    """Return the answer that tells of a problem."""
    message = problem.detail
    if problem.flaws and message == CATALOGUE[problem.code].meaning:
        message = " ".join(flaw.detail for flaw in problem.flaws)
    return _answer(_row(problem), message, refusal_headers(problem))


def of_job(job: Job, headers: Headers = ()) -> Answer:
    """Return the answer that tells how a job ended without a picture."""
    error = job.error
    row, detail = FAILED, "The image was not made."
    if error is not None:
        row, detail = ENDS.get(error.code, FAILED), error.detail
    if job.state is JobState.BLOCKED:
        row = PROBLEMS["prompt_blocked"]
    return _answer(row, detail, headers)


def still_running(headers: Headers) -> Answer:
    """Return the answer to a request whose time is up before its job's end; its repeat finds the job."""
    return _answer(STILL_RUNNING, "The images are still being made. Send the same request again.", headers)


def _answer(row: Row, message: str, headers: Headers) -> Answer:
    shown = {"message": message, "type": row.type, "param": row.param, "code": row.code}
    told = b"true" if row.retry else b"false"
    return tell({"error": shown}, row.status, [*headers, (b"x-should-retry", told)])


def _row(problem: Problem) -> Row:
    """Return the row of a problem, with the field it is about."""
    field = _field(problem.flaws[0]) if problem.flaws else None
    param = None if field is None else PARAMS.get(field, field)
    if param in IMPOSSIBLE:
        return IMPOSSIBLE_ROW._replace(param=param)
    if problem.code == "unsupported_option" and field == MODEL:
        return NO_MODEL
    if problem.code == "plan_required" and field == "count":  # a bound of theirs, not a thing to be bought
        return PROBLEMS["invalid_request"]._replace(param=param)
    row = PROBLEMS.get(problem.code)
    if row is None:
        ours = CATALOGUE[problem.code]
        return Row(ours.status, REQUEST if ours.status < 500 else SERVER, problem.code, retry=ours.retryable)
    return row._replace(param=param or row.param)


def _field(flaw: Flaw) -> str | None:
    """Return the field of a body that a flaw is in; None where it is in none."""
    where = flaw.pointer.split("/")
    return where[1] if len(where) > 1 and where[1] not in ("header", "query") else None
