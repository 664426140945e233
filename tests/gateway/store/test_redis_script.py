"""The script that writes: checked to the end before the first write, once a number, and never late."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.store.backend import (
    Applied,
    Change,
    DocDrop,
    Examined,
    JobDrop,
    JobPut,
    KeyRow,
    Outcome,
    Refused,
    UserState,
    Want,
)
from gateway.store.contract import Begun, Claim
from gateway.store.guard import touched
from gateway.store.redis import RedisBackend
from gateway.store.redis_keys import Names
from gateway.store.redis_link import Call, Link, Rejected, Script, script
from gateway.store.redis_pack import Known, Packer
from gateway.store.redis_reads import numbered
from gateway.store.redis_site import ALIVE_SECONDS, PATIENCE_SECONDS
from tests.contracts.beside import hooked, upload
from tests.contracts.rig import NOVEMBER, SAID, Rig, attempt, counting, ending, put, submit, take
from tests.fakes.redis import server

READS = {"HGET", "HMGET", "HEXISTS", "HLEN", "ZSCORE", "XREVRANGE", "TYPE", "TIME"}
PROBE = """
local trace, planted = {}, tonumber(ARGV[3])
local function probe(...)
  trace[#trace + 1] = (...)
  if #trace == planted then error('planted <' .. table.concat(trace, ' ') .. '>') end
  return redis.call(...)
end
"""


class PausedError(RuntimeError):
    """Raised in place of a commit, which is kept."""


class Catch:
    """A back end in front of the real one that keeps the next commit instead of making it."""

    def __init__(self, backend: Any) -> None:
        self.backend: RedisBackend = backend
        self.armed = False
        self.kept: list[Change] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Keep or commit."""
        if self.armed:
            self.kept = list(changes)
            raise PausedError
        return await self.backend.commit(changes)


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """Connections of the test's own."""
    made = Link(server().url)
    yield made
    await made.close()


class Bench:
    """A store with some history, and a commit about to be made."""

    def __init__(self, rig: Rig, catch: Catch, link: Link) -> None:
        self.rig = rig
        self.catch = catch
        self.link = link
        self.names = Names(f"{rig.place.name}:")

    async def call(self, text: str, number: int, late: int = 0, planted: int = 0) -> Any:
        """Run a form of the script on the commit that was kept."""
        packer = Packer(self.names)
        known = {drop.job: Known("ann") for change in self.catch.kept for drop in change.drops}
        group = packer.group(self.catch.kept, known)
        room = self.names.room("acme")
        reads = [[numbered(packer.sheet, room, touched(change)) for change in self.catch.kept]]
        ((seconds, micros),) = await self.link.ask([("TIME",)])
        stamp = int(seconds) * 1000 + int(micros) // 1000 - late
        values = ("me", number, stamp, self.names.wake, packer.sheet.types, [group])
        made = Script(text, hashlib.sha1(text.encode()).hexdigest())
        packed = [msgspec.msgpack.encode(each) for each in (values, reads)]
        (reply,) = await self.link.run([Call(made, list(packer.sheet.keys), (*packed, planted))])
        return reply if isinstance(reply, Rejected) else msgspec.msgpack.decode(reply[0])

    async def stored(self) -> tuple[Examined, Any, Any]:
        """Return all that is stored of the tenant, its streams also beyond what its version tells."""
        want, room = Want("acme", deliveries={"x"}, endpoints=True), self.names.room("acme")
        streams = await self.link.ask([("XRANGE", key, "-", "+") for key in (room.led, room.aud)])
        return await self.catch.backend.examine("acme"), await self.catch.backend.load([want]), streams


@pytest.fixture
async def bench(tmp_path: Path, link: Link) -> AsyncIterator[Bench]:
    """A job about to end, with a webhook to be told of it."""
    made: list[Catch] = []

    def wrap(backend: Any) -> Any:
        made.append(Catch(backend))
        return made[-1]

    rig = Rig("redis", tmp_path, wrap)
    store = await rig.open()
    await hooked(rig, store)
    done = await put(store, rig.job())
    await store.cancel("acme", done.id, counting(), SAID)
    await put(store, rig.job())
    (claim,) = await take(store)
    begun = await store.begin_attempt(claim, attempt(deadline_at=NOVEMBER + 60_000))
    assert isinstance(begun, Begun)
    made[0].armed = True
    with pytest.raises(PausedError):
        await store.record(Claim(begun.job, claim.fence), ending(1), SAID)
    made[0].armed = False
    yield Bench(rig, made[0], link)
    await rig.close()


def probing(text: str) -> str:
    """Return the script with a probe before each of its commands, which may fail; it tells its trace."""
    probed = text.replace("redis.call(", "probe(").replace(
        "return { nonce, { cmsgpack.pack({ number, time[1] * 1000000 + time[2], verdicts }), read } }",
        "return { nonce, { cmsgpack.pack(trace), read } }",
    )
    return PROBE + probed


async def test_all_is_checked_before_writes(bench: Bench) -> None:
    """A fault at any check of a commit, or at its first write, leaves everything as it is."""
    text, before = probing(script("commit").text), await bench.stored()
    planted = 1
    reply = await bench.call(text, 1, planted=planted)
    while await bench.stored() == before:
        planted += 1
        reply = await bench.call(text, 1, planted=planted)
    assert isinstance(reply, Rejected)
    *checks, write, _at = reply.text.partition("<")[2].partition(">")[0].split()
    assert len(checks) > 20
    assert set(checks) <= READS
    assert write not in READS


async def test_writes_follow_all_checks(bench: Bench) -> None:
    """The commands of a commit are its checks, and from the first write on its writes."""
    trace = await bench.call(probing(script("commit").text), 1)
    first = next(at for at, name in enumerate(trace) if name not in READS)
    assert set(trace[:first]) <= READS
    assert {name for name in trace[first:] if name in READS} <= {"HLEN"}  # how many processes there are
    assert trace.count("XADD") == 2


async def test_number_answers_for_itself(bench: Bench) -> None:
    """The same bytes sent again are answered as the first time and write nothing; a lower number is dead."""
    text = script("commit").text
    first = await bench.call(text, 5)
    after = await bench.stored()
    assert first[0] == 5
    assert first[2] == [[["a"]]]
    assert (await bench.call(text, 5))[2] == [[["a"]]]
    assert (await bench.call(text, 5, late=60_000))[2] == [[["a"]]]
    assert (await bench.call(text, 4))[2] == [[["c"]]]
    assert (await bench.call(text, 6))[2] == [[["m"]]]
    assert await bench.stored() == after


@pytest.mark.parametrize(("late", "letter"), [(1700, "a"), (2100, "c"), (-40, "a"), (-500, "c")])
async def test_late_commits_are_dead(bench: Bench, late: int, letter: str) -> None:
    """A commit decided more than two seconds ago, or in a time that has not come, is not made."""
    before = await bench.stored()
    assert (await bench.call(script("commit").text, 1, late))[2] == [[[letter]]]
    assert (await bench.stored() == before) is (letter == "c")


async def test_mistyped_keys_are_found_first(bench: Bench) -> None:
    """Where a key of a tenant's commit holds something else, nothing of it is written."""
    room = bench.names.room("acme")
    before = await bench.stored()
    spoiled = room.job(bench.catch.kept[0].puts[0].job.id)
    for key in (room.wait, room.told("x"), bench.names.shard("acme").end):
        server().say("DEL", key)
    server().say("SET", bench.names.shard("acme").end, "x")
    assert (await bench.call(script("commit").text, 1))[2] == [[["t"]]]
    assert server().say("HGET", spoiled, "v") == b"$1"
    server().say("DEL", bench.names.shard("acme").end)
    assert await bench.stored() == before


async def test_refusals_tell_what_is(bench: Bench) -> None:
    """What a refused change is told of the tenant is what a load of all it touches would bring."""
    backend, rig = bench.catch.backend, bench.rig
    store = rig.engine(backend)
    kept = bench.catch.kept[0]
    await submit(store, rig.job(), "k")
    image = upload(rig)
    await store.put_upload(image, counting(), SAID)
    (hook,) = await backend.shelf.endpoints("acme")
    stale = replace(
        kept,
        users=kept.users | {"nobody": UserState("r0")},
        puts=[*kept.puts, JobPut(rig.job(), "{}", 0)],
        drops=[JobDrop(kept.puts[0].job.id, 1)],
        keys={("ann", "k"): KeyRow("f", "j", 1), ("ann", "free"): KeyRow("f", "j", 1, over=True)},
        docs=[DocDrop("endpoint", hook.id), DocDrop("upload", image.id), DocDrop("key", "none")],
    )
    changes = [stale, replace(stale, expect=None, state=None), Change("new", kept.now, expect=7)]
    outcomes = await backend.commit(changes)
    for outcome, there in zip(outcomes, await backend.load([touched(each) for each in changes]), strict=True):
        assert isinstance(outcome, Refused)
        assert outcome.loaded == there
    assert isinstance(outcomes[0], Refused)
    assert ("ann", "k") in outcomes[0].loaded.keys
    assert outcomes[0].loaded.endpoints == {hook.id: hook}


async def test_reserved_tenants_wait(bench: Bench) -> None:
    """While a tenant is reserved others' commits wait; the holder's goes through and ends it."""
    doc = bench.names.room("acme").t
    server().say("HSET", doc, "line", f"{10**15} another")
    text = script("commit").text
    assert (await bench.call(text, 1))[2] == [[["w", 2]]]
    outcome = await bench.catch.backend.commit(bench.catch.kept)
    assert isinstance(outcome[0], Refused)
    server().say("HSET", doc, "line", f"{10**15} me")
    assert (await bench.call(text, 2))[2] == [[["a"]]]
    assert server().say("HEXISTS", doc, "line") == b":0"


async def test_silent_processes_are_forgotten(bench: Bench) -> None:
    """Numbers of processes that were not heard of for an hour go, once there are many of them."""
    doc = bench.names.room("acme").t
    for number in range(60):
        server().say("HSET", doc, f"op:old{number}", "1:a:1000")
    server().say("HSET", doc, "op:young", f"1:a:{10**14}")
    outcomes = await bench.catch.backend.commit(bench.catch.kept)
    assert outcomes == [Applied()]
    assert server().say("HLEN", doc) in (b":4", b":5")
    assert server().say("HEXISTS", doc, "op:young") == b":1"


def test_caller_outwaits_its_commit() -> None:
    """Who is told that nothing was done is told so after the script would have refused to do it."""
    (late,) = re.findall(r"LATE[^=]*= (\d+)", script("commit").text)
    assert int(late) / 1000 == ALIVE_SECONDS < PATIENCE_SECONDS
