"""Webhooks without a house: the real store, deliverer and sender, a clock and receivers that tests own.

A job is submitted and canceled while it is queued, which is an end like any other and needs no upstream.
A receiver is a `RawServer`, so it can answer whatever goes over a wire; each try is a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from gateway.audit import Chain, Record
from gateway.callers import Caller
from gateway.crash import Hook, nowhere
from gateway.deliveries import CONCURRENCY, Deliverer, Parts
from gateway.ids import uuid7
from gateway.lifetime import Lifetime
from gateway.outbound import Outbound
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Notice, Submitted
from gateway.store.engine import Engine
from gateway.store.sqlite import SqliteBackend
from gateway.telemetry import Telemetry
from gateway.webhooks import WebhookRequest, Webhooks
from policies import quota
from policies.egress import Allowed
from policies.model import Job, JobRequest, Principal, Role
from tests.fakes.clock import Clock
from tests.fakes.jobs import PLAN
from tests.fakes.raw_server import Act, RawServer

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.contract import Store
    from gateway.webhooks import Made
    from policies.webhooks import Delivery, Endpoint, Form

PATIENCE: Final = 20.0
RING: Final = Keyring([Secret("p" * 32)])
WIDE: Final = quota.Limits(submit=10**6, in_flight=10**6, monthly_cap=10**9)
TERMS: Final = quota.Terms(WIDE, WIDE, credits_per_month=100_000)
ADMIN: Final = frozenset({Role.USER, Role.TENANT_ADMIN})
OK: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILS: Final = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


class Hasty(Lifetime):
    """A life whose pauses take no time."""

    async def pause(self, seconds: float) -> bool:
        """Let the time pass at once."""
        await asyncio.sleep(0)
        return self.draining


class Sent(Struct, frozen=True):
    """One request as a receiver got it. Header names are in small letters."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The delivery's id, in either form's header."""
        return self.headers.get("webhook-id") or self.headers["x-gptimg-delivery"]


def sent(server: RawServer) -> list[Sent]:
    """Return what a receiver got, in order."""
    return [_sent(data) for data in server.requests]


def _sent(data: bytes) -> Sent:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return Sent(line, {n.lower(): v for n, v in (field.split(": ", 1) for field in fields)}, body)


def shown(notice: Notice, _now: int) -> bytes:
    """Render a notice as these tests read it."""
    return json.dumps({"event": notice.delivery.event, "job": notice.delivery.job}).encode()


def caller(subject: str = "ann", tenant: str = "acme", *, admin: bool = False, **more: Any) -> Caller:
    """Return a caller on a plan with ten webhooks."""
    principal = Principal(tenant, subject, ADMIN if admin else frozenset({Role.USER}), **more)
    return Caller(principal, PLAN, PLAN, TERMS)


