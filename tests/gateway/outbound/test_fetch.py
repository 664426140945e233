"""Strangers' URLs: judged before they are kept, fetched through few redirects, with nobody's credential."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.outbound import Outbound
from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies.egress import Allowed
from tests.fakes.calls import HOST, KEY, LOOPBACK, OK, answers, entry
from tests.fakes.raw_server import Act, RawServer, Talk, says

PUBLIC = "93.184.215.14"
FAR = answers(
    ("good.example.com", [PUBLIC]),
    ("split.example.com", [PUBLIC, "10.0.0.1"]),
    ("empty.example.com", []),
    ("private.example.com", ["192.168.1.1"]),
)


def moved(location: str, status: int = 302) -> Act:
    """Return an act that redirects."""
    return says(f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


@asynccontextmanager
async def fetching(server: RawServer, *hosts: str) -> AsyncIterator[Outbound]:
    """Open a sender that may call these hosts at the server's port."""
    allowed = Allowed(sockets=frozenset((host, server.port) for host in hosts or (HOST,)))
    outbound = Outbound(entry(server.port), allowed, resolve=LOOPBACK)
    try:
        yield outbound
    finally:
        await outbound.close()


async def fetched(outbound: Outbound, port: int, host: str = HOST, seconds: float = 5.0) -> Wire:
    """Fetch the server's picture."""
    request = WireRequest("GET", f"http://{host}:{port}/a.png", seconds=seconds, max_bytes=1000)
    return await outbound.fetch(request)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://good.example.com/a.png", True),
        ("https://split.example.com/a.png", False),
        ("https://empty.example.com/a.png", False),
        ("https://private.example.com/a.png", False),
        ("https://unknown.example.com/a.png", False),
        ("http://good.example.com/a.png", False),
        ("https://127.0.0.1/a.png", False),
        ("https://localhost/a.png", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
async def test_judge_asks_text_and_name(url: str, good: bool) -> None:  # noqa: FBT001 - a table's column
    """A URL is good where its text is, its name is found, and every address it means may be called."""
    outbound = Outbound({}, resolve=FAR)
    assert await outbound.judge(url) is good
    await outbound.close()


async def test_slow_name_is_refused() -> None:
    """A name that is not found in time is refused as an unknown one is."""

    async def stuck(_host: str) -> Sequence[str]:
        raise TimeoutError

    outbound = Outbound({}, resolve=stuck)
    assert not await outbound.judge("https://good.example.com/")
    await outbound.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_three_redirects_are_followed(status: int) -> None:
    """Three redirects lead to what they lead to, by relative and absolute addresses."""
    async with RawServer() as server:
        server.acts = (
            moved("/b.png?x=1#part", status),
            moved(f"http://{HOST}:{server.port}/c.png", status),
            moved("d.png", status),
            says(OK),
        )
        async with fetching(server) as outbound:
            answer = await fetched(outbound, server.port)
        assert isinstance(answer, WireResponse)
        assert (answer.status, answer.body) == (200, b"ok")
        lines = [request.split(b" HTTP/", 1)[0] for request in server.requests]
        assert lines == [b"GET /a.png", b"GET /b.png?x=1", b"GET /c.png", b"GET /d.png"]


async def test_fourth_redirect_is_refused() -> None:
    """A fourth redirect is not followed."""
    async with RawServer(moved("/again")) as server, fetching(server) as outbound:
        assert await fetched(outbound, server.port) == WireFailure(Cut.JUDGED, "redirects")
        assert server.connections == 4


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://127.0.0.1:9/",
        "https://localhost/",
        "file:///etc/passwd",
        "gopher://x.example.com/",
        "//[bad",
    ],
)
async def test_redirect_inward_is_refused(location: str) -> None:
    """Wherever a redirect leads, it is judged as if it had been asked for; nothing is dialed for it."""
    async with RawServer(moved(location)) as server, fetching(server) as outbound:
        answer = await fetched(outbound, server.port)
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.JUDGED
        assert server.connections == 1


async def test_no_credential_goes_along() -> None:
    """A fetch from a provider's own place is a stranger's all the same: no key, and judged as one."""
    async with RawServer(says(OK)) as server:
        async with fetching(server) as outbound:
            asked = WireRequest("GET", f"http://{HOST}:{server.port}/", credential="main", seconds=5.0)
            assert isinstance(await outbound.fetch(asked), WireResponse)
        assert KEY.encode() not in server.requests[0]
        async with fetching(server, "other.example.com") as outbound:
            assert await outbound.fetch(asked) == WireFailure(Cut.JUDGED, "scheme")
        assert server.connections == 1


async def test_inner_upstream_is_not_met() -> None:
    """What answers inside this process is no stranger's to reach, by a URL or by a redirect."""

    async def inner(_request: WireRequest) -> Wire:
        raise AssertionError("met")

    async with RawServer(moved("https://inner.invalid/")) as server:
        allowed = Allowed(sockets=frozenset({(HOST, server.port)}))
        outbound = Outbound({}, allowed, resolve=LOOPBACK, local={"inner.invalid": inner})
        for url in ("https://inner.invalid/", f"http://{HOST}:{server.port}/"):
            answer = await outbound.fetch(WireRequest("GET", url, seconds=5.0))
            assert answer == WireFailure(Cut.JUDGED, "special")
        await outbound.close()


async def test_deadline_spans_all_hops() -> None:
    """Redirects do not buy time: the second hop has what the first left."""

    async def hang(talk: Talk) -> None:
        await talk.request()
        await asyncio.Event().wait()

    async with RawServer(moved("/b"), hang) as server, fetching(server) as outbound:
        answer = await fetched(outbound, server.port, seconds=0.3)
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.TIMEOUT
        assert await fetched(outbound, server.port, seconds=0) == WireFailure(Cut.UNREACHABLE, "deadline")


async def test_fetch_after_close_fails() -> None:
    """A sender that is closed fetches nothing."""
    outbound = Outbound({}, resolve=FAR)
    await outbound.close()
    answer = await outbound.fetch(WireRequest("GET", "https://good.example.com/"))
    assert answer == WireFailure(Cut.UNREACHABLE, "closed")
