"""The catalogue: every error a client can meet, in one table, and the exceptions that carry them.

Three kinds, never mixed. An *answer* is a value (`Deny`, `Conflict`) and is matched by its caller. A
*problem* is a `Problem`, raised where a request cannot go on and rendered by `api/problems.py` (RFC
9457) or by a dialect. A *fault* is a library's failure, mapped at that library's edge to a `Fault`.
Anything else is a bug: 500, the request id, nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.model import Deny, Flaw


class Code(NamedTuple):
    """One row of the catalogue. `retryable`: the same request may be admitted later."""

    status: int
    title: str
    retryable: bool
    kind: str
    meaning: str


# fmt: off
CATALOGUE: Final[Mapping[str, Code]] = {
    "invalid_request": Code(400, "Invalid request", False, "invalid", "The request cannot be read as this call's schema. `errors` lists every mistake with its place."),
    "method_not_allowed": Code(405, "Method not allowed", False, "invalid", "This path exists, but not for this method. `Allow` names those it has."),
    "not_acceptable": Code(406, "Not acceptable", False, "invalid", "None of the media types in `Accept` can be produced here."),
    "request_timeout": Code(408, "Request timeout", True, "invalid", "The request's body did not arrive in time."),
    "payload_too_large": Code(413, "Payload too large", False, "invalid", "The body is larger than this call accepts."),
    "unsupported_media_type": Code(415, "Unsupported media type", False, "invalid", "Bodies are JSON: send `Content-Type: application/json`."),
    "headers_too_large": Code(431, "Headers too large", False, "invalid", "The request has too many headers, or too many bytes of them."),
    "not_implemented": Code(501, "Not implemented", False, "invalid", "The method or transfer is not one this server speaks."),
    "unsupported_option": Code(422, "Unsupported option", False, "invalid", "The request is well formed, but no configured model offers this combination."),
    "reference_rejected": Code(422, "Reference rejected", False, "invalid", "A reference image may not be fetched from there."),
    "unauthenticated": Code(401, "Unauthenticated", False, "auth", "The bearer token is missing, expired or not accepted here."),
    "forbidden": Code(403, "Forbidden", False, "auth", "The caller is known, and may not do this."),
    "link_invalid": Code(403, "Link invalid", False, "auth", "The signed link was altered or was not made here."),
    "insufficient_credits": Code(402, "Insufficient credits", False, "money", "Fewer credits are available than the job would hold."),
    "monthly_cap_reached": Code(402, "Monthly cap reached", False, "money", "The job would pass the cap of this calendar month (UTC)."),
    "plan_required": Code(403, "Plan required", False, "plan", "The caller's plan does not include this."),
    "tenant_suspended": Code(403, "Tenant suspended", False, "plan", "The tenant is suspended; its operator can tell why."),
    "not_found": Code(404, "Not found", False, "missing", "No such thing, or not the caller's: the two are not told apart."),
    "link_expired": Code(410, "Link expired", False, "missing", "The signed link is past its time. Read the job again for a fresh one."),
    "job_erased": Code(410, "Job erased", False, "missing", "The job this key made was deleted."),
    "upload_expired": Code(410, "Upload expired", False, "missing", "The upload was not used in time. Create another."),
    "job_open": Code(409, "Job open", True, "conflict", "The job has not ended. Cancel it, or wait, then delete it."),
    "upload_incomplete": Code(409, "Upload incomplete", True, "conflict", "The upload's bytes have not arrived."),
    "upload_complete": Code(409, "Upload complete", False, "conflict", "The upload's bytes are here already; what came first stays."),
    "key_limit": Code(409, "Key limit", False, "conflict", "The caller has made as many service keys as the plan allows. Those revoked or expired do not count."),
    "webhook_limit": Code(409, "Webhook limit", False, "conflict", "The caller has as many webhooks as the plan allows."),
    "webhook_disabled": Code(409, "Webhook disabled", False, "conflict", "The webhook is disabled, so nothing is sent to it. Enable it, then try again."),
    "idempotency_key_reused": Code(422, "Idempotency key reused", False, "conflict", "The key was used with another body. Use a new key for a new request."),
    "prompt_blocked": Code(422, "Prompt blocked", False, "blocked", "A prompt rule forbids this text. `rule` names it."),
    "rate_limited": Code(429, "Rate limited", True, "limit", "Too many calls in the window. `Retry-After` is when one is admitted again."),
    "too_many_in_flight": Code(429, "Too many in flight", True, "limit", "As many jobs are queued or running as the plan allows."),
    "too_many_streams": Code(429, "Too many streams", True, "limit", "As many event streams are open as the plan allows."),
    "internal": Code(500, "Internal error", True, "fault", "A bug on our side. The request id finds it in the log."),
    "store_unavailable": Code(503, "Store unavailable", True, "fault", "The store did not answer in time. Nothing was admitted."),
    "no_provider_available": Code(503, "No provider available", True, "fault", "No configured provider can make this now."),
    "unpriced": Code(503, "Unpriced", False, "fault", "The combination has no price, so it is not run. The operator has been told."),
    "queue_full": Code(503, "Queue full", True, "fault", "More jobs wait than can be made before their deadlines."),
    "paused": Code(503, "Paused", True, "fault", "The operator has paused this."),
    "draining": Code(503, "Draining", True, "fault", "This process is stopping. Another one answers at once."),
}
# fmt: on


class Problem(Exception):  # noqa: N818 - the field's word (RFC 9457)
    """A request that cannot go on: a code of the catalogue and what is special about this case."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        retry_after_ms: int | None = None,
        rule: str | None = None,
        flaws: tuple[Flaw, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail or CATALOGUE[code].meaning
        self.retry_after_ms = retry_after_ms
        self.rule = rule
        self.flaws = flaws
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, deny: Deny) -> Problem:
        """Return the problem that says what a policy said."""
        return cls(
            str(deny.reason),
            deny.detail,
            retry_after_ms=deny.retry_after_ms,
            rule=deny.rule,
            flaws=deny.flaws,
        )


class Fault(Exception):  # noqa: N818 - a fault is not the caller's error
    """A part we depend on failed. Carries the code a client is told, and when to ask again, if it is known."""

    code = "internal"
    retry_after_ms: int | None = None


class StoreUnavailable(Fault):
    """The store did not answer, or not in time. Nothing may be assumed of what was asked."""

    code = "store_unavailable"


class StoreBusy(Fault):
    """The store is alive and the write lost too many races. Nothing was written."""

    code = "store_unavailable"


class StoreClosed(Fault):
    """The store lost what it had confirmed of this tenant: no change is taken until an operator opens it."""

    code = "store_unavailable"
    retry_after_ms = 30_000


class Refusal(Exception):  # noqa: N818 - a start that is refused, not an error of the program
    """The process will not start, or a command will not run. The message is for the operator."""
