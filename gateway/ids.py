"""Mints ids: UUIDv7 (RFC 9562 §5.7), so that ids sort by the instant they were made.

Clock and coin come in; how an id is shown and read is `policies/ids.py`.
"""

from __future__ import annotations


def uuid7(now: int, coin: bytes) -> str:
    """Return the text of a UUIDv7 of this millisecond and ten random bytes."""
    low = int.from_bytes(coin)
    text = f"{now & 0xFFFFFFFFFFFF:012x}7{low >> 64 & 0xFFF:03x}{low & 0x3FFFFFFFFFFFFFFF | 1 << 63:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
