"""The use cases of uploads, asked directly: what is counted, what is remembered, what is no input."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.blobs import Doors, FolderBlobs
from gateway.callers import Caller
from gateway.errors import Problem
from gateway.manners import Pinned
from gateway.store.contract import Retention
from gateway.uploads import LISTED, UploadParts, Uploads
from gateway.worker import Sweeper
from policies import ids, quota
from policies.model import Deny, InputRef, Job, JobRequest, Principal, Reason, Source
from tests.fakes.jobs import PLAN
from tests.fakes.pictures import png
from tests.journeys.workbench import RING, Workbench, workbench

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.engine import Engine
    from policies.model import Upload

GOOD = png(20, 10)
ANN = Caller(Principal("acme", "ann"), PLAN, PLAN, quota.terms(PLAN, PLAN))
KEPT = Retention(jobs_ms=0, trail_ms=10**12, keys_ms=10**12)


class Counting(FolderBlobs):
    """A folder that counts what is read."""

    reads = 0

    async def read(self, key: str) -> bytes | None:
        """Count, and read."""
        self.reads += 1
        return await super().read(key)


class Between:
    """A store at which something happens once, right after a verb."""

    def __init__(self, engine: Engine, verb: str, then: Callable[[], Awaitable[object]]) -> None:
        self._engine = engine
        self._verb = verb
        self._then: Callable[[], Awaitable[object]] | None = then

    def __getattr__(self, verb: str) -> Any:
        return self._both if verb == self._verb else getattr(self._engine, verb)

    async def _both(self, *values: Any) -> Any:
        answer = await getattr(self._engine, self._verb)(*values)
        then, self._then = self._then, None
        if then is not None:
            await then()
        return answer


class Desk:
    """Uploads over a real store and folder; every URL but one of `example.org` is barred."""

    def __init__(self, bench: Workbench, folder: Path) -> None:
        self.bench = bench
        self.blobs = Counting(folder)
        numbers = itertools.count(1)
        self.parts = UploadParts(
            store=bench.engine,
            blobs=self.blobs,
            doors=Doors(RING, lambda: "https://images.example.com"),
            ring=RING,
            studio=bench.studio,
            judge=self._judge,
            mint=lambda: str(uuid.UUID(int=next(numbers))),
            now=bench.clock,
        )
        self.uploads = Uploads(self.parts)

    async def _judge(self, url: str) -> bool:
        return url.startswith("https://example.org/")

    async def bring(self, data: bytes = GOOD) -> Upload:
        """Announce an upload and have its bytes come."""
        ticket = await self.uploads.create(ANN, "a.png", "image/png", len(data))
        await self.blobs.put(self.uploads.key(ticket.upload), data)
        return ticket.upload

    async def pin(self, *inputs: InputRef, mask: InputRef | None = None) -> Pinned | Deny:
        """Pin what an edit begins from."""
        return await self.uploads.pin(ANN, JobRequest("p", "edit", inputs=inputs, mask=mask))


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    """Open the use cases."""
    async with workbench(folder) as bench:
        yield Desk(bench, folder / "uploads")


def ref(upload: Upload) -> InputRef:
    """Return how a request names an upload."""
    return InputRef(upload=ids.shown(upload.id, ids.UPLOAD))


async def test_pins_keep_their_order(tmp_path: Path) -> None:
    """Inputs are pinned in order, uploads by hash, URLs as they are, and the mask apart."""
    async with desk(tmp_path) as it:
        one, other, hole = [await it.bring(png(8, side)) for side in (8, 9, 10)]
        url = InputRef(url="https://example.org/a.png")
        pinned = await it.pin(ref(one), url, ref(other), mask=ref(hole))
        assert isinstance(pinned, Pinned)
        assert [source.upload for source in pinned.sources] == [one.id, None, other.id]
        assert [source.url for source in pinned.sources] == [None, url.url, None]
        assert pinned.mask is not None
        assert (pinned.mask.upload, len(pinned.mask.sha256 or "")) == (hole.id, 64)


@pytest.mark.parametrize(
    ("inputs", "mask", "places"),
    [
        ((InputRef(),), None, ["/inputs/0"]),
        ((), InputRef(url="https://example.org/a.png"), ["/mask"]),
        ((), InputRef(), ["/mask"]),
        (
            (InputRef(upload="up_1"), InputRef()),
            InputRef(upload=""),
            ["/inputs/0/upload", "/inputs/1", "/mask/upload"],
        ),
    ],
)
async def test_crooked_references_are_flaws(
    inputs: tuple[InputRef, ...], mask: InputRef | None, places: list[str], tmp_path: Path
) -> None:
    """A reference that names nothing, or a mask that is no upload, is a flaw at its place; all are listed."""
    async with desk(tmp_path) as it:
        answer = await it.pin(*inputs, mask=mask)
        assert isinstance(answer, Deny)
        assert (answer.reason, [flaw.pointer for flaw in answer.flaws]) == (Reason.INVALID_REQUEST, places)


async def test_good_upload_is_read_once(tmp_path: Path) -> None:
    """What was judged good is not read again, however often it is used."""
    async with desk(tmp_path) as it:
        upload = await it.bring()
        pinned = [await it.pin(ref(upload), ref(upload)) for _ in range(3)]
        assert pinned[0] == pinned[1] == pinned[2]
        assert it.blobs.reads == 1
        await it.blobs.delete(it.uploads.key(upload).rpartition("/")[0])
        gone = await it.pin(ref(upload))
        assert isinstance(gone, Deny)
        assert gone.reason is Reason.UPLOAD_INCOMPLETE


async def test_uploads_are_counted_as_writes(tmp_path: Path) -> None:
    """Announcing and keeping count, a repeat of either does not, and past the limit both are refused."""
    narrow = replace(ANN, terms=replace(ANN.terms, user=replace(ANN.terms.user, write=2)))
    async with desk(tmp_path) as it:
        for _ in range(2):
            await it.uploads.create(narrow, "a.png", "image/png", 9, "key")
            await it.uploads.keep(narrow, GOOD)
        with pytest.raises(Problem) as announced:
            await it.uploads.create(narrow, "b.png", "image/png", 9)
        with pytest.raises(Problem) as kept:
            await it.uploads.keep(narrow, png(3, 3))
        assert (announced.value.code, kept.value.code) == ("rate_limited", "rate_limited")


async def test_swept_key_says_expired(tmp_path: Path) -> None:
    """A key whose upload was swept is not free: its upload is past, and says so."""
    async with desk(tmp_path) as it:
        await it.uploads.create(ANN, "a.png", "image/png", 9, "key")
        it.bench.clock.ahead += 50 * quota.HOUR_MS
        assert (await it.bench.engine.sweep(KEPT)).uploads == 1
        with pytest.raises(Problem) as raised:
            await it.uploads.create(ANN, "a.png", "image/png", 9, "key")
        assert raised.value.code == "upload_expired"


async def test_oldest_open_job_is_asked(tmp_path: Path) -> None:
    """However many jobs are open, an upload that the oldest of them begins from is kept."""
    async with desk(tmp_path) as it:
        upload = await it.bring()
        sources = (Source(upload.id, "0" * 64),)
        await it.bench.submit(operation="edit", besides={"sources": sources})
        for _ in range(LISTED):
            await it.bench.submit(operation="edit")
        over = Job("1", "acme", "ann", JobRequest("p", "edit"), sources=sources)
        await it.uploads.forget(over)
        assert await it.bench.engine.get_upload("acme", upload.id) == upload
        await it.uploads.forget(replace(over, subject="ben"))
        assert await it.bench.engine.get_upload("acme", upload.id) is None


@pytest.mark.parametrize("verb", ["remains", "drop_upload"])
async def test_kept_again_keeps_its_bytes(tmp_path: Path, verb: str) -> None:
    """The same image in an edit after, while what the first left is cleared away, has its bytes."""
    async with desk(tmp_path) as it:

        async def again() -> None:
            await it.uploads.keep(ANN, GOOD)

        upload = await it.uploads.keep(ANN, GOOD)
        over = Job("1", "acme", "ann", JobRequest("p", "edit"), sources=(Source(upload.id, "0" * 64),))
        store: Any = Between(it.bench.engine, verb, again)
        await Uploads(replace(it.parts, store=store)).forget(over)
        sweeper = Sweeper(store, it.blobs, RING, it.bench.telemetry, KEPT, it.bench.lifetime)
        await sweeper.step()
        await sweeper.step()
        assert await it.blobs.read(it.uploads.key(upload)) == GOOD
        assert isinstance(await it.pin(ref(upload)), Pinned)


async def test_dropped_bytes_go_with_the_sweep(tmp_path: Path) -> None:
    """What could not be deleted with its upload is deleted by the next sweep, as nobody kept it again."""
    async with desk(tmp_path) as it:
        upload = await it.uploads.keep(ANN, GOOD)
        await it.bench.engine.drop_upload("acme", upload.id)
        assert await it.blobs.read(it.uploads.key(upload)) == GOOD
        await Sweeper(it.bench.engine, it.blobs, RING, it.bench.telemetry, KEPT, it.bench.lifetime).step()
        assert await it.blobs.read(it.uploads.key(upload)) is None
