"""Safelight inside another ASGI application: FastAPI, Starlette, Django, Litestar or a bare one.

`GatewayMiddleware` serves everything below its prefix itself and hands on the rest. Its house starts with
the server's lifespan, or with the first request where a server or an application sends no such events. It
runs in this process, worker and all, so a store in a SQLite file can have one such process: a second one
is told so and serves nothing below the prefix, and what stands around it goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import dev
from gateway.api.exchange import encode
from gateway.app import VERSION, Choices, House
from gateway.cli.sources import files_of, settings_for
from gateway.errors import CATALOGUE, Refusal
from gateway.settings import listening
from gateway.telemetry import Telemetry

if TYPE_CHECKING:
    from typing import BinaryIO

    from gateway.api.exchange import ASGIApp, Message, Receive, Scope, Send
    from gateway.policy import PolicyFiles
    from gateway.settings import Settings

AGAIN_SECONDS: Final = 5.0
"""How soon a start that was refused is tried again, when there is a request for it."""
TRY_AGAIN_LATER: Final = 1013
"""Why a WebSocket is closed where there is no house (IANA's list of close codes)."""


class GatewayMiddleware:
    """Mounts the gateway under `prefix`, by a settings file (`config`) or a data folder of `dev` (`data`).

    Links begin with `server.public_url` and the prefix; without that setting, with the address the server
    listens on and the path an application around mounts us at. `environ` is what `${env:…}` in the settings
    reads; `log` is where log lines go.
    """

    def __init__(
        self,
        app: ASGIApp,
        prefix: str = "/api/images",
        config: str | Path | None = None,
        *,
        data: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
        log: BinaryIO | None = None,
    ) -> None:
        if (config is None) == (data is None):
            raise Refusal("GatewayMiddleware takes config=, a settings file, or data=, a folder to try it in")
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise Refusal("the prefix of GatewayMiddleware begins with a slash and does not end with one")
        self._app = app
        self._prefix = prefix
        self._config = config
        self._data = data
        self._environ = os.environ if environ is None else environ
        self._log = log
        self._listens = ""
        self._house: House | None = None
        self._turn = asyncio.Lock()
        self._refused = ("", 0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is below the prefix, and hand on the rest."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        root = self._root(scope)
        if root is None:
            await self._app(scope, receive, send)
        else:
            await self._serve(root, scope, receive, send)

    def _root(self, scope: Scope) -> str | None:
        """Return what stands before our prefix; None where the path is not ours.

        An application around that mounts us leaves its own prefix in `path` and names it in `root_path`.
        """
        path: str = scope["path"] + "/"
        roots = ("", scope.get("root_path", "").rstrip("/"))
        return next((root for root in roots if path.startswith(f"{root}{self._prefix}/")), None)

    async def _serve(self, root: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            house = await self.start(scope.get("server"), root)
        except Refusal:
            if scope["type"] == "http":
                await _answer(send, _problem())
            else:
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            return
        before = root + self._prefix
        path = scope["path"].removeprefix(before) or "/"
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        await house.api(
            {**scope, "path": path, "raw_path": raw.removeprefix(before.encode()) or b"/", "root_path": ""},
            receive,
            send,
        )

    # -- life ----------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before the application around says it has, stop before it says it has stopped.

        One that knows no lifespan events raises: then they are answered here.
        """
        seen: list[str] = []

        async def told() -> Message:
            message = await receive()
            seen.append(message["type"])
            return message

        async def tell(message: Message) -> None:
            seen.append(message["type"])
            if message["type"] == "lifespan.startup.complete":
                message = await self._start_or_say()
            elif message["type"] == "lifespan.shutdown.complete":
                await self.close()
            await send(message)

        try:
            await self._app(scope, told, tell)
        except Exception:
            if "lifespan.startup.complete" in seen or "lifespan.startup.failed" in seen:
                raise
            await self._own_lifespan(seen, receive, send)

    async def _own_lifespan(self, seen: list[str], receive: Receive, send: Send) -> None:
        if not seen:
            await receive()
        answer = await self._start_or_say()
        await send(answer)
        if answer["type"] == "lifespan.startup.complete":
            await receive()
            await self.close()
            await send({"type": "lifespan.shutdown.complete"})

    async def _start_or_say(self) -> Message:
        try:
            await self.start()
        except Refusal as refusal:
            return {"type": "lifespan.startup.failed", "message": str(refusal)}
        return {"type": "lifespan.startup.complete"}

    async def start(self, server: Any = None, root: str = "") -> House:
        """Return the house, started; raises `Refusal` where it cannot be, and not too often tries again."""
        if not self._listens and server:
            self._listens = listening(server[0], server[1]) + root
        if self._house is None:
            async with self._turn:
                if self._house is None:
                    self._house = await self._start()
        return self._house

    async def _start(self) -> House:
        sentence, until = self._refused
        if time.monotonic() < until:
            raise Refusal(sentence)
        try:
            return await self._open(*self._settings())
        except Refusal as refusal:
            self._refused = (str(refusal), time.monotonic() + AGAIN_SECONDS)
            sys.stderr.write(f"safelight: {refusal}\n")
            raise

    async def _open(self, settings: Settings, files: PolicyFiles) -> House:
        """Build a house and start it; one that does not start lets go of what it took."""
        telemetry = Telemetry(self._log or sys.stderr.buffer, _now, version=VERSION).open()
        try:
            house = House(settings, files, telemetry, self._choices(settings))
            try:
                await house.start()
            except BaseException:
                await house.close()
                raise
        except BaseException:
            telemetry.close()
            raise
        return house

    def _settings(self) -> tuple[Settings, PolicyFiles]:
        if self._data is not None:
            settings = dev.settings_of(Path(self._data), self._environ, "127.0.0.1", 0)
            return settings, files_of(settings)
        return settings_for(str(self._config), self._environ, "all")

    def _choices(self, settings: Settings) -> Choices:
        def public_url() -> str:
            return (settings.server.public_url or self._listens).rstrip("/") + self._prefix

        return Choices(dev=self._data is not None, public_url=public_url)

    async def close(self) -> None:
        """Stop the house, if it runs: drain, then let go. The lifespan's end does so."""
        house, self._house = self._house, None
        if house is not None:
            await house.drain()
            await house.close()
            house.telemetry.close()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _problem() -> bytes:
    row = CATALOGUE["store_unavailable"]
    detail = "The gateway is not started here; this server's log says why."
    return encode(
        {
            "type": "about:blank",
            "title": row.title,
            "status": row.status,
            "detail": detail,
            "code": "store_unavailable",
            "retryable": True,
        }
    )


async def _answer(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % AGAIN_SECONDS),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
