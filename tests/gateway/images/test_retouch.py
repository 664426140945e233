"""The sandbox's edit: seen at once, the same for the same words, and only where the mask lets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from gateway.images import Picture, draw, inspect, retouch
from tests.gateway.images.test_copies import opened
from tests.gateway.images.test_masks import saved

if TYPE_CHECKING:
    from policies.model import Format

SIZE = (320, 240)
INPUT = draw("a boat", SIZE, 1)
HOLE = Image.new("L", SIZE)
HOLE.paste(255, (160, 0, 320, 240))


def apart(one: Image.Image, other: Image.Image) -> float:
    """Return how far two pictures are from each other, 0 to 255 a pixel."""
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("size", [(16, 16), (160, 90), (90, 160), (640, 640)])
def test_edits_are_what_was_asked(encoding: Format, size: tuple[int, int]) -> None:
    """An edit decodes, in the format and the size that were asked for, whatever its input's."""
    made = inspect(retouch("an owl", [INPUT], None, size, 1, "auto", encoding))
    assert isinstance(made, Picture)
    assert (made.media_type, made[1:3]) == (f"image/{encoding}", size)


def test_edits_are_seen() -> None:
    """An edit differs from its input at a glance, and by words, seed and further inputs."""
    first = retouch("an owl at night", [INPUT], None, SIZE, 1)
    assert apart(opened(first), opened(INPUT)) > 12
    others = [
        retouch("a desert at noon", [INPUT], None, SIZE, 1),
        retouch("an owl at night", [INPUT, INPUT], None, SIZE, 1),
        retouch("an owl at night", [INPUT] * 3, None, SIZE, 1),
        retouch("an owl at night", [draw("a fox", SIZE, 2)], None, SIZE, 1),
    ]
    assert len({first, *others}) == 5
    assert len({retouch("an owl at night", [INPUT], None, SIZE, seed) for seed in range(4)}) == 4


def test_mask_bounds_the_edit() -> None:
    """Outside the mask every pixel stays as it came; inside it changes."""
    before, after = opened(INPUT), opened(retouch("an owl at night", [INPUT], saved(HOLE), SIZE, 1))
    left, right = (0, 0, 160, 240), (160, 0, 320, 240)
    assert after.crop(left).tobytes() == before.crop(left).tobytes()
    assert apart(after.crop(right), before.crop(right)) > 12


def test_mask_follows_the_cut() -> None:
    """Where the picture is cut to another ratio, the mask is cut with it."""
    before = opened(retouch("an owl", [INPUT], saved(Image.new("L", SIZE)), (240, 240), 1))
    after = opened(retouch("an owl", [INPUT], saved(HOLE), (240, 240), 1))
    assert after.crop((0, 0, 119, 240)).tobytes() == before.crop((0, 0, 119, 240)).tobytes()
    assert apart(after.crop((121, 0, 240, 240)), before.crop((121, 0, 240, 240))) > 12


@pytest.mark.parametrize(
    ("background", "encoding", "corner"),
    [("transparent", "png", 0), ("transparent", "webp", 0), ("auto", "png", 255), ("opaque", "webp", 255)],
)
def test_see_through_inputs(background: str, encoding: str, corner: int) -> None:
    """A see-through input stays so where that was asked for, and else lies on white."""
    clear = draw("an owl", (200, 200), 1, "transparent")
    for hole in (None, saved(Image.new("L", (200, 200), 255))):
        made = retouch("a boat", [clear, clear], hole, (200, 200), 1, background, encoding)  # type: ignore[arg-type]
        picture = opened(made).convert("RGBA")
        assert picture.getpixel((0, 199))[3] == corner  # type: ignore[index]
        assert picture.getpixel((100, 60))[3] == 255  # type: ignore[index]


@given(st.text(st.characters(), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_prompt_edits(prompt: str, count: int, seed: int) -> None:
    """No text and no number of inputs breaks the edit."""
    assert isinstance(inspect(retouch(prompt, [INPUT] * count, None, (176, 176), seed)), Picture)
