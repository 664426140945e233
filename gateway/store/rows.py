"""SQL, and how structs become rows and rows structs. No connection lives here.

Rows of one table, whatever change or tenant they come from, are written together: many rows in one
statement, in chunks of powers of two so that few statement texts are ever prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from gateway.store import shelf_rows
from gateway.store.backend import Change, UserState
from gateway.store.contract import JobFilter, LedgerRow, Remains
from policies.model import Account, Entry, Money, Priority
from policies.quota import IDLE, idle

if TYPE_CHECKING:
    from gateway.store.backend import JobPut

Row = tuple[Any, ...]

KINDS: Final[dict[Priority, str]] = {"interactive": "job", "batch": "batch"}
"""How the queue calls the jobs of a line."""
TURNS: Final[dict[Priority, str]] = {"interactive": "turns", "batch": "batch_turns"}
"""The table of a line's turns."""

TENANT_VERSIONS: Final = "SELECT tenant, v, d FROM tenants WHERE tenant IN (SELECT value FROM json_each(?))"
SHUT: Final = (
    "SELECT tenant FROM tenants WHERE tenant IN (SELECT value FROM json_each(?))"
    " AND d ->> '$.shut' IS NOT NULL"
)
VERSIONS: Final = (
    "SELECT tenant, id, v FROM jobs WHERE (tenant, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
)
FENCES: Final = (
    "SELECT tenant, queue.id, fence FROM json_each(?) CROSS JOIN queue"
    " ON tenant = value ->> 0 AND kind IN ('job', 'batch') AND queue.id = value ->> 1"
)
KEYS_AT: Final = (
    "SELECT tenant, subject, key, at FROM idem WHERE (tenant, subject, key) IN"
    " (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))"
)
JOBS: Final = "SELECT id, d FROM jobs WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))"
ALL_USERS: Final = (
    "SELECT subject, ref, d FROM subjects LEFT JOIN users USING (tenant, subject) WHERE tenant = ?"
)
USERS: Final = f"{ALL_USERS} AND subject IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants only
USERS_ON: Final = (
    "SELECT tenant, subject, d FROM users WHERE (tenant, subject) > (?, ?) ORDER BY tenant, subject LIMIT ?"
)
ALL_JOBS: Final = "SELECT id, d FROM jobs WHERE tenant = ? ORDER BY n"
KEY: Final = "SELECT fp, job, at FROM idem WHERE tenant = ? AND subject = ? AND key = ?"
REF: Final = "SELECT ref FROM subjects WHERE tenant = ? AND subject = ?"
_OPEN: Final = "SELECT id FROM queue WHERE tenant = ?"
"""The open jobs of a tenant: few, however many have ended."""
POSITION: Final = (
    f"SELECT count(*) FROM jobs WHERE tenant = ? AND id IN ({_OPEN} AND kind = ?) AND state = 'queued'"  # noqa: S608 - constants only
    " AND n < (SELECT n FROM jobs WHERE tenant = ? AND id = ?)"
)
_ENTRIES: Final = (
    "SELECT v, i, subject_ref, job, kind, level, granted, held, charged, flight, month,"
    " cost_micros, cost_currency, policy_version, at FROM ledger WHERE tenant = ?"
)
WHOLE_LEDGER: Final = f"{_ENTRIES} ORDER BY v, i"
LEDGER: Final = (  # whole versions: a reader continues above the last one it got
    f"{_ENTRIES} AND v > ? AND v <= coalesce((SELECT v FROM ledger WHERE tenant = ? AND v > ?"  # noqa: S608 - constants only
    " ORDER BY v, i LIMIT 1 OFFSET ?), 9e15) ORDER BY v, i"
)
LINKS_UP: Final = "SELECT v, at, head, rows FROM audit WHERE tenant = ? AND v > ? ORDER BY v LIMIT ?"
LINKS_DOWN: Final = "SELECT v, at, head, rows FROM audit WHERE tenant = ? AND v < ? ORDER BY v DESC LIMIT ?"
EXPIRED_JOBS: Final = "SELECT id, d FROM jobs WHERE ended <= ? ORDER BY ended LIMIT ?"
EXPIRED_LINKS: Final = (
    "WITH stale AS MATERIALIZED (SELECT tenant, (SELECT max(v) FROM (SELECT v, at FROM audit"
    " WHERE audit.tenant = tenants.tenant ORDER BY v LIMIT ?1) WHERE at <= ?2) AS last FROM tenants"
    " WHERE (SELECT at FROM audit WHERE audit.tenant = tenants.tenant ORDER BY v LIMIT 1) <= ?2)"
    " SELECT tenant, v, at, head FROM stale CROSS JOIN audit USING (tenant) WHERE v = last"
)
DROP_KEYS: Final = (
    "DELETE FROM idem WHERE (tenant, subject, key) IN"
    " (SELECT tenant, subject, key FROM idem WHERE at <= ? AND subject != '' LIMIT ?)"
)
REMAINS: Final = "SELECT tenant, id, places FROM gone ORDER BY at LIMIT ?"

