"""`python -m tests.chaos`: breaks both stages, prints the table; the exit code says whether all was kept.

`FULL=1` makes it ten times as long, in parts; `SEED=…` draws another run. What a part came to is kept in the
folder `RESUME` names, so that a run that was cut goes on where it was. `--plant NAME` runs a planted fault,
`PLANTS=1` all of them: each must be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.harness import Tell, run, unheard
from tests.chaos.plan import SEED, Profile, wanted
from tests.chaos.profiles import PLANTS, long, planted, smoke
from tests.chaos.table import table
from tests.chaos.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def progress(profile: Profile, title: str) -> Iterator[Tell]:
    """Show how far a run is, where there is a terminal to show it on."""
    if not sys.stdout.isatty():
        yield unheard
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as shown:
        jobs = shown.add_task(f"{title}: jobs", total=profile.jobs)
        faults = shown.add_task(f"{title}: faults", total=sum(wanted(profile).values()))

        def tell(accepted: int, done: int) -> None:
            shown.update(jobs, completed=accepted)
            shown.update(faults, completed=done)

        yield tell


def one(profile: Profile, title: str) -> Verdict:
    """Run one stage in a folder of its own, which stays if a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix="safelight-chaos-"))
    with progress(profile, title) as tell:
        found = asyncio.run(run(folder, profile, tell))
    if found.kept:
        shutil.rmtree(folder)
    else:
        _say(f"what was left lies in {folder}")
    return found


def all_of(profiles: Sequence[Profile], kept: Path | None) -> Verdict:
    """Run stage after stage, those first whose verdict is not known; return what all came to."""
    verdicts = []
    for number, profile in enumerate(profiles, 1):
        note = kept and kept / f"{profile.seed}-{profile.setup.store}.json"
        if note and note.exists():
            verdicts.append(msgspec.json.decode(note.read_bytes(), type=Verdict))
            continue
        verdicts.append(one(profile, f"{number}/{len(profiles)} {profile.setup.store}"))
        if note:
            note.write_bytes(msgspec.json.encode(verdicts[-1]))
    first, *others = verdicts
    return sum(others, start=first)


def plants(names: Sequence[str]) -> bool:
    """Run planted faults; return whether each was seen."""
    seen = True
    for name in names:
        each = planted(name)
        began = time.monotonic()
        found = one(each.profile, name)
        red = each.promise in found.broken()
        seen &= red
        _say(f"{name:<12}{'seen' if red else 'MISSED'} in {time.monotonic() - began:.0f} s: {each.promise}")
        if not red:
            _say(table(found))
    return seen


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--plant", choices=[each.plant for each in PLANTS])
    options = parser.parse_args()
    if options.plant or os.environ.get("PLANTS"):
        names = [options.plant] if options.plant else [each.plant for each in PLANTS]
        return 0 if plants(names) else 1
    seed, full, resume = int(os.environ.get("SEED", SEED)), os.environ.get("FULL"), os.environ.get("RESUME")
    kept = Path(resume) if resume else None
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = all_of(long(seed) if full else smoke(seed), kept)
    day = datetime.datetime.now(datetime.UTC).date()
    _say(f"seed {seed}, {day}, {time.monotonic() - began:.0f} s\n{table(found)}")
    return 0 if found.kept else 1


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
