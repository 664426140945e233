"""Makes the copies of pictures when they are first asked for: thumbnails, and WebP in full size.

An output names its copies from the start, and most of them nobody ever looks at. So no job waits for one:
the first reader does, and it is kept beside its picture from then on. It is made of the picture alone, so
its bytes are the same whenever that is. What was erased stays erased: once a copy is put, its picture is
looked for again. Who may read one is not asked here: its link has said so.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Literal

from gateway.blobs import MEDIA_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.blobs import Blobs
    from gateway.images import Studio

AT_ONCE: Final = 2
"""Copies made at once: the jobs' own pictures pass over the same threads, and wait for no more than these."""

_COPY: Final = re.compile(r"(.+)\.(thumb|full)\.webp", re.ASCII)


def copies_of(key: str, promised: Sequence[Literal["webp"]]) -> dict[str, str]:
    """Return the keys of a picture's copies, as its output names them. A WebP is its own WebP."""
    stem, _, end = key.rpartition(".")
    names = {"thumb": f"{stem}.thumb.webp"}
    if "webp" in promised:
        names["webp"] = key if end == "webp" else f"{stem}.full.webp"
    return names


class Copies:
    """Makes each copy once in this process, whoever asks meanwhile, and few at a time."""

    def __init__(self, blobs: Blobs, studio: Studio, at_once: int = AT_ONCE) -> None:
        self._blobs = blobs
        self._studio = studio
        self._turns = asyncio.Semaphore(at_once)
        self._flights: dict[str, asyncio.Task[bool]] = {}
        self._closing = False

    async def ready(self, key: str) -> bool:
        """Say whether a copy is there to be read, having made it if it was not.

        For a key that was not found, for this looks for the picture. False for a key that names no copy,
        and where the picture is gone or does not decode. A reader who goes leaves the making to its end.
        """
        named = _COPY.fullmatch(key)
        if named is None:
            return False
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._made(key, named[1], named[2]), name=f"copy {key}")
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Begin no more, and return when those begun are whole. Before the blobs and the studio close."""
        self._closing = True
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _made(self, key: str, stem: str, kind: str) -> bool:
        async with self._turns:
            if self._closing:
                return False
            if await self._blobs.size(key) is not None:
                return True
            for end in MEDIA_TYPES:
                picture = f"{stem}.{end}"
                data = await self._blobs.read(picture)
                if data is not None:
                    copy = await self._encoded(kind, data)
                    return copy is not None and await self._kept(key, copy, picture)
            return False

    async def _encoded(self, kind: str, data: bytes) -> bytes | None:
        try:
            return await (self._studio.thumb(data) if kind == "thumb" else self._studio.webp(data))
        except ValueError:
            return None

    async def _kept(self, key: str, copy: bytes, picture: str) -> bool:
        """Store a copy, unless its job was erased since its picture was read: then nothing of it stays.

        A picture is erased before its folder is looked through for the last time (`Blobs.delete`). So a
        copy that is put while its picture is still there is found by the one who erases, a later one here.
        """
        await self._blobs.put(key, copy)
        if await self._blobs.size(picture) is not None:
            return True
        await self._blobs.delete(key.rpartition("/")[0])
        return False
