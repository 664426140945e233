"""Image bytes by key, and the signed links they are read by.

A key is `<16 hex of HMAC(tenant)>/<job uuid>/<name>`: it tells nobody which tenant it is of, and no key
that is not written so reaches the file system. A blob is written whole or not at all, and once: what a
key holds never changes, so a link to it may be cached. Links are capabilities for a few minutes (HMAC
over method, key and expiry); they say nothing of who reads. No image is decoded here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING, Final, Literal

from gateway.errors import Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.secrets import Keyring
    from gateway.store.contract import Remains

STEP_MS: Final = 5 * 60_000  # links of one step are alike, so that a poll does not change a picture's URL
LEAST_MS: Final = 10 * 60_000
UNFINISHED: Final = ".unfinished"
"""The folder in which blobs are written before they get their names: no key begins with a dot."""
STALE_SECONDS: Final = 3600.0
"""How old an unfinished file must be for its writer to be surely dead."""

_FOLDER: Final = r"[0-9a-f]{16}/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY: Final = re.compile(
    rf"{_FOLDER}/(?:0|[1-9][0-9]{{0,3}})(?:\.[a-z]{{1,12}})?\.(?:png|jpg|webp)", re.ASCII
)
_PREFIX: Final = re.compile(_FOLDER, re.ASCII)
_EXPIRY: Final = re.compile(r"[1-9][0-9]{9,11}", re.ASCII)
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class BlobsUnavailable(Fault):
    """The place blobs are kept did not read or write: full, gone or forbidden. Nothing was stored."""

    code = "store_unavailable"


def folder(ring: Keyring, tenant: str, job: str) -> str:
    """Return the first two parts of the keys of a job's blobs, by its UUID's text; `delete` takes them."""
    mark = ring.sign("links", b"tenant\0" + tenant.encode())[:8].hex()
    return f"{mark}/{job}"


def places(ring: Keyring, remains: Remains) -> set[str]:
    """Return the folders a dropped job's blobs may lie in.

    Those its outputs named, whatever secret was the first then, and the one it has by today's: what a
    crash or a cancel left unnamed lies there.
    """
    return {folder(ring, remains.tenant, remains.job), *remains.places}


def is_key(text: str) -> bool:
    """Say whether a text is written as a blob's key."""
    return _KEY.fullmatch(text) is not None


class FolderBlobs:
    """Blobs as files under one folder of this machine. File work is done on the loop's default threads."""

    def __init__(self, root: Path, link: Callable[[Path, Path], None] = os.link) -> None:
        self._root = root
        self._link = link

    async def put(self, key: str, data: bytes) -> bytes:
        """Store a blob durably and return what the key now holds.

        That is `data`, or what an attempt before a crash stored under the key: it stays, and its bytes are
        the ones to go on with. May be repeated. A crash leaves a blob whole or absent.
        """
        with _faults():
            return await asyncio.to_thread(self._put, self.path(key), data)

    async def read(self, key: str) -> bytes | None:
        """Return a blob's bytes; None where there is none, or no longer."""
        with _faults():
            return await asyncio.to_thread(_read, self.path(key))

    async def delete(self, prefix: str) -> None:
        """Remove all blobs of a job, by what `folder` returned. A job without any is no error."""
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"not a job's folder: {prefix!r}")
        with _faults():
            await asyncio.to_thread(_delete, self._root / prefix)

    async def tidy(self) -> int:
        """Remove what writers that died left unfinished; return how many files."""
        with _faults():
            return await asyncio.to_thread(self._tidy)

    async def check(self) -> None:
        """Make the folder if it is missing and write to it; raises `Refusal` where that fails."""
        try:
            await asyncio.to_thread(self._probe)
        except OSError as error:
            raise Refusal(
                f"blobs folder {self._root} is not writable: {os.strerror(error.errno or 0)}"
            ) from error

    def path(self, key: str) -> Path:
        """Return where a blob lies; `ValueError` for what is not a key."""
        if not is_key(key):
            raise ValueError(f"not a blob's key: {key!r}")
        return self._root / key

    def _put(self, path: Path, data: bytes) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._fresh()
        try:
            _write(fresh, data)
            self._claim(fresh, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            fresh.unlink(missing_ok=True)
        for parent in (path.parent, path.parent.parent, self._root):
            _sync(parent)
        return data

    def _claim(self, fresh: Path, path: Path) -> None:
        """Give a written file its name; `FileExistsError` where the name is taken, which a rename ignores."""
        try:
            self._link(fresh, path)
        except FileExistsError:
            raise
        except OSError:  # no hard links here (SMB, FAT, mounted object stores): look, then rename
            if path.exists():
                raise FileExistsError(path) from None
            fresh.rename(path)

    def _fresh(self) -> Path:
        """Return the name of a file that is not there, on the same file system as the blobs."""
        folder = self._root / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        return folder / secrets.token_hex(8)

    def _tidy(self) -> int:
        """Remove stale files. Their age is told by a file made now: the clock may be another machine's."""
        fresh = self._fresh()
        fresh.touch()
        before = _written(fresh) - STALE_SECONDS
        stale = [path for path in fresh.parent.iterdir() if _written(path) < before]
        for path in (fresh, *stale):
            path.unlink(missing_ok=True)
        return len(stale)

    def _probe(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = self._fresh()
        _write(fresh, b"")
        fresh.rename(self._root / f".{fresh.name}").unlink()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Map what the file system says to our fault."""
    try:
        yield
    except OSError as error:
        raise BlobsUnavailable(os.strerror(error.errno or 0)) from error


def _written(path: Path) -> float:
    """Return when a file was written last, by its file system's clock; one that is gone is never old."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Make a folder's names durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Verdict = Literal["ok", "invalid", "expired"]


class Links:
    """Makes and checks signed links. `public_url` is asked each time, for dev learns its port late."""

    def __init__(self, ring: Keyring, public_url: Callable[[], str]) -> None:
        self._ring = ring
        self._public_url = public_url

    def make(self, key: str, now_ms: int) -> str:
        """Return an absolute link to a blob, the same one for all calls within a five-minute step."""
        expiry = str(self.expires_at(now_ms) // 1000)
        signature = (
            base64.urlsafe_b64encode(self._ring.sign("links", _signed(key, expiry))).rstrip(b"=").decode()
        )
        return f"{self._public_url().rstrip('/')}/files/{key}?exp={expiry}&sig={signature}"

    @staticmethod
    def expires_at(now_ms: int) -> int:
        """Return when a link made now runs out: the first five-minute mark at or after now + 10 min."""
        return -(-(now_ms + LEAST_MS) // STEP_MS) * STEP_MS

    def check(self, key: str, expiry: str, signature: str, now_ms: int) -> Verdict:
        """Judge the three parts of a link as they came. `expired` is said of a link we made, only."""
        if not (is_key(key) and _EXPIRY.fullmatch(expiry) and _SIGNATURE.fullmatch(signature)):
            return "invalid"
        mac = base64.urlsafe_b64decode(signature + "=")
        if base64.urlsafe_b64encode(mac).decode() != signature + "=":
            return "invalid"  # a second spelling of the same bits: the last letter has two to spare
        if not self._ring.verify("links", _signed(key, expiry), mac):
            return "invalid"
        return "ok" if now_ms < int(expiry) * 1000 else "expired"


def _signed(key: str, expiry: str) -> bytes:
    """Return what a link's signature covers; `read` stands for GET and HEAD."""
    return f"read\n{key}\n{expiry}".encode()
