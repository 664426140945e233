"""A customer's own backend on a loopback port: it shows two pictures and takes webhooks.

What is posted to it is put on `told`, in the order it came, and answered 204.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import Struct

from tests.fakes.pictures import png

if TYPE_CHECKING:
    from typing import Self

PICTURES = {"/subject.png": png(640, 480, "subject"), "/palette.png": png(320, 320, "palette")}


class Told(Struct, frozen=True):
    """One request that told something. Header names are in small letters."""

    path: str
    headers: dict[str, str]
    body: bytes


class Backend:
    """The backend. `place` is its host and port."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.place = ""
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.place}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{name}", self._show)
        app.router.add_post("/{path:.*}", self._hear)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.place = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _show(self, request: web.Request) -> web.Response:
        if request.path not in PICTURES:
            return web.Response(status=404)
        return web.Response(body=PICTURES[request.path], content_type="image/png")

    async def _hear(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        await self.told.put(Told(request.path, headers, await request.read()))
        return web.Response(status=204)
