"""The one sender: a `WireRequest` in, a `WireResponse` or a `WireFailure` out, and never an exception.

Here a credential meets a request, after the request's place was found among that credential's own; here
are the deadline around everything, the byte cap and the judge. No retries, no cookies, no proxies, no
log, and no redirects but those of `fetch`, each judged as if it were the first. The one distinction money
hangs on: UNREACHABLE says that not a byte of the request was written, everything else says the upstream
may have seen it. When in doubt it may.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urldefrag, urljoin

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import Refusal
from gateway.outbound.connector import TRIP, Resolve, Trip, open_transport
from gateway.secrets import Secret
from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies.egress import NOTHING, Allowed, Barred, Place, judge_address, judge_url, read_place

if TYPE_CHECKING:
    import ssl

    from httpx_aiohttp import AiohttpTransport

__all__ = ["Credential", "Local", "Outbound", "Resolve", "look_up", "open_credential"]

Local = Callable[[WireRequest], Awaitable[Wire]]

CONNECT_SECONDS: Final = 10.0
"""A turn in the pool, the name, TCP and TLS together; less than a call's own time, so that a request
never leaves with most of its time spent."""

JUDGE_SECONDS: Final = 3.0
"""How long a name may take to be looked up for `judge`."""
MOST_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

SHORTEST_KEY: Final = 8
"""What is shorter guards nothing, and may stand in an answer by chance."""

_OURS: Final = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "safelight"}
_FRAMING: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "cookie", "expect", "host", "keep-alive"}
    | {"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
_TROUBLE: Final = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, HttpProcessingError, OSError)


class Credential(Struct, frozen=True):
    """A provider entry's key, the header that carries it, and the places it may be sent to.

    `home` is the place of the entry's base URL: the operator wrote it, so it is called even where the
    judge would not, by requests that name this credential alone.
    """

    header: str
    value: Secret
    home: Place
    places: frozenset[Place]


def open_credential(base_url: str, header: str, value: Secret, hosts: Iterable[str] = ()) -> Credential:
    """Return the credential of an entry; `hosts` are further ones it may go to, by https at 443.

    Raises `Refusal` for a base URL or a header that cannot be used.
    """
    home = read_place(base_url)
    if isinstance(home, Barred):
        raise Refusal(f"a provider's base_url cannot be called: {home.why}")
    if not _is_sound(header, value.reveal()) or header.lower() in _FRAMING:
        raise Refusal("a provider's key cannot be sent in a header")
    others = (Place("https", host.lower(), 443) for host in hosts)
    return Credential(header.lower(), value, home, frozenset({home, *others}))


async def look_up(host: str) -> list[str]:
    """Return the addresses of a name, as this machine resolves it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for *_, address in found]


