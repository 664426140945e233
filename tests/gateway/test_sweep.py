"""The sweep: what is past its time goes, whole, whatever dies or fails on the way."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.audit import Record
from gateway.blobs import UNFINISHED, BlobsUnavailable, FolderBlobs
from gateway.copies import Copies
from gateway.errors import StoreUnavailable
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Retention, Swept
from gateway.worker import Sweeper
from policies.model import JobState
from tests.journeys.workbench import PATIENCE, reopened, upstreams, workbench

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.engine import Engine
    from policies.model import Job
    from tests.journeys.workbench import Workbench

RING = Keyring([Secret("s" * 32)])


class Troubled:
    """A store whose first sweeps fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.troubles: list[Exception] = [StoreUnavailable("gone"), ZeroDivisionError("bug")]

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.engine, verb)

    async def sweep(self, retention: Retention) -> Any:
        """Fail, or sweep."""
        if self.troubles:
            raise self.troubles.pop(0)
        return await self.engine.sweep(retention)


def sweeper(bench: Workbench, blobs: FolderBlobs | None = None) -> Sweeper:
    """Return a sweeper that keeps jobs for a second."""
    retention = Retention(jobs_ms=1_000, trail_ms=10**12)
    parts = bench.parts
    return Sweeper(parts.store, blobs or bench.blobs, RING, bench.telemetry, retention, parts.lifetime)


async def test_sweep_removes_jobs_images(tmp_path: Path) -> None:
    """A job past its time is removed with its images and their copies, and not a moment sooner."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.run_to_end(await bench.submit("main", slots=(2,)))
        keys = [key for output in job.outputs for key in (output.key, *output.variants.values())]
        copies = Copies(bench.blobs, bench.studio)
        assert all([await copies.ready(output.variants["thumb"]) for output in job.outputs])
        assert not await sweeper(bench).step()
        assert all([await bench.blobs.read(key) for key in keys])
        bench.clock.ahead += 2_000
        assert not await sweeper(bench).step()
        assert [await bench.blobs.read(key) for key in keys] == [None] * 4
        assert await bench.engine.get_job("acme", job.id, "ann") is None
        assert [line["jobs"] for line in bench.told("sweep")] == [1]


class Died(BaseException):
    """The end of a process: nothing after it runs in that one."""


class Dying(FolderBlobs):
    """Blobs at whose deletion the process dies, or the file system fails for one job."""

    def __init__(self, root: Path, broken: str | None = None) -> None:
        super().__init__(root)
        self.broken = broken

    async def delete(self, prefix: str) -> None:
        """Die, or fail for one job only."""
        if self.broken is None:
            raise Died
        if prefix.endswith(self.broken):
            raise BlobsUnavailable("Permission denied")
        await super().delete(prefix)


async def erase(bench: Workbench, job: Job) -> None:
    """Erase a job in the store, as its owner does."""
    await bench.engine.erase(job.tenant, job.id, lambda usage, _now: usage, Record("job.erase"))


def texts(folder: Path, text: bytes) -> list[str]:
    """Return the store's files that hold a text."""
    return [path.name for path in sorted(folder.glob("store.db*")) if text in path.read_bytes()]


@pytest.mark.parametrize("by", ["sweep", "erase"])
async def test_death_leaves_no_images(tmp_path: Path, by: str) -> None:
    """A process that dies between drop and delete leaves images that the next one's first step removes."""
    async with upstreams("main") as fakes:
        async with reopened(tmp_path, fakes) as bench:
            job = await bench.run_to_end(await bench.submit("main"))
            bench.clock.ahead += 2_000 if by == "sweep" else 0
            await (erase(bench, job) if by == "erase" else asyncio.sleep(0))
            with pytest.raises(Died):
                await sweeper(bench, Dying(tmp_path / "blobs")).step()
            assert await bench.engine.get_job("acme", job.id, "ann") is None
            assert await bench.blobs.read(job.outputs[0].key)
        async with reopened(tmp_path, fakes) as bench:
            assert not await sweeper(bench).step()
            assert await bench.blobs.read(job.outputs[0].key) is None
            assert await bench.engine.remains() == []


