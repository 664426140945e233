"""A Cluster of three of which the first has a replica that takes over when it is told to, for tests.

With all that was written, or, after `part`, without what came later. The two then change places: the first
node is always the primary.
"""

from __future__ import annotations

from tests.fakes.cluster import Cluster
from tests.fakes.redis import Redis, free_port


class Spare(Cluster):
    """Three primaries and `spare`, which follows the first."""

    def __init__(self) -> None:
        super().__init__(3, "--repl-diskless-sync-delay", "0")
        self._buses.append(str(free_port()))
        self.spare = self._node(self._buses[-1], "--repl-diskless-sync-delay", "0")
        self._ids.append(self.spare.ask("CLUSTER", "MYID"))
        for node, bus in zip(self.nodes, self._buses, strict=False):
            self.spare.ask("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        self._wait(lambda: self.spare.say("CLUSTER", "REPLICATE", self._ids[0]) == b"+OK")
        self._wait(lambda: all(self._ids[-1] in node.ask("CLUSTER", "NODES") for node in self.nodes))
        self.level()

    def level(self) -> None:
        """Wait until the replica has all that its primary has."""
        self._wait(lambda: _of(self.spare, "master_link_status") == "up")
        self._wait(lambda: _of(self.spare, "slave_repl_offset") == _of(self.nodes[0], "master_repl_offset"))

    def part(self) -> None:
        """Let nothing more come to the replica, once it has all: its primary does not know it any more."""
        self.level()
        self.spare.ask("CONFIG", "SET", "masterauth", "wrong")
        self.spare.ask("CONFIG", "SET", "masteruser", "nobody")
        self.spare.ask("CLIENT", "KILL", "TYPE", "MASTER")
        self._wait(lambda: _of(self.spare, "master_link_status") == "down")

    def fail_over(self) -> None:
        """Make the replica the primary as it is, and wait until everybody says so; the old one follows it."""
        self.spare.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        self._wait(lambda: _of(self.spare, "role") == "master")
        self._swap()

    def die(self) -> None:
        """Kill the primary; the replica takes over as it is. The old one follows it once it is started."""
        self.nodes[0].stop()
        self.spare.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        self._swap()

    def heal(self) -> None:
        """Start what was killed."""
        if not self.spare.answers():
            self.spare.start()

    def _swap(self) -> None:
        self.nodes[0], self.spare = self.spare, self.nodes[0]
        for names in (self._ids, self._buses):
            names[0], names[-1] = names[-1], names[0]
        self.nodes[0].ask("CONFIG", "SET", "masteruser", "")
        self.nodes[0].ask("CONFIG", "SET", "masterauth", "")
        self._wait(lambda: all(self._leads(node) for node in (*self.nodes, self.spare) if node.answers()))

    def remove(self) -> None:
        """Stop all nodes."""
        self.spare.remove()
        super().remove()

    def _leads(self, by: Redis) -> bool:
        """Whether a node says that the first has the slots."""
        lines = (line.split() for line in by.ask("CLUSTER", "NODES").splitlines())
        return any(line[0] == self._ids[0] and "master" in line[2] and line[8:] for line in lines)


def _of(redis: Redis, name: str) -> str:
    return redis.facts("replication").get(name, "")
