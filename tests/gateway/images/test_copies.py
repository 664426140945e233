"""Copies: nothing of a file but its pixels is handed on, and no bytes break the making."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from gateway.images import Picture, Studio, clean, inspect, mask, retouch, thumb, webp, whiten
from tests.gateway.images.test_inspect import GOOD, OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = {name: good[0] for name, good in GOOD.items()}
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "clean": clean,
    "webp": webp,
    "thumb": thumb,
    "mask": lambda data: mask(data, (20, 10), "clear"),
    "retouch": lambda data: retouch("an owl", [data], None, (64, 64), 1),
    "retouch inside": lambda data: retouch("an owl", [WHOLE["png"]], data, (64, 64), 1),
}
SECRET = b"where I live"


def opened(data: bytes) -> Image.Image:
    """Return a picture, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def described(kind: str, orientation: int = 1, exif: bytes | None = None) -> bytes:
    """Return a picture of 4 colors that says where it was made in every way its format has."""
    camera = Image.Exif()
    camera[0x010E], camera[0x0112] = SECRET.decode(), orientation
    options: dict[str, Any] = {"exif": exif or camera, "icc_profile": SECRET}
    if kind == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
        text.add_text("Comment", SECRET.decode(), zip=True)
        options["pnginfo"] = text
    else:
        options |= {"xmp": SECRET, "quality": 95} | ({"comment": SECRET} if kind == "jpeg" else {})
    picture = Image.new("RGB", (64, 32), "red")
    picture.paste("lime", (32, 0, 64, 16))
    picture.paste("blue", (0, 16, 32, 32))
    picture.paste("white", (32, 16, 64, 32))
    out = io.BytesIO()
    picture.save(out, kind.upper(), **options)
    return out.getvalue()


def corners(data: bytes) -> str:
    """Return the letters of a picture's quarters, row by row, as they are stored."""
    image = opened(data).convert("RGB").resize((2, 2), Image.Resampling.NEAREST)
    raw = image.point(lambda value: 255 if value > 127 else 0).tobytes()
    letters = {b"\xff\0\0": "r", b"\0\xff\0": "g", b"\0\0\xff": "b", b"\xff\xff\xff": "w"}
    return "".join(letters[raw[at : at + 3]] for at in (0, 3, 6, 9))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, "rgbw"),
        (2, "grwb"),
        (3, "wbgr"),
        (4, "bwrg"),
        (5, "rbgw"),
        (6, "brwg"),
        (7, "wgbr"),
        (8, "gwrb"),
        (9, "rgbw"),
    ],
)
def test_pictures_stand_upright(kind: str, orientation: int, expected: str) -> None:
    """A picture is turned as its EXIF says, since what comes after knows nothing of that."""
    data = described(kind, orientation)
    turned = (32, 64) if orientation in {5, 6, 7, 8} else (64, 32)
    for copy in (clean(data), webp(data), thumb(data)):
        assert corners(copy) == expected
        assert opened(copy).size == turned


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_nothing_but_pixels_stays(kind: str) -> None:
    """EXIF, XMP, ICC, texts, comments and what follows the end are gone from every copy; the format stays."""
    data = described(kind) + b"PK\x03\x04" + SECRET
    for copy in (clean(data), webp(data), thumb(data)):
        assert SECRET not in copy
        found = opened(copy)
        assert not {"exif", "xmp", "icc_profile", "comment", "Comment"} & set(found.info)
        assert dict(found.getexif()) == {}
    assert opened(clean(data)).format == kind.upper()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_broken_exif_turns_nothing(kind: str) -> None:
    """EXIF that cannot be read leaves a picture as it lies; it is no reason to refuse it."""
    data = described(kind, exif=b"Exif\0\0\x13\x37 is no byte order")
    assert corners(clean(data)) == "rgbw"
    assert b"byte order" in data
    assert b"byte order" not in clean(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_loses_no_pixel(mode: str) -> None:
    """A PNG of 8 bits has the same pixels afterwards, see-through ones too."""
    picture = Image.linear_gradient("L").rotate(45).convert(mode)
    if mode in {"LA", "RGBA"}:
        picture.putalpha(Image.linear_gradient("L"))
    out = io.BytesIO()
    picture.save(out, "PNG", **({"transparency": 7} if mode == "P" else {}))
    form = "RGBA" if mode in {"LA", "RGBA", "P"} else "RGB"
    cleaned = opened(clean(out.getvalue()))
    assert cleaned.mode == form
    assert cleaned.tobytes() == opened(out.getvalue()).convert(form).tobytes()


def test_deep_gray_is_scaled() -> None:
    """Sixteen bits a sample become eight in proportion: a gray ramp stays one, in thumbs too."""
    ramp = Image.new("I;16", (256, 4))
    for x in range(256):
        for y in range(4):
            ramp.putpixel((x, y), x * 257)
    out = io.BytesIO()
    ramp.save(out, "PNG")
    for make in (clean, webp, thumb):
        row = opened(make(out.getvalue())).convert("L").crop((0, 1, 256, 2)).tobytes()
        assert all(abs(value - x) <= 4 for x, value in enumerate(row))


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_webp_copies_keep_the_size(data: bytes) -> None:
    """Whatever is delivered has a WebP copy of its own size, see-through where it was."""
    copy = webp(data)
    assert inspect(copy) == Picture("image/webp", 40, 30, "webp")
    alphas = [opened(each).convert("RGBA").getchannel("A").tobytes() for each in (copy, data)]
    assert alphas[0] == alphas[1]


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_same_bytes_same_copy(make: Callable[[bytes], bytes], data: bytes) -> None:
    """Every good picture has every copy, and always the same one."""
    first = make(data)
    assert isinstance(inspect(first), Picture)
    assert make(data) == first


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_no_copy_of_other_bytes(make: Callable[[bytes], bytes], data: bytes) -> None:
    """What `inspect` refuses has no copy either, and the error is a plain one."""
    with pytest.raises(ValueError, match=r"^(not a PNG|no sound|dimensions|two headers|more than|does not)"):
        make(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_a_plain_error(data: st.DataObject) -> None:
    """Whatever bytes of a picture are altered or cut off, a copy comes of it or a `ValueError`."""
    raw = bytearray(data.draw(st.sampled_from([*WHOLE.values(), described("png"), described("jpeg", 6)])))
    changes = st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)
    for at, byte in data.draw(changes):
        raw[at] = byte
    make = data.draw(st.sampled_from([clean, webp, thumb, whiten, WAYS["mask"], WAYS["retouch"]]))
    whole = bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        made = make(whole)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either way is right
    else:
        assert isinstance(inspect(made), Picture)


async def test_studio_makes_every_copy() -> None:
    """The studio gives on its threads what the functions give."""
    studio = Studio(threads=2)
    data, hole = WHOLE["png"], WHOLE["png with alpha"]
    assert await studio.clean(data) == clean(data)
    assert await studio.webp(data) == webp(data)
    assert await studio.thumb(data) == thumb(data)
    assert await studio.mask(data, (9, 9), "white") == mask(data, (9, 9), "white")
    assert await studio.whiten(hole) == whiten(hole)
    made = await studio.retouch("an owl", [data], data, (32, 32), 7, "auto", "webp")
    assert made == retouch("an owl", [data], data, (32, 32), 7, "auto", "webp")
    studio.close()
