"""Two versions at one store: nothing new is written before all can read it, nothing of it lost after."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import apsw
import msgspec
import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.errors import Refusal, StoreUnavailable
from gateway.store.contract import Asked, Canceled, Retention, Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.format import LIVE_MS, Forms, Member, Upgrade, behind
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_keys import Names
from gateway.store.redis_link import Link
from gateway.store.redis_roll import FRESH_SECONDS, Roll
from gateway.store.sqlite import SqliteBackend
from gateway.store.sqlite_form import copy_of
from policies.model import Job
from tests.contracts.rig import DAY, MEMORY, NOVEMBER, SAID, Clock, Rig, attempt, counting, put, submit, take
from tests.fakes.redis import server
from tests.golden.make import STORES

STEP: Final = {2: "ALTER TABLE gone ADD COLUMN why TEXT"}


class NextJob(Job, frozen=True, omit_defaults=True):
    """A job as a later version has it: with one more field."""

    mood: str = ""


def later() -> Forms:
    """Return the forms of a later version."""
    return Forms(2, NextJob, lambda job, _form: replace(job, mood=""), STEP)


class Versions(Rig):
    """Processes of two versions at one Redis."""

    def __init__(self, place: Path) -> None:
        super().__init__("redis", place)
        self.names = Names(f"{place.name}:")
        self.link = Link(server().url)

    def at(self, forms: Callable[[], Forms], name: str = "") -> RedisBackend:
        """Return a back end of a version."""
        how = How(uuid4().hex, self.clock, forms=forms, name=name)
        return RedisBackend(Place(server().url), how, prefix=self.names.prefix)

    async def process(self, forms: Callable[[], Forms], name: str = "") -> Engine:
        """Return a process of a version that has started."""
        engine = self.engine(self.at(forms, name))
        await engine.start()
        return engine

    def moody(self) -> Job:
        """Return a job that says what only the later version knows."""
        return msgspec.convert({**msgspec.to_builtins(self.job()), "mood": "calm"}, NextJob)

    async def stored(self, job: str) -> dict[str, Any]:
        """Return a job as it is written."""
        (text,) = await self.link.ask([("HGET", self.names.room("acme").job(job), "d")])
        return msgspec.json.decode(text)  # type: ignore[no-any-return]


@pytest.fixture
async def many() -> AsyncIterator[Versions]:
    """An empty Redis, and processes to be started at it."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = Versions(Path(folder))
        yield made
        await made.link.close()
        await made.close()


async def mood(store: Engine, job: str) -> str:
    """Return what a process reads in the new field."""
    found = await store.get_job("acme", job, "ann")
    assert found is not None
    return str(getattr(found.job, "mood", "unknown"))


async def test_old_form_is_written_first(many: Versions) -> None:
    """Beside an older process a newer one writes what the older reads, and each changes the other's jobs."""
    old, new = await many.process(Forms), await many.process(later)
    made = await submit(new, many.moody())
    assert isinstance(made, Submitted)
    assert made.job.f == 1
    assert not {"f", "mood"} & (await many.stored(made.job.id)).keys()
    assert isinstance(await old.cancel("acme", made.job.id, counting(), SAID), Canceled)
    assert await mood(new, made.job.id) == ""
    (claim,) = await claimed(old, many.job(), new)
    assert claim.job.f == 1
    assert await doctor.examine(old.backend, many.chain) == []


async def claimed(maker: Engine, job: Job, taker: Engine) -> Any:
    """Submit a job by one process and begin it by another."""
    await put(maker, job)
    claims = await take(taker)
    await taker.begin_attempt(claims[0], attempt())
    return claims


async def test_finish_waits_for_the_old(many: Versions) -> None:
    """The newer form is not in force while an older process lives, which is named; then nothing is lost."""
    old, new = await many.process(Forms, "pod-a"), await many.process(later)
    stands = await new.backend.upgrade(finish=True)
    assert (stands.form, stands.newest, [each.name for each in stands.behind]) == (1, 2, ["pod-a"])
    await many.shut(old)
    assert await new.backend.upgrade(finish=False) == Upgrade(1, 2)
    assert await new.backend.upgrade(finish=True) == Upgrade(2, 2)
    other = await many.process(later)
    assert (new.backend.forms.writes, other.backend.forms.writes) == (1, 2)  # one has not heard yet
    made = await submit(other, many.moody())
    assert isinstance(made, Submitted)
    assert {"f": 2, "mood": "calm"}.items() <= (await many.stored(made.job.id)).items()
    await claimed(other, many.moody(), new)
    assert isinstance(await new.cancel("acme", made.job.id, counting(), SAID), Asked)
    assert (await mood(other, made.job.id), (await many.stored(made.job.id))["mood"]) == ("calm", "calm")
    with pytest.raises(Refusal, match="holds schema 2; this Safelight knows schema 1"):
        await many.process(Forms)
    assert await new.backend.upgrade(finish=True) == Upgrade(2, 2)


