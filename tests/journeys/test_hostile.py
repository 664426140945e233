"""The edge under bytes that no polite client sends: always a problem, never a 5xx, and no bug in the log.

Each attack is written to a socket as it is. Afterwards the house still serves, and told of no bug.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from gateway.settings import ProviderSettings
from tests.journeys.stage import Plot, Stage
from tests.journeys.visitor import Reply, parsed

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = b'{"prompt": "a"}'
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One house under all attacks of this file. It makes nothing, and waits for a body half a second."""
    plot = Plot(providers={"sandbox": ProviderSettings(kind="sandbox")}, concurrency=0, body_seconds=0.5)
    async with Stage(tmp_path_factory.mktemp("hostile"), plot).open() as stage:
        yield stage
    assert stage.bugs == []


@pytest_asyncio.fixture(loop_scope="module")
async def stage(house: Stage) -> AsyncIterator[Stage]:
    """The house, a minute later than for the test before. It has no job, unless the test says so."""
    house.clock.move(60_000)
    yield house
    assert house.bugs == []


def lines(stage: Stage, first: bytes, extra: bytes = b"", body: bytes = b"", tenant: str = "acme") -> bytes:
    """Return the bytes of Ann's request: its first line, her token, further header lines, the body."""
    token = f"Host: x\r\nAuthorization: Bearer {stage.token(tenant=tenant)}\r\n".encode()
    return first + b" HTTP/1.1\r\n" + token + extra + b"\r\n" + body


def post(
    stage: Stage, extra: bytes = b"", body: bytes = GOOD, *, length: bool = True, tenant: str = "acme"
) -> bytes:
    """Return the bytes of a submit."""
    fields = b"Content-Type: application/json\r\n" + (
        b"Content-Length: %d\r\n" % len(body) if length else b""
    )
    return lines(stage, b"POST /v1/jobs", fields + extra, body, tenant)


