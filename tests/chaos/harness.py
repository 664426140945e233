"""Kills the gateway again and again while clients are served, then lets it finish and asks for the verdict.

A run is a list of deaths: at each crash point so many times, and at moments nobody chose. Each death has
a life to happen in, on the data the last one left. What counts is what the marks on disk say happened,
so a life that ended otherwise, or not at all, is tried again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import aiohttp
from msgspec import Struct

from gateway.crash import POINTS
from tests.chaos import verdict
from tests.chaos.listener import Listener, untold
from tests.chaos.orders import Book, Client, Order, by_number, orders, read_book
from tests.chaos.stage import TENANTS, Open, Setup, Stage

ANY_MOMENT = "any moment"
LIFE_SECONDS = 4.0
TRICKLE_SECONDS = 0.1
TOLD_SECONDS = 0.2
END_SECONDS = 60.0
MISSES = 8
"""Lives in a row without the death they were for, after which a run is given up."""
DRAINING = 0.3
"""The share of deaths at any moment that come while the process is stopping."""
STOPPED = frozenset({"lease_returned"})
"""Points that are passed only by a process that was told to stop."""
ONCE = frozenset({"audit_appended"})
"""Points that are passed once in a life: the first time has to do."""


class Profile(Struct, frozen=True):
    """How much of it: jobs at least, deaths at each point, deaths at any moment, and where."""

    jobs: int = 200
    hits: int = 5
    moments: int = 10
    points: tuple[str, ...] = POINTS
    seed: int = 20_261_120
    end_seconds: float = END_SECONDS
    setup: Setup = Setup()


class Run:
    """One run over one stage."""

    def __init__(self, stage: Stage, profile: Profile, http: aiohttp.ClientSession, book: Book) -> None:
        self._stage = stage
        self._profile = profile
        self._client = Client(stage, http, book)
        self._dice = random.Random(profile.seed)
        self._source = orders(profile.seed)
        self._clients: list[asyncio.Task[None]] = []
        self._exposed: set[Open] = set()

    async def register(self, port: int) -> None:
        """Have each tenant's admin register a webhook that hears of all its jobs, in a life of its own."""
        await self._stage.begin()
        for tenant in TENANTS:
            await self._client.register(tenant, f"http://127.0.0.1:{port}/hook")
        self._stage.signal(signal.SIGTERM)
        await self._stage.gone(self._profile.setup.drain_seconds + 5)

    async def kill_all(self) -> None:
        """Bring about every death of the profile, with clients at work all the time."""
        plan = [point for point, hits in wanted(self._profile).items() for _ in range(hits)]
        self._dice.shuffle(plan)
        share = -(-self._profile.jobs // max(1, len(plan)))
        missed = 0
        while plan and missed < MISSES:
            self._order(share)
            point = plan.pop()
            before = self._stage.hits()[point]
            await self._die(point)
            self._exposed |= await self._stage.under_way()
            missed = 0 if self._stage.hits()[point] > before else missed + 1
            if missed:
                plan.insert(0, point)

    async def finish(self) -> None:
        """Let the gateway live, give every client the time it needs, then look at everything again."""
        await self._stage.begin()
        self._order(max(0, self._profile.jobs - len(self._clients)))
        done, late = await asyncio.wait(self._clients, timeout=self._profile.end_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        for task in done:
            task.result()
        await self._look()
        await self._told()
        self._stage.signal(signal.SIGTERM)
        if await self._stage.gone(self._profile.setup.drain_seconds + 5) != 0:
            raise RuntimeError(f"the gateway did not stop in peace: see {self._stage.folder}")

    async def _told(self) -> None:
        """Give the deliveries that are still to come their time; the verdict says which never came."""
        until = time.monotonic() + self._profile.end_seconds
        while time.monotonic() < until:
            ended = {job.id: str(job.state) for job in await self._stage.jobs() if job.state.ended}
            if not untold(self._stage.folder / "webhooks", ended):
                return
            await asyncio.sleep(TOLD_SECONDS)

    async def _look(self) -> None:
        """Have every client with a job look at it and its images once more."""
        known = by_number(self._profile.seed, len(self._clients))
        said = read_book(self._stage.folder / "clients")
        deleted = {line.order for line in said if line.said == "deleted"}
        room = asyncio.Semaphore(8)

        async def look(order: Order, job: str) -> None:
            async with room:
                await self._client.look(order, job)

        have = {line.order: line.job for line in said if line.said == "accepted"}
        looks = [look(known[n], job) for n, job in have.items() if n not in deleted]
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*looks)

    @property
    def exposed(self) -> set[Open]:
        """Paid calls that were open at a death, and which nothing names."""
        return self._exposed

    def _order(self, count: int) -> None:
        for _ in range(count):
            task = asyncio.create_task(self._client.live(next(self._source)))
            self._clients.append(task)

    async def _die(self, point: str) -> None:
        """Lead one life to the death it is for."""
        stage, dice = self._stage, self._dice
        if point == ANY_MOMENT:
            await stage.begin()
            await stage.gone(dice.uniform(0, 0.6))
            if dice.random() < DRAINING:
                stage.signal(signal.SIGTERM)
                await stage.gone(dice.uniform(0, 0.2))
            if not stage.ended.done():
                stage.strike()
        else:
            await stage.begin(_spec(point, dice))
            if point in STOPPED:
                await stage.gone(dice.uniform(0.1, 0.4))
                stage.signal(signal.SIGTERM)
        until = time.monotonic() + LIFE_SECONDS
        while await stage.gone(TRICKLE_SECONDS) is None:
            self._order(point not in STOPPED)
            if time.monotonic() > until:
                stage.kill()


def _spec(point: str, dice: random.Random) -> str:
    """Return how often a point is passed before it kills, and how long after.

    The hook for a request that is on its way cannot know how far it is, so that death comes a little
    later: before, while, and just after the upstream has it.
    """
    late = f":{dice.randrange(30)}" if point == "upstream_sent" else ""
    return f"{point}:{1 if point in ONCE else dice.randrange(1, 4)}{late}"


async def run(folder: Path, profile: Profile) -> verdict.Verdict:
    """Do it all in an empty folder; return what the three books say."""
    book = Book(folder / "clients")
    unkept = aiohttp.TCPConnector(force_close=True, limit=0)
    try:
        async with (
            Listener(folder / "webhooks") as listener,
            Stage(folder, profile.setup) as stage,
            aiohttp.ClientSession(connector=unkept) as http,
        ):
            one = Run(stage, profile, http, book)
            await one.register(listener.port)
            await one.kill_all()
            await one.finish()
            return await verdict.compare(stage, profile.seed, wanted(profile), one.exposed)
    finally:
        book.close()


def wanted(profile: Profile) -> dict[str, int]:
    """Return how often each death has to happen."""
    return {**dict.fromkeys(profile.points, profile.hits), ANY_MOMENT: profile.moments}
