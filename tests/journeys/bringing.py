"""How a client brings an image: it announces it, puts it where it is told, and names it in a job."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.blobs import UNFINISHED, folder
from policies import ids
from tests.journeys.visitor import Reply, Visitor

if TYPE_CHECKING:
    from gateway.app import House
    from policies.model import Upload
    from tests.journeys.stage import Stage

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def announced(kind: str, size: int, name: str = "a picture") -> dict[str, object]:
    """Return the body that announces an upload."""
    return {"filename": name, "content_type": TYPES[kind], "size": size}


async def ticket(who: Visitor, kind: str, size: int) -> dict[str, Any]:
    """Announce an upload that is accepted; return where to put it."""
    reply = await who.post("/v1/uploads", announced(kind, size))
    assert reply.status == 201, reply
    shown: dict[str, Any] = reply.json
    return shown


async def put(url: str, data: bytes, headers: Mapping[str, str] = {}) -> Reply:
    """PUT bytes to an address, wherever it is, as one who holds no token.

    A header that is empty is not sent. A storage may say one of its own twice.
    """
    parts = urllib.parse.urlsplit(url)
    fields = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(data)), **headers}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    head = "\r\n".join([f"PUT {parts.path}?{parts.query} HTTP/1.1", *lines, "", ""]).encode()
    async with await Visitor(f"http://{parts.netloc}", []).dial() as line:
        line.write(head + data)
        said, _, body = (await line.rest()).partition(b"\r\n\r\n")
    first, *rest = said.decode("latin-1").split("\r\n")
    told = {name.lower(): value for name, value in (each.split(": ", 1) for each in rest)}
    return Reply(int(first.split(" ")[1]), told, body)


async def brought(who: Visitor, data: bytes, kind: str = "png") -> str:
    """Bring an image; return its upload's id."""
    place = await ticket(who, kind, len(data))
    reply = await put(place["url"], data, place["headers"])
    assert reply.status == 200, reply
    return str(place["id"])


async def planted(house: House, upload: Upload, data: bytes) -> None:
    """Have bytes lie where an upload's are, whatever was announced."""
    assert await house.blobs.put(house.uploads.key(upload), data) == data


async def edit(who: Visitor, upload: str, **more: Any) -> Reply:
    """Ask for an edit of an upload."""
    return await who.submit(operation="edit", inputs=[{"upload": upload}], **more)


async def row(stage: Stage, upload: str) -> Upload | None:
    """Return what the store keeps of an upload."""
    return await stage.house.store.get_upload("acme", ids.parse(upload, ids.UPLOAD) or "")


async def files(stage: Stage, upload: str) -> list[str]:
    """Return the ends of keys under which an upload has bytes."""
    place = folder(stage.house.ring, "acme", ids.parse(upload, ids.UPLOAD) or "")
    sizes = {end: await stage.house.blobs.size(f"{place}/0.{end}") for end in ("png", "jpg", "webp")}
    return [end for end, size in sizes.items() if size is not None]


def kept(stage: Stage) -> list[str]:
    """Return the names of all blobs of a house whose blobs are files; a sweep may be writing its own."""
    found = (path for path in (stage.folder / "blobs").rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.parent.name != UNFINISHED)
