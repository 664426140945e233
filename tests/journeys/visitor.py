"""A client over real sockets: polite requests, event streams, and bytes as rude as a test wants.

Each request opens a connection of its own and reads to its end, so nothing of one is seen by another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from msgspec import Struct

PATIENCE = 20.0
"""Seconds a test waits for what should come at once."""


class Reply(Struct, frozen=True):
    """A whole answer. Header names are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; the empty text for an answer that is none."""
        problem = self.headers.get("content-type") == "application/problem+json"
        return str(self.json["code"]) if problem else ""


class Event(Struct, frozen=True):
    """One server-sent event."""

    id: int
    job: dict[str, Any]


class Line:
    """An open connection: what is written is sent as it is, what comes is kept on the tape."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tape: list[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._tape = tape

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    def hang_up(self) -> None:
        """Close the connection, whatever is under way."""
        self._writer.transport.abort()

    async def rest(self) -> bytes:
        """Return whatever comes until the server hangs up; a reset ends it too."""
        parts = []
        async with asyncio.timeout(PATIENCE):
            try:
                while part := await self._reader.read(65_536):
                    self._tape.append(part)
                    parts.append(part)
            except ConnectionError:
                pass
        return b"".join(parts)

    async def head(self) -> Reply:
        """Return status and headers of an answer."""
        async with asyncio.timeout(PATIENCE):
            text = await self._reader.readuntil(b"\r\n\r\n")
        self._tape.append(text)
        return parsed_head(text)

    async def whole(self, *, bodiless: bool = False) -> Reply:
        """Return one answer with its body."""
        reply = await self.head()
        length = reply.headers.get("content-length")
        if bodiless or reply.status in (204, 304):
            return reply
        async with asyncio.timeout(PATIENCE):
            if length is not None:
                body = await self._reader.readexactly(int(length))
            else:
                parts = []
                while chunk := await self.chunk():
                    parts.append(chunk)
                body = b"".join(parts)
        self._tape.append(body)
        return Reply(reply.status, reply.headers, body)

    async def chunk(self) -> bytes:
        """Return the next piece of a chunked body; empty at its end."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self._reader.readline(), 16)
            piece = (await self._reader.readexactly(size + 2))[:-2]
        self._tape.append(piece)
        return piece

    async def event(self) -> Event | None:
        """Return the next job event; None at the stream's end. Comments are passed over."""
        while part := await self.chunk():
            fields = dict(line.split(": ", 1) for line in part.decode().splitlines() if ": " in line)
            if fields.get("event") == "job":
                return Event(int(fields["id"]), json.loads(fields["data"]))
        return None


def parsed_head(text: bytes) -> Reply:
    """Return status and headers; a doubled header is a mistake of the server."""
    first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
    fields = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in fields}
    assert len(headers) == len(fields), fields
    return Reply(int(first.split(" ")[1]), headers)


def parsed(text: bytes) -> Reply:
    """Return an answer that was read to the connection's end."""
    head, _, body = text.partition(b"\r\n\r\n")
    reply = parsed_head(head)
    return Reply(reply.status, reply.headers, body)


class Visitor:
    """A caller: an address, a token, and what it is told."""

    def __init__(self, url: str, tape: list[bytes], token: str | None = None) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._tape = tape
        self.token = token

    async def dial(self) -> Line:
        """Open a connection."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**20)
        return Line(reader, writer, self._tape)

    def request(self, method: str, target: str, headers: Mapping[str, str] = {}, body: bytes = b"") -> bytes:
        """Return the bytes of a request."""
        fields = {"Host": f"{self._host}:{self._port}", "Connection": "close"}
        if self.token is not None:
            fields["Authorization"] = f"Bearer {self.token}"
        if body:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in (fields | dict(headers)).items()]
        return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Reply:
        """Send a request and return its answer."""
        async with await self.dial() as line:
            line.write(self.request(method, target, headers, body))
            return await line.whole(bodiless=method == "HEAD")

    async def rude(self, data: bytes) -> Reply:
        """Send bytes as they are and return what the server says to the first request in them."""
        async with await self.dial() as line:
            line.write(data)
            return await line.whole()

    @asynccontextmanager
    async def stream(self, target: str, **headers: str) -> AsyncIterator[Line]:
        """Open an event stream; `Last_Event_ID` spells its header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with await self.dial() as line:
            line.write(self.request("GET", target, named))
            reply = await line.head()
            assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream"), reply
            yield line

    # -- in words ------------------------------------------------------------------------------------

    async def get(self, target: str, **headers: str) -> Reply:
        """GET; an underscore in a header's name is a hyphen."""
        return await self.ask("GET", target, {n.replace("_", "-"): v for n, v in headers.items()})

    async def post(self, target: str, value: object = None, **headers: str) -> Reply:
        """POST a value as JSON."""
        body = b"" if value is None else json.dumps(value).encode()
        return await self.ask("POST", target, {n.replace("_", "-"): v for n, v in headers.items()}, body)

    async def submit(self, prompt: str = "a lighthouse at dusk", *, key: str = "", **fields: Any) -> Reply:
        """Submit a job."""
        named = {"Idempotency-Key": key} if key else {}
        return await self.post("/v1/jobs", {"prompt": prompt, **fields}, **named)

    async def job(self, prompt: str = "a lighthouse at dusk", **fields: Any) -> dict[str, Any]:
        """Submit a job that is accepted and return it."""
        reply = await self.submit(prompt, **fields)
        assert reply.status == 202, reply
        job: dict[str, Any] = reply.json
        return job

    async def ended(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for a job's end and return it."""
        reply = await self.get(f"/v1/jobs/{job['id']}?wait=20")
        assert reply.json["ended"], reply
        found: dict[str, Any] = reply.json
        return found

    async def running(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until a job runs and return it."""
        found = dict(job)
        while found["state"] == "queued":
            found = (await self.get(f"/v1/jobs/{job['id']}?wait=20&after={found['version']}")).json
        return found

    async def made(self, prompt: str = "a lighthouse at dusk", **fields: Any) -> dict[str, Any]:
        """Submit a job and return it when it has ended."""
        return await self.ended(await self.job(prompt, **fields))
