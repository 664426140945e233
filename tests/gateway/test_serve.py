"""Connections: what a peer may leave undone, and for how long."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.edge import Edge
from gateway.serve import bind, open_files, server_of
from tests.journeys.visitor import Line

ASKING = b"GET / HTTP/1.1\r\nHost: x\r\n"


class App:
    """Answers when it is let, with as many pieces as a test wants."""

    def __init__(self, pieces: int = 1) -> None:
        self.pieces = pieces
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Answer one request."""
        self.asked.set()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.done.set()


@asynccontextmanager
async def served(app: App) -> AsyncIterator[int]:
    """Serve an application whose server is patient for a twentieth of a second; yield its port."""
    listener = bind("127.0.0.1", 0)
    server = server_of(cast("Edge", app), 1, patience=0.05)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0)
    try:
        yield listener.getsockname()[1]
    finally:
        app.go.set()
        server.should_exit = True
        await serving


async def dial(port: int) -> Line:
    """Open a connection."""
    return Line(*await asyncio.open_connection("127.0.0.1", port, limit=1024), [])


async def cut(port: int, data: bytes = b"") -> bytes:
    """Send bytes and nothing more; return what came until the server hung up."""
    async with await dial(port) as line:
        line.write(data)
        return await line.rest()


@pytest.mark.parametrize("head", [b"", b"GET", ASKING, ASKING + b"X-A: " + b"a" * 9_000])
async def test_unfinished_heads_are_cut(head: bytes) -> None:
    """A peer that sends nothing, or no whole head, is cut without a word."""
    async with served(App()) as port:
        assert await cut(port, head) == b""


async def test_unfinished_second_head_is_cut() -> None:
    """After a whole request the next one may not be left unfinished either."""
    app = App()
    app.go.set()
    async with served(app) as port, await dial(port) as line:
        line.write(ASKING + b"\r\n")
        await app.done.wait()
        line.write(ASKING)
        assert (await line.rest()).endswith(b"0\r\n\r\n")


async def test_readers_of_nothing_are_cut() -> None:
    """An answer that nobody takes is let go of, and so is the memory that holds it."""
    app = App(pieces=400)
    app.go.set()
    async with served(app) as port, await dial(port) as line:
        line.write(ASKING + b"\r\n")
        await asyncio.wait_for(app.done.wait(), 20)


async def test_busy_and_resting_peers_stay() -> None:
    """Who waits for an answer, or rests between two requests, owes nothing and is not cut."""
    app = App()
    async with served(app) as port, await dial(port) as line:
        line.write(ASKING + b"\r\n")
        await app.asked.wait()
        assert [await cut(port), await cut(port), await cut(port)] == [b""] * 3  # three looks later
        app.go.set()
        assert (await line.head()).status == 200
        await app.done.wait()
        assert [await cut(port), await cut(port), await cut(port)] == [b""] * 3
        app.done.clear()
        line.write(ASKING + b"\r\n")
        await asyncio.wait_for(app.done.wait(), 20)


def test_server_believes_nobody() -> None:
    """No forwarding header is believed before the edge has judged it, no websocket taken, no stop endless."""
    config = server_of(cast("Edge", App()), 7).config
    assert (config.proxy_headers, config.server_header, config.access_log) == (False, False, False)
    assert (config.ws, config.lifespan, config.timeout_graceful_shutdown) == ("none", "off", 7)
    assert issubclass(cast("Any", config.http).func, HttpToolsProtocol)


def test_server_opens_all_it_may() -> None:
    """A process may have as many connections as the machine grants it, not as many as it began with."""
    began = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (began[0] - 1, began[1]))
        open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (began[1], began[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, began)
