"""OpenAI's request bodies, read into our schema: fields as JSON or in a form, images as files or links.

What this API has and we do not is passed over and named, unless its absence would make another picture.
Absent and null are the same. Images stay as they came here: bytes, or the text of a URL.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from gateway.dialects.openai_errors import IMPOSSIBLE, MODEL
from gateway.errors import Problem
from policies import prompts
from policies.model import Background, Flaw, Format, InputRef, JobRequest, Quality

if TYPE_CHECKING:
    from gateway.dialects.forms import Part

T = TypeVar("T")

MOST: Final = 10
"""Images a request."""
MOST_INPUTS: Final = 16
LONGEST_PROMPT: Final = 32_000
LONGEST_NAME: Final = 512
LONGEST_URL: Final = 2048

QUALITIES: Final[Mapping[str, Quality]] = {
    "auto": "medium",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "standard": "medium",
    "hd": "high",
}
"""The last two are those of DALL-E."""
FORMATS: Final[Mapping[str, Format]] = {"png": "png", "webp": "webp", "jpeg": "jpeg"}
BACKGROUNDS: Final[Mapping[str, Background]] = {
    "auto": "auto",
    "transparent": "transparent",
    "opaque": "opaque",
}
ANSWERS: Final[Mapping[str, bool]] = {"b64_json": False, "url": True}
"""Whether pictures are answered as links."""
ENDUSER: Final = ("safety_identifier", "user")
"""Who a client asks for: kept with the job, sent to nobody."""

FIELDS: Final = IMPOSSIBLE | {
    "prompt", "model", "n", "size", "quality", "background", "output_format", "response_format", *ENDUSER,
}  # fmt: skip
IMAGES: Final = frozenset({"image", "images", "mask"})

_MODEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_SIZE: Final = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", re.ASCII)
_IMAGE: Final = re.compile(r"image(\[[0-9]*\])?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_DATA: Final = re.compile(r"data:image/[a-z]{1,8};base64,", re.ASCII)


class Wish(NamedTuple):
    """What a body asks for; `links` where pictures are to come as such. `ignored` are names passed over."""

    request: JobRequest
    links: bool = False
    ignored: tuple[str, ...] = ()


class Brought(NamedTuple):
    """What the body of an edit asks for, and its images: bytes, or where they are."""

    wish: Wish
    images: tuple[bytes | str, ...]
    mask: bytes | str | None = None


def wish_of(body: Mapping[str, object], also: frozenset[str] = frozenset()) -> Wish:
    """Return what a body's fields ask for; raises `Problem` with the first mistake.

    `also` are fields that are read elsewhere.
    """
    for name in sorted(IMPOSSIBLE):
        if body.get(name):
            raise flawed(name, f"{name} is not supported here. Leave it out.")
    count = body.get("n")
    if count is None:
        count = 1
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise flawed("n", f"n must be a whole number from 1 to {MOST}.")
    request = JobRequest(
        prompt=_prompt(body.get("prompt")),
        size=_size(body.get("size")),
        quality=_choice(body, "quality", QUALITIES, "medium"),
        count=count,
        format=_choice(body, "output_format", FORMATS, "png"),
        background=_choice(body, "background", BACKGROUNDS, "auto"),
        model=_model(body.get("model")),
        metadata={name: text for name in ENDUSER if (text := _text(body, name, LONGEST_NAME))},
    )
    links = _choice(body, "response_format", ANSWERS, False)
    unused = (name for name, value in body.items() if value is not None and name not in FIELDS | also)
    return Wish(request, links, tuple(unused))


def edited(request: JobRequest, inputs: Sequence[InputRef], mask: InputRef | None) -> JobRequest:
    """Return a request as an edit of these images."""
    return replace(request, operation="edit", inputs=tuple(inputs), mask=mask)


def from_form(parts: Sequence[Part]) -> Brought:
    """Return what the form of an edit asks for: `image` or repeated `image[]`, `mask`, and text fields."""
    images: list[bytes | str] = []
    files: dict[str, bytes] = {}
    body: dict[str, object] = {}
    for name, data in parts:
        if _IMAGE.fullmatch(name):
            images.append(data)
        elif name in files or name in body:
            raise flawed(name, f"{name} stands twice in the form.")
        elif name in ("mask", "markup"):
            files[name] = data
        else:
            body[name] = _plain(name, data)
    wish = wish_of({**body, **({"markup": True} if "markup" in files else {})}, IMAGES)
    return Brought(wish, _counted(images), files.get("mask"))


def from_object(body: Mapping[str, object]) -> Brought:
    """Return what the JSON body of an edit asks for: `images` and `mask` as `{"image_url": …}`."""
    images = body.get("images")
    if images is not None and not isinstance(images, list):
        raise flawed("images", "images must be a list.")
    mask = body.get("mask")
    return Brought(
        wish_of(body, IMAGES),
        _counted([_url("images", each) for each in images or ()]),
        None if mask is None else _url("mask", mask),
    )


def is_data(url: str) -> bool:
    """Say whether a URL is its image itself (RFC 2397)."""
    return url.startswith("data:")


def data_of(url: str, param: str) -> bytes:
    """Return the bytes a data URL holds; raises `Problem` where they cannot be read."""
    head = _DATA.match(url)
    if head is not None:
        try:
            return binascii.a2b_base64(url[head.end() :].encode(), strict_mode=True)
        except (binascii.Error, UnicodeError):
            pass
    raise flawed(param, "A data URL must be an image in base64, such as data:image/png;base64,….")


def flawed(name: str, detail: str) -> Problem:
    """Return the problem of a field, by its name in this API."""
    return Problem("invalid_request", detail, flaws=(Flaw(f"/{name}", detail),))


def _prompt(value: object) -> str:
    if not isinstance(value, str) or not prompts.clean(value).text:
        raise flawed("prompt", "prompt is required and must be a text.")
    if len(value) > LONGEST_PROMPT:
        raise flawed("prompt", f"prompt has at most {LONGEST_PROMPT} characters.")
    return value


def _model(value: object) -> str | None:
    """Return a model's name, whoever's it is; None leaves it to the plan."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise flawed(MODEL, "model must be a text.")
    if not _MODEL.fullmatch(value):
        detail = f"The model {value[:64]!r} does not exist."
        raise Problem("unsupported_option", detail, flaws=(Flaw("/model", detail),))
    return value


