"""Breaks the gateway again and again while clients are served, then lets it finish and asks for the verdict.

Each process has a list of faults, and so has the store; they are brought about side by side, spread over
the jobs of the run. Each fault of a process has a life to happen in, on the data the last one left. What
counts is what the marks on disk say happened, so a life that ended otherwise is tried again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from tests.chaos.book import Book, read_book
from tests.chaos.client import Client
from tests.chaos.listener import Listener, arrivals, untold
from tests.chaos.marks import ANY_MOMENT, PAUSE, mark, read_marks
from tests.chaos.orders import by_number, orders
from tests.chaos.plan import AWAY, STOPPED, Profile, spec, store_plan, wanted, watched_plan
from tests.chaos.stage import TENANTS, TIGHT, Stage
from tests.chaos.verdict import Verdict, compare
from tests.fakes.server import Steer

if TYPE_CHECKING:
    from tests.chaos.life import Life
    from tests.chaos.orders import Order
    from tests.chaos.stage import Open

LIFE_SECONDS: Final = 8.0
"""How long a life may take to come to the point it is to die at."""
TOLD_SECONDS: Final = 0.2
BREATH_SECONDS: Final = 0.05
TRICKLE: Final = 20
"""Breaths after which there is a new order in any case."""
SEEN_SECONDS: Final = 0.3
"""How long after a fault of the store it is looked at what it left open."""
AWAY_SECONDS: Final = (0.5, 2.5)
"""How long an upstream refuses connections."""
MISSES: Final = 25
"""Lives in a row without the fault they were for, after which a process is left in peace."""
DRAINING: Final = 0.3
"""The share of deaths at any moment that come while the process is stopping."""
UP_SECONDS: Final = 120.0
LAST: Final = 16
"""Orders after the last fault."""
Tell = Callable[[int, int], None]
"""Told of jobs accepted and faults brought about, now and then."""


class Run:
    """One run over one stage."""

    def __init__(
        self, stage: Stage, profile: Profile, http: aiohttp.ClientSession, book: Book, tell: Tell
    ) -> None:
        self._stage = stage
        self._profile = profile
        self._book = book
        self._tell = tell
        self._client = Client(stage, http, book)
        self._source = orders(profile.mix)
        self._active: set[asyncio.Task[None]] = set()
        self._mistakes: list[BaseException] = []
        self._ordered = 0
        self._faults = sum(wanted(profile).values())
        self._begun = 0
        self._one_paused = asyncio.Lock()
        self.exposed: set[Open] = set()
        """Paid calls that were open at a fault, and which nothing names."""

    async def register(self, port: int) -> None:
        """Have each tenant's admin register a webhook that hears of all its jobs, in lives of their own."""
        await self._all_up()
        for tenant in (*TENANTS, *TIGHT):
            await self._client.register(tenant, f"http://127.0.0.1:{port}/hook")
        await self._all_down()

    async def break_all(self) -> None:
        """Bring about every fault of the profile, with clients at work all the time."""
        profile, lives = self._profile, self._stage.lives
        plans = {life.name: watched_plan(profile, lives, life) for life in lives}
        breaking = [self._lead(life, plans[life.name]) for life in lives]
        breaking.append(self._trouble_store(store_plan(profile, self._stage.ground.deeds)))
        breaking.append(self._trouble_upstreams())
        feeding = asyncio.create_task(self._feed(), name="orders")
        try:
            async with asyncio.timeout(profile.most_seconds), asyncio.TaskGroup() as group:
                for each in breaking:
                    group.create_task(each)
            async with asyncio.timeout(profile.most_seconds):
                while self._book.accepted < profile.jobs:  # noqa: ASYNC110 - counted by clients
                    await asyncio.sleep(BREATH_SECONDS)
        except TimeoutError:
            pass  # what did not happen is missing in the marks
        finally:
            feeding.cancel()
            await asyncio.wait((feeding,))

    async def finish(self) -> None:
        """Let the gateway live, give every client the time it needs, then look at everything again."""
        await self._all_up()
        for _ in range(LAST):
            self._order()
        late = self._active and (await asyncio.wait(self._active, timeout=self._profile.end_seconds))[1]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        for mistake in self._mistakes:
            raise mistake
        await self._look()
        await self._told()
        await self._all_down()

    # -- clients -----------------------------------------------------------------------------------

    def _order(self) -> None:
        self._ordered += 1
        task = asyncio.create_task(self._client.live(next(self._source)))
        self._active.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Forget a client that is done, but not a mistake of ours."""
        self._active.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._mistakes.append(error)

    async def _feed(self) -> None:
        """Keep so many clients busy, fewer once there are jobs enough; one comes whoever is stuck."""
        for beat in itertools.count(1):
            enough = self._book.accepted >= self._profile.jobs
            most = self._profile.clients // 4 if enough else self._profile.clients
            for _ in range(max(most - len(self._active), int(beat % TRICKLE == 0))):
                self._order()
            self._tell(self._book.accepted, self._begun)
            await asyncio.sleep(BREATH_SECONDS)

    async def _told(self) -> None:
        """Give the deliveries that are still to come their time; the verdict says which never came."""
        until = time.monotonic() + self._profile.end_seconds
        while time.monotonic() < until:
            ended = {job.id: str(job.state) for job in await self._stage.jobs() if job.state.ended}
            if not untold(arrivals(self._stage.folder / "webhooks"), ended):
                return
            await asyncio.sleep(TOLD_SECONDS)

    async def _look(self) -> None:
        """Have every client with a job look at it once more, some at their images too."""
        known = by_number(self._profile.mix, self._ordered)
        said = read_book(self._stage.folder / "clients")
        deleted = {line.order for line in said if line.said == "deleted"}
        room = asyncio.Semaphore(8)

        async def look(order: Order, job: str) -> None:
            async with room:
                await self._client.look(order, job)

        have = {line.order: line.job for line in said if line.said == "accepted"}
        looks = [look(known[n], job) for n, job in have.items() if n not in deleted]
        async with asyncio.timeout(self._profile.end_seconds * 2):
            await asyncio.gather(*looks)

    # -- faults ------------------------------------------------------------------------------------

    async def _all_up(self) -> None:
        """Have all processes live."""
        async with asyncio.timeout(UP_SECONDS):
            await asyncio.gather(*map(self._up, self._stage.lives))

    async def _up(self, life: Life) -> None:
        """Have a process live; where it cannot, for now, try again."""
        while not life.up.is_set():
            if life.ended.done() and not await life.begin():
                await asyncio.sleep(BREATH_SECONDS)

    async def _all_down(self) -> None:
        """Stop all processes as an operator would."""
        for life in self._stage.lives:
            life.signal(signal.SIGTERM)
        seconds = self._profile.setup.drain_seconds + self._profile.setup.grace_seconds + 5
        ends = await asyncio.gather(*(life.gone(seconds) for life in self._stage.lives))
        if any(ends):
            raise RuntimeError(f"not all stopped in peace ({ends}): see {self._stage.folder}")

    async def _turn(self, share: float) -> None:
        """Wait until so much of the run's jobs was accepted that a fault is due."""
        due = self._profile.jobs * share * 0.9
        until = time.monotonic() + self._profile.longest_peace
        while self._book.accepted < due and time.monotonic() < until:  # noqa: ASYNC110 - as above
            await asyncio.sleep(BREATH_SECONDS)

    async def _lead(self, life: Life, plan: list[str]) -> None:
        """Lead one process through its faults, then let it live."""
        dice = random.Random(f"{self._profile.seed} {life.name}")
        all_of_it, left, misses = len(plan), list(plan), 0
        while left and misses < MISSES:
            kind = left[-1]
            before = self._hits(life, kind)
            share = (all_of_it - len(left) + dice.random()) / all_of_it
            await self._suffer(life, kind, share, dice)
            if life.role != "api":
                self.exposed |= await self._stage.under_way()
            if self._hits(life, kind) > before:
                left.pop()
                self._begun += 1
                misses = 0
            else:
                dice.shuffle(left)
                misses += 1
        await self._up(life)

    def _hits(self, life: Life, kind: str) -> int:
        marks = read_marks(self._stage.folder / "marks")
        return sum((each.kind, each.hit) == (f"{life.role}: {kind}", life.name) for each in marks)

    async def _suffer(self, life: Life, kind: str, share: float, dice: random.Random) -> None:
        """Lead one life through the fault it is for, and to its end."""
        if not await life.begin("" if kind in (ANY_MOMENT, PAUSE) else spec(kind, dice)):
            await asyncio.sleep(BREATH_SECONDS)
            return
        await self._turn(share)
        if kind == PAUSE:
            await self._pause(life, dice)
            return
        if kind == ANY_MOMENT:
            await life.gone(dice.uniform(0, 0.6))
            if dice.random() < DRAINING:
                life.signal(signal.SIGTERM)
                await life.gone(dice.uniform(0, 0.2))
            if not life.ended.done():
                life.strike()
        else:
            life.signal(signal.SIGUSR1)
        if kind in STOPPED:
            await life.gone(dice.uniform(0.1, 0.4))
            life.signal(signal.SIGTERM)
        if await life.gone(LIFE_SECONDS) is None:
            life.kill()
            await life.gone(LIFE_SECONDS)

    async def _pause(self, life: Life, dice: random.Random) -> None:
        """Hold a process past its lease, see what others do with its work, and let it go on; then stop it.

        One at a time, so that another is there to take its work.
        """
        async with self._one_paused:
            life.signal(signal.SIGSTOP)
            seen = await asyncio.gather(
                asyncio.sleep(dice.uniform(*self._profile.pause)), self._stage.under_way()
            )
            self.exposed |= seen[1]
            life.signal(signal.SIGCONT)
        mark(self._stage.folder / "marks", f"{life.role}: {PAUSE}", life.name)
        await life.gone(dice.uniform(0.5, 2))
        life.signal(signal.SIGTERM)
        if await life.gone(self._profile.setup.drain_seconds + self._profile.setup.grace_seconds + 5) is None:
            life.kill()
            await life.gone(LIFE_SECONDS)

    async def _trouble_store(self, plan: list[str]) -> None:
        """Do to the store what can be done to it, one thing at a time."""
        dice = random.Random(f"{self._profile.seed} store")
        for at, kind in enumerate(plan):
            await self._turn((at + dice.random()) / len(plan))
            await self._stage.ground.deeds[kind](dice)
            mark(self._stage.folder / "marks", kind, "store")
            self._begun += 1
            await asyncio.sleep(SEEN_SECONDS)
            self.exposed |= await self._stage.under_way()

    async def _trouble_upstreams(self) -> None:
        """Have upstreams refuse connections for a time, one after the other."""
        dice = random.Random(f"{self._profile.seed} upstreams")
        for at in range(self._profile.away):
            await self._turn((at + dice.random()) / self._profile.away)
            seconds = dice.uniform(*AWAY_SECONDS)
            await self._client.steer(dice.choice(list(self._stage.fakes)), Steer(away=seconds))
            await asyncio.sleep(seconds)
            mark(self._stage.folder / "marks", AWAY, "upstream")
            self._begun += 1


def unheard(_jobs: int, _faults: int) -> None:
    """Tell nobody."""


async def run(folder: Path, profile: Profile, tell: Tell = unheard) -> Verdict:
    """Do it all in an empty folder; return what the three books say."""
    book = Book(folder / "clients")
    unkept = aiohttp.TCPConnector(force_close=True, limit=0)
    try:
        async with (
            Listener(folder / "webhooks") as listener,
            Stage(folder, profile.setup) as stage,
            aiohttp.ClientSession(connector=unkept) as http,
        ):
            one = Run(stage, profile, http, book, tell)
            await one.register(listener.port)
            await one.break_all()
            await one.finish()
            return await compare(stage, profile, one.exposed)
    finally:
        book.close()
