"""The edge: what is refused before anything parses it, and what every answer carries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.api.edge import MOST_PATH
from gateway.api.exchange import KEY, OFFER
from gateway.errors import CATALOGUE, Problem, StoreClosed, StoreUnavailable
from gateway.ids import uuid7
from tests.contracts.rig import rounds
from tests.fakes.asgi import Open, scope_of
from tests.fakes.jobs import NOON
from tests.gateway.api.conftest import Site

if TYPE_CHECKING:
    from pathlib import Path

JSON = ("Content-Type", "application/json")
BODY = b'{"prompt":"a"}'
ALWAYS = {
    "safelight-version": "1.2.3",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "private, no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "vary": "Origin",
}


async def test_answered_request_leaves_nothing(site: Site) -> None:
    """A request that is over knows nothing that knows it, so that it dies without the garbage collector."""
    scope: dict[str, Any] = {**scope_of("GET", "/livez", ()), OFFER: None}
    assert (await Open(site.app, scope, (b"",)).done()).status == 200
    assert not {KEY, OFFER} & scope.keys()


@pytest.mark.parametrize(
    "name", ["Host", "Authorization", "Content-Length", "Content-Type", "Idempotency-Key"]
)
async def test_doubled_header_is_refused(site: Site, name: str) -> None:
    """A header that two readers could read differently may stand once only."""
    answer = await site.ask("POST", "/v1/jobs", (name, "1"), (name, "1"))
    assert answer.status == 400
    assert answer.json["code"] == "invalid_request"
    assert name.lower() in answer.json["detail"]


async def test_other_headers_may_repeat(site: Site) -> None:
    """A list header may be sent in parts."""
    answer = await site.ask("GET", "/livez", ("Accept", "text/html"), ("Accept", "*/*"))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([("Content-Length", "1"), ("Transfer-Encoding", "chunked")], 400, "invalid_request"),
        ([("Content-Length", "1,1")], 400, "invalid_request"),
        ([("Content-Length", "-1")], 400, "invalid_request"),
        ([("Content-Length", "")], 400, "invalid_request"),
        ([("Content-Length", "9" * 5000)], 413, "payload_too_large"),
        ([("Content-Length", str(2**20 + 1))], 413, "payload_too_large"),
        ([("X-Any", "a\x00b")], 400, "invalid_request"),
        ([("X-Any", "a\x7fb")], 400, "invalid_request"),
        ([("X-Any", "a\x1bb")], 400, "invalid_request"),
        ([(f"X-{n}", "1") for n in range(101)], 431, "headers_too_large"),
        ([(f"X-{n}", "v" * 4000) for n in range(9)], 431, "headers_too_large"),
        ([("X-" + "n" * 33_000, "1")], 431, "headers_too_large"),
    ],
)
async def test_bad_head_is_refused(
    site: Site, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    """A head that is ambiguous, unprintable or oversized is answered before any route is asked."""
    answer = await site.ask("POST", "/v1/jobs", *headers)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert site.told[-1]["route"] == "unmatched"


async def test_printable_head_passes(site: Site) -> None:
    """A hundred headers, tabs and old Latin-1 text are no reason to refuse."""
    headers = [(f"X-{n}", "a\té") for n in range(100)]
    assert (await site.ask("GET", "/livez", *headers)).status == 200


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "M" * 500])
async def test_unknown_method_is_501(site: Site, method: str) -> None:
    """A method this server does not speak is told from one this path lacks."""
    assert (await site.ask(method, "/v1/jobs")).status == 501


@pytest.mark.parametrize("target", ["/" + "p" * MOST_PATH, "/livez?" + "q" * 8193])
async def test_overlong_target_is_refused(site: Site, target: str) -> None:
    """A path or query nobody would write is not looked up."""
    assert (await site.ask("GET", target)).status == 400


async def test_websocket_is_closed(site: Site) -> None:
    """There are no websockets here: one is closed before it opens."""
    scope = {**scope_of("GET", "/v1/events", ()), "type": "websocket"}
    opened = Open(site.app, scope, ())
    assert (await opened.done()).status == 1008


async def test_body_is_counted_not_believed(site: Site) -> None:
    """A body without a length is cut off where the cap is passed."""
    piece = b" " * 700_000
    answer = await site.open("POST", "/v1/jobs", [site.bearer(), JSON], [piece, piece]).done()
    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("target", "most"),
    [
        ("/v1/jobs", 2**20),
        ("/v1/uploads", 2**20),
        ("/uploads", 2**20),
        ("/v1/images/generations", 2**20),
        ("/uploads/x", 10 * 2**20),
        ("/v1/images/edits", 64 * 2**20),
    ],
)
async def test_images_may_be_large(site: Site, target: str, most: int) -> None:
    """A body has at most a mebibyte, but where images come in it: there is a table of those places."""
    for size, refused in ((most, False), (most + 1, True)):
        answer = await site.ask("POST", target, ("Content-Length", str(size)))
        assert (answer.status == 413) is refused, size


async def test_body_may_come_in_pieces(site: Site) -> None:
    """A body is what its pieces are together."""
    answer = await site.open("POST", "/v1/jobs", [site.bearer(), JSON], [BODY[:5], BODY[5:]]).done()
    assert answer.status == 202


async def test_slow_body_times_out(tmp_path: Path) -> None:
    """A body that does not arrive in time is a 408, and its connection is free again."""
    site = Site(tmp_path, body_seconds=0.01)
    answer = await site.open("POST", "/v1/jobs", [site.bearer(), JSON], [BODY[:5], None]).done()
    assert (answer.status, answer.json["code"]) == (408, "request_timeout")


async def test_client_that_leaves_is_counted(site: Site) -> None:
    """A client that goes away in the middle of its body gets no answer and is no bug."""
    opened = site.open("POST", "/v1/jobs", [site.bearer(), JSON], [BODY[:5], None])
    opened.left.set()
    assert (await opened.done()).status == 0
    assert [line["event"] for line in site.told] == ["request"]
    assert site.told[-1]["status"] == 499


@pytest.mark.parametrize("target", ["/livez", "/v1/jobs", "/nowhere", "/v1/jobs/job_x"])
async def test_every_answer_is_dressed(site: Site, target: str) -> None:
    """Errors, too, carry the security headers, the version and a request id of our own."""
    answer = await site.ask("GET", target, ("X-Request-Id", "mine"))
    assert ALWAYS.items() <= answer.headers.items()
    assert answer.headers["x-request-id"] != "mine"
    assert site.told[-1]["request_id"] == answer.headers["x-request-id"]


async def test_page_keeps_its_own_policy(site: Site) -> None:
    """What a handler says of itself is not overwritten, and never doubled."""
    answer = await site.ask("GET", "/docs")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_vary_is_merged(tmp_path: Path) -> None:
    """Another reason to vary stands beside Origin, in one header."""

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": b"page"})

    answer = await Site(tmp_path, extra={"/": page}).ask("GET", "/")
    assert answer.headers["vary"] == "Origin, Accept"
    assert answer.body == b"page"


async def test_head_is_get_without_body(site: Site) -> None:
    """HEAD answers with the headers of GET, its length too, and no byte of a body."""
    head, get = await site.ask("HEAD", "/livez"), await site.ask("GET", "/livez")
    assert head.body == b""
    assert head.headers["content-length"] == get.headers["content-length"]
    assert site.told[0]["method"] == "HEAD"


async def test_missing_method_names_others(site: Site) -> None:
    """A 405 says which methods the path has."""
    answer = await site.ask("PUT", "/v1/jobs")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_bug_tells_nothing(site: Site) -> None:
    """What nobody expected is a 500 with the request id; its message stays inside, its place is logged."""
    site.jobs.raising = RecursionError("a secret thing")
    answer = await site.post("/v1/jobs", {"prompt": "a"})
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    bug = next(line for line in site.told if line["event"] == "bug")
    assert bug["request_id"] == answer.json["request_id"]
    assert "RecursionError" in bug["error"]


async def test_cut_request_is_answered(site: Site) -> None:
    """A request that a stopping server waits for no longer is told so, in a problem and not a bare 500."""
    opened = Open(site.app, scope_of("POST", "/v1/jobs", (JSON, site.bearer())), ())
    await rounds()
    opened.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opened.task
    answer = opened.answer
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "draining", "1")
    assert "Idempotency-Key" in answer.json["detail"]


async def test_fault_is_503_with_wait(site: Site) -> None:
    """A store that does not answer is the caller's to try again, and no bug."""
    site.jobs.raising = StoreUnavailable("down")
    answer = await site.post("/v1/jobs", {"prompt": "a"})
    assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert [line["event"] for line in site.told] == ["request"]


