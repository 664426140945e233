"""The litestar room: our own HTTP API, as one ASGI application.

From the outside in: `edge` judges the request's head and dresses every answer; Litestar finds the route;
`gate` asks who may pass; a handler reads strictly, asks a use case, and writes bytes. This file joins
them. Nothing here decides what a caller may do or pays for anything: `policies` and `jobs` do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestar import asgi
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.types import Receive, Scope, Send

from gateway.api.account import AccountCalls
from gateway.api.cors import Cors
from gateway.api.edge import Edge, EdgeParts, reraise
from gateway.api.express import Express
from gateway.api.files import FileCalls
from gateway.api.foreign import mount
from gateway.api.gate import PUBLIC, Gate
from gateway.api.health import HealthCalls
from gateway.api.jobs import JobCalls
from gateway.api.keys import KeyCalls
from gateway.api.limits import ReadLimit, StreamSlots
from gateway.api.openapi import document
from gateway.api.pages import PageCalls
from gateway.api.queries import Cursors
from gateway.api.router import Router
from gateway.api.streams import StreamCalls
from gateway.api.trail import TrailCalls
from gateway.api.uploads import UploadCalls
from gateway.api.views import Views
from gateway.api.webhooks import WebhookCalls
from gateway.lifetime import Lifetime
from gateway.telemetry import Reading

if TYPE_CHECKING:
    from gateway.api.exchange import ASGIApp
    from gateway.auth import Authenticator
    from gateway.blobs import Blobs, Links
    from gateway.callers import Caller, Callers
    from gateway.copies import Copies
    from gateway.dialects.speech import Speaker
    from gateway.jobs import Jobs
    from gateway.keys import Keys
    from gateway.secrets import Keyring
    from gateway.telemetry import Telemetry
    from gateway.trail import Trail
    from gateway.uploads import Uploads
    from gateway.webhooks import Webhooks


@dataclass(frozen=True)
class ApiParts:
    """What the API is made of.

    `public_url` returns the address links begin with, mount prefix included, no slash at its end. `ping`
    raises a fault when the store takes no write. `plan_of` names a caller's plan. `extra` maps a path to
    an ASGI application that is public and looks after itself (the dev page). `max_wait_seconds` is the
    longest a `?wait=` is held, `body_seconds` how long a body may take to arrive.
    """

    callers: Callers
    jobs: Jobs
    uploads: Uploads
    trail: Trail
    keys: Keys
    webhooks: Webhooks
    authenticator: Authenticator
    keyring: Keyring
    links: Links
    blobs: Blobs
    copies: Copies
    telemetry: Telemetry
    lifetime: Lifetime
    ping: Callable[[], Awaitable[None]]
    plan_of: Callable[[Caller], str | None]
    public_url: Callable[[], str]
    version: str
    cors_origins: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()
    max_wait_seconds: float = 25.0
    body_seconds: float = 20.0
    dev: bool = False
    extra: Mapping[str, ASGIApp] = field(default_factory=dict)
    speakers: Sequence[Speaker] = ()
    clock: Callable[[], float] = time.monotonic
    coin: Callable[[int], bytes] = os.urandom


def build_api(parts: ApiParts) -> Edge:
    """Return the application. Nothing is opened and nothing runs until it is served."""
    slots = StreamSlots()
    parts.telemetry.watch(Reading.STREAMS_OPEN, lambda: len(slots))
    calls = routes(parts, slots)
    foreign = [route for speaker in parts.speakers for route in mount(speaker)]
    pages = PageCalls(
        parts.public_url,
        lambda: document([*calls, *foreign], version=parts.version, base_url=parts.public_url()),
    )
    extra = [_mounted(path, app) for path, app in parts.extra.items()]
    gate = Gate(parts.authenticator, parts.callers, ReadLimit(), parts.jobs.now)
    app = Router(
        [*calls, *foreign, *pages.routes(), *extra],
        middleware=[gate.around],
        exception_handlers={Exception: reraise},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
        debug=False,
    )
    return Edge(app, _edge(parts), Express(gate, _job_calls(parts)))


def routes(parts: ApiParts, slots: StreamSlots) -> list[HTTPRouteHandler]:
    """Return every handler that is part of the documented API."""
    views = Views(parts.links, parts.public_url)
    cursors = Cursors(parts.keyring)
    jobs = parts.jobs
    return [
        *_job_calls(parts).routes(),
        *StreamCalls(jobs, views, parts.lifetime, slots, parts.authenticator.stands).routes(),
        *UploadCalls(parts.uploads).routes(),
        *AccountCalls(jobs, parts.plan_of).routes(),
        *KeyCalls(parts.keys, cursors).routes(),
        *WebhookCalls(parts.webhooks, cursors).routes(),
        *TrailCalls(parts.trail, cursors).routes(),
        *FileCalls(parts.blobs, parts.copies, parts.links, jobs.now).routes(),
        *HealthCalls(parts.lifetime, parts.ping, parts.telemetry).routes(),
    ]


def _job_calls(parts: ApiParts) -> JobCalls:
    return JobCalls(
        parts.jobs,
        Views(parts.links, parts.public_url),
        Cursors(parts.keyring),
        parts.lifetime,
        parts.telemetry,
        seconds=parts.max_wait_seconds,
    )


def _mounted(path: str, app: ASGIApp) -> ASGIRouteHandler:
    """Return the public route of an application that looks after itself."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return asgi(path, name=path, opt=PUBLIC, copy_scope=False)(mounted)


def _edge(parts: ApiParts) -> EdgeParts:
    return EdgeParts(
        public_url=parts.public_url,
        version=parts.version,
        cors=Cors(parts.cors_origins, dev=parts.dev),
        telemetry=parts.telemetry,
        usage=parts.jobs.usage,
        now=parts.jobs.now,
        clock=parts.clock,
        coin=parts.coin,
        body_seconds=parts.body_seconds,
        trusted_proxies=parts.trusted_proxies,
        speakers=parts.speakers,
    )
