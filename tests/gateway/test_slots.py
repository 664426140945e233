"""Slots: fan-out, what each one's end does to the job, what is asked again and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from gateway.lifetime import Lifetime
from policies.model import JobState, Shortfall
from tests.fakes.behavior import Behavior
from tests.journeys.workbench import PRICE, workbench

if TYPE_CHECKING:
    from pathlib import Path

LAST_SLOT = '"n":2'


def says(status: int, times: int = 1, **headers: str) -> Behavior:
    """Return whole answers of a status, with no word on when to come again unless it is given."""
    told = {"retry-after": "", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Behavior("status", status=status, times=times, headers=told)


async def test_count_spreads_over_slots(tmp_path: Path) -> None:
    """Ten images at four a call are three paid calls, each under a key of its own, and ten outputs."""
    async with workbench(tmp_path, "plus") as bench:
        job = await bench.worked(await bench.submit("plus", slots=(4, 4, 2)))
        assert [output.index for output in job.outputs] == list(range(10))
        assert len({output.key for output in job.outputs}) == 10
        assert bench.counts("plus") == (3, 3)
        keys = {call.idempotency_key for call in bench.fakes["plus"].seen("create")}
        assert keys == {f"{job.id}-{slot}" for slot in range(3)}
        assert (job.charged, job.refunded) == (10 * PRICE, 0)


async def test_fewer_images_are_delivered(tmp_path: Path) -> None:
    """Two images of four are a success: two are charged, and what is missing is named and given back."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", Behavior("fewer", count=2))
        job = await bench.worked(await bench.submit("main", slots=(4,)))
        assert (job.state, job.charged, job.refunded) == (JobState.SUCCEEDED, 2 * PRICE, 2 * PRICE)
        assert job.shortfall == tuple(Shortfall(index, "upstream_failed", PRICE) for index in (2, 3))


@pytest.mark.parametrize(
    ("behavior", "code", "flag"),
    [
        (Behavior("refusal", match=LAST_SLOT), "upstream_refused", None),
        (Behavior("status", status=401, match=LAST_SLOT), "upstream_failed", None),
        (Behavior("malformed", match=LAST_SLOT), "upstream_failed", "paid_and_unusable"),
        (Behavior("reset_after", match=LAST_SLOT), "outcome_unknown", "outcome_unknown"),
    ],
)
async def test_one_slot_is_lost(behavior: Behavior, code: str, flag: str | None, tmp_path: Path) -> None:
    """What becomes of one slot is that slot's: the indexes of the others are delivered and charged."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", behavior)
        job = await bench.worked(await bench.submit("main", slots=(4, 4, 2)))
        assert job.state is JobState.SUCCEEDED
        assert [output.index for output in job.outputs] == list(range(8))
        assert job.shortfall == (Shortfall(8, code, PRICE), Shortfall(9, code, PRICE))
        assert (job.charged, job.operator_flag) == (8 * PRICE, flag)


async def test_a_middle_slot_leaves_gap(tmp_path: Path) -> None:
    """Outputs keep the index they were asked for, whatever is missing between them."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", Behavior("refusal", match='"n":3'))
        job = await bench.worked(await bench.submit("main", slots=(4, 3, 2)))
        assert [output.index for output in job.outputs] == [0, 1, 2, 3, 7, 8]
        assert [short.index for short in job.shortfall] == [4, 5, 6]


async def test_any_refusal_blocks_nothing(tmp_path: Path) -> None:
    """With no image at all, one slot's refusal makes the job blocked whatever the other ran into."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", Behavior("refusal", match=LAST_SLOT), Behavior("status", status=401))
        job = await bench.worked(await bench.submit("main", slots=(1, 2)))
        assert job.error is not None
        assert (job.state, job.error.code) == (JobState.BLOCKED, "upstream_refused")
        assert (job.charged, len(job.shortfall)) == (0, 3)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 500, 503])
async def test_doubt_outlives_a_refusal(status: int, tmp_path: Path) -> None:
    """After a cut nobody can read, an answer to the repeat says nothing of the first: nobody else is paid."""
    async with workbench(tmp_path, "plus", "spare") as bench:
        bench.script("plus", Behavior("reset_after"), says(status, 2))
        job = await bench.worked(await bench.submit("plus", "spare"))
        assert job.state is JobState.SUCCEEDED
        assert (bench.counts("plus"), bench.counts("spare")) == ((4, 1), (0, 0))


async def test_doubt_outlives_unreachable_upstream(tmp_path: Path) -> None:
    """A call that may have been taken is not made elsewhere because the upstream went away since."""
    async with workbench(tmp_path, "plus", "spare") as bench:
        bench.script("plus", Behavior("reset_after"))
        bench.names.fail("plus", times=99, after=1)
        job = await bench.worked(await bench.submit("plus", "spare"))
        assert job.operator_flag == "outcome_unknown"
        assert (bench.counts("plus"), bench.counts("spare")) == ((1, 1), (0, 0))


async def test_repeats_come_when_asked(tmp_path: Path) -> None:
    """A repeat under the same key waits as long as the upstream asks, at most a minute."""
    async with workbench(tmp_path, "plus", deadline_seconds=900) as bench:
        late = says(429, 1, retry_after="3600")
        bench.script("plus", Behavior("reset_after"), says(429, 1, retry_after="5"), late)
        job = await bench.worked(await bench.submit("plus"))
        assert job.state is JobState.SUCCEEDED
        assert bench.waits[:3] == [0.5, 5.0, 60.0]


async def test_limited_route_begins_anew(tmp_path: Path) -> None:
    """Where every entry asks for patience, the first is asked again after the last one's wait."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("main", says(429, retry_after="3"))
        bench.script("spare", says(429, retry_after="2"))
        job = await bench.worked(await bench.submit("main", "spare"))
        assert (job.provider, bench.waits) == ("main", [2.0])
        assert (bench.counts("main"), bench.counts("spare")) == ((2, 1), (1, 0))


