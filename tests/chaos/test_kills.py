"""Crash safety: the whole run, and proof that it would see a gateway that breaks its promises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.crash import POINTS
from tests.chaos.harness import ANY_MOMENT, Profile, run
from tests.chaos.serve import Fuse, Plant
from tests.chaos.stage import Setup


async def test_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """200 jobs, SIGKILL five times at every crash point and at ten other moments: every promise is kept."""
    found = await run(tmp_path, Profile())
    sys.stdout.write(f"\n{found}\n")
    assert set(found.deaths) == {*POINTS, ANY_MOMENT}
    assert all(hits >= 5 for _, hits in found.deaths.values())
    assert found.figures["accepted"] >= 200
    assert found.kept, str(found)


@pytest.mark.parametrize(
    ("plant", "points", "promise"),
    [
        ("blind", ("upstream_sent", "upstream_answered"), "no upstream was paid twice"),
        ("early", ("held", "job_stored"), "every 202 came to an end"),
        ("deaf", ("delivery_queued", "delivery_sent"), "every end was told to its webhook"),
    ],
)
async def test_planted_fault_is_seen(
    tmp_path: Path, *, plant: Plant, points: tuple[str, ...], promise: str
) -> None:
    """A blind re-send, an answer before the commit and a lost delivery each turn a short run red."""
    profile = Profile(jobs=30, hits=3, moments=2, points=points, end_seconds=2, setup=Setup(plant=plant))
    found = await run(tmp_path, profile)
    assert found.injected, str(found)
    assert promise in found.broken()


async def test_run_without_deaths_fails(tmp_path: Path) -> None:
    """A run that killed nothing proves nothing, however well all went."""
    found = await run(tmp_path, Profile(jobs=5, hits=0, moments=0))
    assert (found.broken(), found.injected, found.kept) == (set(), False, False)


def test_unknown_crash_point_is_refused(tmp_path: Path) -> None:
    """A misspelled point would never be passed, so the process does not start with one."""
    with pytest.raises(SystemExit, match="no such crash point: helld"):
        Fuse("helld:1", tmp_path / "marks")
