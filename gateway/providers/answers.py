"""What adapters find in answers: ids, links, image bytes, figures.

Every function takes any value and returns a clean one or None, so that an adapter's `read` stays total.
Nothing here knows an upstream, and nothing here trusts one: an id must be safe in a path, a link is only
handed on for `outbound` to judge, base64 must be exact.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

import msgspec

from gateway.providers.adapter import Failed, Finished, Image, Reading, read_fault
from gateway.wire import Wire, WireRequest, WireResponse
from policies.retry import Failure

IMAGE_BYTES: Final = 64 * 2**20
"""The most one fetched image may weigh."""
IMAGE_SECONDS: Final = 60.0
"""The longest the fetch of one image may take."""
STATUS_BYTES: Final = 2**20
"""The most an answer may weigh that tells of a job and holds no pixels."""
STATUS_SECONDS: Final = 30.0
"""The longest an upstream may take to accept a job or to tell of one."""

_MAX_LINK: Final = 2048
_MAX_COUNT: Final = 2**40
_safe_id = re.compile(r"[A-Za-z0-9_-]{1,128}")
_seed = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def encode(body: dict[str, object]) -> bytes:
    """Return a JSON body without its absent fields."""
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


def mapping(value: object) -> dict[object, object]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """Return a JSON array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def word(value: object) -> str:
    """Return a code or state in lower case; empty for anything that is not short text."""
    return value.lower() if isinstance(value, str) and len(value) <= 256 else ""


def figure(value: object) -> int | None:
    """Return a count of something; None for what is no whole number or an absurd one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_COUNT else None


def job_id(value: object) -> str | None:
    """Return an upstream's job id if it can stand in a path as it is."""
    return value if isinstance(value, str) and _safe_id.fullmatch(value) else None


def seed(value: object) -> str | None:
    """Return a seed as text; upstreams send it as digits or a number. Any other text could be an echo."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return text if _seed.fullmatch(text) else None


def inline(value: object) -> bytes | None:
    """Return the bytes of base64 text, with or without a `data:` prefix; None unless it is exact."""
    if not isinstance(value, str):
        return None
    if value.startswith("data:"):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            return None
    try:
        return binascii.a2b_base64(value, strict_mode=True) or None
    except ValueError:  # binascii.Error, and text that is not ASCII
        return None


def link(value: object) -> str | None:
    """Return an address an upstream names, for `outbound` to judge; it never gets a key."""
    if not isinstance(value, str) or len(value) > _MAX_LINK or not value.isprintable():
        return None
    return value if value.startswith(("https://", "http://")) else None


def image_at(value: object, seed_text: str | None = None) -> Image | None:
    """Return an image to be fetched from a link. The request never carries a key."""
    url = link(value)
    if url is None:
        return None
    return Image(fetch=WireRequest("GET", url, seconds=IMAGE_SECONDS, max_bytes=IMAGE_BYTES), seed=seed_text)


def file_name(value: object) -> str | None:
    """Return what an upstream calls a file that was handed to it; it goes back in a JSON body only."""
    return value if isinstance(value, str) and 0 < len(value) <= 512 and value.isprintable() else None


def read_image(answer: Wire) -> Reading:
    """Say what came of fetching an image. 403, 404 and 410 are what storage says of a link that ran out."""
    if isinstance(answer, WireResponse) and answer.status in (403, 404, 410):
        return Failed(Failure.EXPIRED)
    fault = read_fault(answer)
    if fault is not None or not isinstance(answer, WireResponse):
        return fault or Failed(Failure.UNKNOWN)
    return Finished((Image(data=answer.body),))


def finished(images: list[Image | None], count: int) -> tuple[Image, ...]:
    """Return the images that can be read, never more than were asked for."""
    return tuple(image for image in images[:count] if image is not None)
