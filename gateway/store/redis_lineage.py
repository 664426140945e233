"""Is this Redis still the one that was written to? By the name of its history and how far that had come.

A Redis gives its history a name and counts the bytes of it. A replica that takes over goes on under a name
of its own and tells whose history it continued, and up to where; one that was started anew has a new name
alone. Each connection asks when it is made. What bears a name not known yet is sent no script, until all
that is remembered was compared with what is there. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.store.backend import Strange

ASKED: Final = ("INFO", "replication")
"""What tells the name and the count."""


def replicates(of: Mapping[str, str]) -> bool:
    """Whether it is a replica, whose history another one writes."""
    return of.get("role") == "slave"


class Lineage:
    """The histories this process takes for its own. Takes any, until it is `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self._ours: set[str] = set()
        self._seen: dict[str, int] = {}
        self._met: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._turned: list[Callable[[], None]] = []

    def watch(self, turned: Callable[[], None]) -> None:
        """Have it told whenever something strange is met."""
        self._turned.append(turned)

    def meet(self, of: Mapping[str, str]) -> str:
        """Take in what a primary tells of itself, or its replica; return the name of its history.

        A replica may not know any more what its primary continued. What turns out to lack more than was
        known when it was taken for ours is strange again.
        """
        name, lost = of.get("master_replid", ""), self._lacked(of)
        if not self.armed or (name in self._ours and lost <= self._lost.get(name, 0)):
            self._ours.add(name)
            self._seen[name] = max(self._seen.get(name, 0), int(of.get("master_repl_offset", 0)))
            return name
        self._met[name] = max(lost, self._met.get(name, 0))
        for turned in self._turned:
            turned()
        return name

    def _lacked(self, of: Mapping[str, str]) -> int:
        """Return how much of a history that was seen is lacking in the one that continues it."""
        before, until = of.get("master_replid2", ""), int(of.get("second_repl_offset", -1))
        return max(0, self._seen[before] - (until - 1)) if before in self._seen else 0

    def holds(self, name: str) -> bool:
        """Whether scripts may go where this history is: never while another one is strange."""
        return not self._met and (name in self._ours or not self.armed)

    def strange(self) -> Strange | None:
        """Return what is strange, if anything is."""
        return Strange(frozenset(self._met), max(self._met.values())) if self._met else None

    def accept(self, strange: Strange) -> None:
        """Take histories for ours."""
        self._ours |= strange.names
        self._lost |= {name: lost for name, lost in self._met.items() if name in strange.names}
        self._met = {name: lost for name, lost in self._met.items() if name not in strange.names}
