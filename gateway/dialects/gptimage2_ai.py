"""gptimage2.ai's API, spoken to our clients: `POST /api/generate`, then `GET /api/generate/{jobId}`.

A job that is not done is 202, one that is over is 200, pictures or error; `error` is always one code. The
document caps and guesses where ours refuses (`count`, `mode`), and clients rely on it. What it does not
know is passed over and named in `Safelight-Ignored`. All four keys of `balance` are there, always.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gateway.dialects.speech import (
    Call,
    ignored,
    image,
    job_of,
    read_object,
    refusal_headers,
    submitted,
    tell,
)
from gateway.errors import CATALOGUE, Fault, Problem
from gateway.manners import Manner
from policies import prompts, quota
from policies.access import Action
from policies.model import InputRef, Job, JobRequest, JobState

if TYPE_CHECKING:
    from gateway.api.exchange import Answer, Exchange
    from gateway.dialects.speech import SpeakerParts
    from policies.model import Dialect, Operation, Usage

MOST_IMAGES: Final = 4
"""Images a job, and reference URLs a request."""
MANNER: Final = Manner(dialect="gptimage2_ai", links="durable")
FIELDS: Final = frozenset(
    {"prompt", "mode", "ratio", "count", "imageUrls", "style", "lighting", "camera", "negative"}
)
MODES: Final[Mapping[str, Operation]] = {"text-to-image": "generate", "image-to-image": "edit"}

_RATIO: Final = re.compile(r"[1-9][0-9]?:[1-9][0-9]?", re.ASCII)
_STYLE: Final = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_HINT: Final = 1000
_URL: Final = 2048
_LONGEST: Final = 32_000

# fmt: off
SPELLED: Final[Mapping[str, tuple[int, str, str]]] = {
    "invalid_body": (400, "invalid_body", "The body must be a JSON object."),
    "prompt_required": (400, "prompt_required", "The prompt is required."),
    "prompt_too_long": (400, "prompt_too_long", "The prompt is too long."),
    "invalid_mode": (400, "invalid_mode", "The mode must be text-to-image or image-to-image."),
    "invalid_ratio": (400, "invalid_ratio", "The ratio is not one of those offered."),
    "invalid_count": (400, "invalid_count", "The count must be a number."),
    "image_urls_required": (400, "image_urls_required", "Image-to-image needs imageUrls."),
    "too_many_image_urls": (400, "too_many_image_urls", "At most four imageUrls can be used."),
    "invalid_image_url": (400, "invalid_image_url", "An image URL cannot be used."),
    "invalid_field": (400, "invalid_field", "style, lighting, camera or negative is too long or malformed."),
    "reference_rejected": (400, "invalid_image_url", "An image URL cannot be used."),
    "unauthenticated": (401, "unauthorized", "The API key is missing or invalid."),
    "insufficient_credits": (402, "insufficient_credits", "There are not enough credits for this job."),
    "monthly_cap_reached": (402, "monthly_cap_reached", "The monthly cap is reached."),
    "plan_required": (403, "plan_required", "The plan does not include this."),
    "tenant_suspended": (403, "tenant_suspended", "The account is suspended."),
    "forbidden": (403, "forbidden", "The key may not do this."),
    "not_found": (404, "job_not_found", "There is no such job."),
    "job_erased": (410, "job_erased", "The job was deleted."),
    "method_not_allowed": (405, "method_not_allowed", "This path exists, but not for this method."),
    "idempotency_key_reused": (409, "idempotency_key_reused", "The key was used with another body."),
    "payload_too_large": (413, "payload_too_large", "The body is too large."),
    "unsupported_media_type": (415, "unsupported_media_type", "The body must be application/json."),
    "prompt_blocked": (422, "prompt_blocked", "The prompt is blocked by the content policy."),
    "rate_limited": (429, "rate_limited", "Too many calls in the window."),
    "too_many_in_flight": (429, "too_many_in_flight", "Too many jobs at once."),
    "internal": (500, "internal_error", "Something went wrong on our side."),
}
"""What is told of each of our problems: status, code, sentence. Those of a body stand first, in order."""
# fmt: on
_BODY: Final = tuple(SPELLED)[:10]

_FLAWS: Final[Mapping[str, str]] = {
    "prompt": "prompt_too_long",
    "operation": "invalid_mode",
    "aspect_ratio": "invalid_ratio",
    "size": "invalid_ratio",
    "inputs": "invalid_image_url",
    "style": "invalid_field",
    "lighting": "invalid_field",
    "camera": "invalid_field",
    "negative": "invalid_field",
}
"""What a mistake at a field of our schema is in this API."""

_ENDS: Final[Mapping[str, str]] = {
    "input_unreadable": "invalid_image_url",
    "canceled": "canceled",
}


class Flawed(Exception):  # noqa: N818 - an answer, raised through the reading of a body
    """The first mistake of a body, by its code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def request_of(body: Mapping[str, object]) -> JobRequest:
    """Return what a body asks for, in our schema; raises `Flawed` with the first mistake."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompts.clean(prompt).text:
        raise Flawed("prompt_required")
    if len(prompt) > _LONGEST:
        raise Flawed("prompt_too_long")
    urls = _urls(body.get("imageUrls"))
    operation = _operation(body.get("mode"), urls)
    ratio = body.get("ratio")
    if ratio is not None and not (isinstance(ratio, str) and _RATIO.fullmatch(ratio)):
        raise Flawed("invalid_ratio")
    count = _count(body.get("count"))
    inputs = _inputs(urls) if operation == "edit" else ()
    return JobRequest(
        prompt=prompt,
        operation=operation,
        aspect_ratio=ratio,
        count=count,
        inputs=inputs,
        style=_style(body.get("style")),
        lighting=_hint(body.get("lighting")),
        camera=_hint(body.get("camera")),
        negative=_hint(body.get("negative")),
    )


def _operation(mode: object, urls: list[object] | None) -> Operation:
    """Return what is asked for; without a mode, what the URLs say."""
    if mode is None:
        return "edit" if urls is None or urls else "generate"
    if not isinstance(mode, str) or mode not in MODES:
        raise Flawed("invalid_mode")
    return MODES[mode]


def _urls(value: object) -> list[object] | None:
    """Return the URLs of a body; None for what is no list."""
    if value is None:
        return []
    return value if isinstance(value, list) else None


def _inputs(urls: list[object] | None) -> tuple[InputRef, ...]:
    if urls is None:
        raise Flawed("invalid_image_url")
    if not urls:
        raise Flawed("image_urls_required")
    if len(urls) > MOST_IMAGES:
        raise Flawed("too_many_image_urls")
    found = [url for url in urls if isinstance(url, str) and 0 < len(url) <= _URL]
    if len(found) != len(urls):
        raise Flawed("invalid_image_url")
    return tuple(InputRef(url=url) for url in found)


def _count(value: object) -> int:
    """Return a count as the document caps it: a number is cut to a whole one between 1 and 4."""
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Flawed("invalid_count")
    return int(min(max(value, 1), MOST_IMAGES))


def _hint(value: object) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or len(value) > _HINT:
        raise Flawed("invalid_field")
    return value


def _style(value: object) -> str | None:
    style = _hint(value)
    if style is not None and not _STYLE.fullmatch(style):
        raise Flawed("invalid_field")
    return style


def status_of(job: Job) -> str:
    """Return a job's state in this API's words."""
    match job.state:
        case JobState.QUEUED:
            return "pending"
        case JobState.RUNNING | JobState.SUCCEEDED:
            return str(job.state)
        case _:
            return "failed"


def error_of(job: Job) -> str:
    """Return why a job ended without a picture, as one code."""
    error = job.error
    if job.state is JobState.CANCELED:
        return "canceled"
    if error is None:
        return "image_generation_failed"
    if job.state is JobState.BLOCKED:
        return "output_blocked" if error.stage == "output" else "prompt_blocked"
    return _ENDS.get(error.code, "image_generation_failed")


class GptImage2Ai:
    """The dialect."""

    dialect: Dialect = "gptimage2_ai"
    prefixes: tuple[str, ...] = ("/api/generate",)

    def __init__(self, parts: SpeakerParts) -> None:
        self._parts = parts
        self._jobs = parts.jobs

    def calls(self) -> Sequence[Call]:
        """Return the calls of this API."""
        return (
            Call("POST", "/api/generate", "createAiJob", Action.WRITE, self.generate),
            Call("GET", "/api/generate/{id}", "getAiJob", Action.READ, self.poll),
        )

    async def generate(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Submit a job in gptimage2.ai's words.

        Answers at once with its id and what is left of the balance.
        """
        if self._parts.lifetime.draining:
            raise Problem("draining")
        body = await _object(exchange)
        try:
            request = request_of(body)
        except Flawed as flawed:
            exchange.code = "invalid_request"
            return _refused(flawed.code)
        unused = [name for name in body if name not in FIELDS]
        if body.get("imageUrls") and request.operation == "generate":
            unused.append("imageUrls")
        accepted, replayed = await submitted(self._parts, exchange, request, MANNER)
        shown = self._view(exchange, accepted.job, accepted.usage)
        return tell(shown, 202, (*ignored(exchange, unused), *replayed))

    async def poll(self, exchange: Exchange, values: Mapping[str, str]) -> Answer:
        """Read a job in gptimage2.ai's words.

        202 while it is being made, then 200: pictures, or why there are none.
        """
        found = await self._jobs.get(exchange.who, job_of(values))
        exchange.usage, exchange.job = found.usage, found.job.id
        return tell(self._view(exchange, found.job, found.usage), 200 if found.job.state.ended else 202)

    def _view(self, exchange: Exchange, job: Job, usage: Usage) -> dict[str, object]:
        shown: dict[str, object] = {"jobId": job.id, "status": status_of(job)}
        if job.state is JobState.SUCCEEDED:
            shown["results"] = [
                {
                    "imageUrl": image(self._parts, job, output),
                    "seed": output.seed or str(output.index + 1),
                    "finalPrompt": job.final_prompt,
                }
                for output in job.outputs
            ]
        elif job.state.ended:
            shown["error"] = error_of(job)
        return shown | self._balance(exchange, usage)

    def _balance(self, exchange: Exchange, usage: Usage) -> dict[str, object]:
        """Return what the caller may still spend, and how many medium images that makes."""
        who = exchange.who
        current = quota.as_of(usage, self._jobs.now(), who.terms)
        levels = [level.available for level in (current.user, current.tenant) if level.available is not None]
        price = self._jobs.price(who)
        if not levels or not price:
            return {}
        left = min(levels)
        figures = {
            "paidCredits": left,
            "freeImagesRemaining": 0,
            "totalImages": left // price,
            "freeImagesPerDay": 0,
        }
        return {"balance": figures}

    async def problem(self, problem: Problem, exchange: Exchange) -> Answer:
        """Return the answer that tells of a problem: one code, and a sentence."""
        status, code, message = _spelled(problem)
        body: dict[str, object] = {"error": code, "message": message}
        if status == 402 and exchange.caller is not None:
            with contextlib.suppress(Fault):  # the balance is optional, and the refusal stands without it
                exchange.usage = await self._jobs.usage(exchange.caller)
                body |= self._balance(exchange, exchange.usage)
        return tell(body, status, refusal_headers(problem))


async def _object(exchange: Exchange) -> dict[str, object]:
    """Return the body; one that is no object is a mistake of the whole, wherever it lies."""
    try:
        return await read_object(exchange)
    except Problem as problem:
        if problem.flaws:
            raise Problem(problem.code) from None
        raise


def _refused(code: str) -> Answer:
    status, error, message = SPELLED[code]
    return tell({"error": error, "message": message}, status)


def _spelled(problem: Problem) -> tuple[int, str, str]:
    """Return status, code and sentence of a problem. Mistakes of a body are told by their field."""
    if problem.code in ("invalid_request", "unsupported_option"):
        places = [flaw.pointer.split("/")[1] for flaw in problem.flaws if flaw.pointer]
        found = [_FLAWS[place] for place in places if place in _FLAWS]
        code = min(found, key=_BODY.index, default="invalid_body")
        details = [flaw.detail for flaw in problem.flaws] or [problem.detail]
        return 400, code, " ".join(details) if problem.flaws else SPELLED[code][2]
    if problem.code in SPELLED:
        return SPELLED[problem.code]
    row = CATALOGUE[problem.code]
    if row.status == 503:
        return 503, "service_unavailable", "The service is unavailable. Try again soon."
    return row.status, problem.code, row.meaning
