"""Pages and probes."""

from __future__ import annotations

import re

import pytest

from gateway.errors import CATALOGUE, StoreUnavailable
from gateway.lifetime import Lifetime
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


async def test_documents_are_made_once(site: Site) -> None:
    """The document, the collection and the brief are typed, may be kept for minutes, and never change."""
    for target, kind in (
        ("/openapi.json", "application/json"),
        ("/postman.json", "application/json"),
        ("/llms.txt", "text/plain; charset=utf-8"),
    ):
        answer = await site.ask("GET", target)
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == "public, max-age=300"
        assert (await site.ask("GET", target)).body == answer.body
        assert URL.encode() in answer.body
