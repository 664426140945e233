"""Mints ids: UUIDv7 (RFC 9562 §5.7), so that ids sort by the instant they were made.

Clock and coin come in; how an id is shown and read is `policies/ids.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable


class Coin:
    """Random bytes of the system's source, fetched a page at a time: a call a request costs 3 µs."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom, page: int = 4096) -> None:
        self._source = source
        self._page = page
        self._bytes = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """Return so many bytes, none of them given out before."""
        if self._at + count > len(self._bytes):
            self._bytes, self._at = self._source(max(count, self._page)), 0
        self._at += count
        return self._bytes[self._at - count : self._at]


def uuid7(now: int, coin: bytes) -> str:
    """Return the text of a UUIDv7 of this millisecond and ten random bytes."""
    low = int.from_bytes(coin)
    high = (now & 0xFFFFFFFFFFFF) << 16 | 7 << 12 | low >> 64 & 0xFFF
    text = f"{high << 64 | 1 << 63 | low & 0x3FFFFFFFFFFFFFFF:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
