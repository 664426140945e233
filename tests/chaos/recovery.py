"""How long it takes until all is well again after a fault.

From a fault's end (a death, a wake-up, a store that is back) until what it hit has answered again: a
process of clients a submit that was sent after it, one of jobs an upstream's answer it told its log of,
and the store a submit at whatever process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.books import Books
    from tests.chaos.marks import Mark


def recoveries(books: Books) -> Iterator[int]:
    """Yield the time to recovery of each fault that was followed by anything, in milliseconds."""
    for fault in books.marks:
        if (after := _answered(books, fault)) is not None:
            yield after - fault.at


def _answered(books: Books, fault: Mark) -> int | None:
    if fault.kind.startswith("worker"):
        instants = books.logged[fault.hit]
        at = bisect_left(instants, fault.at)
        return instants[at] if at < len(instants) else None
    return min(
        (
            line.at
            for line in books.said
            if line.said == "accepted" and line.sent >= fault.at and fault.hit in ("store", line.by)
        ),
        default=None,
    )


def percentile(values: tuple[int, ...], share: float) -> int:
    """Return the value below which a share of them lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0
