"""gptimage2.ai: submit, then ask; sizes are ratios, and style, light, camera and avoid-list are fields.

A poll answers 202 while the job runs and 200 for success *and* failure, so the body's `status` decides
and the HTTP code does not. Refusals have no state of their own: they are failures whose code says so,
and the list of codes is not published. An idempotency key is advised but no header is named: one is
sent, and nothing relies on it. Pictures of an edit are fetched by the upstream from links; how many it
takes is not stated.
"""

from __future__ import annotations

from typing import Final

from gateway.providers.adapter import (
    Failed,
    Finished,
    Image,
    Reading,
    Refused,
    Running,
    Task,
    read_fault,
    read_json,
    retry_after_ms,
)
from gateway.providers.answers import (
    STATUS_BYTES,
    STATUS_SECONDS,
    encode,
    finished,
    image_at,
    items,
    job_id,
    mapping,
    read_image,
    seed,
    word,
)
from gateway.wire import Wire, WireRequest, WireResponse
from policies.retry import Failure, Phase
from policies.routing import Capabilities

BASE_URL: Final = "https://gptimage2.ai"

STYLES: Final = frozenset({"editorial-photo", "studio-product", "cinematic"})
"""The preset slugs the document names. It leaves the list open; what it does not name is not relied on."""

_REFUSAL_WORDS: Final = ("moderation", "policy", "blocked")
_PACE: Final = 2_500
_FASTEST: Final = 20
_SLOWEST: Final = 60_000


class GptImage2Ai:
    """gptimage2.ai's dialect."""

    kind: str = "gptimage2_ai"
    hosts: tuple[str, ...] = ()
    capabilities = Capabilities(
        operations=frozenset({"generate", "edit"}),
        ratios=frozenset({"1:1", "16:9", "9:16", "4:3", "3:4"}),
        qualities=frozenset({"medium"}),
        native=frozenset({"style", "lighting", "camera", "negative"}),
        styles=STYLES,
        max_count=4,
        asynchronous=True,
        inputs="url",
        max_inputs=4,
    )

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or BASE_URL).rstrip("/")

    def authorize(self, secret: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        return "Authorization", f"Bearer {secret}"

    def build(self, task: Task) -> WireRequest:
        """Return the call that starts a job."""
        body: dict[str, object] = {
            "mode": "image-to-image" if task.operation == "edit" else "text-to-image",
            "prompt": task.prompt,
            "ratio": task.ratio,
            "count": task.count,
            "style": task.style if task.style in STYLES else None,
            "lighting": task.lighting,
            "camera": task.camera,
            "negative": task.negative,
            "imageUrls": [each.url for each in task.inputs] or None,
        }
        return WireRequest(
            "POST",
            f"{self.base_url}/api/generate",
            headers=(("Content-Type", "application/json"), ("Idempotency-Key", task.key)),
            body=encode(body),
            credential=task.entry,
            seconds=min(task.limit_seconds, STATUS_SECONDS),
            max_bytes=STATUS_BYTES,
        )

    def read(self, answer: Wire, phase: Phase, task: Task) -> Reading:
        """Say what an answer means. Total: whatever bytes come, a `Reading` goes."""
        if phase is Phase.FETCH:
            return read_image(answer)
        fault = read_fault(answer)
        if not isinstance(answer, WireResponse):
            return fault or Failed(Failure.UNKNOWN)
        body = read_json(answer) or {}
        name = job_id(body.get("jobId"))
        if name and task.upstream_id and name != task.upstream_id:
            return Failed(Failure.MALFORMED)
        if _refused(body.get("error")):
            return Refused("input")
        if fault is None:
            return self._read_state(body, answer, task)
        if answer.status in (404, 410) and phase is Phase.POLL:
            return Failed(Failure.UNKNOWN)  # not named by the document, and no word that nothing was made
        return fault

    def _read_state(self, body: dict[str, object], answer: WireResponse, task: Task) -> Reading:
        state = word(body.get("status"))
        if state == "succeeded":
            images = finished([_image(each) for each in items(body.get("results"))[: task.count]], task.count)
            return Finished(images) if images else Failed(Failure.MALFORMED)
        if state == "failed":
            return Failed(Failure.LOST)
        name = job_id(body.get("jobId"))
        if name is None or state not in ("pending", "running"):
            return Failed(Failure.MALFORMED)
        told = retry_after_ms(answer)
        return Running(name, self._poll(name, task), min(max(told or _PACE, _FASTEST), _SLOWEST))

    def _poll(self, name: str, task: Task) -> WireRequest:
        return WireRequest(
            "GET",
            f"{self.base_url}/api/generate/{name}",
            credential=task.entry,
            seconds=STATUS_SECONDS,
            max_bytes=STATUS_BYTES,
        )


def _image(item: object) -> Image | None:
    fields = mapping(item)
    return image_at(fields.get("imageUrl"), seed(fields.get("seed")))


def _refused(error: object) -> bool:
    """Return whether an error's code is a refusal. The code may stand bare or inside an object."""
    code = word(error) or word(mapping(error).get("code"))
    return any(each in code for each in _REFUSAL_WORDS)
