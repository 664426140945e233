"""Inputs: copies of a job's own, made once, handed over as an upstream takes them, unpaid when they fail."""

from __future__ import annotations

import hashlib
import io
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from gateway.audit import Record
from gateway.blobs import FolderBlobs, folder, places
from gateway.images import clean
from gateway.inputs import MOST_BYTES, find_upload, upload_key
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Remains
from policies.model import Job, JobState, Source, Upload
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import bomb, measured, picture, png
from tests.fakes.raw_server import Act, RawServer, says
from tests.gateway.test_runs import Died, DiesAt, Drains
from tests.journeys.workbench import PATIENCE, PRICE, RING, Workbench, reopened, upstreams, workbench

if TYPE_CHECKING:
    from pathlib import Path

PHOTO = picture("jpeg", 60, 40, "photo")
HOST = "pictures.example.com"


async def bring(bench: Workbench, data: bytes, media_type: str = "image/png") -> Source:
    """Have an upload with bytes, and return what a job is pinned to."""
    upload = Upload(str(uuid.uuid4()), "acme", "ann", media_type, len(data), expires_at=2**50)
    await bench.engine.put_upload(upload, lambda usage, _now: usage, Record("upload.create"))
    await bench.blobs.put(upload_key(RING, upload), data)
    return Source(upload.id, hashlib.sha256(data).hexdigest())


async def edit(bench: Workbench, *route: str, mask: Source | None = None, **more: Any) -> Job:
    """Submit an edit of sources."""
    sources = more.pop("sources")
    besides = {"sources": tuple(sources), "mask": mask}
    return await bench.submit(*route, operation="edit", besides=besides, **more)


async def copies(bench: Workbench, job: Job) -> dict[str, bytes]:
    """Return a job's own copies of its inputs by their names."""
    place = folder(RING, "acme", job.id)
    found = {}
    for number in (*range(1000, 1004), 1999):
        for end in ("png", "jpg", "webp"):
            data = await bench.blobs.read(f"{place}/{number}.{end}")
            if data is not None:
                found[f"{number}.{end}"] = data
    return found