async def test_patience_passes_over_sick(tmp_path: Path) -> None:
    """An entry that asks for patience gets it where the next one is too sick to be asked."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("spare", says(502, 5))
        for _ in range(5):
            await bench.run_to_end(await bench.submit("spare"))
        bench.script("main", says(429, retry_after="2"))
        job = await bench.run_to_end(await bench.submit("main", "spare"))
        assert (job.provider, bench.waits) == ("main", [2.0])


async def test_slow_attempts_are_not_sent(tmp_path: Path) -> None:
    """An attempt that took too long to write down is another's by now: it is closed unsent, and made anew."""
    ticks = iter([0.0, 5.1, 6.0, 6.1])
    async with workbench(tmp_path, "main") as bench:
        bench.parts = replace(bench.parts, ticks=lambda: next(ticks))
        job = await bench.run_to_end(await bench.submit("main"))
        assert [(attempt.n, bool(attempt.step)) for attempt in job.attempts] == [(0, False), (1, False)]
        assert (job.state, bench.counts("main")) == (JobState.SUCCEEDED, (1, 1))


async def test_pace_past_deadline_ends(tmp_path: Path) -> None:
    """A job whose upstream wants to be asked after the deadline ends now, as late and perhaps paid."""
    async with workbench(tmp_path, "plus", deadline_seconds=30) as bench:
        body = '{"generationId": "gen_1", "status": "queued"}'
        later = {"retry-after": "60"}
        bench.script("plus", Behavior("status", status=202, body=body, headers=later))
        job = await bench.run_to_end(await bench.submit("plus"))
        assert job.error is not None
        assert (job.error.code, job.operator_flag) == ("upstream_timeout", "paid_and_late")
        assert bench.fakes["plus"].seen("poll") == []


async def test_patience_grows_around_route(tmp_path: Path) -> None:
    """Entries that ask for patience and do not say how much are asked less and less often."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("main", says(429, 4))
        bench.script("spare", says(429, 4))
        job = await bench.worked(await bench.submit("main", "spare"))
        assert (job.state, bench.waits) == (JobState.SUCCEEDED, [0.5, 1.0, 2.0, 4.0])


async def test_dead_route_ends_soon(tmp_path: Path) -> None:
    """A route whose every entry answers that it does nothing is tried once, not until the deadline."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("main", says(503, 0))
        bench.names.fail("spare", 99)
        job = await bench.worked(await bench.submit("main", "spare"))
        assert job.error is not None
        assert job.error.code == "upstream_failed"
        assert (bench.counts("main"), bench.waits) == ((3, 0), [0.5, 1.0, 0.5])


async def test_calls_end_by_deadline(tmp_path: Path) -> None:
    """A call that makes images gets the time that is left, not the whole time of a call."""
    options = {"attempt_seconds": 100.0, "deadline_seconds": 1.2, "lifetime": Lifetime()}
    async with workbench(tmp_path, "main", **options) as bench:
        bench.script("main", Behavior("hang"))
        job = await bench.worked(await bench.submit("main"))
        assert job.error is not None
        assert job.error.code == "outcome_unknown"
        (attempt,) = job.attempts
        assert attempt.deadline_at <= job.created_at + 1_300


async def test_nothing_begins_past_deadline(tmp_path: Path) -> None:
    """A slot whose time ran out while no upstream could be asked ends with no call paid or made."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", says(503, 0))
        for _ in range(2):
            await bench.run_to_end(await bench.submit("main"))
        calls = bench.counts("main")
        bench.parts = replace(bench.parts, deadline_seconds=5)
        job = await bench.run_to_end(await bench.submit("main"))
        assert job.error is not None
        assert job.error.code == "deadline_exceeded"
        assert bench.counts("main") == calls


async def test_unknown_entries_are_passed_over(tmp_path: Path) -> None:
    """An entry that left the settings after the submit is not a step; with no step left the job fails."""
    async with workbench(tmp_path, "main") as bench:
        job = await bench.run_to_end(await bench.submit("spare", "main"))
        assert (job.state, job.provider) == (JobState.SUCCEEDED, "main")
        job = await bench.run_to_end(await bench.submit("spare"))
        assert job.error is not None
        assert (job.error.code, job.attempts[-1].n) == ("upstream_failed", -1)
