"""A TCP proxy in front of a store that loses replies: what was asked is done, and nobody is told.

`cut` says of what is sent whether its reply is lost; the connection is closed in its stead. The rest goes
through unchanged. `free` keeps, while it is clear, all that is sent from arriving; `sever` cuts all there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

CHUNK = 1 << 20


class Cut:
    """The proxy. `port` is its own; `lost` counts replies that were cut; `held`: something waits."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.lost = 0
        self.cut: Callable[[bytes], bool] = lambda _sent: False
        self.held = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ways: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address of what is behind it, through it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def turn(self, to: int) -> None:
        """Lead to another port from now on; all connections are cut."""
        self.lead(to)
        self.sever()

    def lead(self, to: int) -> None:
        """Lead new connections to another port."""
        self._to = to

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sever(self) -> None:
        """Cut all connections there are, whatever is on its way."""
        for way in self._ways:
            way.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:  # there is nobody behind it now
            writer.close()
            return
        doomed = asyncio.Event()
        ways = [
            asyncio.create_task(self._forth(reader, back, doomed)),
            asyncio.create_task(self._back(there, writer, doomed)),
        ]
        self._ways.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._ways.difference_update(ways)
            for end in (writer, back):
                end.close()

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while sent := await reader.read(CHUNK):
            if not self.free.is_set():
                self.held.set()
            await self.free.wait()
            if self.cut(sent):
                doomed.set()
            writer.write(sent)
            await writer.drain()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while told := await reader.read(CHUNK):
            if doomed.is_set():
                self.lost += 1
                return
            writer.write(told)
            await writer.drain()
