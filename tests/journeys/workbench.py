"""A worker with all it works with: a real store, real HTTP to fakes, a clock and waits that tests own.

Every entry of a workbench is a fake upstream, reached by a name of its own through the judged sender. The
store is a SQLite file, so a workbench can be opened again on what another one left. `Hasty` turns each
pause of a run into a step of its clock: what takes fifteen minutes takes none, and is written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.audit import Chain, Record
from gateway.blobs import FolderBlobs, Links
from gateway.crash import Hook, nowhere
from gateway.images import Studio
from gateway.inputs import Inputs
from gateway.intake import Intake
from gateway.lifetime import Lifetime
from gateway.outbound import Credential, Outbound, open_credential
from gateway.providers import open_adapter
from gateway.runs import Parts, Run
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.sqlite import SqliteBackend
from gateway.telemetry import Telemetry
from gateway.upstreams import Upstreams
from gateway.worker import RENEW_SECONDS, Worker
from policies import quota
from policies.egress import Allowed
from policies.model import Job, JobRequest, Shaping, Step, Usage
from tests.fakes import gptimage2_ai, gptimage2_plus, openai
from tests.fakes.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.providers.adapter import Adapter
    from gateway.store.contract import Claim, Store
    from tests.fakes.behavior import Behavior
    from tests.fakes.server import Fake

PRICE = 10
RING = Keyring([Secret("s" * 32)])
LINKS_URL = "https://images.example.com"
PATIENCE = 20.0
WIDE = quota.Limits(submit=10**6, in_flight=10**6, monthly_cap=10**9)
TERMS = quota.Terms(WIDE, WIDE, credits_per_month=100_000)
_KINDS: Mapping[str, tuple[str, Callable[..., Fake], str]] = {
    "main": ("openai", openai.fake, "/v1"),
    "spare": ("openai", openai.fake, "/v1"),
    "plus": ("gptimage2_plus", gptimage2_plus.fake, "/api/v1"),
    "ai": ("gptimage2_ai", gptimage2_ai.fake, ""),
}


class Hasty(Lifetime):
    """A life whose pauses take no time: `waits` holds their seconds, and the clock moves by them."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float] = []

    async def pause(self, seconds: float) -> bool:
        """Let the time pass at once."""
        if not self.draining:
            self.waits.append(seconds)
            self.clock.ahead += int(seconds * 1000)
        await asyncio.sleep(0)
        return self.draining


class Names:
    """A resolver that knows the entries' names; `fail` makes coming lookups of one come to nothing."""

    def __init__(self) -> None:
        self._coming: defaultdict[str, list[bool]] = defaultdict(list)

    def fail(self, entry: str, times: int, after: int = 0) -> None:
        """Let `after` lookups pass and `times` fail; then they work again."""
        self._coming[host(entry)] += [True] * after + [False] * times

    async def __call__(self, name: str) -> Sequence[str]:
        """Return the address of any name, unless this lookup is to fail."""
        coming = self._coming[name]
        if coming and not coming.pop(0):
            raise OSError("no such name")
        return ["127.0.0.1"]


def host(entry: str) -> str:
    """Return the name an entry's upstream is reached by."""
    return f"{entry}.example.com"


