"""Calls to a raw server by name, as a provider entry of its own would make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.outbound import Credential, Outbound, open_credential
from gateway.secrets import Secret
from gateway.wire import Wire, WireRequest
from tests.fakes.raw_server import RawServer

HOST = "upstream.example.com"
KEY = "sk-canary-0123456789"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def answers(*table: tuple[str, Sequence[str]]) -> Callable[[str], Awaitable[Sequence[str]]]:
    """Return a resolver that knows these names and no other."""
    known = dict(table)

    async def resolve(host: str) -> Sequence[str]:
        if host not in known:
            raise OSError("no such name")
        return known[host]

    return resolve


LOOPBACK = answers((HOST, ["127.0.0.1"]), ("other.example.com", ["127.0.0.1"]))


def entry(port: int, scheme: str = "http") -> dict[str, Credential]:
    """Return one entry whose base URL is the test's server."""
    base = f"{scheme}://{HOST}:{port}/v1"
    return {"main": open_credential(base, "Authorization", Secret(f"Bearer {KEY}"), ["cdn.example.com"])}


def post(port: int, path: str = "/v1/images", **rest: object) -> WireRequest:
    """Return a paid call to the test's server."""
    known: dict[str, object] = {"body": b"{}", "credential": "main", "seconds": 5.0, "max_bytes": 1000}
    return WireRequest("POST", f"http://{HOST}:{port}{path}", **{**known, **rest})  # type: ignore[arg-type]


def get(port: int, **rest: object) -> WireRequest:
    """Return a poll of the test's server."""
    return WireRequest("GET", f"http://{HOST}:{port}/v1/jobs/1", credential="main", seconds=5.0, **rest)  # type: ignore[arg-type]


async def ask(server: RawServer, request: WireRequest) -> Wire:
    """Send one request by a sender of its own."""
    outbound = Outbound(entry(server.port), resolve=LOOPBACK)
    try:
        return await outbound.send(request)
    finally:
        await outbound.close()
