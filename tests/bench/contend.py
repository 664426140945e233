"""One tenant wanted by many processes at once: three that submit without a pause, and a worker that records.

`python -m tests.bench.contend [SECONDS]` prints a line for 32 and one for 128 callers a process. Processes
of this module's own, each with the engine as it ships; a try is one asking of the rule.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import msgspec
import uvloop
from msgspec.structs import replace

from gateway.audit import Chain
from gateway.store.contract import Begun, Claim, Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from tests.contracts.rig import KEYS, SAID, Rig, admitting, attempt, ending
from tests.fakes.command import environ
from tests.fakes.redis import Redis

if TYPE_CHECKING:
    from gateway.store.contract import Decide
    from policies.model import Deny, Job, Usage
    from policies.quota import Admitted

APIS: Final = 3
SECONDS: Final = 3.0
TENANT: Final = "hot"
WORKERS: Final = 16


class Told(msgspec.Struct, frozen=True):
    """What one process did: how many, milliseconds each took, the most tries of one."""

    done: int
    took: list[float]
    tries: int


class Found(NamedTuple):
    """What all did together, and what one does alone."""

    alone: float
    rates: list[float]
    worker: float
    p99: float
    tries: int

    @property
    def together(self) -> float:
        """All submits a second, as a share of what one process does alone."""
        return sum(self.rates) / self.alone

    @property
    def slowest(self) -> float:
        """What the slowest process does, as a share of the mean."""
        return min(self.rates) * len(self.rates) / sum(self.rates)


class Tries:
    """Counts how often the rule is asked for one job."""

    def __init__(self, job: Job) -> None:
        self._decide: Decide = admitting(job)
        self.count = 0

    def __call__(self, usage: Usage, now: int) -> Admitted | Deny:
        """Ask the rule."""
        self.count += 1
        return self._decide(usage, now)


async def submits(engine: Engine, rig: Rig, callers: int, seconds: float) -> Told:
    """Submit without a pause."""
    until = time.perf_counter() + seconds
    took: list[float] = []
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        while (began := time.perf_counter()) < until:
            job = replace(rig.job(TENANT, f"s{number % 7}"), id=str(uuid4()))
            tries = Tries(job)
            answer = await engine.submit(job, tries, SAID)
            assert isinstance(answer, Submitted)
            took.append((time.perf_counter() - began) * 1000)
            most = max(most, tries.count)

    await asyncio.gather(*(call(number) for number in range(callers)))
    return Told(len(took), took, most)


async def records(engine: Engine, callers: int, seconds: float) -> Told:
    """Claim, begin and record without a pause."""
    until = time.perf_counter() + seconds
    took: list[float] = []

    async def run(claim: Claim) -> None:
        begun = await engine.begin_attempt(claim, attempt(deadline_at=await engine.now() + 60_000))
        assert isinstance(begun, Begun)
        began = time.perf_counter()
        await engine.record(Claim(begun.job, claim.fence), ending(1), SAID)
        took.append((time.perf_counter() - began) * 1000)

    while time.perf_counter() < until:
        claims = await engine.claim(callers, LEASE_MS)
        await asyncio.gather(*map(run, claims))
        if not claims:
            await engine.work_due(0.1)
    return Told(len(took), took, 0)


async def main(url: str, prefix: str, role: str, callers: int, seconds: float) -> None:
    """Be one process: start when told to, and tell what was done."""
    backend = RedisBackend(Place(url), How(uuid4().hex), prefix=prefix)
    engine = Engine(backend, Chain(KEYS), lambda: uuid4().hex)
    await engine.start()
    await backend.heard()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if role == "api":
        told = await submits(engine, Rig("redis", Path()), callers, seconds)
    else:
        told = await records(engine, callers, seconds)
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    await engine.close()


def run(redis: Redis, roles: list[tuple[str, int]], seconds: float) -> list[Told]:
    """Run processes of these roles and callers at once, on a store of their own."""
    prefix = f"{uuid4().hex}:"
    made = [
        subprocess.Popen(
            [sys.executable, "-m", __name__ if __name__ != "__main__" else "tests.bench.contend",
             redis.url, prefix, role, str(callers), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ(), text=True,
        )
        for role, callers in roles
    ]  # fmt: skip
    for each in made:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in made:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [msgspec.json.decode(each.communicate()[0], type=Told) for each in made]


def measure(redis: Redis, callers: int, seconds: float = SECONDS) -> Found:
    """Return what three processes and a worker do at one tenant, beside what one does alone."""
    (alone,) = run(redis, [("api", callers)], seconds)
    *apis, worker = run(redis, [("api", callers)] * APIS + [("worker", WORKERS)], seconds)
    took = sorted(each for api in apis for each in api.took)
    return Found(
        alone.done / seconds,
        [api.done / seconds for api in apis],
        worker.done / seconds,
        took[int(len(took) * 0.99)],
        max(api.tries for api in apis),
    )


def shown(found: Found) -> str:
    """Return a line of what was found."""
    rates = ", ".join(f"{rate:,.0f}" for rate in found.rates)
    return (
        f"p99 {found.p99:.0f} ms, {found.tries} tries, slowest {found.slowest:.2f} of the mean, together "
        f"{found.together:.2f} of one ({rates} beside {found.alone:,.0f}/s; {found.worker:,.0f} recorded/s)"
    )


if __name__ == "__main__":
    if len(sys.argv) > 3:
        url, prefix, role, callers, seconds = sys.argv[1:]
        uvloop.run(main(url, prefix, role, int(callers), float(seconds)))
    else:
        with Redis("--appendfsync", "everysec") as redis:
            for many in (32, 128):
                found = measure(redis, many, float(sys.argv[1]) if sys.argv[1:] else SECONDS)
                sys.stdout.write(f"{many:4} callers: {shown(found)}\n")
