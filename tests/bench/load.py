"""A closed loop of connections, as cheap as Python can be: prepared bytes out, one length in.

Run as a process on a core of its own; prints one JSON line. Not a general client: it believes that the
server answers with `Content-Length`, which is what is measured here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is whole."""

    def __init__(self, following: Callable[[], bytes], until: float, took: list[float]) -> None:
        self._following = following
        self._until = until
        self._took = took
        self._buffer = b""
        self._sent = 0.0
        self.bad = 0
        self.last = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Take bytes until an answer is whole."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length: ", 0, head)
        length = int(self._buffer[at + 16 : self._buffer.index(b"\r", at)])
        if len(self._buffer) < head + 4 + length:
            return
        now = time.perf_counter()
        self._took.append(now - self._sent)
        if self._buffer[9:10] != b"2":
            self.bad += 1
        self.last, self._buffer = self._buffer, b""
        if now < self._until:
            self._next()
        else:
            self._finish()

    def connection_lost(self, _error: Exception | None) -> None:
        """End early, and say so."""
        if not self.done.done():
            self.bad += 1
            self.done.set_result(None)

    def _next(self) -> None:
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(self._following())

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def load(
    port: int, requests: Iterator[bytes], connections: int, seconds: float
) -> dict[str, float | str]:
    """Run one closed loop; return its rate and latencies (milliseconds)."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    began = time.perf_counter()
    made = [
        (
            await loop.create_connection(
                lambda: Connection(requests.__next__, began + seconds, took), "127.0.0.1", port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(each.done for each in made))
    elapsed = time.perf_counter() - began
    took.sort()
    return {
        "done": len(took),
        "rate": len(took) / elapsed,
        "p50": took[len(took) // 2] * 1000,
        "p99": took[int(len(took) * 0.99)] * 1000,
        "bad": sum(each.bad for each in made),
        "answer": made[0].last.decode("latin-1"),
    }


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def main() -> None:
    """Read what to do from standard input; print what came of it."""
    order = json.loads(sys.stdin.read())
    made = [
        request(o["method"], o["path"], o["token"], o.get("body", "").encode()) for o in order["requests"]
    ]
    found = uvloop.run(load(order["port"], itertools.cycle(made), order["connections"], order["seconds"]))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
