"""The file: who may open it, what it refuses to be, and what a death in mid-commit leaves."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.errors import Refusal, StoreUnavailable
from gateway.store.backend import SCHEMA, UNREADABLE_MS
from gateway.store.contract import Absent, Erased, JobFilter, Remains, Replayed
from gateway.store.engine import Engine
from gateway.store.flight import Patience
from gateway.store.format import Forms
from gateway.store.sqlite import SqliteBackend
from policies.model import Job
from tests.contracts.beside import TOLD, all_of, ended, hooked, ids, register, service_key, trials, upload
from tests.contracts.rig import SAID, Clock, Rig, attempt, counting, put, submit, take


def open_file(path: Path, *, read_only: bool = False) -> SqliteBackend:
    """Open a store at a path."""
    return SqliteBackend(path, Clock(), read_only=read_only)


def kept(folder: Path, text: bytes) -> bool:
    """Whether a text is in any file of a folder."""
    return any(text in path.read_bytes() for path in folder.iterdir())


async def test_second_writer_is_refused(tmp_path: Path) -> None:
    """A file that is open for writing is refused, by its own name or another, until it is let go."""
    path = tmp_path / "data" / "safelight.db"
    first = open_file(path)
    alias = tmp_path / "alias.db"
    alias.symlink_to(path)
    for name in (path, alias):
        with pytest.raises(Refusal, match="in use by another Safelight process"):
            open_file(name)
    await first.close()
    await first.close()
    await open_file(path).close()


async def test_readers_stand_beside_writer(tmp_path: Path) -> None:
    """A read-only opening needs no lock, sees what was committed, and cannot write."""
    rig = Rig("sqlite", tmp_path)
    store = await rig.open()
    await put(store, rig.job())
    reader = open_file(tmp_path / "safelight.db", read_only=True)
    assert await reader.tenants() == ["acme"]
    assert (await reader.ledger("acme", 0, 9))[0].entry.kind == "plan"
    with pytest.raises(StoreUnavailable):
        await reader.cut("acme", 1)
    await reader.close()
    await rig.close()


@pytest.mark.parametrize("read_only", [True, False])
async def test_newer_schema_is_refused(tmp_path: Path, *, read_only: bool) -> None:
    """A file of a later Safelight is refused with both numbers, and not touched; the lock is free again."""
    path = tmp_path / "safelight.db"
    await open_file(path).close()
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    file.close()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(Refusal, match=f"schema {SCHEMA + 1}; this Safelight knows schema {SCHEMA}"):
            open_file(path, read_only=read_only)
    assert path.read_bytes() == before


async def test_older_file_gets_additions(tmp_path: Path) -> None:
    """A file with the first tables alone is given what came after, and what is queued in it goes on."""
    rig = Rig("sqlite", tmp_path)
    job = await put(await rig.open(), rig.job())
    await rig.close()
    with sqlite3.connect(tmp_path / "safelight.db") as base:
        base.executescript("DROP TABLE batch_turns; DROP INDEX queue_line; DROP INDEX queue_turn;")
        base.execute("CREATE INDEX queue_due ON queue (tenant, due)")
    store = await rig.open()
    late = await put(store, rig.job(priority="batch"))
    assert [claim.job.id for claim in await take(store, 2)] == [job.id, late.id]
    await rig.close()


def test_other_files_are_refused(tmp_path: Path) -> None:
    """What is no data base, or another program's, is refused and left as it is."""
    text = tmp_path / "notes.db"
    text.write_bytes(b"this is not a data base, whatever its name says" * 99)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE bookmarks (url TEXT)")
    file.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(Refusal, match=r"(notes|other).db (is not|cannot be opened as) a "):
            open_file(path)
        assert path.read_bytes() == before


