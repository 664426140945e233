"""The contract of a provider adapter: two functions, no socket.

`build` spells a `Task` in the upstream's words; `read` says what its answer means. An adapter never
logs, prices, retries, sees a secret or knows a tenant. What it needs and can do it declares as
`Capabilities`; who chooses by them is `policies/routing.py`, who converts is the worker.

Refusals hide in answers with status 200, so `read` looks into bodies; what a status means when the
body says nothing special is the same for all and stands here, in `read_fault`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies.model import Money
from policies.retry import Failure, Phase

if TYPE_CHECKING:
    from policies.model import Background, Format, Operation, Quality
    from policies.routing import Capabilities


class Input(Struct, frozen=True):
    """One image an edit begins from, ready in the form the adapter's capabilities ask for.

    `data` are bytes without metadata that decode as `media_type`; `url` is where the upstream may fetch
    them; `name` is what the upstream called them when they were handed to it before (`inputs="upload"`).
    """

    media_type: str
    data: bytes = b""
    url: str | None = None
    name: str | None = None


class Task(Struct, frozen=True):
    """What one upstream call is to make, in our words, already fitted to the adapter's capabilities.

    `prompt` is final but for the fields the adapter takes natively. `key` names this piece of paid work
    and stays the same when it is sent again. `limit_seconds` bounds a call that makes the image itself.
    `upstream_id` is what a poll asks about: an answer that names another one is not believed. `inputs` and
    `mask` are an edit's; the mask is a PNG of the first input's size in the polarity that is asked for.
    """

    entry: str
    model: str
    prompt: str
    key: str
    operation: Operation = "generate"
    size: str = "1024x1024"
    ratio: str = "1:1"
    quality: Quality = "medium"
    count: int = 1
    format: Format = "png"
    background: Background = "auto"
    seed: int | None = None
    style: str | None = None
    lighting: str | None = None
    camera: str | None = None
    negative: str | None = None
    user: str | None = None
    limit_seconds: float = 120.0
    upstream_id: str | None = None
    inputs: tuple[Input, ...] = ()
    mask: Input | None = None


class Image(Struct, frozen=True):
    """One image an upstream made: its bytes, or where to fetch them."""

    data: bytes | None = None
    fetch: WireRequest | None = None
    seed: str | None = None


class Finished(Struct, frozen=True):
    """The upstream is done. There may be fewer images than asked for."""

    images: tuple[Image, ...]
    cost: Money | None = None


class Running(Struct, frozen=True):
    """The upstream works on it; `next` asks again, not before `after_ms`."""

    upstream_id: str
    next: WireRequest
    after_ms: int = 2000


class Refused(Struct, frozen=True):
    """The upstream's content policy says no."""

    stage: Literal["input", "output"] = "input"


class Failed(Struct, frozen=True):
    """No image came of it. `retry_after_ms` is the upstream's own word."""

    kind: Failure
    retry_after_ms: int | None = None


Reading = Finished | Running | Refused | Failed


class Handed(Struct, frozen=True):
    """The upstream's answer to an input announced to it: its name there, and the request that carries it."""

    name: str
    put: WireRequest


class Adapter(Protocol):
    """One upstream's dialect. Built with its base URL; holds no state."""

    kind: str
    base_url: str
    """Without a slash at its end: the configured one, or the vendor's own."""
    capabilities: Capabilities
    hosts: tuple[str, ...]
    """Hosts besides the base URL's own to which the credential may be sent."""

    def authorize(self, secret: str) -> tuple[str, str]:
        """Return the header that carries the key."""
        ...

    def build(self, task: Task) -> WireRequest:
        """Return the request that starts the paid work."""
        ...

    def read(self, answer: Wire, phase: Phase, task: Task) -> Reading:
        """Say what an answer means. Total: whatever bytes come, a `Reading` goes."""
        ...


class Hander(Adapter, Protocol):
    """An adapter whose upstream wants inputs handed over first (`inputs="upload"`); nothing of it is paid."""

    def announce(self, task: Task, at: int) -> WireRequest:
        """Return the request that announces the input at an index."""
        ...

    def handed(self, answer: Wire, task: Task, at: int) -> Handed | Failed:
        """Say what the answer to it means. Total."""
        ...


_CUTS: Final = {
    Cut.JUDGED: Failure.UNREACHABLE,
    Cut.UNREACHABLE: Failure.UNREACHABLE,
    Cut.RESET: Failure.UNKNOWN,
    Cut.TIMEOUT: Failure.UNKNOWN,
    Cut.HALF: Failure.UNKNOWN,
    Cut.TOO_LARGE: Failure.MALFORMED,
}


def read_fault(answer: Wire) -> Failed | None:
    """Say what a cut or a status other than 2xx means; None for an answer to be read.

    A complete 500, 503 or 529 is the upstream's own word that nothing was delivered. 502, 504 and 52x
    come from something in between that does not know, so they count as not known.
    """
    if isinstance(answer, WireFailure):
        return Failed(_CUTS[answer.cut])
    status = answer.status
    if 200 <= status < 300:
        return None
    if status == 429:
        return Failed(Failure.RATE_LIMITED, retry_after_ms(answer))
    if status in (401, 402, 403):
        return Failed(Failure.DENIED)
    if status in (500, 503, 529):
        return Failed(Failure.OVERLOADED, retry_after_ms(answer))
    if status >= 500 or status < 400:
        return Failed(Failure.UNKNOWN)
    return Failed(Failure.INVALID)


def retry_after_ms(answer: WireResponse) -> int | None:
    """Return the wait an answer asks for, in milliseconds; None where it names none as a number."""
    for name, unit in (("retry-after-ms", 1), ("retry-after", 1000)):
        text = answer.headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= 9:
            return int(text) * unit
    return None


def read_json(answer: WireResponse) -> dict[str, object] | None:
    """Return an answer's JSON object; None for anything else, however deep or odd."""
    try:
        value = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None
