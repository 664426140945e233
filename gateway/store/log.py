"""Keeps SQLite's write-ahead log short without holding up commits.

Left to itself SQLite empties the log inside the commit that fills it, and that commit and all behind it
wait for tens of milliseconds. Here a second connection empties it on a thread of its own while commits
go on; what they added meanwhile is little, and the writer puts that away and begins the log anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PAGES: Final = 32_000
"""Pages at which the log is emptied: 128 MB. A page that is written often goes to the file once."""

Task = Callable[[], None]


class Log:
    """One file's log. `beside` runs a task on a thread of its own, `between` between two commits."""

    def __init__(
        self, empty: Task, restart: Task, beside: Callable[[Task], object], between: Callable[[Task], object]
    ) -> None:
        self._empty = empty
        self._restart = restart
        self._beside = beside
        self._between = between
        self._busy = False

    def grew(self, _connection: object, _name: str, pages: int) -> int:
        """Take SQLite's word, after a commit, of how long the log is. Returns its code for success."""
        if pages >= PAGES and not self._busy:
            self._busy = True
            self._beside(self._start)
        return 0

    def _start(self) -> None:
        """Empty what is there, then leave the rest to the writer. A fault here is met by a commit too."""
        try:
            self._empty()
        finally:
            self._between(self._finish)

    def _finish(self) -> None:
        try:
            self._restart()
        finally:
            self._busy = False
