"""An ASGI server in miniature: one request in, its answer out, without a socket.

It says exactly what it is told to (doubled headers, a body in pieces, a client that leaves), which a
well-behaved HTTP client would not. `Open` reads an answer piece by piece while it is being made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Headers = Sequence[tuple[str, str]]


@dataclass
class Answered:
    """A whole answer."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """Headers by name; a doubled one is a mistake of the server."""
        found = dict(self.fields)
        assert len(found) == len(self.fields), self.fields
        return found

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Open:
    """A request under way."""

    def __init__(self, app: Any, scope: dict[str, Any], pieces: Sequence[bytes | None]) -> None:
        self.answer = Answered()
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()
        self._pieces = list(pieces)
        self.task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self.parts.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if not self._pieces:
            await self.left.wait()
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        if piece is None:
            await self.left.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.answer.status = message["status"]
            self.answer.fields = [(n.decode(), v.decode("latin-1")) for n, v in message["headers"]]
        elif message["type"] == "http.response.body":
            self.answer.body += message.get("body", b"")
            if message.get("body"):
                self.parts.put_nowait(message["body"])
        else:
            self.answer.status = message.get("code", 0)

    async def part(self) -> str | None:
        """Return the next piece of the body; None at its end."""
        part = await asyncio.wait_for(self.parts.get(), 5)
        return None if part is None else part.decode()

    async def event(self) -> tuple[str, Any] | None:
        """Return the id and data of the next event; None at the stream's end. Comments are passed over."""
        while (part := await self.part()) is not None:
            if part.startswith("event: job\n"):
                lines = dict(line.split(": ", 1) for line in part.strip().splitlines())
                return lines["id"], json.loads(lines["data"])
        return None

    async def done(self) -> Answered:
        """Return the answer once the server is done with it."""
        await asyncio.wait_for(self.task, 5)
        return self.answer


def scope_of(method: str, target: str, headers: Headers, root: str = "") -> dict[str, Any]:
    """Return the scope a server makes of a request line and headers."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.7", 50_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
