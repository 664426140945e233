"""One life of the gateway over real sockets, as `safelight serve` leads it, which may end by SIGKILL.

The only place where `SAFELIGHT_CRASH_AT=<point>[:<nth>[:<ms>]]` is read: the process kills itself when it
passes that point of `gateway.crash` for the nth time, or so many milliseconds after. What is different
from `serve` goes in through constructors: loopback may be called, and a planted fault where one is asked
for. A line of the marks file is on disk before the kill, so that what did not happen is not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.app import Choices, House
from gateway.audit import Record
from gateway.configure import load
from gateway.crash import POINTS
from gateway.policy import PolicyFiles, read_bundle
from gateway.providers import KINDS
from gateway.serve import bind, run, serve
from gateway.telemetry import Telemetry
from policies.bundle import Bundle
from policies.egress import Allowed
from tests.chaos.plants import acknowledging, losing, sent_blindly

if TYPE_CHECKING:
    from gateway.settings import Settings

Plant = Literal["", "blind", "deaf", "early"]
TENANT = "watcher"
"""Whose trail gets a line that stands alone, at each start."""


class Fuse:
    """A crash hook that kills this process at one point. Threads may share it."""

    def __init__(self, spec: str, marks: Path) -> None:
        point, _, rest = spec.partition(":")
        nth, _, late = rest.partition(":")
        if spec and point not in POINTS:
            raise SystemExit(f"no such crash point: {point}")
        self._point = point
        self._left = int(nth or 1)
        self._late_ms = int(late or 0)
        self._marks = marks

    def __call__(self, point: str) -> None:
        """Pass a point, or die of it."""
        if point != self._point:
            return
        self._left -= 1
        if self._left:
            return
        if self._late_ms:
            threading.Timer(self._late_ms / 1000, self._burn).start()
        else:
            self._burn()

    def _burn(self) -> None:
        mark(self._marks, self._point)
        os.kill(os.getpid(), signal.SIGKILL)


def mark(marks: Path, point: str) -> None:
    """Put a line on disk: what is said here is about to happen."""
    handle = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, f"{point}\n".encode())
    os.fsync(handle)
    os.close(handle)


def choices_of(fuse: Fuse, plant: Plant) -> Choices:
    """Return what this process has in place of the real: the hook, and a fault where one is planted."""
    here = Allowed(loopback=True)
    match plant:
        case "blind":
            return Choices(allowed=here, crash=fuse, adapters=sent_blindly)
        case "deaf":
            return Choices(allowed=here, crash=fuse, around=losing)
        case "early":
            return Choices(allowed=here, crash=fuse, around=acknowledging)
        case _:
            return Choices(allowed=here, crash=fuse)


def read_settings(config: Path) -> tuple[Settings, PolicyFiles]:
    """Read the settings and policies as the command does; mistakes end the process."""
    settings = load(str(config), os.environ, lambda path: Path(path).read_bytes(), KINDS, "all")
    if isinstance(settings, list):
        raise SystemExit("\n".join(map(str, settings)))
    entries = {name: entry.kind for name, entry in settings.providers.items()}
    bundle = read_bundle(settings.policies.path, entries, KINDS)
    if not isinstance(bundle, Bundle):
        raise SystemExit("\n".join(map(str, bundle)))
    return settings, PolicyFiles(settings.policies.path, entries, KINDS, bundle)


async def live(config: Path, fuse: Fuse, plant: Plant) -> None:
    """Serve until a signal or the fuse. Says `ready` on stdout once requests are answered."""
    settings, files = read_settings(config)
    with config.with_name("house.log").open("ab", buffering=0) as log:
        telemetry = Telemetry(log, lambda: time.time_ns() // 1_000_000).open()
        house = House(settings, files, telemetry, choices_of(fuse, plant))
        listener = bind(settings.server.host, settings.server.port)

        async def ready() -> None:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await house.store.append_audit(TENANT, "watcher", Record(action="chaos.start"))

        await serve(house, listener, ready)
        telemetry.close()


def main(config: Path, plant: Plant) -> None:
    """Lead one life."""
    spec = os.environ.get("SAFELIGHT_CRASH_AT", "")
    run(live(config, Fuse(spec, config.with_name("marks")), plant))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--plant", choices=["", "blind", "deaf", "early"], default="")
    options = parser.parse_args()
    main(options.config, options.plant)
