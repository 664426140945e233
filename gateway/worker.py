"""The worker: claims due jobs, runs them, renews their leases, gives back what it cannot finish.

Also the sweep of what is past its time. A stop is a drain: no new claims at once, jobs between calls go
back to the queue, paid calls under way get their time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from gateway.blobs import places
from gateway.errors import Fault
from gateway.runs import Parted, Parts, Run
from gateway.store.contract import Claim
from gateway.store.engine import LEASE_MS, LEASES

if TYPE_CHECKING:
    from gateway.blobs import Blobs
    from gateway.lifetime import Lifetime
    from gateway.secrets import Keyring
    from gateway.store.contract import Retention, Store
    from gateway.telemetry import Telemetry
    from policies.model import Job

RENEW_SECONDS: Final = LEASES.renew_seconds
IDLE_SECONDS: Final = 1.0
"""How long an idle worker waits before it looks again, when nobody wakes it."""
FAULT_SECONDS: Final = 1.0
BUG_MS: Final = 5_000
SWEEP_SECONDS: Final = 60.0
REMAINS: Final = 200
"""Dropped jobs whose images are deleted in one step."""


class Worker:
    """Runs up to `concurrency` jobs at once."""

    def __init__(
        self,
        parts: Parts,
        telemetry: Telemetry,
        concurrency: int,
        *,
        renew_seconds: float = RENEW_SECONDS,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._parts = parts
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._renew_seconds = renew_seconds
        self._lease_ms = lease_ms
        self._running: dict[asyncio.Task[None], Run] = {}
        self._freed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> None:
        """Begin to claim and to renew."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._claim(), name="worker claims"),
            loop.create_task(self._renew(), name="worker renews"),
        ]

    async def drain(self, seconds: float) -> None:
        """Wait for calls under way, at most so long; then cut them and give their jobs back.

        Canceling this does not leave them running: it cuts them at once.
        """
        if not self._tasks:
            return
        try:
            await asyncio.wait(self._tasks[:1])
            if self._running:
                await asyncio.wait(self._running, timeout=seconds)
        finally:
            await self._cut()

    async def _cut(self) -> None:
        """Stop everything that still runs, and give back the jobs it was for."""
        cut = dict(self._running)
        for task in (*cut, *self._tasks):
            task.cancel()
        await asyncio.wait((*cut, *self._tasks))
        if cut:
            claims = [run.claim for run in cut.values()]
            await self._try("give back", lambda: self._parts.store.give_back(claims))

    async def _claim(self) -> None:
        while not self._parts.lifetime.draining:
            await self._try("claim", self._claim_once)

    async def _try(self, kind: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do one step of what must go on: trouble is told, and the next step comes after a pause."""
        try:
            await step()
        except Fault as fault:
            self._telemetry.event("fault", level="warning", code=fault.code, kind=kind)
        except Exception as bug:  # noqa: BLE001 - a worker that stops unseen is worse; the bug is told
            self._telemetry.bug(bug, kind=kind)
        else:
            return
        await self._parts.lifetime.pause(FAULT_SECONDS)

    async def _claim_once(self) -> None:
        """Take what fits; wait where there is no room or no work."""
        self._freed.clear()
        room = self._concurrency - len(self._running)
        claims = await self._parts.store.claim(room, self._lease_ms) if room else ()
        for claim in claims:
            run = Run(self._parts, claim)
            task = asyncio.get_running_loop().create_task(self._run(run), name=f"job {claim.job.id}")
            self._running[task] = run
            task.add_done_callback(self._forget)
        if not claims:
            await self._idle(look=room > 0)

    async def _idle(self, *, look: bool) -> None:
        """Wait until there may be work and room, or the process stops."""
        loop = asyncio.get_running_loop()
        news = self._due() if look else self._freed.wait()
        waits = [loop.create_task(self._parts.lifetime.stopping.wait()), loop.create_task(news)]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for wait in waits:
                wait.cancel()

    async def _due(self) -> Literal[True]:
        await self._parts.store.work_due(IDLE_SECONDS * (0.75 + self._parts.chance() / 2))
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._freed.set()

    async def _run(self, run: Run) -> None:
        """Run a job; whatever ends the run without an end of the job gives it back, if it is ours to give."""
        claim = run.claim
        try:
            job = await run.finish()
        except Parted as parted:
            if parted.after_ms is not None:
                await self._give_back(claim, parted.after_ms)
        except Fault as fault:
            self._telemetry.event("fault", level="warning", code=fault.code, job=claim.job.id)
            await self._give_back(claim, fault.retry_after_ms or BUG_MS)
        except Exception as bug:  # noqa: BLE001 - one job's bug must not stop the others; it is told
            self._telemetry.bug(bug, job=claim.job.id)
            await self._give_back(claim, BUG_MS)
        else:
            if job is not None:
                self._tell(job)

    async def _give_back(self, claim: Claim, after_ms: int) -> None:
        """Return a lease; one that cannot be returned runs out by itself."""
        await self._try("give back", lambda: self._parts.store.give_back([claim], after_ms))

    def _tell(self, job: Job) -> None:
        self._telemetry.job(
            state=str(job.state),
            model=job.model,
            seconds=((job.ended_at or job.created_at) - job.created_at) / 1000,
            charged=job.charged,
            job=job.id,
            subject_ref=job.subject_ref,
            code=None if job.error is None else job.error.code,
            attempts=len(job.attempts),
            outputs=len(job.outputs),
            shortfall=len(job.shortfall),
            refunded=job.refunded,
            operator_flag=job.operator_flag,
        )
        if job.operator_flag is not None:
            self._telemetry.alarm(job.operator_flag, job=job.id)

    async def _renew(self) -> None:
        """Renew all leases at a third of their time."""
        while True:
            await asyncio.sleep(self._renew_seconds)  # leases are held to the end of a drain: no early wake
            await self._try("renew", self._renew_once)

    async def _renew_once(self) -> None:
        """Renew all leases; a run whose lease is lost is cut."""
        runs = dict(self._running)
        lost = await self._parts.store.renew([run.claim for run in runs.values()], self._lease_ms)
        for task, run in runs.items():
            if run.claim.job.id in lost and not run.ending:
                task.cancel()


class Sweeper:
    """Removes what is past its time: jobs with their images, keys, links of the trail.

    A job is dropped first and its images are deleted after: what it leaves is written down with the drop,
    so that whatever dies in between, a delete by its owner too, is finished by the next step.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        ring: Keyring,
        telemetry: Telemetry,
        retention: Retention,
        lifetime: Lifetime,
    ) -> None:
        self._lifetime = lifetime
        self._store = store
        self._blobs = blobs
        self._ring = ring
        self._telemetry = telemetry
        self._retention = retention

    async def run(self) -> None:
        """Sweep once a minute, in bounded steps."""
        stopping = self._lifetime.draining
        while not stopping:
            more = False
            try:
                more = await self.step()
            except Fault as fault:
                self._tell(fault)
            except Exception as bug:  # noqa: BLE001 - as above
                self._telemetry.bug(bug, kind="sweep")
            stopping = await self._lifetime.pause(0.0 if more else SWEEP_SECONDS)

    def _tell(self, fault: Fault) -> None:
        self._telemetry.event("fault", level="warning", code=fault.code, kind="sweep")

    async def step(self) -> bool:
        """Sweep one bounded step; return whether there is more."""
        swept = await self._store.sweep(self._retention)
        for fault in swept.faults[:1]:
            self._tell(fault)
        more = await self._bury()
        stale = await self._blobs.tidy()
        if swept.jobs or swept.keys or swept.links or stale:
            self._telemetry.event(
                "sweep", jobs=len(swept.jobs), keys=swept.keys, records=swept.links, blobs=stale
            )
        return swept.more or more

    async def _bury(self) -> bool:
        """Delete the images of dropped jobs; return whether there are more. One that stays stops no other.

        An upload that was put again since has its place again: that is asked just before.
        """
        remains = await self._store.remains(REMAINS)
        gone, fault = [], None
        for each in remains:
            try:
                if await self._store.get_upload(each.tenant, each.job) is not None:
                    continue
                for place in places(self._ring, each):
                    await self._blobs.delete(place)
            except Fault as raised:
                fault = raised
            else:
                gone.append(each)
        buried = bool(gone) and await self._store.buried(gone)
        if fault is not None:
            raise fault
        return buried and len(remains) == REMAINS
