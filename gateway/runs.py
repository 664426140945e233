"""One leased job, from claim to record.

A job's images are made in slots (`slots.py`), one upstream call each, side by side. The run holds the
lease, writes down what its slots tell it, watches for a cancel, and records the end. After a crash a
run goes on from what is written: nothing of it lives in memory alone but the call under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from gateway.audit import Record
from gateway.crash import Hook, nowhere
from gateway.errors import Fault, StoreClosed
from gateway.slots import Slot
from gateway.store.contract import Begun, Claim, Stale
from policies import lifecycle
from policies.model import Attempt, Job

if TYPE_CHECKING:
    from gateway.inputs import Inputs, Prepared
    from gateway.intake import Intake
    from gateway.lifetime import Lifetime
    from gateway.store.contract import Store
    from gateway.upstreams import Upstreams
    from gateway.wire import WireRequest

End = Callable[[Job, int], Job]
CANCEL_WATCH_SECONDS: Final = 3600.0
INSIST_TRIES: Final = 5
INSIST_MS: Final = 1_000
"""How often, and how far apart, what an upstream was paid for is written where nothing takes it."""

T = TypeVar("T")


class Parted(Exception):  # noqa: N818 - ends a run without an end of its job
    """The run ends and its job goes on elsewhere: the lease is lost, or the process stops."""

    def __init__(self, after_ms: int | None = None) -> None:
        super().__init__(after_ms)
        self.after_ms = after_ms
        """When the job is due again; None where the lease is not ours to return."""


class Parts(Struct, frozen=True):
    """What runs work with. `chance` returns a number in [0, 1), `ticks` seconds that never go back."""

    store: Store
    upstreams: Upstreams
    inputs: Inputs
    intake: Intake
    lifetime: Lifetime
    now: Callable[[], int]
    chance: Callable[[], float]
    attempt_seconds: float
    deadline_seconds: float
    crash: Hook = nowhere
    ticks: Callable[[], float] = time.monotonic


class Run:
    """Makes one job's images and records what came of it."""

    def __init__(self, parts: Parts, claim: Claim) -> None:
        self.parts = parts
        self.job = claim.job
        self.claim = claim
        self.ending = False
        """Whether only the end is still to be written: the fence guards that, and nothing is left to cut."""
        self._fence = claim.fence
        self._deadline = claim.job.created_at + int(parts.deadline_seconds * 1000)
        self._writing = asyncio.Lock()
        self._last: list[Attempt] = []
        self._preparing = asyncio.Lock()
        self._prepared: Prepared | UnsetType | None = UNSET

    async def finish(self) -> Job | None:
        """Bring the job to its end; return it, or None where somebody else did. Raises `Parted`."""
        if self.job.cancel_requested_at is not None:
            return await self._record(lifecycle.canceled)
        making = asyncio.create_task(self._make(), name=f"make {self.job.id}")
        asked = asyncio.create_task(self._asked_to_stop(), name=f"watch {self.job.id}")
        try:
            await asyncio.wait((making, asked), return_when=asyncio.FIRST_COMPLETED)
            end = making.result() if making.done() else asked.result()
        finally:
            making.cancel()
            asked.cancel()
            await asyncio.wait((making, asked))
        return await self._record(end)

    async def _asked_to_stop(self) -> End:
        """Return when the job's owner asks for its end: closing its sockets is all an upstream is told."""
        job = self.job
        while True:
            try:
                found = await self.parts.store.wait_job(job.tenant, job.id, job.version, CANCEL_WATCH_SECONDS)
            except Fault:  # a read that fails ends no call that is paid for
                await self.rest(INSIST_MS)
                continue
            if found is None or found.state.ended:
                raise Parted
            if found.cancel_requested_at is not None:
                return lifecycle.canceled
            job = found

    async def _make(self) -> End:
        """Make all slots; return how the job ends. A slot that parts lets the others finish their calls."""
        if not self.job.attempts and self.left_ms() <= 0:
            return lifecycle.overdue
        if self.job.sources and not self.job.attempts and await self.inputs() is None:
            return lifecycle.unreadable
        slots = [Slot(self, slot) for slot in range(len(self.job.slots))]
        ends = await asyncio.gather(*(slot.make() for slot in slots), return_exceptions=True)
        troubles = [end for end in ends if end is not None]
        for trouble in troubles:
            if not isinstance(trouble, Parted):
                raise trouble
        for trouble in troubles:
            raise trouble
        return self._concluded

    def _concluded(self, job: Job, now: int) -> Job:
        for attempt in self._last:
            job = lifecycle.noted(job, attempt)
        return lifecycle.concluded(job, now)

    async def _record(self, end: End) -> Job | None:
        self.ending = True
        claim = Claim(self.job, self._fence)
        record = Record(action="job.end")
        answer = await self.insist(lambda: self.parts.store.record(claim, end, record))
        return None if isinstance(answer, Stale) else answer.job

    # -- what slots ask of their run -----------------------------------------------------------------

    def left_ms(self) -> int:
        """Return the time to the job's deadline."""
        return self._deadline - self.parts.now()

    async def inputs(self) -> Prepared | None:
        """Return the job's copies of its inputs, made once; None where one cannot be read."""
        async with self._preparing:
            if self._prepared is UNSET:
                self._prepared = await self.parts.inputs.prepare(self)
            return self._prepared

    async def begin(self, attempt: Attempt) -> None:
        """Write an attempt down, durably, before it is sent."""
        async with self._writing:
            claim = Claim(self.job, self._fence)
            try:
                begun = await self.parts.store.begin_attempt(claim, attempt)
            except StoreClosed:
                raise
            except Fault:
                await self._unsent(claim, attempt)
                raise
            self._took(begun)

    async def _unsent(self, claim: Claim, attempt: Attempt) -> None:
        """Close an attempt that may be written down after all: whoever goes on knows it was not sent."""
        with contextlib.suppress(Fault):
            await self.parts.store.note_attempt(claim, replace(attempt, open=False))

    async def note(self, attempt: Attempt) -> None:
        """Write down what is known of an attempt."""
        async with self._writing:
            claim = Claim(self.job, self._fence)
            self._took(await self.insist(lambda: self.parts.store.note_attempt(claim, attempt)))

    async def close(self, attempt: Attempt) -> None:
        """Take a slot's end. Where there are other slots it is written down at once, else with the record."""
        if len(self.job.slots) == 1:
            self._last = [attempt]
        else:
            await self.note(attempt)

    async def pause(self, after_ms: int) -> None:
        """Wait; a process that stops gives the job back instead."""
        if await self.parts.lifetime.pause(after_ms / 1000):
            raise Parted(after_ms)

    async def rest(self, after_ms: int) -> None:
        """Wait, through a stop too: what was paid for is not left behind."""
        if await self.parts.lifetime.pause(after_ms / 1000):
            await asyncio.sleep(after_ms / 1000)

    def bounded(self, request: WireRequest) -> WireRequest:
        """Return a request that takes no longer than any call may."""
        return replace(request, seconds=min(request.seconds, self.parts.attempt_seconds))

    def check_stop(self) -> None:
        """Part where the process stops: it begins nothing."""
        if self.parts.lifetime.draining:
            raise Parted(0)

    async def insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write what came of a paid call, again if that does not work: a repeat changes nothing."""
        for _ in range(INSIST_TRIES - 1):
            try:
                return await write()
            except Fault:
                await self.rest(INSIST_MS)
        return await write()

    def _took(self, answer: Begun | Stale) -> None:
        if isinstance(answer, Stale):
            raise Parted
        self.job = answer.job