PUT_TENANTS: Final = (
    "INSERT INTO tenants (tenant, v, d) VALUES {}"
    " ON CONFLICT (tenant) DO UPDATE SET v = excluded.v, d = excluded.d"
)
PUT_USERS: Final = (
    "INSERT INTO users (tenant, subject, d) VALUES {}"
    " ON CONFLICT (tenant, subject) DO UPDATE SET d = excluded.d"
)
PUT_SUBJECTS: Final = "INSERT INTO subjects (tenant, subject, ref) VALUES {}"
PUT_JOBS: Final = "INSERT INTO jobs (tenant, id, subject, created, ended, state, v, d) VALUES {}"
PUT_QUEUE: Final = "INSERT INTO queue (tenant, kind, id, due, fence) VALUES {}"
_PUT_TURNS: Final = (
    " (tenant, at, weight) VALUES {} ON CONFLICT (tenant)"
    " DO UPDATE SET at = min(at, excluded.at), weight = excluded.weight"
)
PUT_KEYS: Final = "INSERT OR REPLACE INTO idem (tenant, subject, key, fp, job, at) VALUES {}"
PUT_GONE: Final = "INSERT OR REPLACE INTO gone (tenant, id, places, at) VALUES {}"
PUT_LEDGER: Final = (
    "INSERT INTO ledger (tenant, v, i, subject_ref, job, kind, level, granted, held, charged, flight,"
    " month, cost_micros, cost_currency, policy_version, at) VALUES {}"
)
PUT_LINKS: Final = "INSERT INTO audit (tenant, v, at, head, rows) VALUES {}"

_account = msgspec.json.Encoder()
_account_decoder = msgspec.json.Decoder(Account)

CHUNKS: Final = (64, 16, 4, 1)


class Cursor(Protocol):
    """The one method of a connection that is used here."""

    def execute(self, sql: str, values: Sequence[Any], /) -> Iterable[Row]:
        """Run a statement; return its rows."""
        ...


def names(of: Iterable[object]) -> str:
    """Return names as the JSON array the queries take."""
    return _account.encode(list(of)).decode()


def user_state(ref: str, text: str | None) -> UserState:
    """Return the state a reference and its users row hold; without one the user is idle."""
    return UserState(ref) if text is None else UserState(ref, _account_decoder.decode(text))


def idle_users(found: Iterable[Row], now: int) -> dict[str, list[str]]:
    """Return the users of rows, by tenant, whose figures tell nothing any more."""
    by_tenant: dict[str, list[str]] = {}
    for tenant, subject, text in found:
        if idle(_account_decoder.decode(text), now):
            by_tenant.setdefault(tenant, []).append(subject)
    return by_tenant


def remains_row(row: Row) -> Remains:
    """Return what a row of dropped jobs holds."""
    tenant, job, places = row
    return Remains(tenant, job, msgspec.json.decode(places, type=tuple[str, ...]))


def ledger_row(row: Row) -> LedgerRow:
    """Return the entry a ledger row holds."""
    v, i, ref, job, kind, level, granted, held, charged, flight, month, micros, currency, policy, at = row
    cost = None if micros is None else Money(micros, currency)
    entry = Entry(kind, month, job, level, granted, held, charged, flight, cost)
    return LedgerRow(v, i, ref, entry, policy, at)


def page_query(tenant: str, where: JobFilter, before: int | None, limit: int) -> tuple[str, Row]:
    """Return the query for a page of jobs and its values."""
    parts: list[tuple[str, Row]] = [("tenant = ?", (tenant,))]
    unended = bool(where.states) and not any(state.ended for state in where.states)
    if unended:
        parts.append((f"id IN ({_OPEN})", (tenant,)))
    if before is not None:
        parts.append(("n < ?", (before,)))
    if where.subject is not None:
        by = "+subject" if unended else "subject"  # a plus keeps the planner from the index of all that ended
        parts.append((f"{by} = ?", (where.subject,)))
    if where.states:
        parts.append(("state IN (SELECT value FROM json_each(?))", (names(map(str, where.states)),)))
    if where.created_after is not None:
        parts.append(("created > ?", (where.created_after,)))
    if where.created_before is not None:
        parts.append(("created < ?", (where.created_before,)))
    if where.operation is not None:
        parts.append(("coalesce(d ->> '$.request.operation', 'generate') = ?", (where.operation,)))
    if where.model is not None:
        parts.append(("d ->> '$.model' = ?", (where.model,)))
    for key, value in where.metadata.items():
        parts.append(("d ->> ('$.request.metadata.' || json_quote(?)) = ?", (key, value)))
    sql = " AND ".join(part for part, _values in parts)
    values = tuple(value for _part, each in parts for value in each)
    return f"SELECT n, id, d FROM jobs WHERE {sql} ORDER BY n DESC LIMIT ?", (*values, limit)  # noqa: S608 - constants only


