"""The outermost ASGI application: refuses what no later room should have to think of, and dresses answers.

Servers let much through (two Host headers, both lengths, hundreds of kilobytes of headers), so requests
are judged here before anything parses them. Everything that is answered, errors too, leaves through
here and gets the headers that every answer carries. All exceptions end here: as a problem, or as a bug.
HEAD is GET without a body, for every route at once. One event is told of every request.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from litestar.exceptions import LitestarException

from gateway.api import problems
from gateway.api.cors import Cors, is_preflight
from gateway.api.exchange import KEY, OFFER, Exchange, Vanished, encode
from gateway.api.foreign import speaks
from gateway.api.limits import rate_fields
from gateway.errors import Fault, Problem
from gateway.ids import uuid7
from policies.model import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.api.exchange import Answer, ASGIApp, Headers, Receive, Scope, Send
    from gateway.api.express import Express
    from gateway.callers import Caller
    from gateway.dialects.speech import Speaker
    from gateway.telemetry import Telemetry
    from policies.model import Usage

MOST_HEADERS: Final = 100
MOST_HEADER_BYTES: Final = 32 * 1024
MOST_PATH: Final = 2048
MOST_QUERY: Final = 8192
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SINGLE: Final = frozenset({b"host", b"authorization", b"content-length", b"content-type", b"idempotency-key"})
LARGE: Final = {"/uploads/": 10 * 2**20, "/v1/images/edits": 64 * 2**20}
"""The most bytes of a body below each path whose bodies are larger than others: images come in them."""
LARGE_PREFIXES: Final = tuple(LARGE)
PATIENCE: Final = 6
"""How much longer than another a large body may take to arrive."""
CLOSED: Final = 499
"""What is logged as the status of a request whose client left. Nobody receives it."""

_REASONS: Final[frozenset[str]] = frozenset(Reason)
_PRINTABLE: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

_DEFAULTS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-store"),
)
STORELESS: Final = frozenset({"store_unavailable", "draining"})
"""Answers that ask the store nothing more."""
CUT: Final = (
    "The process stopped before the answer was there, and what was asked may be done. "
    "Ask another at once; a submit under the same Idempotency-Key makes one job."
)

_DEFAULT_NAMES: Final = frozenset(name for name, _ in _DEFAULTS) | {b"vary"}
_VARY: Final = (b"vary", b"Origin")


@dataclass(frozen=True)
class EdgeParts:
    """What the edge is made of. `now` is in ms, `clock` in seconds and only compared with itself."""

    public_url: Callable[[], str]
    version: str
    cors: Cors
    telemetry: Telemetry
    usage: Callable[[Caller], Awaitable[Usage]]
    now: Callable[[], int]
    clock: Callable[[], float]
    coin: Callable[[int], bytes]
    body_seconds: float
    body_cap: int = 2**20
    trusted_proxies: Sequence[str] = ()
    speakers: Sequence[Speaker] = ()


class Edge:
    """The application a server runs."""

    def __init__(self, app: ASGIApp, parts: EdgeParts, express: Express | None = None) -> None:
        self.app = app
        self._express = express
        self._parts = parts
        self._version = (b"safelight-version", parts.version.encode())
        self._proxies = [ipaddress.ip_network(text) for text in parts.trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    def unreadable(self) -> tuple[Headers, bytes]:
        """Return headers and body of the answer (400) to bytes that are no HTTP, and tell of it."""
        parts = self._parts
        request_id = uuid7(parts.now(), parts.coin(10))
        problem = Problem("invalid_request", "What was sent is not a request as RFC 9112 writes one.")
        tell = functools.partial(parts.telemetry.request, route="unmatched", method="OTHER", status=400)
        tell(seconds=0.0, request_id=request_id, code=problem.code)
        own = ((b"content-type", problems.MEDIA_TYPE), (b"x-request-id", request_id.encode()), self._version)
        return (*own, *_DEFAULTS, _VARY), encode(problems.view(problem, parts.public_url(), request_id))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = self._parts
        exchange = Exchange(scope, receive, send, self._dress, uuid7(parts.now(), parts.coin(10)))
        exchange.body_cap, exchange.body_seconds = _allowance(scope, parts.body_cap, parts.body_seconds)
        method = scope["method"]
        scope[KEY] = exchange
        began = parts.clock()
        try:
            await self._serve(exchange, method)
        except Vanished:
            exchange.status = CLOSED
        except Exception as error:  # noqa: BLE001 - the end of the line: a bug is told of and answered
            await self._fail(exchange, error)
        except asyncio.CancelledError:
            if not exchange.begun:  # a server that stops waits no longer, and would say 500
                await self._fail(exchange, Problem("draining", CUT))
            raise
        finally:
            self._tell(exchange, method, parts.clock() - began)
            for own in (KEY, OFFER):  # they know the scope: the request would wait for the garbage collector
                scope.pop(own, None)

    async def _serve(self, exchange: Exchange, method: str) -> None:
        scope = exchange.scope
        headers = scope["headers"]
        exchange.fields = fields = dict(headers)
        judge(scope, headers, fields, exchange.body_cap)
        if is_preflight(method, fields):
            await exchange.answer(204, self._parts.cors.preflight(fields[b"origin"]), b"")
            return
        if method == "HEAD":
            exchange.head = True
            exchange.scope = scope = {**scope, "method": "GET"}  # the server's own says HEAD: it counts bytes
        if self._express is None or not await self._express.serve(exchange):
            await self.app(scope, exchange.receive, exchange.send)

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        """Answer with a problem. An answer already begun is left half: the server cuts the connection."""
        while (
            exchange.begun and isinstance(error, LitestarException) and isinstance(error.__cause__, Exception)
        ):
            error = error.__cause__  # Litestar wraps what comes after an answer's begin, once a layer
        if isinstance(error, Vanished):
            exchange.status = CLOSED
            return
        problem = problems.problem_of(error)
        if problem is None:
            self._parts.telemetry.bug(error, request_id=exchange.request_id, route=route_of(exchange))
        if exchange.begun:
            exchange.code = problem.code if problem else "internal"
        else:
            told = await self._told(problem or Problem("internal"), exchange)
            await told(exchange.scope, None, None)

    async def _told(self, problem: Problem, exchange: Exchange) -> Answer:
        """Return the answer that tells of a problem: in the dialect the path belongs to, if in any."""
        path = exchange.scope["path"]
        for speaker in self._parts.speakers:
            if speaks(speaker, path):
                exchange.code, exchange.rule = problem.code, problem.rule
                return await speaker.problem(problem, exchange)
        return problems.answer(problem, self._parts.public_url(), exchange)

    async def _dress(self, exchange: Exchange, headers: Headers) -> Headers:
        """Return an answer's headers with those every answer carries."""
        names = {name for name, _ in headers}
        dressed = [*headers, (b"x-request-id", exchange.request_id.encode()), self._version]
        if names.isdisjoint(_DEFAULT_NAMES):
            dressed += (*_DEFAULTS, _VARY)
        else:
            dressed += [field for field in _DEFAULTS if field[0] not in names]
            dressed = _varied(dressed)
        origin = exchange.fields.get(b"origin")
        if origin is not None and b"access-control-allow-origin" not in names:
            dressed += self._parts.cors.fields(origin)
        if exchange.caller is not None:
            dressed += await self._standing(exchange, exchange.caller)
        return dressed

    async def _standing(self, exchange: Exchange, caller: Caller) -> Headers:
        """Return the rate headers; none where the store cannot tell them."""
        usage = exchange.usage
        if usage is None:
            if exchange.code in STORELESS:
                return ()
            try:
                usage = await self._parts.usage(caller)
            except Fault:
                return ()
        return rate_fields(usage, caller.terms, self._parts.now())

    def _tell(self, exchange: Exchange, method: str, seconds: float) -> None:
        caller = exchange.caller
        if caller is not None and exchange.code in _REASONS:
            self._parts.telemetry.denied(exchange.code)
            if exchange.code == Reason.UNPRICED:  # the operator's to mend, not the caller's
                self._parts.telemetry.alarm("unpriced", request_id=exchange.request_id)
        self._parts.telemetry.request(
            route=route_of(exchange),
            method=method,
            status=exchange.status or CLOSED,
            seconds=seconds,
            request_id=exchange.request_id,
            code=exchange.code,
            rule=exchange.rule,
            job=exchange.job,
            tenant=None if caller is None else caller.principal.tenant,
            client=self._client(exchange),
            bytes_in=exchange.body_bytes,
            bytes_out=exchange.sent_bytes,
            waited=exchange.waited or None,
            replayed=exchange.replayed or None,
            ignored=exchange.ignored,
        )

    def _client(self, exchange: Exchange) -> str | None:
        """Return the client's address: the peer's, or what trusted proxies in a row say it is."""
        peer = exchange.scope.get("client")
        address: str | None = peer[0] if peer else None
        if self._proxies and address is not None:
            hops = exchange.fields.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
            while hops and self._trusts(address):
                hop = hops.pop().strip()
                if _address(hop) is None:
                    break
                address = hop
        return address

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._proxies)


