"""The HTTP side of every fake: key, script, counting, the log, and all ways a connection can go wrong.

What an upstream says is its own file's business (`Upstream`); this one decides whether it is said, when,
and how much of it arrives. A call is written down, and its line flushed, before any of the answer is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import msgspec
from aiohttp import web
from msgspec import Struct

from tests.fakes.behavior import Behavior, Call, Part, Script, parse
from tests.fakes.forms import read_form
from tests.fakes.pictures import spoiled

if TYPE_CHECKING:
    from typing import Self

CHUNK = 2**16
DEEP = 100_000
_WRONG = (
    b'{"data":{"0":"x"},"id":7,"generationId":[],"jobId":{},"status":9,"outputs":"x","results":3,"error":4}'
)


class Asked(Struct, frozen=True):
    """One request as an upstream sees it. `root` is the fake's own address."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    root: str
    query: str = ""


class Edit(Struct, frozen=True):
    """What an upstream makes an edit from, as it has the bytes in hand."""

    prompt: str
    images: tuple[bytes, ...]
    mask: bytes | None = None


class Answer(Struct, frozen=True):
    """What an upstream says, and whether it did paid work for it."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    outcome: str = "ok"
    paid: int = 0
    edit: Edit | None = None


class Upstream(Protocol):
    """One service: which path is which part, and what it answers."""

    delay: float

    def part(self, method: str, path: str) -> Part | None:
        """Return the part a request belongs to."""
        ...

    async def answer(self, part: Part, asked: Asked, behavior: Behavior | None) -> Answer:
        """Return the documented answer, bent where the behavior bends what is said."""
        ...

    def error(self, status: int) -> Answer:
        """Return this service's error body for a status."""
        ...

    def waits(self, part: Part) -> bool:
        """Return whether the answer itself takes as long as an image."""
        ...


