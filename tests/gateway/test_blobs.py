"""A folder's blobs are whole and written once; a link that was altered anywhere opens nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.blobs import UNFINISHED, BlobsUnavailable, FolderBlobs, Links, folder, folders, is_key, places
from gateway.errors import Refusal
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Remains
from policies.model import Job, JobRequest, Output

if TYPE_CHECKING:
    from pathlib import Path

RING = Keyring([Secret("n" * 32), Secret("o" * 32)])
JOB = "019a9f2c-7d11-7c3a-9b52-3f6f0a1b2c3d"
OTHER = "019a9f2c-7d11-7c3a-9b52-000000000000"
FOLDER = folder(RING, "acme", JOB)
KEY = f"{FOLDER}/0.png"
LINKS = Links(RING, lambda: "https://images.example.com/api/")
NOW = 1_790_000_000_000


def _parts(link: str) -> tuple[str, str, str]:
    url = urlsplit(link)
    query = parse_qs(url.query, strict_parsing=True)
    return url.path.removeprefix("/api/files/"), query["exp"][0], query["sig"][0]


def _names(path: Path) -> list[str]:
    return [inner.name for inner in path.iterdir()]


@pytest.mark.parametrize("name", ["0.png", "9.jpg", "12.webp", "0.thumb.webp", "3.webp.webp"])
def test_outputs_and_variants_have_keys(name: str) -> None:
    """A key is a tenant's mark, a job and an index, with a variant's name where it is one."""
    assert is_key(f"{FOLDER}/{name}")


STRANGE = [
    "",
    "0.png",
    f"{FOLDER}/",
    f"{FOLDER}/0.png/",
    f"/{KEY}",
    f"{KEY}\n",
    f"{KEY}\0",
    f"../{KEY}",
    f"{FOLDER}/../0.png",
    f"{FOLDER}/..%2f0.png",
    f"{FOLDER}/.0.png.abc",
    f"{FOLDER}/00.png",
    f"{FOLDER}/-1.png",
    f"{FOLDER}/0.svg",
    f"{FOLDER}/0.PNG",
    f"{FOLDER}/0.a/b.png",
    f"{FOLDER}/٣.png",
    f"{FOLDER.upper()}/0.png",
    f"{FOLDER}\\0.png",
    "secret",
    "/etc/passwd",
]


@pytest.mark.parametrize("key", STRANGE)
async def test_strange_keys_reach_no_file(tmp_path: Path, key: str) -> None:
    """What is not written as a key is refused before a path is made of it, and no link to it is good."""
    blobs = FolderBlobs(tmp_path)
    for call in (blobs.read(key), blobs.put(key, b"x")):
        with pytest.raises(ValueError, match="not a blob's key"):
            await call
    assert LINKS.check(key, *_parts(LINKS.make(KEY, NOW))[1:], NOW) == "invalid"
    assert _names(tmp_path) == []


@given(st.text(max_size=80))
def test_keys_never_climb(text: str) -> None:
    """No text that passes as a key has a step up or an absolute part."""
    for key in (text, f"{FOLDER}/{text}", f"{text}/{JOB}/0.png"):
        assert not is_key(key) or (".." not in key and key.count("/") == 2 and key.isascii())


def test_folders_hide_their_tenant() -> None:
    """A folder differs by tenant, secret and job, and holds no part of the tenant's name."""
    other = Keyring([Secret("x" * 32)])
    assert (
        len(
            {
                FOLDER,
                folder(RING, "acme2", JOB),
                folder(other, "acme", JOB),
                folder(RING, "acme", OTHER),
            }
        )
        == 4
    )
    assert "acme" not in FOLDER


async def test_stored_bytes_are_read_back(tmp_path: Path) -> None:
    """What was put is read, and nothing but the blob is left in its folder."""
    blobs = FolderBlobs(tmp_path / "new")
    assert await blobs.put(KEY, b"pixels") == b"pixels"
    assert await blobs.read(KEY) == b"pixels"
    assert await blobs.size(KEY) == 6
    assert _names(blobs.path(KEY).parent) == ["0.png"]


async def test_folders_have_no_address(tmp_path: Path) -> None:
    """A folder has no address of its own for what it keeps or lacks: our own routes serve it."""
    blobs = FolderBlobs(tmp_path)
    assert await blobs.size(KEY) is None
    assert await blobs.put_url(KEY, "image/png", 1, 60) is None
    assert await blobs.get_url(KEY, 60) is None
    await blobs.close()


async def test_first_bytes_of_a_key_stay(tmp_path: Path) -> None:
    """A key never changes what it holds: a later put returns the bytes that are there."""
    blobs = FolderBlobs(tmp_path)
    assert await blobs.put(KEY, b"first") == b"first"
    assert await blobs.put(KEY, b"first") == b"first"
    assert await blobs.put(KEY, b"second") == b"first"
    assert await blobs.read(KEY) == b"first"


