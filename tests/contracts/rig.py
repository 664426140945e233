"""What the store's tests stand on: a clock moved by hand, small limits, jobs, and ways to open a store.

A back end joins every suite here by one line of `OPENERS`. Files lie in memory where the machine has
such a folder; `synchronous` stays as it is in production.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

from gateway.audit import Chain, Record
from gateway.store.backend import Backend
from gateway.store.contract import (
    Claim,
    Count,
    Decide,
    Denied,
    End,
    Erased,
    Key,
    Leases,
    Replayed,
    Submitted,
)
from gateway.store.contract import Conflict as KeyConflict
from gateway.store.engine import LEASE_MS, LEASES, PATIENCE, Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.sqlite import SqliteBackend
from policies import lifecycle, quota
from policies.model import Attempt, Deny, Job, JobRequest, Output, Step, Usage
from tests.fakes.cluster import one
from tests.fakes.redis import server

NOVEMBER: Final = 1_793_534_400_000
"""2026-11-01T12:00:00Z."""
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
MEMORY: Final = Path("/dev/shm")
KEYS: Final = {"k2": b"n" * 32, "k1": b"o" * 32}
SAID: Final = Record(action="job.submit", model="standard")
WIDE: Final = quota.Limits(submit=10**6, in_flight=10**6, monthly_cap=10**9, write=10**6)
OPEN_TERMS: Final = quota.Terms(WIDE, WIDE, 10**9)
"""Limits that nothing here meets."""

Answer = Submitted | Replayed | KeyConflict | Erased | Denied
Wrap = Callable[[Backend], Backend]


class Clock:
    """The store's time. It moves when it is told to."""

    def __init__(self, at: int = NOVEMBER) -> None:
        self.at = at

    def __call__(self) -> int:
        """Return the time."""
        return self.at

    def forward(self, ms: int) -> None:
        """Let time pass."""
        self.at += ms


def open_sqlite(place: Path, clock: Clock) -> Backend:
    """Open the SQLite back end at a place."""
    return SqliteBackend(place / "safelight.db", clock)


def open_redis(place: Path, clock: Clock) -> Backend:
    """Open the Redis back end, under names of the place's own."""
    return RedisBackend(Place(server().url), How(uuid4().hex, clock), prefix=f"{place.name}:")


def open_cluster(place: Path, clock: Clock) -> Backend:
    """Open the Redis back end on a Cluster of one node, which refuses keys of two slots in one script."""
    return RedisBackend(Place(one().url), How(uuid4().hex, clock), prefix=f"{place.name}:")


OPENERS: Final[dict[str, Callable[[Path, Clock], Backend]]] = {
    "cluster": open_cluster,
    "redis": open_redis,
    "sqlite": open_sqlite,
}


class Rig:
    """One place, one clock, and the engines opened there. Mints jobs by number."""

    def __init__(self, kind: str, place: Path, wrap: Wrap = lambda backend: backend) -> None:
        self.clock = Clock()
        self.chain = Chain(KEYS)
        self.place = place
        self.patience = PATIENCE
        self._open = OPENERS[kind]
        self._wrap = wrap
        self._numbers = itertools.count(1)
        self._engines: list[Engine] = []

    async def open(self) -> Engine:
        """Open the store; call it on the loop that will use it."""
        return self.engine(self._wrap(self.backend()))

    def backend(self) -> Backend:
        """Open a bare back end."""
        return self._open(self.place, self.clock)

    def engine(self, backend: Backend, leases: Leases = LEASES) -> Engine:
        """Return an engine over a back end; it is closed with the rig."""
        engine = Engine(backend, self.chain, self._mint, leases=leases, patience=self.patience)
        self._engines.append(engine)
        return engine

    def _mint(self) -> str:
        return f"r{next(self._numbers):031x}"

    async def shut(self, engine: Engine) -> None:
        """Close an engine before the test is over."""
        self._engines.remove(engine)
        await engine.close()

    async def close(self) -> None:
        """Close what is still open."""
        while self._engines:
            await self._engines.pop().close()

    def uuid(self) -> str:
        """Return an id that was not given before."""
        return f"01932c07-0000-7000-8000-{next(self._numbers):012x}"

    def job(self, tenant: str = "acme", subject: str = "ann", **fields: object) -> Job:
        """Return a job that asks for `count` images, 10 credits each unless said."""
        count = fields.pop("count", 1)
        made: dict[str, object] = {
            "price_each": 10,
            "model": "standard",
            "slots": (1,) * int(str(count)),
            "route": (Step("main", "sandbox", "m"),),
            "policy_version": "p1_0123456789abcdef",
        }
        request = JobRequest(prompt=str(fields.pop("prompt", "a lighthouse")), count=int(str(count)))
        return Job(self.uuid(), tenant, subject, request, **{**made, **fields})  # type: ignore[arg-type]


def admitting(job: Job, terms: quota.Terms = OPEN_TERMS) -> Decide:
    """Return the rule by which a job is admitted."""
    return lambda usage, now: quota.admit(usage, now, job=job.id, price=job.quoted, terms=terms)


def counting(terms: quota.Terms = OPEN_TERMS) -> Count:
    """Return the rule by which a write is counted."""

    def count(usage: Usage, now: int) -> Usage | Deny:
        return quota.count(usage, now, "write", terms)

    return count


async def submit(store: Engine, job: Job, key: str | None = None, terms: quota.Terms = OPEN_TERMS) -> Answer:
    """Submit a job, with a key if there is one."""
    bound = None if key is None else Key(key, job.request.fingerprint())
    return await store.submit(job, admitting(job, terms), SAID, key=bound)


async def put(store: Engine, job: Job) -> Job:
    """Submit a job that is admitted; return it as it is stored."""
    answer = await submit(store, job)
    assert isinstance(answer, Submitted)
    return answer.job


async def take(store: Engine, n: int = 1) -> list[Claim]:
    """Claim that many jobs, not fewer."""
    claims = await store.claim(n, LEASE_MS)
    assert len(claims) == n
    return list(claims)


def attempt(slot: int = 0, n: int = 1, deadline_at: int = NOVEMBER + 60_000, **fields: object) -> Attempt:
    """Return an open attempt."""
    return Attempt(slot, n, 0, deadline_at, **fields)  # type: ignore[arg-type]


def output(index: int) -> Output:
    """Return an image."""
    return Output(index, f"{'0' * 16}/x/{index}.png", "image/png", 1024, 1024, 9, "0" * 64)


def ending(made: int, code: str = "upstream_failed") -> End:
    """Return how a job ends that made so many of its images, in slots of one."""

    def end(job: Job, now: int) -> Job:
        for slot in range(job.request.count):
            there = (output(slot),) if slot < made else ()
            known = attempt(slot, 9, now, open=False, outputs=there, code=None if there else code)
            job = lifecycle.noted(job, known)
        return lifecycle.concluded(job, now)

    return end


async def rounds(n: int = 20) -> None:
    """Let the loop turn."""
    for _ in range(n):
        await asyncio.sleep(0)
