"""A Redis and its replica, which takes over when it is told to: with all that was written, or without some.

Whoever should not notice which of the two is asked goes through a proxy (`tests/fakes/cut.py`).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.fakes.redis import SECONDS, Redis, free_port

if TYPE_CHECKING:
    from typing import Self


class Pair:
    """A primary and a replica of it."""

    def __init__(self) -> None:
        self.primary = Redis("--repl-diskless-sync", "no")
        try:
            self.replica = Redis("--replicaof", "127.0.0.1", str(self.primary.port))
        except BaseException:
            self.primary.remove()
            raise
        self._wait()

    def _wait(self) -> None:
        """Wait until the replica answers for what it has: some time after it says that it hears."""
        while "state=online" not in _of(self.primary, "slave0"):
            pass
        while _of(self.replica, "master_link_status") != "up":
            pass
        with socket.create_connection(("127.0.0.1", self.primary.port), timeout=SECONDS) as connection:
            connection.sendall(b"SET pair 1\r\nWAIT 1 5000\r\n")
            assert connection.makefile("rb").read(9) == b"+OK\r\n:1\r\n"

    def level(self) -> None:
        """Wait until the replica has all that the primary has."""
        while _of(self.replica, "slave_repl_offset") != _of(self.primary, "master_repl_offset"):
            pass

    def part(self) -> None:
        """Let nothing more come to the replica; it keeps what it has."""
        self.level()
        self.replica.say("REPLICAOF", "127.0.0.1", str(free_port()))

    def join(self) -> None:
        """Let the replica have what the primary has, and go on."""
        self.replica.say("REPLICAOF", "127.0.0.1", str(self.primary.port))
        self._wait()

    def fail_over(self) -> None:
        """Kill the primary and promote the replica."""
        self.primary.stop()
        self.replica.say("REPLICAOF", "NO", "ONE")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.primary.remove()
        self.replica.remove()


def _of(redis: Redis, name: str) -> str:
    return redis.facts("replication").get(name, "")