def insert(cursor: Cursor, sql: str, values: list[Row]) -> None:
    """Run an insert for many rows. `{}` in `sql` stands for the rows' placeholders."""
    at = 0
    for chunk in CHUNKS:
        while len(values) - at >= chunk:
            rows = values[at : at + chunk]
            one = "(" + ",".join("?" * len(rows[0])) + ")"
            cursor.execute(sql.format(",".join([one] * chunk)), [value for row in rows for value in row])
            at += chunk


def writes(changes: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the inserts that changes amount to, a table at a time."""
    kept = [change for change in changes if change.state is not None]
    yield from _figures(kept)
    yield from _new_jobs([(c.tenant, put) for c in changes for put in c.puts if put.expect == 0])
    yield (
        PUT_KEYS,
        [
            (change.tenant, subject, key, row.fingerprint, row.job, row.at)
            for change in kept
            for (subject, key), row in change.keys.items()
        ],
    )
    yield PUT_LEDGER, [_ledger_values(change.tenant, row) for change in kept for row in change.ledger]
    drops = [(change, drop) for change in changes for drop in change.drops]
    gone = [(change.tenant, drop.job, _text(drop.places), change.now) for change, drop in drops]
    yield PUT_GONE, gone + shelf_rows.gone(kept)
    links = [(change.tenant, change.link) for change in kept if change.link is not None]
    yield PUT_LINKS, [(tenant, link.version, link.at, link.head, link.rows) for tenant, link in links]


def _figures(kept: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    states = [(change.tenant, change.state) for change in kept if change.state is not None]
    users = [(change.tenant, subject, user) for change in kept for subject, user in change.users.items()]
    yield PUT_TENANTS, [(tenant, state.version, _text(state.doc)) for tenant, state in states]
    told = [each for each in users if each[2].account != IDLE]
    yield PUT_USERS, [(tenant, subject, _text(user.account)) for tenant, subject, user in told]
    yield PUT_SUBJECTS, [(tenant, subject, user.ref) for tenant, subject, user in users if user.fresh]


def _new_jobs(puts: Sequence[tuple[str, JobPut]]) -> Iterator[tuple[str, list[Row]]]:
    due = [(tenant, put.job, put.due) for tenant, put in puts if isinstance(put.due, int)]
    yield PUT_JOBS, [_job_row(tenant, put) for tenant, put in puts]
    yield PUT_QUEUE, [(tenant, KINDS[job.priority], job.id, at, 0) for tenant, job, at in due]
    for priority, turns in TURNS.items():
        line = [(tenant, at, job.weight) for tenant, job, at in due if job.priority == priority]
        yield f"INSERT INTO {turns}{_PUT_TURNS}", line


def updates(changes: Sequence[Change]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the updates and deletes that changes amount to, a row at a time."""
    puts = [(change.tenant, put) for change in changes for put in change.puts if put.expect]
    yield (
        "UPDATE jobs SET ended = ?, state = ?, v = ?, d = ? WHERE tenant = ? AND id = ?",
        [
            (put.job.ended_at, str(put.job.state), put.job.version, put.doc, tenant, put.job.id)
            for tenant, put in puts
        ],
    )
    yield (
        "UPDATE queue SET due = ? WHERE tenant = ? AND kind = ? AND id = ?",
        [
            (put.due, tenant, KINDS[put.job.priority], put.job.id)
            for tenant, put in puts
            if isinstance(put.due, int)
        ],
    )
    yield (
        "DELETE FROM queue WHERE tenant = ? AND kind = ? AND id = ?",
        [(tenant, KINDS[put.job.priority], put.job.id) for tenant, put in puts if put.due == "drop"],
    )
    yield (
        "DELETE FROM users WHERE tenant = ? AND subject = ?",
        [
            (change.tenant, subject)
            for change in changes
            for subject, user in change.users.items()
            if user.account == IDLE and not user.fresh
        ],
    )
    yield (
        "DELETE FROM jobs WHERE tenant = ? AND id = ?",
        [(change.tenant, drop.job) for change in changes for drop in change.drops],
    )


def _text(value: object) -> str:
    return _account.encode(value).decode()


def _job_row(tenant: str, put: JobPut) -> Row:
    job = put.job
    state = str(job.state)
    return (tenant, job.id, job.subject, job.created_at, job.ended_at, state, job.version, put.doc)


def _ledger_values(tenant: str, row: LedgerRow) -> Row:
    entry = row.entry
    cost = entry.provider_cost
    return (
        tenant,
        row.version,
        row.index,
        row.ref,
        entry.job,
        entry.kind,
        entry.level,
        entry.granted,
        entry.held,
        entry.charged,
        entry.flight,
        entry.month,
        None if cost is None else cost.micros,
        None if cost is None else cost.currency,
        row.policy_version,
        row.at,
    )
