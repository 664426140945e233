"""What the first bytes of a file say: its kind and its dimensions, without any decoder.

Read by hand so that a file which claims to be enormous, or comes in a million pieces, is refused before
a library makes room or takes time for it.
Knows no Pillow. PNG: ISO/IEC 15948 §11.2.2. JPEG: ITU T.81 annex B. WebP: RFC 9649 §2.
"""

from __future__ import annotations

import enum
from typing import Final

MAX_PIXELS: Final = 40_000_000
MAX_SIDE: Final = 16_384
MAX_PARTS: Final = 32_768  # chunks or segments; Pillow walks them in Python, a few microseconds each
MAX_SCANS: Final = 256  # of a progressive JPEG; each may cost a pass over all pixels for a few bytes

_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # frame headers; the three are tables
_SOS: Final = 0xDA
_FILL: Final = 0xFF
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


class Kind(enum.StrEnum):
    """The kinds of picture that come in or go out, by their media subtype."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


def sniff(data: bytes) -> Kind | None:
    """Return the kind the first bytes name; None for every other file."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if data.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Kind.WEBP
    return None


def measure(kind: Kind, data: bytes) -> tuple[int, int] | None:
    """Return the width and height a header claims; None without one, or in more parts than pictures are."""
    match kind:
        case Kind.PNG:
            return _png(data)
        case Kind.JPEG:
            return _jpeg(data)
        case Kind.WEBP:
            return _webp(data)


def _png(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    at = 8
    for _ in range(MAX_PARTS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return _big(data, 16, 4), _big(data, 20, 4)
        at += 12 + _big(data, at, 4)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at, size = 2, None
    if data.count(b"\xff\xda") > MAX_SCANS:
        return None
    for _ in range(MAX_PARTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == _SOS:
            return size
        if marker in _SOF and at + 9 <= len(data):
            size = _big(data, at + 7, 2), _big(data, at + 5, 2)
        if marker == _FILL:
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + max(_big(data, at + 2, 2), 2)
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
        case b"VP8L":
            bits = _little(data, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
        case _:
            return None


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
