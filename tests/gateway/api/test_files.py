"""Images by link: the link alone decides, and every altered byte of it counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.api.files import PIECE, FileCalls
from gateway.blobs import FolderBlobs
from gateway.copies import Copies
from gateway.images import thumb
from policies import ids
from tests.fakes.jobs import NOON, uuid
from tests.fakes.pictures import picture
from tests.gateway.api.conftest import URL, Site

KEY = "0123456789abcdef/" + uuid(1) + "/0.png"
THUMB = KEY.replace("0.png", "0.thumb.webp")
DATA = b"\x89PNG" + bytes(range(256)) * 1000


async def linked(site: Site, key: str = KEY, data: bytes = DATA) -> str:
    """Store an image and return the target of its link."""
    await site.blobs.put(key, data)
    return site.links.make(key, NOON).removeprefix(URL)


async def test_link_brings_bytes(site: Site) -> None:
    """A good link needs no token and brings the stored bytes, with what browsers are to know of them."""
    answer = await site.ask("GET", await linked(site))
    assert (answer.status, answer.body) == (200, DATA)
    expected = {
        "content-type": "image/png",
        "content-length": str(len(DATA)),
        "etag": f'"{hashlib.sha256(DATA).hexdigest()}"',
        "access-control-allow-origin": "*",
        "cross-origin-resource-policy": "cross-origin",
        "content-disposition": f'inline; filename="{ids.shown(uuid(1))}-0.png"',
        "x-content-type-options": "nosniff",
    }
    assert expected.items() <= answer.headers.items()
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "ratelimit" not in answer.headers


async def test_bytes_go_in_pieces(site: Site) -> None:
    """A large image is handed over piece by piece."""
    opened = site.open("GET", await linked(site))
    await opened.done()
    assert opened.parts.qsize() == -(-len(DATA) // PIECE) + 1


async def test_link_of_variant_names_it(site: Site) -> None:
    """A variant has its own type and name; `download=1` attaches."""
    answer = await site.ask("GET", await linked(site, THUMB, b"RIFF") + "&download=1")
    assert answer.headers["content-type"] == "image/webp"
    name = f"{ids.shown(uuid(1))}-0.thumb.webp"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'


async def test_head_and_etag_spare_bytes(site: Site) -> None:
    """HEAD has the headers alone; a client that has the bytes is told so, known hash or not."""
    target = await linked(site)
    tag = f'"{hashlib.sha256(DATA).hexdigest()}"'
    for _ in range(2):
        answer = await site.ask("GET", target, ("If-None-Match", tag))
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    head = await site.ask("HEAD", target)
    assert (head.body, head.headers["content-length"]) == (b"", str(len(DATA)))


async def test_every_altered_byte_is_refused(site: Site) -> None:
    """Whatever letter of key, expiry or signature is changed, the answer is 403 `link_invalid`."""
    target = await linked(site)
    start = len("/files/")
    for place in range(start, len(target)):
        for letter in "A0/.%":
            if letter == target[place]:
                continue
            altered = target[:place] + letter + target[place + 1 :]
            answer = await site.ask("GET", altered)
            assert (answer.status, answer.json["code"]) == (403, "link_invalid"), altered


@pytest.mark.parametrize(
    "change",
    [
        ("/files/", "/files//"),
        ("/0.png", "//0.png"),
        ("/0.png", "/%30.png"),
        ("/0.png", "/./0.png"),
        ("/0.png?", "/0.png/?"),
        ("exp=", "exp=0"),
        ("exp=", "x=1&exp="),
        ("exp=", "exp=1&exp="),
        ("&sig=", "&&sig="),
        ("&sig=", ";sig="),
        ("sig=", "sig=%41"),
        ("&sig=", "&download=2&sig="),
        ("&sig=", "&download=&sig="),
    ],
)
async def test_other_spellings_are_refused(site: Site, change: tuple[str, str]) -> None:
    """A link that leads to the same blob by another spelling was not made here."""
    target = (await linked(site)).replace(*change)
    answer = await site.ask("GET", target)
    assert (answer.status, answer.json["code"]) == (403, "link_invalid")
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_link_expires_exactly(site: Site) -> None:
    """A link is good to the last millisecond before its expiry, and 410 from then on."""
    target = await linked(site)
    site.jobs.at = site.links.expires_at(NOON) - 1
    assert (await site.ask("GET", target)).status == 200
    site.jobs.at += 1
    answer = await site.ask("GET", target)
    assert (answer.status, answer.json["code"]) == (410, "link_expired")


async def test_erased_image_is_404(site: Site) -> None:
    """A good link to what was deleted finds nothing."""
    target = await linked(site)
    await site.blobs.delete(KEY.rpartition("/")[0])
    assert (await site.ask("GET", target)).status == 404


async def test_link_holds_below_prefix(site: Site) -> None:
    """Mounted below a prefix, a link is as good."""
    target = "/api/images" + await linked(site)
    assert (await site.ask("GET", target, root="/api/images")).status == 200


async def test_hashes_are_bounded(site: Site) -> None:
    """One hash more than may be remembered forgets the oldest; it is then made again."""
    calls = FileCalls(site.blobs, site.parts.copies, site.links, site.jobs.now, most=1)
    for key in (KEY, THUMB, KEY):
        answer = await site.direct(calls.file, await linked(site, key), key=key).done()
        assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'


async def lasting(site: Site, key: str = KEY) -> str:
    """Store an image and return the target of its durable link."""
    await site.blobs.put(key, DATA)
    return site.links.durable(key).removeprefix(URL)


async def test_durable_link_brings_bytes(site: Site) -> None:
    """A durable link brings the image at any time, for every cache to keep."""
    target = await lasting(site)
    site.jobs.at += 10**12
    for more in ("", "?download=1"):
        answer = await site.ask("GET", target + more)
        assert (answer.status, answer.body) == (200, DATA)
        assert answer.headers["cache-control"] == "public, max-age=86400, immutable"
    assert answer.headers["content-disposition"].startswith("attachment;")
    tag = answer.headers["etag"]
    again = await site.ask("GET", target, ("If-None-Match", tag))
    assert (again.status, again.headers["cache-control"]) == (304, "public, max-age=86400, immutable")
    assert (await site.ask("HEAD", target)).headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize("condition", ["*", None])
async def test_deleted_image_is_no_longer_known(site: Site, condition: str | None) -> None:
    """Who still has an image is not told that it holds: once it is deleted, its tag is 404 too."""
    target = await lasting(site)
    tag = (await site.ask("GET", target)).headers["etag"]
    await site.blobs.delete(KEY.rpartition("/")[0])
    again = await site.ask("GET", target, ("If-None-Match", condition or tag))
    assert (again.status, again.json["code"]) == (404, "not_found")


async def test_altered_durable_link_is_refused(site: Site) -> None:
    """A durable link altered at any letter is 403, and so is one to what was never there."""
    target = await lasting(site)
    others = [
        target.replace(uuid(1), uuid(2)),
        target.replace(KEY, THUMB),
        target.replace("/0.png/", "/1.png/"),
    ]
    for place in range(len("/files/"), len(target)):
        others += [target[:place] + c + target[place + 1 :] for c in "A0_/%" if c != target[place]]
    others += [
        target[:-4],
        target + "/",
        target[:-4] + ".webp",
        target + "?x=1",
        target + "?download=",
        target + "?",
    ]
    answers = [await site.ask("GET", other) for other in others]
    assert {(answer.status, answer.json["code"]) for answer in answers[:-1]} == {(403, "link_invalid")}
    bodies = [{**answer.json, "request_id": "", "instance": ""} for answer in answers[:-1]]
    assert all(body == bodies[0] for body in bodies)
    assert answers[-1].status == 200


async def test_durable_link_dies_with_blobs(site: Site) -> None:
    """When a job's images go, their durable links find nothing."""
    target = await lasting(site)
    await site.blobs.delete(KEY.rpartition("/")[0])
    assert (await site.ask("GET", target)).status == 404


