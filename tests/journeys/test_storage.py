"""Pictures over every place that keeps them: the same story, told from a folder and from a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.blobs import Blobs, open_blobs
from gateway.blobs.bucket import BucketBlobs
from gateway.outbound import Outbound
from gateway.wire import WireRequest, WireResponse
from policies.bundle import Bundle
from policies.egress import Allowed
from tests.fakes.storage import Storage
from tests.journeys.conftest import Opening
from tests.journeys.stage import HOUR, SANDBOX, Stage
from tests.journeys.visitor import Reply

DAY = 24 * HOUR


def lasting(bundle: Bundle) -> Bundle:
    """Return a bundle whose plans give durable links."""
    plans = {name: replace(plan, links="durable") for name, plan in bundle.plans.items()}
    return replace(bundle, plans=plans)


def over_folder(_storage: Storage) -> Mapping[str, Any]:
    """Say how a house keeps pictures in a folder."""
    return {"blobs": open_blobs}


def over_bucket(storage: Storage) -> Mapping[str, Any]:
    """Say how a house keeps pictures in a bucket of its own."""
    url = storage.bucket(f"j{uuid.uuid4().hex}")

    def opened(_url: str) -> Blobs:
        return BucketBlobs(url, storage.options)

    return {"blobs": opened}


@pytest.fixture(params=[over_folder, over_bucket], ids=["folder", "bucket"])
def place(request: pytest.FixtureRequest, storage: Storage) -> Mapping[str, Any]:
    """A place for pictures."""
    kept: Mapping[str, Any] = request.param(storage)
    return kept


async def seen(stage: Stage, url: str) -> Reply:
    """Return what a browser ends at that opens a link."""
    reply = await stage.stranger().get(url.removeprefix(stage.url))
    if reply.status != 302:
        return reply
    outbound = Outbound({}, Allowed(loopback=True))
    answer = await outbound.send(WireRequest("GET", reply.headers["location"]))
    await outbound.close()
    assert isinstance(answer, WireResponse)
    return Reply(answer.status, answer.headers, answer.body)


async def test_picture_is_served_anywhere(opening: Opening, place: Mapping[str, Any]) -> None:
    """Picture and thumbnail come by their links, byte for byte, with their type and name."""
    stage = await opening(providers=SANDBOX, **place)
    output = (await stage.visit().made())["outputs"][0]
    reply = await seen(stage, output["url"])
    assert (reply.status, hashlib.sha256(reply.body).hexdigest()) == (200, output["sha256"])
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"].startswith('inline; filename="job_')
    assert (await seen(stage, output["variants"]["thumb"])).headers["content-type"] == "image/webp"
    stage.clock.move(HOUR)
    assert (await seen(stage, output["url"])).code == "link_expired"


async def test_durable_links_last_anywhere(opening: Opening, place: Mapping[str, Any]) -> None:
    """A plan's durable links have no expiry, open weeks later, and die with the job."""
    stage = await opening(providers=SANDBOX, bundle=lasting, **place)
    job = await stage.visit().made()
    output = job["outputs"][0]
    assert output["expires_at"] is None
    stage.clock.move(20 * DAY)
    again = (await stage.visit().get(f"/v1/jobs/{job['id']}")).json["outputs"][0]
    assert (again["url"], again["variants"]) == (output["url"], output["variants"])
    reply = await seen(stage, output["url"])
    assert hashlib.sha256(reply.body).hexdigest() == output["sha256"]
    assert (await stage.visit().ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204
    for url in (output["url"], output["variants"]["thumb"]):
        assert (await seen(stage, url)).status == 404


async def test_reader_revives_no_erased_job(opening: Opening, place: Mapping[str, Any]) -> None:
    """A job deleted while the first readers of its thumbnail wait for it leaves neither picture nor copy."""
    stage = await opening(providers=SANDBOX, bundle=lasting, **place)
    ann = stage.visit()
    for _ in range(4):
        job = await ann.made()
        output = job["outputs"][0]
        links = [output["variants"]["thumb"]] * 3
        *replies, deleted = await asyncio.gather(
            *(seen(stage, link) for link in links), ann.ask("DELETE", f"/v1/jobs/{job['id']}")
        )
        assert deleted.status == 204
        assert {reply.status for reply in replies} <= {200, 404, 503}
        for url in (output["url"], *links):
            key = stage.house.links.lasting(url.partition("/files/")[2])
            assert key is not None
            assert await stage.house.blobs.size(key) is None


async def test_dead_storage_is_a_fault(opening: Opening, tmp_path: Path) -> None:
    """While the storage is away a link answers 503 and says no more; jobs are read as before."""
    (tmp_path / "storage").mkdir()
    with Storage(tmp_path / "storage") as storage:
        stage = await opening(providers=SANDBOX, **over_bucket(storage))
        job = await stage.visit().made()
        storage.kill()
        reply = await seen(stage, job["outputs"][0]["url"])
        assert (reply.status, reply.code) == (503, "store_unavailable")
        assert str(storage.port) not in reply.body.decode()
        assert (await stage.visit().get(f"/v1/jobs/{job['id']}")).status == 200
