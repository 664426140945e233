"""What a submit and a poll cost over Redis, straight on the engine: commands, and processor time.

Counts, so that a noisy machine tells the truth too. `python -m tests.bench.commands [SUBMITS]` prints a
line for each number of tenants and callers; a Redis of its own writes its log as in production.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import uvloop

from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from tests.contracts.rig import put
from tests.fakes.cluster import Cluster
from tests.fakes.redis import Redis
from tests.gateway.store.processes import Counting, Processes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from policies.model import Job

CALLERS: Final = (32, 128)
WAYS: Final = tuple(itertools.product((1, 200), CALLERS))
"""Tenants, and callers at once."""
USERS: Final = 7
SUBMITS: Final = 8_000


class Cost(NamedTuple):
    """What a call cost: commands, microseconds of processor here and in Redis, and how many a second."""

    commands: float
    ours: float
    theirs: float
    rate: float


class Spent(NamedTuple):
    """What was spent until now: commands sent, seconds of processor on both sides, seconds."""

    commands: int
    ours: float
    theirs: float
    at: float


def spent(redis: Redis, link: Counting) -> Spent:
    """Return what was spent until now."""
    cpu = redis.facts("cpu")
    theirs = float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])
    return Spent(link.sent, time.process_time(), theirs, time.perf_counter())


async def each(callers: int, count: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Make so many calls, each caller the next once theirs is answered."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def cost(redis: Redis, tenants: int, callers: int, count: int) -> dict[str, Cost]:
    """Return what a submit and a poll cost once everybody is known."""
    link = Counting(redis.url)
    many = Processes(redis.url)
    engine = await many.process(link=link)
    jobs: list[Job] = []

    async def submit(number: int) -> None:
        jobs.append(await put(engine, many.job(f"t{number % tenants}", f"s{number % USERS}")))

    async def poll(number: int) -> None:
        job = jobs[number % len(jobs)]
        assert await engine.get_job(job.tenant, job.id, job.subject)

    await each(callers, tenants * USERS, submit)
    found = {}
    for name, call in (("submit", submit), ("poll", poll)):
        before = spent(redis, link)
        await each(callers, count, call)
        commands, ours, theirs, took = (b - a for a, b in zip(before, spent(redis, link), strict=True))
        found[name] = Cost(commands / count, ours / count * 1e6, theirs / count * 1e6, count / took)
    await many.close()
    return found


async def scattered(cluster: Cluster, callers: int, count: int) -> float:
    """Return how many commands all nodes of a Cluster get a submit, of many tenants."""
    many, tenants = Processes(cluster.url), WAYS[-1][0]
    engine = many.engine(RedisBackend(Place(cluster.url), How(uuid4().hex), prefix=many.prefix))
    await engine.start()

    async def submit(number: int) -> None:
        await put(engine, many.job(f"t{number % tenants}", f"s{number % USERS}"))

    await each(callers, tenants * USERS, submit)
    with ExitStack() as counting:
        counts = [counting.enter_context(node.counting()) for node in cluster.nodes]
        await each(callers, count, submit)
    await many.close()
    return sum(tell() for tell in counts) / count


def clustered(count: int = SUBMITS) -> dict[int, float]:
    """Return commands a submit of many tenants on a Cluster of three, by callers at once."""
    with Cluster(3) as cluster:
        return {callers: uvloop.run(scattered(cluster, callers, count)) for callers in CALLERS}


def main(count: int) -> None:
    """Measure and print."""
    with Redis("--appendfsync", "everysec") as redis:
        for tenants, callers in WAYS:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                costs = runner.run(cost(redis, tenants, callers, count))
            for name, found in costs.items():
                line = f"{tenants:4} tenants {callers:4} callers: {found.commands:.3f} commands a {name}, "
                line += f"{found.ours:5.1f} us here, {found.theirs:5.1f} us in Redis, {found.rate:,.0f}/s"
                sys.stdout.write(f"{line}\n")
    for callers, commands in clustered(count).items():
        line = f"{WAYS[-1][0]:4} tenants {callers:4} callers: {commands:.3f} commands a submit, Cluster of 3"
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else SUBMITS)