async def test_new_stores_have_the_newest_form(many: Versions) -> None:
    """An empty store is written in the newest form of whoever comes first."""
    new = await many.process(later)
    assert await new.backend.upgrade(finish=False) == Upgrade(2, 2)
    old = many.engine(many.at(Forms))
    with pytest.raises(Refusal, match="schema 2"):
        await old.start()


async def test_silent_processes_hold_up_nothing(many: Versions) -> None:
    """A process that was not heard of for a minute is taken for dead; one that comes back writes nothing."""
    old, new = await many.process(Forms), await many.process(later)
    made = await put(old, many.job())
    many.clock.forward(LIVE_MS)
    assert await new.backend.upgrade(finish=True) == Upgrade(2, 2)
    wake(old, FRESH_SECONDS)
    with pytest.raises(StoreUnavailable, match="holds schema 2"):
        await old.cancel("acme", made.id, counting(), SAID)
    with pytest.raises(StoreUnavailable, match="holds schema 2"):
        await submit(old, many.job())
    found = await new.get_job("acme", made.id, "ann")
    assert found is not None
    assert found.job.version == made.version
    wake(new, FRESH_SECONDS)
    await put(new, many.moody())
    assert new.backend.forms.writes == 2


def wake(engine: Engine, seconds: float) -> None:
    """Have a process last heard of that long ago."""
    roll: Roll = engine.backend._roll  # type: ignore[attr-defined]  # noqa: SLF001 - a freeze of its own
    roll._heard -= seconds  # noqa: SLF001


async def test_comers_are_seen_or_told(many: Versions) -> None:
    """The form is raised only over the roll that was looked at: who came meanwhile is looked at as well."""
    new = await many.process(later)
    server().say("SET", many.names.schema, "1")
    raising = Coming(new.backend._site, many)  # type: ignore[attr-defined]  # noqa: SLF001 - one more of it
    stands = await Roll(raising, later(), many.clock, "").finish()  # type: ignore[arg-type]
    assert [each.name for each in stands.behind] == ["late"]
    assert await many.link.ask([("GET", many.names.schema)]) == [b"1"]


class Coming:
    """A process' site, at which another process comes after the first look."""

    def __init__(self, site: Any, many: Versions) -> None:
        self._site = site
        self._many: Versions | None = many

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    async def answers(self, calls: Any) -> Any:
        """Have the other come, once, and then answer."""
        many, self._many = self._many, None
        if many is not None:
            await many.process(Forms, "late")
        return await self._site.answers(calls)


async def test_roll_forgets_the_dead(many: Versions) -> None:
    """Who ends takes its name away; who dies is forgotten after an hour."""
    gone, dead = await many.process(Forms), await many.process(Forms)
    await many.shut(gone)
    assert server().say("HLEN", many.names.roll) == b":1"
    many.clock.forward(3_600_001)
    await many.process(Forms)
    assert server().say("HLEN", many.names.roll) == b":1"
    assert dead.backend.forms.writes == 1


async def test_writers_are_on_the_roll(many: Versions) -> None:
    """A process that writes without having started, as a command does, is on the roll before it writes."""
    old = many.engine(many.at(Forms, "a command"))
    server().say("SET", many.names.schema, "2")
    with pytest.raises(StoreUnavailable, match="holds schema 2"):
        await submit(old, many.job())
    server().say("SET", many.names.schema, "1")
    await put(old, many.job())
    assert server().say("HLEN", many.names.roll) == b":1"


def test_behind_are_live_and_older() -> None:
    """Who reads the newest form, or was silent for a minute, holds up nothing."""
    members = [Member("a", 1, 0), Member("b", 1, 1), Member("c", 2, 1), Member("d", 3, 1)]
    assert behind(members, 2, LIVE_MS) == (members[1],)
    assert behind(members, 1, LIVE_MS) == ()


