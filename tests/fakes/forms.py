"""Forms with files, read by a parser that is not ours: what we send must be what others understand."""

from __future__ import annotations

import io
from typing import NamedTuple

from multipart import (
    MultipartError,
    MultipartParser,
    parse_options_header,
)

MUCH = 2**30
"""Bytes that are kept in memory: nothing is put on the disk."""


class Sent(NamedTuple):
    """One file of a form."""

    name: str
    filename: str
    media_type: str
    data: bytes


class Form(NamedTuple):
    """A form: its fields by name, its files in order."""

    fields: dict[str, str]
    files: list[Sent]


def read_form(content_type: str, body: bytes) -> Form | None:
    """Return a form as it was sent; None for what is none, or names a field twice."""
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or "boundary" not in options:
        return None
    try:
        parts = MultipartParser(
            io.BytesIO(body), options["boundary"], len(body), strict=True, memory_limit=MUCH, spool_limit=MUCH
        ).parts()
    except MultipartError:
        return None
    fields = {part.name: part.value for part in parts if not part.filename}
    files = [Sent(part.name, part.filename, part.content_type, part.raw) for part in parts if part.filename]
    return Form(fields, files) if len(fields) + len(files) == len(parts) else None
