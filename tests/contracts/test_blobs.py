"""Whatever keeps blobs keeps them alike: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.blobs import Blobs, BlobsUnavailable, FolderBlobs, folder
from gateway.blobs.bucket import BucketBlobs
from gateway.errors import Refusal
from gateway.secrets import Keyring, Secret
from tests.fakes.storage import Storage

RING: Final = Keyring([Secret("n" * 32)])
JOB: Final = "019a9f2c-7d11-7c3a-9b52-3f6f0a1b2c3d"
PLACE: Final = folder(RING, "acme", JOB)
OTHER: Final = folder(RING, "acme", "019a9f2c-7d11-7c3a-9b52-000000000000")
KEY: Final = f"{PLACE}/0.png"
VARIANT: Final = f"{PLACE}/0.thumb.webp"

Opening = Callable[[], Blobs]


def _in_folder(path: Path, _storage: Storage) -> Opening:
    return lambda: FolderBlobs(path)


def _in_bucket(_path: Path, storage: Storage) -> Opening:
    url = storage.bucket(f"b{uuid.uuid4().hex}")
    return lambda: BucketBlobs(f"{url}/some/prefix", storage.options)


OPENERS: Final = {"folder": _in_folder, "bucket": _in_bucket}


@pytest.fixture(params=sorted(OPENERS))
def opened(request: pytest.FixtureRequest, tmp_path: Path, storage: Storage) -> Opening:
    """Open a place for blobs, the same one each time."""
    return OPENERS[request.param](tmp_path / "blobs", storage)


@pytest.fixture
def blobs(opened: Opening) -> Blobs:
    """An empty place for blobs."""
    return opened()


async def test_what_was_put_is_there(blobs: Blobs, opened: Opening) -> None:
    """What was put is read and measured, here and by another process."""
    assert await blobs.put(KEY, b"pixels") == b"pixels"
    for each in (blobs, opened()):
        assert (await each.read(KEY), await each.size(KEY)) == (b"pixels", 6)


async def test_large_blobs_stay_whole(blobs: Blobs) -> None:
    """Some megabytes, and no bytes at all, come back as they went."""
    for key, data in ((KEY, bytes(range(256)) * 50_000), (VARIANT, b"")):
        assert await blobs.put(key, data) == data
        assert (await blobs.read(key), await blobs.size(key)) == (data, len(data))


async def test_missing_blob_is_none(blobs: Blobs) -> None:
    """Where there is no blob there are no bytes and no size, and that is no fault."""
    assert (await blobs.read(KEY), await blobs.size(KEY)) == (None, None)


async def test_first_bytes_are_kept(blobs: Blobs) -> None:
    """The first bytes of a key stay: each later put returns those, whatever it brings."""
    assert [await blobs.put(KEY, data) for data in (b"one", b"one", b"two")] == [b"one"] * 3
    assert await blobs.read(KEY) == b"one"


async def test_racing_writers_agree(opened: Opening) -> None:
    """Of writers in several processes one wins, and all go on with the winner's bytes."""
    places = [opened() for _ in range(3)]
    held = await asyncio.gather(*(places[n % 3].put(KEY, b"%d" % n * 1000) for n in range(12)))
    assert set(held) == {await opened().read(KEY)}


