"""Blobs as files under one folder of this machine.

A file is written under another name, made durable, and then given its own by a hard link, which fails
where the name is taken: so a blob is whole or absent, and the first one stays. File work is done on the
loop's default threads. What the file system says comes out as our fault, without a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import math
import os
import secrets
import shutil
from typing import TYPE_CHECKING, BinaryIO, Final

from gateway.blobs.contract import BlobsUnavailable
from gateway.blobs.keys import checked, checked_folder
from gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator, Mapping
    from pathlib import Path

UNFINISHED: Final = ".unfinished"
"""The folder in which blobs are written before they get their names: no key begins with a dot."""
STALE_SECONDS: Final = 3600.0
"""How old an unfinished file must be for its writer to be surely dead."""
MOST_LASTING: Final = 10_000
"""Folders that are remembered, so that their names are made durable once."""
MOST_ROUNDS: Final = 8
"""How often a folder is gone through, or made, while others make it or delete it."""

_RACED: Final = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST})


class FolderBlobs:
    """Blobs in a folder. `link` gives a written file its name."""

    def __init__(self, root: Path, link: Callable[[Path, Path], None] = os.link) -> None:
        self._root = root
        self._link = link
        self._lasting: set[Path] = set()
        """Folders whose own names are known to be durable."""

    @property
    def put_headers(self) -> Mapping[str, str]:
        """What a PUT to `put_url` must carry: nothing, there is none."""
        return {}

    async def put(self, key: str, data: bytes) -> bytes:
        """Store a blob unless its key is taken; return what the key now holds."""
        with _faults():
            return await asyncio.to_thread(self._put, self.path(key), data)

    async def take(self, key: str, pieces: AsyncIterable[bytes]) -> str | None:
        """Store what arrives unless the key is taken; return its SHA-256 in hex, or None."""
        path, digest = self.path(key), hashlib.sha256()
        with _faults():
            fresh = await asyncio.to_thread(self._fresh)
            file = await asyncio.to_thread(fresh.open, "xb")
            try:
                async for piece in pieces:
                    digest.update(piece)
                    await asyncio.to_thread(file.write, piece)
                await asyncio.to_thread(_finish, file)
                await asyncio.to_thread(self._name, fresh, path)
            except FileExistsError:
                return None
            finally:
                file.close()
                fresh.unlink(missing_ok=True)
        return digest.hexdigest()

    async def read(self, key: str) -> bytes | None:
        """Return a blob's bytes; None where there is none, or no longer."""
        with _faults():
            return await asyncio.to_thread(_read, self.path(key))

    async def size(self, key: str) -> int | None:
        """Return how many bytes a key holds; None where there is no blob."""
        with _faults():
            return await asyncio.to_thread(_size, self.path(key))

    async def delete(self, prefix: str) -> None:
        """Remove all blobs of a job, by what `folder` returned. A job without any is no error."""
        place = self._root / checked_folder(prefix)
        with _faults():
            await asyncio.to_thread(_delete, place)
        self._lasting.discard(place)

    async def put_url(self, key: str, _media_type: str, _size: int, _seconds: int) -> str | None:
        """Return None: a folder has no address, our own route takes bytes for it."""
        checked(key)
        return None

    async def get_url(self, key: str, _seconds: int, *, attach: bool = False) -> str | None:  # noqa: ARG002 - the contract's
        """Return None: our own route serves a folder."""
        checked(key)
        return None

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

    async def close(self) -> None:
        """Do nothing: a folder is held by nobody."""

    def path(self, key: str) -> Path:
        """Return where a blob lies; `ValueError` for what is not a key."""
        return self._root / checked(key)

    def _put(self, path: Path, data: bytes) -> bytes:
        fresh = self._fresh()
        try:
            _write(fresh, data)
            self._name(fresh, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            fresh.unlink(missing_ok=True)
        return data

    def _name(self, fresh: Path, path: Path) -> None:
        """Give a written file its name, durably; `FileExistsError` where the name is taken.

        Its folder is made again where it is deleted meanwhile.
        """
        for _ in range(MOST_ROUNDS - 1):
            with contextlib.suppress(FileNotFoundError):
                return self._enter(fresh, path)
        return self._enter(fresh, path)

    def _enter(self, fresh: Path, path: Path) -> None:
        _make(path.parent)
        self._claim(fresh, path)
        _sync(path.parent)
        for place in (path.parent, path.parent.parent):
            if place not in self._lasting:
                _sync(place.parent)
                self._last(place)

    def _last(self, place: Path) -> None:
        if len(self._lasting) >= MOST_LASTING:
            self._lasting.clear()
        self._lasting.add(place)

    def _claim(self, fresh: Path, path: Path) -> None:
        """Give a written file its name; `FileExistsError` where the name is taken, which a rename ignores."""
        try:
            self._link(fresh, path)
        except (FileExistsError, FileNotFoundError):
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


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _make(path: Path) -> None:
    """Make a folder that may be there. `FileNotFoundError` where somebody deletes it just then."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if path.exists():
            raise
        raise FileNotFoundError(errno.ENOENT, "deleted meanwhile") from None


def _delete(path: Path) -> None:
    """Remove a folder, also where others put into it or delete from it meanwhile."""
    for left in reversed(range(MOST_ROUNDS)):
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno == errno.ENOENT and not path.exists():
                return
            if error.errno not in _RACED or not left:
                raise
        else:
            return


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        _finish(file)


def _finish(file: BinaryIO) -> None:
    """Make what was written durable."""
    file.flush()
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Make a folder's names durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
