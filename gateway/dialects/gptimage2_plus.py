"""gptimage2.plus's API, spoken to our clients: generate, upload, generations, and webhooks.

A submit answers 202 with the job's state, also when its key made the job before; a poll is always 200.
422 means a blocked prompt and nothing else. `quality: high` is the document's "HD 2K": the large size of
the same ratio where there is one. Every output has a PNG and a WebP, by links that live as long as it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, cast

from gateway.api.jobs import idempotency_key
from gateway.api.views import time_text
from gateway.dialects.gptimage2_plus_webhooks import PLACE, AccountWebhooks
from gateway.dialects.speech import (
    REPLAYED,
    Call,
    address,
    ignored,
    job_of,
    read_object,
    refusal_headers,
    submitted,
    tell,
)
from gateway.dialects.zod import Body, Issue, sentence
from gateway.errors import CATALOGUE, Problem
from gateway.inputs import MOST_BYTES
from gateway.manners import Manner
from policies import ids, prompts
from policies.access import Action
from policies.model import InputRef, Job, JobRequest, JobState, Quality

if TYPE_CHECKING:
    from gateway.api.exchange import Answer, Exchange, Headers
    from gateway.dialects.speech import SpeakerParts
    from policies.model import Dialect, Flaw, MediaType, Output

LONGEST_PROMPT: Final = 4000
MOST: Final = 4
"""Images a job, and inputs an edit."""
SIZES: Final = ("1024x1024", "1024x1536", "1536x1024")
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
LONGEST_NAME: Final = 200
QUALITIES: Final = ("low", "medium", "high")
TYPES: Final = ("text2img", "edit")

_SENTENCES: Final[Mapping[str, str]] = {
    "unauthenticated": "Missing or invalid API key",
    "insufficient_credits": "Insufficient credits",
    "monthly_cap_reached": "Monthly compute cap reached",
    "plan_required": "Pro or Max plan required",
    "forbidden": "Forbidden",
    "tenant_suspended": "Account suspended",
    "not_found": "Not found",
    "job_erased": "The generation was deleted",
    "method_not_allowed": "Method not allowed",
    "idempotency_key_reused": "Idempotency-Key was used with a different body",
    "payload_too_large": "Payload too large",
    "unsupported_media_type": "Content-Type must be application/json",
    "prompt_blocked": "Prompt blocked by content policy",
    "rate_limited": "Rate limit reached",
    "too_many_in_flight": "Too many generations in flight",
    "webhook_limit": "Too many webhooks",
    "internal": "Internal error",
    "store_unavailable": "Service unavailable",
}
_BAD: Final = frozenset({"reference_rejected", "upload_expired", "upload_incomplete", "unpriced"})
"""What this API has no status of its own for: the option cannot be had."""
_FIELDS: Final[Mapping[str, str]] = {"count": "n", "inputs": "inputImageKeys", "operation": "type"}
"""Where a mistake at a field of our schema stands in a body of this API."""

Link = Callable[[Job, str], str]
"""From a job and a blob's key to its link."""


def request_of(body: Body) -> JobRequest:
    """Return what a body asks for, in our schema; of no use where `body.issues` has something."""
    prompt = body.text("prompt", LONGEST_PROMPT, size=lambda text: len(prompts.clean(text).text))
    kind = body.choice("type", TYPES, "text2img")
    size = body.choice("size", SIZES, SIZES[0])
    quality = body.choice("quality", QUALITIES, "medium")
    count = body.whole("n", 1, MOST, 1)
    keys = body.texts("inputImageKeys", MOST, 64)
    if kind == "edit" and not keys and not body.issues:
        body.issue("inputImageKeys", "Required when type is edit")
    if kind == "text2img" and keys:
        body.issue("inputImageKeys", "Only used when type is edit")
    if body.issues:
        return JobRequest(prompt="-")
    return JobRequest(
        prompt=prompt,
        operation="edit" if kind == "edit" else "generate",
        size=size,
        quality=cast("Quality", quality),
        count=count,
        inputs=tuple(InputRef(upload=key) for key in keys),
    )


def manner_of(request: JobRequest) -> Manner:
    """Return how this API's jobs are asked for: high is the large size, and each output has a WebP."""
    tier: Literal["2K"] | None = "2K" if request.quality == "high" else None
    return Manner(dialect="gptimage2_plus", tier=tier, variants=("webp",), links="durable")


def status_of(job: Job) -> str:
    """Return a job's state in this API's words: it has none for a cancel."""
    return "failed" if job.state is JobState.CANCELED else str(job.state)


def error_of(job: Job) -> str | None:
    """Return why a job ended without a picture; None for all others."""
    if job.state is JobState.CANCELED:
        return "Canceled"
    if job.state is JobState.BLOCKED:
        return "Blocked by content policy"
    if job.state is not JobState.FAILED:
        return None
    unreadable = job.error is not None and job.error.code == "input_unreadable"
    return "An input image could not be read" if unreadable else "Image generation failed"


def generation(job: Job, link: Link) -> dict[str, object]:
    """Return a job as this API shows one."""
    return {
        "id": job.id,
        "status": status_of(job),
        "type": type_of(job),
        "outputs": [_output(job, output, link) for output in job.outputs],
        "error": error_of(job),
        "costCredits": job.charged if job.state.ended else job.held,
        "createdAt": time_text(job.created_at),
        "completedAt": None if job.ended_at is None else time_text(job.ended_at),
    }


