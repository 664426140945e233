"""`python -m tests.chaos`: the run of the suite, printed; `FULL=1` makes it ten times as long."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.chaos.harness import Profile, run

LONG = Profile(jobs=2000, hits=25, moments=200, end_seconds=300)


def main() -> int:
    """Run, print, and say by the exit code whether every promise was kept."""
    profile = LONG if os.environ.get("FULL") else Profile()
    with tempfile.TemporaryDirectory(prefix="safelight-chaos-") as folder:
        found = asyncio.run(run(Path(folder), profile))
    sys.stdout.write(f"{found}\n")
    return 0 if found.kept else 1


if __name__ == "__main__":
    sys.exit(main())
