"""The keyless provider: pictures drawn in this process, for trying everything out without an account.

Two halves that meet on the wire like any adapter and its upstream. `Sandbox` builds and reads and knows
no more than other adapters do. `SandboxUpstream` answers its requests; `outbound` asks it in place of a
socket for a host whose name (RFC 6761: `.invalid`) no resolver ever finds. In dev the upstream obeys
marks in a prompt, such as `[[refuse]]` or `[[slow 5]]`, so that every ending of a job can be seen.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

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
from gateway.providers.answers import finished, inline, items, mapping, seed
from gateway.providers.openai import SIZES
from gateway.wire import Wire, WireRequest, WireResponse
from policies.model import Background, Format
from policies.retry import Failure, Phase
from policies.routing import Capabilities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.images import Studio

HOST: Final = "sandbox.safelight.invalid"
BASE_URL: Final = f"https://{HOST}/v1"

_SEEDS: Final = 2**32
_SLOWEST: Final = 60.0
_MARK: Final = re.compile(r"\[\[(fail|busy|refuse|garbage|slow|partial)(?: (\d{1,3}))?\]\]", re.ASCII)


class _Ask(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: what to draw or to edit, and how often. Pictures are base64 on the wire."""

    prompt: str
    size: str
    count: int
    format: Format
    background: Background
    seed: int | None = None
    inputs: tuple[bytes, ...] = ()
    mask: bytes | None = None


class Sandbox:
    """The sandbox's dialect. Offers the sizes OpenAI has, so that what is tried here works there."""

    kind: str = "sandbox"
    hosts: tuple[str, ...] = ()
    capabilities = Capabilities(
        operations=frozenset({"generate", "edit"}),
        sizes=SIZES,
        formats=frozenset({"png", "jpeg", "webp"}),
        backgrounds=frozenset({"auto", "transparent", "opaque"}),
        native=frozenset({"seed"}),
        max_count=10,
        inputs="bytes",
        max_inputs=16,
        mask="white",
    )

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or BASE_URL).rstrip("/")

    def authorize(self, secret: str) -> tuple[str, str]:
        """Return the header that would carry a key; no request asks for one."""
        return "Authorization", f"Bearer {secret}"

    def build(self, task: Task) -> WireRequest:
        """Return the call that draws the images."""
        ask = _Ask(
            task.prompt,
            task.size,
            task.count,
            task.format,
            task.background,
            task.seed,
            tuple([each.data for each in task.inputs]),
            None if task.mask is None else task.mask.data,
        )
        return WireRequest(
            "POST",
            f"{self.base_url}/draw",
            headers=(("Content-Type", "application/json"),),
            body=msgspec.json.encode(ask),
            seconds=task.limit_seconds,
        )

    def read(self, answer: Wire, phase: Phase, task: Task) -> Reading:
        """Say what an answer means. Total: whatever bytes come, a `Reading` goes."""
        fault = read_fault(answer)
        if fault is not None:
            return fault
        body = read_json(answer) if isinstance(answer, WireResponse) and phase is Phase.SYNC else None
        if body is None:
            return Failed(Failure.MALFORMED)
        if body.get("refused") is True:
            return Refused("input")
        images = finished([_image(item) for item in items(body.get("images"))], task.count)
        return Finished(images) if images else Failed(Failure.MALFORMED)


def _image(item: object) -> Image | None:
    fields = mapping(item)
    data = inline(fields.get("b64"))
    return Image(data=data, seed=seed(fields.get("seed"))) if data else None


class SandboxUpstream:
    """Answers the sandbox's requests. `marks` says whether prompts may ask for trouble: in dev only.

    The marks: `[[fail]]` a whole 500 · `[[busy]]` 429, to be asked again in a second · `[[refuse]]` a
    refusal · `[[slow 5]]` seconds to wait first, at most 60 · `[[partial 2]]` no more images than that ·
    `[[garbage]]` bytes that are no image. They are not drawn.
    """

    def __init__(
        self, studio: Studio, *, marks: bool, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._studio = studio
        self._marks = marks
        self._pause = pause

    async def answer(self, request: WireRequest) -> WireResponse:
        """Draw what a request asks for."""
        try:
            ask = msgspec.json.decode(request.body, type=_Ask)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _json(400, {"error": "not a request of the sandbox"})
        if ask.size not in SIZES or not 1 <= ask.count <= Sandbox.capabilities.max_count:
            return _json(400, {"error": "no such size or count"})
        marks = dict(_MARK.findall(ask.prompt)) if self._marks else {}
        if "slow" in marks:
            await self._pause(min(float(marks["slow"] or 1), _SLOWEST))
        if "fail" in marks:
            return _json(500, {"error": "a mark asked for this"})
        if "busy" in marks:
            return _json(429, {"error": "a mark asked for this"}, {"retry-after": "1"})
        if "refuse" in marks:
            return _json(200, {"refused": True})
        return await self._make(ask, marks)

    async def _make(self, ask: _Ask, marks: dict[str, str]) -> WireResponse:
        words = " ".join(_MARK.sub(" ", ask.prompt).split()) if marks else ask.prompt
        count = min(ask.count, int(marks["partial"] or 1)) if "partial" in marks else ask.count
        seeds = [_seed(ask, words, index) for index in range(count)]
        if "garbage" in marks:
            drawn = [b"no image, as a mark asked"] * count
        else:
            try:
                drawn = await asyncio.gather(*(self._picture(ask, words, each) for each in seeds))
            except ValueError:
                return _json(400, {"error": "an input is no picture"})
        images = [{"b64": base64.b64encode(d).decode(), "seed": s} for d, s in zip(drawn, seeds, strict=True)]
        return _json(200, {"images": images})

    async def _picture(self, ask: _Ask, words: str, seed: int) -> bytes:
        width, height = map(int, ask.size.split("x"))
        size, how = (width, height), (seed, ask.background, ask.format)
        if ask.inputs:
            return await self._studio.retouch(words, ask.inputs, ask.mask, size, *how)
        return await self._studio.draw(words, size, *how)


def _seed(ask: _Ask, words: str, index: int) -> int:
    """Return an image's seed: counted on from the one given, else told by the words and its place."""
    if ask.seed is not None:
        return (ask.seed + index) % _SEEDS
    text = f"{index}\0{words}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")


def _json(status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> WireResponse:
    return WireResponse(
        status, {"content-type": "application/json"} | (headers or {}), msgspec.json.encode(body)
    )