async def refused(stage: Stage, data: bytes, *expected: tuple[int, str]) -> Reply:
    """Send bytes; the answer must be one of these problems, and the house be well."""
    reply = await stage.stranger().rude(data)
    assert (reply.status, reply.code) in expected, reply
    assert reply.headers["x-request-id"] == reply.json["request_id"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert (await stage.stranger().get("/livez")).status == 200
    return reply


HEADS: Mapping[str, tuple[bytes, int]] = {
    "two hosts": (b"Host: y\r\n", 400),
    "two tokens": (b"Authorization: Bearer x\r\n", 400),
    "two types": (b"Content-Type: application/json\r\n", 400),
    "two keys": (b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", 400),
    "two lengths": (b"Content-Length: 15\r\n", 400),
    "two other lengths": (b"Content-Length: 3\r\n", 400),
    "length and chunks": (b"Transfer-Encoding: chunked\r\n", 400),
    "null": (b"X-A: a\0b\r\n", 400),
    "bell": (b"X-A: a\x07b\r\n", 400),
    "delete": (b"X-A: a\x7fb\r\n", 400),
    "folded line": (b"X-A: a\r\n b\r\n", 400),
    "bare return": (b"X-A: a\rX-B: b\r\n", 400),
    "bare line feed": (b"X-A: a\nX-B: b\r\n", 400),
    "space in a name": (b"X A: a\r\n", 400),
    "space after a name": (b"X-A : a\r\n", 400),
    "control in a name": (b"X\x01: a\r\n", 400),
    "no colon": (b"X-A\r\n", 400),
    "a hundred and one": (b"".join(b"X-%d: 1\r\n" % n for n in range(97)), 431),
    "33 kB in one": (b"X-A: " + b"a" * 33_000 + b"\r\n", 431),
    "33 kB in many": (b"".join(b"X-%d: %s\r\n" % (n, b"a" * 660) for n in range(50)), 431),
    "300 kB": (b"X-A: " + b"a" * 300_000 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", HEADS)
async def test_ambiguous_head_is_refused(stage: Stage, name: str) -> None:
    """Headers that two readers could read differently, or that are too large, admit nothing."""
    extra, status = HEADS[name]
    codes = {400: "invalid_request", 431: "headers_too_large"}
    await refused(stage, post(stage, extra), (status, codes[status]))
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []


async def test_nothing_is_smuggled(stage: Stage) -> None:
    """What stands behind an ambiguous request is never run as a second one."""
    behind = lines(stage, b"POST /v1/jobs", b"Content-Type: application/json\r\nContent-Length: 15\r\n", GOOD)
    for first in (
        post(stage, b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + behind),
        post(
            stage,
            b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
            b"0\r\n\r\n" + behind,
            length=False,
        ),
        post(stage, b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + behind, length=False),
        post(stage, b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + behind, length=False),
        post(stage, b"Transfer-Encoding: gzip\r\n", behind, length=False),
    ):
        async with await stage.stranger().dial() as line:
            line.write(first)
            said = await line.rest()
        assert said.count(b"HTTP/1.1 ") == 1
        assert (parsed(said).status, parsed(said).code) == (400, "invalid_request")
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"BREW /v1/jobs", 400),
        (b"get /v1/jobs", 400),
        (b"TRACE /v1/jobs", 501),
        (b"PROPFIND /v1/jobs", 501),
        (b"CONNECT evil.example:443", 400),
        (b"OPTIONS *", 404),
        (b"PATCH /v1/jobs", 405),
        (b"PUT /livez", 405),
        (b"GET /v1/ jobs", 400),
        (b"GET v1/jobs", 400),
        (b"GET /v1/j\xc3\xb6bs", 400),
        (b"GET /v1/jobs/%00", 404),
        (b"GET /v1/jobs/%ff%fe", 404),
        (b"GET /v1/jobs/%zz", 404),
        (b"GET /v1/jobs/%2e%2e%2f%2e%2e", 404),
        (b"GET /v1/jobs/..", 404),
        (b"GET /V1/JOBS", 404),
        (b"GET /v1/jobs;x=1", 404),
        (b"GET /v1/healthy-users", 404),
        (b"GET /livezz", 404),
        (b"GET /metrics/x", 404),
        (b"GET /docs/../v1/jobs", 404),
        (b"GET /docs/..%2f..%2fpyproject.toml", 404),
        (b"GET /problems/../v1/jobs", 404),
        (b"GET /problems/no_such_code", 404),
        (b"GET /files/../../safelight.db?exp=1795176900&sig=a", 403),
        (b"GET /files/%2e%2e/%2e%2e/etc/passwd", 403),
        (b"GET /files/", 404),
        (b"GET /v1/events?jobs=" + b"a," * 200, 400),
        (b"GET /v1/jobs?" + b"a=1&" * 300, 400),
        (b"GET /v1/jobs?%ff=%ff", 400),
        (b"GET /v1/jobs?" + b"a" * 9_000, 400),
        (b"GET /" + b"a" * 3_000, 400),
        (b"GET /" + b"a" * 70_000, 400),
        (b"GET /v1/jobs?limit=" + b"9" * 400, 400),
        (b"GET /v1/jobs?created_after=9999999-01-01T00:00:00Z", 400),
        (b"GET /v1/jobs/job_00000000000000000000000000?wait=1e9", 400),
    ],
    ids=lambda value: value.decode("latin-1")[:40] if isinstance(value, bytes) else str(value),
)  # fmt: skip
async def test_odd_targets_are_problems(stage: Stage, first: bytes, status: int) -> None:
    """A method, path or query that this API does not have is a problem of its own, with a token or not."""
    for data in (lines(stage, first), first + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        reply = await stage.stranger().rude(data)
        assert reply.code, reply
        assert reply.status == status or (reply.status == 401 and b"Bearer" not in data), reply


async def test_unreadable_bytes_are_problems(stage: Stage) -> None:
    """What is no HTTP at all is answered in HTTP, and the connection closed."""
    hello = bytes.fromhex("1603010200010001fc0303") + b"\0" * 100
    for data in (
        hello,
        b"\xff\xfe\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
    ):
        async with await stage.stranger().dial() as line:
            line.write(data)
            reply = parsed(await line.rest())
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert reply.headers["connection"] == "close"
    said = [line for line in stage.lines if line["event"] == "request"][-4:]
    assert [(line["status"], line["code"]) for line in said] == [(400, "invalid_request")] * 4


async def test_endless_head_is_cut(stage: Stage) -> None:
    """A head that does not end costs bounded memory: the connection is cut."""
    async with await stage.stranger().dial() as line:
        line.write(b"GET /livez HTTP/1.1\r\nX-A: " + b"a" * (3 * 2**20))
        assert await line.rest() == b""
    assert (await stage.stranger().get("/livez")).status == 200


async def test_upgrade_is_not_taken(stage: Stage) -> None:
    """A websocket is offered nowhere: the request is answered as if none had been asked for."""
    reply = await stage.stranger().rude(lines(stage, b"GET /v1/account", UPGRADE))
    assert (reply.status, reply.json["subject"]) == (200, "ann")
    naked = await stage.stranger().rude(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n")
    assert (naked.status, naked.code) == (401, "unauthenticated")


BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "twice a name": b'{"prompt": "a", "prompt": "b"}',
    "twice in metadata": b'{"prompt": "a", "metadata": {"k": "1", "k": "2"}}',
    "escaped twice": b'{"prompt": "a", "pr\\u006fmpt": "b"}',
    "half a pair": b'{"prompt": "\\ud800"}',
    "half a pair in a name": b'{"prompt": "a", "metadata": {"\\udfff": "1"}}',
    "not a number": b'{"prompt": "a", "count": NaN}',
    "infinity": b'{"prompt": "a", "count": -Infinity}',
    "huge integer": b'{"prompt": "a", "seed": 10000000000000000000000}',
    "huger integer": b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
    "huge exponent": b'{"prompt": "a", "count": 1e400}',
    "fraction": b'{"prompt": "a", "count": 1.5}',
    "truth": b'{"prompt": "a", "count": true}',
    "not UTF-8": b'{"prompt": "\xff"}',
    "overlong": b'{"prompt": "\xc0\xaf"}',
    "byte order mark": b'\xef\xbb\xbf{"prompt": "a"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "raw control": b'{"prompt": "a\x00b"}',
    "two values": b'{"prompt": "a"} {}',
    "comment": b'{"prompt": "a" /* b */}',
    "trailing comma": b'{"prompt": "a",}',
    "null": b"null",
    "list": b'[{"prompt": "a"}]',
    "text": b'"a"',
    "unknown field": b'{"prompt": "a", "options": {}}',
    "proto": b'{"prompt": "a", "__proto__": {"x": 1}}',
    "only spaces": b'{"prompt": "   "}',
    "only invisible": '{"prompt": "\u200b\u2060"}'.encode(),
    "too long": b'{"prompt": "' + b"a" * 33_000 + b'"}',
    "too many names": b'{"prompt": "a", "metadata": {'
    + b",".join(b'"k%d": ""' % n for n in range(99))
    + b"}}",
}


@pytest.mark.parametrize("name", BODIES)
async def test_crooked_body_is_400(stage: Stage, name: str) -> None:
    """A body that is not strictly the JSON of the schema is 400, by submit and by quote alike."""
    await refused(stage, post(stage, body=BODIES[name]), (400, "invalid_request"))
    quote = await stage.visit().ask("POST", "/v1/quote", body=BODIES[name] or b" ")
    assert (quote.status, quote.code) == (400, "invalid_request")
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json, a/b",
    ],
)
async def test_other_types_are_415(stage: Stage, kind: str) -> None:
    """A body that does not say it is JSON is not read."""
    reply = await stage.visit().ask("POST", "/v1/jobs", {"Content-Type": kind}, GOOD)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("extra", "body", "status", "code"),
    [
        (b"Content-Length: 2097152\r\n", b"", 413, "payload_too_large"),
        (b"Content-Length: 99999999999999999999999\r\n", b"", 400, "invalid_request"),
        (b"Content-Length: -1\r\n", b"", 400, "invalid_request"),
        (b"Content-Length: +15\r\n", GOOD, 400, "invalid_request"),
        (b"Content-Length: 0x0f\r\n", GOOD, 400, "invalid_request"),
        (b"Content-Length: \r\n", GOOD, 400, "invalid_request"),
        (CHUNKED, (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 17 + b"0\r\n\r\n", 413, "payload_too_large"),
        (CHUNKED, b"zz\r\n", 400, "invalid_request"),
        (CHUNKED, b"-1\r\n", 400, "invalid_request"),
        (CHUNKED, b"ffffffffffffffffff\r\n", 400, "invalid_request"),
        (CHUNKED, b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n", 400, "invalid_request"),
        (CHUNKED, b"1;" + b"a" * 100_000 + b"\r\n{\r\n0\r\n\r\n", 400, "invalid_request"),
        (CHUNKED, b"f\r\n" + GOOD[:4], 408, "request_timeout"),
        (b"Content-Length: 15\r\n", GOOD[:4], 408, "request_timeout"),
    ],
    ids=range(14),
)  # fmt: skip
async def test_crooked_length_is_refused(
    stage: Stage, extra: bytes, body: bytes, status: int, code: str
) -> None:
    """A body that is too large, too slow, or lies of its length is refused in words."""
    await refused(stage, post(stage, extra, body, length=False), (status, code))
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []


async def test_chunked_body_is_read(stage: Stage) -> None:
    """A body in honest chunks is a body; so is one that waits to be asked for."""
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
    assert (
        await stage.stranger().rude(post(stage, CHUNKED, pieces, length=False, tenant="good"))
    ).status == 202
    async with await stage.stranger().dial() as line:
        asking = b"Content-Length: 15\r\nExpect: 100-continue\r\n"
        line.write(post(stage, asking, b"", length=False, tenant="good"))
        assert (await line.head()).status == 100
        line.write(GOOD)
        assert (await line.head()).status == 202


async def test_vanished_client_is_no_bug(stage: Stage) -> None:
    """Clients that leave in the middle of a body, a wait or a stream cost nothing and are no bug."""
    ann, before = stage.visit(tenant="gone"), await told(stage, 499)
    job = await ann.job()
    leaving = [
        post(stage, b"Content-Length: 99\r\n", b"{", length=False, tenant="gone"),
        post(stage, CHUNKED, b"ff\r\n{", length=False, tenant="gone"),
        lines(stage, f"GET /v1/jobs/{job['id']}?wait=20".encode(), tenant="gone"),
        lines(stage, b"GET /v1/events", tenant="gone"),
        lines(stage, f"GET /v1/jobs/{job['id']}/events".encode(), tenant="gone"),
        b"POST /v1/jobs HTTP/1.1\r\nHost",
    ]
    for data in leaving:
        async with await ann.dial() as line:
            line.write(data)
            await stage.stranger().get("/livez")  # by now it has been read
    assert await told(stage, 499) == before + 3
    assert len((await ann.get("/v1/jobs")).json["data"]) == 1


async def told(stage: Stage, status: int) -> int:
    """Return how many requests ended with a status, once those under way have."""
    for _ in range(20):
        await stage.stranger().get("/livez")
    return len([line for line in stage.lines if line.get("status") == status])


async def test_tokens_in_urls_are_none(stage: Stage) -> None:
    """A token in a query is no token, and is written down nowhere."""
    token = stage.token()
    for query in (f"access_token={token}", f"token={token}", f"authorization=Bearer%20{token}"):
        reply = await stage.stranger().get(f"/v1/jobs?{query}")
        assert (reply.status, reply.code) == (401, "unauthenticated")
    assert token not in str(stage.lines)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "bearer",
        "Bearer a b",
        "Bearer a.b.c",
        "Bearer " + "a" * 9_000,
        "Bearer ..",
        "Bearer é.é.é",
        "Bearer null",
    ],
)
async def test_crooked_tokens_are_401(stage: Stage, value: str) -> None:
    """Whatever stands in `Authorization` and is no good token is 401, with one text for all reasons."""
    reply = await stage.stranger().ask("GET", "/v1/account", {"Authorization": value})
    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_host_chooses_no_link(stage: Stage) -> None:
    """Links are built from the configured address, whatever Host and forwarding headers say."""
    ann = stage.visit(tenant="linked")
    job = await ann.job()
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs", "/v1/none", "/openapi.json"):
        reply = await ann.ask("GET", path, headers)
        assert b"evil" not in reply.body
        assert b"gopher" not in reply.body
    absolute = await ann.ask("GET", f"http://evil.example/v1/jobs/{job['id']}")
    assert absolute.json["links"] == job["links"]
