"""gptimage2.plus: submit, then ask. The only upstream here with a real idempotency key.

The same `Idempotency-Key` brings back the existing generation, so a submit may answer with any state and
is read as a poll is. The document names 600 requests an hour for a key, polls included: how often to ask
follows from what the answer says is left. 422 means the prompt was blocked, and only that.
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
    word,
)
from gateway.wire import Wire, WireRequest, WireResponse
from policies.retry import Failure, Phase
from policies.routing import Capabilities

BASE_URL: Final = "https://gptimage2.plus/api/v1"

_PACES: Final = ((300, 3_000), (100, 10_000), (0, 30_000))
"""Requests left in the hour, and the milliseconds between two polls while there are as many."""
_PACE: Final = 6_000
"""The pace of 600 an hour, where an answer does not say what is left."""
_FASTEST: Final = 20
_SLOWEST: Final = 60_000


class GptImage2Plus:
    """gptimage2.plus's dialect."""

    kind: str = "gptimage2_plus"
    hosts: tuple[str, ...] = ()
    capabilities = Capabilities(
        sizes=frozenset({"1024x1024", "1024x1536", "1536x1024"}),
        formats=frozenset({"png", "webp"}),
        max_count=4,
        max_prompt=4000,
        asynchronous=True,
        idempotent=True,
    )

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or BASE_URL).rstrip("/")

    def authorize(self, secret: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        return "Authorization", f"Bearer {secret}"

    def build(self, task: Task) -> WireRequest:
        """Return the call that starts a generation, or finds the one already started under this key."""
        body: dict[str, object] = {
            "prompt": task.prompt,
            "type": "text2img",
            "size": task.size,
            "quality": task.quality,
            "n": task.count,
        }
        return WireRequest(
            "POST",
            f"{self.base_url}/generate",
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
        if answer.status == 422:
            return Refused("input")
        if fault is not None:
            return _fault(answer.status, fault, phase)
        return self._read_state(answer, task)

    def _read_state(self, answer: WireResponse, task: Task) -> Reading:
        body = read_json(answer) or {}
        state = word(body.get("status"))
        name = job_id(body.get("generationId")) or job_id(body.get("id"))
        if name and task.upstream_id and name != task.upstream_id:
            return Failed(Failure.MALFORMED)
        if state == "succeeded":
            images = finished(
                [_image(each, task) for each in items(body.get("outputs"))[: task.count]], task.count
            )
            return Finished(images) if images else Failed(Failure.MALFORMED)
        if state == "blocked":
            return Refused("output" if "output" in word(body.get("error")) else "input")
        if state == "failed":
            return Failed(Failure.LOST)
        if name is None or state not in ("queued", "running"):
            return Failed(Failure.MALFORMED)
        return Running(name, self._poll(name, task), _pace(answer))

    def _poll(self, name: str, task: Task) -> WireRequest:
        return WireRequest(
            "GET",
            f"{self.base_url}/generations/{name}",
            credential=task.entry,
            seconds=STATUS_SECONDS,
            max_bytes=STATUS_BYTES,
        )


def _fault(status: int, fault: Failed, phase: Phase) -> Failed:
    """Return a fault, but doubt two statuses the document does not name.

    A poll's 404 may be a row not yet seen by the replica that was asked, and a submit's 409 the same
    key still at work: neither says that nothing was made.
    """
    if (status in (404, 410) and phase is Phase.POLL) or (status == 409 and phase is Phase.SUBMIT):
        return Failed(Failure.UNKNOWN)
    return fault


def _image(item: object, task: Task) -> Image | None:
    """Return the link in the format asked for; every output has both."""
    return image_at(mapping(item).get("webp" if task.format == "webp" else "png"))


def _pace(answer: WireResponse) -> int:
    """Return how long to wait before the next poll: the upstream's word, else by what is left."""
    told = retry_after_ms(answer)
    if told is not None:
        return min(max(told, _FASTEST), _SLOWEST)
    left = answer.headers.get("x-ratelimit-remaining", "")
    if not left.isascii() or not left.isdigit() or len(left) > 9:
        return _PACE
    return next(pace for floor, pace in _PACES if int(left) >= floor)
