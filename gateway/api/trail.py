"""The trail, for a tenant's admins: a page of it, or an export of all of it.

Lines are shown as they are kept: a random reference stands for a subject, a keyed hash for a prompt. The
export is one JSON object a line and is read page by page while it is sent, so its size costs no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.api.exchange import Reply, encode, exchange_of, json_answer
from gateway.api.gate import chosen, closed
from gateway.api.queries import MOST, Cursors, Query
from gateway.api.views import Time, time_text
from gateway.trail import TrailFilter
from policies import ids
from policies.access import Action

if TYPE_CHECKING:
    from gateway.audit import Record
    from gateway.trail import Trail

NDJSON: Final = "application/x-ndjson"
FILTERS: Final = ("subject", "job", "action", "created_after", "created_before")


class RecordView(Struct, frozen=True):
    """One decision: who, when, what, by which rule, at what cost. `count` folds equal refusals."""

    at: Time
    action: str
    decision: str
    subject_ref: str
    role: str | None
    job: str | None
    code: str | None
    rule: str | None
    model: str | None
    credits: int
    count: int
    prompt_hash: str | None
    policy_version: str | None


class TrailView(Struct, frozen=True):
    """A page of the trail, newest first."""

    data: tuple[RecordView, ...]
    next: str | None


class TrailCalls:
    """The route of the trail."""

    def __init__(self, trail: Trail, cursors: Cursors) -> None:
        self._trail = trail
        self._cursors = cursors

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handler."""
        opt = closed(Action.AUDIT, ("application/json", NDJSON))
        return [get("/v1/audit", operation_id="listAudit", opt=opt)(self.page)]

    async def page(self, request: Request[Any, Any, Any]) -> Reply:
        """Read the trail.

        For the tenant's admins, newest first. `Accept: application/x-ndjson` answers with every line that
        fits from the cursor on, one JSON object a line; `limit` is not of use then.
        """
        exchange = exchange_of(request.scope)
        who = exchange.who
        query = Query(request.scope, (*FILTERS, "cursor", "limit"))
        where = _filter(query)
        scope = ("audit", who.principal.tenant)
        before, limit = query.page(self._cursors, *scope)
        query.close()
        accept = exchange.fields.get(b"accept", b"*/*")
        if chosen(accept, ("application/json", NDJSON)) == NDJSON:
            return Export(self._trail, who.principal.tenant, where, before)
        found = await self._trail.page(who.principal.tenant, where, before, limit)
        following = None if found.next is None else self._cursors.make(found.next, *scope)
        return json_answer(TrailView(tuple(record_view(record) for record in found.records), following))


class Export:
    """Every line of the trail that fits, as an ASGI application that sends them as it reads."""

    def __init__(self, trail: Trail, tenant: str, where: TrailFilter, before: int | None) -> None:
        self._trail = trail
        self._tenant = tenant
        self._where = where
        self._before = before

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Send it. A failure on the way leaves the answer half, which the client can tell."""
        page = await self._trail.page(self._tenant, self._where, self._before, MOST)
        headers = [
            (b"content-type", NDJSON.encode()),
            (b"content-disposition", b'attachment; filename="audit.ndjson"'),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            lines = b"".join([encode(record_view(record)) + b"\n" for record in page.records])
            await send({"type": "http.response.body", "body": lines, "more_body": page.next is not None})
            if page.next is None:
                return
            page = await self._trail.page(self._tenant, self._where, page.next, MOST)


def record_view(record: Record) -> RecordView:
    """Return a line of the trail as it is shown."""
    return RecordView(
        at=time_text(record.at),
        action=record.action,
        decision=record.decision,
        subject_ref=record.ref,
        role=record.role,
        job=None if record.job is None else ids.shown(record.job),
        code=record.code,
        rule=record.rule,
        model=record.model,
        credits=record.credits,
        count=record.count,
        prompt_hash=record.prompt,
        policy_version=record.policy,
    )


def _filter(query: Query) -> TrailFilter:
    named = query.one("job")
    job = None if named is None else ids.parse(named)
    if named is not None and job is None:
        query.refuse("job", "is not a job's id")
    return TrailFilter(
        subject=query.one("subject"),
        job=job,
        action=query.one("action"),
        after_at=query.instant("created_after"),
        before_at=query.instant("created_before"),
    )
