"""Prices: the first row that holds the pixels, and no price is no run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import PriceRow
from policies.model import EXACT, Deny, Reason
from policies.pricing import Quote, pixels, quote

if TYPE_CHECKING:
    from policies.model import Quality

PRICES = (PriceRow(1_600_000, low=1, medium=10, high=40), PriceRow(8_294_400, low=2, medium=20))


@pytest.mark.parametrize(
    ("size", "quality", "count", "quoted"),
    [
        ("1024x1024", "low", 1, Quote(1, 1)),
        ("1536x1024", "medium", 4, Quote(10, 40)),
        ("1600x1000", "high", 1, Quote(40, 40)),  # exactly the first row's pixels
        ("1601x1000", "medium", 1, Quote(20, 20)),
        ("2048x2048", "low", 10, Quote(2, 20)),
    ],
)
def test_first_holding_row_prices(size: str, quality: Quality, count: int, quoted: Quote) -> None:
    """A size costs what the first row says whose pixels hold it, times the count."""
    assert quote(PRICES, size, quality, count) == quoted


@pytest.mark.parametrize(
    ("size", "quality", "count"),
    [("2048x2048", "high", 1), ("9999x9999", "low", 1), ("16x16", "low", EXACT + 1)],
)
def test_no_price_is_refused(size: str, quality: Quality, count: int) -> None:
    """A quality without a price, a size above all rows and a total beyond exact integers are unpriced."""
    found = quote(PRICES, size, quality, count)
    assert isinstance(found, Deny)
    assert found.reason is Reason.UNPRICED
    assert size in found.detail


@given(st.integers(10, 2000), st.integers(10, 2000), st.integers(1, 10))
def test_larger_never_costs_less(width: int, height: int, count: int) -> None:
    """With rows that rise, a larger picture never costs less, and a total is each times count."""
    small, large = (
        quote(PRICES, size, "low", count) for size in (f"{width}x{height}", f"{width + 800}x{height}")
    )
    assert isinstance(small, Quote)
    assert isinstance(large, Quote)
    assert small.total == small.each * count <= large.total
    assert pixels(f"{width}x{height}") == width * height
