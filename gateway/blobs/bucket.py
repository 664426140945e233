"""Blobs as objects in a bucket of S3, Google Cloud Storage or Azure: the only room that knows `obstore`.

An object is made on the condition that there is none (`If-None-Match: *`), so the first one stays, as in
a folder. Credentials, region and endpoint are those of each cloud's own environment variables, such as
`AWS_ACCESS_KEY_ID` and `AWS_ENDPOINT`; nothing of them is in our settings. What a storage says comes out
as our fault in a few plain words, without its text. Clients send and fetch bytes at signed addresses.
Calls block threads of a pool: the library's own futures end in threads that abort a process on its way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, from_url

from gateway.blobs.contract import BlobsUnavailable
from gateway.blobs.keys import checked, checked_folder, file_name, media_type, probe
from gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping

    from obstore.store import GCSStore, RetryConfig, S3Store

P = ParamSpec("P")
T = TypeVar("T")

SECONDS: Final = 30.0
"""The most one verb takes, its repeats included."""
MOST_CALLS: Final = 32
"""Calls under way at once: the rest wait their turn, within their time."""
MOST_BYTES: Final = 128 * 2**20
"""What is larger was not put by the house, and is not read into its memory."""
ENDPOINTS: Final = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""Variables of the environment that hold an address; the library falls over one without its scheme."""
LISTINGS: Final = 2
"""The second list has what was put while the objects of the first were still there."""
CACHE: Final = "private, max-age=600, immutable"

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: ([1-5][0-9]{2})\b")
_DOUBLES: Final = (b"first", b"second")


class BucketBlobs:
    """Blobs under a URL such as `s3://bucket/prefix`. `options` go before the environment's.

    Raises `Refusal` for a URL or an environment that describes no storage.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str] = _NONE,
        *,
        seconds: float = SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._url = url
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._threads = ThreadPoolExecutor(MOST_CALLS, "blobs")
        for name in ENDPOINTS:
            if not os.environ.get(name, "http://").startswith(("http://", "https://")):
                raise Refusal(
                    f"blobs {url}: {name} must be a whole address, such as https://storage.example.com"
                )
        try:
            self._store = _open(url, options, seconds)
        except (BaseError, ValueError) as error:
            raise Refusal(f"blobs {url}: the environment describes no such storage") from error

    @property
    def put_headers(self) -> Mapping[str, str]:
        """What a PUT to `put_url` must carry beside its type."""
        return {"x-ms-blob-type": "BlockBlob"} if isinstance(self._store, AzureStore) else {}

    async def put(self, key: str, data: bytes) -> bytes:
        """Store a blob unless its key is taken; return what the key now holds."""
        if await self._call(self._create, checked(key), data):
            return data
        held = await self.read(key)
        if held is None:
            raise BlobsUnavailable("the key was taken and is free again")
        return held

    async def take(self, key: str, pieces: AsyncIterable[bytes]) -> str | None:
        """Store what arrives unless the key is taken; return its SHA-256 in hex, or None.

        It is held in memory meanwhile: bytes that come through here are few, others go to `put_url`.
        """
        data = b"".join([piece async for piece in pieces])
        return (
            hashlib.sha256(data).hexdigest() if await self._call(self._create, checked(key), data) else None
        )

    async def read(self, key: str) -> bytes | None:
        """Return a blob's bytes; None where there is none, or no longer, or far too many bytes."""
        return await self._call(self._read, checked(key))

    async def size(self, key: str) -> int | None:
        """Return how many bytes a key holds; None where there is no blob."""
        return await self._call(self._size, checked(key))

    async def delete(self, prefix: str) -> None:
        """Remove all blobs of a job, by what `folder` returned. A job without any is no error."""
        await self._call(self._delete, checked_folder(prefix))

    async def put_url(self, key: str, _media_type: str, _size: int, seconds: int) -> str | None:
        """Return an address that takes a PUT. It holds nobody to a type or a size: who reads, looks."""
        return await self._sign("PUT", key, seconds)

    async def get_url(self, key: str, seconds: int, *, attach: bool = False) -> str | None:
        """Return an address that serves a blob as it was put: shown. None where it is to be saved."""
        return None if checked(key) and attach else await self._sign("GET", key, seconds)

    async def tidy(self) -> int:
        """Remove nothing: an object is there whole or not at all."""
        return 0

    async def check(self) -> None:
        """Write, overwrite, read and delete an object; raises `Refusal` with what the storage does not do."""
        prefix, key = probe()
        try:
            held = [await self.put(key, data) for data in _DOUBLES]
            read = await self.read(key)
            await self.delete(prefix)
            left = await self.size(key)
        except BlobsUnavailable as error:
            raise Refusal(f"blobs {self._url}: {error}") from error
        if held != [_DOUBLES[0]] * 2 or read != _DOUBLES[0]:
            raise Refusal(f"blobs {self._url}: the storage overwrites in spite of If-None-Match")
        if left is not None:
            raise Refusal(f"blobs {self._url}: a deleted object is still there")

    async def close(self) -> None:
        """Take no more calls; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _sign(self, method: Literal["GET", "PUT"], key: str, seconds: int) -> str:
        return await self._call(obstore.sign, self._store, method, checked(key), timedelta(seconds=seconds))

    async def _call(self, verb: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Do what blocks on a thread, within the time, and map what the storage says to our fault."""
        call = partial(verb, *args, **named)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (BaseError, OSError) as error:  # TimeoutError is an OSError
            raise BlobsUnavailable(_word(error)) from error

    def _create(self, key: str, data: bytes) -> bool:
        """Store a blob, and say whether it was; not where the key is taken."""
        shown = {
            "Content-Type": media_type(key),
            "Content-Disposition": f'inline; filename="{file_name(key)}"',
            "Cache-Control": CACHE,
        }
        try:
            obstore.put(self._store, key, data, attributes=shown, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def _read(self, key: str) -> bytes | None:
        try:
            found = obstore.get(self._store, key)
            return None if found.meta["size"] > self._most_bytes else bytes(found.bytes())
        except FileNotFoundError:
            return None

    def _size(self, key: str) -> int | None:
        try:
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError:
            return None

    def _delete(self, prefix: str) -> None:
        for _ in range(LISTINGS):
            for each in obstore.list(self._store, prefix).collect():
                with contextlib.suppress(FileNotFoundError):  # another one that deletes was faster
                    obstore.delete(self._store, each["path"])


def _open(url: str, options: Mapping[str, str], seconds: float) -> S3Store | GCSStore | AzureStore:
    bound = timedelta(seconds=seconds)
    again: RetryConfig = {
        "max_retries": 2,
        "retry_timeout": bound,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": bound, "base": 2},
    }
    client = {"allow_http": True, "connect_timeout": timedelta(seconds=5), "timeout": bound}
    settings: Any = {**options, "client_options": client, "retry_config": again}
    if url.startswith("s3:"):
        settings["disable_bulk_delete"] = True  # deletes of many are what servers of S3's API differ in
    return cast("S3Store | GCSStore | AzureStore", from_url(url, **settings))


def _word(error: Exception) -> str:
    """Say in plain words what a storage did, with its own code where it gave one."""
    text = str(error)
    found = _CODE.search(text) or _STATUS.search(text)
    told = f" ({found[1]})" if found else ""
    match error:
        case TimeoutError():
            return "no answer in time"
        case FileNotFoundError():
            return f"there is no such bucket{told}"
        case PermissionDeniedError() | UnauthenticatedError():
            return f"the credentials may not do this{told}"
        case _:
            return f"no usable answer{told}"