class Elsewhere(FolderBlobs):
    """Blobs with addresses of their own."""

    async def get_url(self, key: str, seconds: int, *, attach: bool = False) -> str | None:
        """Return an address that says for how long it was asked."""
        return None if attach else f"https://bucket.example/{key}?seconds={seconds}"


def moved(site: Site, blobs: FolderBlobs) -> Site:
    """Return a site whose images are kept in another place from now on."""
    site.blobs = blobs
    return site.rebuilt(blobs=blobs, copies=Copies(blobs, site.studio))


@pytest.fixture
def away(site: Site, tmp_path: Path) -> Site:
    """A site whose images are served from elsewhere."""
    return moved(site, Elsewhere(tmp_path / "elsewhere"))


async def test_readers_are_sent_elsewhere(away: Site) -> None:
    """Where images have addresses, a link leads to a fresh one that outlives its own memory in caches."""
    signed, durable = await linked(away), away.links.durable(KEY).removeprefix(URL)
    for target, later, seconds in (
        (signed, 0, 600),
        (signed, 590, 60),
        (durable, 0, 900),
        (durable, 10**8, 900),
    ):
        away.jobs.at = NOON + later * 1000
        answer = await away.ask("GET", target)
        assert (answer.status, answer.body) == (302, b"")
        assert answer.headers["location"] == f"https://bucket.example/{KEY}?seconds={seconds}"
        assert answer.headers["cache-control"] == f"private, max-age={seconds // 3}"
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_some_answers_stay_here(away: Site) -> None:
    """HEAD, a download under our name and a missing image are answered here, whoever keeps images."""
    target = await linked(away)
    assert (await away.ask("HEAD", target)).headers["content-length"] == str(len(DATA))
    assert (await away.ask("GET", target + "&download=1")).body == DATA
    await away.blobs.delete(KEY.rpartition("/")[0])
    assert (await away.ask("GET", target)).status == 404
    assert (await away.ask("GET", target.replace("sig=", "sig=A"))).status == 403


