"""Forms with files (`multipart/form-data`, RFC 7578): bytes to parts, and nothing more.

This is the only file that knows `multipart`. A form is read whole, its parts in the order they came; how
large it may be was decided before it arrived. What parts mean is their dialect's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from gateway.errors import Problem

MOST_PARTS: Final = 64
MEDIA_TYPE: Final = "multipart/form-data"


class Part(NamedTuple):
    """One part of a form: a field's text in bytes, or a file's."""

    name: str
    data: bytes


def is_form(content_type: str) -> bool:
    """Say whether a body of this type is a form with files."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def read_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a form; `Problem` (400) where it is not written as one."""
    parts: list[Part] = []
    name, pieces = "", list[bytes]()
    try:
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        with PushMultipartParser(boundary, max_segment_count=MOST_PARTS, strict=True) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    name, pieces = event.name or "", []
                elif event is None:
                    parts.append(Part(name, pieces[0] if len(pieces) == 1 else b"".join(pieces)))
                else:
                    pieces.append(bytes(event))
    except (MultipartError, UnicodeError):
        raise Problem("invalid_request", "The body is not a form as its Content-Type says.") from None
    return parts
