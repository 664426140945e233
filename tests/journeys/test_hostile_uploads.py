"""All that hostile callers bring as images, over each place that keeps blobs: answered in words, not kept."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Callable, Mapping

import pytest
from PIL import Image

from gateway.blobs import Blobs
from gateway.blobs.bucket import BucketBlobs
from policies import ids
from tests.fakes.pictures import bomb, picture, png
from tests.fakes.storage import Storage
from tests.journeys.bringing import brought, edit, files, planted, row, ticket
from tests.journeys.conftest import Opening
from tests.journeys.stage import HOUR, SANDBOX, Stage

GOOD = png(40, 30)
IDLE = {"providers": SANDBOX, "concurrency": 0}


async def over_folder(opening: Opening, _storage: Storage) -> Stage:
    """Open a house whose blobs are in a folder."""
    return await opening(**IDLE)


async def over_bucket(opening: Opening, storage: Storage) -> Stage:
    """Open a house whose blobs are in a bucket of its own."""
    url = storage.bucket("uploads")

    def blobs(_url: str) -> Blobs:
        return BucketBlobs(url, storage.options)

    return await opening(**IDLE, blobs=blobs)


PLACES: Mapping[str, Callable[[Opening, Storage], Awaitable[Stage]]] = {
    "folder": over_folder,
    "bucket": over_bucket,
}


@pytest.fixture(params=PLACES)
async def anywhere(opening: Opening, storage: Storage, request: pytest.FixtureRequest) -> Stage:
    """A house over each place that keeps blobs, which makes no pictures."""
    return await PLACES[request.param](opening, storage)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_upload_is_brought_and_used(anywhere: Stage, kind: str) -> None:
    """An image that is announced, put and named is accepted, by either spelling of its id."""
    ann, data = anywhere.visit(), picture(kind, 40, 30)
    name = await brought(ann, data, kind)
    assert name.startswith("up_")
    for spelled in (name, ids.parse(name, ids.UPLOAD) or ""):
        reply = await edit(ann, spelled, mask={"upload": name})
        assert (reply.status, reply.json["inputs"][0]["upload"]) == (202, spelled)


def archive() -> bytes:
    """Return a ZIP file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.html", "<script>alert(1)</script>")
    return out.getvalue()


def moving(kind: str) -> bytes:
    """Return an image that moves."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def gif() -> bytes:
    """Return a GIF."""
    out = io.BytesIO()
    Image.new("P", (8, 8)).save(out, "GIF")
    return out.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HOSTILE: Mapping[str, tuple[str, bytes, str]] = {
    "jpeg as png": ("png", picture("jpeg", 40, 30), "declared image/png and is image/jpeg"),
    "webp as jpeg": ("jpeg", picture("webp", 40, 30), "declared image/jpeg and is image/webp"),
    "png as webp": ("webp", GOOD, "declared image/webp and is image/png"),
    "gif": ("png", gif(), "no image that can be used"),
    "svg": ("png", SVG, "no image that can be used"),
    "page": ("jpeg", b"<html><body>hello</body></html>", "no image that can be used"),
    "zeros": ("png", bytes(1000), "no image that can be used"),
    "one byte": ("png", b"\x89", "no image that can be used"),
    "head alone": ("png", GOOD[:24], "no image that can be used"),
    "half png": ("png", GOOD[: len(GOOD) // 2], "no image that can be used"),
    "half jpeg": ("jpeg", picture("jpeg", 40, 30)[:300], "no image that can be used"),
    "half webp": ("webp", picture("webp", 40, 30)[:-9], "no image that can be used"),
    "bomb": ("png", bomb(), "no image that can be used"),
    "no pixels": ("png", GOOD[:16] + bytes(4) + GOOD[20:], "no image that can be used"),
    "broken check": ("png", GOOD[:29] + b"\0\0\0\0" + GOOD[33:], "no image that can be used"),
    "moving webp": ("webp", moving("webp"), "no image that can be used"),
    "moving png": ("png", moving("png"), "no image that can be used"),
    "png and archive": ("png", GOOD + archive(), "something behind the image's end"),
    "jpeg and archive": ("jpeg", picture("jpeg", 40, 30) + archive(), "something behind the image's end"),
    "webp and archive": ("webp", picture("webp", 40, 30) + archive(), "something behind the image's end"),
    "png and page": ("png", GOOD + b"<html></html>", "something behind the image's end"),
    "two pngs": ("png", GOOD + GOOD, "something behind the image's end"),
    "a byte too much": ("jpeg", picture("jpeg", 40, 30) + b"\n", "something behind the image's end"),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_image_is_not_kept(anywhere: Stage, case: str) -> None:
    """Whatever is no single still image of its type is refused in plain words, and leaves nothing."""
    kind, data, words = HOSTILE[case]
    ann = anywhere.visit()
    name = await brought(ann, data, kind)
    reply = await edit(ann, name)
    assert (reply.status, reply.code) == (422, "reference_rejected"), reply
    (flaw,) = reply.json["errors"]
    assert flaw["pointer"] == "/inputs/0/upload"
    assert words in flaw["detail"]
    assert words in reply.json["detail"]
    assert await row(anywhere, name) is None
    assert await files(anywhere, name) == []
    again = await edit(ann, name)
    assert (again.status, again.code) == (400, "invalid_request")
    assert (await ann.get("/v1/jobs")).json["data"] == []
    assert (await ann.get("/v1/account")).json["credits"]["held"] == 0


@pytest.mark.parametrize("length", [0, 1, len(GOOD) - 1, len(GOOD) + 1])
async def test_other_length_is_not_kept(anywhere: Stage, length: int) -> None:
    """Bytes of another length than announced, as a place that does not count lets in, are refused."""
    ann = anywhere.visit()
    name = (await ticket(ann, "png", len(GOOD)))["id"]
    found = await row(anywhere, name)
    assert found is not None
    await planted(anywhere.house, found, (GOOD + b"\0")[:length])
    reply = await edit(ann, name)
    assert (reply.status, reply.code) == (422, "reference_rejected")
    assert f"declared {len(GOOD)} bytes long and is {length}" in reply.json["detail"]
    assert await files(anywhere, name) == []
    assert await row(anywhere, name) is None


async def test_incomplete_and_expired_are_told(anywhere: Stage) -> None:
    """An upload without bytes can still get them; one of yesterday is over, but not for a replay."""
    ann = anywhere.visit()
    empty = (await ticket(ann, "png", len(GOOD)))["id"]
    reply = await edit(ann, empty)
    assert (reply.status, reply.code, reply.json["retryable"]) == (409, "upload_incomplete", True)
    assert reply.json["errors"][0]["pointer"] == "/inputs/0/upload"
    name = await brought(ann, GOOD)
    assert (await edit(ann, name, key="k")).status == 202
    anywhere.clock.move(24 * HOUR)
    late = await edit(anywhere.visit(), name)
    assert (late.status, late.code) == (410, "upload_expired")
    assert (await edit(anywhere.visit(), name, key="k")).headers["idempotent-replayed"] == "true"


async def test_others_uploads_are_nobodys(anywhere: Stage) -> None:
    """An upload is its subject's alone: foreign, unknown and crooked ids are the same flaw, all listed."""
    name = await brought(anywhere.visit(), GOOD)
    refs = [{"upload": text} for text in (name, "up_00000000000000000000000000", "key", "job_" + name[3:])]
    shown = set()
    for who in (anywhere.visit("ben"), anywhere.visit("ann", "other"), anywhere.admin()):
        reply = await who.submit(operation="edit", inputs=refs, mask={"upload": name})
        assert (reply.status, reply.code) == (400, "invalid_request")
        shown |= {flaw["detail"] for flaw in reply.json["errors"]}
        places = [*(f"/inputs/{at}/upload" for at in range(4)), "/mask/upload"]
        assert [flaw["pointer"] for flaw in reply.json["errors"]] == places
    assert shown == {"is not an upload of yours"}
    assert await files(anywhere, name) == ["png"]