class Workbench:
    """One process's worker. `run_clock` is the runs' own, ahead of the store's by their pauses."""

    def __init__(
        self,
        folder: Path,
        fakes: Mapping[str, Fake],
        *,
        attempt_seconds: float = 10.0,
        deadline_seconds: float = 120.0,
        crash: Hook = nowhere,
        lifetime: Lifetime | None = None,
        clock: Clock | None = None,
        bases: Mapping[str, str] | None = None,
        renew_seconds: float = RENEW_SECONDS,
        concurrency: int = 16,
        store: Callable[[Engine], Store] = lambda engine: engine,
        strangers: frozenset[tuple[str, int]] = frozenset(),
    ) -> None:
        self.fakes = fakes
        self.clock = clock or Clock()
        self.run_clock = Clock()
        self.lifetime = lifetime or Hasty(self.run_clock)
        self.sink = io.BytesIO()
        self.telemetry = Telemetry(self.sink, self.clock)
        self.studio = Studio(1)
        self.blobs = FolderBlobs(folder / "blobs")
        self.engine = _engine(folder / "store.db", self.clock, crash)
        self.outbound = self._open_outbound(bases or {}, strangers)
        self.upstreams = Upstreams(self._adapters, self.outbound, self.telemetry, self._now)
        self.parts = Parts(
            store=store(self.engine),
            upstreams=self.upstreams,
            inputs=self._inputs(crash),
            intake=Intake(self.blobs, self.studio, RING, self.telemetry, crash),
            lifetime=self.lifetime,
            now=self._now,
            chance=lambda: 0.5,
            attempt_seconds=attempt_seconds,
            deadline_seconds=deadline_seconds,
            crash=crash,
        )
        self.worker = Worker(self.parts, self.telemetry, concurrency, renew_seconds=renew_seconds)

    def _inputs(self, crash: Hook) -> Inputs:
        links = Links(RING, lambda: LINKS_URL)
        return Inputs(self.engine, self.blobs, self.studio, RING, links, self.outbound.fetch, crash)

    def _now(self) -> int:
        return self.clock() + self.run_clock.ahead

    def _open_outbound(self, bases: Mapping[str, str], strangers: frozenset[tuple[str, int]]) -> Outbound:
        self.names = Names()
        self._adapters: dict[str, Adapter] = {}
        credentials: dict[str, Credential] = {}
        sockets = set()
        for entry, fake in self.fakes.items():
            kind, _make, path = _KINDS[entry]
            port = int(fake.url.rpartition(":")[2])
            base = bases.get(entry, "http://{host}:{port}" + path).format(host=host(entry), port=port)
            adapter = open_adapter(kind, base)
            header, value = adapter.authorize(fake.key)
            self._adapters[entry] = adapter
            credentials[entry] = open_credential(adapter.base_url, header, Secret(value))
            sockets.add((host(entry), port))
        return Outbound(credentials, Allowed(sockets=strangers | sockets), resolve=self.names)

    # -- what a test does ----------------------------------------------------------------------------

    async def submit(
        self,
        *route: str,
        slots: tuple[int, ...] = (1,),
        prompt: str = "a lighthouse",
        besides: Mapping[str, Any] = {},
        **fields: Any,
    ) -> Job:
        """Submit a job as the use case would: held and due. What time runs had passed is the store's too.

        `fields` are the request's, `besides` the job's own.
        """
        self.clock.ahead += self.run_clock.ahead
        self.run_clock.ahead = 0
        request = JobRequest(prompt=prompt, count=sum(slots), **fields)
        job = Job(
            id=str(uuid.uuid4()),
            tenant="acme",
            subject="ann",
            request=request,
            model="standard",
            size="1024x1024",
            aspect_ratio="1:1",
            shaping=Shaping(prompt),
            final_prompt=prompt,
            price_each=PRICE,
            slots=slots,
            route=tuple(Step(entry, _KINDS[entry][0], "gpt-image-2") for entry in route),
            **besides,
        )
        decide = partial(_admit, job)
        answer = await self.engine.submit(job, decide, Record("job.submit"))
        assert isinstance(answer, Submitted)
        return answer.job

    async def claim(self) -> Claim:
        """Lease the one job that is due."""
        (claim,) = await self.engine.claim(1, LEASE_MS)
        return claim

    async def run(self, claim: Claim | None = None) -> Job | None:
        """Claim a job and run it, without the worker around it."""
        return await Run(self.parts, claim or await self.claim()).finish()

    async def run_to_end(self, job: Job) -> Job:
        """Run a job, without the worker around it, and return it as it ended."""
        ended = await self.run()
        assert ended is not None
        assert ended.id == job.id
        return ended

    async def ended(self, job: Job) -> Job:
        """Wait for a job's end."""
        return await self.until(job, lambda found: found.state.ended)

    async def worked(self, job: Job) -> Job:
        """Let the worker make a job, tell of it, and stop."""
        self.worker.start()
        ended = await self.ended(job)
        await self.drain(PATIENCE)
        return ended

    async def idle(self) -> None:
        """Wait until the worker has no job."""
        async with asyncio.timeout(PATIENCE):
            while len(self.worker):  # noqa: ASYNC110 - a worker tells nobody that it idles
                await asyncio.sleep(0)

    async def pass_time(self, milliseconds: int) -> None:
        """Move the store's clock, and have the worker look again."""
        self.clock.ahead += milliseconds
        await self.engine.give_back([])

    async def until(self, job: Job, fits: Callable[[Job], bool]) -> Job:
        """Wait for a job to become what is asked."""
        found, version = job, 0
        async with asyncio.timeout(PATIENCE):
            while version == 0 or not fits(found):
                got = await self.engine.wait_job(job.tenant, job.id, version, PATIENCE)
                assert got is not None
                found, version = got, got.version
        return found

    async def cancel(self, job: Job) -> None:
        """Ask for a job's end, as its owner does."""
        await self.engine.cancel(job.tenant, job.id, lambda usage, _now: usage, Record("job.cancel"))

    async def usage(self) -> Usage:
        """Return the money as it stands."""
        return await self.engine.usage("acme", "ann")

    def script(self, entry: str, *behaviors: Behavior) -> None:
        """Tell a fake what to do wrong."""
        self.fakes[entry].script.add(*behaviors)

    def counts(self, entry: str) -> tuple[int, int]:
        """Return how many creating calls an upstream saw, and how many of them it was paid for."""
        return len(self.fakes[entry].seen("create")), self.fakes[entry].paid

    def alarms(self) -> list[str]:
        """Return the alarms that were told, each once."""
        text = self.telemetry.render()[0].decode()
        return sorted(re.findall(r'^safelight_alarms_total\{alarm="(\w+)"\}', text, re.MULTILINE))

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return what was told of one kind of event. Ends the telling."""
        self.telemetry.close()
        lines = map(json.loads, self.sink.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    @property
    def waits(self) -> list[float]:
        """Seconds that runs waited."""
        assert isinstance(self.lifetime, Hasty)
        return self.lifetime.waits

    async def drain(self, seconds: float = 0.0) -> None:
        """Stop the worker as a process that ends does."""
        self.lifetime.begin_drain()
        await self.worker.drain(seconds)

    async def close(self) -> None:
        """Let go of everything."""
        await self.drain()
        await self.outbound.close()
        await self.engine.close()
        self.studio.close()


def _engine(path: Path, clock: Clock, crash: Hook) -> Engine:
    backend = SqliteBackend(path, clock, crash=crash)
    return Engine(backend, Chain({"k": b"k" * 32}), lambda: uuid.uuid4().hex, crash=crash)


def _admit(job: Job, usage: Usage, now: int) -> Any:
    return quota.admit(usage, now, job=job.id, price=job.quoted, terms=TERMS)


@contextlib.asynccontextmanager
async def workbench(folder: Path, *entries: str, **options: Any) -> AsyncIterator[Workbench]:
    """Open a workbench with a fake for each entry."""
    async with upstreams(*entries) as fakes, reopened(folder, fakes, **options) as bench:
        yield bench


@contextlib.asynccontextmanager
async def upstreams(*entries: str) -> AsyncIterator[dict[str, Fake]]:
    """Open a fake for each entry."""
    async with contextlib.AsyncExitStack() as stack:
        yield {entry: await stack.enter_async_context(_KINDS[entry][1]()) for entry in entries}


@contextlib.asynccontextmanager
async def reopened(folder: Path, fakes: Mapping[str, Fake], **options: Any) -> AsyncIterator[Workbench]:
    """Open a workbench over what a folder holds and fakes that outlive it."""
    bench = Workbench(folder, fakes, **options)
    try:
        yield bench
    finally:
        await bench.close()
