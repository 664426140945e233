"""Pictures as bytes: what they are, small copies of them, and the sandbox's own.

This package is the only room that knows Pillow. Bytes come from providers and callers and are hostile:
the type is told by the first bytes and by nothing else, the size is read from the header before
Pillow sees the file, then all of it is decoded. What is delivered stays byte for byte as it was made;
only copies are encoded here. All of it is CPU work, so `Studio` does it on a few threads.
"""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from gateway.images.draw import draw
from gateway.images.headers import MAX_PIXELS, MAX_SIDE, Kind, measure, sniff

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

    from policies.model import Background, Format

THUMB: Final = 320


class Picture(NamedTuple):
    """A file that decodes as what it says it is."""

    media_type: str
    width: int
    height: int
    ext: str


class NotAnImage(NamedTuple):
    """A file that is not delivered, and why, in the operator's words."""

    reason: str


_READERS: Final[dict[Kind, Callable[[io.BytesIO], ImageFile]]] = {
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


def inspect(data: bytes) -> Picture | NotAnImage:
    """Say what a file is, having decoded all of it. Total: any bytes may come.

    PNG, JPEG and WebP, at most 40 megapixels, one frame. Bytes after the picture's end are let be: cameras
    put more there, and the type the file is served with is the one told here.
    """
    kind = sniff(data)
    if kind is None:
        return NotAnImage("not a PNG, JPEG or WebP")
    size = measure(kind, data)
    if size is None:
        return NotAnImage("no sound header")
    if not (0 < size[0] <= MAX_SIDE and 0 < size[1] <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS):
        return NotAnImage("dimensions out of bounds")
    try:
        with _READERS[kind](io.BytesIO(data)) as image:
            if image.size != size:
                return NotAnImage("two headers that differ")
            if getattr(image, "is_animated", False):
                return NotAnImage("more than one frame")
            image.load()
    except _BROKEN as error:
        return NotAnImage(f"does not decode: {type(error).__name__}")
    return Picture(f"image/{kind}", *size, _EXT[kind])


def thumb(data: bytes) -> bytes:
    """Return a WebP copy of at most 320 pixels a side, smaller ones unscaled, without metadata.

    For data that `inspect` called a picture; `ValueError` for anything else.
    """
    kind = sniff(data)
    if kind is None:
        raise ValueError("not a picture")
    with _READERS[kind](io.BytesIO(data)) as image:
        gap = None if image.mode.startswith("I") else 3.0  # 16 bits a sample cannot be reduced in steps
        image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS, reducing_gap=gap)
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    out = io.BytesIO()
    small.save(out, "WEBP", quality=82, method=4)
    return out.getvalue()


class Studio:
    """The threads on which pictures are read and made: never the loop, never more than `threads` at once.

    A call that is canceled leaves its thread to finish; nothing waits for it but `close`.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="studio")

    async def inspect(self, data: bytes) -> Picture | NotAnImage:
        """Do `inspect` on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, inspect, data)

    async def thumb(self, data: bytes) -> bytes:
        """Do `thumb` on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, thumb, data)

    async def draw(
        self,
        prompt: str,
        size: tuple[int, int],
        seed: int,
        background: Background = "auto",
        encoding: Format = "png",
    ) -> bytes:
        """Do `draw` on a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, draw, prompt, size, seed, background, encoding
        )

    def close(self) -> None:
        """Drop what waits, and return when what runs has finished. Safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