def test_missing_file_is_not_made(tmp_path: Path) -> None:
    """Reading where there is no store, or opening where there is no folder to be, is refused."""
    with pytest.raises(Refusal, match="cannot be opened"):
        open_file(tmp_path / "none.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Refusal, match="cannot be opened"):
        open_file(tmp_path / "folder.db")


async def test_death_before_commit_leaves_nothing(tmp_path: Path) -> None:
    """What dies between hold and commit was never there, for all of the batch, and the engine goes on."""
    deadly = [True]

    def crash(point: str) -> None:
        if point == "held" and deadly[0]:
            raise MemoryError

    rig = Rig("sqlite", tmp_path)
    store = rig.engine(SqliteBackend(tmp_path / "safelight.db", rig.clock, crash=crash))
    answers = await asyncio.gather(*(submit(store, rig.job()) for _ in range(3)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {MemoryError}
    deadly[0] = False
    await put(store, rig.job())
    assert (await store.usage("acme", "ann")).user.flight == 1
    assert await doctor.examine(store.backend, rig.chain) == []
    await rig.close()


async def test_copy_of_living_file_holds(tmp_path: Path) -> None:
    """A copy of file and log at any moment is a store of that moment: what was answered is in it."""
    rig = Rig("sqlite", tmp_path / "a")
    store = await rig.open()
    job = await put(store, rig.job())
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    (tmp_path / "b").mkdir()
    for name in ("safelight.db", "safelight.db-wal"):
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    await store.cancel("acme", job.id, counting(), SAID)
    copy = Rig("sqlite", tmp_path / "b")
    again = await copy.open()
    found = await again.get_job("acme", job.id, "ann")
    assert found is not None
    assert [each.open for each in found.job.attempts] == [True]
    assert found.job.cancel_requested_at is None
    assert await doctor.examine(again.backend, copy.chain) == []
    await rig.close()
    await copy.close()


async def test_reader_keeps_the_log(tmp_path: Path) -> None:
    """While somebody reads the moment before an erase its remains stay, and commits go on all the same."""
    rig = Rig("sqlite", tmp_path)
    store = await rig.open()
    job = await put(store, rig.job(prompt="a very private lighthouse"))
    await store.cancel("acme", job.id, counting(), SAID)
    beside = apsw.Connection(str(tmp_path / "safelight.db"))
    beside.execute("BEGIN")
    assert beside.execute("SELECT count(*) FROM jobs").get == 1
    await store.erase("acme", job.id, counting(), SAID)
    remains = await store.remains()
    assert not await store.buried(remains)
    assert await store.remains() == remains == [Remains("acme", job.id)]
    beside.close()
    await put(store, rig.job())
    assert await store.buried(remains)
    assert await store.remains() == []
    assert not kept(tmp_path, b"private lighthouse")
    await rig.close()


def overwrite(folder: Path, text: str, *jobs: Job) -> None:
    """Put a text in the place of stored jobs, behind the open store's back.

    By the library the store has: another one in this process would not see its locks.
    """
    file = apsw.Connection(str(folder / "safelight.db"))
    file.executemany("UPDATE jobs SET d = ? WHERE id = ?", [(text, job.id) for job in jobs])
    file.close()


async def test_unreadable_jobs_hold_up_none(tmp_path: Path) -> None:
    """Jobs that cannot be read are passed over for a day, and those behind them are claimed at once."""
    told: list[str] = []
    rig = Rig("sqlite", tmp_path)
    store = rig.engine(SqliteBackend(tmp_path / "safelight.db", rig.clock, unreadable=told.append))
    jobs = []
    for _ in range(5):
        jobs.append(await put(store, rig.job()))
        rig.clock.forward(1)
    overwrite(tmp_path, "{}", *jobs[:3])
    assert [claim.job.id for claim in await take(store, 2)] == [jobs[3].id, jobs[4].id]
    assert told == [job.id for job in jobs[:3]]
    rig.clock.forward(UNREADABLE_MS)
    overwrite(tmp_path, Forms().written(jobs[0])[1], jobs[0])
    assert jobs[0].id in {claim.job.id for claim in await take(store, 3)}
    assert len(told) == 3
    await rig.close()


async def test_unreadable_job_is_absent(tmp_path: Path) -> None:
    """A job that cannot be read is in no answer and changed by no call, and is told of once."""
    told: list[str] = []
    rig = Rig("sqlite", tmp_path)
    store = rig.engine(SqliteBackend(tmp_path / "safelight.db", rig.clock, unreadable=told.append))
    bad = (await submit(store, rig.job(), "k")).job  # type: ignore[union-attr]
    good = await put(store, rig.job())
    overwrite(tmp_path, '{"id": 7', bad)
    assert await store.get_job("acme", bad.id, "ann") is None
    assert (await store.list_jobs("acme", JobFilter(), before=None, limit=9)).jobs == (good,)
    assert await store.cancel("acme", bad.id, counting(), SAID) == Absent()
    assert await store.erase("acme", bad.id, counting(), SAID) == Absent()
    assert await submit(store, rig.job(), "k") == Erased()
    assert told == [bad.id]
    await rig.close()


def garble(folder: Path, table: str, name: str, text: str) -> None:
    """Put a text in the place of a document, behind the open store's back."""
    file = apsw.Connection(str(folder / "safelight.db"))
    file.execute(f"UPDATE {table} SET d = ? WHERE id = ?", (text, name))
    file.close()


async def test_unreadable_deliveries_hold_up_none(tmp_path: Path) -> None:
    """A delivery that cannot be read, or whose job cannot, is passed over for a day, and told of once."""
    told: list[str] = []
    rig = Rig("sqlite", tmp_path)
    store = rig.engine(SqliteBackend(tmp_path / "safelight.db", rig.clock, unreadable=told.append))
    hook = await hooked(rig, store)
    job = await ended(rig, store)
    names = await trials(rig, store, hook, 5)
    garble(tmp_path, "deliveries", names[0], "{")
    overwrite(tmp_path, "{}", job)
    rig.clock.forward(1000)
    assert ids(await store.claim_deliveries(3, 1000)) == names[1:4]
    assert await store.get_delivery("acme", names[0]) is None
    assert len(await all_of(store, hook)) == 5
    assert told == [job.id, names[0]]
    overwrite(tmp_path, Forms().written(job)[1], job)
    rig.clock.forward(UNREADABLE_MS)
    assert {each.job for each in await all_of(store, hook)} == {job.id, None}
    assert job in [each.job for each in await store.claim_deliveries(9, 1000, each=9)]
    await register(store, replace(hook, disabled="asked"))
    await rig.shut(store)
    await rig.open()
    await rig.close()


async def test_unreadable_documents_are_absent(tmp_path: Path) -> None:
    """A key, upload or endpoint that cannot be read is in no answer, and told of once."""
    told: list[str] = []
    rig = Rig("sqlite", tmp_path)
    store = rig.engine(SqliteBackend(tmp_path / "safelight.db", rig.clock, unreadable=told.append))
    key, declared, hook = service_key(rig), upload(rig), await hooked(rig, store)
    await store.put_key(key, counting(), TOLD, by="ann")
    await store.put_upload(declared, counting(), TOLD)
    for each in (key, declared, hook):
        garble(tmp_path, "docs", each.id, "{}")
    assert await store.list_keys("acme") == []
    assert await store.get_upload("acme", declared.id) is None
    assert await store.revoke_key("acme", key.id, counting(), TOLD, by="ann") == Absent()
    assert await store.list_endpoints("acme") == []
    assert sorted(told) == sorted([key.id, declared.id, hook.id])
    await rig.close()


async def test_erased_text_leaves_file(tmp_path: Path) -> None:
    """A prompt that was erased is in no byte of the file once it is closed."""
    rig = Rig("sqlite", tmp_path)
    store = await rig.open()
    job = await put(store, rig.job(prompt="a very private lighthouse"))
    await store.cancel("acme", job.id, counting(), SAID)
    assert kept(tmp_path, b"private lighthouse")
    await store.erase("acme", job.id, counting(), SAID)
    await rig.close()
    assert not kept(tmp_path, b"private lighthouse")


async def test_slow_file_is_an_absent_store(tmp_path: Path) -> None:
    """A commit or probe that takes too long finds no store; what is applied late is found by its key."""
    gate = threading.Event()

    def wait(_point: str) -> None:
        gate.wait(20)

    rig = Rig("sqlite", tmp_path)
    backend = SqliteBackend(tmp_path / "slow.db", rig.clock, crash=wait)
    store = Engine(backend, rig.chain, rig.uuid, patience=Patience(commit=0.25))
    job = rig.job()
    with pytest.raises(StoreUnavailable, match="took too long"):
        await submit(store, job, "k")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.ping()
    gate.set()
    again = await submit(store, rig.job(), "k")
    assert isinstance(again, Replayed)
    assert again.job.id == job.id
    assert (await store.usage("acme", "ann")).user.held == 10
    assert await doctor.examine(backend, rig.chain) == []
    await store.close()


async def test_lists_hold_up_nobody(tmp_path: Path) -> None:
    """A list looks through what a tenant has beside the loop, and sees what was answered before it."""
    rig = Rig("sqlite", tmp_path)
    store = await rig.open()
    job = await put(store, rig.job())
    listing = asyncio.ensure_future(store.list_jobs("acme", JobFilter(), before=None, limit=20))
    await asyncio.sleep(0)
    assert not listing.done()
    assert (await listing).jobs == (job,)
    await rig.close()
    with pytest.raises(StoreUnavailable):
        await store.list_jobs("acme", JobFilter(), before=None, limit=20)
