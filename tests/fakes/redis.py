"""A real Redis on a loopback port, for tests: its data in a folder of its own, with a log, evicting nothing.

One a process of the test run is started when it is first asked for and ends with it; each test has a
prefix of its own there. A test that stops, freezes or misconfigures a Redis starts one for itself.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from tests.fakes.papers import Papers

SECONDS = 10.0


class Redis:
    """A running redis-server. `options` are words of its command line, `sentinel` a sentinel's settings.

    With `papers` it speaks TLS alone; if it `asks`, only to who shows some as well.
    """

    def __init__(
        self, *options: str, sentinel: str = "", papers: Papers | None = None, asks: bool = False
    ) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="redis-", dir=memory if memory.is_dir() else None))
        self.port = free_port()
        self._papers = papers
        ports = papers.options(self.port, asks=asks) if papers else {"port": str(self.port)}
        self._command = [
            program(), *(word for name, value in ports.items() for word in (f"--{name}", value)),
            "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning",
            *options,
        ]  # fmt: skip
        if sentinel:
            lines = "".join(f"{name} {value}\n" for name, value in ports.items())
            (self.folder / "conf").write_text(f"{lines}bind 127.0.0.1\n{sentinel}")
            self._command = [program(), str(self.folder / "conf"), "--sentinel"]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'rediss' if self._papers else 'redis'}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, with what its log holds, and wait until it answers."""
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out)
        until = time.monotonic() + SECONDS
        while not self.answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError((self.folder / "out").read_text())
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return self.say("PING") == b"+PONG"
        except OSError:
            return False

    def say(self, *words: str) -> bytes:
        """Send one command on a connection of its own; return the first line of the reply."""
        with self._asked(words) as connection:
            return connection.makefile("rb").readline().rstrip()

    def ask(self, *words: str) -> Any:
        """Send one command on a connection of its own; return the whole reply, numbers as numbers."""
        with self._asked(words) as connection, connection.makefile("rb") as told:
            return _read(told)

    def facts(self, section: str) -> dict[str, str]:
        """Return what it tells of itself, by name."""
        with self._asked(("INFO", section)) as connection, connection.makefile("rb") as told:
            text = told.read(int(told.readline()[1:])).decode()
        lines = [line.partition(":") for line in text.splitlines()]
        return {name: value for name, _, value in lines}

    def _asked(self, words: Sequence[str]) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        if self._papers is not None:
            connection = self._papers.context.wrap_socket(connection, server_hostname="127.0.0.1")
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        connection.sendall(b"*%d\r\n%s" % (len(words), parts))
        return connection

    @contextmanager
    def counting(self) -> Iterator[Callable[[], int]]:
        """Yield what tells afterwards how many commands it was sent, without those that scripts make."""
        told = bytearray()
        with self._asked(("MONITOR",)) as connection:
            listening = threading.Thread(target=_read_all, args=(connection, told))
            listening.start()
            yield lambda: sum(b" lua] " not in line[:40] for line in told.split(b"\r\n+")[1:-1])
            connection.sendall(b"QUIT\r\n")
            listening.join()

    def keep_to(self, *cores: int) -> None:
        """Let it run on these cores alone."""
        if self._process is not None:
            os.sched_setaffinity(self._process.pid, cores)

    def signal(self, number: int) -> None:
        """Send it a signal, such as one that freezes it."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it at once; what it holds is in its log. Harmless twice."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _read_all(connection: socket.socket, into: bytearray) -> None:
    while some := connection.recv(1 << 20):
        into += some


@cache
def server() -> Redis:
    """Return the Redis of this process of the test run."""
    running, mine = Redis("--appendfsync", "no"), os.getpid()
    atexit.register(lambda: running.remove() if os.getpid() == mine else None)
    return running


@cache
def program() -> str:
    """Return the server that is tried: another one, or a Valkey, where `REDIS_SERVER` names it."""
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if found is None:
        raise RuntimeError("redis-server is not installed: run `make test`")
    return found


def _read(told: BinaryIO) -> Any:
    line = told.readline().rstrip()
    kind, rest = line[:1], line[1:]
    if kind == b"*":
        return [_read(told) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else told.read(int(rest) + 2)[:-2].decode()
    if kind == b"-":
        raise AssertionError(rest.decode())
    return int(rest) if kind == b":" else rest.decode()


def free_port() -> int:
    """Return a port nothing listens on. No system gives it away by itself, so it stays free meanwhile.

    By the system's dice: property tests seed the other, and two test processes would draw the same ports.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
