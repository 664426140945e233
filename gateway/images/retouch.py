"""The sandbox's edit: the picture that came, in the light its prompt asks for, with the prompt set on it.

A stand-in that shows what an edit would touch, made from nothing but the inputs, words and a seed: the first
input fills the picture, colored by the prompt's mood; the others lie on it as small prints. With a mask
only what is white in it changes, and every other pixel stays as it came.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageOps

from gateway.images.caption import caption
from gateway.images.copies import encoded
from gateway.images.draw import SAVE
from gateway.images.masks import white
from gateway.images.palette import choose, rgb
from gateway.images.reading import pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.model import Background, Format

_COLORED: Final = 0.72
_PRINTS: Final = 6  # as many small prints as fit on a line


def retouch(
    prompt: str,
    inputs: Sequence[bytes],
    hole: bytes | None,
    size: tuple[int, int],
    seed: int,
    background: Background = "auto",
    encoding: Format = "png",
) -> bytes:
    """Return an encoded edit of the first input; `hole` is a mask of our form and of that input's size.

    The input is cut to the ratio asked for, from its middle. `ValueError` for what `inspect` would not call
    a picture.
    """
    width, height = size
    first = pixels(inputs[0])[1]
    before = _fitted(first, size)
    after = _colored(before.convert("RGB"), prompt, seed)
    for at, data in enumerate(inputs[1 : 1 + _PRINTS]):
        _print(after, pixels(data)[1], at)
    if hole is None:
        _frame(after)
    caption(after, prompt, f"{width} x {height}  ·  seed {seed}  ·  edited by the Safelight sandbox")
    if before.mode == "RGBA":
        after.putalpha(before.getchannel("A"))
    if hole is not None:
        inside = white(hole).resize(first.size, Image.Resampling.NEAREST)
        after = Image.composite(after, before, _fitted(inside, size, Image.Resampling.NEAREST))
    if after.mode == "RGBA" and (background != "transparent" or encoding == "jpeg"):
        after = Image.alpha_composite(Image.new("RGBA", size, "white"), after).convert("RGB")
    return encoded(after, SAVE[encoding])


def _fitted(
    image: Image.Image, size: tuple[int, int], how: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """Return the middle of a picture in another size."""
    return ImageOps.fit(image, size, how)


def _colored(image: Image.Image, prompt: str, seed: int) -> Image.Image:
    """Return the picture in the colors of the prompt's mood, from its darkest to its lightest."""
    dice = random.Random(hashlib.sha256(f"{seed}\0{prompt}".encode("utf-8", "replace")).digest())  # noqa: S311 - a picture is no secret
    mood = choose(prompt, dice).mood
    light = ImageOps.colorize(
        ImageOps.grayscale(image), rgb(mood.near), rgb(mood.sky[3]), rgb(mood.sky[dice.choice((1, 2))])
    )
    return Image.blend(image, light, _COLORED)


def _print(picture: Image.Image, image: Image.Image, at: int) -> None:
    """Lay a small print with a white edge into the picture's upper part."""
    short = min(picture.size)
    side, gap, edge = max(short // 8, 1), short // 32, max(short // 200, 1)
    small = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
    corner = (gap + at * (side + gap), gap)
    ImageDraw.Draw(picture).rectangle(
        (corner[0] - edge, corner[1] - edge, corner[0] + side + edge - 1, corner[1] + side + edge - 1),
        fill="white",
    )
    picture.paste(small, corner, small if small.mode == "RGBA" else None)


def _frame(picture: Image.Image) -> None:
    """Draw a thin white line around the picture, a little inside its edge."""
    inset = min(picture.size) // 60
    width, height = picture.size
    ImageDraw.Draw(picture).rectangle(
        (inset, inset, width - 1 - inset, height - 1 - inset),
        outline="white",
        width=max(min(picture.size) // 400, 1),
    )