class Post:
    """One process's webhooks. `away` holds whom the trail was told of as turned away."""

    def __init__(
        self,
        folder: Path,
        *,
        attempt_seconds: int = 10,
        disable_after: int = 20,
        concurrency: int = CONCURRENCY,
        ring: Keyring = RING,
        crash: Hook = nowhere,
        render: Callable[[Notice, int], bytes] = shown,
        around: Callable[[Engine], Store] = lambda engine: engine,
        lifetime: Lifetime | None = None,
        loopback: bool = True,
    ) -> None:
        self.clock = Clock()
        self.away: list[tuple[str, str, str]] = []
        self.sink = io.BytesIO()
        self.telemetry = Telemetry(self.sink, self.clock)
        self.lifetime = lifetime or Lifetime()
        self.path = folder / "store.db"
        backend = SqliteBackend(self.path, self.clock, crash=crash)
        self.engine = Engine(backend, Chain({"k": b"k" * 32}), lambda: uuid.uuid4().hex, crash=crash)
        self.outbound = Outbound({}, Allowed(loopback=loopback), connections=concurrency)
        store = around(self.engine)
        self.webhooks = Webhooks(
            store, ring, self.outbound.judge, self._turned_away, self._mint, _coin, self.clock
        )
        parts = Parts(
            store=store,
            send=self.outbound.send,
            render=render,
            ring=ring,
            lifetime=self.lifetime,
            now=self.clock,
            chance=lambda: 0.0,
            attempt_seconds=attempt_seconds,
            disable_after=disable_after,
            crash=crash,
        )
        self.deliverer = Deliverer(parts, self.telemetry, concurrency)

    def _mint(self) -> str:
        return uuid7(self.clock(), _coin(10))

    async def _turned_away(self, who: Principal, code: str, rule: str) -> None:
        self.away.append((who.subject, code, rule))

    # -- what a test does ----------------------------------------------------------------------------

    async def endpoint(
        self, server: RawServer | int, form: Form = "native", who: Caller | None = None, **fields: Any
    ) -> Made:
        """Register an endpoint at a receiver, or at a port."""
        port = server if isinstance(server, int) else server.port
        wish = WebhookRequest(f"http://127.0.0.1:{port}/hook", **fields)
        return await self.webhooks.create(who or caller(), wish, form)

    async def job(self, subject: str = "ann", tenant: str = "acme") -> Job:
        """Submit a job."""
        job = Job(str(uuid.uuid4()), tenant, subject, JobRequest(prompt="a lighthouse"), price_each=1)
        answer = await self.engine.submit(
            job,
            lambda usage, now: quota.admit(usage, now, job=job.id, price=1, terms=TERMS),
            Record("job.submit"),
        )
        assert isinstance(answer, Submitted)
        return answer.job

    async def ended(self, subject: str = "ann", tenant: str = "acme") -> Job:
        """Submit a job and end it."""
        job = await self.job(subject, tenant)
        await self.engine.cancel(tenant, job.id, lambda usage, _now: usage, Record("job.cancel"))
        return job

    async def told(self, made: Made) -> list[Delivery]:
        """Return an endpoint's deliveries, oldest first."""
        page = await self.engine.list_deliveries(
            made.endpoint.tenant, made.endpoint.id, before=None, limit=100
        )
        return list(reversed(page.deliveries))

    async def tried(self, made: Made, times: int, n: int = 0) -> Delivery:
        """Return the n-th delivery of an endpoint once so many tries of it are written down."""
        async with asyncio.timeout(PATIENCE):
            while len(there := await self.told(made)) <= n or len(there[n].tries) < times:  # noqa: ASYNC110 - the store rings for jobs alone
                await asyncio.sleep(0)
        return there[n]

    async def seen(self, made: Made) -> Endpoint:
        """Return an endpoint as it is."""
        return await self.webhooks.get(caller(made.endpoint.subject, admin=True), made.endpoint.id)

    async def pass_time(self, millis: int) -> None:
        """Move the clock, and have the deliverer look again."""
        self.clock.ahead += millis
        await self.engine.release_deliveries([])

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return what was told of one kind of event. Ends the telling."""
        self.telemetry.close()
        lines = map(json.loads, self.sink.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    def alarms(self) -> list[str]:
        """Return the alarms that were told, each once."""
        text = self.telemetry.render()[0].decode()
        return sorted(re.findall(r'^safelight_alarms_total\{alarm="(\w+)"\}', text, re.MULTILINE))

    async def drain(self, seconds: float = 0.0) -> None:
        """Stop as a process that ends does."""
        self.lifetime.begin_drain()
        await self.deliverer.drain(seconds)

    async def close(self) -> None:
        """Let go of everything."""
        await self.drain()
        await self.outbound.close()
        await self.engine.close()


def _coin(count: int) -> bytes:
    return uuid.uuid4().bytes[:10] if count == 10 else (uuid.uuid4().bytes * 2)[:count]


@contextlib.asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Post]:
    """Open webhooks over what a folder holds; they deliver once they are started."""
    post = Post(folder, **options)
    try:
        yield post
    finally:
        await post.close()


@contextlib.asynccontextmanager
async def receiving(folder: Path, *acts: Act, **options: Any) -> AsyncIterator[tuple[Post, RawServer]]:
    """Open a receiver and a deliverer that works."""
    async with RawServer(*acts) as server, opened(folder, **options) as post:
        post.deliverer.start()
        yield post, server
