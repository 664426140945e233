"""The measure of 1 for calls that wait: bare Litestar, a body sent on by httpx over aiohttp, an answer back.

Run as a process: `python -m tests.bench.through PORT UPSTREAM_PORT`. It knows no caller, keeps nothing, looks
at nothing and charges nobody.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from litestar import Litestar, Request, Response, get, post

from tests.bench.plain import serve

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}


def build(upstream: str) -> Litestar:
    """Return the application."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with HttpxAiohttpClient(limits=limits, timeout=60) as client:
            app.state.client = client
            yield

    @post("/v1/images/generations", status_code=200)
    async def generate(request: Request[Any, Any, Any]) -> Response[bytes]:
        client: httpx.AsyncClient = request.app.state.client
        found = await client.post(upstream, content=await request.body(), headers=HEADERS)
        return Response(found.content, status_code=found.status_code, media_type="application/json")

    @get("/livez")
    async def live() -> str:
        return "ok"

    return Litestar([generate, live], lifespan=[opened], openapi_config=None, logging_config=None)


if __name__ == "__main__":
    serve(build(f"http://127.0.0.1:{sys.argv[2]}/v1/images/generations"), int(sys.argv[1]))
