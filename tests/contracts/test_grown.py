"""What a job costs does not grow with the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.grown import FLAT, JOBS, KINDS, measure


@pytest.mark.parametrize("kind", KINDS)
async def test_cost_stays_flat(kind: str, place: Path) -> None:
    """A job's life costs as much processor beside twenty thousand stored jobs as beside a few."""
    found = await measure(kind, place, JOBS)
    assert found.ratio < FLAT, found