PICTURE = picture("png", 640, 480)


def links_of(site: Site, key: str) -> tuple[str, str]:
    """Return the targets of both links to a key: signed and durable."""
    return site.links.make(key, NOON).removeprefix(URL), site.links.durable(key).removeprefix(URL)


async def test_copy_is_made_when_asked(site: Site) -> None:
    """The first who opens a link to a copy gets it made, by either link; then it is there."""
    signed, durable = links_of(site, THUMB)
    await site.blobs.put(KEY, PICTURE)
    assert await site.blobs.size(THUMB) is None
    head = await site.ask("HEAD", durable)
    made = await site.blobs.read(THUMB)
    assert made == thumb(PICTURE)
    assert (head.status, head.headers["content-length"]) == (200, str(len(made)))
    answer = await site.ask("GET", signed)
    assert (answer.body, answer.headers["content-type"]) == (made, "image/webp")
    assert (await site.ask("GET", durable, ("If-None-Match", answer.headers["etag"]))).status == 304


async def test_copies_may_be_cleared(site: Site) -> None:
    """A copy that was removed to save space is made again, the same, also for those who know its tag."""
    signed, _ = links_of(site, THUMB)
    await site.blobs.put(KEY, PICTURE)
    tag = (await site.ask("GET", signed)).headers["etag"]
    site.blobs.path(THUMB).unlink()
    assert (await site.ask("GET", signed, ("If-None-Match", tag))).status == 304
    assert await site.blobs.read(THUMB) == thumb(PICTURE)


async def test_copies_are_made_elsewhere_too(away: Site) -> None:
    """Where images have addresses, nobody is sent to a copy's before the copy is there."""
    await away.blobs.put(KEY, PICTURE)
    for key in (THUMB, THUMB.replace("thumb", "full")):
        answer = await away.ask("GET", links_of(away, key)[1])
        assert answer.headers["location"] == f"https://bucket.example/{key}?seconds=900"
        assert await away.blobs.size(key) is not None


@pytest.mark.parametrize("data", [None, PICTURE[:99]], ids=["gone", "broken"])
@pytest.mark.parametrize("place", [FolderBlobs, Elsewhere])
async def test_no_picture_no_copy(
    site: Site, tmp_path: Path, place: type[FolderBlobs], data: bytes | None
) -> None:
    """A good link to a copy of what is gone, or decodes no more, finds nothing and leaves nothing."""
    moved(site, place(tmp_path / "place"))
    if data is not None:
        await site.blobs.put(KEY, data)
    for target in links_of(site, THUMB):
        answer = await site.ask("GET", target)
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert await site.blobs.size(THUMB) is None


async def test_bad_links_make_no_copy(site: Site) -> None:
    """Who has the link to an image has none to its copies: an altered link makes none."""
    await site.blobs.put(KEY, PICTURE)
    for target in links_of(site, KEY):
        answer = await site.ask("GET", target.replace("/0.png", "/0.thumb.webp"))
        assert (answer.status, answer.json["code"]) == (403, "link_invalid")
    assert await site.blobs.size(THUMB) is None
