"""Other encodings of the same picture: small, as WebP, and without what a camera wrote beside it.

Copies are for showing (`thumb`, `webp`) or for handing on (`clean`); what is delivered stays byte for byte
as it was made. None has metadata, and the same bytes always give the same copy. CPU work: `Studio` does it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from gateway.images.headers import Kind
from gateway.images.reading import NotAnImage, load, pixels, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

THUMB: Final = 320

# A copy that is handed on is worked on by a model: next to nothing may be lost. 4:4:4 keeps thin red lines.
_FAITHFUL: Final[Mapping[Kind, dict[str, Any]]] = {
    Kind.PNG: {"format": "PNG", "compress_level": 4},
    Kind.JPEG: {"format": "JPEG", "quality": 95, "subsampling": 0},
    Kind.WEBP: {"format": "WEBP", "quality": 95, "method": 2},
}


def thumb(data: bytes) -> bytes:
    """Return a WebP copy of at most 320 pixels a side; smaller pictures are not scaled.

    `ValueError` for what `inspect` would not call a picture.
    """
    match load(data):
        case NotAnImage(reason):
            raise ValueError(reason)
        case _, image:
            gap = None if image.mode.startswith("I") else 3.0  # 16 bits a sample are not reduced in steps
            image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS, reducing_gap=gap)
            return encoded(plain(image), {"format": "WEBP", "quality": 82, "method": 4})


def webp(data: bytes) -> bytes:
    """Return a WebP copy in full size. `ValueError` for what `inspect` would not call a picture."""
    return encoded(pixels(data)[1], {"format": "WEBP", "quality": 90, "method": 2})


def clean(data: bytes) -> bytes:
    """Return the picture upright and in its own format, without EXIF, XMP, ICC or anything after its end.

    PNG keeps every pixel as it was in 8 bits; JPEG and WebP are encoded once more, at a high quality.
    `ValueError` for what `inspect` would not call a picture.
    """
    kind, image = pixels(data)
    return encoded(image, _FAITHFUL[kind])


def encoded(image: Image.Image, how: Mapping[str, Any]) -> bytes:
    """Return a picture's bytes as Pillow's `save` makes them."""
    out = io.BytesIO()
    image.save(out, **how)
    return out.getvalue()
