"""A whole house behind a real socket, in the test's own loop, with a clock that tests move.

Everything is what runs in production but the upstreams (fakes over HTTP, or the sandbox), the clock and
the log's sink. Whatever a client is told is kept on `tape`. No test lives here.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
import uvicorn
from msgspec import Struct

from gateway.app import Choices, House
from gateway.auth import mint_dev
from gateway.blobs import Blobs, open_blobs
from gateway.errors import StoreUnavailable
from gateway.policy import PolicyFiles, read_bundle
from gateway.providers import KINDS
from gateway.secrets import Secret
from gateway.serve import bind, server_of
from gateway.settings import (
    BlobsSettings,
    ProviderSettings,
    RetentionSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)
from gateway.telemetry import Telemetry
from policies.bundle import Bundle
from policies.egress import Allowed
from policies.model import Principal, Role
from tests.journeys.visitor import PATIENCE, Visitor

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.contract import Store

NOON = 1_795_176_000_000
"""2026-11-20T12:00:00Z: a five-minute mark."""
SECRET = Secret("a secret of the journeys, long enough to be one")
SANDBOX = {"sandbox": ProviderSettings(kind="sandbox")}
LOOPBACK = Allowed(loopback=True)
MINUTE = 60_000
HOUR = 60 * MINUTE
ADMIN = frozenset({Role.USER, Role.TENANT_ADMIN})


class Clock:
    """The time of day: it runs from a minute past noon, until it is moved or held."""

    def __init__(self) -> None:
        self._offset = NOON + MINUTE - time.monotonic_ns() // 1_000_000
        self._held: int | None = None

    def __call__(self) -> int:
        """Return milliseconds since 1970."""
        return self._held if self._held is not None else self._offset + time.monotonic_ns() // 1_000_000

    def hold(self) -> None:
        """Stand still from now on."""
        self._held = self()

    def move(self, millis: int) -> None:
        """Be that much later."""
        self._offset += millis
        if self._held is not None:
            self._held += millis


def preset() -> Bundle:
    """Return the policies that ship."""
    found = read_bundle(None, {}, KINDS)
    assert isinstance(found, Bundle)
    return found


class Plot(Struct, frozen=True):
    """What a house is built from, where a test wants other than the usual."""

    providers: Mapping[str, ProviderSettings]
    bundle: Callable[[Bundle], Bundle] = lambda bundle: bundle
    server: Mapping[str, Any] = {}
    worker: Mapping[str, Any] = {}
    concurrency: int = 8
    dev: bool = True
    body_seconds: float = 20.0
    blobs: Callable[[str], Blobs] = open_blobs
    store: str = ""
    """The URL of another store than a file in the stage's folder."""
    retention: RetentionSettings = RetentionSettings()


class Sick:
    """A store that can be made to fail: `error` is raised by the verb `verb`, before it does anything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.verb = ""
        self.error: Exception = StoreUnavailable("a test asked for this")

    def __getattr__(self, verb: str) -> Any:
        if verb == self.verb:
            raise self.error
        return getattr(self._store, verb)

    def lose_news(self) -> None:
        """Let what other processes did go unheard, as where a subscription broke."""
        engine: Any = self._store
        engine._heard(None)  # noqa: SLF001 - what a back end is given to call

    async def ping(self) -> None:
        """Fail, or ask the store."""
        if self.verb == "ping":
            raise self.error
        await self._store.ping()


class Stage:
    """One running house: who may call it, what was said, what it wrote down."""

    def __init__(self, folder: Path, plot: Plot) -> None:
        self.folder = folder
        self.clock = Clock()
        self.log = io.BytesIO()
        self.tape: list[bytes] = []
        self.telemetry = Telemetry(self.log, self.clock, version="test")
        self.listener = bind("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.house = House(self._settings(plot), self._files(plot), self.telemetry, self._choices(plot))
        self.foretold = 0
        """How many bugs a test plants."""
        self._grace = 1
        self._serving = False

    def _settings(self, plot: Plot) -> Settings:
        return Settings(
            server=ServerSettings(host="127.0.0.1", port=self.port, **plot.server),
            worker=WorkerSettings(
                concurrency=plot.concurrency, attempt_seconds=20, drain_seconds=0, **plot.worker
            ),
            store=StoreSettings(url=plot.store or f"sqlite:///{self.folder / 'safelight.db'}"),
            retention=plot.retention,
            blobs=BlobsSettings(url=f"file://{self.folder / 'blobs'}"),
            providers=dict(plot.providers),
            secret=(SECRET,),
        )

    def _files(self, plot: Plot) -> PolicyFiles:
        bundle = plot.bundle(preset())
        kinds = {name: entry.kind for name, entry in plot.providers.items()}
        document = {"bundle.yaml": msgspec.json.encode(bundle)}
        return PolicyFiles("policies", kinds, KINDS, bundle, lambda _path: document)

    def _choices(self, plot: Plot) -> Choices:
        return Choices(
            dev=plot.dev,
            now=self.clock,
            allowed=LOOPBACK,
            around=self._around,
            body_seconds=plot.body_seconds,
            blobs=plot.blobs,
        )

    def _around(self, store: Store) -> Store:
        self.sick = Sick(store)
        return cast("Store", self.sick)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        """Serve, and stop however the test ends."""
        self.telemetry.open()
        self._serving = True
        server = server_of(self.house.api, self._grace)
        await self.house.start()
        serving = asyncio.create_task(server.serve([self.listener]))
        while not server.started:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
        try:
            yield self
        finally:
            await self._stop(server, serving)

    async def _stop(self, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        """Drain, answer what is open, close. The server's own shutdown does so too, and sleeps in between."""
        await self.house.drain()
        serving.cancel()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=PATIENCE)
        for each in server.servers:
            each.close()
        await asyncio.wait((serving,))
        await self.house.close()
        self._serving = False
        self.telemetry.close()

    # -- who calls -----------------------------------------------------------------------------------

    def token(self, subject: str = "ann", tenant: str = "acme", *, seconds: int = 3600, **more: Any) -> str:
        """Return a token of the dev issuer."""
        who = Principal(tenant=tenant, subject=subject, **more)
        return mint_dev(SECRET, who, ttl_seconds=seconds, now_ms=self.clock(), jti="1")

    def visit(self, subject: str = "ann", tenant: str = "acme", **more: Any) -> Visitor:
        """Return a client with a token of its own."""
        return Visitor(self.url, self.tape, self.token(subject, tenant, **more))

    def admin(self, tenant: str = "acme") -> Visitor:
        """Return a client of the tenant's admin."""
        return self.visit("boss", tenant, roles=ADMIN)

    def stranger(self) -> Visitor:
        """Return a client without a token."""
        return Visitor(self.url, self.tape)

    # -- what was written down -----------------------------------------------------------------------

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What the log says so far."""
        self.telemetry.close()
        if self._serving:
            self.telemetry.open()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    @property
    def bugs(self) -> list[dict[str, Any]]:
        """Exceptions nobody expected, and errors that libraries met."""
        found = [line for line in self.lines if line["event"] in ("bug", "log")]
        return [line for line in found if line["level"] == "error"]
