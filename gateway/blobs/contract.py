"""Where image bytes are kept, as the house asks for it.

A blob is written whole or not at all, and once: what a key holds never changes, so a link to it may be
cached. `FolderBlobs` keeps them on this machine, `BucketBlobs` in object storage; nobody who holds one
asks which. Only object storage has addresses of its own, where clients send and fetch bytes without
passing through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping


class BlobsUnavailable(Fault):
    """The place blobs are kept did not read or write: full, gone or forbidden. Nothing was stored."""

    code = "store_unavailable"


class Blobs(Protocol):
    """Where image bytes are. Raises `BlobsUnavailable`, and `ValueError` for what is not a key.

    Keys are as `gateway.blobs.keys` spells them.
    """

    @property
    def put_headers(self) -> Mapping[str, str]:
        """What a PUT to `put_url` must carry beside its type, which one cloud asks for."""
        ...

    async def put(self, key: str, data: bytes) -> bytes:
        """Store a blob durably and return what the key now holds.

        That is `data`, or what an attempt before a crash stored under the key: it stays, and its bytes are
        the ones to go on with. May be repeated. A crash leaves a blob whole or absent.
        """
        ...

    async def take(self, key: str, pieces: AsyncIterable[bytes]) -> str | None:
        """Store what arrives piece by piece and return its SHA-256 in hex; None where the key is taken.

        Nothing is kept of pieces that do not come to their end.
        """
        ...

    async def read(self, key: str) -> bytes | None:
        """Return a blob's bytes; None where there is none, or no longer."""
        ...

    async def size(self, key: str) -> int | None:
        """Return how many bytes a key holds; None where there is no blob."""
        ...

    async def delete(self, prefix: str) -> None:
        """Remove all blobs of a job, by what `folder` returned. A job without any is no error.

        A blob that is put meanwhile is removed too, unless another one of the job was already gone by then:
        so who puts and finds that one gone knows that it is theirs to delete.
        """
        ...

    async def put_url(self, key: str, media_type: str, size: int, seconds: int) -> str | None:
        """Return an address that takes a PUT of a blob for some time.

        None where the house takes it itself: the caller makes a link to our own route. What is put so is
        anybody's bytes, perhaps more than once; who uses them pins their hash.
        """
        ...

    async def get_url(self, key: str, seconds: int, *, attach: bool = False) -> str | None:
        """Return an address that serves a blob for some time, to be shown or, with `attach`, to be saved.

        None where the house serves it itself. The blob need not be there: the address answers 404 then.
        """
        ...

    async def tidy(self) -> int:
        """Remove what writers that died left unfinished; return how many."""
        ...

    async def check(self) -> None:
        """Try the place by writing to it, and make it if it can be made; raises `Refusal` on trouble."""
        ...

    async def close(self) -> None:
        """Let go of it. May be called twice."""
        ...