def _size(value: object) -> str | None:
    """Return a size; None for the model's own."""
    if value is None or value == "auto":
        return None
    if not isinstance(value, str) or not _SIZE.fullmatch(value):
        raise flawed("size", "size must be auto or WIDTHxHEIGHT, such as 1024x1024.")
    return value


def _choice(body: Mapping[str, object], name: str, words: Mapping[str, T], usual: T) -> T:
    """Return what a word of a table stands for."""
    value = body.get(name)
    if value is None:
        return usual
    if not isinstance(value, str) or value not in words:
        raise flawed(name, f"{name} must be one of {', '.join(words)}.")
    return words[value]


def _text(body: Mapping[str, object], name: str, most: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise flawed(name, f"{name} must be a text of at most {most} characters.")
    return value


def _plain(name: str, data: bytes) -> object:
    """Return a form's text as the value JSON would have had; the empty text is an absent one."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise flawed(name, f"{name} must be UTF-8 text.") from None
    if name == "n" and _NUMBER.fullmatch(text):
        return int(text)
    if name in IMPOSSIBLE:
        return None if text in ("false", "0") else text
    return text or None


def _url(name: str, value: object) -> str:
    url = value.get("image_url") if isinstance(value, dict) else None
    if not isinstance(url, str) or not url or (len(url) > LONGEST_URL and not is_data(url)):
        raise flawed(name, f"{name} must be given by image_url, an https or data URL.")
    return url


def _counted(images: Sequence[bytes | str]) -> tuple[bytes | str, ...]:
    if not 1 <= len(images) <= MOST_INPUTS:
        raise flawed("image", f"An edit needs 1 to {MOST_INPUTS} images.")
    return tuple(images)
