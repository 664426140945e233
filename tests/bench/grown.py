"""What a job costs in a store that holds many, beside what it costs in one that holds few.

`python -m tests.bench.grown [JOBS]` prints a line for each store. Processor time, here and in Redis, of a
job's whole life and two looks at it; the two stores take turns and the cheapest of many slices counts, so
that what else runs on the machine does not.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from gateway.store.contract import Begun, Canceled, Claim, JobFilter, Recorded, Submitted
from gateway.store.engine import LEASE_MS, Engine
from policies.model import Job
from tests.contracts.rig import MEMORY, SAID, Rig, admitting, attempt, counting, ending
from tests.fakes.redis import server

JOBS: Final = 20_000
FEW: Final = 200
"""Enough for a page of a list to be full."""
FLAT: Final = 1.2
SLICES: Final = (12, 90)
"""At least, and at most where more may yet find a cheaper one."""
EACH: Final = 16
"""Jobs of one slice."""
TENANTS: Final = ("one", "two")
SUBJECTS: Final = 7
KINDS: Final = ("redis", "sqlite")
TOGETHER: Final = 512
Clock = Callable[[], float]


class Cost(NamedTuple):
    """Microseconds of processor a job, in a store with so many jobs and in one with few."""

    jobs: int
    grown: float
    small: float

    @property
    def ratio(self) -> float:
        """What the many cost."""
        return self.grown / self.small


def processor(kind: str) -> Clock:
    """Return a clock of the processor time spent on a store, in seconds."""
    if kind == "sqlite":
        return time.process_time

    def both() -> float:
        of = server().facts("cpu")
        theirs = float(of["used_cpu_user_main_thread"]) + float(of["used_cpu_sys_main_thread"])
        return time.process_time() + theirs

    return both


async def put(store: Engine, rig: Rig, number: int) -> Job:
    """Submit a job."""
    job = rig.job(TENANTS[number % len(TENANTS)], f"s{number % SUBJECTS}")
    answer = await store.submit(job, admitting(job), SAID)
    assert isinstance(answer, Submitted)
    return answer.job


async def fill(store: Engine, rig: Rig, jobs: int) -> None:
    """Store ended jobs."""
    for begin in range(0, jobs, TOGETHER):
        numbers = range(begin, min(begin + TOGETHER, jobs))
        made = await asyncio.gather(*(put(store, rig, number) for number in numbers))
        ends = await asyncio.gather(*(store.cancel(job.tenant, job.id, counting(), SAID) for job in made))
        assert {type(end) for end in ends} == {Canceled}


async def lives(store: Engine, rig: Rig) -> None:
    """Submit some jobs, look at them, run them, list them."""
    jobs = await asyncio.gather(*(put(store, rig, number) for number in range(EACH)))
    await asyncio.gather(*(store.get_job(job.tenant, job.id, job.subject) for job in jobs))
    claims = await store.claim(EACH, LEASE_MS)
    assert len(claims) == EACH

    async def run(claim: Claim) -> None:
        begun = await store.begin_attempt(claim, attempt(deadline_at=await store.now() + 60_000))
        assert isinstance(begun, Begun)
        assert isinstance(await store.record(Claim(begun.job, claim.fence), ending(1), SAID), Recorded)

    await asyncio.gather(*map(run, claims))
    for tenant in TENANTS:
        assert (await store.list_jobs(tenant, JobFilter(subject="s1"), before=None, limit=10)).jobs


async def measure(kind: str, place: Path, jobs: int) -> Cost:
    """Return what a job costs in a store of this kind that holds so many, and in one that holds few."""
    rigs, stores = [], []
    for name, count in (("grown", jobs), ("small", FEW)):
        folder = place / f"{place.name}-{name}"
        folder.mkdir()
        rigs.append(Rig(kind, folder))
        stores.append(await rigs[-1].open())
        await fill(stores[-1], rigs[-1], count)
    clock, best = processor(kind), [float("inf")] * len(rigs)
    for number in range(SLICES[1]):
        if number >= SLICES[0] and best[0] < FLAT * best[1]:
            break
        for at, rig in enumerate(rigs):
            began = clock()
            await lives(stores[at], rig)
            best[at] = min(best[at], clock() - began)
    for rig in rigs:
        await rig.close()
    return Cost(jobs, *(each / EACH * 1e6 for each in best))


def run(kind: str, jobs: int) -> Cost:
    """Measure on a loop and in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return asyncio.run(measure(kind, Path(folder), jobs))


if __name__ == "__main__":
    for kind in KINDS:
        found = run(kind, int(sys.argv[1]) if sys.argv[1:] else JOBS)
        line = f"{kind}: {found.grown:.0f} us a job beside {found.jobs:,}, {found.small:.0f} us beside {FEW}"
        sys.stdout.write(f"{line}: {found.ratio:.2f}\n")
