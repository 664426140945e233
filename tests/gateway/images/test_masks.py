"""Masks: one meaning in every polarity, two values, the size of the picture they lie on."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.images import mask, whiten
from tests.gateway.images.test_copies import opened


def saved(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """Return a picture's bytes."""
    out = io.BytesIO()
    image.save(out, kind.upper(), **options)
    return out.getvalue()


def ours(size: tuple[int, int] = (8, 8)) -> Image.Image:
    """Return a mask whose left half changes."""
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    return image


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_white_changes_in_any_file(kind: str, mode: str) -> None:
    """White is what changes, however it is written: a hole upstreams that want one, white for the others."""
    if kind == "jpeg" and mode in {"RGBA", "P"}:
        mode = "RGB"
    options = {} if kind == "png" else {"quality": 95}
    data = saved(ours((32, 32)).convert(mode), kind, **options)
    hole = opened(mask(data, (32, 32), "clear"))
    assert (hole.format, hole.mode) == ("PNG", "RGBA")
    assert [hole.getchannel("A").getpixel((x, 9)) for x in (0, 15, 16, 31)] == [0, 0, 255, 255]
    white = opened(mask(data, (32, 32), "white"))
    assert (white.format, white.mode) == ("PNG", "L")
    assert [white.getpixel((x, 9)) for x in (0, 15, 16, 31)] == [255, 255, 0, 0]


@pytest.mark.parametrize(("gray", "changes"), [(0, False), (127, False), (128, True), (255, True)])
def test_gray_is_what_it_nears(gray: int, changes: bool) -> None:  # noqa: FBT001 - a column
    """There is no half a change: from the middle gray on a pixel changes."""
    data = saved(Image.new("L", (4, 4), gray))
    assert opened(mask(data, (4, 4), "white")).getextrema() == ((255, 255) if changes else (0, 0))


def test_see_through_stays() -> None:
    """In a mask of our form nothing is where nothing is painted: what is see-through stays as it is."""
    image = Image.new("RGBA", (4, 1), (255, 255, 255, 0))
    image.putpixel((1, 0), (255, 255, 255, 255))
    image.putpixel((2, 0), (0, 0, 0, 255))
    assert opened(mask(saved(image), (4, 1), "white")).tobytes() == b"\0\xff\0\0"


@pytest.mark.parametrize("size", [(4, 4), (16, 8), (1, 1), (1536, 1024)])
def test_masks_take_the_size(size: tuple[int, int]) -> None:
    """A mask comes in the size asked for, with no value between the two."""
    for polarity in ("clear", "white"):
        made = opened(mask(saved(ours((33, 7))), size, polarity)).convert("RGBA")
        assert made.size == size
        assert {value for _, value in made.getchannel("A").getcolors() or []} <= {0, 255}
        assert {value for _, value in made.getchannel("R").getcolors() or []} <= {0, 255}


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (16_385, 1), (16_000, 16_000)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    """A size that no picture has is refused before room is made for it."""
    with pytest.raises(ValueError, match="dimensions out of bounds"):
        mask(saved(ours()), size, "white")


@given(st.binary(min_size=12, max_size=12))
@settings(deadline=None)
def test_polarities_are_inverse(levels: bytes) -> None:
    """A mask turned to holes and back is the mask, pixel for pixel."""
    data = saved(Image.frombytes("L", (4, 3), levels))
    assert whiten(mask(data, (4, 3), "clear")) == mask(data, (4, 3), "white")


def test_only_holes_change() -> None:
    """Of a mask with holes, alpha 0 alone is a hole: what shows at all stays, whatever its color."""
    image = Image.new("RGBA", (4, 1), (255, 255, 255, 0))
    for x, alpha in enumerate((0, 1, 128, 255)):
        image.putpixel((x, 0), (255, 0, 9, alpha))
    made = opened(whiten(saved(image)))
    assert (made.mode, made.tobytes()) == ("L", b"\xff\0\0\0")


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_masks_without_holes_are_refused(mode: str) -> None:
    """A mask that cannot have holes says nothing in that form, and is not guessed at."""
    with pytest.raises(ValueError, match="a mask without transparency"):
        whiten(saved(ours().convert(mode)))


def test_palettes_may_have_holes() -> None:
    """A palette's see-through color is a hole like any other."""
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), 1)
    assert opened(whiten(saved(image, transparency=0))).tobytes() == b"\xff\0"


def test_large_masks_are_small_files() -> None:
    """A mask of a large picture stays far below the 4 MB that OpenAI takes."""
    ragged = Image.effect_noise((96, 96), 80)
    assert len(mask(saved(ragged), (3840, 2160), "clear")) < 200_000
