"""The OpenAPI document: Litestar lists the routes, this file says what each takes and answers.

Handlers read their requests themselves, so Litestar cannot know bodies, parameters and errors; the table
here does, by `operationId`, and a test holds it complete. Schemas come from the very structs that are
decoded and encoded, so only requests say `additionalProperties: false`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from msgspec import Struct

from gateway.api.account import AccountView, ModelList, ModelView
from gateway.api.bodies import WebhookEvent
from gateway.api.jobs import FILTERS, JobPage, QuoteView
from gateway.api.keys import KeyPage, NewKeyView
from gateway.api.pages import example
from gateway.api.problems import ProblemView
from gateway.api.queries import LIMIT, MOST
from gateway.api.trail import FILTERS as TRAIL_FILTERS
from gateway.api.trail import TrailView
from gateway.api.uploads import UploadRequest, UploadView
from gateway.api.views import JobView
from gateway.api.webhooks import DeliveryPageView, DeliveryView, NewWebhookView, WebhookPage, WebhookView
from gateway.errors import CATALOGUE
from gateway.webhooks import WebhookPatch, WebhookRequest
from policies.access import KeyRequest
from policies.model import JobRequest, JobState

REFERENCE: Final = "#/components/schemas/{name}"
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
    """What one call takes and answers. `answers` maps a status to a type, a media type, or nothing."""

    answers: dict[int, Any]
    problems: tuple[str, ...] = READING
    parameters: tuple[Parameter, ...] = ()
    body: type | str | None = None


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
    "createJob": Call({202: JobView}, (*BODY, *PRICED, "insufficient_credits", "monthly_cap_reached", "prompt_blocked", "idempotency_key_reused", "job_erased", "rate_limited", "too_many_in_flight", "queue_full", "paused", "draining"), (KEY,), JobRequest),  # noqa: E501 - a table, a call a line
    "listJobs": Call({200: JobPage}, READING, (*_filters(FILTERS), METADATA, *PAGING)),
    "getJob": Call({200: JobView, 304: None}, (*READING, "not_found"), (Parameter("wait", "Seconds to wait for its end.", kind="number"), Parameter("after", "With `wait`: answer once `version` is above this.", kind="integer"), CONDITION)),  # noqa: E501 - a table, a call a line
    "deleteJob": Call({204: None}, (*KNOWN, "not_found", "job_open", "rate_limited")),
    "cancelJob": Call({200: JobView, 202: JobView}, (*KNOWN, "not_found", "rate_limited")),
    "quoteJob": Call({200: QuoteView}, (*BODY, "rate_limited"), (), JobRequest),
    "createUpload": Call({201: UploadView}, (*BODY, "idempotency_key_reused", "upload_expired", "rate_limited"), (KEY,), UploadRequest),  # noqa: E501 - a table, a call a line
    "putUpload": Call({200: None}, ("invalid_request", "link_invalid", "link_expired", "upload_complete", "not_found", "payload_too_large", "request_timeout", "store_unavailable"), (Parameter("exp", "Of the link.", kind="integer"), Parameter("size", "Of the link.", kind="integer"), Parameter("of", "Of the link."), Parameter("sig", "Of the link.")), "image/*"),  # noqa: E501 - a table, a call a line
    "watchJob": Call({200: "text/event-stream", 204: None}, (*READING, "not_found", "too_many_streams", "draining"), (LAST_EVENT,)),  # noqa: E501 - a table, a call a line
    "watchJobs": Call({200: "text/event-stream"}, (*READING, "too_many_streams", "draining"), (LAST_EVENT, Parameter("jobs", "Only these jobs: ids separated by commas."))),  # noqa: E501 - a table, a call a line
    "getAccount": Call({200: AccountView}),
    "listModels": Call({200: ModelList}),
    "getModel": Call({200: ModelView}, (*READING, "not_found")),
    "createKey": Call({201: NewKeyView}, (*BODY, "rate_limited"), (), KeyRequest),
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
    "getFile": Call({200: "image/*", 304: None}, ("link_invalid", "link_expired", "not_found"), (Parameter("exp", "Of the link.", kind="integer"), Parameter("sig", "Of the link."), Parameter("download", "1 attaches."), CONDITION)),  # noqa: E501 - a table, a call a line
    "getLiveness": Call({200: dict[str, str]}, ()),
    "getReadiness": Call({200: dict[str, str]}, ("draining", "store_unavailable")),
    "getMetrics": Call({200: "text/plain"}, ()),
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
METHODS: Final = ("get", "post", "put", "patch", "delete")


def document(handlers: Sequence[HTTPRouteHandler], *, version: str, base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of these handlers."""
    config = OpenAPIConfig(
        "Safelight",
        version,
        description="Images from prompts, through one gateway: submit a job, wait for it, read its images.",
        use_handler_docstrings=True,
    )
    listed = Litestar(list(handlers), openapi_config=config, logging_config=None)
    found: dict[str, Any] = listed.openapi_schema.to_schema()
    for path in found["paths"].values():
        for method in METHODS:
            if method in path:
                path[method] = _complete(path[method], base_url)
    found["servers"] = [{"url": base_url}]
    found["webhooks"] = {"jobEnded": {"post": _told()}}
    _, schemas = msgspec.json.schema_components(TYPES, ref_template=REFERENCE)
    bearer = {"type": "http", "scheme": "bearer", "description": "A token (JWT) or a service key."}
    found["components"] = {"schemas": schemas, "securitySchemes": {"bearer": bearer}}
    return found


