"""Where sockets are opened: each address is judged as it is dialed, each request noted as it leaves.

aiohttp resolves, dials, pools and speaks HTTP; httpx carries it. Neither is asked what a failure means:
both would call a connection lost after the request a connect error. Here the request itself notes the
instant it leaves. A `Trip` holds that, found by a context variable, as the hooks of the connector know
only an address. A verdict is never kept: no DNS cache, and strangers get no connection twice.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from policies.egress import Allowed, Barred, Place, judge_address

if TYPE_CHECKING:
    import asyncio
    import ssl

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.connector import Connection

Resolve = Callable[[str], Awaitable[Sequence[str]]]

KEPT_SECONDS: Final = 4.0
"""How long an idle connection is kept: below the five seconds some servers keep theirs."""


class BarredError(OSError):
    """The judge said no while dialing. An OSError, so that aiohttp takes it for a failed connect."""


class Trip:
    """One request on its way: what it may meet, and how far it got.

    `departed` is set before the first byte is written, on a connection whose TLS handshake is done; until
    then the upstream cannot have seen anything of it.
    """

    __slots__ = ("allow", "answered", "barred", "departed", "place", "transport", "url")

    def __init__(self, url: str, place: Place, allow: Allowed) -> None:
        self.url = URL(url, encoded=True)
        self.place = place
        self.allow = allow
        self.barred: Barred | None = None
        self.departed = False
        self.answered = False
        self.transport: asyncio.Transport | None = None

    def judge(self, address: str) -> None:
        """Raise `BarredError` unless the address may be dialed for this request."""
        verdict = judge_address(address, self.allow, self.place)
        if isinstance(verdict, Barred):
            self.barred = verdict
            raise BarredError("barred")

    def abort(self) -> None:
        """Close the socket now, with whatever is still to be written."""
        if self.transport is not None:
            self.transport.abort()


TRIP: Final[ContextVar[Trip]] = ContextVar("trip")


class _Resolver(AbstractResolver):
    """Names to addresses; one bad answer among good ones refuses the name."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature
    ) -> list[ResolveResult]:
        trip = TRIP.get()
        addresses = list(dict.fromkeys(await self._resolve(host)))
        for address in addresses:
            trip.judge(address)
        if not addresses:
            raise OSError("no address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class _Request(aiohttp.ClientRequest):
    """A request that goes out once, to the URL that was judged, spelled as it was given.

    aiohttp would requote the URL, which breaks foreign signatures, and asks a second time for methods it
    takes for harmless; who may ask again is the caller's rule.
    """

    def __init__(self, method: str, _url: URL, *, data: bytes | None = None, **rest: Any) -> None:
        trip = TRIP.get()
        if trip.departed:
            raise aiohttp.ClientConnectionError("asked once")
        body = None if data is None else io.BytesIO(data)  # written in chunks, between other work
        super().__init__(method, trip.url, data=body, **rest)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        trip = TRIP.get()
        trip.departed = True
        trip.transport = conn.transport
        return await super().send(conn)


def _open_socket(info: AddrInfoType) -> socket.socket:
    """Return a socket for an address, judged here too: a literal meets no resolver."""
    family, kind, protocol, _, address = info
    TRIP.get().judge(str(address[0]))
    return socket.socket(family, kind, protocol)


def open_transport(resolve: Resolve, tls: ssl.SSLContext, *, limit: int, keep: bool) -> AiohttpTransport:
    """Return a transport of its own pool, at most `limit` connections wide.

    Without `keep` each request has a fresh connection: one that the server closed while it was idle fails
    after the request left, and then nobody knows whether it was seen. Needs a running loop.
    """
    kept: dict[str, Any] = {"keepalive_timeout": KEPT_SECONDS} if keep else {"force_close": True}
    connector = aiohttp.TCPConnector(
        ssl=tls,
        resolver=_Resolver(resolve),
        socket_factory=_open_socket,
        use_dns_cache=False,
        limit=limit,
        **kept,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Content-Type",),
        trust_env=False,
    )
    return AiohttpTransport(client=session, verify=tls, trust_env=False)
