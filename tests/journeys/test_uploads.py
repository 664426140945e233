"""Uploads: announced, put and used as they should be; and all that hostile callers try, answered in words.

What is refused is not kept. The pictures are tried over every place that keeps blobs; the links by which
bytes come are those of a folder, for object storage has its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from PIL import Image

from gateway.blobs import Blobs, folder
from gateway.blobs.bucket import BucketBlobs
from gateway.errors import Problem
from policies import ids
from policies.model import Principal, Upload
from tests.fakes.pictures import bomb, picture, png
from tests.fakes.storage import Storage
from tests.journeys.bringing import announced, brought, planted, put, ticket
from tests.journeys.conftest import Opening
from tests.journeys.stage import HOUR, MINUTE, SANDBOX, Stage
from tests.journeys.visitor import Visitor, parsed

GOOD = png(40, 30)
SLOW_LOOP = {"providers": SANDBOX, "concurrency": 0}


async def over_folder(opening: Opening, _storage: Storage) -> Stage:
    """Open a house whose blobs are in a folder."""
    return await opening(**SLOW_LOOP)


async def over_bucket(opening: Opening, storage: Storage) -> Stage:
    """Open a house whose blobs are in a bucket of its own."""
    url = storage.bucket("uploads")

    def blobs(_url: str) -> Blobs:
        return BucketBlobs(url, storage.options)

    return await opening(**SLOW_LOOP, blobs=blobs)


PLACES: Mapping[str, Callable[[Opening, Storage], Awaitable[Stage]]] = {
    "folder": over_folder,
    "bucket": over_bucket,
}


@pytest.fixture(params=PLACES)
async def anywhere(opening: Opening, storage: Storage, request: pytest.FixtureRequest) -> Stage:
    """A house over each place that keeps blobs, which makes no pictures."""
    return await PLACES[request.param](opening, storage)


@pytest.fixture
async def here(opening: Opening) -> Stage:
    """A house that takes bytes itself."""
    return await opening(**SLOW_LOOP)


async def edit(who: Visitor, upload: str, **more: Any) -> Any:
    """Ask for an edit of an upload."""
    return await who.submit(operation="edit", inputs=[{"upload": upload}], **more)


async def row(stage: Stage, upload: str) -> Upload | None:
    """Return what the store keeps of an upload."""
    return await stage.house.store.get_upload("acme", ids.parse(upload, ids.UPLOAD) or "")


async def files(stage: Stage, upload: str) -> list[str]:
    """Return the ends of keys under which an upload has bytes."""
    place = folder(stage.house.ring, "acme", ids.parse(upload, ids.UPLOAD) or "")
    sizes = {end: await stage.house.blobs.size(f"{place}/0.{end}") for end in ("png", "jpg", "webp")}
    return [end for end, size in sizes.items() if size is not None]


# -- bringing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_upload_is_brought_and_used(anywhere: Stage, kind: str) -> None:
    """An image that is announced, put and named is accepted, by either spelling of its id."""
    ann, data = anywhere.visit(), picture(kind, 40, 30)
    name = await brought(ann, data, kind)
    assert name.startswith("up_")
    for spelled in (name, ids.parse(name, ids.UPLOAD) or ""):
        reply = await edit(ann, spelled, mask={"upload": name})
        assert (reply.status, reply.json["inputs"][0]["upload"]) == (202, spelled)


async def test_ticket_says_how_to_put(here: Stage) -> None:
    """A ticket names the method, headers and end of its address: five minutes, to the second."""
    here.clock.hold()
    ann = here.visit()
    shown = await ticket(ann, "webp", 7)
    assert (shown["method"], shown["headers"]) == ("PUT", {"Content-Type": "image/webp"})
    assert shown["url"].startswith(f"{here.url}/uploads/")
    assert f"?exp={here.clock() // 1000 + 301}&" in shown["url"]
    assert (await here.house.store.usage("acme", "ann")).user.windows["write"].count == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"size": 0}, "/size"),
        ({"size": 10_485_761}, "/size"),
        ({"size": "10"}, "/size"),
        ({"size": None}, "/size"),
        ({"content_type": "image/gif"}, "/content_type"),
        ({"content_type": "image/svg+xml"}, "/content_type"),
        ({"content_type": "image/png; a=b"}, "/content_type"),
        ({"content_type": "text/html"}, "/content_type"),
        ({"filename": ""}, "/filename"),
        ({"filename": "a" * 201}, "/filename"),
        ({"contentType": "image/png"}, "/contentType"),
    ],
)
async def test_bad_announcement_is_placed(here: Stage, change: dict[str, object], pointer: str) -> None:
    """What may not come is refused when it is announced, with the place of the mistake."""
    reply = await here.visit().post("/v1/uploads", announced("png", 9) | change)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert pointer in [flaw["pointer"] for flaw in reply.json["errors"]]


async def test_largest_image_may_come(here: Stage) -> None:
    """Ten mebibytes are let in, byte for byte."""
    data = bytes(10_485_760)
    place = await ticket(here.visit(), "png", len(data))
    assert (await put(place["url"], data, place["headers"])).status == 200
    found = await row(here, place["id"])
    assert found is not None
    assert await here.house.blobs.read(here.house.uploads.key(found)) == data


async def test_announcing_again_is_a_replay(here: Stage) -> None:
    """The same key and announcement are the same upload, at a fresh address; another one is refused."""
    ann, body = here.visit(), announced("png", len(GOOD))
    first = await ann.post("/v1/uploads", body, Idempotency_Key="k")
    here.clock.move(2 * MINUTE)
    again = await ann.post("/v1/uploads", body, Idempotency_Key="k")
    assert (first.status, again.status) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json["id"] == first.json["id"]
    assert again.json["url"] != first.json["url"]
    other = await ann.post("/v1/uploads", body | {"size": 9}, Idempotency_Key="k")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (await ann.submit(key="k")).code == "idempotency_key_reused"
    here.clock.move(24 * HOUR)
    late = await here.visit().post("/v1/uploads", body, Idempotency_Key="k")
    assert (late.status, late.code) == (410, "upload_expired")


# -- putting -------------------------------------------------------------------------------------------


async def test_first_whole_put_stays(here: Stage) -> None:
    """What arrives whole first is kept and named by its hash; a second is refused, and changes nothing."""
    place = await ticket(here.visit(), "png", len(GOOD))
    first = await put(place["url"], GOOD, place["headers"])
    assert first.headers["etag"] == f'"{hashlib.sha256(GOOD).hexdigest()}"'
    second = await put(place["url"], GOOD[::-1])
    assert (first.status, second.status, second.code) == (200, 409, "upload_complete")
    found = await row(here, place["id"])
    assert found is not None
    assert await here.house.blobs.read(here.house.uploads.key(found)) == GOOD


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 200, ""),
        ({"Content-Type": "image/png"}, 200, ""),
        ({"Content-Type": "IMAGE/PNG"}, 200, ""),
        ({"Content-Type": "image/jpeg"}, 400, "invalid_request"),
        ({"Content-Type": "image/png; charset=x"}, 400, "invalid_request"),
        ({"Content-Type": "text/html"}, 400, "invalid_request"),
        ({"Content-Length": "{less}"}, 400, "invalid_request"),
        ({"Content-Length": "{more}"}, 400, "invalid_request"),
        ({"Content-Length": "0"}, 400, "invalid_request"),
        ({"Content-Length": "99999999"}, 413, "payload_too_large"),
        ({"Content-Length": "", "Transfer-Encoding": "chunked"}, 400, "invalid_request"),
    ],
)
async def test_put_says_what_was_announced(
    here: Stage, headers: dict[str, str], status: int, code: str
) -> None:
    """Length and type of a PUT are those of the announcement; the type may be left out."""
    place = await ticket(here.visit(), "png", len(GOOD))
    sizes = {"less": len(GOOD) - 1, "more": len(GOOD) + 1}
    told = {name: value.format(**sizes) for name, value in headers.items()}
    reply = await put(place["url"], GOOD, told)
    assert (reply.status, reply.code) == (status, code)
    assert await files(here, place["id"]) == (["png"] if status == 200 else [])


async def test_altered_address_lets_nothing_in(here: Stage) -> None:
    """Whatever letter of an address is another one, or if its parts come in another way, it is invalid."""
    place = await ticket(here.visit(), "png", len(GOOD))
    path, _, query = place["url"].removeprefix(here.url).partition("?")
    spelled = [
        path.replace("/uploads/", "/uploads//") + f"?{query}",
        path.replace("0.png", "0.jpg") + f"?{query}",
        path.replace("0.png", "1.png") + f"?{query}",
        path.replace("0.png", "%30.png") + f"?{query}",
        path,
        f"{path}?{query}&size=9",
        f"{path}?{query}&more=1",
        f"{path}?{query}".replace("of=", "of=%36"),
        f"{path}?{query.upper()}",
        f"{path}?exp=&size=&of=&sig=",
        "/uploads/../safelight.db?" + query,
    ]
    for at in range(0, len(query), 7):
        other = "1" if query[at] == "0" else "0"
        spelled.append(f"{path}?{query[:at]}{other}{query[at + 1 :]}")
    for target in spelled:
        reply = await put(here.url + target, GOOD)
        assert (reply.status, reply.code) == (403, "link_invalid"), target
    read = await here.stranger().get(f"{path}?{query}".replace("/uploads/", "/files/"))
    assert (read.status, read.code) == (403, "link_invalid")
    assert await files(here, place["id"]) == []


async def test_address_runs_out(here: Stage) -> None:
    """After five minutes the address is gone, and the upload announced again has another."""
    place = await ticket(here.visit(), "png", len(GOOD))
    here.clock.move(5 * MINUTE + 1_000)
    late = await put(place["url"], GOOD)
    assert (late.status, late.code) == (410, "link_expired")


async def test_broken_put_may_be_repeated(here: Stage) -> None:
    """Half a body leaves nothing, and whoever holds the address may send it again."""
    place = await ticket(here.visit(), "png", len(GOOD))
    holder = here.stranger()
    async with await holder.dial() as line:
        target = place["url"].removeprefix(here.url)
        line.write(holder.request("PUT", target, {"Content-Length": str(len(GOOD))}) + GOOD[:20])
        await here.stranger().get("/livez")
    assert (await put(place["url"], GOOD)).status == 200
    left = here.folder / "blobs" / ".unfinished"
    for _ in range(50):
        if not list(left.iterdir()):
            break
        await here.stranger().get("/livez")
    assert list(left.iterdir()) == []


async def test_slow_put_is_cut(opening: Opening) -> None:
    """A body that does not come in time is given up, later than a small one would be."""
    stage = await opening(**SLOW_LOOP, body_seconds=0.05)
    place = await ticket(stage.visit(), "png", len(GOOD))
    holder = stage.stranger()
    async with await holder.dial() as line:
        target = place["url"].removeprefix(stage.url)
        line.write(holder.request("PUT", target, {"Content-Length": str(len(GOOD))}) + GOOD[:20])
        reply = parsed(await line.rest())
    assert (reply.status, reply.code) == (408, "request_timeout")
    assert await files(stage, place["id"]) == []


async def test_dropped_upload_takes_no_bytes(here: Stage) -> None:
    """Bytes that come for an upload that was dropped meanwhile are not kept."""
    place = await ticket(here.visit(), "png", len(GOOD))
    await here.house.store.drop_upload("acme", ids.parse(place["id"], ids.UPLOAD) or "")
    reply = await put(place["url"], GOOD)
    assert (reply.status, reply.code) == (404, "not_found")
    assert await files(here, place["id"]) == []


async def test_pages_may_put(opening: Opening) -> None:
    """A page of an allowed origin may put and read the hash; other pages are told nothing."""
    stage = await opening(**SLOW_LOOP, dev=False, server={"cors_origins": ("https://app.example.com",)})
    key = "0123456789abcdef/01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0/0.png"
    asking = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    for origin, let in (("https://app.example.com", True), ("https://evil.example", False)):
        said = await stage.stranger().ask("OPTIONS", f"/uploads/{key}", {"Origin": origin, **asking})
        assert ("PUT" in said.headers.get("access-control-allow-methods", "")) is let
        assert ("content-type" in said.headers.get("access-control-allow-headers", "")) is let
        done = await put(f"{stage.url}/uploads/{key}?sig=1", b"x", {"Origin": origin})
        assert (done.headers.get("access-control-allow-origin") == origin) is let
        assert ("ETag" in done.headers.get("access-control-expose-headers", "")) is let


async def test_only_puts_are_taken(here: Stage) -> None:
    """An address to put to is of no other use, and announcing needs a token."""
    place = (await ticket(here.visit(), "png", 9))["url"].removeprefix(here.url)
    for method in ("GET", "POST", "DELETE"):
        reply = await here.stranger().ask(method, place)
        assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, PUT")
    assert (await here.stranger().post("/v1/uploads", announced("png", 9))).status == 401
    reader = here.visit(scopes=frozenset({"images:read"}))
    assert (await reader.post("/v1/uploads", announced("png", 9))).code == "forbidden"


# -- pinning -------------------------------------------------------------------------------------------


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


async def test_hostile_mask_is_not_kept(here: Stage) -> None:
    """A mask is judged as an image is, at its own place, and an image beside it stays."""
    ann = here.visit()
    good, bad = await brought(ann, GOOD), await brought(ann, GOOD + archive())
    reply = await edit(ann, good, mask={"upload": bad})
    assert (reply.code, reply.json["errors"][0]["pointer"]) == ("reference_rejected", "/mask/upload")
    assert (await files(here, good), await files(here, bad)) == (["png"], [])
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


async def test_barred_urls_read_alike(here: Stage) -> None:
    """Every address that may not be called is refused with one text, whatever is wrong with it."""
    ann, texts = here.visit(), set()
    for url in BARRED:
        reply = await ann.submit(operation="edit", inputs=[{"url": url}])
        assert (reply.status, reply.code) == (422, "reference_rejected"), url
        assert reply.json["errors"][0]["pointer"] == "/inputs/0/url"
        texts.add((reply.json["detail"], reply.json["errors"][0]["detail"]))
    assert len(texts) == 1


async def test_same_image_is_judged_once(here: Stage) -> None:
    """An upload that was good is not read again, for any of a hundred jobs that begin from it."""
    ann = here.visit(plan="max")
    name = await brought(ann, GOOD)
    replies = await asyncio.gather(*(edit(ann, name) for _ in range(10)))
    assert {reply.status for reply in replies} == {202}
    jobs = (await ann.get("/v1/jobs")).json["data"]
    assert len(jobs) == 10


# -- forgetting ----------------------------------------------------------------------------------------


async def test_deleted_job_takes_its_uploads(here: Stage) -> None:
    """With a job go the uploads it was made from, and nobody else's."""
    ann = here.visit()
    used, mask, other = [await brought(ann, png(40, 30, seed)) for seed in "abc"]
    job = (await edit(ann, used, mask={"upload": mask})).json
    await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (await ann.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204
    assert [await files(here, name) for name in (used, mask, other)] == [[], [], ["png"]]
    assert [await row(here, name) for name in (used, mask)] == [None, None]


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


# -- inside a request ----------------------------------------------------------------------------------


async def test_kept_bytes_have_one_name(here: Stage) -> None:
    """The same bytes of the same caller are the same upload, counted once; another caller's are another."""
    house = here.house
    ann, ben = (house.jobs.admit_caller(Principal("acme", subject)) for subject in ("ann", "ben"))
    first = await house.uploads.keep(ann, GOOD)
    here.clock.move(30 * MINUTE)
    again = await house.uploads.keep(ann, GOOD)
    assert again.id == first.id
    assert again.expires_at >= first.expires_at + 30 * MINUTE
    assert (await house.uploads.keep(ben, GOOD)).id != first.id
    assert (await house.uploads.keep(ann, picture("webp", 40, 30))).media_type == "image/webp"
    usage = await house.store.usage("acme", "ann")
    assert usage.user.windows["write"].count == 2
    assert (await edit(here.visit(), ids.shown(first.id, ids.UPLOAD))).status == 202


@pytest.mark.parametrize("data", [b"", b"no image", GOOD + b"more", bytes(10_485_761)], ids=range(4))
async def test_kept_bytes_are_judged(here: Stage, data: bytes) -> None:
    """Bytes that are no image are refused at once, and nothing is kept of them."""
    ann = here.house.jobs.admit_caller(Principal("acme", "ann"))
    with pytest.raises(Problem) as raised:
        await here.house.uploads.keep(ann, data)
    assert raised.value.code == "reference_rejected"
    assert not [path for path in (here.folder / "blobs").rglob("*") if path.is_file()]
