"""What a bucket has and a folder has not: addresses of its own, and ways of being unfit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.blobs import open_blobs
from gateway.blobs.bucket import BucketBlobs
from gateway.errors import Refusal
from gateway.outbound import Outbound
from gateway.wire import Wire, WireRequest, WireResponse
from policies.egress import Allowed
from tests.fakes.raw_server import RawServer, Talk
from tests.fakes.storage import Storage
from tests.house import ROOT

KEY: Final = "0123456789abcdef/019a9f2c-7d11-7c3a-9b52-3f6f0a1b2c3d/0.png"
AZURE: Final = {"account_name": "acme", "account_key": "a2V5"}


@pytest.fixture
def name(storage: Storage) -> str:
    """A bucket nobody else uses."""
    return storage.bucket(f"n{uuid.uuid4().hex}").removeprefix("s3://")


@pytest.fixture
def blobs(storage: Storage, name: str) -> BucketBlobs:
    """Blobs in it."""
    return BucketBlobs(f"s3://{name}/pictures", storage.options)


async def asked(request: WireRequest) -> Wire:
    """Return what came of a request to this machine."""
    outbound = Outbound({}, Allowed(loopback=True))
    try:
        return await outbound.send(request)
    finally:
        await outbound.close()


async def test_signed_address_takes_bytes(blobs: BucketBlobs) -> None:
    """A client puts bytes at a signed address, and the house finds them under the key."""
    url = await blobs.put_url(KEY, "image/png", 3, 60)
    assert url is not None
    answer = await asked(WireRequest("PUT", url, (("Content-Type", "image/png"),), b"abc"))
    assert isinstance(answer, WireResponse)
    assert (answer.status, await blobs.read(KEY), await blobs.size(KEY)) == (200, b"abc", 3)


async def test_signed_address_serves_bytes(blobs: BucketBlobs) -> None:
    """A client reads at a signed address, told the type, the name, and how long it may keep it."""
    await blobs.put(KEY, b"abc")
    url = await blobs.get_url(KEY, 60)
    assert url is not None
    answer = await asked(WireRequest("GET", url))
    assert isinstance(answer, WireResponse)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"abc", "image/png")
    assert answer.headers["content-disposition"].startswith('inline; filename="job_')
    assert answer.headers["content-disposition"].endswith('-0.png"')
    assert answer.headers["cache-control"] == "private, max-age=600, immutable"


async def test_signature_fits_one_use(blobs: BucketBlobs, name: str, storage: Storage) -> None:
    """An address signed for one key and one method opens no other, and nothing opens without one."""
    await blobs.put(KEY, b"abc")
    url = await blobs.get_url(KEY, 60)
    assert url is not None
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]
    for request in (
        WireRequest("PUT", url, body=b"evil"),
        WireRequest("GET", url.replace("0.png", "1.png")),
        WireRequest("GET", url.partition("?")[0]),
        WireRequest("GET", f"{storage.endpoint}/{name}"),
    ):
        answer = await asked(request)
        assert isinstance(answer, WireResponse)
        assert answer.status == 403
    assert await blobs.read(KEY) == b"abc"


async def test_saving_goes_through_us(blobs: BucketBlobs) -> None:
    """An image that is to be saved has no address elsewhere: the name it is saved by is ours to say."""
    assert await blobs.get_url(KEY, 60, attach=True) is None


async def test_prefix_holds_everything(blobs: BucketBlobs, name: str, storage: Storage) -> None:
    """All objects lie below the prefix that was set, and deleting reaches nothing beside it."""
    beside = BucketBlobs(f"s3://{name}", storage.options)
    for each in (blobs, beside):
        await each.put(KEY, b"abc")
    assert storage.objects(name) == [KEY, f"pictures/{KEY}"]
    await blobs.delete(KEY.rpartition("/")[0])
    assert storage.objects(name) == [KEY]


async def test_huge_objects_are_not_read(storage: Storage, name: str) -> None:
    """An object larger than any the house puts is not taken into memory."""
    small = BucketBlobs(f"s3://{name}", storage.options, most_bytes=2)
    await small.put(KEY, b"abc")
    assert (await small.read(KEY), await small.size(KEY)) == (None, 3)


async def test_calls_wait_their_turn(blobs: BucketBlobs) -> None:
    """More calls than may be under way at once all get their answer."""
    await blobs.put(KEY, b"abc")
    assert set(await asyncio.gather(*(blobs.read(KEY) for _ in range(100)))) == {b"abc"}


async def test_azure_asks_for_a_header() -> None:
    """Azure's addresses take a PUT with its header alone, S3's without; both are signed without asking."""
    azure, google = (
        BucketBlobs("az://pictures/a", AZURE),
        BucketBlobs("s3://pictures", {"skip_signature": "true"}),
    )
    assert (azure.put_headers, google.put_headers) == ({"x-ms-blob-type": "BlockBlob"}, {})
    url = await azure.put_url(KEY, "image/png", 3, 60)
    assert url is not None
    assert url.startswith(f"https://acme.blob.core.windows.net/pictures/a/{KEY}?")


@pytest.mark.parametrize("url", ["az://pictures", "s3://pictures"])
def test_hopeless_environment_is_refused(url: str) -> None:
    """A storage that cannot be described refuses the start, and quotes nothing of the environment."""
    with pytest.raises(Refusal, match=f"^blobs {url}: the environment describes no such storage$"):
        BucketBlobs(url, {"endpoint": "not a place", "account": "x y", "region": "secret"})


@pytest.fixture
def without_obstore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without the extra."""
    monkeypatch.delitem(sys.modules, "gateway.blobs.bucket")
    monkeypatch.setitem(sys.modules, "obstore", None)
    yield
    monkeypatch.undo()


