"""The sandbox's picture: real, repeatable, the size that was asked for, and any prompt may come."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.images import Picture, inspect
from gateway.images.caption import caption, printable
from gateway.images.draw import draw
from gateway.images.palette import LANDS, MOODS, Setting, choose
from gateway.images.scene import landscape

if TYPE_CHECKING:
    from policies.model import Format


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("size", [(16, 16), (160, 90), (90, 160), (320, 320)])
def test_pictures_are_what_was_asked(encoding: Format, size: tuple[int, int]) -> None:
    """A picture decodes, in the format and the size that were asked for."""
    made = inspect(draw("a boat", size, 1, "auto", encoding))
    assert isinstance(made, Picture)
    assert made.media_type == f"image/{encoding}"
    assert made[1:3] == size


def test_same_words_same_picture() -> None:
    """A prompt and seed always draw the same bytes, and another of either draws others."""
    first = draw("an owl", (96, 96), 1)
    assert draw("an owl", (96, 96), 1) == first
    assert draw("an owl", (96, 96), 2) != first
    assert draw("two owls", (96, 96), 1) != first


@pytest.mark.parametrize(("encoding", "corner"), [("png", 0), ("webp", 0), ("jpeg", 255)])
def test_transparency_where_the_format_has_it(encoding: Format, corner: int) -> None:
    """A transparent picture is see-through at its corners and solid inside; a JPEG is solid all over."""
    picture = _opened(draw("an owl", (200, 200), 1, "transparent", encoding)).convert("RGBA")
    alpha = picture.getchannel("A")
    assert alpha.getpixel((0, 0)) == corner
    assert alpha.getpixel((100, 60)) == 255


@pytest.mark.parametrize("background", ["auto", "opaque"])
def test_other_backgrounds_are_solid(background: Literal["auto", "opaque"]) -> None:
    """Without a wish for transparency a picture has no alpha channel."""
    assert _opened(draw("an owl", (64, 64), 1, background)).mode == "RGB"


@pytest.mark.parametrize("mood", MOODS, ids=lambda mood: mood.words)
@pytest.mark.parametrize("land", LANDS)
@pytest.mark.parametrize("water", [True, False])
def test_every_setting_draws(mood: object, land: str, water: bool) -> None:  # noqa: FBT001 - a column
    """Each mood, land and water makes a picture with light and dark in it."""
    setting = Setting(mood, land, water)  # type: ignore[arg-type]
    low, high = landscape(setting, 64, 96, random.Random(3)).convert("L").getextrema()
    assert high - low > 60  # type: ignore[operator]


@pytest.mark.parametrize(
    ("prompt", "word", "land", "water"),
    [
        ("a red fox in the snow", "winter", "forest", None),
        ("A LIGHTHOUSE at dusk", "dusk", None, True),
        ("a whale under the moon", "night", None, True),
        ("desert at night", "night", "dunes", None),
    ],
)
def test_words_choose_the_scene(prompt: str, word: str, land: str | None, water: object) -> None:
    """Words that name a light win over things seen in it; land and water follow their own words."""
    setting = choose(prompt, random.Random(1))
    assert word in setting.mood.words.split()
    assert land in (None, setting.land)
    assert water in (None, setting.water)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  fox\n in\tsnow ", "a fox in snow"),
        ("Köln, smørrebrød — ¿qué?", "Koln, smorrebrod - …que?"),
        ("camel 🐫 in Жизнь и desert", "camel … in … desert"),
        ("“quoted” «so»…", "“quoted” «so»..."),
        ("雪地里的狐狸", "a prompt of 6 characters"),
        ("🐫", "a prompt of 1 characters"),
        ("\ud800 x", "… x"),
    ],
)
def test_captions_hold_printable_letters(text: str, shown: str) -> None:
    """Accents come off, and what the font lacks is an ellipsis or a count, never an empty box."""
    assert printable(text) == shown


@given(st.text(st.characters(), min_size=1, max_size=200), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_prompt_draws(prompt: str, seed: int) -> None:
    """No text breaks the drawing."""
    assert isinstance(inspect(draw(prompt, (176, 176), seed)), Picture)


@pytest.mark.parametrize("prompt", ["word " * 6_000, "x" * 30_000, "W", "a" * 40 + " b"])
def test_long_prompts_stay_inside(prompt: str) -> None:
    """However long a prompt, its caption keeps a margin on all sides."""
    picture = Image.new("RGB", (400, 300), (90, 160, 200))
    caption(picture, prompt, "note")
    sky, margin = (90, 160, 200), 13
    edges = [(0, 0, 400, 40), (0, 0, margin, 300), (400 - margin, 0, 400, 300), (0, 300 - margin, 400, 300)]
    assert all(
        picture.crop(edge).getcolors() == [(area, sky)]
        for edge in edges
        for area in [(edge[2] - edge[0]) * (edge[3] - edge[1])]
    )
    assert len(picture.getcolors(200_000) or []) > 10


def test_tiny_pictures_have_no_caption() -> None:
    """Where type cannot be read none is set."""
    picture = Image.new("RGB", (120, 400), (9, 9, 9))
    caption(picture, "an owl", "note")
    assert picture.getcolors() == [(120 * 400, (9, 9, 9))]
