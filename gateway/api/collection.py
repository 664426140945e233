"""The Postman collection, version 2.1: every call of the OpenAPI document, in an order that works.

A folder for each tag, and in each a story: what a call answers is kept in a variable for the calls after
it, so that a run from top to bottom passes and leaves little behind. Every request tests its own answer.
Left out is the one stream that has no end. What is sent comes from the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.api.samples import PICTURE, PROMPT

SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
ENDLESS: Final = "watchJobs"
BEARER: Final = {"type": "bearer", "bearer": [{"key": "token", "value": "{{apiKey}}", "type": "string"}]}
ABOUT: Final = (
    "Set `apiKey` to a token or a service key; `baseUrl` is where this came from. Requests keep what the "
    "ones after them need, so run a folder from its top. `webhookUrl` may be any address that takes a POST: "
    "a receiver of yours."
)


class Step(NamedTuple):
    """One request of the story.

    `values` fill in the path, `query` and `body` stand for the document's. `keeps` maps a variable to an
    expression over `body`, the answer; `again` is true while the answer is to be asked for once more,
    `checks` hold when it is not. `statuses` are those that are right, where not all the documented 2xx.
    `to` is the whole address, where an answer named it.
    """

    call: str
    name: str = ""
    values: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: Any = None
    keeps: Mapping[str, str] = {}
    again: str = ""
    checks: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    to: str = ""


WAIT: Final = {"wait": "20"}
OPEN: Final = "!body.ended"
PICTURED: Final = ('body.state === "succeeded"', "body.outputs.length === body.count")
EDIT: Final = "the same, in winter"
HOOK: Final = {"webhook_id": "{{webhookId}}"}

STORY: Final = (
    Step("quoteJob", checks=("body.allowed", "body.price > 0")),
    Step("createJob", keeps={"jobId": "body.id"}, checks=("!body.ended",)),
    Step("getJob", values={"job_id": "{{jobId}}"}, checks=("body.version >= 0",)),
    Step(
        "getJob",
        "Wait for a job's end",
        {"job_id": "{{jobId}}"},
        WAIT,
        again=OPEN,
        keeps={"fileUrl": "body.outputs[0].url"},
        checks=PICTURED,
    ),
    Step("watchJob", values={"job_id": "{{jobId}}"}),
    Step("getFile", to="{{fileUrl}}"),
    Step("listJobs", query={"limit": "5"}, checks=("body.data.length > 0",)),
    Step("createJob", "Submit a job to cancel", body={"prompt": PROMPT}, keeps={"spareId": "body.id"}),
    Step("cancelJob", values={"job_id": "{{spareId}}"}, checks=("body.ended || body.cancel_requested_at",)),
    Step("getJob", "Wait for its end", {"job_id": "{{spareId}}"}, WAIT, again=OPEN, checks=("body.ended",)),
    Step("deleteJob", values={"job_id": "{{spareId}}"}),
    Step("createUpload", keeps={"uploadId": "body.id", "uploadUrl": "body.url"}),
    Step("putUpload", to="{{uploadUrl}}"),
    Step(
        "createJob",
        "Submit an edit of it",
        body={"prompt": EDIT, "operation": "edit", "inputs": [{"upload": "{{uploadId}}"}], "quality": "low"},
        keeps={"editId": "body.id"},
    ),
    Step("getJob", "Wait for the edit's end", {"job_id": "{{editId}}"}, WAIT, again=OPEN, checks=PICTURED),
    Step("getAccount", checks=("body.credits.available >= 0",)),
    Step("listModels", keeps={"modelId": "body.data[0].id"}),
    Step("getModel", values={"model": "{{modelId}}"}, checks=('body.object === "model"',)),
    Step("listAudit", "Read the trail (403 for who is no admin)", query={"limit": "5"}, statuses=(200, 403)),
    Step("createKey", keeps={"keyId": "body.id"}, checks=("body.key.length > 20",)),
    Step("listKeys", checks=("body.data.some((one) => one.hint)",)),
    Step("revokeKey", values={"key_id": "{{keyId}}"}),
    Step(
        "createWebhook",
        body={"url": "{{webhookUrl}}", "events": ["job.succeeded", "job.failed"], "label": "shop"},
        keeps={"webhookId": "body.id"},
        checks=('body.secret.startsWith("whsec_")',),
    ),
    Step("listWebhooks", checks=("body.data.length > 0",)),
    Step("getWebhook", values=HOOK, checks=("body.enabled",)),
    Step("updateWebhook", values=HOOK, checks=('body.label === "shop, spring"',)),
    Step("testWebhook", values=HOOK, keeps={"deliveryId": "body.id"}),
    Step("listDeliveries", values=HOOK, checks=("body.data.length > 0",)),
    Step("redeliverWebhook", values={**HOOK, "delivery_id": "{{deliveryId}}"}),
    Step("rotateWebhook", values=HOOK, checks=('body.secret.startsWith("whsec_")',)),
    Step("deleteWebhook", values=HOOK),
    Step("createPlusGeneration", keeps={"generationId": "body.generationId"}),
    Step(
        "getPlusGeneration",
        values={"id": "{{generationId}}"},
        again='["queued", "running"].includes(body.status)',
        checks=('body.status === "succeeded"', 'body.outputs[0].png.startsWith("http")'),
    ),
    Step("createPlusUpload", keeps={"plusKey": "body.key", "uploadUrl": "body.url"}),
    Step("putUpload", "Send its bytes", to="{{uploadUrl}}"),
    Step(
        "createPlusGeneration",
        "Edit it",
        body={"prompt": EDIT, "type": "edit", "inputImageKeys": ["{{plusKey}}"], "quality": "low"},
    ),
    Step(
        "createPlusWebhook",
        body={"url": "{{webhookUrl}}", "events": ["generation.succeeded"], "label": "shop"},
        keeps={"plusWebhookId": "body.id"},
    ),
    Step("listPlusWebhooks", checks=("body.webhooks.length > 0",)),
    Step("updatePlusWebhook", values={"id": "{{plusWebhookId}}"}),
    Step("rotatePlusWebhook", values={"id": "{{plusWebhookId}}"}),
    Step("deletePlusWebhook", values={"id": "{{plusWebhookId}}"}),
    Step("createAiJob", keeps={"aiId": "body.jobId"}),
    Step(
        "getAiJob",
        values={"id": "{{aiId}}"},
        again="pm.response.code === 202",
        checks=('body.status === "succeeded"', "body.results.length === 1"),
    ),
    Step("createOpenAIImages", checks=('body.data[0].url.startsWith("http")',)),
    Step("editOpenAIImages", checks=("body.data.length === 1",)),
    Step("getLiveness"),
    Step("getReadiness"),
    Step("getMetrics"),
)
SENT: Final[Mapping[str, tuple[str, str]]] = {"putUpload": ("image/webp", PICTURE)}
"""Bodies that are no JSON, and their types."""
FIRST_VALUES: Final = {"webhookUrl": "{{baseUrl}}/livez"}
"""Variables that have a value from the start, besides the address."""


def collection(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the collection of an OpenAPI document."""
    found = {op["operationId"]: (path, method, op) for path, method, op in operations(document)}
    folders: dict[str, list[Any]] = {tag["name"]: [] for tag in document["tags"]}
    folder = ""
    for step in STORY:
        if step.call in found:
            path, method, operation = found[step.call]
            if not step.name or not folder:
                folder = operation["tags"][0]
            folders[folder].append(_item(step, path, method, operation))
    info, address = document["info"], document["servers"][0]["url"]
    kept = sorted({name for step in STORY for name in step.keeps})
    values = {"baseUrl": address, "apiKey": "", **FIRST_VALUES, **dict.fromkeys(kept, "")}
    notes = {tag["name"]: tag["description"] for tag in document["tags"]}
    return {
        "info": {"name": info["title"], "description": f"{info['description']}\n\n{ABOUT}", "schema": SCHEMA},
        "item": [
            {"name": name, "description": notes[name], "item": items}
            for name, items in folders.items()
            if items
        ],
        "auth": BEARER,
        "variable": [{"key": name, "value": value, "type": "string"} for name, value in values.items()],
    }


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation of every call of a document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _item(step: Step, path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return one request with its test."""
    request: dict[str, Any] = {
        "method": method,
        "description": operation["description"],
        "url": step.to or _url(step, path),
        "header": [],
    }
    if not operation["security"]:
        request["auth"] = {"type": "noauth"}
    if step.call in SENT:
        kind, text = SENT[step.call]
        request["header"].append({"key": "Content-Type", "value": kind})
        request["body"] = {"mode": "raw", "raw": text}
    elif "requestBody" in operation:
        sample = step.body or operation["requestBody"]["content"]["application/json"]["example"]
        text = json.dumps(sample, indent=2, ensure_ascii=False)
        request["body"] = {"mode": "raw", "raw": text, "options": {"raw": {"language": "json"}}}
    if any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ())):
        request["header"].append({"key": "Idempotency-Key", "value": "{{$guid}}"})
    script = {"type": "text/javascript", "exec": _script(step, operation)}
    return {
        "name": step.name or operation["summary"],
        "event": [{"listen": "test", "script": script}],
        "request": request,
    }


def _url(step: Step, path: str) -> dict[str, Any]:
    """Return an address as Postman writes one: `{id}` is `:id`, with its value beside it."""
    parts = [f":{part[1:-1]}" if part.startswith("{") else part for part in path.strip("/").split("/")]
    query = "&".join(f"{name}={value}" for name, value in step.query.items())
    return {
        "raw": "/".join(("{{baseUrl}}", *parts)) + (f"?{query}" if query else ""),
        "host": ["{{baseUrl}}"],
        "path": parts,
        "query": [{"key": name, "value": value} for name, value in step.query.items()],
        "variable": [{"key": name, "value": value} for name, value in step.values.items()],
    }


def _script(step: Step, operation: Mapping[str, Any]) -> list[str]:
    """Return the lines that test an answer and keep of it what later requests need."""
    fine = step.statuses or tuple(int(status) for status in operation["responses"] if status[0] == "2")
    told = " or ".join(map(str, fine))
    lines = [f'pm.test("answers {told}", () => pm.expect(pm.response.code).to.be.oneOf({list(fine)}));']
    rest = [f'pm.collectionVariables.set("{name}", {value});' for name, value in step.keeps.items()]
    rest += [
        f"pm.test({json.dumps(check)}, () => pm.expect(Boolean({check})).to.equal(true));"
        for check in step.checks
    ]
    if rest:
        lines.append("const body = pm.response.json();")
    if step.again:
        lines += [f"if ({step.again}) {{", "  pm.execution.setNextRequest(pm.info.requestId);"]
        lines += ["  setTimeout(() => {}, 300);", "} else {", *(f"  {line}" for line in rest), "}"]
        return lines
    return lines + rest
