"""The OpenAPI document: Litestar lists the routes, tables say what each takes and answers.

Our own calls are told of in `calls.py`, those of the APIs we speak in `dialects/documents.py`; examples of
bodies are `samples.py`'s. Here they are joined, and spelled so that generators of clients understand them.
Only our own requests say `additionalProperties: false`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from msgspec import Struct

from gateway.api.bodies import WebhookEvent
from gateway.api.calls import CALLS, KEY, STREAM, TYPES, Parameter
from gateway.api.pages import example
from gateway.api.problems import ProblemView
from gateway.api.samples import SAMPLES
from gateway.dialects.documents import AI, OPENAI, PLUS, TOLD, Told, structs
from gateway.errors import CATALOGUE

REFERENCE: Final = "#/components/schemas/{name}"
METHODS: Final = ("get", "post", "put", "patch", "delete")
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TAGS: Final = {
    "Jobs": "Submit, wait, read, list, cancel, delete.",
    "Uploads": "Bring images to edit, in two steps.",
    "Account": "What a caller has, may ask for, and did.",
    "Keys": "Service keys, for programs that cannot ask for a token each hour.",
    "Webhooks": "Be told of a job's end.",
    PLUS: "gptimage2.plus's API, as its clients call it. Jobs are the same as everywhere else.",
    AI: "gptimage2.ai's API, as its clients call it. Jobs are the same as everywhere else.",
    OPENAI: "OpenAI's Images API, as its SDKs call it: base URL `/v1`. The call waits for its job.",
    "Operations": "For whoever runs this: probes and metrics.",
}
NO_JSON: Final[Mapping[tuple[str, ...], str]] = {
    STREAM: "Events named `job`, each with a JobView as data.",
    ("text/plain",): "Metrics as Prometheus reads them.",
}
"""What the texts are that some calls answer with; all others are images."""


def document(handlers: Sequence[HTTPRouteHandler], *, version: str, base_url: str) -> dict[str, Any]:
    """Return the OpenAPI document of these handlers."""
    config = OpenAPIConfig("Safelight", version, use_handler_docstrings=True)
    listed = Litestar(list(handlers), openapi_config=config, logging_config=None)
    paths: dict[str, Any] = listed.openapi_schema.to_schema()["paths"]
    for path in paths.values():
        for method in METHODS:
            if method in path:
                path[method] = _complete(path[method], base_url)
    told = _told()
    used = {operation["tags"][0] for path in paths.values() for operation in path.values()} | set(
        told["tags"]
    )
    _, schemas = msgspec.json.schema_components((*TYPES, *structs()), ref_template=REFERENCE)
    bearer = {"type": "http", "scheme": "bearer", "description": "A token (JWT) or a service key."}
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "Safelight",
            "version": version,
            "description": "Images from prompts, through one gateway: submit a job, wait for it, "
            "read its images.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "webhooks": {"jobEnded": {"post": told}},
        "components": {"schemas": schemas, "securitySchemes": {"bearer": bearer}},
    }
    _needed(found)
    typed: dict[str, Any] = _typed(found)
    return typed


def _complete(operation: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    """Return an operation with what its row of a table says."""
    name = operation["operationId"]
    summary, _, rest = operation["description"].partition("\n")
    told = TOLD.get(name)
    more = _own(name, base_url) if told is None else _foreign(name, told)
    parameters = [*operation.get("parameters", ()), *more.pop("parameters")]
    done: dict[str, Any] = {
        "operationId": name,
        "summary": summary.rstrip("."),
        "description": "\n".join(line.strip() for line in rest.strip().splitlines()) or summary,
        **({"parameters": parameters} if parameters else {}),
        **more,
    }
    return done


def _own(name: str, base_url: str) -> dict[str, Any]:
    """Return what the table says of a call of our own."""
    call = CALLS[name]
    answers = {str(status): _answer(kind) for status, kind in call.answers.items()}
    done: dict[str, Any] = {
        "tags": [_tag(name)],
        "parameters": [_parameter(one) for one in call.parameters],
        "responses": answers | _problems(call.problems, base_url),
        "security": [{"bearer": []}] if "unauthenticated" in call.problems else [],
    }
    if isinstance(call.body, tuple):
        done["requestBody"] = {"required": True, "content": dict.fromkeys(call.body, _bytes())}
    elif call.body is not None:
        done["requestBody"] = _body(name, {JSON: call.body})
    return done


def _foreign(name: str, told: Told) -> dict[str, Any]:
    """Return what the table says of another API's call."""
    answers = {str(status): _answer(kind) for status, kind in told.answers.items()}
    error = {JSON: {"schema": _schema(told.error)}}
    refused = {
        str(status): {"description": f"{text}.", "content": error} for status, text in told.refusals.items()
    }
    done: dict[str, Any] = {
        "tags": [told.tag],
        "parameters": [_parameter(KEY)] if told.keyed else [],
        "responses": answers | refused,
        "security": [{"bearer": []}],
    }
    if told.bodies:
        done["requestBody"] = _body(name, told.bodies)
    return done


