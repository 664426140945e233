"""OpenAI's Images API as it is documented: one call, images inline, refusals as 400, no idempotency.

Paid from the moment the request is accepted: who hangs up before the answer has bought the images all the
same. An `Idempotency-Key` is ignored, as the real one ignores it.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from tests.fakes.forms import read_form
from tests.fakes.pictures import measured, picture, spoiled
from tests.fakes.server import Answer, Asked, Edit, Fake, arguments, run, say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.behavior import Behavior, Part

KEY = "sk-fake-openai"
MODELS = ("gpt-image-2", "gpt-image-2.5-", "gpt-image-2.6-")
IN_TOKENS = 323
"""What one input picture costs."""
OUT_TOKENS = {"low": 196, "medium": 1767, "high": 7033, "auto": 1767}

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid value."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", None, "Your organization must be verified to use the model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for images."),
    503: ("server_error", None, "The engine is currently overloaded."),
}


class Ask(Struct, forbid_unknown_fields=True):
    """The documented request; a field that is not among these is an error there too."""

    prompt: str
    model: str
    n: int | None = 1
    size: str = "auto"
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max"] = "auto"
    background: Literal["auto", "opaque", "transparent"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int | None = None
    moderation: Literal["auto", "low"] = "auto"
    safety_identifier: str | None = None
    user: str | None = None


class OpenAIUpstream:
    """What the service says. `delay` is the seconds its images take."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self._made = 0
        self._links: dict[str, bytes] = {}

    def part(self, method: str, path: str) -> Part | None:
        """Return the part a request belongs to."""
        if method == "POST" and path in {"/v1/images/generations", "/v1/images/edits"}:
            return "create"
        return "image" if method == "GET" and path.startswith("/files/") else None

    def waits(self, part: Part) -> bool:
        """Return whether the answer itself takes as long as an image."""
        return part == "create"

    def error(self, status: int) -> Answer:
        """Return this service's error body for a status."""
        kind, code, message = _ERRORS.get(status, ("server_error", None, "The server had an error."))
        headers = {"retry_after": "1", "x_should_retry": "true"} if status == 429 else {}
        return _error(status, kind, code, message, **headers)

    async def answer(self, part: Part, asked: Asked, behavior: Behavior | None) -> Answer:
        """Return the documented answer, bent where the behavior bends what is said."""
        if part == "image":
            data = self._links.get(asked.path)
            return Answer(404, b"", outcome="missing") if data is None else _file(data)
        if behavior is not None and behavior.do == "refusal":
            return _refusal(behavior.stage)
        try:
            ask, edit = _edit(asked) if asked.path == "/v1/images/edits" else (_ask(asked.body), None)
        except msgspec.ValidationError as error:
            return _error(400, "invalid_request_error", None, str(error))
        return _mistake(ask) or _misfit(edit) or self._make(ask, edit, asked, behavior)

    def _make(self, ask: Ask, edit: Edit | None, asked: Asked, behavior: Behavior | None) -> Answer:
        self._made += 1
        do = behavior.do if behavior else None
        count = min(behavior.count, ask.n or 1) if behavior and do == "fewer" else ask.n or 1
        width, height = _dimensions(ask.size)
        images = [
            spoiled(do, picture(ask.output_format, width, height, f"{ask.prompt}/{index}"))
            for index in range(count)
        ]
        data = [
            self._item(image, index, asked.root, links=do == "links") for index, image in enumerate(images)
        ]
        words, seen = len(ask.prompt) // 4 + 1, IN_TOKENS * len(edit.images) if edit else 0
        out = OUT_TOKENS.get(ask.quality, 1767) * (ask.n or 1)
        answer = say(200, {
            "created": 1_795_000_000,
            "background": "opaque" if ask.background == "auto" else ask.background,
            "output_format": ask.output_format,
            "quality": ask.quality,
            "size": f"{width}x{height}",
            "data": data,
            "usage": {
                "input_tokens": words + seen,
                "input_tokens_details": {"text_tokens": words, "image_tokens": seen},
                "output_tokens": out,
                "output_tokens_details": {"text_tokens": 0, "image_tokens": out},
                "total_tokens": words + seen + out,
            },
        }, "made", x_request_id=f"req_{self._made:06d}")  # fmt: skip
        return msgspec.structs.replace(answer, paid=1, edit=edit)

    def _item(self, image: bytes, index: int, root: str, *, links: bool) -> dict[str, Any]:
        if not links:
            return {"b64_json": base64.b64encode(image).decode()}
        path = f"/files/{self._made}/{index}"
        self._links[path] = image
        return {"url": root + path}