async def test_hostile_mask_is_not_kept(anywhere: Stage) -> None:
    """A mask is judged as an image is, at its own place, and an image beside it stays."""
    ann = anywhere.visit()
    good, bad = await brought(ann, GOOD), await brought(ann, GOOD + archive())
    reply = await edit(ann, good, mask={"upload": bad})
    assert (reply.code, reply.json["errors"][0]["pointer"]) == ("reference_rejected", "/mask/upload")
    assert (await files(anywhere, good), await files(anywhere, bad)) == (["png"], [])
    linked = await edit(ann, good, mask={"url": "https://images.example.com/a.png"})
    assert (linked.status, linked.json["errors"][0]["pointer"]) == (400, "/mask")


BARRED = [
    "http://images.example.com/a.png",
    "https://images.example.com:444/a.png",
    "https://10.0.0.1/a.png",
    "https://[::ffff:169.254.169.254]/latest",
    "https://metadata.google.internal/a.png",
    "https://user:word@example.org/a.png",
    "https://no-such-name.invalid/a.png",
    "ftp://example.org/a.png",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "//example.org/a.png",
    "",
]


async def test_barred_urls_read_alike(anywhere: Stage) -> None:
    """Every address that may not be called is refused with one text, whatever is wrong with it."""
    ann, texts = anywhere.visit(), set()
    for url in BARRED:
        reply = await ann.submit(operation="edit", inputs=[{"url": url}])
        assert (reply.status, reply.code) == (422, "reference_rejected"), url
        assert reply.json["errors"][0]["pointer"] == "/inputs/0/url"
        texts.add((reply.json["detail"], reply.json["errors"][0]["detail"]))
    assert len(texts) == 1


async def test_same_image_is_judged_once(anywhere: Stage) -> None:
    """An upload that was good is not read again, for any of the jobs that begin from it."""
    ann = anywhere.visit(plan="max")
    name = await brought(ann, GOOD)
    assert (await edit(ann, name)).status == 202
    found = await row(anywhere, name)
    assert found is not None
    await anywhere.house.blobs.delete(anywhere.house.uploads.key(found).partition("/0.")[0])
    await planted(anywhere.house, found, bytes(len(GOOD)))
    replies = await asyncio.gather(*(edit(ann, name) for _ in range(10)))
    assert {reply.status for reply in replies} == {202}
    jobs = (await ann.get("/v1/jobs")).json["data"]
    assert len(jobs) == 11


async def test_old_uploads_are_swept(anywhere: Stage) -> None:
    """What was never used, or used long ago, goes with its bytes."""
    ann = anywhere.visit()
    name = await brought(ann, GOOD)
    anywhere.clock.move(47 * HOUR)
    await anywhere.house.sweeper.step()
    assert await files(anywhere, name) == ["png"]
    anywhere.clock.move(2 * HOUR)
    await anywhere.house.sweeper.step()
    assert (await files(anywhere, name), await row(anywhere, name)) == ([], None)
