"""The browser's files as ASGI applications by path: small enough to be answered in one piece.

The client is served always, to every origin, for it is as public as a document. The playground is
served where the operator wants it, to its own origin alone. Nothing here knows a caller.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from gateway.web import LIBRARY, OPEN, OWN, SEALED, Asset, assets, page, policy

App = Callable[[Any, Any, Any], Awaitable[None]]
Fields = tuple[tuple[str, str], ...]
Elsewhere = Callable[[], Awaitable[str | None]]
"""Returns an address pictures are read from that may be of another origin; None where there is none."""


def library() -> dict[str, App]:
    """Return the client and its types."""
    found = assets()
    return {path: _file(found[path], (*SEALED, *OPEN)) for path in sorted(LIBRARY)}


def playground(public_url: Callable[[], str], elsewhere: Elsewhere, *, dev: bool) -> dict[str, App]:
    """Return the page at `/` and its files. In `dev` the page is given its token, else it asks for one."""
    found = {path: asset for path, asset in assets().items() if path not in LIBRARY}
    template = found.pop("/")
    filled = functools.lru_cache(maxsize=1)(functools.partial(page, template, dev=dev))

    async def front(scope: Any, _receive: Any, send: Any) -> None:
        fields = (*SEALED, *OWN, ("content-security-policy", policy(_origins(await elsewhere()))))
        await _answer(scope, send, filled(public_url()), fields)

    files = {path: _file(asset, (*SEALED, *OWN)) for path, asset in found.items()}
    return {"/": front, **files}


def _origins(address: str | None) -> tuple[str, ...]:
    if address is None:
        return ()
    parts = urlsplit(address)
    return (f"{parts.scheme}://{parts.netloc}",)


def _file(asset: Asset, fields: Fields) -> App:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await _answer(scope, send, asset, fields)

    return app


async def _answer(scope: Any, send: Any, asset: Asset, fields: Fields) -> None:
    """Answer with a file, compressed for those who can read that, or say that it has not changed."""
    packed = "gzip" in (header(scope, b"accept-encoding") or "")
    tag = asset.packed_etag if packed else asset.etag
    fields = (*fields, ("content-type", asset.media_type), ("etag", tag))
    if header(scope, b"if-none-match") == tag:
        await reply(send, 304, fields, b"")
    elif packed:
        await reply(send, 200, (*fields, ("content-encoding", "gzip")), asset.packed)
    else:
        await reply(send, 200, fields, asset.body)


def header(scope: Any, name: bytes) -> str | None:
    """Return a request's header; None where it is absent or stands twice."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


async def reply(send: Any, status: int, fields: Fields, body: bytes) -> None:
    """Send a whole answer."""
    raw = [(name.encode(), value.encode()) for name, value in fields]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
