"""A primary with a replica and a sentinel that watches them, on loopback ports, for tests.

`fail_over` lets the sentinel make the replica the primary, as it does by itself where the primary is gone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.fakes.redis import SECONDS, Redis, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tests.fakes.papers import Papers

NAME = "images"
"""By which the sentinel knows the primary."""


class Sentinel:
    """Three processes. `primary` and `replica` change places where the sentinel says so."""

    def __init__(self, papers: Papers | None = None) -> None:
        self.primary = Redis("--repl-diskless-sync-delay", "0", papers=papers)
        self.replica = Redis("--replicaof", "127.0.0.1", str(self.primary.port), papers=papers)
        watch = (
            f"sentinel monitor {NAME} 127.0.0.1 {self.primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 3000\n"
        )
        self.sentinel = Redis(sentinel=watch, papers=papers)
        self._wait(lambda: self.replica.facts("replication").get("master_link_status") == "up")
        self._wait(lambda: bool(self.sentinel.ask("SENTINEL", "REPLICAS", NAME)))

    @property
    def url(self) -> str:
        """Its address."""
        scheme = self.sentinel.url.partition(":")[0]
        return f"{scheme}+sentinel://127.0.0.1:{self.sentinel.port}/{NAME}/0"

    def fail_over(self) -> None:
        """Make the replica the primary, once it has all, and wait until everybody says so."""
        self._wait(lambda: self._offset(self.replica) == self._offset(self.primary))
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            try:
                self.sentinel.ask("SENTINEL", "FAILOVER", NAME)
                break
            except AssertionError:  # it has not yet seen that the replica is good
                time.sleep(0.05)
        self.changed()

    def part(self) -> None:
        """Let nothing more come to the replica, once it has all; the sentinel is soon to set that right."""
        self._wait(lambda: self._offset(self.replica) == self._offset(self.primary))
        self.replica.ask("REPLICAOF", "127.0.0.1", str(free_port()))

    def changed(self) -> None:
        """Wait until the replica is the primary; from then on it is called so."""
        port = str(self.replica.port)
        self._wait(lambda: self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1] == port)
        self._wait(lambda: self.replica.facts("replication").get("role") == "master")
        self.primary, self.replica = self.replica, self.primary

    def remove(self) -> None:
        """Stop all of them."""
        for each in (self.sentinel, self.primary, self.replica):
            each.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _offset(self, of: Redis) -> str:
        return of.facts("replication")["master_repl_offset"]

    def _wait(self, there: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not there():
            if time.monotonic() > until:
                raise RuntimeError((self.sentinel.folder / "out").read_text())
            time.sleep(0.01)
