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
        self.primary = Redis("--repl-diskless-sync-delay", "0")
        try:
            self.replica = Redis("--replicaof", "127.0.0.1", str(self.primary.port))
        except BaseException:
            self.primary.remove()
            raise
        while info(self.replica)["master_link_status"] != "up":
            pass

    def level(self) -> None:
        """Wait until the replica has all that the primary has."""
        while info(self.replica)["slave_repl_offset"] != info(self.primary)["master_repl_offset"]:
            pass

    def part(self) -> None:
        """Let nothing more come to the replica; it keeps what it has."""
        self.level()
        self.replica.say("REPLICAOF", "127.0.0.1", str(free_port()))

    def fail_over(self) -> None:
        """Kill the primary and promote the replica."""
        self.primary.stop()
        self.replica.say("REPLICAOF", "NO", "ONE")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.primary.remove()
        self.replica.remove()


def info(of: Redis) -> dict[str, str]:
    """Return what a Redis says of its replication."""
    with socket.create_connection(("127.0.0.1", of.port), timeout=SECONDS) as connection:
        connection.sendall(b"INFO replication\r\n")
        reply = connection.makefile("rb")
        text = reply.read(int(reply.readline()[1:])).decode()
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
