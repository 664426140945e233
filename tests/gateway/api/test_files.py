"""Images by signed link: the link alone decides, and every altered byte of it counts."""

from __future__ import annotations

import hashlib

import pytest

from gateway.api.files import PIECE, FileCalls
from policies import ids
from tests.fakes.jobs import NOON, uuid
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
    calls = FileCalls(site.blobs, site.links, site.jobs.now, most=1)
    for key in (KEY, THUMB, KEY):
        answer = await site.direct(calls.file, await linked(site, key), key=key).done()
        assert answer.headers["etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
