"""Pages, probes and the OpenAPI document."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.api import routes
from gateway.api.openapi import CALLS
from gateway.errors import CATALOGUE, StoreUnavailable
from gateway.lifetime import Lifetime
from policies.webhooks import EVENTS
from tests.gateway.api.conftest import URL, Site


@pytest.mark.parametrize("code", sorted(CATALOGUE))
async def test_every_code_has_page(site: Site, code: str) -> None:
    """The address in a problem's `type` leads to a page that explains the code."""
    answer = await site.ask("GET", f"/problems/{code}")
    page = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<code>{code}</code>" in page
    assert str(CATALOGUE[code].status) in page
    assert "$" not in page
    assert "`" not in page.partition("<pre>")[0]


async def test_pages_have_strict_policy(site: Site) -> None:
    """No page allows an inline script or another host; none has one."""
    for target in ("/docs", "/problems/internal"):
        answer = await site.ask("GET", target)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "http" not in policy
        assert "script-src 'unsafe" not in policy
        assert b"<script>" not in answer.body
        assert not re.search(rb"(src|href)=\"(https?:)?//", answer.body)


async def test_unknown_page_is_404(site: Site) -> None:
    """There are pages for codes that exist and files that are ours."""
    assert (await site.ask("GET", "/problems/none")).status == 404
    assert (await site.ask("GET", "/docs/index.html")).status == 404


async def test_docs_files_are_local(site: Site) -> None:
    """Everything the documents' page names is served here, typed."""
    page = (await site.ask("GET", "/docs")).body.decode()
    for name in re.findall(r"\"docs/([^\"]+)\"", page):
        answer = await site.ask("GET", f"/docs/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].split("/")[0] in ("text", "image")
    css = await site.ask("GET", "/docs/page.css")
    assert css.headers["content-type"] == "text/css; charset=utf-8"


async def test_probes_tell_apart(site: Site) -> None:
    """Liveness knows nothing but itself; readiness falls with the store, the drain and before the start."""
    assert (await site.ask("GET", "/readyz")).json == {"status": "ok"}
    site.sick = StoreUnavailable("down")
    assert (await site.ask("GET", "/readyz")).json["code"] == "store_unavailable"
    site.sick = None
    site.lifetime.begin_drain()
    assert (await site.ask("GET", "/readyz")).json["code"] == "draining"
    starting = site.rebuilt(lifetime=Lifetime())
    assert (await starting.ask("GET", "/readyz")).status == 503
    assert (await starting.ask("GET", "/livez")).status == 200


async def test_metrics_name_routes_only(site: Site) -> None:
    """Metrics count by route template, and hold no id, tenant or subject."""
    await site.post("/v1/jobs", {"prompt": "a"})
    await site.get("/v1/jobs/job_01JCP0E000E008000000000001")
    answer = await site.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert b'route="/v1/jobs/{job_id}"' in answer.body
    for private in (b"acme", b"ann", b"01JCP0E"):
        assert private not in answer.body


@pytest.fixture
async def document(site: Site) -> dict[str, Any]:
    """The OpenAPI document as it is served."""
    answer = await site.ask("GET", "/openapi.json")
    found: dict[str, Any] = json.loads(answer.body)
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every operation of a document."""
    return [operation for path in document["paths"].values() for operation in path.values()]


async def test_document_has_every_route(site: Site, document: dict[str, Any]) -> None:
    """Each served call is in the document under its own verb-noun name, and in the table that tells of it."""
    named = [handler.operation_id for handler in routes(site.parts, site.slots)]
    assert sorted(op["operationId"] for op in operations(document)) == sorted(str(name) for name in named)
    assert set(CALLS) == set(named)
    assert all(re.fullmatch(r"[a-z]+[A-Z][A-Za-z]+", str(name)) for name in named)


async def test_document_is_described(document: dict[str, Any]) -> None:
    """Every call has a summary, a description and an answer that succeeds."""
    for operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        assert any(status.startswith("2") for status in operation["responses"])
    assert document["servers"] == [{"url": URL}]


async def test_document_says_what_is_told(document: dict[str, Any]) -> None:
    """What a webhook is sent is in the document, as a body whose `data` is a job."""
    (told,) = document["webhooks"].values()
    schema = told["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/WebhookEvent"}
    event = document["components"]["schemas"]["WebhookEvent"]["properties"]
    assert event["data"] == {"$ref": "#/components/schemas/JobView"}
    assert sorted(event["type"]["enum"]) == sorted(EVENTS["native"])


async def test_requests_alone_are_closed(document: dict[str, Any]) -> None:
    """Requests refuse unknown fields and say so; answers may grow."""
    schemas = document["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    assert closed == {
        "JobRequest",
        "InputRef",
        "KeyRequest",
        "UploadRequest",
        "WebhookRequest",
        "WebhookPatch",
    }
    assert {"JobView", "ProblemView", "AccountView"} <= set(schemas)


async def test_document_references_resolve(document: dict[str, Any]) -> None:
    """Whatever the document refers to is in it."""
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found <= set(document["components"]["schemas"])


async def test_problems_are_examples(document: dict[str, Any]) -> None:
    """A call names the codes it may answer, each with an example that has its status."""
    responses = document["paths"]["/v1/jobs"]["post"]["responses"]
    examples = responses["402"]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"insufficient_credits", "monthly_cap_reached"}
    assert examples["monthly_cap_reached"]["value"]["status"] == 402
    blocked = responses["422"]["content"]["application/problem+json"]["examples"]["prompt_blocked"]["value"]
    assert blocked["rule"] in blocked["detail"]
    invalid = responses["400"]["content"]["application/problem+json"]["examples"]["invalid_request"]["value"]
    assert invalid["errors"] == [{"pointer": "/prompt", "detail": "is required"}]
    assert document["paths"]["/livez"]["get"].get("security") is None
    assert document["paths"]["/v1/jobs"]["post"]["security"] == [{"bearer": []}]
