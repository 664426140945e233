"""Event streams (WHATWG server-sent events): one job, or all of a caller's.

An event is a whole job as it is now, so a slow reader loses steps and never memory: what it missed is
read again when it takes the next event. A stream ends with its job, with its token, when the process
drains, when its reader leaves, or when its reader takes nothing for a while. A waiting stream costs
three small tasks and no polling.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler

from gateway.api.exchange import Answer, Exchange, Reply, Vanished, exchange_of, left
from gateway.api.gate import closed
from gateway.api.jobs import job_id
from gateway.api.limits import StreamSlots
from gateway.api.queries import Query
from gateway.api.views import Views
from gateway.errors import Problem
from gateway.lifetime import Lifetime
from gateway.store.contract import ANY, JobFilter
from policies import ids
from policies.access import Action
from policies.model import EXACT, Flaw, Job, JobState, Principal

if TYPE_CHECKING:
    from gateway.callers import Caller
    from gateway.jobs import Jobs

HEARTBEAT_SECONDS: Final = 15.0
SEND_SECONDS: Final = 30.0
"""How long a reader may take nothing of what is sent."""
REACH_MS: Final = 24 * 3_600_000
"""How long before the last event seen a job may have been made whose end is told again on resume."""
OVERLAP_MS: Final = 10_000
MOST_NAMED: Final = 100
PAGE: Final = 100
PAGES: Final = 20
"""Pages of jobs a stream begins with at most: beyond them lies what nobody watches."""

HEAD: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"private, no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)
OPENING: Final = b"retry: 2000\n:\n\n"
HEARTBEAT: Final = b":\n\n"
DRAINING: Final = b": draining, reconnect\n\n"
EXPIRED: Final = b": the token has expired\n\n"

FIRST: Final = asyncio.FIRST_COMPLETED

Handler = Request[Any, Any, Any]
Events = AsyncIterator[bytes]
Stands = Callable[[bytes | None, Principal], Awaitable[bool]]
"""From an `Authorization` value and whom it stood for to whether it does now."""


class StreamCalls:
    """The routes that stream."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        lifetime: Lifetime,
        slots: StreamSlots,
        stands: Stands,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._jobs = jobs
        self._views = views
        self._lifetime = lifetime
        self._slots = slots
        self._stands = stands
        self._heartbeat = heartbeat

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        opt = closed(Action.READ, ("text/event-stream",))
        return [
            get("/v1/jobs/{job_id:str}/events", operation_id="watchJob", opt=opt)(self.one),
            get("/v1/events", operation_id="watchJobs", opt=opt)(self.all),
        ]

    async def one(self, request: Handler) -> Reply:
        """Watch a job (server-sent events).

        `job` events hold the whole job, their `id` is its version; the first tells how it is now. After the
        event of an ended job the stream ends. `Last-Event-ID` resumes; 204 says that nothing will follow.
        """
        exchange = exchange_of(request.scope)
        exchange.job = job = job_id(request)
        Query(request.scope).close()
        seen = last_event(exchange)
        found = await self._jobs.get(exchange.who, job)
        exchange.usage = found.usage
        if found.job.state.ended and seen is not None and seen >= found.job.version:
            return Answer(204, ())
        told = 0 if seen is None else min(seen, found.job.version)
        return self._stream(exchange, self._of_job(exchange.who, job, told))

    async def all(self, request: Handler) -> Reply:
        """Watch all own jobs (server-sent events).

        Begins with the open ones, or with those named by `jobs=a,b`; then every change. Event ids are
        instants: `Last-Event-ID` brings what ended since. An event may come twice; `version` tells.
        """
        exchange = exchange_of(request.scope)
        query = Query(request.scope, ("jobs",))
        named = _named(query)
        query.close()
        return self._stream(exchange, self._of_caller(exchange.who, named, last_event(exchange)))

    def _stream(self, exchange: Exchange, events: Events) -> Stream:
        return Stream(exchange, events, self._jobs, self._lifetime, self._slots, self._stands)

    async def _of_job(self, who: Caller, job: str, seen: int) -> Events:
        """Yield a job's events until it has ended, and a heartbeat where there is none for a while."""
        with self._jobs.follow(who, job) as following:
            quiet = False
            while (current := await following.look()) is not None:
                if current.version > seen:
                    seen = current.version
                    yield await self._event(who, current, seen)
                    if current.state.ended:
                        return
                elif quiet:
                    yield HEARTBEAT
                quiet = not await following.rings(self._heartbeat)

    async def _of_caller(self, who: Caller, named: frozenset[str] | None, seen: int | None) -> Events:
        """Yield the events of a caller's jobs; subscribed before anything is read, so nothing is missed."""
        watch = self._jobs.watch(who)
        try:
            at = self._jobs.now()
            async for job in self._present(who, named, seen):
                yield await self._event(who, job, at)
            while True:
                changed = await watch.changed(self._heartbeat)
                if ANY in changed:
                    return  # the client comes again, and is told what it missed
                at = self._jobs.now()
                for job_id in sorted(changed if named is None else changed & named):
                    news = await self._mine(who, job_id)
                    if news is not None:
                        yield await self._event(who, news, at)
                if not changed:
                    yield HEARTBEAT
        finally:
            watch.close()

    async def _present(
        self, who: Caller, named: frozenset[str] | None, seen: int | None
    ) -> AsyncIterator[Job]:
        """Yield the jobs a stream begins with: those named, or the open ones and those ended since."""
        if named is not None:
            for job_id in sorted(named):
                job = await self._mine(who, job_id)
                if job is not None and not _told(job, seen):
                    yield job
            return
        subject = who.principal.subject
        open_ones = JobFilter(subject=subject, states=frozenset(s for s in JobState if not s.ended))
        async for job in self._pages(who, open_ones):
            yield job
        if seen is not None:
            since = JobFilter(
                subject=subject,
                states=frozenset(state for state in JobState if state.ended),
                created_after=max(0, seen - REACH_MS),
            )
            async for job in self._pages(who, since):
                if not _told(job, seen):
                    yield job

    async def _pages(self, who: Caller, where: JobFilter) -> AsyncIterator[Job]:
        before: int | None = None
        for _ in range(PAGES):
            page = await self._jobs.list(who, where, before, PAGE)
            for job in page.jobs:
                yield job
            before = page.next
            if before is None:
                return

    async def _mine(self, who: Caller, job_id: str) -> Job | None:
        """Return a job of the caller's own; None for another's and for none."""
        try:
            job = (await self._jobs.get(who, job_id)).job
        except Problem:
            return None
        return job if job.subject == who.principal.subject else None

    async def _event(self, who: Caller, job: Job, number: int) -> bytes:
        queued = job.state is JobState.QUEUED
        position = await self._jobs.position(who, job) if queued else None
        data = self._views.body(job, self._jobs.now(), position)
        return b"event: job\nid: %d\ndata: %s\n\n" % (number, data)


