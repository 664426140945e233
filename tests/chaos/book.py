"""What clients noted: the first of the three books, a line on disk before its client goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tests.chaos.marks import now

Word = Literal[
    "accepted",  # 202 with a job: now it may not be lost
    "unknown",  # no answer came to a submit without a key, so it is not repeated
    "denied",  # a limit was reached, and the client leaves it at that
    "crowded",  # no place in flight was free, and the client tries again
    "canceled",  # the cancel was answered
    "ended",  # the job is over, and how
    "deleted",  # the delete was answered
    "replayed",  # the key was sent again after all was over, and answered with a job
    "erased",  # the same, and the job had been deleted
    "missing",  # a job that was acknowledged is not there
    "surprise",  # an answer no client should get
]


class Said(Struct, frozen=True, omit_defaults=True):
    """One line: an order, what its client was told, and when.

    Of an `accepted` job `sent` is when the submit went out and `by` who answered it; of an `ended` one
    `over` is the instant the gateway names, and `charged` what it cost.
    """

    at: int
    order: int
    said: Word
    job: str = ""
    state: str = ""
    detail: str = ""
    images: int = 0
    sent: int = 0
    by: str = ""
    over: int = 0
    charged: int = 0


class Book:
    """The clients' book. `lines` counts what was said, by word."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.accepted = 0

    def say(self, order: int, said: Word, **more: Any) -> None:
        """Write a line."""
        self._file.write(msgspec.json.encode(Said(now(), order, said, **more)) + b"\n")
        self.accepted += said == "accepted"

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_book(path: Path) -> list[Said]:
    """Return what clients noted."""
    return [msgspec.json.decode(line, type=Said) for line in path.read_bytes().splitlines()]
