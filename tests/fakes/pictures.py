"""Pictures the fakes deliver: real images of the asked size, in milliseconds, the same for the same seed.

PNG is written by hand (a palette, a vertical gradient), so that it can also be written wrongly.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import zlib

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _header(width: int, height: int) -> bytes:
    return _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))


def _palette(seed: str) -> bytes:
    red, green, blue = hashlib.sha256(seed.encode()).digest()[:3]
    return bytes(part for step in range(256) for part in ((red + step) % 256, (green + step) % 256, blue))


@functools.lru_cache(maxsize=64)
def _rows(width: int, height: int) -> bytes:
    lines = b"".join(b"\0" + bytes([row * 255 // height]) * width for row in range(height))
    return zlib.compress(lines, 1)


def png(width: int, height: int, seed: str = "") -> bytes:
    """Return a valid PNG of exactly this size; the seed chooses its colors."""
    body = _chunk(b"PLTE", _palette(seed)) + _chunk(b"IDAT", _rows(width, height))
    return _header(width, height) + body + _chunk(b"IEND", b"")


@functools.lru_cache(maxsize=64)
def picture(kind: str, width: int, height: int, seed: str = "") -> bytes:
    """Return a valid image as png, jpeg or webp."""
    if kind == "png":
        return png(width, height, seed)
    out = io.BytesIO()
    with Image.open(io.BytesIO(png(width, height, seed))) as image:
        image.convert("RGB").save(out, format=kind.upper())
    return out.getvalue()


def holed(width: int, height: int) -> bytes:
    """Return a mask as OpenAI's clients make one: transparent, its left half, where the picture changes."""
    with Image.new("RGBA", (width, height), "black") as image, io.BytesIO() as out:
        image.paste((0, 0, 0, 0), (0, 0, width // 2, height))
        image.save(out, "PNG")
        return out.getvalue()


def measured(data: bytes) -> tuple[str, tuple[int, int], bool] | None:
    """Return kind, size and whether there is transparency, having decoded all; None for no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return str(image.format).lower(), image.size, image.has_transparency_data
    except (OSError, SyntaxError, ValueError):
        return None


def bomb() -> bytes:
    """Return a PNG of some hundred bytes that claims 4.3 thousand megapixels."""
    body = _chunk(b"PLTE", _palette("bomb")) + _chunk(b"IDAT", zlib.compress(bytes(65_536)))
    return _header(65_500, 65_500) + body + _chunk(b"IEND", b"")


def spoiled(how: str | None, data: bytes) -> bytes:
    """Return an image as it is, or ruined: `no_image`, `truncated` or `bomb`."""
    match how:
        case "no_image":
            return b"<html><body>Your picture is being prepared</body></html>"
        case "truncated":
            return data[: len(data) // 2]
        case "bomb":
            return bomb()
        case _:
            return data
