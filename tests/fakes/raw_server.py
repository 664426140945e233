"""A server on loopback that does exactly what a test writes, byte by byte.

No HTTP library stands in between: half an answer, a reset, a drip and a hang are what they are on the
wire. Each connection meets the next act of the list, the last one again and again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl

Act = Callable[["Talk"], Awaitable[None]]


class Talk:
    """One connection, from the server's side."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Read one whole request, note it, and return its bytes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        self.server.heard.set()
        return whole

    async def write(self, data: bytes) -> None:
        """Send bytes now."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self, within: float | None = None) -> bool:
        """Wait until the client leaves; False where it stays longer than `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except OSError:
            pass
        self.server.left.set()
        return True


class RawServer:
    """The server: `requests` as they came, `connections` counted.

    `begun` is set at the first connection, `heard` at the first whole request, `left` when a client hung
    up on `Talk.gone`.
    """

    def __init__(self, *acts: Act, tls: ssl.SSLContext | None = None) -> None:
        self.acts = acts
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.begun = asyncio.Event()
        self.heard = asyncio.Event()
        self.port = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        act = self.acts[min(self.connections, len(self.acts) - 1)]
        self.connections += 1
        self.begun.set()
        try:
            await act(Talk(self, reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left first, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()


def says(data: bytes) -> Act:
    """Return an act that reads one request, answers these bytes and closes."""

    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.write(data)

    return act


def says_and_stays(data: bytes) -> Act:
    """Return an act that answers and then waits for the client to leave."""

    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.write(data)
        await talk.gone()

    return act


async def hangs(talk: Talk) -> None:
    """Read a request and wait for the caller to leave."""
    await talk.request()
    await talk.gone()


async def resets(talk: Talk) -> None:
    """Read a request and reset the connection."""
    await talk.request()
    talk.reset()