def image(data: bytes, status: str = "200 OK") -> Act:
    """Return an act that answers with a file."""
    return says(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


async def failed(bench: Workbench, job: Job) -> None:
    """Hold that a job failed for its inputs: nothing charged, nothing asked, nothing of them kept."""
    ended = await bench.run_to_end(job)
    assert ended.error is not None
    assert (ended.state, ended.error.code, ended.error.stage) == (
        JobState.FAILED,
        "input_unreadable",
        "input",
    )
    assert (ended.charged, ended.refunded, ended.operator_flag) == (0, PRICE * ended.request.count, None)
    assert (bench.counts("main"), ended.attempts) == ((0, 0), ())
    assert await copies(bench, job) == {}
    usage = await bench.usage()
    assert (usage.tenant.held, usage.tenant.charged) == (0, 0)


# -- copies --------------------------------------------------------------------------------------------


async def test_inputs_are_sent_clean(tmp_path: Path) -> None:
    """An upstream gets the pictures in order, and not one byte of what stood beside them."""
    async with workbench(tmp_path, "main") as bench:
        noted = PHOTO[:2] + b"\xff\xe1\x00\x14Exif\0\0at my home\0\0" + PHOTO[2:]
        sources = [await bring(bench, noted, "image/jpeg"), await bring(bench, png(30, 20))]
        job = await bench.run_to_end(await edit(bench, "main", sources=sources))
        assert (job.state, job.charged) == (JobState.SUCCEEDED, PRICE)
        (made,) = bench.fakes["main"].edits
        assert [measured(each) for each in made.images] == [
            ("jpeg", (60, 40), False),
            ("png", (30, 20), False),
        ]
        assert b"my home" not in b"".join(made.images)
        assert list((await copies(bench, job)).values()) == list(made.images)


async def test_mask_has_upstreams_polarity(tmp_path: Path) -> None:
    """A mask arrives in the first picture's size, clear where it was white."""
    async with workbench(tmp_path, "main") as bench:
        sources = [await bring(bench, png(60, 40))]
        mask = await bring(bench, picture("jpeg", 6, 4), "image/jpeg")
        job = await bench.run_to_end(await edit(bench, "main", sources=sources, mask=mask))
        (made,) = bench.fakes["main"].edits
        assert made.mask is not None
        assert measured(made.mask) == ("png", (60, 40), True)
        assert set(await copies(bench, job)) == {"1000.png", "1999.jpg"}


async def test_each_slot_has_the_inputs(tmp_path: Path) -> None:
    """However many calls a job takes, each begins from the same pictures, prepared once."""
    async with workbench(tmp_path, "plus") as bench:
        job = await edit(bench, "plus", sources=[await bring(bench, PHOTO, "image/jpeg")], slots=(4, 4))
        ended = await bench.run_to_end(job)
        assert len(ended.outputs) == 8
        one, other = bench.fakes["plus"].edits
        assert one.images == other.images
        assert bench.counts("plus") == (2, 2)


async def test_large_copy_is_made_smaller(tmp_path: Path) -> None:
    """A picture that grows past what upstreams take when it is encoded anew goes out as WebP."""
    Image.effect_noise((4500, 3400), 30).convert("RGB").save(out := io.BytesIO(), "JPEG", quality=85)
    photo = out.getvalue()
    assert len(photo) < MOST_BYTES < len(clean(photo))
    async with workbench(tmp_path, "main") as bench:
        await bench.run_to_end(await edit(bench, "main", sources=[await bring(bench, photo, "image/jpeg")]))
        (sent,) = bench.fakes["main"].edits[0].images
        assert measured(sent) == ("webp", (4500, 3400), False)


# -- what cannot be read -------------------------------------------------------------------------------


async def test_other_bytes_are_not_used(tmp_path: Path) -> None:
    """An upload whose bytes are no longer those the job was bound to is not sent, nor one that is gone."""
    async with workbench(tmp_path, "main") as bench:
        good, bound = await bring(bench, PHOTO, "image/jpeg"), await bring(bench, png(8, 8))
        other = Source(bound.upload, "0" * 64)
        await failed(bench, await edit(bench, "main", sources=[good, other]))
        await failed(bench, await edit(bench, "main", sources=[good], mask=other))
        await bench.engine.drop_upload("acme", bound.upload or "")
        await failed(bench, await edit(bench, "main", sources=[good, bound], slots=(1, 1)))


def moved(location: str) -> Act:
    """Return an act that redirects."""
    return says(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("acts", "asked"),
    [
        ([image(b"", "404 Not Found")], 1),
        ([image(b"", "401 No")], 1),
        ([image(b"<html></html>")], 1),
        ([image(PHOTO[:300])], 1),
        ([image(bomb())], 1),
        ([image(b"")], 1),
        ([image(png(8, 8) + bytes(MOST_BYTES))], 1),
        ([moved("http://127.0.0.1/a.png")], 1),
        ([moved("file:///etc/passwd")], 1),
        ([moved("/again")], 4),
        ([image(b"", "500 No")], 3),
        ([image(b"", "429 Later")], 3),
        ([says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")], 3),
        ([says(b"")], 3),
    ],
    ids=range(14),
)
async def test_bad_url_costs_nothing(acts: list[Act], asked: int, tmp_path: Path) -> None:
    """A URL that leads to no picture ends its job unpaid; what may be over soon is asked for three times."""
    async with RawServer(*acts) as server:
        known = frozenset({(HOST, server.port)})
        async with workbench(tmp_path, "main", strangers=known) as bench:
            source = Source(url=f"http://{HOST}:{server.port}/a.png")
            await failed(bench, await edit(bench, "main", sources=[source]))
            assert server.connections == asked


async def test_url_is_fetched_patiently(tmp_path: Path) -> None:
    """A URL that answers at the third time, by a redirect, is an input as any other."""
    async with RawServer(image(b"", "503 No"), says(b""), moved("/b"), image(PHOTO)) as server:
        known = frozenset({(HOST, server.port)})
        async with workbench(tmp_path, "main", strangers=known) as bench:
            source = Source(url=f"http://{HOST}:{server.port}/a.png")
            job = await bench.run_to_end(await edit(bench, "main", sources=[source]))
            assert job.state is JobState.SUCCEEDED
            assert bench.waits == [0.5, 1.0]
            assert measured(bench.fakes["main"].edits[0].images[0]) == ("jpeg", (60, 40), False)


async def test_late_job_fetches_nothing(tmp_path: Path) -> None:
    """A job past its deadline is not given more time by its inputs."""
    async with RawServer(image(PHOTO)) as server:
        known = frozenset({(HOST, server.port)})
        async with workbench(tmp_path, "main", strangers=known, deadline_seconds=0.0) as bench:
            source = Source(url=f"http://{HOST}:{server.port}/a.png")
            job = await bench.run_to_end(await edit(bench, "main", sources=[source]))
            assert job.error is not None
            assert (job.error.code, server.connections) == ("deadline_exceeded", 0)


# -- handing over --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        Behavior("status", "upload", status=500, times=1),
        Behavior("status", "upload", status=429, times=1),
        Behavior("status", "upload", status=504, times=1),
        Behavior("reset_after", "upload"),
        Behavior("reset_before", "upload"),
        Behavior("not_json", "upload"),
        Behavior("malformed", "upload"),
        Behavior("status", "put", status=500),
        Behavior("status", "put", status=502),
        Behavior("reset_after", "put"),
        Behavior("reset_before", "put"),
    ],
)
async def test_handing_over_may_be_repeated(trouble: Behavior, tmp_path: Path) -> None:
    """What goes wrong before the paid call is tried again, and paid once."""
    async with workbench(tmp_path, "plus") as bench:
        bench.script("plus", trouble)
        sources = [await bring(bench, PHOTO, "image/jpeg"), await bring(bench, png(9, 9))]
        job = await bench.run_to_end(await edit(bench, "plus", sources=sources))
        assert (job.state, job.charged, job.operator_flag) == (JobState.SUCCEEDED, PRICE, None)
        assert bench.counts("plus") == (1, 1)
        assert len(bench.fakes["plus"].edits[0].images) == 2
        assert len(job.attempts) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        Behavior("status", "upload", status=500, times=0),
        Behavior("status", "upload", status=401, times=0),
        Behavior("status", "upload", status=400, times=0),
        Behavior("reset_after", "upload", times=0),
        Behavior("not_json", "upload", times=0),
        Behavior("status", "put", status=403, times=0),
        Behavior("reset_after", "put", times=0),
    ],
)
async def test_next_entry_takes_over(trouble: Behavior, tmp_path: Path) -> None:
    """An upstream that takes no inputs is not asked to make anything; the route's next entry is."""
    async with workbench(tmp_path, "plus", "main") as bench:
        bench.script("plus", trouble)
        source = await bring(bench, PHOTO, "image/jpeg")
        job = await bench.run_to_end(await edit(bench, "plus", "main", sources=[source]))
        assert (job.state, job.provider) == (JobState.SUCCEEDED, "main")
        assert (bench.counts("plus"), bench.counts("main")) == ((0, 0), (1, 1))
        assert [attempt.step for attempt in job.attempts] == [1]
        alone = await bench.run_to_end(await edit(bench, "plus", sources=[source]))
        assert alone.error is not None
        assert (alone.error.code, alone.charged, alone.attempts) == ("upstream_failed", 0, alone.attempts)
        assert bench.counts("plus") == (0, 0)
        assert alone.operator_flag is None


