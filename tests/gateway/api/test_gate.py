"""The gate: no route without its token, plan, scope; and how many reads a second."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

import gateway
from gateway.api import routes
from gateway.api.gate import chosen
from gateway.api.limits import READ_BURST, READ_EVERY_MS, ReadLimit
from gateway.errors import Problem
from tests.fakes.jobs import NOON
from tests.gateway.api.conftest import Site


def walked(site: Site) -> list[tuple[str, str, bool]]:
    """Return method, path and openness of every route the application has."""
    app: Any = site.app.app
    found = []
    for route in app.routes:
        for handler in route.route_handlers:
            assert isinstance(handler, HTTPRouteHandler)
            path = re.sub(r"\{[a-z_]+:[a-z]+\}", "x", route.path)
            found += [(method, path, "public" in handler.opt) for method in handler.http_methods]
    return [entry for entry in found if entry[0] != "OPTIONS"]


async def test_every_closed_route_wants_token(site: Site) -> None:
    """Each route that does not say it is public answers 401 without a token, and names the scheme."""
    closed = [(method, path) for method, path, public in walked(site) if not public]
    assert len(closed) >= 11
    for method, path in closed:
        answer = await site.ask(method, path)
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "ratelimit" not in answer.headers


def test_public_routes_are_few(site: Site) -> None:
    """What needs no token is probes, documents, pages and signed links, and nothing under /v1."""
    public = {path for _, path, public in walked(site) if public}
    assert public == {"/files/x", "/uploads/x", "/livez", "/readyz", "/metrics"} | {
        "/docs",
        "/docs/x",
        "/llms.txt",
        "/openapi.json",
        "/postman.json",
        "/problems/x",
    }


def test_closed_routes_name_actions(site: Site) -> None:
    """Every closed handler says what a caller must be allowed."""
    for handler in routes(site.parts, site.slots):
        assert "public" in handler.opt or "action" in handler.opt


async def test_bad_token_is_401(site: Site) -> None:
    """A token nobody signed is refused with the reason the authenticator gives."""
    answer = await site.ask("GET", "/v1/jobs", ("Authorization", "Bearer a.b.c"))
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_suspended_tenant_is_refused(site: Site) -> None:
    """A known token of a tenant without access is 403, on every route."""
    site.jobs.missing = frozenset({"acme"})
    answer = await site.get("/v1/account")
    assert (answer.status, answer.json["code"]) == (403, "tenant_suspended")


@pytest.mark.parametrize(
    ("method", "path", "scopes", "status"),
    [
        ("GET", "/v1/jobs", {"images:read"}, 200),
        ("GET", "/v1/jobs", {"images:write"}, 403),
        ("POST", "/v1/jobs/job_01JCP0E000E008000000000001/cancel", {"images:read"}, 403),
        ("DELETE", "/v1/jobs/job_01JCP0E000E008000000000001", {"images:read"}, 403),
        ("GET", "/v1/audit", {"images:read", "images:write"}, 403),
        ("GET", "/v1/jobs", None, 200),
        ("GET", "/v1/audit", None, 403),
    ],
)
async def test_scopes_and_roles_bind(
    site: Site, method: str, path: str, scopes: set[str] | None, status: int
) -> None:
    """A token that has scopes may do what they say; the trail is the admins'. A refusal has rate headers."""
    who = site.bearer(scopes=None if scopes is None else frozenset(scopes))
    answer = await site.ask(method, path, who)
    assert answer.status == status
    assert "ratelimit" in answer.headers


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("text/html, application/*;q=0.1", 200),
        ("application/json;q=oops", 200),
        ("APPLICATION/JSON", 200),
        ("text/html", 406),
        ("application/json;q=0, text/html", 406),
        ("*/*;q=0", 406),
        ("application/problem+json", 406),
    ],
)
async def test_accept_must_match_something(site: Site, accept: str, status: int) -> None:
    """An answer nobody would accept is not made; anything that fits is enough."""
    assert (await site.get("/v1/account", ("Accept", accept))).status == status


def test_most_specific_range_weighs() -> None:
    """The weight of a media type is that of the range that names it best."""
    both = ("application/json", "application/x-ndjson")
    assert chosen(b"application/*;q=0.9, application/json;q=0.1", both) == both[1]
    assert chosen(b"*/*", both) == both[0]
    assert chosen(b"application/x-ndjson;q=0.5, application/json;q=0.5", both) == both[0]


def test_reads_have_burst_and_rate() -> None:
    """Sixty reads at once, then one each fifty milliseconds; the wait told is exact."""
    limit = ReadLimit()
    for _ in range(READ_BURST):
        limit.take("acme", "ann", NOON)
    with pytest.raises(Problem) as refused:
        limit.take("acme", "ann", NOON)
    assert refused.value.retry_after_ms == READ_EVERY_MS
    assert "each server process" in refused.value.detail
    limit.take("acme", "bob", NOON)
    limit.take("other", "ann", NOON)
    with pytest.raises(Problem):
        limit.take("acme", "ann", NOON + READ_EVERY_MS - 1)
    limit.take("acme", "ann", NOON + READ_EVERY_MS)
    for _ in range(READ_BURST):
        limit.take("acme", "ann", NOON + 60_000)


def test_readers_are_bounded() -> None:
    """Readers with their whole burst are forgotten first, then the oldest: memory has a ceiling."""
    limit = ReadLimit(most=2)
    for _ in range(READ_BURST):
        limit.take("acme", "busy", NOON)
    limit.take("acme", "calm", NOON)
    limit.take("acme", "new", NOON + 1000)
    for _ in range(20):
        limit.take("acme", "busy", NOON + 1000)
    with pytest.raises(Problem):
        limit.take("acme", "busy", NOON + 1000)
    limit.take("acme", "newer", NOON + 1000)
    limit.take("acme", "newest", NOON + 1000)
    limit.take("acme", "busy", NOON + 1000)


async def test_read_limit_is_answered(site: Site) -> None:
    """The read beyond the burst is 429 with Retry-After; a write is not counted."""
    for _ in range(READ_BURST):
        assert (await site.get("/v1/models")).status == 200
    answer = await site.get("/v1/models")
    assert (answer.status, answer.json["code"]) == (429, "rate_limited")
    assert answer.json["rule"] == "limit.read"
    assert (await site.post("/v1/jobs", {"prompt": "a"})).status == 202
    site.jobs.at += 1000 * int(answer.headers["retry-after"])
    assert (await site.get("/v1/models")).status == 200


def test_litestar_is_a_router_only() -> None:
    """Of Litestar routes, handlers and errors are used; not its rate limit, caches, stores, CORS or auth."""
    allowed = {"connection", "exceptions", "handlers", "openapi", "types"}
    sources = "\n".join(path.read_text() for path in Path(gateway.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"^ *from litestar\.(\w+)", sources, re.MULTILINE)) <= allowed
    names = set(re.findall(r"^ *from litestar import (.+)$", sources, re.MULTILINE))
    assert {name for line in names for name in line.split(", ")} <= {
        "Litestar",
        "asgi",
        "delete",
        "get",
        "patch",
        "post",
        "put",
    }
