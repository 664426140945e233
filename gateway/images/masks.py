"""Masks: which pixels of a picture an edit may change.

Ours is white where the picture changes and black where it stays, as api and docs tell it. Upstreams and
other clients say it otherwise: `clear` is a hole, alpha 0 where the picture changes (OpenAI); `white` is
ours. A mask has two values and no more: half a change is nothing any upstream knows.
"""

from __future__ import annotations

from typing import Final, Literal

from PIL import Image

from gateway.images.copies import encoded
from gateway.images.headers import MAX_PIXELS, MAX_SIDE
from gateway.images.reading import pixels

Polarity = Literal["clear", "white"]

_PNG: Final = {"format": "PNG", "compress_level": 6}
_HALF: Final = 128


def mask(data: bytes, size: tuple[int, int], polarity: Polarity) -> bytes:
    """Return a mask of our form as a PNG of this size in an upstream's polarity.

    Any PNG, JPEG or WebP; gray counts as what it is nearer to, see-through as black. Scaled without blur.
    `ValueError` for what `inspect` would not call a picture, or a size it would not take.
    """
    if min(size) < 1 or max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
        raise ValueError("dimensions out of bounds")
    change = white(data).resize(size, Image.Resampling.NEAREST)
    if polarity == "white":
        return encoded(change, _PNG)
    stays = Image.new("RGBA", size)
    stays.putalpha(change.point(_inverted))
    return encoded(stays, _PNG)


def whiten(data: bytes) -> bytes:
    """Return a mask with holes (alpha 0 where the picture changes) in our form, as a PNG.

    `ValueError` for what `inspect` would not call a picture, and for one without an alpha channel.
    """
    image = pixels(data)[1]
    if image.mode != "RGBA":
        raise ValueError("a mask without transparency")
    return encoded(image.getchannel("A").point(_holes), _PNG)


def white(data: bytes) -> Image.Image:
    """Return a mask of our form as pixels: 255 where the picture changes, 0 where it stays."""
    image = pixels(data)[1]
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image.convert("L").point(_halved)


_halved: Final = [0] * _HALF + [255] * (256 - _HALF)
_inverted: Final = list(range(255, -1, -1))
_holes: Final = [255] + [0] * 255
