"""The calls about jobs: submit, read, wait, list, cancel, delete, quote.

Each reads its request strictly, asks the use case, and writes bytes; nothing is decided here. These are
the hot paths: a handler takes the request alone, reads the body once and builds the answer once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from litestar import delete, get, post
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Struct, UnsetType

from gateway.api.account import LimitsView, limits_view
from gateway.api.exchange import JSON, Answer, Exchange, exchange_of, json_answer
from gateway.api.gate import closed
from gateway.api.limits import credits_field
from gateway.api.queries import Cursors, Query
from gateway.api.views import JobView, Views, etag
from gateway.api.waiting import until_news
from gateway.errors import Problem
from gateway.lifetime import Lifetime
from gateway.store.contract import JobFilter
from policies import ids
from policies.access import Action
from policies.model import EXACT, Flaw, Job, JobRequest, JobState

if TYPE_CHECKING:
    from gateway.jobs import Jobs
    from gateway.telemetry import Telemetry

POLL: Final = (b"retry-after", b"1")
"""How soon an open job is worth another look, for those who poll."""
LONGEST_KEY: Final = 255
FILTERS: Final = ("state", "operation", "model", "subject", "created_after", "created_before")

_PLAIN: Final = re.compile(r"[!#-~][!-~]*")
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')

Handler = Request[Any, Any, Any]


class JobPage(Struct, frozen=True):
    """A page of jobs, newest first. `next` is the cursor of the page after, null at the end."""

    data: tuple[JobView, ...]
    next: str | None


class QuoteView(Struct, frozen=True):
    """What a submit would do now, without doing it: allowed or not and why, at what price."""

    allowed: bool
    price: int | None
    model: str | None
    size: str | None
    adjustments: tuple[str, ...]
    limits: LimitsView
    code: str | UnsetType = UNSET
    rule: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET
    final_prompt: str | UnsetType = UNSET


class JobCalls:
    """The routes of jobs. `seconds` is the longest a `?wait=` is held."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        cursors: Cursors,
        lifetime: Lifetime,
        telemetry: Telemetry,
        *,
        seconds: float,
    ) -> None:
        self._jobs = jobs
        self._views = views
        self._cursors = cursors
        self._lifetime = lifetime
        self._telemetry = telemetry
        self._seconds = seconds

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers, each with what it asks of a caller and what documents say of it."""
        read, write = closed(Action.READ), closed(Action.WRITE)
        one = "/v1/jobs/{job_id:str}"
        return [
            post("/v1/jobs", operation_id="createJob", status_code=202, opt=write)(self.submit),
            get("/v1/jobs", operation_id="listJobs", opt=read)(self.page),
            get(one, operation_id="getJob", opt=read)(self.get),
            delete(one, operation_id="deleteJob", opt=write)(self.delete),
            post(f"{one}/cancel", operation_id="cancelJob", status_code=200, opt=write)(self.cancel),
            post("/v1/quote", operation_id="quoteJob", status_code=200, opt=write)(self.quote),
        ]

    async def submit(self, request: Handler) -> Answer:
        """Submit a job.

        The job is stored and its credits are held when this answers 202. Read it at `Location`, or watch
        it by its `links.events`. With an `Idempotency-Key` the same request answers with the same job.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        if self._lifetime.draining:
            raise Problem("draining")
        key = idempotency_key(exchange)
        accepted = await self._jobs.submit(exchange.who, await exchange.json(JobRequest), key)
        exchange.usage = accepted.usage
        exchange.replayed = accepted.replayed
        headers = [(b"location", self._views.address(accepted.job.id).encode())]
        if accepted.replayed:
            headers.append((b"idempotent-replayed", b"true"))
        else:
            self._telemetry.held(accepted.job.hold.amount)
        return await self._shown(exchange, accepted.job, 202, headers)

    async def get(self, request: Handler) -> Answer:
        """Read a job, or wait for it.

        Always 200: `ended` says whether more will come. `wait` holds the answer until the job has ended,
        `wait` with `after` until its version is above that one, at most as long as the server allows.
        """
        exchange = exchange_of(request.scope)
        job = job_id(request)
        query = Query(request.scope, ("wait", "after"))
        seconds, after = query.seconds("wait"), query.whole("after", 0, EXACT)
        if after is not None and seconds is None:
            query.refuse("after", "is of use with `wait` only")
        query.close()
        if seconds:
            most = min(seconds, self._seconds)
            found = await until_news(self._jobs, self._lifetime, exchange, job, after, most)
        else:
            found = await self._jobs.get(exchange.who, job)
        exchange.usage = found.usage
        tag = etag(found.job, self._jobs.now())
        if matches(exchange.fields.get(b"if-none-match"), tag):
            exchange.job = found.job.id
            return Answer(304, [(b"etag", tag), self._credits(exchange)])
        return await self._shown(exchange, found.job, 200, [(b"etag", tag)])

    async def page(self, request: Handler) -> Answer:
        """List jobs, newest first.

        A caller's own jobs; for the tenant's admins the tenant's. A page may be short and have a `next`.
        """
        exchange = exchange_of(request.scope)
        who = exchange.who
        query = Query(request.scope, (*FILTERS, "cursor", "limit"), metadata=True)
        where = _filter(query)
        scope = ("jobs", who.principal.tenant, "" if who.principal.is_admin else who.principal.subject)
        before, limit = query.page(self._cursors, *scope)
        query.close()
        if not who.principal.is_admin and where.subject not in (None, who.principal.subject):
            raise Problem("forbidden", "Jobs of other subjects are listed for the tenant's admins.")
        page = await self._jobs.list(who, where, before, limit)
        now = self._jobs.now()
        shown = [
            self._views.job(job, now, await self._jobs.position(who, job) if _queued(job) else None)
            for job in page.jobs
        ]
        following = None if page.next is None else self._cursors.make(page.next, *scope)
        return json_answer(JobPage(tuple(shown), following))

    async def cancel(self, request: Handler) -> Answer:
        """Cancel a job.

        200 with the job when it is over, whatever its end; 202 while its provider is asked to stop. May be
        repeated.
        """
        exchange = exchange_of(request.scope)
        job = job_id(request)
        Query(request.scope).close()
        canceled, asked = await self._jobs.cancel(exchange.who, job)
        exchange.usage = await self._jobs.usage(exchange.who)
        return await self._shown(exchange, canceled, 202 if asked else 200, [])

    async def delete(self, request: Handler) -> None:
        """Delete a job that has ended.

        Prompt, inputs and images are erased; what was charged stays charged. Its `Idempotency-Key`, sent
        again, answers 410.
        """
        exchange = exchange_of(request.scope)
        exchange.job = job = job_id(request)
        Query(request.scope).close()
        await self._jobs.erase(exchange.who, job)

    async def quote(self, request: Handler) -> Answer:
        """Ask what a job would cost.

        Takes a submit's body and spends nothing. A prompt that a rule blocks is 200 with `allowed` false, and
        so is a URL that is not called from here; the bytes of inputs are not looked at.
        """
        exchange = exchange_of(request.scope)
        who = exchange.who
        Query(request.scope).close()
        quoted = await self._jobs.quote(who, await exchange.json(JobRequest))
        exchange.usage = usage = await self._jobs.usage(who)
        exchange.code, exchange.rule = quoted.code, quoted.rule
        wait = quoted.retry_after_ms
        return json_answer(
            QuoteView(
                allowed=quoted.allowed,
                price=quoted.price,
                model=quoted.model,
                size=quoted.size,
                adjustments=quoted.adjustments,
                limits=limits_view(usage, who, self._jobs.now()),
                code=quoted.code or UNSET,
                rule=quoted.rule or UNSET,
                detail=quoted.detail or UNSET,
                retry_after=UNSET if wait is None else -(-wait // 1000),
                final_prompt=UNSET if quoted.final_prompt is None else quoted.final_prompt,
            )
        )

    async def _shown(
        self, exchange: Exchange, job: Job, status: int, headers: list[tuple[bytes, bytes]]
    ) -> Answer:
        """Return the answer that shows a job, with the headers that go with one."""
        exchange.job = job.id
        position = await self._jobs.position(exchange.who, job) if _queued(job) else None
        headers += (JSON, self._credits(exchange))
        if not job.state.ended:
            headers.append(POLL)
        return Answer(status, headers, self._views.body(job, self._jobs.now(), position))

    def _credits(self, exchange: Exchange) -> tuple[bytes, bytes]:
        assert exchange.usage is not None  # noqa: S101 - every caller has just read it
        return credits_field(exchange.usage, exchange.who.terms, self._jobs.now())


def _queued(job: Job) -> bool:
    return job.state is JobState.QUEUED


def job_id(request: Handler) -> str:
    """Return the UUID's text of the job a path names; `Problem` (404) where it can name none."""
    job = ids.parse(request.path_params["job_id"])
    if job is None:
        raise Problem("not_found")
    return job


def idempotency_key(exchange: Exchange) -> str | None:
    """Return the key of a request, plain or as a quoted string (RFC 8941); `Problem` (400) if malformed.

    Both spellings of a key are the same key.
    """
    text = exchange.text(b"idempotency-key")
    if text is None:
        return None
    if len(text) <= LONGEST_KEY and _PLAIN.fullmatch(text):
        return text
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not 0 < len(key) <= LONGEST_KEY:
        detail = f"must be 1 to {LONGEST_KEY} printable ASCII characters, plain or in double quotes"
        raise Problem("invalid_request", flaws=(Flaw("/header/idempotency-key", detail),))
    return key


def matches(condition: bytes | None, tag: bytes) -> bool:
    """Say whether an `If-None-Match` holds this validator, compared weakly (RFC 9110, 13.1.2)."""
    if condition is None:
        return False
    if condition.strip() == b"*":
        return True
    plain = tag.removeprefix(b"W/")
    return any(part.strip().removeprefix(b"W/") == plain for part in condition.split(b","))


def _filter(query: Query) -> JobFilter:
    return JobFilter(
        subject=query.one("subject"),
        states=frozenset(JobState(word) for word in query.among("state", JobState) if word in set(JobState)),
        operation=query.word("operation", ("generate", "edit")),
        model=query.one("model"),
        created_after=query.instant("created_after"),
        created_before=query.instant("created_before"),
        metadata=query.metadata(),
    )
