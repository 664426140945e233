"""What was done to whom, and when: one line on disk for each fault, by whoever causes it.

A line is written before a process kills itself and once any other fault is over, so what did not happen is
not counted. `at` is where recovery begins to count.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

ANY_MOMENT: Final = "any moment"
PAUSE: Final = "paused past its lease"


class Mark(Struct, frozen=True):
    """One fault: its kind, as the table names it, and the life (or the store) it hit. Milliseconds."""

    at: int
    kind: str
    hit: str


def now() -> int:
    """Return this host's time in milliseconds."""
    return time.time_ns() // 1_000_000


def mark(marks: Path, kind: str, hit: str) -> None:
    """Put a line on disk."""
    handle = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, msgspec.json.encode(Mark(now(), kind, hit)) + b"\n")
    os.fsync(handle)
    os.close(handle)


def read_marks(marks: Path) -> list[Mark]:
    """Return all lines, in order."""
    lines = marks.read_bytes().splitlines() if marks.exists() else []
    return [msgspec.json.decode(line, type=Mark) for line in lines]


def counted(marks: Path) -> Counter[str]:
    """Count faults by kind."""
    return Counter(each.kind for each in read_marks(marks))
