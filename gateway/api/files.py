"""Images by link: the link is the permission, whoever holds it.

A signed link is good for minutes, a durable one as long as its job. The path must be spelled exactly as
it was made: a percent sign or a doubled slash that would lead to the same blob is an altered link. What
a key holds never changes, so its hash is remembered and stands for it. Where blobs have addresses of
their own a reader is sent on to a fresh one; else bytes go out in pieces, at the reader's pace. A copy
that is not there is made first: one that is costs nothing more than any image.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler

from gateway.api.exchange import Answer, Reply, exchange_of
from gateway.api.gate import PUBLIC
from gateway.api.jobs import matches
from gateway.blobs import file_name, media_type
from gateway.errors import Problem

if TYPE_CHECKING:
    from gateway.api.exchange import Headers
    from gateway.blobs import Blobs, Links
    from gateway.copies import Copies

PIECE: Final = 64 * 1024
MOST_HASHES: Final = 20_000
LIFE_SECONDS: Final = 900
"""How long the address that a durable link leads to is good; a signed link's lives no longer than that."""
SHORTEST_SECONDS: Final = 60
OPEN: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Content-Disposition, ETag, X-Request-Id"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
)
BRIEF: Final = (b"cache-control", b"private, max-age=600, immutable")
LASTING: Final = (b"cache-control", b"public, max-age=86400, immutable")


class Asked(NamedTuple):
    """What a good link asks for. `seconds` is how long an address it leads to may live."""

    key: str
    attach: bool
    seconds: int
    cache: tuple[bytes, bytes]


class FileCalls:
    """The route of images."""

    def __init__(
        self,
        blobs: Blobs,
        copies: Copies,
        links: Links,
        now: Callable[[], int],
        *,
        most: int = MOST_HASHES,
    ) -> None:
        self._blobs = blobs
        self._copies = copies
        self._links = links
        self._now = now
        self._most = most
        self._hashes: dict[str, str] = {}

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handler."""
        return [get("/files/{key:path}", operation_id="getFile", opt=PUBLIC)(self.file)]

    async def file(self, request: Request[Any, Any, Any]) -> Reply:
        """Read an image by its link.

        The bytes are those the provider made, perhaps at another address: follow redirects. `download=1`
        asks for them as an attachment.
        """
        exchange = exchange_of(request.scope)
        asked = self._checked(request.scope)
        wanted = exchange.fields.get(b"if-none-match")
        known = self._hashes.get(asked.key)
        if known is not None and matches(wanted, _tag(known)):
            if not await self._is_there(asked.key):
                raise Problem("not_found", headers=dict([_OPEN_TEXT]))
            return Answer(304, [(b"etag", _tag(known)), *OPEN, asked.cache])
        away = None if exchange.head else await self._away(asked)
        if away is not None:
            return away
        data = await self._blobs.read(asked.key)
        if data is None and await self._copies.ready(asked.key):
            data = await self._blobs.read(asked.key)
        if data is None:
            raise Problem("not_found", headers=dict([_OPEN_TEXT]))
        tag = _tag(known or await self._hash(asked.key, data))
        headers = [(b"etag", tag), *OPEN, asked.cache, *_naming(asked)]
        if matches(wanted, tag):
            return Answer(304, headers)
        return Pieces(headers, data)

    async def _away(self, asked: Asked) -> Answer | None:
        """Return where an image is to be had instead; None where it is had here.

        It may be remembered for a third of the time it is good, so that nobody comes too late.
        """
        address = await self._blobs.get_url(asked.key, asked.seconds, attach=asked.attach)
        if address is None:
            return None
        if not await self._is_there(asked.key):
            raise Problem("not_found", headers=dict([_OPEN_TEXT]))
        cache = b"private, max-age=%d" % (asked.seconds // 3)
        return Answer(302, [(b"location", address.encode("ascii")), *OPEN, (b"cache-control", cache)])

    async def _is_there(self, key: str) -> bool:
        return await self._blobs.size(key) is not None or await self._copies.ready(key)

    def _checked(self, scope: Any) -> Asked:
        """Return what a link asks for; `Problem` for a link that is not good."""
        path = scope["path_params"]["key"].removeprefix("/")
        values = _values(scope["query_string"])
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if values is None or not raw.endswith(b"/files/" + path.encode()):
            raise Problem("link_invalid", headers=dict([_OPEN_TEXT]))
        attach = "download" in values
        if "exp" not in values:
            key = self._links.lasting(path)
            if key is None:
                raise Problem("link_invalid", headers=dict([_OPEN_TEXT]))
            return Asked(key, attach, LIFE_SECONDS, LASTING)
        now = self._now()
        match self._links.check(path, values["exp"], values["sig"], now):
            case "invalid":
                raise Problem("link_invalid", headers=dict([_OPEN_TEXT]))
            case "expired":
                raise Problem("link_expired", headers=dict([_OPEN_TEXT]))
            case "ok":
                left = int(values["exp"]) - now // 1000
                return Asked(path, attach, max(SHORTEST_SECONDS, left), BRIEF)

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
    """Return a link's parameters, as either kind of link has them; None for any other query."""
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, strict_parsing=bool(query), max_num_fields=3
        )
    except ValueError:
        return None
    values = dict(pairs)
    good = len(values) == len(pairs) and values.keys() - {"download"} in ({"exp", "sig"}, set())
    return values if good and values.get("download", "1") == "1" else None


def _tag(digest: str) -> bytes:
    return f'"{digest}"'.encode()


def _naming(asked: Asked) -> Headers:
    """Return what a browser is told the image is: its type, and `job_…-0.png` as its name."""
    kind = "attachment" if asked.attach else "inline"
    return (
        (b"content-type", media_type(asked.key).encode()),
        (b"content-disposition", f'{kind}; filename="{file_name(asked.key)}"'.encode()),
    )
