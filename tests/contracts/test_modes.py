"""Requests that bring no key and are told by their fingerprint: repeats attach, first sends renew."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.store.backend import KEYS_KEPT_MS
from gateway.store.contract import Conflict, Denied, Key, Replayed, Submitted
from policies import quota
from tests.contracts.rig import (
    HOUR,
    OPEN_TERMS,
    SAID,
    WIDE,
    Answer,
    Rig,
    admitting,
    attempt,
    counting,
    ending,
    take,
)

if TYPE_CHECKING:
    from gateway.store.engine import Engine
    from policies.model import Job

FULL = quota.Terms(WIDE, replace(WIDE, in_flight=1), 10**9)
CALLERS = 64


async def send(store: Engine, job: Job, mode: Any, terms: quota.Terms = OPEN_TERMS, **fields: Any) -> Answer:
    """Submit a job in a mode, under the key of its fingerprint."""
    key = Key("f", job.request.fingerprint(), mode, **fields)
    return await store.submit(job, admitting(job, terms), SAID, key=key)


def made(answers: Sequence[Answer]) -> set[str]:
    """Return the ids of the jobs that answers are about."""
    return {answer.job.id for answer in answers if isinstance(answer, Submitted | Replayed)}


@pytest.mark.parametrize("first", ["attach", "renew"])
async def test_repeats_attach_to_one(rig: Rig, store: Engine, first: str) -> None:
    """Sixty-four repeats at once, with a first send before them or without, are one job."""
    modes = [first, *["attach"] * (CALLERS - 1)]
    answers = await asyncio.gather(*(send(store, rig.job(), mode) for mode in modes))
    assert Counter(type(answer) for answer in answers) == {Submitted: 1, Replayed: CALLERS - 1}
    assert len(made(answers)) == 1
    assert (await store.usage("acme", "ann")).user.held == 10


async def test_first_sends_make_each(rig: Rig, store: Engine) -> None:
    """First sends of one request, at once or later, are a job each; a repeat attaches to the newest."""
    answers = await asyncio.gather(*(send(store, rig.job(), "renew") for _ in range(5)))
    answers.append(await send(store, rig.job(), "renew"))
    assert [type(answer) for answer in answers] == [Submitted] * 6
    assert len(made(answers)) == 6
    again = await send(store, rig.job(), "attach")
    assert isinstance(again, Replayed)
    assert made([again]) == made(answers[-1:])


async def into(rig: Rig, store: Engine, job: Job, state: str) -> None:
    """Bring a queued job into a state."""
    if state in ("canceled", "erased"):
        await store.cancel("acme", job.id, counting(), SAID)
    if state == "erased":
        await store.erase("acme", job.id, counting(), SAID)
    if state in ("running", "succeeded", "failed", "blocked"):
        (claim,) = await take(store)
        await store.begin_attempt(claim, attempt())
        code = "upstream_refused" if state == "blocked" else "upstream_failed"
        if state != "running":
            await store.record(claim, ending(int(state == "succeeded"), code), SAID)


@pytest.mark.parametrize(
    "state", ["queued", "running", "succeeded", "failed", "blocked", "canceled", "erased"]
)
async def test_lost_jobs_are_made_anew(rig: Rig, store: Engine, state: str) -> None:
    """A repeat of an open or succeeded job gets it as it is; after any other end it makes a job, once."""
    first = await send(store, rig.job(), "attach")
    assert isinstance(first, Submitted)
    await into(rig, store, first.job, state)
    again = [await send(store, rig.job(), "attach") for _ in range(2)]
    if state in ("queued", "running", "succeeded"):
        assert [type(answer) for answer in again] == [Replayed, Replayed]
        assert made(again) == {first.job.id}
        assert {str(answer.job.state) for answer in again if isinstance(answer, Replayed)} == {state}
    else:
        assert [type(answer) for answer in again] == [Submitted, Replayed]
        assert len(made(again) - {first.job.id}) == 1


async def test_repeats_attach_within_time(rig: Rig, store: Engine) -> None:
    """A repeat attaches until its time since the binding is over, however long keys are kept."""
    first = await send(store, rig.job(), "renew")
    rig.clock.forward(HOUR)
    assert isinstance(await send(store, rig.job(), "attach", within_ms=HOUR), Replayed)
    rig.clock.forward(1)
    late = await send(store, rig.job(), "attach", within_ms=HOUR)
    assert isinstance(late, Submitted)
    assert isinstance(await send(store, rig.job(), "attach", within_ms=HOUR), Replayed)
    rig.clock.forward(KEYS_KEPT_MS)
    assert isinstance(await send(store, rig.job(), "attach", within_ms=10**12), Submitted)
    assert made([first]) != made([late])


async def test_other_requests_do_not_attach(rig: Rig, store: Engine) -> None:
    """Under a key that another request bound, a repeat makes its own job and binds it; no conflict."""
    await send(store, rig.job(), "attach")
    other = await send(store, rig.job(prompt="a ship"), "attach")
    assert isinstance(other, Submitted)
    again = await send(store, rig.job(prompt="a ship"), "attach")
    assert isinstance(again, Replayed)
    assert isinstance(await send(store, rig.job(), "once"), Conflict)


async def test_denied_repeats_still_attach(rig: Rig, store: Engine) -> None:
    """A repeat is measured only where it makes a job."""
    first = await send(store, rig.job(), "renew", FULL)
    assert isinstance(await send(store, rig.job(), "renew", FULL), Denied)
    assert isinstance(await send(store, rig.job(prompt="a ship"), "attach", FULL), Denied)
    again = await send(store, rig.job(), "attach", FULL)
    assert made([again]) == made([first])
    assert isinstance(again, Replayed)


async def test_renewal_frees_no_key(rig: Rig, store: Engine) -> None:
    """In one batch with a renewal of its key, a key that was bound before still answers for itself."""
    first = await send(store, rig.job(), "once")
    await rig.shut(store)
    again = await rig.open()
    bound, renewed = await asyncio.gather(send(again, rig.job(), "once"), send(again, rig.job(), "renew"))
    assert isinstance(renewed, Submitted)
    assert isinstance(bound, Replayed)
    assert made([bound]) in (made([first]), made([renewed]))
    assert (await again.usage("acme", "ann")).user.flight == 2


async def test_reopened_store_attaches(rig: Rig, store: Engine) -> None:
    """What a key was bound to over another is what it is bound to after a restart."""
    await send(store, rig.job(), "renew")
    newest = await send(store, rig.job(), "renew")
    await rig.shut(store)
    again = await send(await rig.open(), rig.job(), "attach")
    assert isinstance(again, Replayed)
    assert made([again]) == made([newest])


async def test_paid_jobs_are_not_repeated(rig: Rig, store: Engine) -> None:
    """A job that ended well is shown to the repeat whose first send it was, and charged once."""
    await send(store, rig.job(), "renew")
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt())
    await store.record(claim, ending(1), SAID)
    answers = await asyncio.gather(*(send(store, rig.job(), "attach") for _ in range(CALLERS)))
    assert {type(answer) for answer in answers} == {Replayed}
    assert (await store.usage("acme", "ann")).user.charged == 10
