"""Hostile bytes: only whole pictures of three kinds pass, and none makes the process large."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from gateway.images import NotAnImage, Picture, Studio, inspect, thumb
from gateway.images.headers import Kind, measure, sniff


def _encoded(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    picture = Image.linear_gradient("L").resize(size).convert(mode)
    ImageDraw.Draw(picture).line((0, 0, *size))
    out = io.BytesIO()
    picture.save(out, kind.upper(), **options)
    return out.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_header(width: int, height: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _png_claiming(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims any size and whose data unpacks to a megabyte of zeros."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_header(width, height)
        + _chunk(b"IDAT", zlib.compress(bytes(2**20)))
        + _chunk(b"IEND", b"")
    )


def _webp_claiming(width: int, height: int) -> bytes:
    frame = _encoded("webp", lossless=True)[12:]
    canvas = (
        struct.pack("<4sI4x", b"VP8X", 10)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    body = b"WEBP" + canvas + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = _encoded("jpeg")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def _animated(kind: str) -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=100, loop=0)
    return out.getvalue()


GOOD = {
    "png": (_encoded("png"), "image/png", "png"),
    "png with alpha": (_encoded("png", mode="RGBA"), "image/png", "png"),
    "png with a palette": (_encoded("png", mode="P"), "image/png", "png"),
    "png of 16 bits": (_encoded("png", mode="I;16"), "image/png", "png"),
    "jpeg": (_encoded("jpeg"), "image/jpeg", "jpg"),
    "progressive jpeg": (_encoded("jpeg", progressive=True), "image/jpeg", "jpg"),
    "cmyk jpeg": (_encoded("jpeg", mode="CMYK"), "image/jpeg", "jpg"),
    "webp": (_encoded("webp"), "image/webp", "webp"),
    "lossless webp": (_encoded("webp", lossless=True), "image/webp", "webp"),
    "extended webp": (_encoded("webp", mode="RGBA", exif=Image.Exif()), "image/webp", "webp"),
}


@pytest.mark.parametrize(("data", "media_type", "ext"), GOOD.values(), ids=GOOD)
def test_whole_pictures_pass(data: bytes, media_type: str, ext: str) -> None:
    """Every form of the three kinds is measured and named by its own bytes."""
    assert inspect(data) == Picture(media_type, 40, 30, ext)


@pytest.mark.parametrize("data", [good[0] for good in GOOD.values()], ids=GOOD)
def test_truncated_pictures_are_refused(data: bytes) -> None:
    """A picture cut anywhere but in its closing bytes is refused, whatever its header says."""
    for keep in range(0, len(data) - 24, max(len(data) // 40, 1)):
        assert isinstance(inspect(data[:keep]), NotAnImage), keep


OTHERS = {
    "nothing": b"",
    "a gif": _encoded("gif"),
    "a bmp": _encoded("bmp"),
    "a tiff": _encoded("tiff"),
    "an svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a page": b"<!doctype html><script>alert(1)</script>",
    "a page before a picture": b"<script>alert(1)</script>" + GOOD["png"][0],
    "a gif before a picture": b"GIF89a" + GOOD["png"][0],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a sound in the same container": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "a magic and no more": b"\x89PNG\r\n\x1a\n",
    "a magic before a page": b"\x89PNG\r\n\x1a\n<script>alert(1)</script>" + bytes(64),
    "jpeg bytes in a webp's name": b"RIFF\x99\x00\x00\x00WEBP" + GOOD["jpeg"][0],
    "a jpeg that is a page": b"\xff\xd8\xff<script>alert(1)</script>",
    "two headers that differ": GOOD["png"][0][:33] + _png_header(50, 50) + GOOD["png"][0][33:],
    "many frames of png": _animated("PNG"),
    "many frames of webp": _animated("WEBP"),
    "a bomb of text": GOOD["png"][0][:33]
    + _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26)))
    + GOOD["png"][0][33:],
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_everything_else_is_refused(data: bytes) -> None:
    """What does not begin as one of the three kinds and decode as it is no image."""
    assert isinstance(inspect(data), NotAnImage)


@pytest.mark.parametrize("make", [_png_claiming, _webp_claiming, _jpeg_claiming])
@pytest.mark.parametrize(
    "size", [(16_000, 16_000), (8_000, 8_000), (16_385, 1), (1, 16_385), (65_000, 65_000)]
)
def test_bombs_are_refused_by_header(make: Any, size: tuple[int, int]) -> None:
    """A file of a few bytes that claims too many pixels is refused before anything decodes it."""
    assert inspect(make(*size)) == NotAnImage("dimensions out of bounds")


@pytest.mark.parametrize("make", [_png_claiming, _webp_claiming])
def test_claims_beyond_data_are_refused(make: Any) -> None:
    """A file that claims more pixels than it holds, within bounds, does not decode."""
    assert isinstance(inspect(make(3_000, 3_000)), NotAnImage)


@pytest.mark.parametrize(
    "data",
    [
        GOOD["png"][0][:33] + _chunk(b"prIv", b"") * 400_000 + GOOD["png"][0][33:],
        GOOD["png"][0][:-12] + _chunk(b"prIv", b"") * 400_000 + GOOD["png"][0][-12:],
        GOOD["jpeg"][0][:2] + b"\xff\xfe\x00\x02" * 400_000 + GOOD["jpeg"][0][2:],
        GOOD["jpeg"][0][:-2].replace(b"\xff\xda", b"\xff\xfe\x00\x02" * 400_000 + b"\xff\xda"),
        GOOD["jpeg"][0][:2] + b"\xff" * 4_000_000 + GOOD["jpeg"][0][2:],
        GOOD["jpeg"][0][:2] + b"\xff\xd0" * 1_000_000 + GOOD["jpeg"][0][2:],
        GOOD["progressive jpeg"][0][:-2]
        + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00\x00" * 257
        + b"\xff\xd9",
    ],
    ids=["chunks", "late chunks", "segments", "late segments", "fill", "markers", "scans"],
)
def test_a_million_pieces_are_refused(data: bytes) -> None:
    """A file in more pieces than any picture has is refused before a decoder walks them."""
    assert inspect(data) == NotAnImage("no sound header")


def test_zero_pixels_are_refused() -> None:
    """A header may name no side of zero."""
    assert inspect(_png_claiming(0, 9)) == NotAnImage("dimensions out of bounds")


def test_bytes_after_the_end_keep_the_type() -> None:
    """A picture that goes on as a page or an archive is the picture it begins as, under that type."""
    tail = b"PK\x03\x04<script>alert(1)</script>"
    assert [inspect(GOOD[k][0] + tail) for k in ("png", "jpeg")] == [
        inspect(GOOD[k][0]) for k in ("png", "jpeg")
    ]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_never_escapes(data: st.DataObject) -> None:
    """Whatever bytes of a good picture are altered, the answer is a value."""
    raw = bytearray(data.draw(st.sampled_from([good[0] for good in GOOD.values()])))
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)
    ):
        raw[at] = byte
    assert isinstance(inspect(bytes(raw)), Picture | NotAnImage)


@given(st.sampled_from(Kind), st.binary(max_size=60))
def test_headers_are_read_within_bounds(kind: Kind, data: bytes) -> None:
    """Measuring any bytes ends, and gives two sizes or none."""
    start = {Kind.PNG: b"\x89PNG\r\n\x1a\n", Kind.JPEG: b"\xff\xd8\xff", Kind.WEBP: b"RIFF\0\0\0\0WEBP"}[kind]
    assert sniff(start + data) is kind
    size = measure(kind, start + data)
    assert size is None or (size[0] >= 0 and size[1] >= 0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 1024), (320, 320)), ((1536, 864), (320, 180)), ((864, 1536), (180, 320)), ((40, 30), (40, 30))],
)
def test_thumbs_fit_their_square(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """A thumb is WebP, keeps the ratio, has a long side of at most 320, and never grows."""
    assert inspect(thumb(_encoded("png", size))) == Picture("image/webp", *expected, "webp")


@pytest.mark.parametrize("data", [good[0] for good in GOOD.values()], ids=GOOD)
def test_every_picture_has_a_thumb(data: bytes) -> None:
    """Whatever `inspect` passes can be made smaller."""
    assert isinstance(inspect(thumb(data)), Picture)


@pytest.mark.parametrize("size", [(16_000, 2), (3, 9_000), (1_500, 1_400)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_large_pictures_have_thumbs(mode: str, size: tuple[int, int]) -> None:
    """A large picture is made small in whatever way its pixels are written."""
    made = inspect(thumb(_encoded("png", size, mode)))
    assert isinstance(made, Picture)
    assert max(made.width, made.height) == 320


def test_thumbs_keep_what_is_seen_only() -> None:
    """A thumb keeps see-through pixels and drops metadata."""
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    clear = io.BytesIO()
    Image.new("RGBA", (400, 400), (255, 0, 0, 0)).save(clear, "PNG", exif=exif)
    small = thumb(clear.getvalue())
    assert b"where I live" not in small
    assert Image.open(io.BytesIO(small)).convert("RGBA").getpixel((9, 9))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("data", [b"", b"GIF89a", _png_claiming(65_500, 65_500)])
def test_no_thumb_of_other_bytes(data: bytes) -> None:
    """What is no picture is told as `inspect` tells it, and nothing is made of it."""
    found = inspect(data)
    assert isinstance(found, NotAnImage)
    with pytest.raises(ValueError, match=found.reason):
        thumb(data)


async def test_studio_works_on_threads() -> None:
    """The studio gives the same answers from its threads, and refuses work once closed."""
    studio = Studio(threads=2)
    data = await studio.draw("a quiet lake", (64, 48), 7, "auto", "webp")
    assert await studio.inspect(data) == Picture("image/webp", 64, 48, "webp")
    assert await studio.thumb(data) == thumb(data)
    studio.close()
    studio.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await studio.inspect(data)
