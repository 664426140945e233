"""Bodies of `multipart/form-data` (RFC 7578), for upstreams that take files as a browser's form sends them.

Names and filenames are ours and plain; values may hold anything. The boundary is a hash of all that stands
between it, so that nobody can write it into a part, and the same form is the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class File(NamedTuple):
    """One file of a form."""

    name: str
    filename: str
    media_type: str
    data: bytes


def form(fields: Sequence[tuple[str, object]], files: Sequence[File]) -> tuple[str, bytes]:
    """Return the content type and the body of a form. Fields that are None are left out."""
    parts = [
        (_head(name), str(value).encode("utf-8", "replace")) for name, value in fields if value is not None
    ]
    parts += [(_head(each.name, each.filename, each.media_type), each.data) for each in files]
    digest = hashlib.sha256()
    for head, data in parts:
        digest.update(b"%b%d\0" % (head, len(data)))
        digest.update(data)
    boundary = digest.hexdigest()
    line = f"--{boundary}\r\n".encode()
    chunks = [chunk for head, data in parts for chunk in (line, head, data, b"\r\n")]
    return f"multipart/form-data; boundary={boundary}", b"".join([*chunks, f"--{boundary}--\r\n".encode()])


def _head(name: str, filename: str | None = None, media_type: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"\r\nContent-Type: {media_type}'
    return f"{head}\r\n\r\n".encode()
