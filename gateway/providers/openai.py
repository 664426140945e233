"""OpenAI's Images API, as its reference and SDK of November 2026 describe it.

One synchronous call makes the images and answers with them inline. There is no idempotency key and no
job to ask again: what is cut off is lost and may be billed. Only fields that every current model takes
are sent; `response_format` and `style` are refused by them. An edit is a form with files, whose mask has
holes where the picture changes. Servers that speak the same API are reached through `base_url`; some of
those answer with links instead of bytes.
"""

from __future__ import annotations

from typing import Final

from gateway.providers.adapter import (
    Failed,
    Finished,
    Image,
    Reading,
    Refused,
    Task,
    read_fault,
    read_json,
)
from gateway.providers.answers import (
    encode,
    figure,
    finished,
    image_at,
    inline,
    items,
    mapping,
    read_image,
    word,
)
from gateway.providers.multipart import File, form
from gateway.wire import Wire, WireRequest, WireResponse
from policies.model import EXACT, Money
from policies.retry import Failure, Phase
from policies.routing import Capabilities

BASE_URL: Final = "https://api.openai.com/v1"

SIZES: Final = frozenset(
    {
        "1024x1024",
        "1536x1024",
        "1024x1536",
        "1536x864",
        "864x1536",
        "1280x960",
        "960x1280",
        "2048x2048",
        "2304x1536",
        "1536x2304",
        "2560x1440",
        "1440x2560",
        "2048x1536",
        "1536x2048",
    }
)
"""Of all sizes the models take (multiples of 16, 1:3 to 3:1, up to 8.3 megapixels), those we offer."""

# USD per million tokens, hence millionths of a dollar a token: the vendor's list for gpt-image-2, 2.5 and
# 2.6 as resellers quoted it in November 2026. Older models cost otherwise and are left without a figure.
_PRICED: Final = "gpt-image-2"
_TEXT_IN: Final = 5
_IMAGE_IN: Final = 8
_OUT: Final = 30

_REFUSALS: Final = frozenset({"content_policy_violation", "content_filter"})
_UNPAID: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_NO_MODEL: Final = "model_not_found"


class OpenAI:
    """OpenAI's dialect."""

    kind: str = "openai"
    hosts: tuple[str, ...] = ()
    capabilities = Capabilities(
        operations=frozenset({"generate", "edit"}),
        sizes=SIZES,
        formats=frozenset({"png", "jpeg", "webp"}),
        backgrounds=frozenset({"auto", "transparent", "opaque"}),
        max_count=10,
        max_prompt=32_000,
        inputs="bytes",
        max_inputs=16,
        mask="clear",
    )

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or BASE_URL).rstrip("/")

    def authorize(self, secret: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        return "Authorization", f"Bearer {secret}"

    def build(self, task: Task) -> WireRequest:
        """Return the call that makes the images."""
        body: dict[str, object] = {
            "model": task.model,
            "prompt": task.prompt,
            "n": task.count,
            "size": task.size,
            "quality": task.quality,
            "background": task.background,
            "output_format": task.format,
            "safety_identifier": task.user,
        }
        path, media_type, data = "generations", "application/json", b""
        if task.operation == "edit":
            path = "edits"
            media_type, data = form(list(body.items()), _files(task))
        return WireRequest(
            "POST",
            f"{self.base_url}/images/{path}",
            headers=(("Content-Type", media_type), ("Accept", "application/json")),
            body=data or encode(body),
            credential=task.entry,
            seconds=task.limit_seconds,
        )

    def read(self, answer: Wire, phase: Phase, task: Task) -> Reading:
        """Say what an answer means. Total: whatever bytes come, a `Reading` goes."""
        if phase is Phase.FETCH:
            return read_image(answer)
        fault = _fault(answer)
        body = read_json(answer) if isinstance(answer, WireResponse) else None
        if body is None:
            return fault or Failed(Failure.MALFORMED)
        if fault is None:
            images = finished([_image(item) for item in items(body.get("data"))[: task.count]], task.count)
            if images:
                return Finished(images, _cost(body.get("usage"), task.model))
        return _refusal(mapping(body.get("error"))) or fault or Failed(Failure.MALFORMED)


def _files(task: Task) -> list[File]:
    """Return an edit's files: the pictures in order, and the mask over the first of them."""
    files = [
        File("image[]", f"image-{at}.{each.media_type.removeprefix('image/')}", each.media_type, each.data)
        for at, each in enumerate(task.inputs)
    ]
    if task.mask is not None:
        files.append(File("mask", "mask.png", task.mask.media_type, task.mask.data))
    return files


def _fault(answer: Wire) -> Failed | None:
    """Return the common reading of a fault; but a path or model that is not there is the operator's."""
    if isinstance(answer, WireResponse) and answer.status == 404:
        return Failed(Failure.DENIED)
    return read_fault(answer)


def _image(item: object) -> Image | None:
    fields = mapping(item)
    data = inline(fields.get("b64_json")) or inline(fields.get("url"))
    return Image(data=data) if data else image_at(fields.get("url"))


def _refusal(error: dict[object, object]) -> Reading | None:
    """Return what the error body says beyond its status, by code and by type; both are in use."""
    words = {word(error.get("code")), word(error.get("type"))}
    if words & _REFUSALS or any("moderation" in each for each in words):
        details = mapping(error.get("moderation_details"))
        stage = word(details.get("moderation_stage")) or word(error.get("moderation_stage"))
        return Refused("output" if stage == "output" else "input")
    if words & _UNPAID or _NO_MODEL in words:
        return Failed(Failure.DENIED)
    return None


def _cost(usage: object, model: str) -> Money | None:
    """Return what the tokens cost; None where the model's price or the figures are not known."""
    fields = mapping(usage)
    total_in, out = figure(fields.get("input_tokens")), figure(fields.get("output_tokens"))
    if total_in is None or out is None or not model.startswith(_PRICED):
        return None
    images_in = figure(mapping(fields.get("input_tokens_details")).get("image_tokens")) or 0
    images_in = min(images_in, total_in)
    micros = (total_in - images_in) * _TEXT_IN + images_in * _IMAGE_IN + out * _OUT
    return Money(micros) if micros <= EXACT else None
