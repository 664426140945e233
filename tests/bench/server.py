"""The thing measured: a whole house with everything on, and a bundle without limits.

Run as a process: `python -m tests.bench.server PORT DATA_FOLDER [UPSTREAM [STORE]]`: with a worker where
there is an upstream's port and not `-`, over a file in the folder where there is no store's URL. Log lines
go to a file in the folder, as a container's would. With `SAFELIGHT_PROFILE=1` nothing differs: attach
`py-spy record`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from gateway import serve
from gateway.app import Choices, House
from gateway.dev import settings_of
from gateway.policy import PolicyFiles, read_bundle
from gateway.providers import KINDS
from gateway.secrets import Secret
from gateway.settings import ProviderSettings, Settings, StoreSettings, WorkerSettings
from gateway.telemetry import Telemetry
from policies.bundle import Bundle, PerLevel, TenantRow

MANY = 1_000_000
CREDITS = 2**40


def boundless(bundle: Bundle) -> Bundle:
    """Return a bundle whose one plan never says no."""
    plan = replace(
        bundle.plans["pro"],
        credits_per_month=CREDITS,
        monthly_cap=CREDITS,
        submit_per_hour=PerLevel(user=MANY, tenant=MANY),
        in_flight=PerLevel(user=MANY, tenant=MANY),
        streams=MANY,
    )
    return replace(bundle, plans={**bundle.plans, "pro": plan}, tenants={"*": TenantRow("pro")})


def settled(settings: Settings, upstream: int | None, store: str | None) -> Settings:
    """Return the settings of a house with this upstream and this store."""
    if store is not None:
        settings = replace(settings, store=StoreSettings(url=store))
    if upstream is None:
        endless = WorkerSettings(concurrency=0, queue_depth=10_000_000, job_deadline_seconds=86_400)
        return replace(settings, worker=endless)
    entry = ProviderSettings(
        kind="openai", key=Secret("sk-bench-0123"), base_url=f"http://127.0.0.1:{upstream}/v1"
    )
    return replace(settings, worker=WorkerSettings(concurrency=256), providers={"main": entry})


async def main(port: int, data: Path, upstream: str = "-", store: str | None = None) -> None:
    """Serve until SIGTERM."""
    asked = None if upstream == "-" else int(upstream)
    settings = settled(settings_of(data, {}, "127.0.0.1", port), asked, store)
    entries = {name: entry.kind for name, entry in settings.providers.items()}
    bundle = read_bundle(None, entries, KINDS)
    assert isinstance(bundle, Bundle)
    files = PolicyFiles(None, entries, KINDS, boundless(bundle))
    with (data / f"server-{port}.log").open("wb", buffering=0) as log:
        telemetry = Telemetry(log, lambda: time.time_ns() // 1_000_000).open()
        house = House(settings, _Fixed(files), telemetry, Choices(dev=True, role="api" if store else "all"))

        async def ready() -> None:
            sys.stdout.write(f"ready {os.getpid()}\n")
            sys.stdout.flush()

        await serve.serve(house, serve.bind("127.0.0.1", port), ready)
        telemetry.close()


class _Fixed(PolicyFiles):
    """The bundle as it was given: files are not looked at again."""

    def __init__(self, files: PolicyFiles) -> None:
        super().__init__(None, {}, KINDS, files.current())

    async def poll(self) -> None:
        """See no change."""


if __name__ == "__main__":
    serve.run(main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