def _ask(body: bytes) -> Ask:
    return msgspec.json.decode(body, type=Ask)


def _edit(asked: Asked) -> tuple[Ask, Edit]:
    """Return the form of an edit: `image`, or several `image[]`, and a `mask`."""
    form = read_form(asked.headers.get("content-type", ""), asked.body)
    if form is None:
        raise msgspec.ValidationError("Could not parse the form.")
    ask = msgspec.convert(form.fields, Ask, strict=False)
    images = tuple(file.data for file in form.files if file.name in {"image", "image[]"})
    masks = [file.data for file in form.files if file.name == "mask"]
    if len(images) + len(masks) != len(form.files) or len(masks) > 1:
        raise msgspec.ValidationError("Unknown parameter.")
    return ask, Edit(ask.prompt, images, masks[0] if masks else None)


def _misfit(edit: Edit | None) -> Answer | None:
    """Return the error for pictures that are too many, none, or do not fit each other."""
    if edit is None:
        return None
    shapes = [measured(image) for image in edit.images]
    if not 1 <= len(shapes) <= 16 or None in shapes or any(len(image) >= 50e6 for image in edit.images):
        return _error(400, "invalid_request_error", "invalid_image_file", "Invalid image file.", "image")
    if edit.mask is not None:
        shape = measured(edit.mask)
        if shape is None or shape[0] != "png" or not shape[2] or len(edit.mask) >= 4e6:
            return _error(400, "invalid_request_error", "invalid_image_file", "Invalid mask.", "mask")
        if shapes[0] is None or shape[1] != shapes[0][1]:
            return _error(400, "invalid_request_error", None, "Mask size does not match image.", "mask")
    return None


def _file(data: bytes) -> Answer:
    return Answer(200, data, {"content-type": "image/png"}, outcome="fetched")


def _mistake(ask: Ask) -> Answer | None:
    """Return the error for what the types alone do not hold."""
    if not ask.model.startswith(MODELS):
        return _error(
            404, "invalid_request_error", "model_not_found", f"The model {ask.model} does not exist."
        )
    param = None
    if not 1 <= len(ask.prompt) <= 32_000:
        param = "prompt"
    elif not 1 <= (ask.n or 1) <= 10:
        param = "n"
    elif not _takes(ask.size):
        param = "size"
    elif ask.quality in {"xhigh", "max"} and ask.model.startswith("gpt-image-2-"):
        param = "quality"
    elif ask.background == "transparent" and ask.output_format == "jpeg":
        param = "background"
    if param is None:
        return None
    return _error(400, "invalid_request_error", None, f"Invalid value: {param}.", param)


def _takes(size: str) -> bool:
    """Return whether a size is one the models make: sides, ratio and pixels within their bounds."""
    if not re.fullmatch(r"auto|[0-9]{1,4}x[0-9]{1,4}", size):
        return False
    width, height = _dimensions(size)
    sides = width % 16 == height % 16 == 0 and max(width, height) <= 3840
    return sides and max(width, height) <= 3 * min(width, height) and 655_360 <= width * height <= 8_294_400


def _dimensions(size: str) -> tuple[int, int]:
    width, _, height = "1024x1024".partition("x") if size == "auto" else size.partition("x")
    return int(width), int(height)


def _refusal(stage: str) -> Answer:
    error = {
        "message": "Your request was rejected by the safety system. safety_violations=[violence].",
        "type": "image_generation_user_error",
        "param": None,
        "code": "moderation_blocked",
        "moderation_details": {"moderation_stage": stage, "categories": ["violence"]},
    }
    return say(400, {"error": error}, "refused")


def _error(
    status: int, kind: str, code: str | None, message: str, param: str | None = None, **headers: str
) -> Answer:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return say(status, {"error": error}, f"error_{status}", **headers)


def fake(
    key: str = KEY, delay: float = 0.0, script: list[Behavior] | None = None, log: Path | None = None
) -> Fake:
    """Return the fake. Its adapter's base URL is `url` with `/v1` behind it."""
    return Fake(OpenAIUpstream(delay), key, script, log=log)


if __name__ == "__main__":
    options = arguments(KEY).parse_args()
    run(options, OpenAIUpstream(options.delay))
