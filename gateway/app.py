"""The composition root: the one file that builds things and joins them.

A `House` is one process's worth of Safelight: store, worker, API and what they need. It is built on the
loop that runs it, started, drained and closed, in this order; who listens on a port is `serve.py`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from gateway import deliveries
from gateway.api import ApiParts, build_api
from gateway.api.bodies import Bodies
from gateway.api.views import Views
from gateway.audit import Chain
from gateway.auth import Authenticator, Trusted, dev_issuer, trust
from gateway.blobs import Blobs, Doors, Links, folder, open_blobs
from gateway.callers import Caller, Callers, Rulebook
from gateway.copies import Copies
from gateway.crash import Hook, nowhere
from gateway.deliveries import Deliverer
from gateway.dev import TOKEN_PATH
from gateway.dialects.gptimage2_ai import GptImage2Ai
from gateway.dialects.gptimage2_plus import GptImage2Plus, webhook_body
from gateway.dialects.openai import OpenAI
from gateway.dialects.speech import Speaker, SpeakerParts
from gateway.errors import Refusal
from gateway.ids import Coin, uuid7
from gateway.images import Studio
from gateway.inputs import Inputs
from gateway.intake import Intake
from gateway.jobs import Jobs
from gateway.keys import Keys
from gateway.lifetime import Lifetime
from gateway.outbound import Credential, Outbound, open_credential
from gateway.pressure import Pressure
from gateway.providers import open_adapter
from gateway.providers.sandbox import HOST, SandboxUpstream
from gateway.runs import Parts
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Leases, Retention
from gateway.store.engine import Engine
from gateway.store.flight import Hears
from gateway.store.opening import How, open_backend
from gateway.telemetry import Reading, Telemetry
from gateway.trail import Trail
from gateway.uploads import UploadParts, Uploads
from gateway.upstreams import Upstreams
from gateway.web.serving import library, playground
from gateway.webhooks import Webhooks
from gateway.wire import WireRequest, WireResponse
from gateway.worker import Sweeper, Worker
from policies.bundle import TenantRow
from policies.egress import Allowed, read_allowed
from policies.quota import DAY_MS

if TYPE_CHECKING:
    from gateway.api.exchange import ASGIApp
    from gateway.policy import PolicyFiles
    from gateway.providers.adapter import Adapter
    from gateway.settings import ProviderSettings, Role, Settings
    from gateway.store.backend import Backend
    from gateway.store.contract import Shut, Store

VERSION: Final = version_of("safelight")
POLICY_SECONDS: Final = 5.0
STUDIO_THREADS: Final = 2
JWKS_BYTES: Final = 256 * 1024
JWKS_SECONDS: Final = 10.0
DEV_PLAN: Final = "pro"


class Choices(Struct, frozen=True):
    """What is not in the settings: how this process was started, and what tests put in its place.

    `adapters` opens a provider kind's adapter, `blobs` the place a URL names; `behind` returns what is
    used as the back end, `around` as the store. Without `now` it is the store's time that counts.
    """

    dev: bool = False
    public_url: Callable[[], str] | None = None
    extra: Mapping[str, ASGIApp] = {}
    allowed: Allowed | None = None
    adapters: Callable[[str, str | None], Adapter] = open_adapter
    blobs: Callable[[str], Blobs] = open_blobs
    behind: Callable[[Backend], Backend] = lambda backend: backend
    around: Callable[[Store], Store] = lambda store: store
    leases: Leases = Leases()
    crash: Hook = nowhere
    body_seconds: float = 20.0
    policy_seconds: float = POLICY_SECONDS
    now: Callable[[], int] | None = None
    role: Role = "all"
    coin: Callable[[int], bytes] = field(default_factory=Coin)
    chance: Callable[[], float] = random.random


class House:
    """One process. `api` is the ASGI application; without a worker's role it makes no jobs itself."""

    def __init__(
        self, settings: Settings, files: PolicyFiles, telemetry: Telemetry, choices: Choices
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self.lifetime = Lifetime()
        self._address = settings.server.address
        self._choices = choices
        self._allowed = choices.allowed or _allowed(settings.outbound.allow)
        self._backend = self._open_backend()
        self.now = self._backend.clock
        self._files = files
        self._background: list[asyncio.Task[None]] = []
        self.ring = Keyring(settings.secret)
        self.chain = chain_of(settings.secret)
        self.blobs = choices.blobs(settings.blobs.url)
        self.studio = Studio(STUDIO_THREADS)
        self.copies = Copies(self.blobs, self.studio)
        self._open_outbound()
        self.book = self._rulebook()
        self._open_store()
        self._open_inputs()
        self._open_jobs()
        self._open_webhooks()
        self.api = build_api(self._api_parts())

    # -- building ----------------------------------------------------------------------------------

    def _open_outbound(self) -> None:
        choices = self._choices
        adapters = {n: choices.adapters(p.kind, p.base_url) for n, p in self.settings.providers.items()}
        self.outbound = Outbound(
            {
                name: credential
                for name, entry in self.settings.providers.items()
                if (credential := _credential(adapters[name], entry)) is not None
            },
            self._allowed,
            local={HOST: SandboxUpstream(self.studio, marks=choices.dev).answer},
        )
        self.upstreams = Upstreams(adapters, self.outbound, self.telemetry, self.now)

    def _open_backend(self) -> Backend:
        """Open what the store stands on: its time is everybody's here."""
        how = How(
            me=self._ref(),
            clock=self._choices.now,
            crash=self._choices.crash,
            unreadable=lambda job: self.telemetry.alarm("job_unreadable", job=job),
            name=f"{platform.node()}:{os.getpid()}",
        )
        return self._choices.behind(open_backend(self.settings.store.place, how))

    def _open_store(self) -> None:
        engine = Engine(
            self._backend,
            self.chain,
            self._ref,
            crash=self._choices.crash,
            leases=self._choices.leases,
            hears=Hears(self.telemetry.committed, self._rewound),
        )
        self.store = self._choices.around(engine)
        self.callers = Callers(self.store, lambda: self.book, self.now)

    def _open_inputs(self) -> None:
        crash, outbound = self._choices.crash, self.outbound
        self.links = Links(self.ring, self.public_url)
        self.uploads = Uploads(
            UploadParts(
                store=self.store,
                blobs=self.blobs,
                doors=Doors(self.ring, self.public_url),
                ring=self.ring,
                studio=self.studio,
                judge=outbound.judge,
                mint=self._mint,
                now=self.now,
            )
        )
        self.inputs = Inputs(
            self.store, self.blobs, self.studio, self.ring, self.links, outbound.fetch, crash
        )

    def _open_jobs(self) -> None:
        settings, choices = self.settings, self._choices
        self.pressure = Pressure(self.store, settings.worker.bounds, self.telemetry, self.now)
        self.jobs = Jobs(
            self.store,
            lambda: self.book,
            self.ring,
            self.blobs,
            self._mint,
            self.now,
            choices.crash,
            pins=self.uploads,
            full=self.pressure.full,
            chance=choices.chance,
        )
        parts = Parts(
            store=self.store,
            upstreams=self.upstreams,
            inputs=self.inputs,
            intake=Intake(self.blobs, self.studio, self.ring, self.telemetry, choices.crash),
            lifetime=self.lifetime,
            now=self.now,
            chance=choices.chance,
            attempt_seconds=settings.worker.attempt_seconds,
            deadline_seconds=settings.worker.job_deadline_seconds,
            crash=choices.crash,
        )
        self.worker = self._worker(parts)
        days = settings.retention
        retention = Retention(days.jobs_days * DAY_MS, days.trail_days * DAY_MS)
        self.sweeper = Sweeper(self.store, self.blobs, self.ring, self.telemetry, retention, self.lifetime)
        self.keys = Keys(
            self.store,
            lambda: self.book.bundle.plans,
            self.callers.turned_away,
            self._mint,
            choices.coin,
            self.now,
        )
        self.authenticator = Authenticator(self._trusted(), now=self.now, find_key=self.keys.find)

    def _worker(self, parts: Parts) -> Worker:
        leases, n = self._choices.leases, self.settings.worker.concurrency
        return Worker(parts, self.telemetry, n, renew_seconds=leases.renew_seconds, lease_ms=leases.job_ms)

    def _open_webhooks(self) -> None:
        """Build what registers webhooks and what tells them, over connections of their own."""
        choices, settings = self._choices, self.settings.webhooks
        allowed = replace(self._allowed, loopback=True) if choices.dev else self._allowed
        self.herald = Outbound({}, allowed, connections=deliveries.CONCURRENCY)
        self.webhooks = Webhooks(
            self.store,
            self.ring,
            self.herald.judge,
            self.callers.turned_away,
            self._mint,
            choices.coin,
            self.now,
        )
        views = Views(self.links, self.public_url)
        parts = deliveries.Parts(
            store=self.store,
            send=self.herald.send,
            render=Bodies(views, webhook_body).render,
            ring=self.ring,
            lifetime=self.lifetime,
            now=self.now,
            chance=choices.chance,
            attempt_seconds=settings.attempt_seconds,
            disable_after=settings.disable_after,
            crash=choices.crash,
            margin_ms=choices.leases.delivery_margin_ms,
        )
        self.deliverer = Deliverer(parts, self.telemetry)

    def _speakers(self) -> tuple[Speaker, ...]:
        parts = SpeakerParts(
            jobs=self.jobs,
            uploads=self.uploads,
            studio=self.studio,
            webhooks=self.webhooks,
            links=self.links,
            blobs=self.blobs,
            lifetime=self.lifetime,
            telemetry=self.telemetry,
            sync_seconds=self.settings.server.sync_wait_seconds,
        )
        return (GptImage2Plus(parts), GptImage2Ai(parts), OpenAI(parts))

    def _api_parts(self) -> ApiParts:
        server = self.settings.server
        return ApiParts(
            callers=self.callers,
            jobs=self.jobs,
            uploads=self.uploads,
            trail=Trail(self.store),
            keys=self.keys,
            webhooks=self.webhooks,
            authenticator=self.authenticator,
            keyring=self.ring,
            links=self.links,
            speakers=self._speakers(),
            blobs=self.blobs,
            copies=self.copies,
            telemetry=self.telemetry,
            lifetime=self.lifetime,
            ping=self.store.ping,
            plan_of=self._plan_of,
            public_url=self.public_url,
            version=VERSION,
            cors_origins=server.cors_origins,
            trusted_proxies=server.trusted_proxies,
            max_wait_seconds=server.max_wait_seconds,
            body_seconds=self._choices.body_seconds,
            dev=self._choices.dev,
            extra=self._pages(),
            coin=self._choices.coin,
        )

    def _pages(self) -> dict[str, ASGIApp]:
        """Return what is served beside the API: the browser's client always, the playground by choice."""
        given = self._choices.extra
        if not self.settings.server.playground:
            return {**library(), **given}
        shown = playground(self.public_url, self._elsewhere, dev=TOKEN_PATH in given)
        return {**library(), **shown, **given}

    async def _elsewhere(self) -> str | None:
        """Return an address such as pictures are read from, if blobs have their own."""
        return await self.blobs.get_url(f"{folder(self.ring, '_', self._mint())}/0.png", 60)

    def _trusted(self) -> list[Trusted]:
        issuers = [trust(i, fetch=self._fetch_keys, now=self.now) for i in self.settings.auth.issuers]
        return [*issuers, dev_issuer(self.settings.secret)] if self._choices.dev else issuers

    def _rulebook(self) -> Rulebook:
        """Return the policies in force. In dev every tenant has the plan `pro`."""
        bundle = self._files.current()
        if self._choices.dev and DEV_PLAN in bundle.plans:
            bundle = replace(bundle, tenants={**bundle.tenants, "*": TenantRow(DEV_PLAN)})
        return Rulebook.of(bundle, self.upstreams.offers())

    # -- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work: check what must be there, claim jobs, sweep, look for changed policies."""
        await self.store.start()
        await self.blobs.check()
        loop = asyncio.get_running_loop()
        works = self._choices.role != "api"
        if works and self.settings.worker.concurrency:
            self.worker.start()
            self.deliverer.start()
        self._background = [
            loop.create_task(self._reload(), name="policies"),
            loop.create_task(self.pressure.run(self.lifetime), name="backlog"),
        ]
        if works:
            self._background.append(loop.create_task(self.sweeper.run(), name="sweep"))
        self.telemetry.watch(Reading.IN_FLIGHT, lambda: len(self.worker))
        self.lifetime.become_ready()

    async def drain(self) -> None:
        """Take no new work, let calls under way finish, give the rest back."""
        self.lifetime.begin_drain()
        seconds = self.settings.worker.drain_seconds
        await asyncio.gather(self.worker.drain(seconds), self.deliverer.drain(seconds))

    async def close(self) -> None:
        """Let go of everything. After `drain`."""
        self.lifetime.end()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.authenticator.close()
        await self.outbound.close()
        await self.herald.close()
        await self.store.close()
        await self.copies.close()
        await self.blobs.close()
        self.studio.close()

    async def _reload(self) -> None:
        """Swap the policies when their files change; a change with mistakes is told and not taken."""
        while not await self.lifetime.pause(self._choices.policy_seconds):
            try:
                await self._look()
            except Exception as bug:  # noqa: BLE001 - policies that stop being read unseen are worse; it is told
                self.telemetry.bug(bug, kind="policies")

    async def _look(self) -> None:
        found = await self._files.poll()
        if isinstance(found, list):
            self.telemetry.alarm("policy_rejected", mistakes=len(found))
        elif found is not None:
            self.book = self._rulebook()
            self.telemetry.event("policy", policy_version=self.book.version)

    # -- small things others ask for ---------------------------------------------------------------

    def public_url(self) -> str:
        """Return the address links begin with."""
        chosen = self._choices.public_url
        return self._address if chosen is None else chosen()

    def _rewound(self, tenant: str, shut: Shut) -> None:
        self.telemetry.alarm("store_rewound", tenant=tenant, version=shut.version, found=shut.found)

    def _plan_of(self, caller: Caller) -> str | None:
        row = self.book.bundle.tenant(caller.principal.tenant)
        return caller.principal.plan or (None if row is None else row.plan)

    def _mint(self) -> str:
        return uuid7(self.now(), self._choices.coin(10))

    def _ref(self) -> str:
        return self._choices.coin(12).hex()

    async def _fetch_keys(self, url: str) -> bytes | None:
        request = WireRequest("GET", url, seconds=JWKS_SECONDS, max_bytes=JWKS_BYTES)
        answer = await self.outbound.send(request)
        return answer.body if isinstance(answer, WireResponse) and answer.status == 200 else None


def chain_of(secret: tuple[Secret, ...]) -> Chain:
    """Return the trail's keys: the first secret's seals, all verify."""
    rings = [Keyring([each]) for each in secret]
    return Chain({ring.key_id("audit"): ring.sign("audit", b"trail 1") for ring in rings})


def _credential(adapter: Adapter, entry: ProviderSettings) -> Credential | None:
    if entry.key is None:
        return None
    header, value = adapter.authorize(entry.key.reveal())
    return open_credential(adapter.base_url, header, Secret(value), adapter.hosts)


def _allowed(entries: tuple[str, ...]) -> Allowed:
    allowed = read_allowed(entries)
    if not isinstance(allowed, Allowed):
        raise Refusal("outbound.allow: " + "; ".join(f"{flaw.pointer} {flaw.detail}" for flaw in allowed))
    return allowed