class Stream:
    """One open stream: an ASGI application that sends events until something ends them."""

    def __init__(
        self,
        exchange: Exchange,
        events: Events,
        jobs: Jobs,
        lifetime: Lifetime,
        slots: StreamSlots,
        stands: Stands,
    ) -> None:
        self._stands = stands
        self._exchange = exchange
        self._events = events
        self._jobs = jobs
        self._lifetime = lifetime
        self._slots = slots

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        """Serve it. However it ends, what it held is given back."""
        who = self._exchange.who
        tenant, subject = who.principal.tenant, who.principal.subject
        if self._lifetime.draining:
            raise Problem("draining")
        self._slots.take(tenant, subject, who.user_plan.streams)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEAD})
            if not self._exchange.head:
                await self._run(receive, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._slots.release(tenant, subject)

    async def _run(self, receive: Any, send: Any) -> None:
        await _push(send, OPENING)
        gone = asyncio.ensure_future(left(receive))
        stop = asyncio.ensure_future(self._lifetime.stopping.wait())
        following = asyncio.ensure_future(_next(self._events))
        try:
            while True:
                await asyncio.wait((following, gone, stop), timeout=self._left(), return_when=FIRST)
                if gone.done():
                    return
                part = self._ending(following, stop) or following.result()
                if part is not None and not await self._known():
                    part = EXPIRED
                if part is not None:
                    await _push(send, part)
                if part is None or part in (DRAINING, EXPIRED):
                    return
                following = asyncio.ensure_future(_next(self._events))
        finally:
            for task in (gone, stop, following):
                task.cancel()
            await asyncio.wait((following,))  # it runs the generator, which can only then be closed
            if not following.cancelled():
                following.exception()  # seen: nobody is left to be told of it
            await self._events.aclose()  # type: ignore[attr-defined] # all of ours are generators

    async def _known(self) -> bool:
        """Say whether the caller would pass now; a service key may have been revoked meanwhile."""
        return await self._stands(self._exchange.fields.get(b"authorization"), self._exchange.who.principal)

    def _left(self) -> float:
        """Return the seconds until the caller's token expires, at most a day."""
        return min(max(0, self._exchange.who.principal.expires_at - self._jobs.now()) / 1000, 86_400.0)

    def _ending(self, following: asyncio.Future[bytes | None], stop: asyncio.Future[Any]) -> bytes | None:
        """Return the last words of a stream that is to end now, or None."""
        if stop.done():
            return DRAINING
        return None if following.done() else EXPIRED


async def _next(events: Events) -> bytes | None:
    return await anext(events, None)


async def _push(send: Any, part: bytes) -> None:
    """Send a part; a reader who takes nothing for long is gone."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        raise Vanished from None


def _told(job: Job, seen: int | None) -> bool:
    """Say whether a job's end was surely told before the last event seen.

    A change is told once it is durable, a moment after the instant it bears, and another may be told in
    between; so what ended shortly before the last event is told again. Open jobs always are.
    """
    return seen is not None and job.ended_at is not None and job.ended_at < seen - OVERLAP_MS


def _named(query: Query) -> frozenset[str] | None:
    text = query.one("jobs")
    if text is None:
        return None
    found = [ids.parse(name) for name in text.split(",")]
    if len(found) > MOST_NAMED or None in found:
        query.refuse("jobs", f"must be 1 to {MOST_NAMED} job ids separated by commas")
    return frozenset(name for name in found if name is not None)


def last_event(exchange: Exchange) -> int | None:
    """Return the id of the last event a client saw; `Problem` (400) for what was never one."""
    text = exchange.text(b"last-event-id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= EXACT):
        raise Problem("invalid_request", flaws=(Flaw("/header/last-event-id", "is no event's id"),))
    return int(text)
