"""What a run stands on: a folder with its settings, three fakes, a store, and the lives of the gateway.

Fakes are processes that outlive every kill, and write what they are asked to logs of their own. Ports and
data stay the same from life to life.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.store.contract import JobFilter
from policies.model import JobState
from tests.chaos.grounds import FileGround, RedisGround
from tests.chaos.life import Life, spawn
from tests.chaos.marks import counted
from tests.fakes import tokens
from tests.fakes.behavior import Call
from tests.fakes.redis import free_port

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable
    from typing import Self

    from gateway.settings import Role
    from gateway.store.backend import Backend
    from policies.model import Job
    from tests.chaos.grounds import Ground
    from tests.chaos.plants import Plant

SECRET: Final = "chaos-secret-of-forty-and-some-characters"
FAKES: Final = {"openai": ("/v1", 10), "plus": ("/api/v1", 4), "ai": ("", 4)}
"""Our name of each upstream: what follows its address, and the most images one call makes."""
KINDS: Final = {"openai": "openai", "plus": "gptimage2_plus", "ai": "gptimage2_ai"}
KEYS: Final = {"openai": "sk-fake-openai", "plus": "gimg_fake", "ai": "fake-ai-key"}
TENANTS: Final = ("acme", "globex", "initech")
"""Whose limits are out of the way."""
PRICE: Final = 10
WIDE: Final = {"user": 1_000_000, "tenant": 1_000_000}
TIGHT: Final[dict[str, dict[str, Any]]] = {
    "narrow": {"in_flight": {"user": 1, "tenant": 2}},
    "metered": {"submit_per_hour": {"user": 4, "tenant": 10}},
    "thrifty": {"credits_per_month": 100},
    "capped": {"monthly_cap": 100},
}
"""Tenants with one limit each that is soon reached, by the fields of their plan that are not wide."""
PLAN: Final[dict[str, Any]] = {
    "credits_per_month": 10**9,
    "monthly_cap": 10**9,
    "submit_per_hour": WIDE,
    "in_flight": WIDE,
    "streams": 1000,
    "count": 10,
    "prompt": 4000,
    "models": list(FAKES),
    "queue_weight": 100,
}
OPEN_CALLS: Final = JobFilter(states=frozenset({JobState.RUNNING}))
MOST: Final = 5_000
"""Running jobs of a tenant that are looked at."""


class Setup(Struct, frozen=True):
    """How a stage is built: on which store, by which processes. `delay` is the seconds an image takes."""

    store: Literal["sqlite", "redis"] = "sqlite"
    roles: tuple[Role, ...] = ("all",)
    delay: float = 0.12
    concurrency: int = 8
    attempt_seconds: int = 6
    drain_seconds: int = 8
    grace_seconds: int = 10
    plant: Plant = ""


class Open(Struct, frozen=True, order=True):
    """A paid call that was under way at a fault, and which nothing names."""

    job: str
    slot: int
    n: int


class Stage:
    """Fakes, a store, and lives by their names. In a stage of one process that is `life`."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder = folder
        self.setup = setup
        self.signer = tokens.signer()
        self.ground: Ground = (FileGround if setup.store == "sqlite" else RedisGround)(folder)
        self.lives: list[Life] = []
        self.fakes: dict[str, str] = {}
        self._procs: list[Process] = []

    @property
    def life(self) -> Life:
        """The first process."""
        return self.lives[0]

    @property
    def gates(self) -> list[Life]:
        """The processes clients may go to."""
        return [life for life in self.lives if life.role != "worker"]

    async def __aenter__(self) -> Self:
        try:
            await self.ground.__aenter__()
            environ = {**os.environ, "CHAOS_SECRET": SECRET, **{f"KEY_{n.upper()}": KEYS[n] for n in FAKES}}
            self.fakes = dict(zip(FAKES, await asyncio.gather(*map(self._fake, FAKES)), strict=True))
            self._prepare()
            numbers = itertools.count(1)
            for role in self.setup.roles:
                config = self.folder / f"{role}{next(numbers)}.yaml"
                self.lives.append(self._configure(config, role))
            await asyncio.gather(*(life.open(self.setup.plant, environ) for life in self.lives))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(life.close() for life in self.lives))
        for proc in self._procs:
            with contextlib.suppress(ProcessLookupError):
                proc.kill()
        await asyncio.gather(*(proc.wait() for proc in self._procs))
        await self.ground.__aexit__()

    # -- what it left ------------------------------------------------------------------------------

    async def jobs(self) -> list[Job]:
        """Read every job of the store, beside whoever has it open."""
        found: list[Job] = await self._read(self._all, [])
        return found

    async def under_way(self) -> set[Open]:
        """Return the calls whose outcome nobody can learn: open, without an upstream id or a key."""
        jobs: list[Job] = await self._read(self._running, [])
        return {
            Open(job.id, attempt.slot, attempt.n)
            for job in jobs
            for attempt in job.attempts
            if attempt.open and attempt.upstream_id is None and attempt.sent_key is None
        }

    async def _read(self, look: Callable[[Backend], Awaitable[Any]], nothing: Any) -> Any:
        async with self.ground.standing():
            backend = self.ground.read()
            if backend is None:
                return nothing
            try:
                return await look(backend)
            finally:
                await backend.close()

    async def _all(self, backend: Backend) -> list[Job]:
        return [job for t in await backend.tenants() for job in (await backend.examine(t)).jobs]

    async def _running(self, backend: Backend) -> list[Job]:
        pages = [await backend.page(t, OPEN_CALLS, None, MOST) for t in await backend.tenants()]
        return [job for page in pages for job in page.jobs]

    def calls(self, fake: str) -> list[Call]:
        """Return what a fake was asked, from its own log."""
        lines = (self.folder / f"{fake}.calls").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Call) for line in lines]

    def hits(self) -> Counter[str]:
        """Count the faults that happened, from the marks on disk."""
        return counted(self.folder / "marks")

    # -- setting up --------------------------------------------------------------------------------

    def token(self, tenant: str, subject: str, **more: Any) -> str:
        """Return a token of the issuer this stage trusts."""
        now = int(time.time())
        claims = {"tenant": tenant, "sub": subject, "iat": now - 5, "exp": now + 7200, **more}
        return tokens.token(self.signer, claims).decode()

    async def _fake(self, name: str) -> str:
        log = self.folder / f"{name}.calls"
        words = ("-m", f"tests.fakes.{KINDS[name]}", "--log", str(log), "--delay", str(self.setup.delay))
        proc = await spawn(self.folder / f"{name}.err", *words)
        self._procs.append(proc)
        assert proc.stdout is not None
        log.touch()
        return (await proc.stdout.readline()).decode().split()[1]

    def _prepare(self) -> None:
        """Write key set and policies; JSON is YAML too."""
        (self.folder / "keys.json").write_bytes(tokens.jwks(self.signer))
        (self.folder / "policies").mkdir()
        (self.folder / "policies" / "bundle.yaml").write_text(json.dumps(_bundle()))

    def _configure(self, config: Path, role: Role) -> Life:
        """Write the settings of one process."""
        folder, setup, port = self.folder, self.setup, free_port()
        issuer = {
            "issuer": tokens.ISSUER,
            "audience": tokens.AUDIENCE,
            "jwks_file": str(folder / "keys.json"),
        }
        settings: dict[str, Any] = {
            "server": {"host": "127.0.0.1", "port": port, "grace_seconds": setup.grace_seconds},
            "worker": {
                "concurrency": setup.concurrency,
                "attempt_seconds": setup.attempt_seconds,
                "drain_seconds": setup.drain_seconds,
                "job_deadline_seconds": 100,
            },
            "store": {"url": self.ground.url},
            "blobs": {"url": f"file://{folder / 'blobs'}"},
            "auth": {"issuers": [issuer]},
            "providers": {
                name: {
                    "kind": KINDS[name],
                    "key": f"${{env:KEY_{name.upper()}}}",
                    "base_url": url + FAKES[name][0],
                }
                for name, url in self.fakes.items()
            },
            "policies": {"path": str(folder / "policies")},
            "webhooks": {"attempt_seconds": 5, "disable_after": 10_000},
            "secret": ["${env:CHAOS_SECRET}"],
        }
        config.write_text(json.dumps(settings))
        return Life(config, role, port)


def _bundle() -> dict[str, Any]:
    """Return policies: a wide plan, one with a limit for each tight tenant, a model for each upstream."""
    size = {"size": "1024x1024", "ratio": "1:1", "tier": "1K"}
    model = {
        "sizes": [size],
        "operations": ["generate", "edit"],
        "qualities": ["medium"],
        "formats": ["png"],
        "backgrounds": ["auto"],
    }
    return {
        "plans": {"wide": PLAN, **{name: {**PLAN, **less} for name, less in TIGHT.items()}},
        "tenants": {"*": {"plan": "wide"}, **{name: {"plan": name} for name in TIGHT}},
        "prices": [{"max_pixels": 8_294_400, "medium": PRICE}],
        "models": {name: {**model, "route": [{"entry": name, "model": "gpt-image-2"}]} for name in FAKES},
    }