def _no_links(fresh: Path, path: Path) -> None:
    raise PermissionError


async def test_keys_hold_without_hard_links(tmp_path: Path) -> None:
    """On a file system without hard links blobs are stored all the same, and the first bytes stay."""
    blobs = FolderBlobs(tmp_path, link=_no_links)
    assert await blobs.put(KEY, b"first") == b"first"
    assert await blobs.put(KEY, b"second") == b"first"
    assert _names(blobs.path(KEY).parent) == ["0.png"]


@pytest.mark.parametrize(("times", "kept"), [(1, True), (5, True), (999, False)])
async def test_folder_deleted_meanwhile_is_remade(tmp_path: Path, times: int, kept: bool) -> None:  # noqa: FBT001 - a column
    """A folder that somebody deletes while a blob is put into it is made again; not for ever."""
    left = iter(range(times))

    def late(fresh: Path, path: Path) -> None:
        if next(left, None) is not None:
            path.parent.rmdir()
        os.link(fresh, path)

    blobs = FolderBlobs(tmp_path, link=late)
    if not kept:
        with pytest.raises(BlobsUnavailable, match="No such file"):
            await blobs.put(KEY, b"pixels")
    else:
        assert await blobs.put(KEY, b"pixels") == b"pixels"
    assert await blobs.read(KEY) == (b"pixels" if kept else None)
    assert _names(tmp_path / UNFINISHED) == []


async def test_trouble_of_the_folder_is_a_fault(tmp_path: Path) -> None:
    """What the file system cannot do comes out as our fault, with its word and no path."""
    (tmp_path / FOLDER[:16]).write_bytes(b"in the way")
    blobs = FolderBlobs(tmp_path)
    for call in (blobs.put(KEY, b"x"), blobs.read(KEY), blobs.delete(FOLDER)):
        with pytest.raises(BlobsUnavailable, match=r"^(Not a directory|File exists)$"):
            await call


class _Died(BaseException):
    """The end of a process: nothing after it runs in that one."""


def _dies(_fresh: Path, _path: Path) -> None:
    raise _Died


async def test_dead_writers_files_are_removed(tmp_path: Path) -> None:
    """What a writer left unfinished is no blob, hinders none, and goes once it is older than an hour."""
    blobs = FolderBlobs(tmp_path)
    await blobs.put(KEY, b"pixels")
    left = [tmp_path / UNFINISHED / name for name in ("old", "older", "young")]
    for path, hours in zip(left, (1.1, 999, 0.9), strict=True):
        path.write_bytes(b"pix")
        at = path.stat().st_mtime - hours * 3600
        os.utime(path, (at, at))
    assert await blobs.tidy() == 2
    assert await blobs.tidy() == 0
    assert _names(tmp_path / UNFINISHED) == ["young"]
    assert await blobs.read(KEY) == b"pixels"


async def test_half_a_blob_has_no_name(tmp_path: Path) -> None:
    """A put that dies before its blob is named leaves nothing under the key, and a later one stores it."""
    with pytest.raises(_Died):
        await FolderBlobs(tmp_path, link=_dies).put(KEY, b"pixels")
    blobs = FolderBlobs(tmp_path)
    assert await blobs.read(KEY) is None
    assert await blobs.put(KEY, b"other") == b"other"


async def test_remains_lie_in_all_places(tmp_path: Path) -> None:
    """A dropped job's blobs are looked for where its outputs were named and where each live secret names."""
    old = Keyring([Secret("o" * 32)])
    job = Job(JOB, "acme", "ann", JobRequest("p"), outputs=(_output(old, 0), _output(old, 1)))
    live = set(folders(RING, "acme", JOB))
    assert places(RING, Remains.of(job)) == {*live, folder(old, "acme", JOB)}
    assert places(RING, Remains("acme", JOB)) == live
    assert FOLDER in live


def _output(ring: Keyring, index: int) -> Output:
    return Output(index, f"{folder(ring, 'acme', JOB)}/{index}.png", "image/png", 1, 1, 1, "0" * 64)


async def test_check_makes_and_probes_the_folder(tmp_path: Path) -> None:
    """A folder that can be made and written passes, and no file is left in it."""
    await FolderBlobs(tmp_path / "a" / "b").check()
    assert _names(tmp_path / "a" / "b") == [UNFINISHED]
    assert _names(tmp_path / "a" / "b" / UNFINISHED) == []


