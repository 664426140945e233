"""Who is told of ended jobs: a receiver that outlives every kill, and its own book of what arrived.

It takes everything at once. What it is told twice is no mistake: a delivery is sent at least once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from policies import ids

TAKEN: Final = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


class _Told(Struct):
    id: str


class _Event(Struct):
    type: str
    data: _Told


class Arrived(Struct, frozen=True):
    """One line of the book: a delivery's id, the job it told of, and its end."""

    delivery: str
    job: str
    type: str


class Listener:
    """The receiver. What it was told is in its book before it answers."""

    def __init__(self, book: Path) -> None:
        self._book = book.open("ab", buffering=0)
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self._book.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(fields[b"content-length"]))
            event = msgspec.json.decode(body, type=_Event)
            line = Arrived(fields[b"webhook-id"].decode(), event.data.id, event.type)
            self._book.write(msgspec.json.encode(line) + b"\n")
            writer.write(TAKEN)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway died on the way
        finally:
            writer.close()


def arrivals(book: Path) -> Counter[Arrived]:
    """Return what arrived, and how often."""
    return Counter(msgspec.json.decode(line, type=Arrived) for line in book.read_bytes().splitlines())


def untold(arrived: Iterable[Arrived], ended: dict[str, str]) -> set[str]:
    """Return the jobs, by id and state, of whose end nothing arrived."""
    told = {(line.job, line.type) for line in arrived}
    return {job for job, state in ended.items() if (ids.shown(job), f"job.{state}") not in told}
