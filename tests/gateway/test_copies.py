"""Copies: made for the first who looks, once, of the picture alone, and never for a picture that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

from gateway.blobs import BlobsUnavailable, FolderBlobs
from gateway.copies import Copies, copies_of
from gateway.images import Studio, thumb, webp
from tests.fakes.jobs import uuid
from tests.fakes.pictures import bomb, picture

if TYPE_CHECKING:
    from pathlib import Path

PLACE = f"0123456789abcdef/{uuid(1)}"
KEY = f"{PLACE}/0.png"
THUMB = f"{PLACE}/0.thumb.webp"
FULL = f"{PLACE}/0.full.webp"
PICTURE = picture("png", 640, 480)


class Watched(FolderBlobs):
    """Blobs that write down what is asked of them, and stop before it where a test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, str]] = []
        self.before: dict[str, Callable[[], Awaitable[Any]]] = {}

    async def put(self, key: str, data: bytes) -> bytes:
        """Put, after what was to be done before."""
        await self._note("put", key)
        return await super().put(key, data)

    async def read(self, key: str) -> bytes | None:
        """Read, after what was to be done before."""
        await self._note("read", key)
        return await super().read(key)

    def puts(self) -> list[str]:
        """Return what was put, in order."""
        return [key for verb, key in self.asked if verb == "put"]

    async def _note(self, verb: str, key: str) -> None:
        self.asked.append((verb, key))
        if verb in self.before:
            await self.before[verb]()


def held(root: Path) -> list[str]:
    """Return the names of all files under a folder."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.fixture
async def blobs(tmp_path: Path) -> Watched:
    """Blobs with one picture."""
    blobs = Watched(tmp_path)
    await blobs.put(KEY, PICTURE)
    blobs.asked.clear()
    return blobs


@pytest.fixture
def studio() -> Iterator[Studio]:
    """A studio of two threads."""
    studio = Studio(2)
    yield studio
    studio.close()


@pytest.fixture
def copies(blobs: Watched, studio: Studio) -> Copies:
    """The copies of what the blobs hold."""
    return Copies(blobs, studio)


@pytest.mark.parametrize(
    ("end", "promised", "names"),
    [
        ("png", (), {"thumb": "0.thumb.webp"}),
        ("png", ("webp",), {"thumb": "0.thumb.webp", "webp": "0.full.webp"}),
        ("jpg", ("webp",), {"thumb": "0.thumb.webp", "webp": "0.full.webp"}),
        ("webp", (), {"thumb": "0.thumb.webp"}),
        ("webp", ("webp",), {"thumb": "0.thumb.webp", "webp": "0.webp"}),
    ],
)
def test_outputs_name_their_copies(
    end: str, promised: tuple[Literal["webp"], ...], names: dict[str, str]
) -> None:
    """A copy's key is known before the copy is there; what is WebP already stands for itself."""
    expected = {name: f"{PLACE}/{file}" for name, file in names.items()}
    assert copies_of(f"{PLACE}/0.{end}", promised) == expected


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(("name", "make"), [("thumb", thumb), ("full", webp)])
async def test_first_ask_makes_copy(
    blobs: Watched, copies: Copies, kind: str, name: str, make: Callable[[bytes], bytes]
) -> None:
    """A copy that is not there is made of the picture beside it, whatever the picture's type, and kept."""
    made, end = picture(kind, 500, 400), {"jpeg": "jpg"}.get(kind, kind)
    await blobs.put(f"{PLACE}/7.{end}", made)
    key = f"{PLACE}/7.{name}.webp"
    assert await copies.ready(key)
    assert await blobs.read(key) == make(made)


async def test_kept_copy_stands(blobs: Watched, copies: Copies) -> None:
    """A copy that is there is never made again, be it one of another day's making."""
    await blobs.put(THUMB, b"RIFF of before")
    blobs.asked.clear()
    assert await copies.ready(THUMB)
    assert blobs.asked == []
    assert await blobs.read(THUMB) == b"RIFF of before"


