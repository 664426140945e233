"""The gateway inside FastAPI, Starlette, Django and a bare application, with lifespan events and without."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import django
import pytest
import uvicorn
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from gateway import dev
from gateway.errors import Refusal
from gateway.middleware import GatewayMiddleware
from gateway.secrets import load_or_create
from gateway.serve import bind
from policies.model import Principal
from tests.fakes.tokens import jwks, signer
from tests.journeys.visitor import PATIENCE, Visitor

PREFIX = "/api/images"


def of_fastapi(data: Path, log: io.BytesIO) -> Any:
    """Return a FastAPI application with a route of its own."""
    app = FastAPI()
    app.add_api_route("/own", _fastapi_own)
    app.add_middleware(GatewayMiddleware, prefix=PREFIX, data=data, log=log)
    return app


async def _fastapi_own() -> dict[str, str]:
    return {"own": "route"}


def of_starlette(data: Path, log: io.BytesIO) -> Any:
    """Return a Starlette application with a route of its own."""

    async def own(_request: Request) -> JSONResponse:
        return JSONResponse({"own": "route"})

    return GatewayMiddleware(Starlette(routes=[Route("/own", own)]), PREFIX, data=data, log=log)


def _django_own(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"own": "route"})


urlpatterns = [path("own", _django_own)]


def of_django(data: Path, log: io.BytesIO) -> Any:
    """Return a Django application, which knows no lifespan events."""
    if not django_settings.configured:
        django_settings.configure(
            ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="x" * 50, LOGGING_CONFIG=None
        )
        django.setup()
    return GatewayMiddleware(get_asgi_application(), PREFIX, data=data, log=log)


async def bare(scope: Any, _receive: Any, send: Any) -> None:
    """Serve a route as an application does that knows HTTP alone."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b'{"own":"route"}'})


def of_nothing(data: Path, log: io.BytesIO) -> Any:
    """Return a bare application inside the middleware."""
    return GatewayMiddleware(bare, PREFIX, data=data, log=log)


KINDS = {"fastapi": of_fastapi, "starlette": of_starlette, "django": of_django, "bare": of_nothing}


