"""The table of OpenAI's errors: every row, by every way to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import openai_errors
from gateway.errors import CATALOGUE, Problem
from policies.model import Flaw, Job, JobError, JobRequest, JobState

REQUEST = "invalid_request_error"


def flawed(code: str, *places: str) -> Problem:
    """Return a problem with mistakes in these places."""
    return Problem(code, flaws=tuple(Flaw(place, f"{place} is wrong.") for place in places))


def told(answer: Any) -> tuple[object, ...]:
    """Return status, type, param, code and what SDKs are told to do."""
    error = json.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    headers = dict(answer.headers)
    assert headers[b"content-type"] == b"application/json"
    return (
        answer.status,
        error["type"],
        error["param"],
        error["code"],
        headers[b"x-should-retry"] == b"true",
    )


@pytest.mark.parametrize(
    ("problem", "row"),
    [
        (Problem("invalid_request"), (400, REQUEST, None, "invalid_value", False)),
        (flawed("invalid_request", "/n"), (400, REQUEST, "n", "invalid_value", False)),
        (flawed("invalid_request", "/header/idempotency-key"), (400, REQUEST, None, "invalid_value", False)),
        (flawed("invalid_request", ""), (400, REQUEST, None, "invalid_value", False)),
        (flawed("invalid_request", "/stream"), (400, REQUEST, "stream", "unsupported_parameter", False)),
        (flawed("unsupported_option", "/size"), (400, REQUEST, "size", "invalid_value", False)),
        (flawed("unsupported_option", "/format"), (400, REQUEST, "output_format", "invalid_value", False)),
        (flawed("unsupported_option", "/operation"), (400, REQUEST, "model", "invalid_value", False)),
        (flawed("unsupported_option", "/model"), (404, REQUEST, "model", "model_not_found", False)),
        (flawed("plan_required", "/count"), (400, REQUEST, "n", "invalid_value", False)),
        (Problem("reference_rejected"), (400, REQUEST, "image", "invalid_value", False)),
        (flawed("reference_rejected", "/mask/upload"), (400, REQUEST, "mask", "invalid_value", False)),
        (flawed("upload_expired", "/inputs/0/upload"), (400, REQUEST, "image", "invalid_value", False)),
        (Problem("upload_incomplete"), (400, REQUEST, "image", "invalid_value", False)),
        (
            Problem("prompt_blocked"),
            (400, "image_generation_user_error", "prompt", "moderation_blocked", False),
        ),
        (Problem("unauthenticated"), (401, REQUEST, None, "invalid_api_key", False)),
        (Problem("plan_required"), (403, REQUEST, None, "plan_required", False)),
        (Problem("forbidden"), (403, REQUEST, None, "forbidden", False)),
        (Problem("tenant_suspended"), (403, REQUEST, None, "tenant_suspended", False)),
        (Problem("not_found"), (404, REQUEST, None, "not_found", False)),
        (Problem("method_not_allowed"), (405, REQUEST, None, "method_not_allowed", False)),
        (Problem("idempotency_key_reused"), (409, REQUEST, None, "idempotency_key_reused", False)),
        (Problem("job_erased"), (410, REQUEST, None, "job_erased", False)),
        (Problem("payload_too_large"), (413, REQUEST, None, "payload_too_large", False)),
        (Problem("unsupported_media_type"), (415, REQUEST, None, "unsupported_media_type", False)),
        (Problem("insufficient_credits"), (429, "insufficient_quota", None, "insufficient_quota", False)),
        (Problem("monthly_cap_reached"), (429, "insufficient_quota", None, "insufficient_quota", False)),
        (Problem("rate_limited"), (429, "requests", None, "rate_limit_exceeded", True)),
        (Problem("too_many_in_flight"), (429, "requests", None, "rate_limit_exceeded", True)),
        (Problem("internal"), (500, "server_error", None, "internal", True)),
        (Problem("store_unavailable"), (503, "server_error", None, "store_unavailable", True)),
        (Problem("draining"), (503, "server_error", None, "draining", True)),
        (Problem("unpriced"), (503, "server_error", None, "unpriced", False)),
    ],
)
def test_problems_have_openais_words(problem: Problem, row: tuple[object, ...]) -> None:
    """Each problem is told by the row of the table that its kind and its field are in."""
    assert told(openai_errors.of_problem(problem)) == row


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_problem_is_told(code: str) -> None:
    """Whatever the catalogue has is told in this form, and its sentence with it."""
    answer = openai_errors.of_problem(Problem(code, "A sentence."))
    told(answer)
    assert json.loads(answer.body)["error"]["message"] == "A sentence."


def test_waits_are_passed_on() -> None:
    """A refusal that a wait helps says how long, in whole seconds and never too short."""
    answer = openai_errors.of_problem(Problem("rate_limited", retry_after_ms=1_001))
    assert dict(answer.headers)[b"retry-after"] == b"2"


def test_mistakes_are_told_together() -> None:
    """Without a sentence of its own a problem is told by its mistakes, all of them."""
    answer = openai_errors.of_problem(flawed("invalid_request", "/n", "/size"))
    assert json.loads(answer.body)["error"]["message"] == "/n is wrong. /size is wrong."


def ended(state: JobState, code: str | None) -> Job:
    """Return a job that ended so."""
    error = None if code is None else JobError(code, "It was not to be.", "upstream", retryable=False)
    return Job("1", "acme", "ann", JobRequest(prompt="a"), state=state, error=error)


@pytest.mark.parametrize(
    ("state", "code", "row"),
    [
        (
            JobState.BLOCKED,
            "upstream_refused",
            (400, "image_generation_user_error", "prompt", "moderation_blocked", False),
        ),
        (
            JobState.BLOCKED,
            None,
            (400, "image_generation_user_error", "prompt", "moderation_blocked", False),
        ),
        (JobState.FAILED, "input_unreadable", (400, REQUEST, "image", "invalid_value", False)),
        (JobState.CANCELED, "canceled", (409, REQUEST, None, "canceled", False)),
        (JobState.FAILED, "outcome_unknown", (500, "server_error", None, "outcome_unknown", False)),
        (JobState.FAILED, "upstream_failed", (502, "server_error", None, "upstream_failed", True)),
        (JobState.FAILED, "upstream_timeout", (502, "server_error", None, "upstream_failed", True)),
        (JobState.FAILED, "deadline_exceeded", (502, "server_error", None, "upstream_failed", True)),
        (JobState.FAILED, "output_rejected", (502, "server_error", None, "upstream_failed", True)),
        (JobState.FAILED, None, (502, "server_error", None, "upstream_failed", True)),
    ],
)
def test_ends_have_openais_words(state: JobState, code: str | None, row: tuple[object, ...]) -> None:
    """A job without a picture is an error; only one that cost nobody anything is worth sending again."""
    assert told(openai_errors.of_job(ended(state, code))) == row


def test_open_jobs_are_asked_again() -> None:
    """A job that is not done in time is a 504 whose repeat is welcome, at the time that was given."""
    answer = openai_errors.still_running([(b"retry-after", b"7")])
    assert told(answer) == (504, "server_error", None, "still_running", True)
    assert dict(answer.headers)[b"retry-after"] == b"7"
