"""SQL of what lies beside the jobs, and how it is written. No connection lives here.

Rows are written after those of `rows.py`, in an order that lets a change hush or drop what was there and
put its own in one go. Few commits touch any of this: each statement runs only where there are rows for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.store.backend import DeliveryPut, DocDrop, DocPut
from policies.model import ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.store.backend import Change, Doc, Kind

Row = tuple[Any, ...]

KEY: Final = msgspec.json.Decoder(ServiceKey)
UPLOAD: Final = msgspec.json.Decoder(Upload)
ENDPOINT: Final = msgspec.json.Decoder(Endpoint)
DECODERS: Final[dict[Kind, msgspec.json.Decoder[Any]]] = {"endpoint": ENDPOINT, "upload": UPLOAD, "key": KEY}
DELIVERY: Final = msgspec.json.Decoder(Delivery)

DOC: Final = "SELECT id, d FROM docs WHERE tenant = ? AND kind = ? AND id = ?"
KEY_OF: Final = "SELECT id, d FROM docs WHERE kind = 'key' AND d ->> '$.hash' = ?"
KEYS: Final = "SELECT id, d FROM docs WHERE tenant = ? AND kind = 'key' ORDER BY at DESC, id DESC"
ENDPOINTS: Final = "SELECT id, d FROM docs WHERE tenant = ? AND kind = 'endpoint' ORDER BY at, id"
EXPIRED_UPLOADS: Final = "SELECT tenant, id FROM docs WHERE kind = 'upload' AND at <= ? ORDER BY at LIMIT ?"
DELIVERIES: Final = "SELECT id, d FROM deliveries WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))"
PAGE: Final = (
    "SELECT n, id, d FROM deliveries WHERE tenant = ? AND endpoint = ? AND n < ? ORDER BY n DESC LIMIT ?"
)
FENCES: Final = (
    "SELECT tenant, id, fence FROM deliveries WHERE (tenant, id) IN"
    " (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
)
_FIRST_DUE: Final = (  # a step an endpoint, however many deliveries each has
    "WITH RECURSIVE heads (endpoint) AS (SELECT min(endpoint) FROM deliveries WHERE due IS NOT NULL"
    " UNION ALL SELECT (SELECT min(endpoint) FROM deliveries WHERE due IS NOT NULL"
    " AND endpoint > heads.endpoint) FROM heads WHERE heads.endpoint IS NOT NULL),"
    " firsts (endpoint, due) AS (SELECT endpoint, (SELECT min(due) FROM deliveries AS each"
    " WHERE each.endpoint = heads.endpoint AND due IS NOT NULL) FROM heads"
    " WHERE endpoint IS NOT NULL AND endpoint NOT IN (SELECT value FROM json_each(?1)))"
)
NEXT_DUE: Final = f"{_FIRST_DUE} SELECT min(due) FROM firsts"  # noqa: S608 - constants only
CLAIM: Final = (
    f"{_FIRST_DUE}, chosen (n) AS (SELECT some.n FROM"  # noqa: S608 - constants only
    " (SELECT endpoint FROM firsts WHERE due <= ?2 ORDER BY due LIMIT ?3) AS theirs"
    " CROSS JOIN deliveries AS some ON some.n IN (SELECT n FROM deliveries AS each"
    " WHERE each.endpoint = theirs.endpoint AND due <= ?2 ORDER BY due LIMIT ?4)"
    " ORDER BY some.due LIMIT ?3)"
    " SELECT told.n, told.id, told.d, fence, docs.id, docs.d, job, jobs.d FROM chosen"
    " CROSS JOIN deliveries AS told USING (n)"
    " JOIN docs ON docs.tenant = told.tenant AND docs.kind = 'endpoint' AND docs.id = told.endpoint"
    " LEFT JOIN jobs ON jobs.tenant = told.tenant AND jobs.id = told.job ORDER BY due"
)
LEASE: Final = "UPDATE deliveries SET due = ?, fence = fence + 1 WHERE n = ?"
RELEASE: Final = "UPDATE deliveries SET due = ? WHERE tenant = ? AND id = ? AND fence = ? AND due IS NOT NULL"
RECLAIM: Final = (  # one that waits for its next try is due when it says, one that is leased was due before
    "UPDATE deliveries SET due = d ->> '$.due_at', fence = fence + 1"
    " WHERE due IS NOT NULL AND due > iif(json_valid(d), d ->> '$.due_at', NULL)"
)
DROP_OVER: Final = (
    "DELETE FROM deliveries WHERE n IN"
    " (SELECT n FROM deliveries WHERE due IS NULL AND created <= ? ORDER BY created LIMIT ?) RETURNING n"
)

PUT_DOCS: Final = (
    "INSERT INTO docs (tenant, kind, id, subject, at, d) VALUES {}"
    " ON CONFLICT (tenant, kind, id) DO UPDATE SET at = excluded.at, d = excluded.d"
)
PUT_DELIVERIES: Final = "INSERT INTO deliveries (tenant, id, endpoint, job, due, fence, created, d) VALUES {}"
BURY: Final = "DELETE FROM gone WHERE tenant = ? AND id = ?"
_HUSH: Final = (
    "UPDATE deliveries SET due = NULL, d = iif(json_valid(d), json_remove(d, '$.due_at'), d)"
    " WHERE +tenant = ? AND endpoint = ? AND due IS NOT NULL"  # the plus: by the index of what is due
)


def gone(changes: Sequence[Change]) -> list[Row]:
    """Return what dropped uploads leave: a folder that is named by their id."""
    return [
        (change.tenant, each.id, "[]", change.now)
        for change in changes
        for each in change.docs
        if isinstance(each, DocDrop) and each.kind == "upload"
    ]


def _puts(changes: Sequence[Change]) -> list[tuple[str, DocPut]]:
    return [(c.tenant, each) for c in changes for each in c.docs if isinstance(each, DocPut)]


def before(changes: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    """Yield what comes before a change's own: what was there and is no longer due, or dropped.

    And what an upload left that was dropped before, and is put again: its place is its own again.
    """
    drops = [(c.tenant, each) for c in changes for each in c.docs if isinstance(each, DocDrop)]
    yield _HUSH, [(change.tenant, endpoint) for change in changes for endpoint in change.hushed]
    yield (
        "DELETE FROM deliveries WHERE tenant = ? AND endpoint = ?",
        [(tenant, drop.id) for tenant, drop in drops if drop.kind == "endpoint"],
    )
    yield (
        "DELETE FROM docs WHERE tenant = ? AND kind = ? AND id = ?",
        [(tenant, drop.kind, drop.id) for tenant, drop in drops],
    )
    puts = [(tenant, put.id) for tenant, put in _puts(changes) if put.kind == "upload"]
    yield BURY, puts


def writes(changes: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the inserts that changes amount to."""
    docs = _puts(changes)
    yield PUT_DOCS, [_doc_row(tenant, put) for tenant, put in docs]
    told = [(c.tenant, put) for c in changes for put in c.deliveries if put.fresh]
    yield PUT_DELIVERIES, [_delivery_row(tenant, put) for tenant, put in told]


def updates(changes: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the updates of deliveries that are there, and the end of those whose job is dropped."""
    yield (
        "UPDATE deliveries SET due = ?, fence = fence + 1, d = ? WHERE tenant = ? AND id = ?",
        [
            (put.due, put.doc, change.tenant, put.delivery.id)
            for change in changes
            for put in change.deliveries
            if not put.fresh
        ],
    )
    yield (
        "DELETE FROM deliveries WHERE tenant = ? AND job = ?",
        [(change.tenant, drop.job) for change in changes for drop in change.drops],
    )


def _doc_row(tenant: str, put: DocPut) -> Row:
    return (tenant, put.kind, put.id, put.value.subject, _at(put.value), put.doc)


def _at(value: Doc) -> int:
    return value.expires_at if isinstance(value, Upload) else value.created_at


def _delivery_row(tenant: str, put: DeliveryPut) -> Row:
    told = put.delivery
    return (tenant, told.id, told.endpoint, told.job, put.due, 0, told.created_at, put.doc)
