"""One process of the gateway from outside: begun again and again, paused, killed, and waited for.

Its port, its settings and its name stay the same from life to life. It knows nothing of what it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos.marks import ANY_MOMENT, mark

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from gateway.settings import Role
    from tests.chaos.plants import Plant

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 60.0


class Life:
    """`begin` starts it; `kill` and signals end it; `gone` says how it ended. `up` while it answers."""

    def __init__(self, config: Path, role: Role, port: int) -> None:
        self.config = config
        self.name = config.stem
        self.role = role
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.pid = 0
        self.begun = 0
        self.up = asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ended.set_result(0)
        self._nursery: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, plant: Plant, environ: dict[str, str]) -> None:
        """Start what makes its lives."""
        words = ("-m", "tests.chaos.nursery", str(self.config), plant, self.role)
        self._nursery = await spawn(self.config.with_suffix(".err"), *words, environ=environ)
        self._reading = asyncio.create_task(self._read(self._nursery), name=f"nursery of {self.name}")

    async def close(self) -> None:
        """End it, and what makes it."""
        if self.pid:
            self.signal(signal.SIGKILL)
        if self._nursery is not None:
            with contextlib.suppress(ProcessLookupError):
                self._nursery.kill()
            await self._nursery.wait()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def begin(self, spec: str = "") -> bool:
        """Begin a life, with a crash point or without; return whether it came as far as to answer."""
        assert self.ended.done(), "one life at a time"
        self.begun += 1
        self.ended = asyncio.get_running_loop().create_future()
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(f"{spec}\n".encode())
        up = asyncio.create_task(self.up.wait())
        await asyncio.wait((up, self.ended), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if not self.up.is_set() and not self.ended.done():
            raise RuntimeError(f"the gateway did not start: see {self.config.parent}")
        return self.up.is_set()

    def kill(self) -> None:
        """End this life with SIGKILL."""
        self.signal(signal.SIGKILL)

    def strike(self) -> None:
        """End this life with SIGKILL at a moment of our choice, and mark it."""
        mark(self.config.with_name("marks"), f"{self.role}: {ANY_MOMENT}", self.name)
        self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is anyone left to get it."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def gone(self, seconds: float) -> int | None:
        """Wait for the end of this life; return its status (negative: a signal), None if it goes on."""
        await asyncio.wait((self.ended,), timeout=seconds)
        return self.ended.result() if self.ended.done() else None

    async def _read(self, nursery: Process) -> None:
        """Follow what the nursery and its child say."""
        assert nursery.stdout is not None
        async for raw in nursery.stdout:
            word, _, rest = raw.decode().strip().partition(" ")
            match word:
                case "born":
                    self.pid = int(rest)
                case "ready":
                    self.up.set()
                case "gone":
                    self.pid = 0
                    self.up.clear()
                    self.ended.set_result(int(rest))


async def spawn(errors: Path, *words: str, environ: dict[str, str] | None = None) -> Process:
    """Start a Python program of ours that talks over its standard streams."""
    pipe = asyncio.subprocess.PIPE
    with errors.open("ab") as sink:
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, stderr=sink
        )
