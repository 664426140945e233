"""A proxy of raw bytes in front of a server: it keeps what went through it, and is as bad a way as asked.

It knows nothing of HTTP but what is needed to see a request begin: connections may be cut, requests that
hold certain bytes may be refused or met with silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Manner = Literal["refuse", "silence"]

_REQUEST = re.compile(rb"((?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /[^ \r\n]*) HTTP/1\.1\r\n")

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops"


class Wiretap:
    """One way to a server on this machine. `log` holds (whether the server said it, bytes), in order."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.log: list[tuple[bool, bytes]] = []
        self.barred: tuple[bytes, Manner] | None = None
        """Bytes of a request, and what becomes of one that holds them."""
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def asked(self) -> list[bytes]:
        """The request lines that went through, without their `HTTP/1.1`."""
        sent = b"".join(data if not served else b"" for served, data in self.log)
        return _REQUEST.findall(sent)  # a body may end where the next request begins

    @property
    def everything(self) -> bytes:
        """All bytes of both ways."""
        return b"".join(data for _, data in self.log)

    def served_before(self, mark: bytes) -> int:
        """Return how many bytes the server had said when a request with these bytes came."""
        total = 0
        for served, data in self.log:
            if not served and mark in data:
                return total
            total += len(data) if served else 0
        raise AssertionError(mark)

    def cut(self) -> None:
        """End every open connection, at once and in mid-word."""
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        ends = (writer, back)
        self._open.update(ends)
        try:
            tasks = (
                asyncio.ensure_future(self._up(reader, writer, back)),
                asyncio.ensure_future(self._down(there, writer)),
            )
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _up(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.log.append((False, data))
                if self.barred is not None and self.barred[0] in data:
                    if self.barred[1] == "refuse":
                        client.write(BAD_GATEWAY)
                        client.close()
                        await client.wait_closed()
                        return
                    continue
                server.write(data)
                await server.drain()

    async def _down(self, there: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await there.read(65_536):
                self.log.append((True, data))
                client.write(data)
                await client.drain()


@asynccontextmanager
async def tapped(port: int) -> AsyncIterator[Wiretap]:
    """Open a way to a server's port; it ends with the block."""
    tap = Wiretap(port)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        server.close()
        tap.cut()
