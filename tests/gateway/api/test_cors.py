"""Which pages may read our answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateway.api.conftest import Site

if TYPE_CHECKING:
    from pathlib import Path

APP = "https://app.example.com"
BAD = [
    "null",
    "https://app.example.com.evil.com",
    "https://APP.example.com",
    "https://app.example.com/",
    "http://app.example.com",
    "https://app.example.com:444",
    "",
    "*",
]


async def test_exact_origin_may_read(site: Site) -> None:
    """A configured origin is named in every answer, errors too, with what its script may read."""
    for target in ("/livez", "/v1/jobs"):
        headers = (await site.ask("GET", target, ("Origin", APP))).headers
        assert headers["access-control-allow-origin"] == APP
        exposed = headers["access-control-expose-headers"].split(", ")
        assert {"Location", "RateLimit", "X-Request-Id", "ETag", "Safelight-Credits-Available"} <= set(
            exposed
        )
        assert headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", [*BAD, "http://localhost:3000"])
async def test_other_origins_get_nothing(site: Site, origin: str) -> None:
    """An origin that is not configured, letter by letter, is told nothing by any answer."""
    for method, more in (("GET", []), ("OPTIONS", [("Access-Control-Request-Method", "POST")])):
        answer = await site.ask(method, "/v1/jobs", ("Origin", origin), *more)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["vary"] == "Origin"


async def test_preflight_is_answered_here(site: Site) -> None:
    """A preflight needs no token and learns methods, headers and how long that holds."""
    answer = await site.ask("OPTIONS", "/v1/jobs", ("Origin", APP), ("Access-Control-Request-Method", "POST"))
    assert answer.status == 204
    assert answer.headers["access-control-max-age"] == "7200"
    assert "idempotency-key" in answer.headers["access-control-allow-headers"]
    assert "DELETE" in answer.headers["access-control-allow-methods"]


async def test_plain_options_names_methods(site: Site) -> None:
    """OPTIONS that is no preflight says which methods a path has."""
    answer = await site.ask("OPTIONS", "/v1/jobs")
    assert answer.status == 204
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("http://localhost:5173", True),
        ("http://127.0.0.1:80", True),
        ("http://[::1]:3000", True),
        ("https://localhost", True),
        ("http://localhost.evil.com", False),
        ("http://localhost:1.evil.com", False),
        ("http://evil.com", False),
        ("null", False),
    ],
)
async def test_dev_admits_this_machine(tmp_path: Path, origin: str, admitted: bool) -> None:  # noqa: FBT001 - a table
    """In development any port of this machine is an origin, and nothing that only looks like it."""
    answer = await Site(tmp_path, dev=True).ask("GET", "/livez", ("Origin", origin))
    assert ("access-control-allow-origin" in answer.headers) == admitted