def say(status: int, body: object, outcome: str = "ok", **headers: str) -> Answer:
    """Return a JSON answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, msgspec.json.encode(body), {"content-type": "application/json", **named}, outcome)


class Fake:
    """A fake upstream on a loopback port. `calls` holds every request, `edits` those that were paid for."""

    def __init__(
        self,
        upstream: Upstream,
        key: str,
        script: list[Behavior] | None = None,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        self.upstream = upstream
        self.key = key
        self.script = Script(script or [])
        self.calls: list[Call] = []
        self.edits: list[Edit] = []
        self.url = ""
        self._port = port
        self._log_path = log
        self._log: IO[bytes] | None = None
        self._stop = asyncio.Event()
        self._free = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def release(self) -> None:
        """Let answers go that are held, and hold no more."""
        self._free.set()

    @property
    def paid(self) -> int:
        """Pieces of paid work: calls that made images, jobs accepted."""
        return sum(call.paid for call in self.calls)

    @property
    def paid_by_prompt(self) -> Counter[str]:
        """Pieces of paid work by the prompt they were for."""
        return Counter(call.prompt for call in self.calls if call.paid)

    def seen(self, part: str) -> list[Call]:
        """Return the requests of one part."""
        return [call for call in self.calls if call.part == part]

    async def __aenter__(self) -> Self:
        if self._log_path is not None:
            self._log = self._log_path.open("ab", buffering=0)
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await self._listen()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()

    async def leave(self, seconds: float) -> None:
        """Refuse connections for so long; who has one is answered, and has to come anew after."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
            await self._pause(seconds)
            await self._listen()

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        self._free.set()
        await asyncio.gather(*self._leaving)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log is not None:
            self._log.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_control":
            return await self._control(request)
        part = self.upstream.part(request.method, request.path)
        body = await request.read() if request.body_exists and not self._cuts_early(part) else b""
        behavior = self.script.take(part or "other", body)
        if behavior is not None and behavior.do == "reset_before":
            self._write(request, part, body, Answer(0, b"", outcome="reset_before"))
            return _cut(request)
        root = f"http://{request.host}"
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.path, headers, body, root, request.query_string)
        answer = await self._answer(part, asked, behavior)
        self._write(request, part, body, answer)
        if part is not None and answer.status == 200 and self.upstream.waits(part):
            await self._pause(self.upstream.delay)
        return await self._send(request, answer, behavior)

    def _cuts_early(self, part: Part | None) -> bool:
        """Return whether the next request of this part is cut before its body is read."""
        following = self.script.peek(part or "other")
        return following is not None and following.do == "reset_before" and not following.match

    async def _answer(self, part: Part | None, asked: Asked, behavior: Behavior | None) -> Answer:
        if part is None:
            return self.upstream.error(404)
        keyless = part in {"image", "put"}
        if keyless and "authorization" in asked.headers:
            return Answer(400, b"", outcome="key_leaked")
        if not keyless and asked.headers.get("authorization") != f"Bearer {self.key}":
            return msgspec.structs.replace(self.upstream.error(401), outcome="wrong_key")
        if behavior is not None and behavior.do == "status":
            own = self.upstream.error(behavior.status)
            body = own.body if behavior.body is None else behavior.body.encode()
            headers = {**own.headers, **behavior.headers}
            return Answer(behavior.status, body, headers, outcome=f"status_{behavior.status}")
        answer = await self.upstream.answer(part, asked, behavior)
        return answer if behavior is None else _bend(answer, behavior, part)

    def _write(self, request: web.Request, part: Part | None, body: bytes, answer: Answer) -> None:
        authorization = request.headers.get("authorization")
        call = Call(
            at=time.time_ns() // 1_000_000,
            part=part or "other",
            method=request.method,
            path=request.path,
            key=authorization.removeprefix("Bearer ") if authorization else None,
            idempotency_key=request.headers.get("idempotency-key"),
            outcome=answer.outcome,
            paid=answer.paid,
            prompt=_prompt(request.headers.get("content-type", ""), body),
            inputs=tuple(map(_hash, answer.edit.images)) if answer.edit else (),
            mask=_hash(answer.edit.mask) if answer.edit and answer.edit.mask is not None else None,
        )
        self.calls.append(call)
        if answer.edit is not None:
            self.edits.append(answer.edit)
        if self._log is not None:
            self._log.write(msgspec.json.encode(call) + b"\n")

    async def _send(
        self, request: web.Request, answer: Answer, behavior: Behavior | None
    ) -> web.StreamResponse:
        match behavior.do if behavior else None:
            case "reset_after":
                return _cut(request)
            case "hang":
                await self._stop.wait()
                return _cut(request)
            case "hold":
                await self._free.wait()
            case "slow" if behavior:
                await self._pause(behavior.seconds)
            case "half" | "drip" | "huge" if behavior:
                return await self._trickle(request, answer, behavior)
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if self._site is None:
            response.force_close()
        return response

    async def _trickle(self, request: web.Request, answer: Answer, behavior: Behavior) -> web.StreamResponse:
        total = behavior.size if behavior.do == "huge" else len(answer.body)
        response = web.StreamResponse(
            status=answer.status, headers={**answer.headers, "content-length": str(total)}
        )
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            match behavior.do:
                case "half":
                    await response.write(answer.body[: total // 2])
                    if request.transport is not None:
                        request.transport.close()
                case "drip":
                    for at in range(total):
                        await response.write(answer.body[at : at + 1])
                        await self._pause(behavior.seconds)
                case _:
                    for at in range(0, total, CHUNK):
                        await response.write(b" " * min(CHUNK, total - at))
        return response

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a fake that is being stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _control(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            steer = msgspec.json.decode(await request.read(), type=Steer)
            if steer.forget:
                self.script.clear()
                self.calls.clear()
                self.edits.clear()
            self.script.add(*steer.script)
            if steer.delay is not None:
                self.upstream.delay = steer.delay
            if steer.away is not None:
                task = asyncio.create_task(self.leave(steer.away))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        body = msgspec.json.encode({"paid": self.paid, "calls": self.calls})
        return web.Response(body=body, content_type="application/json")


class Steer(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /_control` takes: behaviors to add, another delay, seconds to be away, to start afresh."""

    script: list[Behavior] = []
    delay: float | None = None
    away: float | None = None
    forget: bool = False


def _bend(answer: Answer, behavior: Behavior, part: Part) -> Answer:
    """Return the answer with its body bent; what bends what is said, the upstream did already."""
    body = answer.body
    match behavior.do:
        case "malformed":
            body = body[: len(body) // 2]
        case "deep":
            body = b'{"data":' + b"[" * DEEP + b"]" * DEEP + b"}"
        case "wrong_type":
            body = _WRONG
        case "not_json":
            body = b"<html><body>502 Bad Gateway</body></html>"
        case "no_image" | "truncated" | "bomb" if part == "image":
            body = spoiled(behavior.do, body)
    outcome = answer.outcome if behavior.do in {"refusal", "failed"} else behavior.do
    return msgspec.structs.replace(answer, body=body, outcome=outcome)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _prompt(media_type: str, body: bytes) -> str:
    if media_type.startswith("multipart/"):
        form = read_form(media_type, body)
        return form.fields.get("prompt", "") if form else ""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ""
    return str(value.get("prompt", "")) if isinstance(value, dict) else ""


def _cut(request: web.Request) -> web.Response:
    """Cut the connection so that the caller sees a reset."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


def arguments(key: str) -> argparse.ArgumentParser:
    """Return the options every fake has as a process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--key", default=key)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds an image takes")
    parser.add_argument("--script", type=parse, default=[], help="behaviors as a JSON list")
    return parser


def run(options: argparse.Namespace, upstream: Upstream) -> None:
    """Serve until the process is ended. Prints its address once it listens."""

    async def forever() -> None:
        fake = Fake(upstream, options.key, options.script, options.port, options.log)
        async with fake:
            sys.stdout.write(f"ready {fake.url}\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(forever())