@asynccontextmanager
async def serving(app: Any, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    """Serve an application and yield its address."""
    with bind("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, lifespan=lifespan, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]))
        try:
            async with asyncio.timeout(PATIENCE):
                while not server.started and not task.done():  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def visitor(url: str, data: Path) -> Visitor:
    """Return a client with a token of the data folder's issuer."""
    token = dev.token(
        load_or_create(data / "secret"), Principal("demo", "you"), time.time_ns() // 1_000_000, 600
    )
    return Visitor(url, [], token)


@pytest.mark.parametrize("lifespan", ["on", "off"])
@pytest.mark.parametrize("kind", KINDS)
async def test_picture_under_a_prefix(tmp_path: Path, kind: str, lifespan: Literal["on", "off"]) -> None:
    """A job is made and its links open under the prefix, beside the application's own routes."""
    log = io.BytesIO()
    app = KINDS[kind](tmp_path, log)
    async with serving(app, lifespan) as url:
        if lifespan == "off":
            assert (await Visitor(url + "", []).get(f"{PREFIX}/livez")).status == 200
        ann = visitor(url, tmp_path)
        made = await ann.post(f"{PREFIX}/v1/jobs", {"prompt": "a lighthouse at dusk", "quality": "low"})
        assert made.status == 202, made
        assert made.json["links"]["self"] == f"{url}{PREFIX}/v1/jobs/{made.json['id']}"
        assert made.headers["location"] == made.json["links"]["self"]
        job = (await ann.get(f"{PREFIX}/v1/jobs/{made.json['id']}?wait=20")).json
        assert job["state"] == "succeeded", job
        picture = job["outputs"][0]["url"]
        assert picture.startswith(f"{url}{PREFIX}/files/")
        reply = await Visitor(url, []).get(picture.removeprefix(url))
        assert (reply.status, reply.body[:4]) == (200, b"\x89PNG")
        own = await Visitor(url, []).get("/own")
        assert (own.status, own.json) == (200, {"own": "route"})
        assert (await ann.get("/v1/jobs")).status == (200 if kind == "bare" else 404)
        assert (await ann.get(f"{PREFIX}/v1/nothing")).json["code"] == "not_found"
        if lifespan == "off":
            closing = app if isinstance(app, GatewayMiddleware) else None
            if closing is None:
                closing = _built(app)
            await closing.close()
    assert b'"level":"error"' not in log.getvalue()


@pytest.mark.parametrize("at", ["/outer", PREFIX])
async def test_mounted_inside_a_mount(tmp_path: Path, at: str) -> None:
    """An application around may mount ours below a path of its own; links begin there."""
    inside = of_starlette(tmp_path, io.BytesIO())
    before = "" if at == PREFIX else at
    async with serving(Starlette(routes=[Mount(at, inside)])) as url:
        made = await visitor(url, tmp_path).post(
            f"{before}{PREFIX}/v1/jobs", {"prompt": "a", "quality": "low"}
        )
        assert made.headers["location"] == f"{url}{before}{PREFIX}/v1/jobs/{made.json['id']}"
        there = made.headers["location"].removeprefix(url)
        job = (await visitor(url, tmp_path).get(f"{there}?wait=20")).json
        picture = job["outputs"][0]["url"].removeprefix(url)
        assert (await Visitor(url, []).get(picture)).status == 200
        assert (await Visitor(url, []).get("/outer/own")).status == (404 if at == PREFIX else 200)
        await inside.close()


@pytest.mark.parametrize(
    "target",
    ["{}X/livez", "/{}/livez", "{}%00/livez", "/x/..{}/livez", "{}/../own", "{}/%2e%2e/own", "{}{}/livez"],
)
async def test_crooked_paths_stay_where_they_are(tmp_path: Path, target: str) -> None:
    """A path is ours by how it begins, letter for letter; no dots, slashes or zeros lead in or out."""
    app = of_starlette(tmp_path, io.BytesIO())
    async with serving(app) as url:
        reply = await Visitor(url, []).get(target.replace("{}", PREFIX))
        ours = "safelight-version" in reply.headers
        assert (reply.status, ours) == (404, target.startswith(("{}/", "{}{}")))


async def test_websockets_are_closed(tmp_path: Path) -> None:
    """A WebSocket below the prefix is closed, by a house and by one that could not start."""
    app = of_nothing(tmp_path, io.BytesIO())
    other = of_nothing(tmp_path, io.BytesIO())
    scope = {"type": "websocket", "path": f"{PREFIX}/v1/jobs"}
    told: list[Any] = []
    for each in (app, other):
        await each(dict(scope), _once({"type": "websocket.connect"}), _into(told))
    await app.close()
    assert told == [{"type": "websocket.close", "code": code} for code in (1008, 1013)]


def _built(app: Any) -> GatewayMiddleware:
    """Return the middleware in a built application's stack."""
    layer = app.middleware_stack
    while not isinstance(layer, GatewayMiddleware):
        layer = layer.app
    return layer


async def test_second_process_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second house on one SQLite file serves nothing, says why, and what stands around it goes on."""
    first = of_starlette(tmp_path, io.BytesIO())
    second = of_starlette(tmp_path, io.BytesIO())
    async with serving(first) as one, serving(second, "off") as two:
        assert (await visitor(one, tmp_path).get(f"{PREFIX}/v1/account")).status == 200
        for _ in range(3):
            refused = await visitor(two, tmp_path).get(f"{PREFIX}/v1/account")
            assert (refused.status, refused.json["code"]) == (503, "store_unavailable")
            assert refused.headers["retry-after"] == "5"
        assert (await Visitor(two, []).get("/own")).status == 200
    told = capsys.readouterr().err
    assert told.count("safelight: ") == 1
    assert "in use by another Safelight process" in told


async def test_refused_start_fails_startup(tmp_path: Path) -> None:
    """With lifespan events a start that cannot succeed is told to the server, with the sentence."""
    told: list[Any] = []
    config = tmp_path / "safelight.yaml"
    config.write_text("serve: {}\n")
    app = GatewayMiddleware(bare, "/x", config, environ={})
    await app({"type": "lifespan"}, _once({"type": "lifespan.startup"}), _into(told))
    (answer,) = told
    assert answer["type"] == "lifespan.startup.failed"
    assert "serve" in answer["message"]
    assert 'did you mean "server"' in answer["message"]


async def test_start_that_fails_lets_go(tmp_path: Path) -> None:
    """A house whose start fails gives up its store, so that the next try can succeed."""
    dev.settings_of(tmp_path, {}, "127.0.0.1", 0)
    (tmp_path / "blobs").write_text("a file in the folder's place")
    app = of_nothing(tmp_path, io.BytesIO())
    with pytest.raises(Refusal, match="blobs"):
        await app.start()
    (tmp_path / "blobs").unlink()
    again = of_nothing(tmp_path, io.BytesIO())
    await again.start()
    await again.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"config": "a", "data": "b"},
        {"data": "b", "prefix": "images"},
        {"data": "b", "prefix": "/images/"},
    ],
)
def test_mounting_wrongly_is_told(options: dict[str, Any]) -> None:
    """A middleware without a place for its settings, or with a prefix that is none, is refused."""
    with pytest.raises(Refusal):
        GatewayMiddleware(bare, **options)


async def test_configured_address_begins_links(tmp_path: Path) -> None:
    """With `server.public_url` links begin there, prefix behind it, wherever the server listens."""
    config = tmp_path / "safelight.yaml"
    (tmp_path / "jwks.json").write_bytes(jwks(signer("RS256")))
    config.write_text(
        f"""
server: {{public_url: "https://shop.example.com"}}
store: {{url: "sqlite:///{tmp_path / "s.db"}"}}
blobs: {{url: "file://{tmp_path / "blobs"}"}}
providers: {{try: {{kind: sandbox}}}}
secret: ["${{env:SECRET}}"]
auth:
  issuers:
    - {{issuer: "https://id.example.com", audience: images, jwks_file: "{tmp_path / "jwks.json"}"}}
"""
    )
    environ = {"SECRET": "s" * 40}
    app = GatewayMiddleware(bare, PREFIX, config, environ=environ, log=io.BytesIO())
    house = await app.start(("10.0.0.1", 9000))
    assert house.public_url() == f"https://shop.example.com{PREFIX}"
    await app.close()


async def test_socket_begins_links(tmp_path: Path) -> None:
    """Without that setting links begin at the socket of the first request, in either family's spelling."""
    for place, url in (("10.0.0.1", "http://10.0.0.1:9000"), ("fd00::7", "http://[fd00::7]:9000")):
        app = of_nothing(tmp_path, io.BytesIO())
        house = await app.start((place, 9000), "/outer")
        assert house.public_url() == f"{url}/outer{PREFIX}"
        await app.close()


def _once(message: dict[str, str]) -> Callable[[], Any]:
    async def receive() -> dict[str, str]:
        return message

    return receive


def _into(told: list[Any]) -> Callable[[Any], Any]:
    async def send(message: Any) -> None:
        told.append(message)

    return send
