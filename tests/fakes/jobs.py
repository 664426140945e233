"""The use cases, in memory: as much of `gateway.jobs.Jobs` as the API asks, with no rule but who sees what.

Tests put jobs in with `put` and say what the next submit or quote answers. Limits are what `usage` holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gateway.audit import Record
from gateway.callers import Caller
from gateway.errors import Problem
from gateway.following import Following
from gateway.jobs import Accepted, Quoted
from gateway.store.bell import Bell, LocalWatch
from gateway.store.contract import Found, JobFilter, Page
from gateway.trail import TrailFilter, TrailPage
from policies import quota
from policies.bundle import PerLevel, Plan
from policies.menu import ModelOffer
from policies.model import Account, Hold, Job, JobRequest, JobState, Principal, Usage

NOON = 1_795_176_000_000
"""The time of these tests: a five-minute mark."""

PLAN = Plan(
    credits_per_month=100,
    monthly_cap=100,
    submit_per_hour=PerLevel(60, 600),
    in_flight=PerLevel(2, 10),
    streams=2,
    count=4,
    prompt=1000,
    models=("standard",),
)


def uuid(number: int) -> str:
    """Return the id of the n-th job of these tests."""
    return f"01932c07-0000-7000-8000-{number:012x}"


class FakeJobs:
    """Jobs by id. `raising` is raised by whatever is called next."""

    def __init__(self) -> None:
        self.at = NOON
        self.jobs: dict[str, Job] = {}
        self.bell = Bell()
        self.figures = Usage(Account(granted=100, month="2026-11"), Account(granted=None, month="2026-11"))
        self.keys: dict[str, str] = {}
        self.hold = Hold(0, "")
        self.asked: list[tuple[str, Any]] = []
        self.quoted = Quoted(allowed=True, price=10, model="standard", size="1024x1024")
        self.records: list[Record] = []
        self.rows: tuple[ModelOffer, ...] = ()
        self.raising: Exception | None = None
        self.meanwhile: Callable[[], object] | None = None
        self.missing: frozenset[str] = frozenset()

    def now(self) -> int:
        """Return the time, which only tests move."""
        return self.at

    def _may_raise(self) -> None:
        error, self.raising = self.raising, None
        if error is not None:
            raise error

    def put(self, number: int, **fields: Any) -> Job:
        """Keep a job, or its next version, and tell those who watch."""
        old = self.jobs.get(uuid(number))
        made = {
            "id": uuid(number),
            "tenant": "acme",
            "subject": "ann",
            "request": JobRequest(prompt="a lighthouse"),
            "model": "standard",
            "size": "1024x1024",
            "aspect_ratio": "1:1",
            "created_at": NOON + number,
            "version": 1,
        }
        job = Job(**{**made, **fields}) if old is None else replace(old, **fields)
        if old is not None and "version" not in fields:
            job = replace(job, version=old.version + 1)
        self.jobs[job.id] = job
        self.bell.ring(job.tenant, job.subject, job.id)
        return job

    def end(self, number: int, state: JobState = JobState.CANCELED) -> Job:
        """End a job now."""
        return self.put(number, state=state, ended_at=self.at)

    def admit_caller(self, principal: Principal) -> Caller:
        """Admit every tenant that is not `missing`."""
        if principal.tenant in self.missing:
            raise Problem("tenant_suspended")
        return Caller(principal, PLAN, PLAN, quota.terms(PLAN, PLAN))

    async def turned_away(self, who: Principal, code: str, rule: str) -> None:
        """Keep who was refused, and what."""
        self.asked.append(("turned_away", (who.subject, code, rule)))

    async def submit(self, who: Caller, request: JobRequest, key: str | None) -> Accepted:
        """Keep a job, or find the one its key made."""
        self._may_raise()
        self.asked.append(("submit", (request, key)))
        if key in self.keys:
            return Accepted(self.jobs[self.keys[key]], self.figures, replayed=True)
        job = self.put(len(self.jobs) + 1, request=request, subject=who.principal.subject, hold=self.hold)
        if key is not None:
            self.keys[key] = job.id
        return Accepted(job, self.figures)

    async def get(self, who: Caller, job_id: str) -> Found:
        """Return a job to those who may see it."""
        self._may_raise()
        job = self.jobs.get(job_id)
        mine = job is not None and (who.principal.is_admin or job.subject == who.principal.subject)
        if job is None or not mine or job.tenant != who.principal.tenant:
            raise Problem("not_found")
        return Found(job, self.figures)

    def follow(self, who: Caller, job_id: str) -> Following:
        """Follow a job on the bell, as on the store's."""

        async def look() -> Job | None:
            self._may_raise()
            return self.jobs.get(job_id)

        return Following(self.bell.watch(who.principal.tenant, None, job_id), look, lambda: 0.5)

    async def wait(self, who: Caller, job_id: str, after: int | None, seconds: float) -> Found:
        """Wait on the bell."""
        version = 2**53 if after is None else after
        with self.follow(who, job_id) as following:
            found = await self.get(who, job_id)
            await following.until(lambda job: job.state.ended or job.version > version, found.job, seconds)
        return await self.get(who, job_id)

    async def list(self, who: Caller, where: JobFilter, before: int | None, limit: int) -> Page:
        """Return jobs by subject and state; other filters are noted in `asked`."""
        self._may_raise()
        self.asked.append(("list", where))
        subject = where.subject if who.principal.is_admin else who.principal.subject
        fitting = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: -job.created_at)
            if job.tenant == who.principal.tenant
            and subject in (None, job.subject)
            and (not where.states or job.state in where.states)
            and (before is None or job.created_at < before)
        ]
        page = tuple(fitting[:limit])
        return Page(page, page[-1].created_at if len(fitting) > limit else None)

    async def cancel(self, who: Caller, job_id: str) -> tuple[Job, bool]:
        """End a queued job, ask a running one to."""
        job = (await self.get(who, job_id)).job
        if job.state is JobState.QUEUED:
            return self.put(int(job_id[-12:], 16), state=JobState.CANCELED, ended_at=self.at), False
        if job.state is JobState.RUNNING:
            return self.put(int(job_id[-12:], 16), cancel_requested_at=self.at), True
        return job, False

    async def erase(self, who: Caller, job_id: str) -> None:
        """Forget an ended job."""
        if not (await self.get(who, job_id)).job.state.ended:
            raise Problem("job_open")
        del self.jobs[job_id]

    async def quote(self, who: Caller, request: JobRequest) -> Quoted:
        """Return what the test put there."""
        self._may_raise()
        return self.quoted

    async def usage(self, who: Caller) -> Usage:
        """Return what the test put there."""
        self._may_raise()
        return self.figures

    async def models(self, who: Caller) -> tuple[ModelOffer, ...]:
        """Return what the test put there."""
        return self.rows

    async def page(self, tenant: str, where: TrailFilter, before: int | None, limit: int) -> TrailPage:
        """Return records by their instants; the filter is noted in `asked`."""
        self.asked.append(("trail", where))
        fitting = [record for record in self.records if before is None or record.at < before]
        page = tuple(fitting[:limit])
        return TrailPage(page, page[-1].at if len(fitting) > limit else None)

    async def position(self, who: Caller, job: Job) -> int | None:
        """Say that three are before every queued job; `meanwhile` happens first, once."""
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return 3 if job.state is JobState.QUEUED else None

    def watch(self, who: Caller) -> LocalWatch:
        """Watch the caller's jobs."""
        return self.bell.watch(who.principal.tenant, who.principal.subject, None)
