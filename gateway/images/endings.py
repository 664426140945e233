"""Where a picture ends, by its own marks: what follows there is no part of it.

An image with an archive or a page behind it is two files in one. Those who bring images here bring
nothing else. Cameras put a second JPEG behind the first and say so in it (CIPA DC-007): that is let be.
Knows no Pillow. PNG: ISO/IEC 15948 §5.3. JPEG: ITU T.81 annex B. WebP: RFC 9649 §2.3.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.images.headers import MAX_PARTS, Kind, sniff

MOST_JPEGS: Final = 8
"""Pictures behind the first: a phone adds one or two."""

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends entropy-coded data: a marker that is neither a stuffed byte, a restart nor a fill."""
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_MPF: Final = b"\xff\xe2"


def ends(data: bytes) -> bool:
    """Say whether a file is one picture and nothing behind it. For data that `inspect` called a picture."""
    match sniff(data):
        case Kind.PNG:
            return _png(data) == len(data)
        case Kind.WEBP:
            size = int.from_bytes(data[4:8], "little") + 8
            return size + size % 2 == len(data) or size == len(data)
        case Kind.JPEG:
            return _all_jpeg(data)
        case None:
            return False


def _png(data: bytes) -> int | None:
    at = 8
    for _ in range(MAX_PARTS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at
        if at > len(data):
            return None
    return None


def _all_jpeg(data: bytes) -> bool:
    """Say whether a file is a JPEG to its end, or a few one after another where the first says so."""
    end, more = _jpeg(data, 0)
    for _ in range(MOST_JPEGS if more else 0):
        if end is None or end == len(data):
            break
        start = data.find(b"\xff\xd8\xff", end)
        if start < 0 or data.count(b"\0", end, start) != start - end:
            return False
        end, _ = _jpeg(data, start)
    return end == len(data)


def _jpeg(data: bytes, at: int) -> tuple[int | None, bool]:
    """Return where a JPEG ends, and whether it says that others follow."""
    at, more = at + 2, False
    for _ in range(MAX_PARTS):
        if at + 2 > len(data) or data[at] != 0xFF:
            return None, more
        marker = data[at + 1]
        if marker == _EOI:
            return at + 2, more
        if marker in _BARE:
            at += 2
        elif marker == 0xFF:
            at += 1
        else:
            more |= data[at : at + 2] == _MPF and data[at + 4 : at + 8] == b"MPF\0"
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == _SOS:
            found = _MARKER.search(data, at)
            if found is None:
                return None, more
            at = found.start()
    return None, more
