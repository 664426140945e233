"""Ids as clients see them: one number, two spellings.

Inside, an id is a UUID's text (`0192…-…`). Outside it is a prefix that says what it names (`job_`) and the
same 128 bits as 26 characters of Crockford's base 32, most significant first, as ULIDs are written. The
other spelling a client may send is the UUID's own text. Each has exactly one form here: capitals for the
one, small letters for the other; what is spelled otherwise, or has another thing's prefix, names nothing.
"""

from __future__ import annotations

import functools
import re
from typing import Final

JOB: Final = "job_"
KEY: Final = "key_"
UPLOAD: Final = "up_"
ENDPOINT: Final = "we_"
DELIVERY: Final = "dl_"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PYTHON: Final = "0123456789abcdefghijklmnopqrstuv"
"""Two alphabets of the same digits: as ULIDs write them, and as `int` reads them."""
_IN: Final = bytes.maketrans(_CROCKFORD.encode(), _PYTHON.encode())
_PAIRS: Final = tuple(a + b for a in _CROCKFORD for b in _CROCKFORD)
_SHIFTS: Final = tuple(range(120, -1, -10))
"""Ten bits are two characters; thirteen times ten are 128 after two zeros."""

_DIGITS: Final = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@functools.lru_cache(maxsize=4096)
def shown(uuid: str, prefix: str = JOB) -> str:
    """Return the client's spelling of a UUID's text."""
    number = int(uuid.replace("-", ""), 16)
    return prefix + "".join([_PAIRS[number >> shift & 0x3FF] for shift in _SHIFTS])


@functools.lru_cache(maxsize=4096)
def parse(text: str, prefix: str = JOB) -> str | None:
    """Return the UUID's text that either spelling names, or None where it names nothing of that prefix."""
    if _UUID.fullmatch(text):
        return text
    data = text.removeprefix(prefix).encode("utf-8", "replace")
    if not (text.startswith(prefix) and _DIGITS.fullmatch(data)):
        return None
    plain = f"{int(data.translate(_IN), 32):032x}"
    return f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"