def _complete(operation: dict[str, Any], base_url: str) -> dict[str, Any]:
    """Return an operation with what its row of the table says."""
    name = operation["operationId"]
    call = CALLS[name]
    summary, _, rest = operation["description"].partition("\n")
    parameters = [*operation.get("parameters", ()), *(_parameter(one) for one in call.parameters)]
    done: dict[str, Any] = {
        "operationId": name,
        "tags": [_tag(name)],
        "summary": summary.rstrip("."),
        "description": rest.strip() or summary,
        "responses": {str(status): _answer(kind) for status, kind in call.answers.items()},
    }
    done["responses"] |= _problems(call.problems, base_url)
    if parameters:
        done["parameters"] = parameters
    if call.body is not None:
        done["requestBody"] = {"required": True, "content": _content(call.body)}
    if "unauthenticated" in call.problems:
        done["security"] = [{"bearer": []}]
    return done


def _told() -> dict[str, Any]:
    """Return the operation that webhooks serve."""
    return {
        "operationId": "jobEnded",
        "tags": ["Webhooks"],
        "summary": "Be told of a job's end",
        "description": "Signed as Standard Webhooks 1.0 says: `webhook-id`, `webhook-timestamp` and "
        "`webhook-signature`. Any 2xx takes it; whatever else is tried again, over 24 hours.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema(WebhookEvent)}},
        },
        "responses": {"204": {"description": "It was taken."}},
        "security": [],
    }


def _tag(name: str) -> str:
    """Return the group a call is shown in."""
    if name.startswith("get") and name.endswith(("ness", "Metrics")):
        return "Operations"
    if "Key" in name:
        return "Keys"
    if "Upload" in name:
        return "Uploads"
    if "Webhook" in name or "Deliver" in name:
        return "Webhooks"
    return "Jobs" if "Job" in name or name == "getFile" else "Account"


def _content(body: type | str) -> dict[str, Any]:
    """Return what a body may be: JSON of a type, or bytes of a media type."""
    if isinstance(body, str):
        return {body: {"schema": {"type": "string", "format": "binary"}}}
    return {"application/json": {"schema": _schema(body)}}


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        "required": False,
        "description": one.note,
        "schema": {"type": one.kind},
    }


def _answer(kind: Any) -> dict[str, Any]:
    match kind:
        case None:
            return {"description": "Nothing to show."}
        case "text/event-stream":
            schema = {"type": "string", "description": "Events named `job`, each with a JobView as data."}
            return {"description": "A stream of server-sent events.", "content": {kind: {"schema": schema}}}
        case str():
            schema = {"type": "string"}
            return {"description": "The bytes.", "content": {kind: {"schema": schema}}}
        case _:
            text = (getattr(kind, "__doc__", None) or "").partition("\n")[0]
            return {"description": text, "content": {"application/json": {"schema": _schema(kind)}}}


def _schema(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return {"$ref": REFERENCE.format(name=kind.__name__)}
    return msgspec.json.schema(kind)


def _problems(codes: tuple[str, ...], base_url: str) -> dict[str, Any]:
    """Return the error answers by status, every code of one as an example."""
    found: dict[str, Any] = {}
    for code in codes:
        row = CATALOGUE[code]
        media = found.setdefault(
            str(row.status),
            {"description": "", "content": {"application/problem+json": {"schema": _schema(ProblemView)}}},
        )["content"]["application/problem+json"]
        shown = msgspec.to_builtins(example(code, base_url))
        media.setdefault("examples", {})[code] = {"summary": row.title, "value": shown}
    for answer in found.values():
        titles = answer["content"]["application/problem+json"]["examples"].values()
        answer["description"] = "; ".join(title["summary"] for title in titles)
    return found