async def test_newer_tenants_are_left_alone(many: Versions) -> None:
    """A tenant of a later form is refused in a sentence and stays as it is; those beside it are served."""
    new = await many.process(later)
    made = await submit(new, many.moody())
    assert isinstance(made, Submitted)
    server().say("SET", many.names.schema, "1")
    old, before = await many.process(Forms), await many.stored(made.job.id)
    answers = await asyncio.gather(
        submit(old, many.job()), submit(old, many.job("other")), return_exceptions=True
    )
    assert str(answers[0]) == "a tenant is stored in form 2; this Safelight reads up to 1"
    assert isinstance(answers[0], StoreUnavailable)
    assert isinstance(answers[1], Submitted)
    assert await many.stored(made.job.id) == before


async def test_newer_jobs_are_left_alone(many: Versions) -> None:
    """A job of a later form is as if absent to an older process, which leaves it alone, queued or ended."""
    old = await many.process(Forms)
    made = await put(old, many.job())
    text = msgspec.json.encode({**await many.stored(made.id), "f": 2, "mood": "calm"}).decode()
    server().say("HSET", many.names.room("acme").job(made.id), "d", text)
    assert await old.get_job("acme", made.id, "ann") is None
    assert await old.claim(9, LEASE_MS) == []
    server().say("ZADD", many.names.shard("acme").end, "1", f"{made.id} acme")
    assert (await old.sweep(Retention(DAY, DAY))).jobs == ()
    assert (await many.stored(made.id))["mood"] == "calm"


# -- SQLite: one process, which brings the file to its own form ----------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that the first form wrote."""
    path = tmp_path / "safelight.db"
    path.write_bytes(gzip.decompress((STORES / "1" / "safelight.db.gz").read_bytes()))
    return path


def opened(path: Path, forms: Forms, *, read_only: bool = False) -> SqliteBackend:
    """Open a file by a version."""
    return SqliteBackend(path, Clock(NOVEMBER + 11 * DAY), read_only=read_only, forms=forms)


def form_of(path: Path) -> int:
    """Return the form a file says it has."""
    connection = apsw.Connection(str(path))
    form = int(connection.pragma("user_version"))
    connection.close()
    return form


async def test_file_is_brought_forward(file: Path) -> None:
    """A file of the form before is copied whole, then changed; a later version's is refused by an older."""
    copy_of(file, 1).write_text("of a start that died")
    backend = opened(file, later())
    assert await backend.upgrade(finish=True) == Upgrade(2, 2)
    assert await backend.remains(9) != []
    rig = Rig("sqlite", file.parent)
    rig.clock.at = NOVEMBER + 11 * DAY
    assert await doctor.examine(backend, rig.chain) == []
    await backend.close()
    assert (form_of(file), form_of(copy_of(file, 1))) == (2, 1)
    with pytest.raises(Refusal, match=r"safelight.db has schema 2; this Safelight knows schema 1"):
        opened(file, Forms())
    copy = opened(copy_of(file, 1), Forms())
    assert await doctor.examine(copy, rig.chain) == []
    await copy.close()
    again = opened(file, later())
    await again.close()


async def test_broken_step_changes_nothing(file: Path) -> None:
    """Where a step of the upgrade fails the file is as it was, and free for the version before."""
    steps = {2: f"{STEP[2]}; ALTER TABLE nonsense ADD COLUMN x TEXT"}
    with pytest.raises(Refusal, match="is as it was, and cannot be made ready: SQLError"):
        opened(file, Forms(2, steps=steps))
    assert form_of(file) == 1
    backend = opened(file, later())
    await backend.close()


async def test_readers_bring_nothing_forward(file: Path, tmp_path: Path) -> None:
    """Who only reads takes a file of both forms as it is, and none that is empty or too far away."""
    backend = opened(file, later(), read_only=True)
    assert await backend.upgrade(finish=False) == Upgrade(1, 2)
    await backend.close()
    assert form_of(file) == 1
    with pytest.raises(Refusal, match=r"has schema 1; this Safelight knows 2 and 3. Start the versions"):
        opened(file, Forms(3), read_only=True)
    (tmp_path / "none.db").touch()
    with pytest.raises(Refusal, match="is empty"):
        opened(tmp_path / "none.db", Forms(), read_only=True)
