"""Errors to bytes: the one bridge from problems, faults and Litestar's own exceptions to RFC 9457.

What is none of them is a bug: the caller gets `internal` and the request id, the log gets where it was.
The text of a foreign exception is never shown. Titles, statuses and whether a repeat may help are the
catalogue's; nothing is decided here but how it is spelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from litestar.exceptions import HTTPException
from msgspec import UNSET, Struct, UnsetType

from gateway.api.exchange import Answer, encode
from gateway.api.limits import seconds_up
from gateway.errors import CATALOGUE, Fault, Problem
from policies.model import Flaw

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange, Headers

MEDIA_TYPE: Final = b"application/problem+json"

RETRY_AFTER_MS: Final = {
    "store_unavailable": 1_000,
    "draining": 1_000,
    "no_provider_available": 5_000,
    "queue_full": 5_000,
    "paused": 30_000,
    "unpriced": 60_000,
}
"""For codes that always carry a `Retry-After` and whose raiser knows no better one. Estimates."""

_LITESTAR: Final = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}


class ProblemView(Struct, frozen=True):
    """An error, as RFC 9457 writes it. Clients match `code`; codes may be added.

    `retry_after` is in seconds. `rule` is the public id of the rule that decided. `errors` lists every
    mistake of a request: a JSON pointer into the body, or `/query/…`, `/header/…`.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    retry_after: int | UnsetType = UNSET
    rule: str | UnsetType = UNSET
    errors: tuple[Flaw, ...] | UnsetType = UNSET


def problem_of(error: Exception) -> Problem | None:
    """Return the problem an exception stands for, or None for a bug."""
    match error:
        case Problem():
            return error
        case Fault():
            return Problem(error.code, retry_after_ms=error.retry_after_ms)
        case HTTPException() if error.status_code in _LITESTAR:
            allow = (error.headers or {}).get("allow")
            return Problem(
                _LITESTAR[error.status_code], headers={"Allow": _allowed(allow)} if allow else None
            )
        case _:
            return None


def _allowed(methods: str) -> str:
    """Return an `Allow` value with HEAD, which the edge answers wherever GET is."""
    names = {name.strip() for name in methods.split(",")}
    return ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))


def view(problem: Problem, base_url: str, request_id: str) -> ProblemView:
    """Return what a client is told of a problem."""
    row = CATALOGUE[problem.code]
    wait = _wait_ms(problem)
    return ProblemView(
        type=f"{base_url}/problems/{problem.code}",
        title=row.title,
        status=row.status,
        detail=problem.detail,
        code=problem.code,
        request_id=request_id,
        retryable=row.retryable,
        retry_after=UNSET if wait is None else seconds_up(wait),
        rule=problem.rule or UNSET,
        errors=problem.flaws or UNSET,
    )


def answer(problem: Problem, base_url: str, exchange: Exchange) -> Answer:
    """Return the answer that tells of a problem, and note in the exchange what was decided."""
    exchange.code, exchange.rule = problem.code, problem.rule
    shown = view(problem, base_url, exchange.request_id)
    return Answer(shown.status, headers(problem), encode(shown))


def headers(problem: Problem) -> Headers:
    """Return the headers of an error, its type first."""
    fields = [(b"content-type", MEDIA_TYPE)]
    fields += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    wait = _wait_ms(problem)
    if wait is not None:
        fields.append((b"retry-after", b"%d" % seconds_up(wait)))
    if problem.code == "unauthenticated" and "WWW-Authenticate" not in problem.headers:
        fields.append((b"www-authenticate", b"Bearer"))
    return fields


def _wait_ms(problem: Problem) -> int | None:
    return problem.retry_after_ms if problem.retry_after_ms is not None else RETRY_AFTER_MS.get(problem.code)
