"""Bytes to pixels: what a file is, and its pixels in the one form all that is made here begins from.

Bytes come from providers and callers and are hostile: the type is told by the first bytes and by nothing
else, the size is read from the header before Pillow sees the file, then all of it is decoded. `inspect`
says what came of it; `pixels` gives them upright, in 8 bits, without what a file says beside them.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from gateway.images.headers import MAX_PIXELS, MAX_SIDE, Kind, measure, sniff

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile


class Picture(NamedTuple):
    """A file that decodes as what it says it is."""

    media_type: str
    width: int
    height: int
    ext: str


class NotAnImage(NamedTuple):
    """A file that is not delivered, and why, in the operator's words."""

    reason: str


READERS: Final[dict[Kind, Callable[[io.BytesIO], ImageFile]]] = {
    # The plugins themselves and not `Image.open`, which asks every format it knows.
    Kind.PNG: PngImagePlugin.PngImageFile,
    Kind.JPEG: JpegImagePlugin.JpegImageFile,
    Kind.WEBP: WebPImagePlugin.WebPImageFile,
}
_EXT: Final = {Kind.PNG: "png", Kind.JPEG: "jpg", Kind.WEBP: "webp"}

# What Pillow is known to raise over broken files: its own, and those of the decoding it does in Python.
_BROKEN: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # where a process turns warnings into errors
)

_ORIENTATION: Final = 0x0112  # Exif 2.32 §4.6.4
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def inspect(data: bytes) -> Picture | NotAnImage:
    """Say what a file is, having decoded all of it. Total: any bytes may come.

    PNG, JPEG and WebP, at most 40 megapixels, one frame. Bytes after the picture's end are let be: cameras
    put more there, and the type the file is served with is the one told here.
    """
    found = load(data)
    return found if isinstance(found, NotAnImage) else told(*found)


def told(kind: Kind, image: Image.Image) -> Picture:
    """Return what is said of a decoded file."""
    return Picture(f"image/{kind}", *image.size, _EXT[kind])


def pixels(data: bytes) -> tuple[Kind, Image.Image]:
    """Return a file's kind and its pixels: upright, RGB or RGBA of 8 bits, and nothing else of the file.

    `ValueError` for what `inspect` would not call a picture.
    """
    match load(data):
        case NotAnImage(reason):
            raise ValueError(reason)
        case kind, image:
            return kind, plain(image)


def plain(image: Image.Image) -> Image.Image:
    """Return decoded pixels upright, as RGB or RGBA of 8 bits, without what the file says beside them."""
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I"):  # 16 bits a sample, which Pillow would cut off and not scale
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    bare = image.convert("RGBA" if image.has_transparency_data else "RGB")
    bare.info = {}
    return bare if turn is None else bare.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return how the picture is to be turned; 1, upright, where that cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) else 1


def load(data: bytes) -> tuple[Kind, Image.Image] | NotAnImage:
    """Return a file's kind and its pixels as it has them, all decoded; or why it is no picture."""
    kind = sniff(data)
    if kind is None:
        return NotAnImage("not a PNG, JPEG or WebP")
    size = measure(kind, data)
    if size is None:
        return NotAnImage("no sound header")
    if not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS):
        return NotAnImage("dimensions out of bounds")
    try:
        with READERS[kind](io.BytesIO(data)) as image:
            if image.size != size:
                return NotAnImage("two headers that differ")
            if getattr(image, "is_animated", False):
                return NotAnImage("more than one frame")
            image.load()
            return kind, image
    except _BROKEN as error:
        return NotAnImage(f"does not decode: {type(error).__name__}")
