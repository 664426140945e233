"""gptimage2.plus: submit, then ask. The only upstream here with a real idempotency key.

The same `Idempotency-Key` brings back the existing generation, so a submit may answer with any state and
is read as a poll is. The document names 600 requests an hour for a key, polls included: how often to ask
follows from what the answer says is left. 422 means the prompt was blocked, and only that. Pictures of an
edit are handed over first: announced here, then put where the answer says, without the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.providers.adapter import (
    Failed,
    Finished,
    Handed,
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
    IMAGE_SECONDS,
    STATUS_BYTES,
    STATUS_SECONDS,
    encode,
    file_name,
    finished,
    image_at,
    items,
    job_id,
    link,
    mapping,
    read_image,
    word,
)
from gateway.wire import Wire, WireRequest, WireResponse
from policies.retry import Failure, Phase
from policies.routing import Capabilities

if TYPE_CHECKING:
    from gateway.providers.adapter import Input

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
        operations=frozenset({"generate", "edit"}),
        sizes=frozenset({"1024x1024", "1024x1536", "1536x1024"}),
        formats=frozenset({"png", "webp"}),
        max_count=4,
        max_prompt=4000,
        asynchronous=True,
        idempotent=True,
        inputs="upload",
        max_inputs=4,
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
            "type": "edit" if task.operation == "edit" else "text2img",
            "size": task.size,
            "quality": task.quality,
            "n": task.count,
            "inputImageKeys": [each.name for each in task.inputs] or None,
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

    def announce(self, task: Task, at: int) -> WireRequest:
        """Return the request that asks where the picture at an index may be put."""
        given = task.inputs[at]
        body: dict[str, object] = {
            "filename": f"image-{at}.{given.media_type.removeprefix('image/')}",
            "contentType": given.media_type,
            "size": len(given.data),
        }
        return WireRequest(
            "POST",
            f"{self.base_url}/upload",
            headers=(("Content-Type", "application/json"), ("Idempotency-Key", f"{task.key}-in{at}")),
            body=encode(body),
            credential=task.entry,
            seconds=STATUS_SECONDS,
            max_bytes=STATUS_BYTES,
        )

    def handed(self, answer: Wire, task: Task, at: int) -> Handed | Failed:
        """Say what the answer to it means. Total. Nothing was paid, so what is not known may be repeated."""
        fault = read_fault(answer)
        if fault is None and isinstance(answer, WireResponse):
            body = read_json(answer) or {}
            name, url = file_name(body.get("key")), link(body.get("url"))
            if name is not None and url is not None:
                return Handed(name, _put(url, task.inputs[at]))
        if fault is None or fault.kind in (Failure.UNKNOWN, Failure.MALFORMED):
            return Failed(Failure.UNREACHABLE)
        return fault

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


def _put(url: str, given: Input) -> WireRequest:
    """Return the request that carries a picture to storage, which is not the upstream's own host."""
    return WireRequest(
        "PUT",
        url,
        headers=(("Content-Type", given.media_type),),
        body=given.data,
        seconds=IMAGE_SECONDS,
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
