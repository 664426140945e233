"""Due jobs in SQLite: who comes next, leases, and giving them back.

The library is known next door: a connection is a `Cursor` here, and what writes is handed to the back
end's writer. Interactive jobs and batch stand under a kind of their own in one table, with turns of their
own: a claim serves one line, and those of the other are nowhere near what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.store.backend import TURN_TENANTS, UNREADABLE_MS
from gateway.store.contract import Claim
from gateway.store.reads import Reading
from gateway.store.rows import KINDS, TURNS, Cursor, Row
from gateway.store.shelf_sqlite import Write
from policies.model import Priority
from policies.order import PRIORITIES, Backlog, Line

_RENEW: Final = "UPDATE queue SET due = max(due, ?) WHERE tenant = ? AND kind = ? AND id = ? AND fence = ?"
_RELEASE: Final = "UPDATE queue SET due = ? WHERE tenant = ? AND kind = ? AND id = ? AND fence = ?"
_CLAIM: Final = "UPDATE queue SET due = ?, fence = ? WHERE tenant = ? AND kind = ? AND id = ?"
DUE: Final = (
    "SELECT id, d, fence FROM queue JOIN jobs USING (tenant, id)"
    " WHERE tenant = ? AND kind = ? AND due <= ? ORDER BY due LIMIT ?"
)
_NEXT: Final = "SELECT min(due) FROM queue WHERE tenant = ? AND kind = ?"
LINE: Final = "SELECT count(*), min(due) FROM queue WHERE kind = ? AND due <= ?"
_HEADS: Final = "SELECT tenant, weight FROM {} WHERE at <= ? ORDER BY at, served LIMIT ?"
_TURN_TO: Final = "UPDATE {} SET at = ?, served = ? WHERE tenant = ?"
_SOONER: Final = "UPDATE {} SET at = min(at, ?) WHERE tenant = ?"
_FIRST: Final = "SELECT min(at) FROM {}"
_RECLAIM: Final = "UPDATE {} SET at = min(at, ?), served = 0"


class SqliteQueue:
    """The queue of jobs over the writer's connection: all but the reads runs on its thread."""

    def __init__(self, writer: Cursor, write: Write, reading: Reading) -> None:
        self._writer = writer
        self._write = write
        self._reading = reading
        self._served = 0

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a line until `until`, tenants in turn."""
        claims: list[Claim] = await self._write(lambda: self._claim(n, now, until, priority))
        return claims

    async def renew(self, claims: Sequence[Claim], until: int) -> frozenset[str]:
        """Extend leases; an open attempt's longer lease is never shortened."""
        lost: frozenset[str] = await self._write(lambda: self._lease(claims, _RENEW, until))
        return lost

    async def release(self, claims: Sequence[Claim], due: int) -> None:
        """Make leased jobs due. Lost leases are passed over."""

        def release() -> None:
            self._lease(claims, _RELEASE, due)
            for claim in claims:
                self._run(_SOONER.format(TURNS[claim.job.priority]), due, claim.job.tenant)

        await self._write(release)

    def reclaim(self, now: int) -> None:
        """Make every open job due and every lease stale. In a transaction of the caller's."""
        self._run("UPDATE queue SET due = min(due, ?), fence = fence + 1", now)
        for turns in TURNS.values():
            self._run(_RECLAIM.format(turns), now)

    def _claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        claims: list[Claim] = []
        while len(claims) < n:
            turns = self._run(_HEADS.format(TURNS[priority]), now, TURN_TENANTS)
            for tenant, weight in turns:
                most = min(max(weight, 1), n - len(claims))
                served = self._serve(tenant, most, (now, until), priority)
                claims += served
                self._turn(tenant, now if served else now + 1, priority)
                if len(claims) == n:
                    break  # those behind keep their place
            if not turns:
                break
        return claims

    def _turn(self, tenant: str, earliest: int, priority: Priority) -> None:
        """Send a tenant behind those that wait; it comes again when its next job is due."""
        turns, ((next_due,),) = TURNS[priority], self._run(_NEXT, tenant, KINDS[priority])
        if next_due is None:
            self._run(f"DELETE FROM {turns} WHERE tenant = ?", tenant)  # noqa: S608 - constants only
            return
        self._served += 1
        self._run(_TURN_TO.format(turns), max(earliest, next_due), self._served, tenant)

    def _serve(self, tenant: str, n: int, times: tuple[int, int], priority: Priority) -> list[Claim]:
        """Lease up to `n` due jobs of a tenant, oldest due first. One that cannot be read goes far behind."""
        claims: list[Claim] = []
        (now, until), kind = times, KINDS[priority]
        while len(claims) < n:
            found = self._run(DUE, tenant, kind, now, n - len(claims))
            jobs = [(name, self._reading.job(name, text), fence + 1) for name, text, fence in found]
            for name, job, fence in jobs:
                self._run(_CLAIM, until if job else now + UNREADABLE_MS, fence, tenant, kind, name)
            claims += [Claim(job, fence) for _name, job, fence in jobs if job is not None]
            if all(job is not None for _name, job, _fence in jobs):
                break
        return claims

    def _lease(self, claims: Sequence[Claim], sql: str, due: int) -> frozenset[str]:
        """Change leases; return those that were lost."""
        lost = set()
        for claim in claims:
            job = claim.job
            if not self._run(f"{sql} RETURNING 1", due, job.tenant, KINDS[job.priority], job.id, claim.fence):
                lost.add(job.id)
        return frozenset(lost)

    def _run(self, sql: str, *values: Any) -> list[Row]:
        return list(self._writer.execute(sql, values))


def next_due(reader: Cursor) -> int | None:
    """Return the earliest instant at which something may be claimed."""
    firsts = [at for turns in TURNS.values() for (at,) in reader.execute(_FIRST.format(turns), ())]
    return min((int(at) for at in firsts if at is not None), default=None)


def backlog(reader: Cursor, now: int) -> Backlog:
    """Return how many jobs are due and not leased, a line, and since when."""
    lines = [Line(*row) for priority in PRIORITIES for row in reader.execute(LINE, (KINDS[priority], now))]
    return Backlog(now, *lines)