async def _pieces(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


async def test_pieces_become_one_blob(blobs: Blobs) -> None:
    """What arrives in pieces is kept whole under its hash, once; a second one is not taken."""
    whole = hashlib.sha256(b"onetwo").hexdigest()
    assert await blobs.take(KEY, _pieces(b"one", b"", b"two")) == whole
    assert await blobs.take(KEY, _pieces(b"other")) is None
    assert await blobs.read(KEY) == b"onetwo"


async def test_half_arrivals_leave_nothing(blobs: Blobs) -> None:
    """Pieces that break off leave the key free for those that come to their end."""
    with pytest.raises(LookupError):
        await blobs.take(KEY, _pieces(b"one", LookupError("the client left")))
    assert await blobs.size(KEY) is None
    assert await blobs.put(KEY, b"x") == b"x"


async def test_deleting_takes_one_folder(blobs: Blobs) -> None:
    """Deleting removes all blobs of a job and none of another, and may be repeated."""
    for key in (KEY, VARIANT, f"{PLACE}/12.jpg", f"{OTHER}/0.png"):
        await blobs.put(key, b"x")
    await asyncio.gather(blobs.delete(PLACE), blobs.delete(PLACE))
    await blobs.delete(PLACE)
    assert [await blobs.read(key) for key in (KEY, VARIANT, f"{OTHER}/0.png")] == [None, None, b"x"]
    assert await blobs.put(KEY, b"new") == b"new"


async def test_deleting_finds_late_blobs(blobs: Blobs) -> None:
    """What is put while its job is deleted does not stay, unless who put it sees that another is gone."""
    first, *_, last = keys = [f"{PLACE}/{index}.png" for index in range(10)]

    async def late() -> bool:
        while await blobs.size(first) is not None:
            pass
        try:
            await blobs.put(VARIANT, b"y")
        except BlobsUnavailable:  # nothing was stored: storages differ in what they do then
            return False
        return await blobs.size(last) is not None

    for _ in range(20):
        await asyncio.gather(*(blobs.put(key, b"x") for key in keys))
        unseen, _ = await asyncio.gather(late(), blobs.delete(PLACE))
        assert not unseen or await blobs.size(VARIANT) is None
        await blobs.delete(PLACE)


@pytest.mark.parametrize("prefix", ["", ".", "/", PLACE[:16], PLACE[:-1], PLACE + "/", KEY, f"../{PLACE}"])
async def test_nothing_wider_is_deleted(blobs: Blobs, prefix: str) -> None:
    """What is not exactly one job's folder is refused, and everything stays."""
    await blobs.put(KEY, b"x")
    with pytest.raises(ValueError, match="not a job's folder"):
        await blobs.delete(prefix)
    assert await blobs.read(KEY) == b"x"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["", "0.png", "/" + KEY, KEY + "\n", KEY + "?x", f"{PLACE}/../0.png"]) | st.text())
async def test_other_texts_are_refused(blobs: Blobs, key: str) -> None:
    """Every verb that takes a key refuses what is none, before anything is asked or signed."""
    for call in (
        blobs.put(key, b"x"),
        blobs.read(key),
        blobs.size(key),
        blobs.put_url(key, "image/png", 1, 60),
        blobs.get_url(key, 60),
        blobs.get_url(key, 60, attach=True),
    ):
        with pytest.raises(ValueError, match="not a blob's key"):
            await call


async def test_sound_place_passes_its_check(blobs: Blobs) -> None:
    """A place that keeps what it is given passes, keeps nothing of the check, and has nothing to tidy."""
    await blobs.check()
    assert await blobs.tidy() == 0
    await blobs.close()
    await blobs.close()


def _hurt_folder(path: Path, _storage: Storage) -> Blobs:
    path.write_bytes(b"in the way")
    return FolderBlobs(path)


def _hurt_bucket(path: Path, _storage: Storage) -> Blobs:
    path.mkdir()
    with Storage(path) as dead:
        url = dead.bucket("pictures")
    return BucketBlobs(url, dead.options)


def _no_bucket(_path: Path, storage: Storage) -> Blobs:
    return BucketBlobs("s3://never-made", storage.options)


def _forbidden(_path: Path, storage: Storage) -> Blobs:
    return BucketBlobs(storage.bucket("guarded"), {**storage.options, "secret_access_key": "guessed"})


def _silent(_path: Path, storage: Storage) -> Blobs:
    return BucketBlobs(storage.bucket("late"), storage.options, seconds=0)


@pytest.mark.parametrize(
    ("hurt", "words"),
    [
        (_hurt_folder, "(Not a directory|File exists)"),
        (_hurt_bucket, "no usable answer"),
        (_no_bucket, r"there is no such bucket \(NoSuchBucket\)"),
        (_forbidden, r"the credentials may not do this \(SignatureDoesNotMatch\)"),
        (_silent, "no answer in time"),
    ],
    ids=["a file in the way", "a dead server", "no bucket", "a wrong key", "no time"],
)
async def test_trouble_is_one_fault(
    tmp_path: Path, storage: Storage, hurt: Callable[[Path, Storage], Blobs], words: str
) -> None:
    """Trouble of any kind is our fault in a few plain words, and refuses the start."""
    blobs = hurt(tmp_path / "place", storage)
    with pytest.raises(BlobsUnavailable, match=f"^{words}$") as caught:
        await blobs.put(KEY, b"x")
    assert "127.0.0.1" not in str(caught.value)
    with pytest.raises(Refusal, match=words):
        await blobs.check()
