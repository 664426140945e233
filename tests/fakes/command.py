"""The command as a person runs it: in a process of its own, from a folder of its own, without keys.

Waiting is reading: a server is ready when its output says so. Nothing outlives the block that started it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.dev import KEYS

LINE: Final = (sys.executable, "-m", "gateway")
LONGEST: Final = 60.0
LAST: Final = "Ctrl-C stops."
"""The last words of the ready block."""


def environ(**more: str) -> dict[str, str]:
    """Return this process's environment without anything that would change what a command does."""
    odd = {*KEYS, "LINES", "COLUMNS", "FORCE_COLOR"}
    kept = {k: v for k, v in os.environ.items() if k not in odd and not k.startswith("SAFELIGHT_")}
    return {**kept, **more}


def run(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. `more` goes into its environment."""
    return subprocess.run(
        [*LINE, *words],
        cwd=cwd,
        env=environ(**more),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def worked(pid: int) -> float:
    """Return the processor seconds a process has used: what its work takes, however busy the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Running:
    """A server that runs. `block` is what it printed until it was ready, after `work` processor seconds."""

    def __init__(self, words: tuple[str, ...], cwd: Path, last: str, more: Mapping[str, str]) -> None:
        self.cwd = cwd
        self.process = subprocess.Popen(
            [*LINE, *words],
            cwd=cwd,
            env=environ(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.block = self._until(last)
        self.work = worked(self.process.pid)
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Where it says it answers."""
        return self.row("address")

    @property
    def token(self) -> str:
        """The token it printed."""
        found = re.search(r"^ey[\w.-]+$", self.block, re.MULTILINE)
        assert found, self.block
        return found[0]

    @property
    def curl(self) -> str:
        """The cURL it printed, as it would be copied."""
        found = re.search(r"^curl (?:.*\\\n)+.*$", self.block, re.MULTILINE)
        assert found, self.block
        return found[0]

    def row(self, label: str) -> str:
        """Return what stands behind a label of the ready block."""
        found = re.search(rf"^  {label} +(.+)$", self.block, re.MULTILINE)
        assert found, self.block
        return found[1]

    def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(sign)
        code = self.process.wait(LONGEST)
        self._reader.join(LONGEST)
        return code

    def _until(self, last: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if last in line:
                break
        else:
            raise AssertionError("".join(self.lines))
        return "".join(self.lines)

    def _drain(self) -> None:
        assert self.process.stdout is not None
        self.lines += self.process.stdout


@contextlib.contextmanager
def running(*words: str, cwd: Path, last: str = LAST, **more: str) -> Iterator[Running]:
    """Start a server and wait for its last words of being ready; it is gone after the block."""
    server = Running(words, cwd, last, more)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
        assert server.process.stdout is not None
        server.process.stdout.close()
