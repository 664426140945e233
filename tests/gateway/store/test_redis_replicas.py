"""Replicas that must have what is written before it counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace

from gateway import doctor
from gateway.errors import StoreUnavailable
from gateway.store.contract import Begun, Denied, Replayed, Submitted
from gateway.store.engine import Engine
from gateway.store.redis_keys import Names
from policies import quota
from tests.contracts.rig import WIDE, attempt, put, submit, take
from tests.fakes.replica import Pair
from tests.gateway.store.processes import Processes

NONE = quota.Terms(replace(WIDE, in_flight=0), WIDE, 10**9)
"""Terms that admit nothing."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary and its replica."""
    with Pair() as made:
        yield made


@pytest.fixture
async def many(pair: Pair) -> AsyncIterator[Processes]:
    """Processes that ask for one replica."""
    made = Processes(pair.primary.url)
    made.replicas = 1
    yield made
    await made.close()


async def unanswered(many: Processes, store: Engine, key: str | None = None) -> None:
    """Submit, and insist on no answer."""
    with pytest.raises(StoreUnavailable, match="replicas"):
        await submit(store, many.job(), key)


async def test_submits_need_a_replica(many: Processes, pair: Pair) -> None:
    """Without the replica no submit is answered, nor a repeat of one that was made; with it, that one is.

    What nobody was told is held once, and found by its key.
    """
    store, other = await many.process(), await many.process()
    assert isinstance(await submit(store, many.job()), Submitted)
    pair.part()
    await unanswered(many, store, "k")
    await unanswered(many, store, "k")
    await unanswered(many, other, "k")
    with pytest.raises(StoreUnavailable, match="replicas"):
        await submit(other, many.job(), terms=NONE)
    pair.join()
    assert isinstance(await submit(other, many.job(), "k"), Replayed)
    assert isinstance(await submit(other, many.job(), terms=NONE), Denied)
    assert (await store.usage("acme", "ann")).user.held == 20
    assert await doctor.examine(store.backend, many.chain) == []


async def test_answers_are_written_too(many: Processes, pair: Pair) -> None:
    """An answer that tells of another's write writes something itself: some servers wait for nothing else."""
    store, other = await many.process(), await many.process()
    await submit(store, many.job(), "k")
    field = f"op:{other.backend.me}"
    doc = Names(many.prefix).room("acme").t
    assert pair.primary.say("HEXISTS", doc, field) == b":0"
    assert isinstance(await submit(other, many.job(), "k"), Replayed)
    assert pair.primary.say("HEXISTS", doc, field) == b":1"


async def test_attempts_need_a_replica(many: Processes, pair: Pair) -> None:
    """Without the replica no attempt may be sent; that it was written down is known once it is looked at."""
    store = await many.process()
    job = await put(store, many.job())
    (claim,) = await take(store)
    pair.part()
    with pytest.raises(StoreUnavailable, match="replicas"):
        await store.begin_attempt(claim, attempt())
    with pytest.raises(StoreUnavailable, match="replicas"):
        await store.note_attempt(claim, attempt(open=False))
    pair.join()
    found = await store.get_job("acme", job.id, "ann")
    assert found is not None
    assert [each.open for each in found.job.attempts] == [False]
    assert isinstance(await store.begin_attempt(claim, attempt(n=2)), Begun)


async def test_confirmed_survives_a_failover(many: Processes, pair: Pair) -> None:
    """What was answered with a replica is there when that takes over, whatever comes between."""
    store = await many.process()
    jobs = [await put(store, many.job()) for _ in range(20)]
    pair.fail_over()
    left = Processes(pair.replica.url, many.prefix)
    after = await left.process()
    assert (await after.usage("acme", "ann")).user.held == 10 * len(jobs)
    await left.close()
