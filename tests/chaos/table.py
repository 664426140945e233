"""The verdict as a person reads it: faults by kind, promises, figures, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.chaos.recovery import percentile

if TYPE_CHECKING:
    from tests.chaos.verdict import Verdict

SHOWN: Final = 5
"""Examples of what is wrong, a promise."""


def table(verdict: Verdict) -> str:
    """Return all that a run came to."""
    faults = [f"  {kind:<34}{want:>8}{hits:>8}" for kind, (want, hits) in verdict.faults.items()]
    promises = [
        f"  {row.promise:<44}{len(row.found):>6}{row.allowed:>9}  {'kept' if row.kept else 'BROKEN'}"
        for row in verdict.rows
    ]
    wrong = [f"  {row.promise}: {each}" for row in verdict.rows if not row.kept for each in row.found[:SHOWN]]
    figures = ", ".join(f"{name} {count}" for name, count in verdict.figures.items())
    times = [percentile(verdict.recoveries, share) for share in (0.5, 0.99, 1.0)]
    return "\n".join(
        [
            figures,
            f"faults {verdict.count}, over after {times[0]} ms, p99 {times[1]} ms, at most {times[2]} ms",
        ]
        + [f"  {'fault':<34}{'wanted':>8}{'seen':>8}", *faults]
        + [f"  {'promise':<44}{'found':>6}{'allowed':>9}", *promises, *wrong]
        + ([] if verdict.injected else ["  not all faults happened: this run proves nothing"])
    )
