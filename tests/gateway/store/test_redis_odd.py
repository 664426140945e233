"""What stands in Redis and should not: it troubles its own tenant alone, and hides nobody else's work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha1
from typing import Any

import pytest

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.backend import UNREADABLE_MS
from gateway.store.contract import Begun, Claim, JobFilter, Kept, Recorded, Submitted
from gateway.store.engine import LEASE_MS, Engine
from gateway.store.redis import SCANNED
from gateway.store.redis_keys import Names, shard_of
from gateway.store.redis_link import Call, Cut, Link, Rejected, Script
from policies.model import JobState
from tests.contracts.beside import hooked, lease, service_key, trials
from tests.contracts.rig import SAID, attempt, counting, ending, put, rounds, submit, take
from tests.fakes.redis import server
from tests.gateway.store.processes import Counting, Failing, Processes


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


def neighbors() -> tuple[str, str]:
    """Return two tenants of one shard."""
    names = (f"t{number}" for number in range(10_000))
    return "acme", next(name for name in names if shard_of(name) == shard_of("acme"))


@pytest.mark.parametrize("name", ["ix", "led", "u"])
async def test_mistyped_tenant_fails_alone(many: Processes, name: str) -> None:
    """A tenant whose keys hold something else is refused; others of the same script are served by it."""
    link = Counting(many.url)
    store = await many.process(link=link)
    bad, good = neighbors()
    tenants = [good, bad, "another", good]
    for tenant in (*tenants, bad):
        await put(store, many.job(tenant))
    kept, sent = Names(many.prefix).room(bad), link.sent
    server().say("DEL", getattr(kept, name))
    server().say("SET", getattr(kept, name), "x")
    answers = await asyncio.gather(*(submit(store, many.job(to)) for to in tenants), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Submitted, StoreUnavailable, Submitted, Submitted]
    assert "MISTYPED" in str(answers[1])
    assert link.sent == sent + 1
    server().say("DEL", getattr(kept, name))
    assert isinstance(await submit(store, many.job(bad)), Submitted)


async def test_unreachable_hash_fails_alone(many: Processes) -> None:
    """A service key of which it cannot be said whose it is troubles no other tenant of its batch."""
    link = Failing(many.url)
    store = await many.process(link=link)
    bad, good = service_key(many), service_key(many, "other")
    link.deaf = lambda command: command[0] == "HSET" and bad.hash in command
    answers = await asyncio.gather(
        submit(store, many.job()),
        store.put_key(bad, counting(), SAID, by="ann"),
        store.put_key(good, counting(), SAID, by="ann"),
        submit(store, many.job("third")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Cut, Cut, Kept, Submitted]
    assert await store.list_keys("acme") == []


class Breaking(Link):
    """Connections whose commits of several tenants fail after so many of them."""

    at = 2
    broke = 0

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts, those of commits as they would be with a fault in them."""
        mark = "for g, group in ipairs(groups) do\n"
        fault = f"if g == {self.at} then error('planted') end\n"
        broken = []
        for call in calls:
            text = call.script.text.replace(mark, mark + fault, 1)
            broken.append(call._replace(script=Script(text, sha1(text.encode()).hexdigest())))
        replies = await super().run(broken)
        self.broke += sum(isinstance(reply, Rejected) for reply in replies)
        return replies


@pytest.mark.parametrize("at", [2, 3])
async def test_fault_in_script_fails_nobody(many: Processes, at: int) -> None:
    """A script that fails after some tenants were written is made up tenant by tenant, and none twice."""
    link = Breaking(many.url)
    link.at = at
    store = await many.process(link=link)
    tenants = ("a", "b", "c", "d")
    claims = []
    for tenant in tenants:
        await put(store, many.job(tenant))
        claims += await take(store)
    jobs = [await begun(store, claim) for claim in claims]
    sent = link.broke
    answers = await asyncio.gather(*(store.record(claim, ending(1), SAID) for claim in jobs))
    assert [type(answer) for answer in answers] == [Recorded] * 4
    assert link.broke == sent + 1
    assert await doctor.examine(store.backend, many.chain) == []


async def begun(store: Engine, claim: Claim) -> Claim:
    """Return a claim whose attempt has begun."""
    answer = await store.begin_attempt(claim, attempt(deadline_at=await store.now() + 60_000))
    assert isinstance(answer, Begun)
    return Claim(answer.job, claim.fence)


async def test_unreadable_job_hides_none(many: Processes) -> None:
    """A job that is no job is left alone for a day, and the one behind it is claimed in its place."""
    store = await many.process()
    one, two = await put(store, many.job()), await put(store, many.job())
    room = Names(many.prefix).room("acme")
    server().say("HSET", room.job(one.id), "d", "{nonsense")
    (claim,) = await take(store)
    assert claim.job.id == two.id
    assert await store.get_job("acme", one.id, "ann") is None
    due = await store.backend.next_due()
    assert due is not None
    assert await store.claim(9, LEASE_MS) == []
    assert float(await scored(store, room.due, one.id)) > await store.now() + UNREADABLE_MS - LEASE_MS
    assert (await store.backend.examine("acme")).unreadable == {one.id}


async def scored(store: Engine, key: str, member: str) -> str:
    """Return a member's score."""
    backend: Any = store.backend
    (score,) = await backend._site.ask([("ZSCORE", key, member)])  # noqa: SLF001 - no verb tells it
    return str(score.decode())


async def test_unreadable_delivery_hides_none(many: Processes) -> None:
    """A delivery that is none goes far behind, and the next of its endpoint is leased in its place."""
    store = await many.process()
    many.clock.at = await store.now() - 1000
    hook = await hooked(many, store)
    names = await trials(many, store, hook, 2)
    server().say("HSET", Names(many.prefix).room("acme").dl, names[0], "1 {nonsense")
    (notice,) = await lease(store)
    assert notice.delivery.id == names[1]
    assert await store.get_delivery("acme", names[0]) is None
    assert await store.claim_deliveries(9, 1000) == []


async def test_long_lists_are_shown_short(many: Processes) -> None:
    """A page whose filter fits few of very many looks at some of them, and continues where it stopped."""
    store = await many.process()
    first = await put(store, many.job(model="fine"))
    await asyncio.gather(*(put(store, many.job()) for _ in range(SCANNED + 50)))
    where = JobFilter(model="fine")
    page = await store.list_jobs("acme", where, before=None, limit=100)
    assert page.jobs == ()
    assert page.next is not None
    rest = await store.list_jobs("acme", where, before=page.next, limit=100)
    assert ([job.id for job in rest.jobs], rest.next) == ([first.id], None)
    queued = JobFilter(states=frozenset({JobState.QUEUED}))
    assert (await store.list_jobs("acme", queued, before=page.next, limit=100)).jobs[-1] == first
    assert await store.position("acme", many.job()) == 0


async def test_left_reader_hands_over(many: Processes) -> None:
    """Where he who reads for all who wait goes away, another of them reads."""
    store = await many.process()
    job = await put(store, many.job())
    waiting = [asyncio.create_task(store.wait_job("acme", job.id, 0, 60.0)) for _ in range(3)]
    await rounds(1)
    waiting[0].cancel()
    assert await asyncio.gather(*waiting[1:]) == [job, job]
    waiting = [asyncio.create_task(store.wait_job("acme", job.id, 0, 60.0)) for _ in range(3)]
    await rounds(1)
    waiting[1].cancel()
    assert await asyncio.gather(*waiting[::2]) == [job, job]
