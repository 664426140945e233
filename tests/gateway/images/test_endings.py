"""Where pictures end: what other programs write ends at its end, and whatever is hung behind is seen."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.images.endings import MOST_JPEGS, ends
from tests.fakes.pictures import picture, png

KINDS = ("png", "jpeg", "webp")
MPF = b"\xff\xe2\x00\x0aMPF\0II*\0"


def archive() -> bytes:
    """Return a ZIP file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("page.html", "<script>alert(1)</script>")
    return out.getvalue()


def saved(kind: str, **how: object) -> bytes:
    """Return a noisy picture as Pillow writes it."""
    out = io.BytesIO()
    Image.effect_noise((97, 61), 90).convert("RGB").save(out, kind, **how)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        *(picture(kind, 40, 30) for kind in KINDS),
        *(saved(kind) for kind in KINDS),
        saved("jpeg", progressive=True, optimize=True),
        saved("jpeg", restart_marker_blocks=1),
        saved("jpeg", comment=b"a comment with \xff\xd9 in it"),
        saved("webp", lossless=True),
        saved("webp", exif=Image.Exif()),
    ],
    ids=range(11),
)
def test_plain_pictures_end_there(data: bytes) -> None:
    """A picture as programs write it is nothing but a picture."""
    assert ends(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tail", [b"\0", b"\n", b"<html></html>", archive(), png(8, 8), b"\xff\xd8\xff\xd9", b"\xff" * 9]
)
def test_tails_are_seen(kind: str, tail: bytes) -> None:
    """A byte more than the picture, or a whole other file, is something behind it."""
    assert not ends(picture(kind, 40, 30) + tail)


@pytest.mark.parametrize("kind", KINDS)
def test_half_pictures_end_nowhere(kind: str) -> None:
    """A file that stops before its picture does has no end."""
    data = picture(kind, 40, 30)
    assert not any(ends(data[:size]) for size in range(len(data)))


def test_announced_pictures_may_follow() -> None:
    """A JPEG that says it holds several may hold a few, and nothing else behind them."""
    one = saved("jpeg")
    first = one[:2] + MPF + one[2:]
    assert ends(first)
    assert ends(first + one)
    assert ends(first + b"\0\0\0" + one + one)
    assert not ends(one + one)
    assert not ends(first + one + b"PK")
    assert not ends(first + b"PK" + one)
    assert not ends(first + one[:-2])
    assert not ends(first + one * (MOST_JPEGS + 1))


@pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x08\0\0\0WEBP"])
@given(rest=st.binary(max_size=200))
def test_any_bytes_are_judged(head: bytes, rest: bytes) -> None:
    """Whatever comes, the answer is yes or no."""
    assert ends(head + rest) in (True, False)


def test_endless_parts_are_given_up() -> None:
    """A file of a million pieces is no picture to its end."""
    assert not ends(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0aaaa\0\0\0\0" * 100_000)
    assert not ends(b"\xff\xd8" + b"\xff\xfe\0\x02" * 100_000 + b"\xff\xd9")
