"""Wakes those who wait for a job: the local half of `wait_job` and of every stream.

A watch is registered before anything is read, so a change between read and wait is not missed. A bell
carries names, never state: who is woken reads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

ANY: Final = ""
"""Stands among changed jobs for those whose change was not heard of."""

AT_ONCE: Final = 500
"""Subscribers woken in one turn of the loop where all are: each of them reads."""

_Scope = tuple[str, str, str]


class LocalWatch:
    """One subscriber's changed jobs since it last looked."""

    def __init__(self, bell: Bell, scope: _Scope) -> None:
        self._bell = bell
        self._scope = scope
        self._jobs: set[str] = set()
        self._waiting: asyncio.Future[None] | None = None

    def note(self, job: str) -> None:
        """Note a change, for the subscriber to see when next they look."""
        self._jobs.add(job)

    def wake(self) -> None:
        """Wake the subscriber, if they wait."""
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    async def changed(self, seconds: float) -> frozenset[str]:
        """Wait for changes; return the ids of changed jobs, empty when the time ran out."""
        if not self._jobs and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiting = waiting = loop.create_future()
            timer = loop.call_later(seconds, _finish, waiting)
            try:
                await waiting
            finally:
                timer.cancel()
                self._waiting = None
        jobs, self._jobs = frozenset(self._jobs), set()
        return jobs

    def close(self) -> None:
        """End the subscription. Harmless twice."""
        self._bell.forget(self._scope, self)


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Bell:
    """All local watches, by what they watch: a job, a subject's jobs, a tenant's jobs."""

    def __init__(self) -> None:
        self._watches: defaultdict[_Scope, set[LocalWatch]] = defaultdict(set)
        self.rings = 0
        """How many changes were told: what was read before the last one may be old."""

    def watch(self, tenant: str, subject: str | None, job: str | None) -> LocalWatch:
        """Subscribe. The narrowest name given decides."""
        scope = (tenant, "job", job) if job else (tenant, "subject", subject) if subject else (tenant, "", "")
        watch = LocalWatch(self, scope)
        self._watches[scope].add(watch)
        return watch

    def ring(self, tenant: str, subject: str, job: str) -> None:
        """Tell every watch that covers the job."""
        self.rings += 1
        for scope in ((tenant, "job", job), (tenant, "subject", subject), (tenant, "", "")):
            for watch in tuple(self._watches.get(scope, ())):
                watch.note(job)
                watch.wake()

    def ring_all(self) -> None:
        """Wake everybody, some a turn: any job may have changed unheard. Who watches many is told `ANY`."""
        self.rings += 1
        everybody = [watch for watches in self._watches.values() for watch in watches]
        for (_tenant, of, job), watches in self._watches.items():
            for watch in watches:
                watch.note(job if of == "job" else ANY)
        self._wake(everybody)

    def _wake(self, watches: list[LocalWatch]) -> None:
        for watch in watches[:AT_ONCE]:
            watch.wake()
        if len(watches) > AT_ONCE:
            asyncio.get_running_loop().call_soon(self._wake, watches[AT_ONCE:])

    def forget(self, scope: _Scope, watch: LocalWatch) -> None:
        """Drop a watch, and its name with the last one."""
        watches = self._watches.get(scope)
        if watches is None:
            return
        watches.discard(watch)
        if not watches:
            del self._watches[scope]

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._watches.values())


async def due_in(
    event: asyncio.Event,
    next_due: Callable[[], Awaitable[int | None]],
    now: Callable[[], int],
    seconds: float,
) -> None:
    """Wait for an event, for what is due next by the clock `now`, or for the time to run out."""
    event.clear()
    due = await next_due()
    if due is not None:
        seconds = min(seconds, max(0.0, (due - now()) / 1000))
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