@pytest.mark.parametrize("name", ["0.png", "0.webp", "0.small.webp", "0.thumb.png", "0.thumb.jpg"])
async def test_other_keys_name_no_copy(blobs: Watched, copies: Copies, name: str) -> None:
    """What names no copy is not made, nor is anything asked for it."""
    assert not await copies.ready(f"{PLACE}/{name}")
    assert blobs.asked == []


@pytest.mark.parametrize("data", [None, b"", PICTURE[:200], bomb()], ids=["none", "empty", "cut", "bomb"])
async def test_no_picture_no_copy(blobs: Watched, copies: Copies, data: bytes | None) -> None:
    """Of a picture that is gone, or that does not decode, there is no copy, and nothing is stored."""
    if data is not None:
        await blobs.put(f"{PLACE}/1.png", data)
    blobs.asked.clear()
    for name in ("thumb", "full"):
        assert not await copies.ready(f"{PLACE}/1.{name}.webp")
    assert blobs.puts() == []


async def test_many_readers_one_making(blobs: Watched, copies: Copies) -> None:
    """However many ask for a copy while it is made, it is made once; another of its picture beside it."""
    assert await asyncio.gather(*[copies.ready(key) for key in [THUMB, FULL] * 20]) == [True] * 40
    assert sorted(blobs.puts()) == [FULL, THUMB]
    assert len(blobs.asked) == 4


async def test_few_are_made_at_once(blobs: Watched, studio: Studio) -> None:
    """However many copies are asked for, a few pictures are held in memory, and all copies come."""
    others = [f"{PLACE}/{index}.png" for index in range(1, 9)]
    for key in others:
        await blobs.put(key, PICTURE)
    reading, gate = asyncio.Semaphore(0), asyncio.Event()

    async def halt() -> None:
        reading.release()
        await gate.wait()

    blobs.asked.clear()
    blobs.before["read"] = halt
    copies = Copies(blobs, studio, at_once=3)
    asked = [asyncio.ensure_future(copies.ready(copies_of(key, ())["thumb"])) for key in others]
    for _ in range(3):
        await reading.acquire()
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(blobs.asked) == 3
    gate.set()
    assert await asyncio.gather(*asked) == [True] * 8


async def test_reader_who_goes_stops_nothing(blobs: Watched, copies: Copies) -> None:
    """When the one who asked first hangs up, those who came after still get the copy."""
    reading, gate = asyncio.Event(), asyncio.Event()

    async def halt() -> None:
        reading.set()
        await gate.wait()

    blobs.before["read"] = halt
    first = asyncio.create_task(copies.ready(THUMB))
    await reading.wait()
    second = asyncio.create_task(copies.ready(THUMB))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_erased_job_stays_erased(blobs: Watched, copies: Copies, tmp_path: Path) -> None:
    """A job that is erased while a copy of it is made leaves nothing, whatever the making put after that."""
    blobs.before["put"] = lambda: blobs.delete(PLACE)
    for key in (THUMB, FULL):
        assert not await copies.ready(key)
        assert held(tmp_path) == []
    assert blobs.puts() == [THUMB]


async def test_fault_is_told_and_over(blobs: Watched, copies: Copies) -> None:
    """Where the copy cannot be kept all who wait are told, and the next one who asks may have it."""

    async def full() -> None:
        raise BlobsUnavailable("No space left on device")

    blobs.before["put"] = full
    told = await asyncio.gather(copies.ready(THUMB), copies.ready(THUMB), return_exceptions=True)
    assert [type(each) for each in told] == [BlobsUnavailable] * 2
    del blobs.before["put"]
    assert await copies.ready(THUMB)


async def test_close_ends_what_began(blobs: Watched, studio: Studio) -> None:
    """Closing waits for the copy that is being made and begins none of those that wait for their turn."""
    putting, gate = asyncio.Event(), asyncio.Event()

    async def halt() -> None:
        putting.set()
        await gate.wait()

    blobs.before["put"] = halt
    copies = Copies(blobs, studio, at_once=1)
    asked = [asyncio.create_task(copies.ready(key)) for key in (THUMB, FULL)]
    await putting.wait()
    closing = asyncio.create_task(copies.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    assert [await each for each in asked] == [True, False]
    assert blobs.puts() == [THUMB]
