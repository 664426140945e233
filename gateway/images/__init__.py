"""Pictures as bytes: what they are, copies and masks of them, and the sandbox's own.

This package is the only room that knows Pillow. What is delivered stays byte for byte as it was made;
only copies are encoded here. All of it is CPU work, so `Studio` does it on a few threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from gateway.images.copies import THUMB, clean, thumb, webp
from gateway.images.draw import draw
from gateway.images.masks import mask, whiten
from gateway.images.reading import NotAnImage, Picture, inspect
from gateway.images.retouch import retouch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.images.masks import Polarity
    from policies.model import Background, Format

__all__ = [
    "THUMB",
    "NotAnImage",
    "Picture",
    "Studio",
    "clean",
    "draw",
    "inspect",
    "mask",
    "retouch",
    "thumb",
    "webp",
    "whiten",
]

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Studio:
    """The threads on which pictures are read and made: never the loop, never more than `threads` at once.

    A call that is canceled leaves its thread to finish; nothing waits for it but `close`.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="studio")

    async def inspect(self, data: bytes) -> Picture | NotAnImage:
        """Do `inspect` on a thread."""
        return await self._do(inspect, data)

    async def thumb(self, data: bytes) -> bytes:
        """Do `thumb` on a thread."""
        return await self._do(thumb, data)

    async def webp(self, data: bytes) -> bytes:
        """Do `webp` on a thread."""
        return await self._do(webp, data)

    async def clean(self, data: bytes) -> bytes:
        """Do `clean` on a thread."""
        return await self._do(clean, data)

    async def mask(self, data: bytes, size: tuple[int, int], polarity: Polarity) -> bytes:
        """Do `mask` on a thread."""
        return await self._do(mask, data, size, polarity)

    async def whiten(self, data: bytes) -> bytes:
        """Do `whiten` on a thread."""
        return await self._do(whiten, data)

    async def draw(
        self,
        prompt: str,
        size: tuple[int, int],
        seed: int,
        background: Background = "auto",
        encoding: Format = "png",
    ) -> bytes:
        """Do `draw` on a thread."""
        return await self._do(draw, prompt, size, seed, background, encoding)

    async def retouch(
        self,
        prompt: str,
        inputs: Sequence[bytes],
        hole: bytes | None,
        size: tuple[int, int],
        seed: int,
        background: Background = "auto",
        encoding: Format = "png",
    ) -> bytes:
        """Do `retouch` on a thread."""
        return await self._do(retouch, prompt, inputs, hole, size, seed, background, encoding)

    async def _do(self, what: Callable[[*Args], T], *args: *Args) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, what, *args)

    def close(self) -> None:
        """Drop what waits, and return when what runs has finished. Safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
