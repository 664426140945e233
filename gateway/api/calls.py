"""What each call of our own takes and answers, by `operationId`: the table the OpenAPI document is made of.

Handlers read their requests themselves, so Litestar cannot know bodies, parameters and errors. A test holds
the table complete. Types are the very structs that are decoded and encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from gateway.api.account import AccountView, ModelList, ModelView
from gateway.api.bodies import WebhookEvent
from gateway.api.jobs import FILTERS, JobPage, QuoteView
from gateway.api.keys import KeyPage, NewKeyView
from gateway.api.problems import ProblemView
from gateway.api.queries import LIMIT, MOST
from gateway.api.trail import FILTERS as TRAIL_FILTERS
from gateway.api.trail import TrailView
from gateway.api.uploads import UploadRequest, UploadView
from gateway.api.views import JobView
from gateway.api.webhooks import DeliveryPageView, DeliveryView, NewWebhookView, WebhookPage, WebhookView
from gateway.webhooks import WebhookPatch, WebhookRequest
from policies.access import KeyRequest
from policies.model import JobRequest, JobState

KNOWN: Final = ("unauthenticated", "forbidden", "tenant_suspended", "store_unavailable", "internal")
READING: Final = (*KNOWN, "invalid_request", "rate_limited", "not_acceptable")
BODY: Final = (*KNOWN, "invalid_request", "unsupported_media_type", "payload_too_large", "request_timeout")
PRICED: Final = ("unsupported_option", "plan_required", "no_provider_available", "unpriced")

Place = Literal["query", "header"]


class Parameter(Struct, frozen=True):
    """One parameter of a call, beside those of its path."""

    name: str
    note: str
    place: Place = "query"
    kind: str = "string"


class Call(Struct, frozen=True):
    """What one call takes and answers. `answers` maps a status to a type, media types, or nothing."""

    answers: dict[int, Any]
    problems: tuple[str, ...] = READING
    parameters: tuple[Parameter, ...] = ()
    body: type | tuple[str, ...] | None = None


IMAGES: Final = ("image/png", "image/jpeg", "image/webp")
STREAM: Final = ("text/event-stream",)
KEY: Final = Parameter("Idempotency-Key", "Same key and body, same job. Plain or quoted, ≤ 255.", "header")
LAST_EVENT: Final = Parameter("Last-Event-ID", "The `id` of the last event seen.", "header")
CONDITION: Final = Parameter("If-None-Match", "An `ETag`; 304 where it still holds.", "header")
PAGING: Final = (
    Parameter("cursor", "The `next` of the page before."),
    Parameter("limit", f"At most so many, 1 to {MOST}; {LIMIT} where it is absent.", kind="integer"),
)
NOTES: Final = {
    "state": f"May stand more than once: {', '.join(JobState)}.",
    "subject": "For the tenant's admins.",
    "created_after": "A time, RFC 3339.",
    "created_before": "A time, RFC 3339.",
}
METADATA: Final = Parameter("metadata.KEY", "A metadata pair the job has; any KEY, several at once.")


def _filters(names: Sequence[str]) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, NOTES.get(name, "")) for name in names)


# fmt: off
CALLS: Final[dict[str, Call]] = {
    "createJob": Call({202: JobView}, (*BODY, *PRICED, "reference_rejected", "upload_expired", "upload_incomplete", "insufficient_credits", "monthly_cap_reached", "prompt_blocked", "idempotency_key_reused", "job_erased", "rate_limited", "too_many_in_flight", "queue_full", "paused", "draining"), (KEY,), JobRequest),  # noqa: E501 - a table, a call a line
    "listJobs": Call({200: JobPage}, READING, (*_filters(FILTERS), METADATA, *PAGING)),
    "getJob": Call({200: JobView, 304: None}, (*READING, "not_found"), (Parameter("wait", "Seconds to wait for its end.", kind="number"), Parameter("after", "With `wait`: answer once `version` is above this.", kind="integer"), CONDITION)),  # noqa: E501 - a table, a call a line
    "deleteJob": Call({204: None}, (*KNOWN, "not_found", "job_open", "rate_limited")),
    "cancelJob": Call({200: JobView, 202: JobView}, (*KNOWN, "not_found", "rate_limited")),
    "quoteJob": Call({200: QuoteView}, (*BODY, "rate_limited"), (), JobRequest),
    "createUpload": Call({201: UploadView}, (*BODY, "idempotency_key_reused", "upload_expired", "rate_limited"), (KEY,), UploadRequest),  # noqa: E501 - a table, a call a line
    "putUpload": Call({200: None}, ("invalid_request", "link_invalid", "link_expired", "upload_complete", "not_found", "payload_too_large", "request_timeout", "store_unavailable"), (Parameter("exp", "Of the link.", kind="integer"), Parameter("size", "Of the link.", kind="integer"), Parameter("of", "Of the link."), Parameter("sig", "Of the link.")), IMAGES),  # noqa: E501 - a table, a call a line
    "watchJob": Call({200: STREAM, 204: None}, (*READING, "not_found", "too_many_streams", "draining"), (LAST_EVENT,)),  # noqa: E501 - a table, a call a line
    "watchJobs": Call({200: STREAM}, (*READING, "too_many_streams", "draining"), (LAST_EVENT, Parameter("jobs", "Only these jobs: ids separated by commas."))),  # noqa: E501 - a table, a call a line
    "getAccount": Call({200: AccountView}),
    "listModels": Call({200: ModelList}),
    "getModel": Call({200: ModelView}, (*READING, "not_found")),
    "createKey": Call({201: NewKeyView}, (*BODY, "key_limit", "rate_limited"), (), KeyRequest),
    "listKeys": Call({200: KeyPage}, READING, PAGING),
    "revokeKey": Call({204: None}, (*KNOWN, "invalid_request", "not_found", "rate_limited")),
    "createWebhook": Call({201: NewWebhookView}, (*BODY, "webhook_limit", "rate_limited"), (), WebhookRequest),  # noqa: E501 - a table, a call a line
    "listWebhooks": Call({200: WebhookPage}, READING, PAGING),
    "getWebhook": Call({200: WebhookView}, (*READING, "not_found")),
    "updateWebhook": Call({200: WebhookView}, (*BODY, "not_found", "rate_limited"), (), WebhookPatch),
    "deleteWebhook": Call({204: None}, (*KNOWN, "invalid_request", "not_found", "rate_limited")),
    "rotateWebhook": Call({200: NewWebhookView}, (*KNOWN, "invalid_request", "not_found", "rate_limited")),
    "testWebhook": Call({202: DeliveryView}, (*KNOWN, "invalid_request", "not_found", "webhook_disabled", "rate_limited")),  # noqa: E501 - a table, a call a line
    "listDeliveries": Call({200: DeliveryPageView}, (*READING, "not_found"), PAGING),
    "redeliverWebhook": Call({202: DeliveryView}, (*KNOWN, "invalid_request", "not_found", "webhook_disabled", "rate_limited")),  # noqa: E501 - a table, a call a line
    "listAudit": Call({200: TrailView}, READING, (*_filters(TRAIL_FILTERS), *PAGING)),
    "getFile": Call({200: IMAGES, 304: None}, ("link_invalid", "link_expired", "not_found"), (Parameter("exp", "Of the link.", kind="integer"), Parameter("sig", "Of the link."), Parameter("download", "1 attaches."), CONDITION)),  # noqa: E501 - a table, a call a line
    "getLiveness": Call({200: dict[str, str]}, ()),
    "getReadiness": Call({200: dict[str, str]}, ("draining", "store_unavailable")),
    "getMetrics": Call({200: ("text/plain",)}, ()),
}
# fmt: on

TYPES: Final = (
    JobView,
    JobPage,
    QuoteView,
    AccountView,
    ModelList,
    NewKeyView,
    KeyPage,
    TrailView,
    ProblemView,
    JobRequest,
    UploadRequest,
    UploadView,
    KeyRequest,
    WebhookEvent,
    WebhookView,
    NewWebhookView,
    WebhookPage,
    DeliveryView,
    DeliveryPageView,
    WebhookRequest,
    WebhookPatch,
)
