"""An upstream that costs next to nothing: one answer of OpenAI's, made once, after a while that is set.

Run as a process: `python -m tests.bench.upstream PORT MILLISECONDS`. Any POST is answered with one small
picture, so that what is measured is the way and not the picture.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import cast

import uvloop

from tests.fakes.pictures import png

SIDE = 64
"""The picture's width and height: it is judged and copied on its way, and larger ones for longer."""


def answer() -> bytes:
    """Return the bytes of the answer."""
    picture = base64.b64encode(png(SIDE, SIDE, "bench")).decode()
    usage = {"input_tokens": 9, "output_tokens": 196, "total_tokens": 205}
    body = json.dumps({"created": 1_795_000_000, "data": [{"b64_json": picture}], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """One connection. A request is over when its body, of the announced length, has arrived."""

    def __init__(self, said: bytes, seconds: float) -> None:
        self._said = said
        self._seconds = seconds
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer whole requests."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length: ", 0, head)
        length = int(self._buffer[at + 16 : self._buffer.index(b"\r", at)]) if at >= 0 else 0
        if len(self._buffer) < head + 4 + length:
            return
        self._buffer = b""
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._send)
        else:
            self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(self._said)


async def main(port: int, seconds: float) -> None:
    """Serve until killed."""
    said = answer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(said, seconds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]) / 1000))
