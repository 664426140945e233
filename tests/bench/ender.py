"""The process that ends jobs: it makes them, then claims, begins and records so many a second.

Run as a process; reads its orders from standard input, a line each, and prints an answer to each. An end's
instant is that before its commit, so that what is measured from it is never less than what a client waits.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final
from uuid import uuid4

import msgspec
import uvloop
from msgspec.structs import replace

from gateway.app import chain_of
from gateway.secrets import Secret
from gateway.store.contract import Begun, Claim, Recorded
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from tests.contracts.rig import SAID, Rig, attempt, ending, put

AHEAD: Final = 20
"""Jobs claimed at a time."""


class Order(msgspec.Struct, frozen=True):
    """Which jobs to make: so many, of so many tenants with so many users each."""

    url: str
    secret: str
    jobs: int
    tenants: int
    users: int


class Made(msgspec.Struct, frozen=True):
    """A job that waits to be ended."""

    tenant: str
    subject: str
    job: str


async def made(store: Engine, rig: Rig, order: Order) -> list[Made]:
    """Make the jobs, two hundred at a time."""
    jobs = []
    for number in range(order.jobs):
        tenant, user = f"t{number % order.tenants}", f"u{number // order.tenants % order.users}"
        jobs.append(replace(rig.job(tenant, user), id=str(uuid4())))
    for at in range(0, len(jobs), 200):
        await asyncio.gather(*(put(store, job) for job in jobs[at : at + 200]))
    return [Made(job.tenant, job.subject, job.id) for job in jobs]


async def ended(store: Engine, claim: Claim) -> tuple[str, float]:
    """Do with a job what a worker does; return its name and when its end was committed."""
    begun = await store.begin_attempt(claim, attempt(deadline_at=await store.now() + 60_000))
    assert isinstance(begun, Begun)
    at = time.monotonic()
    assert isinstance(await store.record(Claim(begun.job, claim.fence), ending(1), SAID), Recorded)
    return claim.job.id, at


async def all_ended(store: Engine, jobs: int, rate: int) -> dict[str, float]:
    """End so many jobs, each at its time."""
    began = time.monotonic()
    tasks: list[asyncio.Task[tuple[str, float]]] = []
    while len(tasks) < jobs:
        for claim in await store.claim(AHEAD, LEASE_MS):
            await asyncio.sleep(max(0.0, began + len(tasks) / rate - time.monotonic()))
            tasks.append(asyncio.create_task(ended(store, claim)))
    return dict(await asyncio.gather(*tasks))


async def main() -> None:
    """Make jobs, say which; on the next line, which is a rate, end them and say when."""
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    backend = RedisBackend(Place(order.url), How(uuid4().hex))
    store = Engine(backend, chain_of((Secret(order.secret),)), lambda: uuid4().hex)
    await store.start()
    tell(await made(store, Rig("redis", backend), order))  # type: ignore[arg-type]
    rate = int(await asyncio.to_thread(sys.stdin.readline))
    tell(await all_ended(store, order.jobs, rate))
    await store.close()


def tell(what: object) -> None:
    """Print an answer."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main())
