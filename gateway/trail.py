"""The use case of a tenant's admin who reads the trail: its lines, filtered, page by page.

The store keeps links, each the sealed lines of one commit; a caller reads lines. Whether somebody may read
them was asked before; what a line holds is `audit.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.audit import Record, decode

if TYPE_CHECKING:
    from gateway.store.contract import Store, TrailLink

STEP: Final = 200
"""Links read at a time while their lines are filtered."""
STEPS: Final = 20
"""Such readings for one page; a page may be short and still have a `next`."""


class TrailPage(Struct, frozen=True):
    """Lines of the trail, newest first; `next` is the version to go on below."""

    records: tuple[Record, ...]
    next: int | None = None


class TrailFilter(Struct, frozen=True):
    """Which lines of the trail to show."""

    subject: str | None = None
    job: str | None = None
    action: str | None = None
    after_at: int | None = None
    before_at: int | None = None


class Trail:
    """Reads the trail of a tenant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, tenant: str, where: TrailFilter, before: int | None, limit: int) -> TrailPage:
        """Return lines below a version, newest first. The lines of one commit are never parted."""
        ref = None
        if where.subject is not None:
            ref = await self._store.ref_of(tenant, where.subject)
            if ref is None:
                return TrailPage(())
        kept: list[Record] = []
        for _ in range(STEPS):
            links = await self._store.audit_page(tenant, before=before, limit=STEP)
            for link in links:
                fitting = [record for record in _lines(link) if _fits(record, where, ref)]
                if kept and len(kept) + len(fitting) > limit:
                    return TrailPage(tuple(kept), before)
                kept += fitting
                before = link.version
            if len(links) < STEP:
                return TrailPage(tuple(kept))
        return TrailPage(tuple(kept), before)


def _lines(link: TrailLink) -> list[Record]:
    return list(reversed(decode(link.rows)))


def _fits(record: Record, where: TrailFilter, ref: str | None) -> bool:
    return (
        (ref is None or record.ref == ref)
        and (where.job is None or record.job == where.job)
        and (where.action is None or record.action == where.action)
        and (where.after_at is None or record.at > where.after_at)
        and (where.before_at is None or record.at < where.before_at)
    )
