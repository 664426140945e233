"""Requests that get no whole answer, on real sockets: how far each got is told exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.outbound import Outbound
from gateway.outbound.connector import TRIP, Trip
from gateway.wire import Cut, WireFailure, WireRequest
from tests.fakes.calls import HOST, LOOPBACK, OK, answers, ask, entry, post
from tests.fakes.raw_server import Act, RawServer, Talk, says, says_and_stays


async def reset_unread(talk: Talk) -> None:
    """Reset without having read anything."""
    talk.reset()


async def reset_after_reading(talk: Talk) -> None:
    """Read the request, then reset."""
    await talk.request()
    talk.reset()


async def reset_in_body(talk: Talk) -> None:
    """Reset once half the answer is out, and seen to be out."""
    await talk.request()
    await talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await talk.gone(within=0.1)
    talk.reset()


async def drip(talk: Talk) -> None:
    """Answer a byte at a time, so that no single read ever waits long."""
    await talk.request()
    await talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    while not await talk.gone(within=0.02):
        await talk.write(b".")


CUTS = [
    ("closed after reading", says(b""), Cut.RESET),
    ("reset after reading", reset_after_reading, Cut.RESET),
    ("reset unread", reset_unread, Cut.RESET),
    ("half a status line", says(b"HTTP/1.1 2"), Cut.RESET),
    ("informational only", says(b"HTTP/1.1 100 Continue\r\n\r\n"), Cut.RESET),
    ("half a body", says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Cut.HALF),
    (
        "half a chunked body",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        Cut.HALF,
    ),
    ("reset in the body", reset_in_body, Cut.HALF),
    ("bad chunk", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Cut.HALF),
    ("no HTTP at all", says(b"220 mail.example.com ESMTP\r\n\r\n"), Cut.HALF),
    ("two lengths", says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), Cut.HALF),
    ("header too long", says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"), Cut.HALF),
    (
        "announced too large",
        says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"),
        Cut.TOO_LARGE,
    ),
    ("streams too large", says_and_stays(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 2000), Cut.TOO_LARGE),
]


@pytest.mark.parametrize(("act", "cut"), [row[1:] for row in CUTS], ids=[row[0] for row in CUTS])
async def test_cut_says_how_far(act: Act, cut: Cut) -> None:
    """A paid call that left and got no whole answer counts as sent, once, wherever it was cut."""
    async with RawServer(act) as server:
        answer = await ask(server, post(server.port))
        assert isinstance(answer, WireFailure)
        assert (answer.cut, answer.sent, server.connections) == (cut, True, 1)


@pytest.mark.parametrize("act", [drip, says_and_stays(b""), says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Le")])
async def test_deadline_bounds_everything(act: Act) -> None:
    """A hang and a drip both end at the request's own deadline, as sent, with the socket closed."""
    async with RawServer(act) as server:
        answer = await ask(server, post(server.port, seconds=0.3))
        await asyncio.wait_for(server.left.wait(), 5)
    assert answer == WireFailure(Cut.TIMEOUT, "deadline")


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_nothing_is_asked_twice(method: str) -> None:
    """No method is sent a second time after a lost connection, whatever HTTP would permit."""
    async with RawServer(says(b""), says(OK)) as server:
        request = WireRequest(method, f"http://{HOST}:{server.port}/v1", credential="main")  # type: ignore[arg-type]
        answer = await ask(server, request)
        assert isinstance(answer, WireFailure)
        assert (answer.cut, server.connections, len(server.requests)) == (Cut.RESET, 1, 1)


async def test_refused_port_is_unreachable() -> None:
    """A refused connection says that nothing was sent."""
    async with RawServer(says(OK)) as server:
        pass
    answer = await ask(server, post(server.port))
    assert answer == WireFailure(Cut.UNREACHABLE, "ConnectionRefusedError")


async def test_unknown_name_is_unreachable() -> None:
    """A name that does not resolve, or resolves to nothing, says that nothing was sent."""
    for resolve in (answers(), answers((HOST, []))):
        outbound = Outbound(entry(80), resolve=resolve)
        answer = await outbound.send(post(80))
        assert answer == WireFailure(Cut.UNREACHABLE, "OSError")
        await outbound.close()


async def test_slow_name_is_unreachable() -> None:
    """A name server that never answers spends the deadline with nothing sent."""

    async def resolve(_host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    outbound = Outbound(entry(80), resolve=resolve)
    answer = await outbound.send(post(80, seconds=0.05))
    assert isinstance(answer, WireFailure)
    assert answer.cut is Cut.UNREACHABLE
    await outbound.close()


async def test_full_pool_is_unreachable() -> None:
    """A request that finds no free connection in time was not sent."""
    async with RawServer(says_and_stays(b"")) as server:
        outbound = Outbound(entry(server.port), resolve=LOOPBACK, connections=1)
        first = asyncio.ensure_future(outbound.send(post(server.port)))
        await server.begun.wait()
        second = await outbound.send(post(server.port, seconds=0.05))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await outbound.close()
    assert isinstance(second, WireFailure)
    assert (second.cut, server.connections) == (Cut.UNREACHABLE, 1)


async def test_deaf_peer_loses_its_socket() -> None:
    """A peer that reads nothing cannot keep a socket open with what is still to be written."""
    trips: list[Trip] = []

    async def resolve(_host: str) -> list[str]:
        trips.append(TRIP.get())
        return ["127.0.0.1"]

    async def deaf(_talk: Talk) -> None:
        await asyncio.Event().wait()

    async with RawServer(deaf) as server:
        outbound = Outbound(entry(server.port), resolve=resolve)
        answer = await outbound.send(post(server.port, body=b"x" * 2**25, seconds=0.5))
        transport = trips[0].transport
        assert transport is not None
        assert (transport.is_closing(), transport.get_write_buffer_size()) == (True, 0)
        await outbound.close()
    assert answer == WireFailure(Cut.TIMEOUT, "deadline")


async def test_canceled_wait_closes_the_socket() -> None:
    """Canceling a call that has been sent and waits for its answer closes its socket at once."""
    async with RawServer(says_and_stays(b"")) as server:
        outbound = Outbound(entry(server.port), resolve=LOOPBACK)
        call = asyncio.ensure_future(outbound.send(post(server.port)))
        await server.heard.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.left.wait(), 5)
        await outbound.close()


async def test_close_cuts_what_is_under_way() -> None:
    """A call under way when the sender is closed ends as sent, with its socket closed."""
    async with RawServer(says_and_stays(b"")) as server:
        outbound = Outbound(entry(server.port), resolve=LOOPBACK)
        call = asyncio.ensure_future(outbound.send(post(server.port)))
        await server.heard.wait()
        await outbound.close()
        answer = await call
        await asyncio.wait_for(server.left.wait(), 5)
    assert isinstance(answer, WireFailure)
    assert answer.sent
