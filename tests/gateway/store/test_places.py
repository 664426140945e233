"""The places of a claim: which line is asked for how many, and what a line that fails takes along."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.contract import Claim
from gateway.store.places import Places
from policies.model import Job, JobRequest, Priority
from policies.order import SHARE


class Lines:
    """A back end with so many jobs in each line, that notes who is asked; `sick` lines fail."""

    def __init__(self, interactive: int, batch: int) -> None:
        self.waiting: dict[Priority, int] = {"interactive": interactive, "batch": batch}
        self.sick: set[Priority] = set()
        self.asked: list[tuple[Priority, int]] = []

    def clock(self) -> int:
        """Return the time."""
        return 7

    async def claim(self, n: int, now: int, until: int, priority: Priority) -> list[Claim]:
        """Lease what there is, or fail."""
        assert (now, until) == (7, 8)
        self.asked.append((priority, n))
        if priority in self.sick:
            raise StoreUnavailable("gone")
        found = min(n, self.waiting[priority])
        self.waiting[priority] -= found
        job = Job("j", "acme", "ann", JobRequest(prompt="p"), priority=priority)
        return [Claim(job, 1)] * found


def places(lines: Lines) -> Places:
    """Return the places of a process over lines."""
    return Places(cast("Any", lines))


async def came(of: Places, n: int) -> list[str]:
    """Claim; return the lines that were served."""
    return sorted(claim.job.priority for claim in await of.claim(n, 1))


async def test_second_line_is_asked_rarely() -> None:
    """While the first line fills all places, the second is asked for every eighth and no other."""
    lines = Lines(99, 0)
    of = places(lines)
    for _ in range(2 * SHARE):
        assert await came(of, 1) == ["interactive"]
    assert [n for priority, n in lines.asked if priority == "batch"] == [1, 1]


async def test_failing_line_takes_nothing_along() -> None:
    """What one line leased is returned though the other fails; a failure with nothing leased is told."""
    lines = Lines(9, 9)
    of = places(lines)
    lines.sick = {"interactive"}
    assert await came(of, SHARE) == ["batch"]
    lines.sick = {"batch"}
    assert await came(of, SHARE - 1) == ["interactive"] * (SHARE - 1)
    assert await came(of, SHARE - 1) == ["interactive"] * 2
    with pytest.raises(StoreUnavailable):
        await of.claim(1, 1)
