"""What lies beside the jobs, in SQLite: point reads and leases of deliveries.

The library is known next door: a connection is a `Cursor` here, and what writes is handed to the back
end's writer. A claim looks at one row an endpoint and takes few of each, so that an endpoint with ten
thousand deliveries due holds up nobody else's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from gateway.store import shelf_rows
from gateway.store.backend import UNREADABLE_MS
from gateway.store.contract import DeliveryPage, Notice
from gateway.store.reads import Reading
from gateway.store.rows import Cursor, Row, names
from policies.model import ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint

NEWEST: Final = 2**62

Write = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs work in one transaction on the writer's thread and returns what it returns."""


class SqliteShelf:
    """A `Shelf` over a reader's and a writer's connection."""

    def __init__(
        self,
        reader: Cursor,
        writer: Cursor,
        write: Write,
        faults: Callable[[], AbstractContextManager[None]],
        reading: Reading,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._write = write
        self._faults = faults
        self._reading = reading

    async def key_of(self, digest: str) -> ServiceKey | None:
        """Return the service key of a hash, of whatever tenant."""
        found = self._reading.values(shelf_rows.KEY, self._rows(shelf_rows.KEY_OF, digest))
        return found[0] if found else None

    async def keys(self, tenant: str) -> list[ServiceKey]:
        """Return a tenant's keys, newest first."""
        return self._reading.values(shelf_rows.KEY, self._rows(shelf_rows.KEYS, tenant))

    async def upload(self, tenant: str, upload: str) -> Upload | None:
        """Return one upload."""
        found = self._rows(shelf_rows.DOC, tenant, "upload", upload)
        return self._reading.value(shelf_rows.UPLOAD, *found[0]) if found else None

    async def endpoints(self, tenant: str) -> list[Endpoint]:
        """Return a tenant's endpoints, oldest first."""
        return self._reading.values(shelf_rows.ENDPOINT, self._rows(shelf_rows.ENDPOINTS, tenant))

    async def delivery(self, tenant: str, delivery: str) -> Delivery | None:
        """Return one delivery."""
        found = self._rows(shelf_rows.DELIVERIES, tenant, names([delivery]))
        return self._reading.value(shelf_rows.DELIVERY, *found[0]) if found else None

    async def page(self, tenant: str, endpoint: str, before: int | None, limit: int) -> DeliveryPage:
        """Return deliveries newest first; one row more than asked tells whether there are older ones."""
        edge = NEWEST if before is None else before
        found = self._rows(shelf_rows.PAGE, tenant, endpoint, edge, limit + 1)
        more = found[limit - 1][0] if len(found) > limit else None
        told = self._reading.values(shelf_rows.DELIVERY, [row[1:] for row in found[:limit]])
        return DeliveryPage(tuple(told), more)

    async def claim(self, n: int, each: int, busy: Sequence[str], now: int, until: int) -> list[Notice]:
        """Lease up to `n` due deliveries until `until`, oldest due first, at most `each` an endpoint."""
        notices: list[Notice] = await self._write(lambda: self._claim(n, each, busy, now, until))
        return notices

    async def release(self, notices: Sequence[Notice], due: int) -> None:
        """Make leased deliveries due. Lost leases are passed over."""
        leases = [(due, each.delivery.tenant, each.delivery.id, each.fence) for each in notices]
        await self._write(lambda: [self._writer.execute(shelf_rows.RELEASE, lease) for lease in leases])

    async def next_due(self, busy: Sequence[str]) -> int | None:
        """Return the earliest instant at which a delivery of any but `busy` endpoints may be claimed."""
        ((due,),) = self._rows(shelf_rows.NEXT_DUE, names(busy))
        return None if due is None else int(due)

    async def drop_over(self, before: int, budget: int) -> int:
        """Remove deliveries made before an instant of which nothing more is sent."""
        sql, values = shelf_rows.DROP_OVER, (before, budget)
        return int(await self._write(lambda: len(list(self._writer.execute(sql, values)))))

    def _claim(self, n: int, each: int, busy: Sequence[str], now: int, until: int) -> list[Notice]:
        """Lease what is oldest; what cannot be read goes far behind, and others come in its place."""
        notices: list[Notice] = []
        while len(notices) < n:
            values = (names(busy), now, n - len(notices), each)
            found = [(row[0], self._notice(row)) for row in self._writer.execute(shelf_rows.CLAIM, values)]
            for at, notice in found:
                self._writer.execute(shelf_rows.LEASE, (until if notice else now + UNREADABLE_MS, at))
            notices += [notice for _at, notice in found if notice is not None]
            if all(notice is not None for _at, notice in found):
                break
        return notices

    def _notice(self, row: Row) -> Notice | None:
        _n, name, text, fence, to, endpoint_text, about, job_text = row
        delivery = self._reading.value(shelf_rows.DELIVERY, name, text)
        endpoint = self._reading.value(shelf_rows.ENDPOINT, to, endpoint_text)
        job = None if about is None else self._reading.job(about, job_text or "")
        if delivery is None or endpoint is None or (about is not None and job is None):
            return None
        return Notice(delivery, endpoint, job, fence + 1)

    def _rows(self, sql: str, *values: Any) -> list[Row]:
        with self._faults():
            return list(self._reader.execute(sql, values))
