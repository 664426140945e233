"""The doctor: silent over a sound store, and each planted difference is found."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import doctor
from gateway.audit import Chain, Record
from gateway.doctor import Broken, Finding, Verified
from gateway.store.contract import Claim, Retention
from gateway.store.sqlite import SqliteBackend
from policies import lifecycle, quota
from policies.model import Job
from tests.contracts.rig import DAY, HOUR, SAID, Rig, attempt, counting, ending, put, take

OPEN, DONE = 3, 0
"""Numbers of an open job and of a charged one."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A place for a store."""
    made = Rig("sqlite", tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def jobs(rig: Rig) -> list[Job]:
    """A closed store with a bit of everything: charged, refunded, canceled, open; two users, a grant."""
    store = await rig.open()
    made = [await put(store, rig.job(count=4)) for _ in range(3)]
    claims = await take(store, 3)
    for claim, good in zip(claims, (4, 2, 0), strict=True):
        await store.begin_attempt(claim, attempt())
        await store.record(claim, ending(good), SAID)
    made += [await put(store, rig.job(subject="bob")), await put(store, rig.job(subject="bob"))]
    await store.cancel("acme", made[4].id, counting(), SAID)
    await store.grant(
        "acme", "bob", lambda u, now: quota.grant(u, now, 30, "user"), "g", Record(action="grant")
    )
    await rig.shut(store)
    return made


async def diagnose(rig: Rig) -> list[Finding]:
    """Return what the doctor says of the place, opened beside whoever has it."""
    backend = SqliteBackend(rig.place / "safelight.db", rig.clock, read_only=True)
    found = await doctor.examine(backend, rig.chain)
    await backend.close()
    return found


async def verify(rig: Rig, chain: Chain | None = None) -> Verified | Broken:
    """Return what following the trail comes to."""
    backend = SqliteBackend(rig.place / "safelight.db", rig.clock, read_only=True)
    found = await doctor.verify_trail(backend, chain or rig.chain, "acme")
    await backend.close()
    return found


def edit(rig: Rig, sql: str, *values: object) -> None:
    """Change the file behind everybody's back."""
    file = sqlite3.connect(rig.place / "safelight.db")
    assert file.execute(sql, values).rowcount > 0
    file.commit()
    file.close()


async def test_sound_store_has_no_findings(rig: Rig, jobs: list[Job]) -> None:
    """Nothing is wrong with what the engine wrote, read from a closed file or beside a running server."""
    assert await diagnose(rig) == []
    store = await rig.open()
    await put(store, rig.job("other"))
    assert await diagnose(rig) == []
    trail = await verify(rig)
    assert isinstance(trail, Verified)
    assert (trail.links, trail.since) == (10, 0)


@pytest.mark.parametrize(
    ("sql", "of"),
    [
        ("UPDATE tenants SET d = json_replace(d, '$.account.charged', 61)", {"tenant"}),
        ("UPDATE tenants SET d = json_replace(d, '$.account.granted', 7)", {"tenant"}),
        ("UPDATE tenants SET d = json_replace(d, '$.account.spent', 7)", {"tenant"}),
        ("UPDATE tenants SET v = 1", {"tenant"}),
        ("UPDATE users SET d = json_set(d, '$.held', 9) WHERE subject = 'ann'", {"user"}),
        ("UPDATE users SET d = json_set(d, '$.flight', 2) WHERE subject = 'bob'", {"user"}),
        ("UPDATE users SET d = json_set(d, '$.granted', 1) WHERE subject = 'bob'", {"user"}),
        ("DELETE FROM users WHERE subject = 'ann'", {"user"}),
        ("DELETE FROM ledger WHERE kind = 'hold' AND job = :open", {"tenant", "user", "job"}),
        ("DELETE FROM ledger WHERE kind = 'settle' AND job = :done", {"tenant", "user", "job"}),
        ("UPDATE ledger SET charged = 39 WHERE kind = 'settle' AND job = :done", {"tenant", "user", "job"}),
        ("UPDATE ledger SET held = 11 WHERE kind = 'hold' AND job = :open", {"tenant", "user", "job"}),
        ("DELETE FROM queue WHERE id = :open", {"job"}),
        ("UPDATE tenants SET d = json_set(d, '$.hooks', 1)", {"tenant"}),
        ("INSERT INTO docs VALUES ('acme', 'endpoint', 'e', 'ann', 1, '{}')", {"tenant"}),
        ("DELETE FROM jobs WHERE id = :open", {"tenant", "user", "job"}),
        ("UPDATE audit SET rows = CAST(replace(CAST(rows AS TEXT), 'submit', 's') AS BLOB)", {"trail"}),
        ("DELETE FROM audit WHERE v = 3", {"trail"}),
        ("DELETE FROM audit WHERE v = (SELECT max(v) FROM audit)", {"trail"}),
        ("UPDATE audit SET v = CASE v WHEN 1 THEN 102 ELSE 101 END WHERE v < 3", {"trail", "tenant"}),
        ("INSERT INTO queue VALUES ('acme', 'job', 'ghost', 1, 1)", {"job"}),
        ("UPDATE jobs SET d = '{}' WHERE id = :open", {"tenant", "user", "job"}),
        ("UPDATE jobs SET d = '{}' WHERE id = :done", {"job"}),
    ],
)  # fmt: skip
async def test_planted_difference_is_found(rig: Rig, jobs: list[Job], sql: str, of: set[str]) -> None:
    """One altered row is a difference, at every level it touches and at no other."""
    text = sql.replace(":open", f"'{jobs[OPEN].id}'").replace(":done", f"'{jobs[DONE].id}'")
    edit(rig, text)
    found = await diagnose(rig)
    assert {each.kind for each in found} == {"difference"}
    assert {each.of.partition(" ")[0] for each in found} == of
    assert all(each.detail and "ann" not in each.of + each.detail for each in found)


async def test_overdrawn_level_is_found(rig: Rig, jobs: list[Job]) -> None:
    """Less than nothing available is a difference, even where ledger and figures agree."""
    edit(rig, "UPDATE users SET d = json_set(d, '$.granted', -5) WHERE subject = 'bob'")
    edit(rig, "UPDATE ledger SET granted = -5 WHERE level = 'user'")
    assert [each.detail for each in await diagnose(rig)] == ["available is -15"]


async def test_other_hold_is_found(rig: Rig, jobs: list[Job]) -> None:
    """A job whose hold or charge is not the ledger's is a difference, though every sum is right."""
    edit(rig, "UPDATE jobs SET d = json_set(d, '$.charged', 39) WHERE id = ?", jobs[DONE].id)
    edit(rig, "UPDATE jobs SET d = json_set(d, '$.hold.month', '2026-10') WHERE id = ?", jobs[OPEN].id)
    found = await diagnose(rig)
    assert {each.of for each in found} == {f"job {jobs[DONE].id}", f"job {jobs[OPEN].id}"}


async def test_flagged_jobs_are_listed(rig: Rig) -> None:
    """A job that was paid upstream and thrown away is told to the operator, and is no difference."""
    store = await rig.open()
    job = await put(store, rig.job())
    (claim,) = await take(store)
    begun = await store.begin_attempt(claim, attempt())
    assert begun.job is not None
    await store.record(Claim(begun.job, claim.fence), lifecycle.canceled, SAID)
    assert await diagnose(rig) == [Finding("acme", "flag", f"job {job.id}", "paid_and_canceled")]


async def test_trail_names_first_break(rig: Rig, jobs: list[Job]) -> None:
    """Following the trail stops at the first link that does not hold, and other keys hold none."""
    edit(rig, "DELETE FROM audit WHERE v = 4")
    broken = await verify(rig)
    assert isinstance(broken, Broken)
    assert broken.version > 4
    other = await verify(rig, Chain({"k9": b"x" * 32}))
    assert isinstance(other, Broken)
    assert other.version == 1


async def test_swapped_trail_is_found(rig: Rig, jobs: list[Job]) -> None:
    """A trail that is whole, and another tenant's, does not pass for this one's."""
    edit(rig, "INSERT INTO audit SELECT 'other', v, at, head, rows FROM audit")
    edit(rig, "INSERT INTO tenants SELECT 'other', v, json_object('head', d ->> '$.head') FROM tenants")
    found = [each for each in await diagnose(rig) if each.tenant == "other"]
    assert [each.of for each in found] == ["trail"]


async def test_cut_trail_holds(rig: Rig, jobs: list[Job]) -> None:
    """After retention the trail begins at a sealed anchor; an anchor that was moved is found."""
    store = await rig.open()
    rig.clock.forward(DAY)
    await put(store, rig.job())
    rig.clock.forward(HOUR)
    swept = await store.sweep(Retention(30 * DAY, 2 * HOUR))
    assert swept.links == 10
    trail = await verify(rig)
    assert isinstance(trail, Verified)
    assert trail.links == 1
    assert await diagnose(rig) == []
    await rig.shut(store)
    edit(rig, "UPDATE tenants SET d = json_set(d, '$.anchor.at', 1)")
    assert isinstance(await verify(rig), Broken)


async def test_long_trail_is_paged(rig: Rig) -> None:
    """A trail of more links than are read at a time is followed to its end."""
    store = await rig.open()
    for _ in range(doctor.PAGE + 1):
        await store.append_audit("acme", "ann", Record(action="key.use"))
    trail = await verify(rig)
    assert isinstance(trail, Verified)
    assert trail.links == doctor.PAGE + 1


class Uncut:
    """A back end that dies before it removes what an anchor stands for."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def cut(self, tenant: str, version: int) -> int:
        """Remove nothing."""
        return 0


async def test_death_before_cut_holds(rig: Rig, jobs: list[Job]) -> None:
    """Links that an anchor already stands for, and that are still there, are passed over."""
    store = rig.engine(Uncut(rig.backend()))
    rig.clock.forward(DAY)
    await put(store, rig.job())
    await store.sweep(Retention(30 * DAY, HOUR))
    trail = await verify(rig)
    assert isinstance(trail, Verified)
    assert (trail.links, trail.since) == (1, 10)
    assert await diagnose(rig) == []
