"""Retention through the running house, on each store: what is past its time goes, and the books hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway import doctor
from gateway.doctor import Verified
from gateway.settings import RetentionSettings
from tests.fakes.post import OK
from tests.fakes.raw_server import RawServer, says
from tests.fakes.redis import Redis
from tests.journeys.bringing import brought, kept
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import HOUR, Stage
from tests.journeys.test_uploads import GOOD
from tests.journeys.test_webhooks import over, registered

if TYPE_CHECKING:
    from tests.fakes.server import Fake

DAY: Final = 24 * HOUR


@pytest.fixture(params=["redis", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'kept.db'}"
        return
    with Redis("--appendfsync", "no") as redis:
        yield redis.url


@pytest.fixture
async def receiver() -> AsyncIterator[RawServer]:
    """A receiver that takes everything."""
    async with RawServer(says(OK)) as server:
        yield server


async def days_later(stage: Stage, days: int) -> None:
    """Be so many days later, and sweep to the end."""
    stage.clock.move(days * DAY)
    while await stage.house.sweeper.step():
        pass


async def told(stage: Stage, hook: str) -> list[str]:
    """Return of what ann's webhook was told, as she is shown it."""
    page = (await stage.visit().get(f"/v1/webhooks/{hook}/deliveries")).json["data"]
    return [each["event"] for each in page]


async def trail(stage: Stage) -> list[str]:
    """Return what the tenant's trail tells, to its admin."""
    page = (await stage.admin().get("/v1/audit?limit=100")).json["data"]
    return [line["action"] for line in page]


async def test_all_leaves_in_its_time(
    place: str, opening: Opening, upstream: Fake, receiver: RawServer
) -> None:
    """Each thing is there to its last day and gone after it: images too, and nothing else with them."""
    keeping = RetentionSettings(jobs_days=2, trail_days=40)
    stage = await opening(providers=entry(upstream), store=place, retention=keeping)
    ann = stage.visit()
    hook = (await registered(ann, receiver))["id"]
    assert (await ann.post(f"/v1/webhooks/{hook}/test")).status == 202
    await over(stage, hook)
    job = await ann.made(key="k")
    await brought(ann, GOOD)
    await days_later(stage, 1)
    assert (await stage.visit().get(f"/v1/jobs/{job['id']}")).status == 200
    assert len(kept(stage)) > 1
    await days_later(stage, 1)
    assert (await stage.visit().get(f"/v1/jobs/{job['id']}")).status == 404
    assert kept(stage) == []
    assert (await stage.visit().submit(key="k")).status == 410
    await days_later(stage, 1)
    await stage.visit().made(key="k")
    await days_later(stage, 26)
    assert await told(stage, hook) == ["webhook.test"]
    await days_later(stage, 1)
    assert await told(stage, hook) == []
    assert "webhook.create" in await trail(stage)
    await days_later(stage, 10)
    assert "webhook.create" not in await trail(stage)
    backend = stage.house.store.backend  # type: ignore[attr-defined]
    assert await doctor.examine(backend, stage.house.chain) == []
    trails = [await doctor.verify_trail(backend, stage.house.chain, name) for name in await backend.tenants()]
    assert all(isinstance(each, Verified) for each in trails)
