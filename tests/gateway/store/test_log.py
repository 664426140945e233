"""The log of a file is emptied beside the commits, once at a time, whatever fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.store.log import PAGES, Log

Task = Callable[[], None]


class Threads:
    """Two threads that run when they are told to, and what was done on them."""

    def __init__(self, *, broken: bool = False) -> None:
        self.done: list[str] = []
        self.waiting: list[Task] = []
        self._broken = broken
        self.log = Log(self._empty, lambda: self.done.append("restart"), self._later, self._later)

    def _empty(self) -> None:
        self.done.append("empty")
        if self._broken:
            raise OSError

    def _later(self, task: Task) -> None:
        self.waiting.append(task)

    def run(self) -> None:
        """Run the oldest task that waits."""
        self.waiting.pop(0)()


def test_short_log_is_left_alone() -> None:
    """Below its bound a log costs nothing."""
    threads = Threads()
    assert threads.log.grew(None, "main", PAGES - 1) == 0
    assert not threads.waiting


def test_long_log_is_emptied_then_restarted() -> None:
    """At its bound it is emptied beside the commits, and begun anew between two of them."""
    threads = Threads()
    threads.log.grew(None, "main", PAGES)
    assert threads.done == []
    threads.run()
    threads.run()
    assert threads.done == ["empty", "restart"]


def test_log_is_emptied_once_at_a_time() -> None:
    """Commits that find it long while it is being emptied begin nothing; afterwards they do."""
    threads = Threads()
    for _ in range(3):
        threads.log.grew(None, "main", PAGES + 100)
    assert len(threads.waiting) == 1
    threads.run()
    threads.run()
    threads.log.grew(None, "main", PAGES)
    assert len(threads.waiting) == 1


def test_failed_emptying_is_tried_again() -> None:
    """A fault while emptying goes to its thread, and the next long log is tried again."""
    threads = Threads(broken=True)
    threads.log.grew(None, "main", PAGES)
    with pytest.raises(OSError):  # noqa: PT011 - as it was raised
        threads.run()
    threads.run()
    threads.log.grew(None, "main", PAGES)
    assert len(threads.waiting) == 1
