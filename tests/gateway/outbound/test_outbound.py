"""Requests that get their answer, on real sockets: once, whole, and as it came."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from gateway.outbound import Local, Outbound, look_up
from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies.egress import Allowed
from tests.fakes.calls import HOST, LOOPBACK, OK, answers, ask, entry, get, post
from tests.fakes.raw_server import RawServer, Talk, says


async def test_whole_answer_comes_back() -> None:
    """A whole answer is returned with its status, lower-case headers and bytes."""
    async with RawServer(
        says(b"HTTP/1.1 201 Fine\r\nX-Id: A\r\nX-Id: B\r\nContent-Length: 3\r\n\r\nabc")
    ) as server:
        answer = await ask(server, post(server.port))
    assert answer == WireResponse(201, {"x-id": "A, B", "content-length": "3"}, b"abc")


async def test_large_body_arrives_whole() -> None:
    """A body of several megabytes goes out in pieces and arrives byte for byte."""
    body = bytes(range(256)) * 2**14
    async with RawServer(says(OK)) as server:
        assert isinstance(await ask(server, post(server.port, body=body)), WireResponse)
        assert server.requests[0].endswith(b"\r\n\r\n" + body)


async def test_early_answer_is_whole() -> None:
    """An answer that comes before the body was read is an answer; the rest is not waited for."""

    async def early(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.write(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    async with RawServer(early) as server:
        answer = await ask(server, post(server.port, body=b"x" * 2**23))
    assert isinstance(answer, WireResponse)
    assert (answer.status, answer.body) == (401, b"no")


async def test_redirect_is_an_answer() -> None:
    """A redirect is returned as it came; no second request is made."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(says(moved), says(OK)) as server:
        answer = await ask(server, get(server.port))
        assert isinstance(answer, WireResponse)
        assert (answer.status, server.connections) == (302, 1)


async def test_compressed_answer_stays_packed() -> None:
    """An answer that is compressed in spite of `identity` is counted and returned as the wire had it."""
    packed = gzip.compress(b"a" * 100_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    async with RawServer(says(head.encode() + packed)) as server:
        answer = await ask(server, post(server.port))
        assert isinstance(answer, WireResponse)
        assert answer.body == packed
        assert b"accept-encoding: identity" in server.requests[0].lower()


async def test_cookies_are_forgotten() -> None:
    """A cookie that an upstream sets is never sent back."""
    sets = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(says(sets)) as server:
        outbound = Outbound(entry(server.port), resolve=LOOPBACK)
        for _ in range(2):
            await outbound.send(post(server.port))
        await outbound.close()
        assert len(server.requests) == 2
        assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_url_goes_out_as_spelled() -> None:
    """Path and query reach the upstream byte for byte: a foreign signature covers their spelling."""
    path = "/a%2Fb/../%7Ec?sig=a%2Bb%2f%3D&x=%41+1&empty="
    async with RawServer(says(OK)) as server:
        assert isinstance(await ask(server, post(server.port, path)), WireResponse)
        assert server.requests[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())
        assert f"\r\nHost: {HOST}:{server.port}\r\n".lower().encode() in server.requests[0].lower()


async def test_environment_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment is not used."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with RawServer(says(OK)) as server:
        assert isinstance(await ask(server, post(server.port)), WireResponse)


class TestKeepAlive:
    """Which requests share connections."""

    @staticmethod
    async def twice(talk: Talk) -> None:
        """Answer every request of a connection."""
        while True:
            await talk.request()
            await talk.write(OK)

    async def test_polls_share_a_connection(self) -> None:
        """Reads under a credential use one connection again."""
        async with RawServer(self.twice) as server:
            outbound = Outbound(entry(server.port), resolve=LOOPBACK)
            for _ in range(3):
                assert isinstance(await outbound.send(get(server.port)), WireResponse)
            await outbound.close()
            assert (server.connections, len(server.requests)) == (1, 3)

    async def test_paid_calls_share_none(self) -> None:
        """Each paid call has a fresh connection, also beside polls, so that no stale one makes it unknown."""
        async with RawServer(self.twice) as server:
            outbound = Outbound(entry(server.port), resolve=LOOPBACK)
            await outbound.send(get(server.port))
            for _ in range(2):
                assert isinstance(await outbound.send(post(server.port)), WireResponse)
            await outbound.close()
            assert (server.connections, len(server.requests)) == (3, 3)

    async def test_strangers_share_none(self) -> None:
        """A URL without a credential is resolved and judged anew for each request."""
        async with RawServer(self.twice) as server:
            allowed = Allowed(sockets=frozenset({(HOST, server.port)}))
            outbound = Outbound({}, allowed, resolve=LOOPBACK)
            for _ in range(2):
                await outbound.send(WireRequest("GET", f"http://{HOST}:{server.port}/a.png"))
            await outbound.close()
            assert (server.connections, len(server.requests)) == (2, 2)

    async def test_stale_poll_is_not_repeated(self) -> None:
        """A kept connection that dies as a poll leaves on it is a reset: asking again is the caller's."""

        async def once_then_close(talk: Talk) -> None:
            await talk.request()
            await talk.write(OK)
            await talk.request()

        async with RawServer(once_then_close) as server:
            outbound = Outbound(entry(server.port), resolve=LOOPBACK)
            assert isinstance(await outbound.send(get(server.port)), WireResponse)
            second = await outbound.send(get(server.port))
            await outbound.close()
            assert isinstance(second, WireFailure)
            assert (second.cut, server.connections, len(server.requests)) == (Cut.RESET, 1, 2)


class TestLocal:
    """Upstreams inside this process."""

    @staticmethod
    def sender(upstream: Local) -> Outbound:
        """Return a sender that knows one upstream and no name."""
        return Outbound({}, resolve=answers(), local={"sandbox.safelight.invalid": upstream})

    async def test_local_host_needs_no_socket(self) -> None:
        """A local upstream's host is answered by a call, whatever the judge thinks of its name."""

        async def upstream(request: WireRequest) -> Wire:
            return WireResponse(200, {}, request.body)

        request = WireRequest(
            "POST", "https://sandbox.safelight.invalid/v1", body=b"hi", credential="sandbox"
        )
        assert await self.sender(upstream).send(request) == WireResponse(200, {}, b"hi")

    async def test_local_call_has_a_deadline(self) -> None:
        """A local upstream that hangs is cut at the request's deadline."""

        async def upstream(_request: WireRequest) -> Wire:
            await asyncio.Event().wait()
            raise AssertionError

        request = WireRequest("POST", "https://sandbox.safelight.invalid/v1", seconds=0.02)
        assert await self.sender(upstream).send(request) == WireFailure(Cut.TIMEOUT, "local")


async def test_closed_sender_sends_nothing() -> None:
    """After `close` a request is answered as not sent, and closing again does nothing."""
    outbound = Outbound(entry(80), resolve=LOOPBACK)
    await outbound.close()
    await outbound.close()
    assert await outbound.send(post(80)) == WireFailure(Cut.UNREACHABLE, "closed")


async def test_own_name_resolves() -> None:
    """The default resolver answers with this machine's addresses, as text."""
    assert set(await look_up("localhost")) <= {"127.0.0.1", "::1"}
