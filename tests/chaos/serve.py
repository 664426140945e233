"""One life of the gateway over real sockets, as `safelight serve` leads it, which may end by SIGKILL.

The only place where `SAFELIGHT_CRASH_AT=[~]<point>[:<nth>[:<ms>]]` is read: the process kills itself when
it passes that point of `gateway.crash` for the nth time, or so many milliseconds after; with a tilde it
counts from SIGUSR1 on. What is different from `serve` goes in through constructors: loopback may be
called, leases are short, and a planted fault where one is asked for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.app import Choices, House
from gateway.audit import Record
from gateway.configure import load
from gateway.crash import POINTS
from gateway.errors import StoreUnavailable
from gateway.policy import PolicyFiles, read_bundle
from gateway.providers import KINDS
from gateway.serve import bind, run, serve
from gateway.store.contract import Leases
from gateway.telemetry import Telemetry
from policies.bundle import Bundle
from policies.egress import Allowed
from tests.chaos.marks import mark, now
from tests.chaos.plants import Plant, planted

if TYPE_CHECKING:
    from gateway.settings import Role, Settings

TENANT: Final = "watcher"
"""Whose trail gets a line that stands alone, at each start."""
AGAIN_SECONDS: Final = 0.1
LEASES: Final = Leases(job_ms=3_000, attempt_margin_ms=2_000, delivery_margin_ms=3_000)
"""A tenth of what they are, so that what a dead process held is soon another's."""


class Fuse:
    """A crash hook that kills this process at one point. Threads may share it. `burn` says so before."""

    def __init__(self, spec: str, burn: Callable[[str], None]) -> None:
        point, _, rest = spec.removeprefix("~").partition(":")
        nth, _, late = rest.partition(":")
        if spec and point not in POINTS:
            raise SystemExit(f"no such crash point: {point}")
        self._point = point
        self._left = int(nth or 1)
        self._late_ms = int(late or 0)
        self._armed = not spec.startswith("~")
        self._burn_at = burn

    def arm(self) -> None:
        """Begin to count."""
        self._armed = True

    def __call__(self, point: str) -> None:
        """Pass a point, or die of it."""
        if point != self._point or not self._armed:
            return
        self._left -= 1
        if self._left:
            return
        if self._late_ms:
            threading.Timer(self._late_ms / 1000, self._burn).start()
        else:
            self._burn()

    def _burn(self) -> None:
        self._burn_at(self._point)
        os.kill(os.getpid(), signal.SIGKILL)


def choices_of(fuse: Fuse, plant: Plant, role: Role, leases: Leases = LEASES) -> Choices:
    """Return what this process has in place of the real: the hook, and a fault where one is planted."""
    here = Allowed(loopback=True)
    return planted(plant, Choices(allowed=here, crash=fuse, role=role, leases=leases))


def read_settings(config: Path, role: Role) -> tuple[Settings, PolicyFiles]:
    """Read the settings and policies as the command does; mistakes end the process."""
    settings = load(str(config), os.environ, lambda path: Path(path).read_bytes(), KINDS, role)
    if isinstance(settings, list):
        raise SystemExit("\n".join(map(str, settings)))
    entries = {name: entry.kind for name, entry in settings.providers.items()}
    bundle = read_bundle(settings.policies.path, entries, KINDS)
    if not isinstance(bundle, Bundle):
        raise SystemExit("\n".join(map(str, bundle)))
    return settings, PolicyFiles(settings.policies.path, entries, KINDS, bundle)


async def live(config: Path, fuse: Fuse, plant: Plant, role: Role) -> None:
    """Serve until a signal or the fuse. Says `ready` on stdout once requests are answered."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fuse.arm)
    settings, files = read_settings(config, role)
    with config.with_suffix(".log").open("ab", buffering=0) as log:
        telemetry = Telemetry(log, now).open()
        house = House(settings, files, telemetry, choices_of(fuse, plant, role))
        listener = bind(settings.server.host, settings.server.port)
        beside: list[asyncio.Task[None]] = []

        async def ready() -> None:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            beside.append(asyncio.create_task(_start_told(house)))

        await serve(house, listener, ready)
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        telemetry.close()


async def _start_told(house: House) -> None:
    """Tell the trail of the start, so that its point is passed: beside clients, and as often as it takes."""
    while True:
        try:
            await house.store.append_audit(TENANT, "watcher", Record(action="chaos.start"))
        except StoreUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return


def main(config: Path, plant: Plant, role: Role) -> None:
    """Lead one life. Its name is that of its settings."""
    spec = os.environ.get("SAFELIGHT_CRASH_AT", "")
    name, marks = config.stem, config.with_name("marks")
    fuse = Fuse(spec, lambda point: mark(marks, f"{role}: {point}", name))
    run(live(config, fuse, plant, role))
