"""One request and its answer: what the rooms of this API learn of it on the way, and its way out.

The edge makes an `Exchange` and puts it into the ASGI scope; the gate adds who calls; a handler adds the
usage it read. When the answer begins, the edge dresses it with the headers that every answer carries.
An `Answer` is bytes that were built once. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from gateway.errors import Problem
from gateway.strict import Flawed, decode_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
    from typing import TypeVar

    from gateway.callers import Caller
    from policies.model import Usage

    T = TypeVar("T")
    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
    Headers = Sequence[tuple[bytes, bytes]]
    Dress = Callable[["Exchange", "Headers"], Awaitable["Headers"]]

KEY: Final = "safelight"
"""Where a scope keeps its exchange."""

JSON: Final = (b"content-type", b"application/json")
_encoder: Final = msgspec.json.Encoder()


class Vanished(Exception):  # noqa: N818 - nobody is left to be told of an error
    """The client closed the connection before its request was whole."""


async def left(receive: Receive) -> None:
    """Return when the client has left; what it still sends is passed over."""
    while (await receive())["type"] != "http.disconnect":
        pass


OFFER: Final = "safelight.offer"
"""Where a server leaves what it can do beyond ASGI, an `Offer`; with another server there is none."""


class Offer(Protocol):
    """What a server can do for one request that ASGI has no words for."""

    @property
    def arrived(self) -> bool:
        """Whether the whole body is here, so that nobody needs to wait for it."""
        ...

    async def send(self, status: int, fields: Headers, body: bytes, /) -> None:
        """Send a whole answer in one piece."""
        ...


class _Late:
    """Cancels a task whose time is up, and remembers that it did."""

    __slots__ = ("_task", "fired")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.fired = False

    def __call__(self) -> None:
        """Cancel."""
        self.fired = True
        self._task.cancel()


class Exchange:
    """What is known of one request so far. Made by the edge, filled by those it passes."""

    __slots__ = (
        "begun",
        "body_bytes",
        "body_cap",
        "body_seconds",
        "caller",
        "code",
        "dress",
        "fields",
        "head",
        "ignored",
        "job",
        "offer",
        "out",
        "receive",
        "replayed",
        "request_id",
        "rule",
        "scope",
        "sent_bytes",
        "status",
        "usage",
        "waited",
    )

    def __init__(self, scope: Scope, receive: Receive, out: Send, dress: Dress, request_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self.out = out
        self.dress = dress
        self.request_id = request_id
        self.fields: dict[bytes, bytes] = {}
        self.head = False
        self.body_cap = 0
        self.body_seconds = 0.0
        self.body_bytes = 0
        self.sent_bytes = 0
        self.status = 0
        self.begun = False
        self.caller: Caller | None = None
        self.usage: Usage | None = None
        self.code: str | None = None
        self.rule: str | None = None
        self.job: str | None = None
        self.ignored: str | None = None
        self.replayed = False
        self.waited = False
        self.offer: Offer | None = scope.get(OFFER)

    @property
    def who(self) -> Caller:
        """The caller of a route that is not public."""
        assert self.caller is not None  # noqa: S101 - the gate let nobody else pass
        return self.caller

    def text(self, name: bytes) -> str | None:
        """Return a header's value, or None where it was not sent."""
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")

    async def send(self, message: Message) -> None:
        """Send on, dressed; for HEAD without the body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.begun = True
            message["headers"] = await self.dress(self, message["headers"])
        elif self.head:
            message["body"] = b""
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self.out(message)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, dressed: in one piece where the server can."""
        if self.offer is None or self.head:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})
            return
        self.status = status
        self.begun = True
        self.sent_bytes += len(body)
        await self.offer.send(status, await self.dress(self, headers), body)

    async def body(self) -> bytes:
        """Return the whole body; raises `Problem` when it is too large or too slow."""
        if self.offer is not None and self.offer.arrived:
            return await self._collect()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler is a task
        late = _Late(task)
        timer = asyncio.get_running_loop().call_later(self.body_seconds, late)  # 5 µs less than `timeout`
        try:
            return await self._collect()
        except asyncio.CancelledError:
            if late.fired and task.uncancel() == 0:
                raise Problem("request_timeout") from None
            raise
        finally:
            timer.cancel()

    async def _collect(self) -> bytes:
        parts = [part async for part in self.pieces()]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises `Problem` when it is too large. Its time is the caller's."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Vanished
            part = message.get("body", b"")
            self.body_bytes += len(part)
            if self.body_bytes > self.body_cap:
                raise Problem("payload_too_large", f"A body here has at most {self.body_cap} bytes.")
            more = message.get("more_body", False)
            yield part

    async def json(self, kind: type[T]) -> T:
        """Return the body as a value of a type; raises `Problem` with every mistake."""
        sent = self.fields.get(b"content-type", b"")
        if sent != b"application/json" and not _is_json(sent):
            raise Problem("unsupported_media_type")
        value = decode_json(await self.body(), kind)
        if isinstance(value, Flawed):
            raise Problem("invalid_request", flaws=value.flaws)
        return value


def exchange_of(scope: Any) -> Exchange:
    """Return the exchange a scope belongs to."""
    exchange: Exchange = scope[KEY]
    return exchange


def _is_json(sent: bytes) -> bool:
    """Say whether a content type is JSON; the only parameter it may have is the charset it has anyway."""
    kind, _, parameter = sent.decode("latin-1").lower().partition(";")
    name, _, charset = parameter.strip().partition("=")
    if kind.strip() != "application/json":
        return False
    return not parameter.strip() or (
        name.strip() == "charset" and charset.strip().strip('"') in ("utf-8", "utf8")
    )


class Reply(Protocol):
    """What a handler returns: an ASGI application. Litestar calls what is annotated so as it is."""

    async def __call__(self, scope: Any, receive: Any, send: Any, /) -> None:
        """Send the answer."""


class Answer:
    """A whole answer: status, headers, bytes. It is itself an ASGI application, which Litestar calls."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        """Send it by the exchange its request belongs to."""
        await exchange_of(scope).answer(self.status, self.measured(), self.body)

    def measured(self) -> Headers:
        """Return its headers with the body's length, where there may be a body."""
        if self.status in (204, 304):
            return self.headers
        return [*self.headers, (b"content-length", b"%d" % len(self.body))]


def encode(value: object) -> bytes:
    """Return a value as JSON bytes."""
    return _encoder.encode(value)


def json_answer(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    """Return an answer of a value as JSON."""
    return Answer(status, [JSON, *headers], _encoder.encode(value))