async def test_closed_tenant_is_503_for_longer(site: Site) -> None:
    """A tenant that waits for its operator is told of as a store that is away, but to wait longer."""
    site.jobs.raising = StoreClosed("closed")
    answer = await site.post("/v1/jobs", {"prompt": "a"})
    assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "30"


@pytest.mark.parametrize("code", sorted(CATALOGUE))
async def test_every_code_is_rendered(site: Site, code: str) -> None:
    """A problem says its type, title, status and whether a repeat may help, as the catalogue has them."""
    site.jobs.raising = Problem(code, rule="r.1")
    answer = await site.post("/v1/jobs", {"prompt": "a"})
    row = CATALOGUE[code]
    assert answer.status == row.status == answer.json["status"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == f"https://images.example.com/problems/{code}"
    assert answer.json["title"] == row.title
    assert answer.json["retryable"] == row.retryable
    assert answer.json["rule"] == "r.1" == site.told[-1]["rule"]
    assert answer.json["code"] == code == site.told[-1]["code"]
    assert ("www-authenticate" in answer.headers) == (code == "unauthenticated")


@pytest.mark.parametrize(("millis", "seconds"), [(1, "1"), (1000, "1"), (1001, "2"), (0, "0")])
async def test_retry_after_is_rounded_up(site: Site, millis: int, seconds: str) -> None:
    """Who waits the whole seconds of Retry-After has waited long enough."""
    site.jobs.raising = Problem("rate_limited", retry_after_ms=millis)
    answer = await site.post("/v1/jobs", {"prompt": "a"})
    assert answer.headers["retry-after"] == seconds == str(answer.json["retry_after"])


@pytest.mark.parametrize(
    ("proxies", "forwarded", "client"),
    [
        ([], "203.0.113.9", "192.0.2.7"),
        (["192.0.2.0/24"], "203.0.113.9", "203.0.113.9"),
        (["192.0.2.0/24"], "10.0.0.1, 203.0.113.9", "203.0.113.9"),
        (["192.0.2.0/24", "203.0.113.0/24"], "10.0.0.1, 203.0.113.9", "10.0.0.1"),
        (["192.0.2.0/24"], "not an address", "192.0.2.7"),
        (["192.0.2.0/24"], "", "192.0.2.7"),
        (["198.51.100.0/24"], "203.0.113.9", "192.0.2.7"),
    ],
)
async def test_forwarded_address_needs_trust(
    tmp_path: Path, proxies: list[str], forwarded: str, client: str
) -> None:
    """The log names the peer, unless trusted proxies in a row name another."""
    site = Site(tmp_path, trusted_proxies=proxies)
    await site.ask("GET", "/livez", ("X-Forwarded-For", forwarded))
    assert site.told[-1]["client"] == client


def test_request_id_is_uuid7() -> None:
    """A request id begins with its instant, and says of itself that it is a version 7 UUID."""
    assert uuid7(NOON, b"\xff" * 10) == "01a1f8d3-ea00-7fff-bfff-ffffffffffff"
    assert uuid7(NOON, bytes(10)) == "01a1f8d3-ea00-7000-8000-000000000000"
