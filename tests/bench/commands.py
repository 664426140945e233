"""What a submit costs over Redis, straight on the engine: commands, and processor time on both sides.

Counts, so that a noisy machine tells the truth too. `python -m tests.bench.commands [SUBMITS]` prints a
line for each number of tenants and callers; a Redis of its own writes its log as in production.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Final, NamedTuple

import uvloop

from gateway.store.engine import Engine
from tests.contracts.rig import put
from tests.fakes.redis import Redis
from tests.gateway.store.processes import Counting, Processes

WAYS: Final = tuple(itertools.product((1, 200), (32, 128)))
"""Tenants, and callers at once."""
USERS: Final = 7
SUBMITS: Final = 8_000


class Cost(NamedTuple):
    """What a submit cost: commands, microseconds of processor here and in Redis, and how many a second."""

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


async def submits(many: Processes, engine: Engine, tenants: int, callers: int, count: int) -> None:
    """Submit so many jobs, each caller the next once theirs is answered."""
    numbers = iter(range(count))

    async def call() -> None:
        for number in numbers:
            await put(engine, many.job(f"t{number % tenants}", f"s{number % USERS}"))

    await asyncio.gather(*(call() for _ in range(callers)))


async def cost(redis: Redis, tenants: int, callers: int, count: int) -> Cost:
    """Return what a submit costs once everybody is known."""
    link = Counting(redis.url)
    many = Processes(redis.url)
    engine = await many.process(link=link)
    await submits(many, engine, tenants, callers, tenants * USERS)
    before = spent(redis, link)
    await submits(many, engine, tenants, callers, count)
    after = spent(redis, link)
    await many.close()
    commands, ours, theirs, took = (b - a for a, b in zip(before, after, strict=True))
    return Cost(commands / count, ours / count * 1e6, theirs / count * 1e6, count / took)


def main(count: int) -> None:
    """Measure and print."""
    with Redis("--appendfsync", "everysec") as redis:
        for tenants, callers in WAYS:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(cost(redis, tenants, callers, count))
            line = f"{tenants:4} tenants {callers:4} callers: {found.commands:.3f} commands a submit, "
            line += f"{found.ours:5.1f} us here, {found.theirs:5.1f} us in Redis, {found.rate:,.0f}/s"
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else SUBMITS)