async def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    """A place that cannot hold blobs refuses the start, naming the place and the system's word."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refusal, match=r"file/blobs is not writable: Not a directory"):
        await FolderBlobs(tmp_path / "file" / "blobs").check()


def test_links_are_absolute_and_open() -> None:
    """A fresh link begins with the public URL and is good until the moment it runs out."""
    link = LINKS.make(KEY, NOW)
    assert link.startswith(f"https://images.example.com/api/files/{KEY}?exp=")
    key, expiry, signature = _parts(link)
    end = int(expiry) * 1000
    assert [LINKS.check(key, expiry, signature, t) for t in (NOW, end - 1, end, end + 10**9)] == [
        "ok",
        "ok",
        "expired",
        "expired",
    ]


@given(st.integers(10**12, 4 * 10**12))
def test_links_last_ten_minutes(now: int) -> None:
    """A link ends on a five-minute mark, ten to fifteen minutes on, and does not change until then."""
    end = LINKS.expires_at(now)
    assert end % 300_000 == 0
    assert 600_000 <= end - now < 900_000
    mark = end - 600_000
    assert LINKS.make(KEY, now) == LINKS.make(KEY, mark)
    assert LINKS.make(KEY, now) != LINKS.make(KEY, mark + 1)


def test_every_altered_byte_is_invalid() -> None:
    """A link with any byte changed to any other, dropped or doubled is invalid, never expired."""
    parts = _parts(LINKS.make(KEY, NOW))
    letters = [chr(c) for c in range(33, 127)]
    for place, text in enumerate(parts):
        for at in range(len(text)):
            kept = text[:at], text[at + 1 :]
            for put in [c for c in letters if c != text[at]] + ["", text[at] * 2]:
                altered = [*parts]
                altered[place] = kept[0] + put + kept[1]
                for now in (NOW, NOW + 10**9):
                    assert LINKS.check(*altered, now) == "invalid", altered  # type: ignore[call-arg,arg-type]


@given(st.text(max_size=60), st.text(max_size=16), st.text(max_size=50))
def test_foreign_parts_are_invalid(key: str, expiry: str, signature: str) -> None:
    """Parts that were not made here are invalid, each of them and all together, whatever they hold."""
    good = _parts(LINKS.make(KEY, NOW))
    for parts in (
        (key, *good[1:]),
        (good[0], expiry, good[2]),
        (*good[:2], signature),
        (key, expiry, signature),
    ):
        assert parts == good or LINKS.check(*parts, NOW) == "invalid"


def test_links_outlive_rotation() -> None:
    """A link signed by the older secret opens while that secret is live, and not after."""
    parts = _parts(Links(Keyring([Secret("o" * 32)]), lambda: "https://a.example/api").make(KEY, NOW))
    assert LINKS.check(*parts, NOW) == "ok"
    assert Links(Keyring([Secret("n" * 32)]), str).check(*parts, NOW) == "invalid"


def test_durable_links_name_their_key() -> None:
    """A durable link names its key in 43 letters, the same each time, good by every live secret."""
    link = LINKS.durable(KEY)
    path = link.removeprefix("https://images.example.com/api/files/")
    assert link == LINKS.durable(KEY)
    assert (len(path) - len(KEY) - len("/.png"), LINKS.lasting(path)) == (43, KEY)
    older = Links(Keyring([Secret("o" * 32)]), lambda: "https://images.example.com/api").durable(KEY)
    assert older != link
    assert LINKS.lasting(older.removeprefix("https://images.example.com/api/files/")) == KEY
    assert Links(Keyring([Secret("n" * 32)]), str).lasting(older.partition("/files/")[2]) is None


@given(st.text(max_size=60), st.text(max_size=50))
def test_foreign_paths_name_nothing(head: str, tail: str) -> None:
    """Whatever is not a durable link made here names no key: no other key, token, ending or signature."""
    token = LINKS.durable(KEY).rpartition("/")[2]
    signature = _parts(LINKS.make(KEY, NOW))[2]
    for path in (head, f"{head}/{tail}", f"{KEY}/{tail}", f"{KEY}/{tail}.png", f"{head}/{token}"):
        assert LINKS.lasting(path) is None
    for path in (f"{KEY}/{signature}.png", f"{FOLDER}/1.png/{token}", f"{KEY}/{token[:-4]}.webp", f"{KEY}/"):
        assert LINKS.lasting(path) is None


def test_a_signature_fits_one_key() -> None:
    """The signature of one image opens no other image, variant, job or time."""
    _, expiry, signature = _parts(LINKS.make(KEY, NOW))
    later = str(int(expiry) + 300)
    for key in (f"{FOLDER}/1.png", f"{FOLDER}/0.thumb.webp", f"{folder(RING, 'acme', OTHER)}/0.png"):
        assert LINKS.check(key, expiry, signature, NOW) == "invalid"
    assert LINKS.check(KEY, later, signature, NOW) == "invalid"
