"""The API around use cases in memory, asked without a socket."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from litestar.connection import Request

from gateway.api import ApiParts, build_api
from gateway.api.exchange import KEY, Exchange
from gateway.api.limits import StreamSlots
from gateway.api.views import Views
from gateway.auth import Authenticator, dev_issuer, mint_dev
from gateway.blobs import FolderBlobs, Links
from gateway.callers import Callers
from gateway.copies import Copies
from gateway.images import Studio
from gateway.jobs import Jobs
from gateway.lifetime import Lifetime
from gateway.secrets import Keyring, Secret
from gateway.telemetry import Telemetry
from gateway.trail import Trail
from gateway.uploads import Uploads
from policies.model import Principal, Role
from tests.fakes.asgi import Answered, Headers, Open, scope_of
from tests.fakes.hooks import HookShelf, office
from tests.fakes.jobs import FakeJobs
from tests.fakes.keys import KeyShelf, desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

URL = "https://images.example.com"
SECRET = Secret("a secret of the tests, long enough to be one")


class Site:
    """One server of the tests: its parts to set up, its answers to ask for."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.jobs = FakeJobs()
        self.shelf = KeyShelf(self.jobs.now)
        self.keys = desk(self.shelf, self.jobs)
        self.hooks = HookShelf(self.jobs.now)
        self.keyring = Keyring([SECRET])
        self.links = Links(self.keyring, lambda: URL)
        self.blobs = FolderBlobs(folder)
        self.studio = Studio(1)
        self.log = io.BytesIO()
        self.telemetry = Telemetry(self.log, self.jobs.now)
        self.lifetime = Lifetime()
        self.lifetime.become_ready()
        self.sick: Exception | None = None
        self.parts = ApiParts(
            callers=cast("Callers", self.jobs),
            jobs=cast("Jobs", self.jobs),
            uploads=cast("Uploads", None),
            trail=cast("Trail", self.jobs),
            keys=self.keys,
            webhooks=office(self.hooks, self.jobs),
            authenticator=Authenticator([dev_issuer([SECRET])], now=self.jobs.now, find_key=self.keys.find),
            keyring=self.keyring,
            links=self.links,
            blobs=self.blobs,
            copies=Copies(self.blobs, self.studio),
            telemetry=self.telemetry,
            lifetime=self.lifetime,
            ping=self._ping,
            plan_of=lambda _who: "free",
            public_url=lambda: URL,
            version="1.2.3",
            **{"cors_origins": ("https://app.example.com",), **parts},
        )
        self.slots = StreamSlots()
        self.app = build_api(self.parts)

    def rebuilt(self, **parts: Any) -> Site:
        """Serve the same with other parts from now on."""
        self.telemetry = Telemetry(self.log, self.jobs.now)
        self.parts = replace(self.parts, telemetry=self.telemetry, **parts)
        self.app = build_api(self.parts)
        return self

    @property
    def views(self) -> Views:
        """How this site shows jobs."""
        return Views(self.links, lambda: URL)

    def direct(self, handler: Any, target: str, **path_params: str) -> Open:
        """Ask one handler as Ann, without what stands around it."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            exchange = Exchange(scope, receive, send, _undressed, "1")
            exchange.caller = self.jobs.admit_caller(Principal("acme", "ann"))
            scope[KEY] = exchange
            scope["path_params"] = path_params
            await (await handler(Request(scope)))(scope, receive, exchange.send)

        return Open(app, scope_of("GET", target, ()), (b"",))

    async def _ping(self) -> None:
        if self.sick is not None:
            raise self.sick

    def token(self, subject: str = "ann", tenant: str = "acme", *, seconds: int = 3600, **more: Any) -> str:
        """Return a token of the dev issuer."""
        who = Principal(tenant=tenant, subject=subject, **more)
        return mint_dev(SECRET, who, ttl_seconds=seconds, now_ms=self.jobs.now(), jti="1")

    def bearer(self, subject: str = "ann", **more: Any) -> tuple[str, str]:
        """Return the header of a caller."""
        return ("Authorization", f"Bearer {self.token(subject, **more)}")

    @property
    def admin(self) -> tuple[str, str]:
        """The header of the tenant's admin."""
        return self.bearer("boss", roles=frozenset({Role.USER, Role.TENANT_ADMIN}))

    def open(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: Sequence[bytes | None] = (b"",),
        root: str = "",
    ) -> Open:
        """Begin a request."""
        return Open(self.app, scope_of(method, target, headers, root), body)

    async def ask(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes | None = None, root: str = ""
    ) -> Answered:
        """Return the answer to a request just as it is written."""
        return await self.open(method, target, headers, (body or b"",), root).done()

    async def get(self, target: str, *headers: tuple[str, str]) -> Answered:
        """Return the answer to a GET of Ann's."""
        return await self.ask("GET", target, self.bearer(), *headers)

    async def post(self, target: str, value: Any = None, *headers: tuple[str, str]) -> Answered:
        """Return the answer to a POST of Ann's, its body as JSON."""
        body = b"" if value is None else json.dumps(value).encode()
        return await self.ask(
            "POST", target, self.bearer(), ("Content-Type", "application/json"), *headers, body=body
        )

    @property
    def told(self) -> list[dict[str, Any]]:
        """What the log says so far. The last line is the last request's."""
        self.telemetry.close()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


async def _undressed(_exchange: Exchange, headers: Any) -> Any:
    return headers


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server with default settings. Whatever a test leaves running is an error."""
    site = Site(tmp_path)
    yield site
    site.studio.close()


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