def webhook_body(event: str, job: Job, link: Link) -> dict[str, object]:
    """Return what a webhook of this API tells of a job's end. A success has no `error`."""
    shown = generation(job, link)
    data = {
        "generationId": job.id,
        "type": shown["type"],
        "status": shown["status"],
        "outputs": shown["outputs"],
        "error": shown["error"],
        "createdAt": shown["createdAt"],
        "completedAt": shown["completedAt"],
    }
    if shown["error"] is None:
        del data["error"]
    return {"event": event, "data": data}


def type_of(job: Job) -> str:
    """Return what a job is, in this API's words."""
    return "edit" if job.request.operation == "edit" else "text2img"


def _output(job: Job, output: Output, link: Link) -> dict[str, object]:
    """Return one image. One that was asked for elsewhere may have no WebP beside it: it stands for both."""
    webp = output.variants.get("webp", output.key)
    return {
        "png": link(job, output.key),
        "webp": link(job, webp),
        "width": output.width,
        "height": output.height,
    }


class GptImage2Plus:
    """The dialect."""

    dialect: Dialect = "gptimage2_plus"
    prefixes: tuple[str, ...] = ("/api/v1", PLACE)

    def __init__(self, parts: SpeakerParts) -> None:
        self._parts = parts
        self._jobs = parts.jobs

    def calls(self) -> Sequence[Call]:
        """Return the calls of this API."""
        write, read = Action.WRITE, Action.READ
        return (
            Call("POST", "/api/v1/generate", "createPlusGeneration", write, self.generate),
            Call("POST", "/api/v1/upload", "createPlusUpload", write, self.upload),
            Call("GET", "/api/v1/generations/{id}", "getPlusGeneration", read, self.poll),
            *AccountWebhooks(self._parts.webhooks).calls(),
        )

    async def generate(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Submit a generation.

        Answers at once with its id: read it until it has ended. The same `Idempotency-Key` answers with
        the same generation.
        """
        if self._parts.lifetime.draining:
            raise Problem("draining")
        body = Body(await read_object(exchange))
        request = request_of(body)
        if body.issues:
            return _invalid(exchange, body.issues)
        unused = ignored(exchange, body.others("prompt", "type", "size", "quality", "n", "inputImageKeys"))
        accepted, replayed = await submitted(self._parts, exchange, request, manner_of(request))
        shown = {"generationId": accepted.job.id, "status": status_of(accepted.job)}
        return tell(shown, 202, (*unused, *replayed))

    async def upload(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Announce an image to edit.

        PUT its bytes to `url`, then name `key` in `inputImageKeys`. A repeat under its `Idempotency-Key`
        has the same key and a fresh URL.
        """
        body = Body(await read_object(exchange))
        filename = body.text("filename", LONGEST_NAME)
        kind = body.choice("contentType", MEDIA_TYPES)
        size = body.whole("size", 1, MOST_BYTES)
        if body.issues:
            return _invalid(exchange, body.issues)
        key = idempotency_key(exchange)
        media_type = cast("MediaType", kind)
        ticket = await self._parts.uploads.create(exchange.who, filename, media_type, size, key)
        headers = [*ignored(exchange, body.others("filename", "contentType", "size"))]
        if ticket.replayed:
            headers.append(REPLAYED)
        return tell({"url": ticket.url, "key": ids.shown(ticket.upload.id, ids.UPLOAD)}, 200, headers)

    async def poll(self, exchange: Exchange, values: Mapping[str, str]) -> Answer:
        """Read a generation.

        Always 200: `status` says whether more will come. A job made in another API is read here too.
        """
        found = await self._jobs.get(exchange.who, job_of(values))
        exchange.usage, exchange.job = found.usage, found.job.id
        return tell(generation(found.job, self._link))

    def _link(self, job: Job, key: str) -> str:
        return address(self._parts, job, key)

    async def problem(self, problem: Problem, exchange: Exchange) -> Answer:
        """Return the answer that tells of a problem: a sentence, a code, and every mistake of a body."""
        headers: Headers = refusal_headers(problem)
        if problem.code == "invalid_request":
            return _invalid(exchange, _issues(problem), headers)
        if problem.code == "unsupported_option" or problem.code in _BAD:
            shown = {"error": problem.detail, "code": "unsupported_option"}
            return tell(shown, 400, headers)
        row = CATALOGUE[problem.code]
        status = 409 if problem.code == "idempotency_key_reused" else row.status
        known = problem.code in _SENTENCES
        if not known and status == 503:
            shown = {"error": _SENTENCES["store_unavailable"], "code": "store_unavailable"}
        else:
            shown = {"error": _SENTENCES.get(problem.code, row.title), "code": problem.code}
        return tell(shown, status, headers)


def _invalid(exchange: Exchange, issues: Sequence[Issue], headers: Headers = ()) -> Answer:
    exchange.code = "invalid_request"
    shown = {"error": sentence(issues), "code": "invalid_request", "issues": issues}
    return tell(shown, 400, headers)


def _issues(problem: Problem) -> list[Issue]:
    """Return a problem's mistakes as issues, at the places of this API's body."""
    return [_issue(flaw) for flaw in problem.flaws] or [Issue((), problem.detail, "custom")]


def _issue(flaw: Flaw) -> Issue:
    parts = [part for part in flaw.pointer.split("/") if part]
    first = [_FIELDS.get(parts[0], parts[0])] if parts else []
    rest = [int(part) for part in parts[1:] if part.isdigit()]
    return Issue((*first, *rest), flaw.detail, "custom")
