"""The two calls of an upload: announce it, and put its bytes.

The second is for whoever holds the link, and only where the house takes the bytes itself: object storage
has addresses of its own. The path must be spelled as it was signed. Bytes go on as they arrive; nothing
looks at them here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

from litestar import post, put
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from gateway.api.exchange import Answer, Exchange, exchange_of, json_answer
from gateway.api.gate import PUBLIC, closed
from gateway.api.jobs import idempotency_key
from gateway.api.queries import Query
from gateway.api.views import Time, Url, time_text
from gateway.blobs import Arrival, media_type
from gateway.errors import Problem
from gateway.inputs import MOST_BYTES
from policies import ids
from policies.access import Action
from policies.model import Flaw, MediaType

if TYPE_CHECKING:
    from gateway.uploads import Uploads

NO_STORE: Final = (b"cache-control", b"no-store")

Handler = Request[Any, Any, Any]


class UploadRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """An image that is to be brought. `filename` is for people; nothing is read out of it."""

    filename: Annotated[str, Meta(min_length=1, max_length=200)]
    content_type: MediaType
    size: Annotated[int, Meta(ge=1, le=MOST_BYTES, description="Bytes.")]


class UploadView(Struct, frozen=True):
    """Where to send an upload's bytes, with these headers, until `expires_at`. `id` is for `inputs`."""

    id: str
    url: Url
    method: Literal["PUT"]
    headers: dict[str, str]
    expires_at: Time


class UploadCalls:
    """The routes of uploads."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        return [
            post("/v1/uploads", operation_id="createUpload", status_code=201, opt=closed(Action.WRITE))(
                self.create
            ),
            put("/uploads/{key:path}", operation_id="putUpload", opt=PUBLIC)(self.put),
        ]

    async def create(self, request: Handler) -> Answer:
        """Announce an image to edit.

        Send its bytes to `url` by PUT within five minutes, then name `id` in a job's `inputs` or `mask`
        within a day. With an `Idempotency-Key` the same announcement is the same upload, at a fresh address.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        key = idempotency_key(exchange)
        asked = await exchange.json(UploadRequest)
        ticket = await self._uploads.create(exchange.who, asked.filename, asked.content_type, asked.size, key)
        exchange.replayed = ticket.replayed
        view = UploadView(
            id=ids.shown(ticket.upload.id, ids.UPLOAD),
            url=ticket.url,
            method="PUT",
            headers=ticket.headers,
            expires_at=time_text(ticket.expires_at),
        )
        return json_answer(view, 201, [(b"idempotent-replayed", b"true")] if ticket.replayed else ())

    async def put(self, request: Handler) -> Answer:
        """Send an upload's bytes.

        The link is the permission. `Content-Length` must be the size that was announced, `Content-Type`
        the type or absent. What arrived whole first stays.
        """
        exchange = exchange_of(request.scope)
        arrival = self._checked(request.scope)
        _judge(exchange, arrival)
        try:
            async with asyncio.timeout(exchange.body_seconds):
                digest = await self._uploads.receive(arrival, exchange.pieces())
        except TimeoutError:
            raise Problem("request_timeout") from None
        return Answer(200, [(b"etag", f'"{digest}"'.encode()), NO_STORE])

    def _checked(self, scope: Any) -> Arrival:
        """Return what a link lets in; `Problem` for a link that is not good."""
        key = scope["path_params"]["key"].removeprefix("/")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        parts = _parts(scope["query_string"])
        if parts is None or not raw.endswith(b"/uploads/" + key.encode()):
            raise Problem("link_invalid")
        match self._uploads.door(key, parts):
            case "invalid":
                raise Problem("link_invalid")
            case "expired":
                raise Problem("link_expired", "The address is past its time. Announce the upload again.")
            case arrival:
                return arrival


def _judge(exchange: Exchange, arrival: Arrival) -> None:
    """Raise `Problem` for a body that says it is not what was announced."""
    flaws = []
    if exchange.text(b"content-length") != str(arrival.size):
        flaws.append(Flaw("/header/content-length", f"must be {arrival.size}, as announced"))
    kind = media_type(arrival.key)
    if (exchange.text(b"content-type") or kind).lower() != kind:
        flaws.append(Flaw("/header/content-type", f"must be {kind}, as announced, or absent"))
    if flaws:
        raise Problem("invalid_request", flaws=tuple(flaws))


def _parts(query: bytes) -> dict[str, str] | None:
    """Return a link's parameters; None for a query that spells them otherwise than we do."""
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, strict_parsing=True, max_num_fields=8
        )
    except ValueError:
        return None
    plain = b"%" not in query and b"+" not in query and len(dict(pairs)) == len(pairs)
    return dict(pairs) if plain else None