async def test_stuck_images_stop_no_others(tmp_path: Path) -> None:
    """Images that cannot be deleted are told and tried again; those of the jobs behind them go."""
    async with workbench(tmp_path, "main") as bench:
        jobs = [await bench.run_to_end(await bench.submit("main")) for _ in range(3)]
        for job in jobs:
            await erase(bench, job)
        with pytest.raises(BlobsUnavailable):
            await sweeper(bench, Dying(tmp_path / "blobs", jobs[0].id)).step()
        assert [await bench.blobs.read(job.outputs[0].key) is None for job in jobs] == [False, True, True]
        assert [each.job for each in await bench.engine.remains()] == [jobs[0].id]
        await sweeper(bench).step()
        assert await bench.blobs.read(jobs[0].outputs[0].key) is None


class Partly:
    """A store whose sweeps leave something behind."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.engine, verb)

    async def sweep(self, retention: Retention) -> Swept:
        """Sweep, and tell of a fault."""
        swept = await self.engine.sweep(retention)
        return replace(swept, faults=(StoreUnavailable("away"),))


async def test_swept_in_part_is_buried(tmp_path: Path) -> None:
    """A sweep that could not do all tells so; the images of what it and others removed go."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.run_to_end(await bench.submit("main"))
        await erase(bench, job)
        whole = sweeper(bench)
        partly: Any = Partly(bench.engine)
        retention = Retention(jobs_ms=1_000, trail_ms=10**12)
        one = Sweeper(partly, bench.blobs, RING, bench.telemetry, retention, bench.parts.lifetime)
        assert not await one.step()
        assert await bench.blobs.read(job.outputs[0].key) is None
        assert [line["kind"] for line in bench.told("fault")] == ["sweep"]
        assert not await whole.step()
        assert len(bench.told("fault")) == 1


async def test_erased_prompt_leaves_log(tmp_path: Path) -> None:
    """One step after an erase the prompt is in no byte of the store's files, its log included."""
    prompt = "a very private lighthouse " * 400
    async with workbench(tmp_path, "main") as bench:
        jobs = [await bench.run_to_end(await bench.submit("main", prompt=prompt)) for _ in range(5)]
        kept = await bench.submit("main", prompt="a windmill")
        for job in jobs:
            await erase(bench, job)
        assert texts(tmp_path, b"private lighthouse")
        await sweeper(bench).step()
        assert texts(tmp_path, b"private lighthouse") == []
        assert texts(tmp_path, b"a windmill") == ["store.db"]
        assert (await bench.run_to_end(kept)).state is JobState.SUCCEEDED


async def test_sweep_tidies_the_blobs(tmp_path: Path) -> None:
    """A step removes what dead writers left among the images, and tells how much."""
    async with workbench(tmp_path, "main") as bench:
        await bench.blobs.check()
        left = tmp_path / "blobs" / UNFINISHED / "0123"
        left.write_bytes(b"pix")
        os.utime(left, (0, 0))
        await sweeper(bench).step()
        assert not left.exists()
        assert [line["blobs"] for line in bench.told("sweep")] == [1]


async def test_sweep_outlives_trouble(tmp_path: Path) -> None:
    """The sweep goes on after a fault and after a bug, and ends with its process."""
    async with workbench(tmp_path, "main", store=Troubled) as bench:
        job = await bench.run_to_end(await bench.submit("main"))
        bench.clock.ahead += 2_000
        sweeping = asyncio.create_task(sweeper(bench).run())
        async with asyncio.timeout(PATIENCE):
            while await bench.blobs.read(job.outputs[0].key):  # noqa: ASYNC110 - files ring no bell
                await asyncio.sleep(0)
        bench.lifetime.begin_drain()
        await sweeping
        assert (len(bench.told("fault")), len(bench.told("bug"))) == (1, 1)