def _allowance(scope: Scope, cap: int, seconds: float) -> tuple[int, float]:
    """Return how many bytes a request's body may have, and how long it may take."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not path.startswith(LARGE_PREFIXES):
        return cap, seconds
    return next(most for prefix, most in LARGE.items() if path.startswith(prefix)), seconds * PATIENCE


def judge(scope: Scope, headers: Headers, fields: dict[bytes, bytes], body_cap: int) -> None:
    """Raise `Problem` for a request whose head could mean two things, or is too large to be meant."""
    if len(headers) > MOST_HEADERS:
        raise Problem("headers_too_large", f"A request has at most {MOST_HEADERS} headers.")
    if len(fields) != len(headers):
        _judge_doubled(headers)
    values = b"".join([value for _, value in headers])
    if len(values) + len(b"".join(fields)) > MOST_HEADER_BYTES:
        raise Problem("headers_too_large", f"A request has at most {MOST_HEADER_BYTES} bytes of headers.")
    if values.translate(None, _PRINTABLE):
        raise Problem("invalid_request", "A header holds a control character.")
    if scope["method"] not in METHODS:
        raise Problem("not_implemented")
    if len(scope["path"]) > MOST_PATH or len(scope["query_string"]) > MOST_QUERY:
        raise Problem("invalid_request", f"A path has at most {MOST_PATH} characters, a query {MOST_QUERY}.")
    if b"content-length" in fields:
        _judge_length(fields, body_cap)


def _judge_doubled(headers: Headers) -> None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in SINGLE and name in seen:
            raise Problem("invalid_request", f"The header {name.decode('latin-1')} stands twice.")
        seen.add(name)


def _judge_length(fields: dict[bytes, bytes], body_cap: int) -> None:
    length = fields[b"content-length"]
    if b"transfer-encoding" in fields:
        raise Problem("invalid_request", "Content-Length and Transfer-Encoding exclude each other.")
    if not length.isdigit():
        raise Problem("invalid_request", "Content-Length is not a number.")
    if len(length) > 16 or int(length) > body_cap:
        raise Problem("payload_too_large", f"A body here has at most {body_cap} bytes.")


def _varied(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers with one `Vary`, which names Origin and whatever else was named."""
    others = [value for name, value in headers if name == b"vary" and value.lower() != b"origin"]
    return [field for field in headers if field[0] != b"vary"] + [(b"vary", b", ".join((b"Origin", *others)))]


def route_of(exchange: Exchange) -> str:
    """Return the template of the matched route; one word for all that match none."""
    template: str = exchange.scope.get("path_template") or "unmatched"
    return template


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def reraise(_request: Any, error: Exception) -> Any:
    """Let an exception through Litestar unrendered, to the one bridge at the edge."""
    raise error
