"""The OpenAPI document: whole, valid, true to the structs, and of use to generators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api import routes
from gateway.api.calls import CALLS
from gateway.api.collection import operations
from gateway.dialects.documents import TOLD
from gateway.errors import CATALOGUE
from policies.webhooks import EVENTS
from tests.gateway.api.conftest import URL, Site
from tests.gateway.api.documented import document_of, speakers


@pytest.fixture
async def document(site: Site) -> dict[str, Any]:
    """The document of a site that speaks all dialects."""
    return await document_of(site.rebuilt(speakers=speakers()))


def each(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every operation of a document."""
    return [operation for _, _, operation in operations(document)]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)


async def test_document_has_every_route(site: Site, document: dict[str, Any]) -> None:
    """Each served call is in the document under its own verb-noun name, and in a table that tells of it."""
    own = {str(handler.operation_id) for handler in routes(site.parts, site.slots)}
    foreign = {call.operation for speaker in speakers() for call in speaker.calls()}
    named = [operation["operationId"] for operation in each(document)]
    assert sorted(named) == sorted(own | foreign)
    assert (set(CALLS), set(TOLD)) == (own, foreign)
    assert all(re.fullmatch(r"[a-z]+[A-Z][A-Za-z]+", name) for name in named)


def test_document_is_valid(document: dict[str, Any]) -> None:
    """The document is OpenAPI 3.1 to the letter."""
    assert [*OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_document_is_described(document: dict[str, Any]) -> None:
    """Every call has a summary, a description, a known group and an answer that succeeds."""
    tags = [tag["name"] for tag in document["tags"]]
    assert {tag for operation in each(document) for tag in operation["tags"]} == set(tags)
    for operation in each(document):
        assert operation["summary"][-1] not in ".,:"
        assert operation["description"]
        assert any(status.startswith("2") for status in operation["responses"])
    assert document["servers"] == [{"url": URL}]


def test_document_says_what_is_told(document: dict[str, Any]) -> None:
    """What a webhook is sent is in the document, as a body whose `data` is a job."""
    (told,) = document["webhooks"].values()
    schema = told["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/WebhookEvent"}
    event = document["components"]["schemas"]["WebhookEvent"]["properties"]
    assert event["data"] == {"$ref": "#/components/schemas/JobView"}
    assert sorted(event["type"]["enum"]) == sorted(EVENTS["native"])


async def test_dialects_are_told_where_spoken(site: Site) -> None:
    """A site without dialects has neither their calls nor their types in its document."""
    plain = await document_of(site)
    assert not any(path.startswith("/api") for path in plain["paths"])
    assert not any(name.startswith(("Plus", "Ai", "OpenAI")) for name in plain["components"]["schemas"])


def test_own_requests_alone_are_closed(document: dict[str, Any]) -> None:
    """Our own requests refuse unknown fields and say so; answers may grow, and dialects pass fields over."""
    schemas = document["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    requests = {"JobRequest", "KeyRequest", "UploadRequest", "WebhookRequest", "WebhookPatch"}
    assert closed == {*requests, "InputRef"}
    assert {"JobView", "ProblemView", "AccountView", "WebhookEvent"} <= set(schemas)


def test_document_references_resolve(document: dict[str, Any]) -> None:
    """Whatever the document refers to is in it, and nothing else is."""
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found == set(document["components"]["schemas"])


def test_choices_say_their_type(document: dict[str, Any]) -> None:
    """A choice of words is of strings, and an absent field has no default of null."""
    chosen = [node for node in nodes(document) if isinstance(node.get("enum"), list)]
    assert len(chosen) > 20
    assert all(node["type"] == "string" for node in chosen)
    assert not any(node.get("default", 0) is None for node in nodes(document))


def test_samples_are_as_documented(document: dict[str, Any]) -> None:
    """Every JSON body has an example that its own schema takes, with no field it does not know."""
    for operation in each(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            if kind == "application/json":
                schema = {**media["schema"], "components": document["components"]}
                assert [*OAS31Validator(schema).iter_errors(media["example"])] == []
                named = media["schema"]["$ref"].rpartition("/")[2]
                assert set(media["example"]) <= set(document["components"]["schemas"][named]["properties"])


def test_problems_are_examples(document: dict[str, Any]) -> None:
    """A call names the codes it may answer, each with an example that has its status."""
    responses = document["paths"]["/v1/jobs"]["post"]["responses"]
    examples = responses["402"]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"insufficient_credits", "monthly_cap_reached"}
    assert examples["monthly_cap_reached"]["value"]["status"] == 402
    blocked = responses["422"]["content"]["application/problem+json"]["examples"]["prompt_blocked"]["value"]
    assert blocked["rule"] in blocked["detail"]
    invalid = responses["400"]["content"]["application/problem+json"]["examples"]["invalid_request"]["value"]
    assert invalid["errors"] == [{"pointer": "/prompt", "detail": "is required"}]
    told = {code for call in CALLS.values() for code in call.problems}
    assert told <= set(CATALOGUE)


def test_calls_say_who_may(document: dict[str, Any]) -> None:
    """Every call takes the bearer, but probes and what is opened by a signed link."""
    free = {operation["operationId"] for operation in each(document) if operation["security"] == []}
    assert free == {"getLiveness", "getReadiness", "getMetrics", "getFile", "putUpload"}
    assert document["paths"]["/v1/jobs"]["post"]["security"] == [{"bearer": []}]
