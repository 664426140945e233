"""Crash safety: a very short run, and proof that a gateway that breaks its promises would be seen.

The whole run is `make chaos`: it takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness import run
from tests.chaos.plan import Profile
from tests.chaos.profiles import planted
from tests.chaos.serve import Fuse
from tests.chaos.table import table


async def test_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """A few jobs, SIGKILL where money moves and at a moment nobody chose: every promise is kept."""
    points = ("held", "job_stored", "attempt_recorded", "upstream_sent", "recorded")
    found = await run(tmp_path, Profile(jobs=30, hits=1, moments=1, points=points, longest_peace=2))
    assert found.kept, table(found)
    assert found.figures["accepted"] >= 30


@pytest.mark.parametrize("plant", ["early", "deaf"])
async def test_planted_fault_is_seen(tmp_path: Path, *, plant: str) -> None:
    """An answer before the commit and a lost delivery each turn a short run red."""
    each = planted(plant)
    found = await run(tmp_path, each.profile)
    assert found.injected, table(found)
    assert each.promise in found.broken()


async def test_run_without_faults_fails(tmp_path: Path) -> None:
    """A run that broke nothing proves nothing, however well all went."""
    found = await run(tmp_path, Profile(jobs=5, hits=0, moments=0))
    assert (found.broken(), found.injected, found.kept) == (set(), False, False)


def test_unknown_crash_point_is_refused() -> None:
    """A misspelled point would never be passed, so the process does not start with one."""
    with pytest.raises(SystemExit, match="no such crash point: helld"):
        Fuse("helld:1", lambda _point: None)