# -- crashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nth", "kept"), [(1, 1), (2, 2), (3, 3)])
async def test_crash_keeps_the_copies(nth: int, kept: int, tmp_path: Path) -> None:
    """A process that dies while inputs are made ready leaves copies, and the next one goes on with them."""
    async with upstreams("main") as fakes, RawServer(image(PHOTO), image(png(5, 5))) as server:
        known = frozenset({(HOST, server.port)})
        async with reopened(tmp_path, fakes, crash=DiesAt("input_stored", nth), strangers=known) as bench:
            url = Source(url=f"http://{HOST}:{server.port}/a.png")
            sources = [url, await bring(bench, png(30, 20))]
            job = await edit(bench, "main", sources=sources, mask=await bring(bench, png(3, 2)))
            with pytest.raises(Died):
                await bench.run()
            before = await copies(bench, job)
            assert len(before) == kept
            assert bench.counts("main") == (0, 0)
        async with reopened(tmp_path, fakes, strangers=known) as bench:
            ended = await bench.worked(job)
            assert (ended.state, bench.counts("main")) == (JobState.SUCCEEDED, (1, 1))
            assert server.connections == 1
            after = await copies(bench, job)
            assert {name: after[name] for name in before} == before
            assert fakes["main"].edits[0].images == (after["1000.jpg"], after["1001.png"])


