"""What is read of a tenant in one go: what a fold wants, and all that the doctor looks at.

Over any cursor: the library is known next door. A stored text that cannot be read is as if it were not
there, and its id is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from gateway.store import rows, shelf_rows
from gateway.store.backend import Examined, KeyRow, Loaded, TenantState, UserState, Want
from gateway.store.contract import TrailLink
from policies.model import Job

if TYPE_CHECKING:
    from gateway.store.format import Forms

_T = TypeVar("_T")
_TENANT: Final = "SELECT v, d FROM tenants WHERE tenant = ?"


class Reading:
    """Turns stored texts into values; tells the id of one that it cannot read, once."""

    def __init__(self, tell: Callable[[str], None], forms: Forms) -> None:
        self.forms = forms
        self._tell = tell
        self._told: set[str] = set()

    def job(self, name: str, text: str) -> Job | None:
        """Return a job, None where it cannot be read."""
        return self._read(self.forms.job, name, text)

    def jobs(self, found: list[rows.Row]) -> tuple[Job, ...]:
        """Return the jobs of rows of id and text, without those that cannot be read."""
        jobs = (self.job(name, text) for name, text in found)
        return tuple(job for job in jobs if job is not None)

    def value(self, decoder: msgspec.json.Decoder[_T], name: str, text: str) -> _T | None:
        """Return a document, None where it cannot be read."""
        return self._read(decoder.decode, name, text)

    def values(self, decoder: msgspec.json.Decoder[_T], found: list[rows.Row]) -> list[_T]:
        """Return the documents of rows of id and text, without those that cannot be read."""
        read = [self.value(decoder, name, text) for name, text in found]
        return [each for each in read if each is not None]

    def _read(self, decode: Callable[[str], _T], name: str, text: str) -> _T | None:
        try:
            return decode(text)
        except msgspec.DecodeError:
            if name not in self._told:
                self._told.add(name)
                self._tell(name)
            return None


def load(cursor: rows.Cursor, want: Want, reading: Reading) -> Loaded:
    """Return what is wanted of a tenant."""
    loaded = Loaded(users={}, jobs={}, keys={})
    if want.state:
        loaded.state = _state(cursor, want.tenant, reading)
    if want.subjects:
        found = cursor.execute(rows.USERS, (want.tenant, rows.names(want.subjects)))
        loaded.users = {subject: rows.user_state(ref, text) for subject, ref, text in found}
    if want.jobs:
        found = cursor.execute(rows.JOBS, (want.tenant, rows.names(want.jobs)))
        loaded.jobs = dict.fromkeys(want.jobs) | {job: reading.job(job, text) for job, text in found}
    for subject, key in want.keys:
        for row in cursor.execute(rows.KEY, (want.tenant, subject, key)):
            loaded.keys[subject, key] = KeyRow(*row)
    if want.docs or want.deliveries or want.endpoints:
        _beside(cursor, want, loaded, reading)
    return loaded


def _state(cursor: rows.Cursor, tenant: str, reading: Reading) -> TenantState:
    found = list(cursor.execute(_TENANT, (tenant,)))
    return TenantState(found[0][0], reading.forms.tenant(found[0][1])) if found else TenantState()


def _beside(cursor: rows.Cursor, want: Want, loaded: Loaded, reading: Reading) -> None:
    """Add what is wanted of what lies beside the jobs."""
    loaded.docs = dict.fromkeys(want.docs)
    for kind, name in want.docs:
        for row in cursor.execute(shelf_rows.DOC, (want.tenant, kind, name)):
            loaded.docs[kind, name] = reading.value(shelf_rows.DECODERS[kind], *row)
    if want.deliveries:
        found = list(cursor.execute(shelf_rows.DELIVERIES, (want.tenant, rows.names(want.deliveries))))
        told = reading.values(shelf_rows.DELIVERY, found)
        loaded.deliveries = dict.fromkeys(want.deliveries) | {each.id: each for each in told}
    if want.endpoints:
        found = list(cursor.execute(shelf_rows.ENDPOINTS, (want.tenant,)))
        loaded.endpoints = {each.id: each for each in reading.values(shelf_rows.ENDPOINT, found)}


def examine(cursor: rows.Cursor, tenant: str, reading: Reading) -> Examined:
    """Return everything of a tenant."""

    def rows_of(sql: str, *values: Any) -> list[rows.Row]:
        return list(cursor.execute(sql, (tenant, *values)))

    users: dict[str, UserState] = {
        subject: rows.user_state(ref, text) for subject, ref, text in rows_of(rows.ALL_USERS)
    }
    jobs = {job: reading.job(job, text) for job, text in rows_of(rows.ALL_JOBS)}
    return Examined(
        state=_state(cursor, tenant, reading),
        users=users,
        ledger=tuple(rows.ledger_row(each) for each in rows_of(rows.WHOLE_LEDGER)),
        jobs=tuple(job for job in jobs.values() if job is not None),
        queued=frozenset(job for (job,) in rows_of("SELECT id FROM queue WHERE tenant = ?")),
        links=tuple(TrailLink(*each) for each in rows_of(rows.LINKS_UP, 0, -1)),
        unreadable=frozenset(name for name, job in jobs.items() if job is None),
        endpoints=len(rows_of(shelf_rows.ENDPOINTS)),
    )
