"""What a run stands on: a folder with its configuration, three fakes, and one life of the gateway at a time.

Fakes are processes that outlive every kill, and write what they are asked to logs of their own. The
gateway's port and data stay the same from life to life.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gateway.store.sqlite import SqliteBackend
from tests.chaos.serve import Plant, mark
from tests.fakes import tokens
from tests.fakes.behavior import Call

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from typing import Self

    from policies.model import Job

ROOT = Path(__file__).parents[2]
SECRET = "chaos-secret-of-forty-and-some-characters"
FAKES = {"openai": ("/v1", 10), "plus": ("/api/v1", 4), "ai": ("", 4)}
"""Our name of each upstream: what follows its address, and the most images one call makes."""
KINDS = {"openai": "openai", "plus": "gptimage2_plus", "ai": "gptimage2_ai"}
KEYS = {"openai": "sk-fake-openai", "plus": "gimg_fake", "ai": "fake-ai-key"}
TENANTS = ("acme", "globex", "initech")
START_SECONDS = 20.0


class Setup(Struct, frozen=True):
    """How a stage is built. `delay` is the seconds an image takes, by upstream."""

    delay: float = 0.12
    concurrency: int = 8
    attempt_seconds: int = 20
    drain_seconds: int = 21
    grace_seconds: int = 2
    plant: Plant = ""


class Open(Struct, frozen=True, order=True):
    """A paid call that was under way when a process died, and which nothing names."""

    job: str
    slot: int
    n: int


class Stage:
    """Fakes and a nursery. `begin` starts a life; `kill` and `stop` end it; `gone` says how it ended."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder = folder
        self.setup = setup
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.signer = tokens.signer()
        self.pid = 0
        self.lives = 0
        self.up = asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._procs: dict[str, Process] = {}
        self._fakes: dict[str, str] = {}
        self._reading: asyncio.Task[None] | None = None

    @property
    def store(self) -> Path:
        """Where the store's file lies."""
        return self.folder / "safelight.db"

    async def __aenter__(self) -> Self:
        try:
            environ = {**os.environ, "CHAOS_SECRET": SECRET, **{f"KEY_{n.upper()}": KEYS[n] for n in FAKES}}
            config = str(self.folder / "safelight.yaml")
            nursery = await self._start(
                "nursery", "tests.chaos.nursery", config, self.setup.plant, env=environ
            )
            self._fakes = dict(zip(FAKES, await asyncio.gather(*map(self._fake, FAKES)), strict=True))
            self._configure()
            self._reading = asyncio.create_task(self._read(nursery), name="nursery")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.pid:
            self.kill()
        for proc in self._procs.values():
            with contextlib.suppress(ProcessLookupError):
                proc.kill()
        await asyncio.gather(*(proc.wait() for proc in self._procs.values()))
        if self._reading is not None:
            await asyncio.wait([self._reading])

    # -- lives -------------------------------------------------------------------------------------

    async def begin(self, spec: str = "") -> bool:
        """Begin a life, with a crash point or without; return whether it came as far as to answer."""
        self.lives += 1
        self.ended = asyncio.get_running_loop().create_future()
        stdin = self._procs["nursery"].stdin
        assert stdin is not None
        stdin.write(f"{spec}\n".encode())
        up = asyncio.create_task(self.up.wait())
        await asyncio.wait((up, self.ended), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if not self.up.is_set() and not self.ended.done():
            raise RuntimeError(f"the gateway did not start: see {self.folder}")
        return self.up.is_set()

    def kill(self) -> None:
        """End this life with SIGKILL."""
        self.signal(signal.SIGKILL)

    def strike(self) -> None:
        """End this life with SIGKILL at a moment of our choice, and mark it."""
        mark(self.folder / "marks", "any moment")
        self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is anyone left to get it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def gone(self, seconds: float) -> int | None:
        """Wait for the end of this life; return its status (negative: a signal), None if it goes on."""
        await asyncio.wait((self.ended,), timeout=seconds)
        return self.ended.result() if self.ended.done() else None

    async def _read(self, nursery: Process) -> None:
        """Follow what the nursery and its child say."""
        assert nursery.stdout is not None
        async for raw in nursery.stdout:
            word, _, rest = raw.decode().strip().partition(" ")
            match word:
                case "born":
                    self.pid = int(rest)
                case "ready":
                    self.up.set()
                case "gone":
                    self.pid = 0
                    self.up.clear()
                    self.ended.set_result(int(rest))

    # -- what it left ------------------------------------------------------------------------------

    async def jobs(self) -> list[Job]:
        """Read every job of the store, beside whoever has it open."""
        backend = SqliteBackend(self.store, lambda: 0, read_only=True)
        try:
            return [job for t in await backend.tenants() for job in (await backend.examine(t)).jobs]
        finally:
            await backend.close()

    async def under_way(self) -> set[Open]:
        """Return the calls whose outcome nobody can learn: open, without an upstream id or a key."""
        return {
            Open(job.id, attempt.slot, attempt.n)
            for job in (await self.jobs() if self.store.exists() else [])
            if not job.state.ended
            for attempt in job.attempts
            if attempt.open and attempt.upstream_id is None and attempt.sent_key is None
        }

    def calls(self, fake: str) -> list[Call]:
        """Return what a fake was asked, from its own log."""
        lines = (self.folder / f"{fake}.calls").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Call) for line in lines]

    def hits(self) -> Counter[str]:
        """Count what killed the gateway, from the marks on disk."""
        marks = self.folder / "marks"
        return Counter(marks.read_text().split("\n")[:-1]) if marks.exists() else Counter()

    # -- setting up --------------------------------------------------------------------------------

    def token(self, tenant: str, subject: str, **more: Any) -> str:
        """Return a token of the issuer this stage trusts."""
        now = int(time.time())
        claims = {"tenant": tenant, "sub": subject, "iat": now - 5, "exp": now + 7200, **more}
        return tokens.token(self.signer, claims).decode()

    async def _fake(self, name: str) -> str:
        more = ["--log", str(self.folder / f"{name}.calls"), "--delay", str(self.setup.delay)]
        proc = await self._start(name, f"tests.fakes.{KINDS[name]}", *more)
        assert proc.stdout is not None
        (self.folder / f"{name}.calls").touch()
        return (await proc.stdout.readline()).decode().split()[1]

    async def _start(
        self, name: str, module: str, *arguments: str, env: dict[str, str] | None = None
    ) -> Process:
        pipe = asyncio.subprocess.PIPE
        with (self.folder / f"{name}.err").open("ab") as errors:
            self._procs[name] = proc = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                cwd=ROOT,
                env=env,
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
            )
        return proc

    def _configure(self) -> None:
        """Write settings, key set and policies; JSON is YAML too."""
        folder, setup = self.folder, self.setup
        (folder / "keys.json").write_bytes(tokens.jwks(self.signer))
        (folder / "policies").mkdir()
        (folder / "policies" / "bundle.yaml").write_text(json.dumps(_bundle()))
        issuer = {
            "issuer": tokens.ISSUER,
            "audience": tokens.AUDIENCE,
            "jwks_file": str(folder / "keys.json"),
        }
        settings: dict[str, Any] = {
            "server": {"host": "127.0.0.1", "port": self.port, "grace_seconds": setup.grace_seconds},
            "worker": {
                "concurrency": setup.concurrency,
                "attempt_seconds": setup.attempt_seconds,
                "drain_seconds": setup.drain_seconds,
                "job_deadline_seconds": 300,
            },
            "store": {"url": f"sqlite:///{self.store}"},
            "blobs": {"url": f"file://{folder / 'blobs'}"},
            "auth": {"issuers": [issuer]},
            "providers": {
                name: {
                    "kind": KINDS[name],
                    "key": f"${{env:KEY_{name.upper()}}}",
                    "base_url": url + FAKES[name][0],
                }
                for name, url in self._fakes.items()
            },
            "policies": {"path": str(folder / "policies")},
            "secret": ["${env:CHAOS_SECRET}"],
        }
        (folder / "safelight.yaml").write_text(json.dumps(settings))


def _bundle() -> dict[str, Any]:
    """Return policies whose limits are out of the way: one plan, a model for each upstream."""
    wide = {"user": 1_000_000, "tenant": 1_000_000}
    plan = {
        "credits_per_month": 10**9,
        "monthly_cap": 10**9,
        "submit_per_hour": wide,
        "in_flight": wide,
        "streams": 1000,
        "count": 10,
        "prompt": 4000,
        "models": list(FAKES),
        "queue_weight": 100,
    }
    size = {"size": "1024x1024", "ratio": "1:1", "tier": "1K"}
    model = {
        "sizes": [size],
        "operations": ["generate", "edit"],
        "qualities": ["medium"],
        "formats": ["png"],
        "backgrounds": ["auto"],
    }
    return {
        "plans": {"wide": plan},
        "tenants": {"*": {"plan": "wide"}},
        "prices": [{"max_pixels": 8_294_400, "medium": 10}],
        "models": {name: {**model, "route": [{"entry": name, "model": "gpt-image-2"}]} for name in FAKES},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