class Outbound:
    """Sends requests. One per process; `close` it when nothing more is to be sent.

    `local` holds upstreams inside this process by host name. `connections` bounds each entry's pool, and
    that of all requests without a credential.
    """

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        allowed: Allowed = NOTHING,
        *,
        resolve: Resolve = look_up,
        local: Mapping[str, Local] | None = None,
        connections: int = 100,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._credentials = dict(credentials)
        self._allowed = allowed
        self._resolve = resolve
        self._local = dict(local or {})
        self._connections = connections
        self._tls = tls
        self._transports: dict[tuple[str | None, bool], AiohttpTransport] = {}
        self._closed = False

    async def send(self, request: WireRequest) -> Wire:
        """Send one request once, and return what came of it within `request.seconds`.

        Canceling the caller closes the socket at once. A redirect or a compressed body is returned as it
        came. An answer without a length ends where its connection does.
        """
        if self._closed:
            return WireFailure(Cut.UNREACHABLE, "closed")
        place = read_place(request.url)
        if isinstance(place, Place) and place.host in self._local:
            return await self._send_local(self._local[place.host], request)
        return await self._send_out(request)

    async def judge(self, url: str) -> bool:
        """Say whether a stranger's URL may be called, by its text and by what its name means now.

        A verdict is never kept: whoever calls it is judged again as the address is dialed.
        """
        place = judge_url(url, self._allowed)
        if isinstance(place, Barred):
            return False
        try:
            async with asyncio.timeout(JUDGE_SECONDS):
                addresses = await self._resolve(place.host)
        except OSError:  # a name that is not found, and one not found in time
            return False
        verdicts = [judge_address(address, self._allowed, place) for address in addresses]
        return bool(verdicts) and not any(isinstance(verdict, Barred) for verdict in verdicts)

    async def fetch(self, request: WireRequest) -> Wire:
        """Get what a stranger's URL leads to, through at most three redirects, each judged anew.

        Nobody's credential goes along, and no upstream inside this process is met. The deadline is one for
        all hops. A fourth redirect, and one that leads nowhere, is a refusal.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + request.seconds
        for _ in range(MOST_REDIRECTS + 1):
            left = until - clock()
            if self._closed or left <= 0:
                return WireFailure(Cut.UNREACHABLE, "closed" if self._closed else "deadline")
            answer = await self._send_out(replace(request, credential=None, seconds=left))
            if isinstance(answer, WireFailure) or answer.status not in REDIRECTS:
                return answer
            onward = _onward(request.url, answer.headers.get("location", ""))
            if onward is None:
                return WireFailure(Cut.JUDGED, "redirect")
            request = replace(request, url=onward)
        return WireFailure(Cut.JUDGED, "redirects")

    async def _send_out(self, request: WireRequest) -> Wire:
        ready = self._prepare(request)
        if isinstance(ready, WireFailure):
            return ready
        trip, headers = ready
        mark = TRIP.set(trip)
        try:
            return await self._exchange(request, trip, headers)
        finally:
            TRIP.reset(mark)

    async def close(self) -> None:
        """Close every connection; what is under way ends as a cut. May be called twice."""
        self._closed = True
        while self._transports:
            _, transport = self._transports.popitem()
            await transport.aclose()

    def _prepare(self, request: WireRequest) -> tuple[Trip, dict[str, str]] | WireFailure:
        """Judge a request's text and attach its credential; the failure says that nothing was sent."""
        headers = _merge_headers(request)
        if headers is None:
            return WireFailure(Cut.JUDGED, "header")
        allow = self._allowed
        credential = None
        if request.credential is not None:
            credential = self._credentials.get(request.credential)
            if credential is None:
                return WireFailure(Cut.JUDGED, "no such credential")
            allow = allow.trusting(credential.home)
        place = judge_url(request.url, allow)
        if isinstance(place, Barred):
            return WireFailure(Cut.JUDGED, str(place.why))
        if credential is not None:
            if place not in credential.places or credential.header in headers:
                return WireFailure(Cut.JUDGED, "not the credential's place")
            headers[credential.header] = credential.value.reveal()
        return Trip(request.url, place, allow), headers

    async def _exchange(self, request: WireRequest, trip: Trip, headers: dict[str, str]) -> Wire:
        """Send and read within the deadline; whatever is not whole loses its socket."""
        whole = False
        clock = asyncio.timeout(request.seconds)
        try:
            async with clock:
                answer = await self._ask(request, trip, headers)
                whole = isinstance(answer, WireResponse)
                return answer
        except _TROUBLE as error:
            return _cut(trip, error, late=clock.expired())
        finally:
            if not whole:
                trip.abort()

    async def _ask(self, request: WireRequest, trip: Trip, headers: dict[str, str]) -> Wire:
        response = await self._transport(request).handle_async_request(
            httpx.Request(
                request.method,
                request.url,
                headers=headers,
                content=request.body,
                extensions={"timeout": {"pool": CONNECT_SECONDS}},
            )
        )
        trip.answered = True
        body: bytes | None = None
        try:
            body = await _read_body(response, request.max_bytes)
        finally:
            if body is None:
                trip.abort()  # first, or closing would wait for the peer
            await response.aclose()
        if body is None:
            return WireFailure(Cut.TOO_LARGE, status=response.status_code)
        answer = WireResponse(response.status_code, dict(response.headers), body)
        return (
            answer if request.credential is None else _masked(answer, self._credentials[request.credential])
        )

    async def _send_local(self, upstream: Local, request: WireRequest) -> Wire:
        try:
            async with asyncio.timeout(request.seconds):
                return await upstream(request)
        except TimeoutError:
            return WireFailure(Cut.TIMEOUT, "local")

    def _transport(self, request: WireRequest) -> AiohttpTransport:
        """Return the pool a request belongs to. Only reads under a credential share connections."""
        keep = request.method == "GET" and request.credential is not None
        key = (request.credential, keep)
        if key not in self._transports:
            if self._tls is None:
                self._tls = httpx.create_ssl_context(trust_env=False)
                self._tls.load_default_certs()
            self._transports[key] = open_transport(
                self._resolve, self._tls, limit=self._connections, keep=keep
            )
        return self._transports[key]


def _onward(url: str, location: str) -> str | None:
    """Return where a redirect leads; None where it leads nowhere."""
    try:
        return urldefrag(urljoin(url, location)).url if location else None
    except ValueError:
        return None


async def _read_body(response: httpx.Response, limit: int) -> bytes | None:
    """Return the body as it came over the wire; None where it is, or says it is, larger than `limit`."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        return None
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _masked(answer: WireResponse, credential: Credential) -> WireResponse:
    """Return an answer with stars for the key it was asked with: an upstream may quote it anywhere."""
    key = credential.value.reveal().rpartition(" ")[2]
    if len(key) < SHORTEST_KEY:
        return answer
    stars = "*" * len(key)
    headers = {name: value.replace(key, stars) for name, value in answer.headers.items()}
    return WireResponse(answer.status, headers, answer.body.replace(key.encode(), stars.encode()))


def _merge_headers(request: WireRequest) -> dict[str, str] | None:
    """Return a request's headers with ours; None where one would break the framing or is named twice."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        key = name.lower()
        if key in headers or key in _FRAMING or not _is_sound(name, value):
            return None
        headers[key] = value
    return {**_OURS, **headers}


def _is_sound(name: str, value: str) -> bool:
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def _cut(trip: Trip, error: BaseException, *, late: bool) -> WireFailure:
    """Say how far a request got. The detail names the kind of error, never its text."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    detail = type(root).__name__
    if not trip.departed:
        if trip.barred is not None:
            return WireFailure(Cut.JUDGED, str(trip.barred.why))
        return WireFailure(Cut.UNREACHABLE, detail)
    if late:
        return WireFailure(Cut.TIMEOUT, "deadline")
    garbled = isinstance(root, HttpProcessingError)
    return WireFailure(Cut.HALF if trip.answered or garbled else Cut.RESET, detail)