@pytest.mark.parametrize("point", ["attempt_recorded", "upstream_answered"])
async def test_repeat_names_the_same_inputs(point: str, tmp_path: Path) -> None:
    """A call that is repeated under its key has the same body: inputs handed over before keep their names."""
    async with upstreams("plus") as fakes:
        async with reopened(tmp_path, fakes, crash=DiesAt(point)) as bench:
            source = await bring(bench, PHOTO, "image/jpeg")
            job = await edit(bench, "plus", sources=[source])
            with pytest.raises(Died):
                await bench.run()
            assert (len(fakes["plus"].seen("put")), fakes["plus"].paid) == (1, point != "attempt_recorded")
            await bench.engine.drop_upload("acme", source.upload or "")
            await bench.blobs.delete(folder(RING, "acme", job.id))
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert (ended.state, fakes["plus"].paid) == (JobState.SUCCEEDED, 1)
            assert len(fakes["plus"].seen("put")) == 1


async def test_nothing_is_paid_before_inputs(tmp_path: Path) -> None:
    """The attempt is written down once all inputs are where the upstream wants them, and nothing paid."""
    async with upstreams("plus") as fakes:
        async with reopened(tmp_path, fakes, crash=DiesAt("attempt_recorded")) as bench:
            sources = [await bring(bench, PHOTO, "image/jpeg"), await bring(bench, png(9, 9))]
            job = await edit(bench, "plus", sources=sources)
            with pytest.raises(Died):
                await bench.run()
            found = await bench.engine.get_job("acme", job.id, "ann")
            assert found is not None
            assert len(found.job.attempts[0].handed) == 2
        assert [call.part for call in fakes["plus"].calls] == ["upload", "put"] * 2


async def test_lost_copies_leave_doubt(tmp_path: Path) -> None:
    """Where a call may have been taken and its inputs are gone, nobody knows, and it is not repeated."""
    async with upstreams("main") as fakes:
        async with reopened(tmp_path, fakes, crash=DiesAt("upstream_answered")) as bench:
            job = await edit(bench, "main", sources=[await bring(bench, png(9, 9))])
            with pytest.raises(Died):
                await bench.run()
            await bench.blobs.delete(folder(RING, "acme", job.id))
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert (ended.operator_flag, bench.counts("main")) == ("outcome_unknown", (1, 1))


async def test_slot_without_inputs_ends(tmp_path: Path) -> None:
    """Where nothing was made yet and the inputs are gone, the job ends for that, unpaid and without doubt."""
    drains = Drains("upstream_answered")
    async with upstreams("main") as fakes:
        async with reopened(tmp_path, fakes, crash=drains, lifetime=drains.lifetime) as bench:
            bench.script("main", Behavior("status", status=500))
            source = await bring(bench, png(9, 9))
            job = await edit(bench, "main", sources=[source])
            bench.worker.start()
            await drains.lifetime.stopping.wait()
            await bench.drain(PATIENCE)
            await bench.engine.drop_upload("acme", source.upload or "")
            await bench.blobs.delete(folder(RING, "acme", job.id))
        async with reopened(tmp_path, fakes) as bench:
            ended = await bench.worked(job)
            assert ended.error is not None
            assert (ended.error.code, ended.error.stage) == ("input_unreadable", "input")
            assert (ended.charged, ended.operator_flag, bench.counts("main")) == (0, None, (1, 0))


async def test_upload_outlives_a_rotation(tmp_path: Path) -> None:
    """An upload that came under an older secret is found and used while that one is listed."""
    older = Keyring([Secret("o" * 32)])
    upload = Upload(str(uuid.uuid4()), "acme", "ann", "image/png", 9, expires_at=2**50)
    blobs = FolderBlobs(tmp_path)
    await blobs.put(upload_key(older, upload), b"old bytes")
    both = Keyring([Secret("n" * 32), Secret("o" * 32)])
    assert upload_key(both, upload) != upload_key(older, upload)
    assert await find_upload(blobs, both, upload) == (upload_key(older, upload), 9)
    assert await find_upload(blobs, Keyring([Secret("n" * 32)]), upload) is None
    assert upload_key(older, upload).rpartition("/")[0] in places(both, Remains("acme", upload.id))
