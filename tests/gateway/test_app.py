"""The house: what it does by itself while it is up."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.app import Choices, House
from gateway.policy import Folder, PolicyFiles
from gateway.providers import KINDS
from gateway.secrets import Secret
from gateway.settings import BlobsSettings, ProviderSettings, Settings, StoreSettings
from gateway.telemetry import Telemetry
from policies.bundle import Bundle, TenantRow
from tests.journeys.stage import preset


class Shelf:
    """A folder of policies that reads as it is told: each next time another way, the last for ever."""

    def __init__(self, *found: bytes | Exception) -> None:
        self.found = list(found)

    def __call__(self, _path: str) -> Folder:
        """Read the folder."""
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, Exception):
            raise found
        return {"bundle.yaml": found}


def opened(folder: Path, first: Bundle, shelf: Shelf, log: io.BytesIO) -> House:
    """Return a house without a port, that looks at its policies all the time."""
    settings = Settings(
        store=StoreSettings(url=f"sqlite:///{folder / 'safelight.db'}"),
        blobs=BlobsSettings(url=f"file://{folder / 'blobs'}"),
        providers={"sandbox": ProviderSettings(kind="sandbox")},
        secret=(Secret("s" * 64),),
    )
    files = PolicyFiles("policies", {"sandbox": "sandbox"}, KINDS, first, shelf)
    return House(settings, files, Telemetry(log, lambda: 0), Choices(policy_seconds=0.001))


async def test_changed_policies_are_taken_up(tmp_path: Path) -> None:
    """A changed bundle is in force at once; one with mistakes is told and not taken; a bug ends nothing."""
    first = preset()
    second = replace(first, tenants={"acme": TenantRow("pro")})
    shelf = Shelf(LookupError("planted"), b"plans: {}", msgspec.json.encode(second))
    log = io.BytesIO()
    house = opened(tmp_path, first, shelf, log)
    await house.start()
    async with asyncio.timeout(20):
        while house.book.bundle == first:  # noqa: ASYNC110 - the house tells nobody of it
            await asyncio.sleep(0)
    assert house.book.bundle == second
    await house.drain()
    await house.close()
    house.telemetry.close()
    told: list[dict[str, Any]] = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line.get("alarm", line["event"]) for line in told] == ["bug", "policy_rejected", "policy"]
