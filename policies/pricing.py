"""Prices: what a job costs, quoted and final.

One table, read from the top: the first row that holds the picture's pixels has its price. A combination
without a price is refused, never free. What is charged in the end is `Quote.each` for every image
delivered, so this file is asked once a job, before anything is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from policies.model import EXACT, Deny, Reason

if TYPE_CHECKING:
    from policies.bundle import PriceRow
    from policies.model import Quality


class Quote(Struct, frozen=True):
    """Credits for one image, and for all that were asked for."""

    each: int
    total: int


def pixels(size: str) -> int:
    """Return how many pixels a `WxH` has."""
    width, _, height = size.partition("x")
    return int(width) * int(height)


def row(prices: tuple[PriceRow, ...], size: str) -> PriceRow | None:
    """Return the first row that holds a size; None where all are too small."""
    area = pixels(size)
    return next((row for row in prices if area <= row.max_pixels), None)


def quote(prices: tuple[PriceRow, ...], size: str, quality: Quality, count: int) -> Quote | Deny:
    """Price `count` images of a resolved size; a total no ledger can hold is no price either."""
    found = row(prices, size)
    each = None if found is None else getattr(found, quality)
    if each is None or each * count > EXACT:
        return Deny(Reason.UNPRICED, f"Size {size} in quality {quality} has no price.")
    return Quote(each, each * count)
