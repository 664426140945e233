"""Intake: images are kept as they came, alone, and what an earlier attempt kept is what counts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from gateway.blobs import BlobsUnavailable, folder, is_key
from gateway.copies import Copies
from gateway.images import inspect
from gateway.secrets import Keyring, Secret
from policies.model import JobState
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import bomb, picture
from tests.journeys.workbench import workbench

if TYPE_CHECKING:
    from pathlib import Path

RING = Keyring([Secret("s" * 32)])
SIZE = (1024, 1024)


@pytest.mark.parametrize("entry", ["main", "plus", "ai"])
async def test_images_are_kept_as_made(entry: str, tmp_path: Path) -> None:
    """What is stored is what the upstream made, byte for byte, and the output says what it is."""
    async with workbench(tmp_path, entry) as bench:
        job = await bench.run_to_end(await bench.submit(entry, slots=(2,)))
        for output in job.outputs:
            data = await bench.blobs.read(output.key)
            assert data is not None
            assert output.key == f"{folder(RING, 'acme', job.id)}/{output.index}.png"
            assert (output.media_type, output.width, output.height) == ("image/png", *SIZE)
            assert (output.bytes, output.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert len({output.sha256 for output in job.outputs}) == 2


async def test_seeds_are_passed_on(tmp_path: Path) -> None:
    """An output has the seed its upstream told, and none where it told none."""
    async with workbench(tmp_path, "ai", "main") as bench:
        told = await bench.run_to_end(await bench.submit("ai", slots=(2,)))
        assert [output.seed for output in told.outputs] == ["1", "2"]
        untold = await bench.run_to_end(await bench.submit("main"))
        assert [output.seed for output in untold.outputs] == [None]


@pytest.mark.parametrize("format_", ["png", "webp"])
async def test_no_job_waits_for_copies(format_: str, tmp_path: Path) -> None:
    """A job ends when its images are kept: their copies have names, and are made for who asks for them."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main", slots=(2,), format=format_, besides={"variants": ("webp",)})
        outputs = (await bench.run_to_end(job)).outputs
        there = [path.name for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert sorted(there) == [f"0.{format_}", f"1.{format_}"]
        copies = Copies(bench.blobs, bench.studio)
        for output in outputs:
            thumb = output.variants["thumb"]
            assert await copies.ready(thumb)
            assert inspect(await bench.blobs.read(thumb) or b"") == ("image/webp", 320, 320, "webp")


@pytest.mark.parametrize(("made", "asked"), [("jpeg", "jpg"), ("webp", "webp")])
async def test_types_are_told_by_bytes(made: str, asked: str, tmp_path: Path) -> None:
    """An image's type and name follow from its bytes."""
    async with workbench(tmp_path, "main") as bench:
        (output,) = (await bench.run_to_end(await bench.submit("main", format=made))).outputs
        assert output.media_type == f"image/{made}"
        assert output.key.endswith(f"/0.{asked}")


async def test_kept_image_stands(tmp_path: Path) -> None:
    """An image stored before a crash under the same index stays, and the output tells of that one."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main")
        before = picture("png", 640, 480, "before the crash")
        await bench.blobs.put(f"{folder(RING, 'acme', job.id)}/0.png", before)
        (output,) = (await bench.run_to_end(job)).outputs
        assert await bench.blobs.read(output.key) == before
        assert (output.width, output.height, output.bytes) == (640, 480, len(before))
        assert output.sha256 == hashlib.sha256(before).hexdigest()


async def test_kept_rubbish_is_rejected(tmp_path: Path) -> None:
    """What stands under an image's name and is none is not delivered."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main")
        await bench.blobs.put(f"{folder(RING, 'acme', job.id)}/0.png", bomb())
        ended = await bench.run_to_end(job)
        assert ended.error is not None
        assert (ended.error.code, ended.charged) == ("output_rejected", 0)


async def test_full_disk_loses_no_job(tmp_path: Path) -> None:
    """Where images cannot be kept the run ends as that fault, and a job with an id is made once they can."""
    async with workbench(tmp_path, "ai") as bench:
        (tmp_path / "blobs").write_bytes(b"in the way")
        await bench.submit("ai")
        claim = await bench.claim()
        with pytest.raises(BlobsUnavailable):
            await bench.run(claim)
        assert bench.waits[-4:] == [1.0] * 4
        (tmp_path / "blobs").unlink()
        await bench.engine.give_back([claim])
        ended = await bench.run()
        assert ended is not None
        assert (ended.state, bench.counts("ai")) == (JobState.SUCCEEDED, (1, 1))


async def test_fetched_links_are_judged(tmp_path: Path) -> None:
    """A link to an address that may not be called is not called, and its image is rejected."""
    row = '{"jobId": null, "status": "succeeded", "results": [{"imageUrl": "https://127.0.0.1/x.png"}]}'
    async with workbench(tmp_path, "ai") as bench:
        bench.script("ai", Behavior("status", on="poll", status=200, body=row))
        job = await bench.run_to_end(await bench.submit("ai"))
        assert job.error is not None
        assert job.error.code == "output_rejected"
        assert bench.fakes["ai"].seen("image") == []


@pytest.mark.parametrize(("made", "variants"), [("png", {"thumb", "webp"}), ("webp", {"thumb", "webp"})])
async def test_webp_is_had_where_promised(made: str, variants: set[str], tmp_path: Path) -> None:
    """A job that was promised WebP names each image so in full size: a copy, or the image itself."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.submit("main", format=made, besides={"variants": ("webp",)})
        (output,) = (await bench.run_to_end(job)).outputs
        assert set(output.variants) == variants
        await Copies(bench.blobs, bench.studio).ready(output.variants["webp"])
        data = await bench.blobs.read(output.variants["webp"])
        assert data is not None
        assert inspect(data) == ("image/webp", *SIZE, "webp")
        assert (output.variants["webp"] == output.key) is (made == "webp")
        assert is_key(output.variants["webp"])
