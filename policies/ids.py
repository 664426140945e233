"""Job ids as clients see them: one number, two spellings.

Inside, an id is a UUID's text (`0192…-…`). Outside it is `job_` and the same 128 bits as 26 characters
of Crockford's base 32, most significant first, as ULIDs are written. The other spelling a client may
send is the UUID's own text. Each has exactly one form here: capitals for the one, small letters for the
other; what is spelled otherwise names nothing.
"""

from __future__ import annotations

import base64
import functools
import re
from typing import Final

PREFIX: Final = "job_"

_CROCKFORD: Final = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RFC_4648: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PYTHON: Final = b"0123456789abcdefghijklmnopqrstuv"
"""Three alphabets of the same digits: as ULIDs write them, as `base64` makes them, as `int` reads them."""
_OUT: Final = bytes.maketrans(_RFC_4648, _CROCKFORD)
_IN: Final = bytes.maketrans(_CROCKFORD, _PYTHON)
_LEAD: Final = bytes(4)
"""20 bytes are 32 characters; 16 of them after four zeros end in the 26 that count."""

_SHOWN: Final = re.compile(rb"job_[0-7][0-9A-HJKMNP-TV-Z]{25}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@functools.lru_cache(maxsize=4096)
def shown(uuid: str) -> str:
    """Return the client's spelling of a UUID's text."""
    number = bytes.fromhex(uuid.replace("-", ""))
    return PREFIX + base64.b32encode(_LEAD + number)[6:].translate(_OUT).decode()


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> str | None:
    """Return the UUID's text that either spelling names, or None where it names nothing."""
    if _UUID.fullmatch(text):
        return text
    data = text.encode("utf-8", "replace")
    if not _SHOWN.fullmatch(data):
        return None
    plain = f"{int(data[4:].translate(_IN), 32):032x}"
    return f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"
