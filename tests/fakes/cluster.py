"""Real Redis Clusters on loopback ports, for tests: of one node that has all slots, or of several.

A slot moves with its keys from one node to another as operators do it, in steps between which a test may
look. Replicas are in `tests/fakes/spare.py`.
"""

from __future__ import annotations

import atexit
import os
import time
from functools import cache
from typing import TYPE_CHECKING

from tests.fakes.redis import SECONDS, Redis, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tests.fakes.papers import Papers

SLOTS = 16384
KEYS = 50
"""Keys that move at once."""


class Cluster:
    """So many primaries that know each other and have a part of the slots each."""

    def __init__(self, size: int = 1, *options: str, papers: Papers | None = None) -> None:
        self._papers = papers
        self._buses = [str(free_port()) for _ in range(size)]
        self.nodes = [self._node(bus, *options) for bus in self._buses]
        self._ids = [node.ask("CLUSTER", "MYID") for node in self.nodes]
        part = -(-SLOTS // size)
        for at, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(at + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(at * part), str(min((at + 1) * part, SLOTS) - 1))
        self._tell(self.nodes[0])
        self._wait(lambda: all(self._stands(node) for node in self.nodes))

    @property
    def url(self) -> str:
        """Its address: two of its nodes, if it has as many."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
        return f"{'rediss' if self._papers else 'redis'}+cluster://{hosts}"

    def slot(self, key: str) -> int:
        """Return the slot of a key."""
        return int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key))

    def home(self, slot: int) -> int:
        """Return the place of the node that has a slot."""
        for first, last, (_host, port, *_), *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(at for at, node in enumerate(self.nodes) if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def begin(self, slot: int, to: int) -> int:
        """Begin to move a slot; return the place of the node that has it."""
        of = self.home(slot)
        self.nodes[to].ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self._ids[of])
        self.nodes[of].ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self._ids[to])
        return of

    def carry(self, slot: int, of: int, to: int, most: int = KEYS) -> bool:
        """Move some keys of a slot; say whether there were any."""
        keys = self.nodes[of].ask("CLUSTER", "GETKEYSINSLOT", str(slot), str(most))
        if keys:
            where = ("127.0.0.1", str(self.nodes[to].port), "", "0", "5000")
            self.nodes[of].ask("MIGRATE", *where, "KEYS", *keys)
        return bool(keys)

    def end(self, slot: int, of: int, to: int) -> None:
        """Say that a slot has moved, first to the one that has it, and wait until all say the same.

        Left to themselves they would contradict each other for a second or so.
        """
        others = [node for at, node in enumerate(self.nodes) if at not in (of, to)]
        for node in (self.nodes[to], self.nodes[of], *others):
            node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", self._ids[to])
        self._tell(self.nodes[to])
        self._wait(lambda: len({self._view(node) for node in self.nodes}) == 1)

    def move(self, slot: int, to: int) -> None:
        """Move a slot and all its keys."""
        of = self.begin(slot, to)
        while self.carry(slot, of, to):
            pass
        self.end(slot, of, to)

    def remove(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _node(self, bus: str, *options: str) -> Redis:
        words = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port", bus]
        words += ("--tls-cluster", "yes") if self._papers else ()
        return Redis(*words, *options, papers=self._papers)

    def _tell(self, node: Redis) -> None:
        """Let a node make itself known to all others at once."""
        for other, bus in zip(self.nodes, self._buses, strict=True):
            if other is not node:
                node.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), bus)

    def _wait(self, there: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not there():
            if time.monotonic() > until:
                raise RuntimeError(self.nodes[0].ask("CLUSTER", "NODES"))
            time.sleep(0.005)

    def _view(self, node: Redis) -> frozenset[tuple[str, ...]]:
        """Return who has what by a node's word, and by which authority."""
        lines = (line.split() for line in node.ask("CLUSTER", "NODES").splitlines())
        return frozenset(
            (line[0], line[6], *(word for word in line[8:] if "[" not in word)) for line in lines
        )

    def _stands(self, node: Redis) -> bool:
        told = node.ask("CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.nodes)}\r"
        return all(word in told for word in ("cluster_state:ok", "cluster_slots_ok:16384", known))


@cache
def one() -> Cluster:
    """Return the Cluster of one node of this process of the test run."""
    running, mine = Cluster(1, "--appendfsync", "no"), os.getpid()
    atexit.register(lambda: running.remove() if os.getpid() == mine else None)
    return running
