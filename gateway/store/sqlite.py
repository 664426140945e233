"""The store in one SQLite file: one process, durable, nothing to install.

One writer connection lives on a thread of its own; a batch is one `BEGIN IMMEDIATE`, with `WAL` and
`synchronous=FULL`, so what is answered is on disk. Point reads run on the caller's thread over a second
connection: a read of the page cache is cheaper than a hop. Lists, which may look through all a tenant has,
have a thread and a connection too. A lock beside the file refuses a second process that would write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import apsw

from gateway.crash import Hook, nowhere
from gateway.errors import Refusal, StoreUnavailable
from gateway.store import rows, shelf_rows, sqlite_form
from gateway.store.backend import (
    Applied,
    Change,
    Examined,
    Expired,
    Loaded,
    News,
    Outcome,
    Refused,
    Strange,
    Want,
)
from gateway.store.contract import Claim, JobFilter, LedgerRow, Page, Remains, Retention, TrailLink
from gateway.store.format import Forms, Upgrade
from gateway.store.guard import Stored, touched, verdict
from gateway.store.lock import take
from gateway.store.log import Log
from gateway.store.queue_sqlite import SqliteQueue, backlog, next_due
from gateway.store.reads import Reading, examine, load
from gateway.store.shelf_sqlite import SqliteShelf
from policies.model import Job, Priority
from policies.order import Backlog

SLOWEST_MS: Final = 2_000
"""How long a statement may wait for the file before the store counts as unavailable."""
UNREADABLE: Final = 200
"""Jobs that cannot be read that a sweep steps over; there are next to none."""
WIPE_MS: Final = 50
"""How long emptying the log may wait for readers beside this process, while commits wait for it."""

_T = TypeVar("_T")


class SqliteBackend:
    """A `Backend` over one file. `read_only` opens it beside a running server.

    A stored job that cannot be read is as if it were absent; `unreadable` is told its id, once, on
    whatever thread met it.
    """

    alone = True

    def __init__(
        self,
        path: Path,
        clock: Callable[[], int],
        *,
        crash: Hook = nowhere,
        read_only: bool = False,
        me: str = "",
        unreadable: Callable[[str], None] = lambda _job: None,
        forms: Forms | None = None,
    ) -> None:
        self.clock = clock
        self.forms = forms or Forms()
        self.me = me
        self._crash = crash
        self._reading = Reading(unreadable, self.forms)
        self._looked = ("", "")
        """The user a sweep looked at last."""
        self._closed = False
        self._lock = None if read_only else take(path)
        try:
            self._reader = _open(path, write=not read_only)
            self._form = _prepare(self._reader, path, self.forms, write=not read_only)
            self._writer = self._reader if read_only else _open(path, write=True)
            self._lister = _open(path, write=False)
            self._keeper = _open(path, write=not read_only)
        except Refusal:
            self._unlock()
            raise
        if not read_only:
            _make_durable(self._writer)
        self._queue = SqliteQueue(self._writer, self._write, self._reading)
        if not read_only:
            self._reclaim(clock())
        self._reader.pragma("query_only", True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="store-lists")
        log = Log(self._empty_log, self._restart_log, self._aside.submit, self._thread.submit)
        self._writer.set_wal_hook(log.grew)
        self.shelf = SqliteShelf(self._reader, self._writer, self._write, _faults, self._reading)

    def listen(self, told: Callable[[News | None], None], turned: Callable[[], None]) -> None:
        """Tell nothing: no other process writes."""

    def strange(self) -> Strange | None:
        """Return nothing: the file is this process' own."""

    def accept(self, strange: Strange) -> None:
        """Do nothing, as `strange`."""

    async def look(self) -> None:
        """Do nothing: what could be refused was, when the file was opened."""

    async def upgrade(self, *, finish: bool) -> Upgrade:  # noqa: ARG002 - an opened file is finished
        """Say which form the file has: one that is opened to write has the newest."""
        return Upgrade(self._form, self.forms.newest)

    async def start(self) -> None:
        """Do nothing, as `look`."""

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Return what is wanted, in order."""
        with _faults(), self._reader:
            loaded = [load(self._reader, want, self._reading) for want in wants]
        return loaded  # noqa: RET504 - the library's context manager may swallow, for a type checker

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply each change whole or not at all, in one transaction for all."""
        return await self._write(lambda: self._commit(changes))

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a line until `until`, tenants in turn."""
        return await self._queue.claim(n, now, until, priority)

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Extend leases; an open attempt's longer lease is never shortened."""
        return await self._queue.renew(claims, until)

    async def release(self, claims: Sequence[Claim], due: int) -> None:
        """Make leased jobs due. Lost leases are passed over."""
        await self._queue.release(claims, due)

    async def get(self, tenant: str, job: str) -> Job | None:
        """Return one job."""
        with _faults():
            text = _one(self._reader, "SELECT d FROM jobs WHERE tenant = ? AND id = ?", (tenant, job))
        return None if text is None else self._reading.job(job, text)

    async def page(self, tenant: str, where: JobFilter, before: int | None, limit: int) -> Page:
        """Return jobs newest first; one row more than asked tells whether there are older ones."""
        sql, values = rows.page_query(tenant, where, before, limit + 1)
        found = await self._on_thread(lambda: _all(self._lister, sql, values), self._aside)
        more = found[limit - 1][0] if len(found) > limit else None
        return Page(self._reading.jobs([row[1:] for row in found[:limit]]), more)

    async def position(self, tenant: str, job: str, priority: Priority) -> int:
        """Return how many queued jobs of the tenant are older, in the job's line."""
        values = (tenant, tenant, rows.KINDS[priority], tenant, job)
        with _faults():
            return int(_one(self._reader, rows.POSITION, values) or 0)

    async def ledger(self, tenant: str, after: int, limit: int) -> list[LedgerRow]:
        """Return ledger rows above a version, in order."""
        with _faults():
            found = _all(self._reader, rows.LEDGER, (tenant, after, tenant, after, limit - 1))
        return [rows.ledger_row(row) for row in found]

    async def links(self, tenant: str, before: int | None, limit: int, *, up: bool) -> list[TrailLink]:
        """Return trail links beside a version."""
        edge = before if before is not None else (0 if up else 2**62)
        with _faults():
            found = _all(self._reader, rows.LINKS_UP if up else rows.LINKS_DOWN, (tenant, edge, limit))
        return [TrailLink(*row) for row in found]

    async def ref_of(self, tenant: str, subject: str) -> str | None:
        """Return a subject's reference."""
        with _faults():
            ref = _one(self._reader, rows.REF, (tenant, subject))
        return None if ref is None else str(ref)

    async def tenants(self) -> list[str]:
        """Return the names of all tenants."""
        with _faults():
            return [row[0] for row in _all(self._reader, "SELECT tenant FROM tenants ORDER BY tenant")]

    async def examine(self, tenant: str) -> Examined:
        """Return everything of a tenant, of one moment."""
        with _faults(), self._reader:
            examined = examine(self._reader, tenant, self._reading)
        return examined  # noqa: RET504 - as above

    async def expired(self, now: int, retention: Retention, budget: int) -> Expired:
        """Return ended jobs, trail links and uploads that are past their time."""
        uploads_at = now - retention.uploads_ms
        with _faults():
            uploads = _all(self._reader, shelf_rows.EXPIRED_UPLOADS, (uploads_at, budget))
            jobs = _all(self._reader, rows.EXPIRED_JOBS, (now - retention.jobs_ms, budget + UNREADABLE))
            cuts = _all(self._reader, rows.EXPIRED_LINKS, (budget, now - retention.trail_ms))
        return Expired(
            self._reading.jobs(jobs)[:budget],
            {tenant: TrailLink(v, at, head, b"") for tenant, v, at, head in cuts},
            tuple((tenant, upload) for tenant, upload in uploads),
        )

    async def idle(self, now: int, budget: int) -> dict[str, list[str]]:
        """Return users, by tenant, whose figures tell nothing any more, among the next so many."""
        with _faults():
            found = _all(self._reader, rows.USERS_ON, (*self._looked, budget))
        self._looked = found[-1][:2] if len(found) == budget else ("", "")
        return rows.idle_users(found, now)

    async def cut(self, tenant: str, version: int) -> int:
        """Remove trail links up to a version."""
        return await self._write(
            lambda: self._changed("DELETE FROM audit WHERE tenant = ? AND v <= ?", (tenant, version))
        )

    async def drop_keys(self, before: int, budget: int) -> int:
        """Remove idempotency keys older than an instant. Grants' keys stay."""
        return await self._write(lambda: self._changed(rows.DROP_KEYS, (before, budget)))

    async def remains(self, limit: int) -> list[Remains]:
        """Return what dropped jobs left behind, oldest first."""
        with _faults():
            return [rows.remains_row(row) for row in _all(self._reader, rows.REMAINS, (limit,))]

    async def bury(self, remains: Sequence[Remains]) -> bool:
        """Empty the log, in which dropped text still stands, then forget remains."""
        wiped = await self._on_thread(self._wipe)
        if wiped:
            names = [(each.tenant, each.job) for each in remains]
            await self._write(lambda: self._writer.executemany(shelf_rows.BURY, names))
        return wiped

    async def next_due(self) -> int | None:
        """Return the earliest instant at which something may be claimed."""
        with _faults():
            due = next_due(self._reader)
        return due  # noqa: RET504 - as above

    async def backlog(self, now: int) -> Backlog:
        """Return how many jobs are due and not leased, a line, and since when."""
        return await self._on_thread(lambda: backlog(self._lister, now), self._aside)

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if a write would fail now."""
        await self._write(lambda: None)

    async def close(self) -> None:
        """Finish what the writer has, close the file, let the lock go. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        for thread in (self._aside, self._thread):
            await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)
        for connection in (self._writer, self._lister, self._keeper):
            connection.close()
        self._reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _reclaim(self, now: int) -> None:
        """Make all that was leased due: the process that held it is gone, by the lock."""
        with self._writer:
            self._queue.reclaim(now)
            self._writer.execute(shelf_rows.RECLAIM)

    # -- on the writer's thread ----------------------------------------------------------------------

    async def _write(self, work: Callable[[], _T]) -> _T:
        """Run work in one transaction on the writer's thread."""

        def transact() -> _T:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = work()
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            return result

        return await self._on_thread(transact)

    async def _on_thread(self, work: Callable[[], _T], thread: ThreadPoolExecutor | None = None) -> _T:
        def guarded() -> _T:
            with _faults():
                return work()

        try:
            working = asyncio.get_running_loop().run_in_executor(thread or self._thread, guarded)
        except RuntimeError as closed:  # the pool takes no work after close
            raise StoreUnavailable("the store is closed") from closed
        return await working

    def _wipe(self) -> bool:
        """Empty the log into the file, where what was deleted is zeros; False where a reader needs it."""
        self._writer.set_busy_timeout(WIPE_MS)
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        finally:
            self._writer.set_busy_timeout(SLOWEST_MS)
        return True

    def _empty_log(self) -> None:
        self._keeper.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _restart_log(self) -> None:
        """Put away what commits added meanwhile; a reader in the way leaves it for the next time."""
        with contextlib.suppress(apsw.BusyError):
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)

    def _changed(self, sql: str, values: tuple[Any, ...]) -> int:
        self._writer.execute(sql, values)
        return self._writer.changes()

    def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Check every change first; write the good ones; tell the others what is."""
        stored = self._stored(changes)
        taken: set[tuple[str, str]] = set()
        verdicts: list[frozenset[str] | None] = []
        for change in changes:
            lost = verdict(change, stored, taken)
            if lost is None:
                taken |= {(change.tenant, put.job.id) for put in change.puts}
            verdicts.append(lost)
        good = [change for change, lost in zip(changes, verdicts, strict=True) if lost is None]
        for sql, values in rows.writes(good):
            rows.insert(self._writer, sql, values)
        for sql, values in rows.updates(good):
            self._writer.executemany(sql, values)
        if any(change.beside for change in good):
            self._write_shelf(good)
        if any(put.expect == 0 for change in good for put in change.puts):
            self._crash("held")
        return [
            Applied() if lost is None else Refused(load(self._writer, touched(change), self._reading), lost)
            for change, lost in zip(changes, verdicts, strict=True)
        ]

    def _write_shelf(self, good: Sequence[Change]) -> None:
        for sql, values in shelf_rows.before(good):
            self._writer.executemany(sql, values)
        for sql, values in shelf_rows.writes(good):
            rows.insert(self._writer, sql, values)
        for sql, values in shelf_rows.updates(good):
            self._writer.executemany(sql, values)

    def _stored(self, changes: Sequence[Change]) -> Stored:
        """Return what is there of all that changes touch: a statement a table, however many tenants."""
        tenants = [change.tenant for change in changes if change.expect is not None]
        jobs = [(c.tenant, put.job.id) for c in changes for put in c.puts]
        jobs += [(c.tenant, drop.job) for c in changes for drop in c.drops]
        leased = [(c.tenant, put.job.id) for c in changes for put in c.puts if put.fence is not None]
        keys = [(c.tenant, subject, key) for c in changes for subject, key in c.keys]
        told = [(c.tenant, put.delivery.id) for c in changes for put in c.deliveries]
        begun = [change.tenant for change in changes if change.begins]
        return Stored(
            tenants={tenant: (v, d) for tenant, v, d in self._found(rows.TENANT_VERSIONS, tenants)},
            jobs={(tenant, job): v for tenant, job, v in self._found(rows.VERSIONS, jobs)},
            fences={(tenant, job): fence for tenant, job, fence in self._found(rows.FENCES, leased)},
            keys={(tenant, subject, key): at for tenant, subject, key, at in self._found(rows.KEYS_AT, keys)},
            deliveries={(tenant, n): fence for tenant, n, fence in self._found(shelf_rows.FENCES, told)},
            shut=frozenset(tenant for (tenant,) in self._found(rows.SHUT, begun)),
        )

    def _found(self, sql: str, names: Sequence[object]) -> list[rows.Row]:
        return _all(self._writer, sql, (rows.names(names),)) if names else []


class _faults:  # noqa: N801 - reads as a statement
    """Maps what the library raises to a fault of ours, at the room's door."""

    def __enter__(self) -> None:
        """Enter."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> Literal[False]:
        """Map."""
        if isinstance(error, apsw.Error):
            raise StoreUnavailable(f"sqlite: {type(error).__name__}") from error
        return False


def _open(path: Path, *, write: bool) -> apsw.Connection:
    mode = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if write else apsw.SQLITE_OPEN_READONLY
    try:
        connection = apsw.Connection(str(path), flags=mode, statementcachesize=512)
        connection.set_busy_timeout(SLOWEST_MS)
        connection.pragma("cache_size", -32_000)
    except apsw.Error as error:
        raise Refusal(f"{path} cannot be opened as a store: {type(error).__name__}") from error
    return connection


def _make_durable(connection: apsw.Connection) -> None:
    """Set how a file that is known to be ours is written."""
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("secure_delete", True)


def _prepare(connection: apsw.Connection, path: Path, forms: Forms, *, write: bool) -> int:
    """Make a file ready, or refuse it; return its form."""
    try:
        form = sqlite_form.check(connection, path, forms)
    except apsw.Error as error:
        raise Refusal(f"{path} is not a Safelight store: {type(error).__name__}") from error
    if not write:
        if form == 0:
            raise Refusal(f"{path} is empty: there is no store in it yet.")
        return form
    try:
        sqlite_form.prepare(connection, path, forms)
    except apsw.Error as error:
        raise Refusal(f"{path} is as it was, and cannot be made ready: {type(error).__name__}") from error
    return forms.newest


def _all(connection: apsw.Connection, sql: str, values: rows.Row = ()) -> list[rows.Row]:
    return list(connection.execute(sql, values))


def _one(connection: apsw.Connection, sql: str, values: rows.Row = ()) -> Any:
    """Return the first column of the first row, or None."""
    return connection.execute(sql, values).get
