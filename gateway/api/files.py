"""Images by signed link: the link is the permission, whoever holds it.

The path must be spelled exactly as it was signed: a percent sign or a doubled slash that would lead to
the same blob is an altered link. What a key holds never changes, so its hash is remembered and stands
for it. Bytes go out in pieces, at the reader's pace.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler

from gateway.api.exchange import Answer, Reply, exchange_of
from gateway.api.gate import PUBLIC
from gateway.api.jobs import matches
from gateway.errors import Problem
from policies import ids

if TYPE_CHECKING:
    from gateway.api.exchange import Headers
    from gateway.blobs import Blobs, Links

PIECE: Final = 64 * 1024
MOST_HASHES: Final = 20_000
MEDIA_TYPES: Final = {"png": b"image/png", "jpg": b"image/jpeg", "webp": b"image/webp"}
OPEN: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Content-Disposition, ETag, X-Request-Id"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"cache-control", b"private, max-age=600, immutable"),
    (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
)


class FileCalls:
    """The route of images."""

    def __init__(
        self, blobs: Blobs, links: Links, now: Callable[[], int], *, most: int = MOST_HASHES
    ) -> None:
        self._blobs = blobs
        self._links = links
        self._now = now
        self._most = most
        self._hashes: dict[str, str] = {}

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handler."""
        return [get("/files/{key:path}", operation_id="getFile", opt=PUBLIC)(self.file)]

    async def file(self, request: Request[Any, Any, Any]) -> Reply:
        """Read an image by its signed link.

        The bytes are those the provider made. `download=1` asks for them as an attachment.
        """
        exchange = exchange_of(request.scope)
        key, download = self._checked(request.scope)
        known = self._hashes.get(key)
        if known is not None and matches(exchange.fields.get(b"if-none-match"), _tag(known)):
            return Answer(304, [(b"etag", _tag(known)), *OPEN])
        data = await self._blobs.read(key)
        if data is None:
            raise Problem("not_found", headers=dict([_OPEN_TEXT]))
        tag = _tag(known or await self._hash(key, data))
        headers = [(b"etag", tag), *OPEN, *_naming(key, attach=download)]
        if matches(exchange.fields.get(b"if-none-match"), tag):
            return Answer(304, headers)
        return Pieces(headers, data)

    def _checked(self, scope: Any) -> tuple[str, bool]:
        """Return the key a link names and whether to attach; `Problem` for a link that is not good."""
        key = scope["path_params"]["key"].removeprefix("/")
        values = _values(scope["query_string"])
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if values is None or not raw.endswith(b"/files/" + key.encode()):
            raise Problem("link_invalid", headers=dict([_OPEN_TEXT]))
        match self._links.check(key, values["exp"], values["sig"], self._now()):
            case "invalid":
                raise Problem("link_invalid", headers=dict([_OPEN_TEXT]))
            case "expired":
                raise Problem("link_expired", headers=dict([_OPEN_TEXT]))
            case "ok":
                return key, values.get("download") == "1"

    async def _hash(self, key: str, data: bytes) -> str:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if len(self._hashes) >= self._most:
            del self._hashes[next(iter(self._hashes))]
        self._hashes[key] = digest
        return digest


_OPEN_TEXT: Final = ("Access-Control-Allow-Origin", "*")


class Pieces:
    """An image on its way out. Each piece waits for the reader, so a slow one holds little."""

    def __init__(self, headers: Headers, data: bytes) -> None:
        self._headers = headers
        self._data = data

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Send it."""
        headers = [*self._headers, (b"content-length", b"%d" % len(self._data))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(self._data), PIECE):
            piece = self._data[start : start + PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _values(query: bytes) -> dict[str, str] | None:
    """Return a link's parameters, each once and none unknown; None for any other query."""
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, strict_parsing=True, max_num_fields=3
        )
    except ValueError:
        return None
    values = dict(pairs)
    wanted = {"exp", "sig"} | ({"download"} & values.keys())
    plain = b"%" not in query and b"+" not in query
    good = plain and len(values) == len(pairs) and values.keys() == wanted
    return values if good and values.get("download", "1") == "1" else None


def _tag(digest: str) -> bytes:
    return f'"{digest}"'.encode()


def _naming(key: str, *, attach: bool) -> Headers:
    """Return what a browser is told the image is: its type, and `job_…-0.png` as its name."""
    _, job, name = key.split("/")
    kind = b"attachment" if attach else b"inline"
    return (
        (b"content-type", MEDIA_TYPES[name.rpartition(".")[2]]),
        (b"content-disposition", b'%s; filename="%s-%s"' % (kind, ids.shown(job).encode(), name.encode())),
    )