@pytest.mark.usefixtures("without_obstore")
def test_missing_extra_is_named() -> None:
    """Without the extra a bucket is refused with the words that install it."""
    with pytest.raises(Refusal, match=r"pip install 'safelight\[s3\]'"):
        open_blobs("s3://pictures")


def test_bucket_urls_open_buckets(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> None:
    """A bucket's URL opens one, with what the cloud's own environment variables say."""
    for variable, value in storage.environ.items():
        monkeypatch.setenv(variable, value)
    assert isinstance(open_blobs("s3://pictures/prefix"), BucketBlobs)


class Careless:
    """A storage of S3's API that ignores conditions, or keeps what was deleted."""

    def __init__(self, *, overwrites: bool, keeps: bool) -> None:
        self.overwrites = overwrites
        self.keeps = keeps
        self.held: bytes | None = None

    async def __call__(self, talk: Talk) -> None:
        """Answer one request of the check."""
        head, _, body = (await talk.request()).partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].split(b" ")
        status, said = b"200 OK", b""
        if method == b"PUT" and (self.held is None or self.overwrites):
            self.held = body
        elif method == b"PUT":
            status = b"412 Precondition Failed"
        elif b"list-type=2" in path:
            key = path.partition(b"prefix=")[2].partition(b"&")[0].replace(b"%2F", b"/") + b"0.png"
            said = (
                b"<ListBucketResult><Contents><Key>%s</Key><Size>5</Size><ETag>a</ETag><LastModified>"
                b"2026-11-20T10:00:00.000Z</LastModified></Contents></ListBucketResult>" % key
            )
        elif method == b"DELETE":
            self.held = self.held if self.keeps else None
        elif self.held is None:
            status = b"404 Not Found"
        else:
            said = self.held
        shown = b'Last-Modified: Fri, 20 Nov 2026 10:00:00 GMT\r\nETag: "a"\r\nConnection: close\r\n'
        length = b"Content-Length: %d\r\n\r\n" % len(said)
        await talk.write(
            b"HTTP/1.1 " + status + b"\r\n" + shown + length + (said if method != b"HEAD" else b"")
        )


@pytest.mark.parametrize(
    ("careless", "words"),
    [
        (Careless(overwrites=True, keeps=False), "the storage overwrites in spite of If-None-Match"),
        (Careless(overwrites=False, keeps=True), "a deleted object is still there"),
    ],
    ids=["overwrites", "keeps"],
)
async def test_careless_storage_is_refused(careless: Careless, words: str) -> None:
    """A storage that does not keep what promises rest on refuses the start, with what it does wrong."""
    async with RawServer(careless) as server:
        options = {"endpoint": f"http://127.0.0.1:{server.port}", "skip_signature": "true", "region": "r"}
        with pytest.raises(Refusal, match=words):
            await BucketBlobs("s3://pictures", options).check()


LEAVES: Final = """
import asyncio, sys
from gateway.blobs.bucket import BucketBlobs
asyncio.run(BucketBlobs(sys.argv[1]).size(sys.argv[2]))
"""


async def test_process_leaves_in_order(name: str, storage: Storage) -> None:
    """A process that ends right after a call ends by itself: no thread of the library aborts it."""
    environ = {**os.environ, **storage.environ}
    line = [sys.executable, "-c", LEAVES, f"s3://{name}", KEY]
    ended = [
        await asyncio.to_thread(subprocess.run, line, env=environ, cwd=ROOT, capture_output=True, check=False)
        for _ in range(6)
    ]
    assert [(each.returncode, each.stderr) for each in ended] == [(0, b"")] * 6


async def test_closed_bucket_takes_nothing(blobs: BucketBlobs) -> None:
    """A bucket that is closed, once or twice, leaves no thread behind and takes no call."""
    await blobs.put(KEY, b"abc")
    await blobs.close()
    await blobs.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await blobs.read(KEY)