def _told() -> dict[str, Any]:
    """Return the operation that webhooks serve."""
    return {
        "operationId": "jobEnded",
        "tags": ["Webhooks"],
        "summary": "Be told of a job's end",
        "description": "Signed as Standard Webhooks 1.0 says: `webhook-id`, `webhook-timestamp` and "
        "`webhook-signature`. Any 2xx takes it; whatever else is tried again, over 24 hours.",
        "requestBody": {"required": True, "content": {JSON: {"schema": _schema(WebhookEvent)}}},
        "responses": {"204": {"description": "It was taken."}},
        "security": [],
    }


def _tag(name: str) -> str:
    """Return the group a call of our own is shown in."""
    if name.startswith("get") and name.endswith(("ness", "Metrics")):
        return "Operations"
    if "Key" in name:
        return "Keys"
    if "Upload" in name:
        return "Uploads"
    if "Webhook" in name or "Deliver" in name:
        return "Webhooks"
    return "Jobs" if "Job" in name or name == "getFile" else "Account"


def _body(name: str, bodies: Mapping[str, type]) -> dict[str, Any]:
    """Return what a call takes, by media type; the JSON among it with an example."""
    content: dict[str, Any] = {kind: {"schema": _schema(body)} for kind, body in bodies.items()}
    content[JSON]["example"] = SAMPLES[name]
    return {"required": True, "content": content}


def _bytes() -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary"}}


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
        case tuple() if kind in NO_JSON:
            schema = {"type": "string"}
            return {"description": NO_JSON[kind], "content": {media: {"schema": schema} for media in kind}}
        case tuple():
            return {"description": "The bytes.", "content": dict.fromkeys(kind, _bytes())}
        case _:
            text = kind.__doc__.partition("\n")[0] if issubclass(kind, Struct) else "Texts by name."
            return {"description": text, "content": {JSON: {"schema": _schema(kind)}}}


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
            str(row.status), {"description": "", "content": {PROBLEM: {"schema": _schema(ProblemView)}}}
        )["content"][PROBLEM]
        shown = msgspec.to_builtins(example(code, base_url))
        media.setdefault("examples", {})[code] = {"summary": row.title, "value": shown}
    for answer in found.values():
        titles = answer["content"][PROBLEM]["examples"].values()
        answer["description"] = "; ".join(title["summary"] for title in titles)
    return found


def _needed(found: dict[str, Any]) -> None:
    """Leave away schemas that nothing refers to: those of APIs that are not spoken here."""
    schemas = found["components"]["schemas"]
    left, seen = [*_references(found["paths"]), *_references(found["webhooks"])], set[str]()
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += _references(schemas[name])
    found["components"]["schemas"] = {name: each for name, each in schemas.items() if name in seen}


def _references(node: Any) -> Iterable[str]:
    """Yield the names of the schemas that a part of the document refers to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _typed(node: Any) -> Any:
    """Return a part of the document as generators of clients read it best.

    JSON Schema can do without the type of a choice of words, but they make an untyped value of it. A null
    that stands where a field is absent is no default to tell of.
    """
    if isinstance(node, list):
        return [_typed(value) for value in node]
    if not isinstance(node, dict):
        return node
    done = {name: _typed(value) for name, value in node.items() if (name, value) != ("default", None)}
    words = done.get("enum")
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        done["type"] = "string"
    return done
