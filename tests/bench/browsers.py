"""Clients that wait, each on a connection of its own: event streams and long polls.

Run as a process; reads its order from standard input, prints a line once all wait, and a line once all were
told: at which instant each saw the end of its job.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import Final, Literal, cast

import msgspec
import uvloop

from tests.bench.ender import tell
from tests.bench.load import request

AT_ONCE: Final = 64
"""Clients that arrive at the same time."""
POLL_SECONDS: Final = 0.1
ASKED: Final = 2
"""How often it is asked for the polls so far."""
ENDED: Final = b'"ended":true'
OPEN: Final = b"event: job"


class Waiting(msgspec.Struct, frozen=True):
    """A client: where it asks, as whom, for which job, and how it waits."""

    port: int
    token: str
    job: str
    way: Literal["stream", "poll"]


class Told(msgspec.Struct, frozen=True):
    """When each client saw the end of its job, and how many polls all took together."""

    at: dict[str, float]
    polls: int


class Client(asyncio.Protocol):
    """Waits until its job has ended, asking again where it waits by polls."""

    polls = 0

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self.opened = asyncio.get_running_loop().create_future()
        self.told: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        waiting = self._waiting
        path = f"/v1/jobs/{waiting.job}" + ("/events" if waiting.way == "stream" else "?wait=25")
        self._transport.write(request("GET", path, waiting.token))
        if waiting.way == "poll":
            Client.polls += 1
            self._is_open()

    def _is_open(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Look for the end."""
        self._seen += data
        if ENDED in self._seen:
            if not self.told.done():
                self.told.set_result(time.monotonic())
            assert self._transport is not None
            self._transport.close()
        elif self._waiting.way == "stream":
            if OPEN in self._seen:
                self._is_open()
                self._seen = self._seen[-len(ENDED) :]
        elif self._seen.endswith(b"}"):
            if self._seen[9:12] != b"200":
                self.told.set_exception(ConnectionError(repr(self._seen[-300:])))
            self._seen = b""
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """Where the end was not seen, say so."""
        for future in (self.opened, self.told):
            if not future.done():
                future.set_exception(ConnectionError(f"{error}, {self._seen[:300]!r}"))


async def arrive(waiting: Waiting, room: asyncio.Semaphore) -> Client:
    """Connect and ask."""
    async with room:
        loop, client = asyncio.get_running_loop(), Client(waiting)
        await loop.create_connection(lambda: client, "127.0.0.1", waiting.port)
        await client.opened
        if waiting.way == "poll":  # nobody says when a poll has begun
            await asyncio.sleep(POLL_SECONDS)
        return client


async def main() -> None:
    """Arrive; tell of the polls so far for each line that comes; then tell who was told when."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order = msgspec.json.decode(sys.stdin.readline(), type=list[Waiting])
    room = asyncio.Semaphore(AT_ONCE)
    clients = await asyncio.gather(*(arrive(waiting, room) for waiting in order))
    tell("all wait")
    for _ in range(ASKED):
        await asyncio.to_thread(sys.stdin.readline)
        tell(Client.polls)
    told = await asyncio.gather(*(client.told for client in clients))
    tell(Told({waiting.job: at for waiting, at in zip(order, told, strict=True)}, Client.polls))


if __name__ == "__main__":
    uvloop.run(main())
