"""Upstreams: who is well enough to be asked, who is believed, and what is never passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from policies.model import JobState
from tests.fakes.behavior import Behavior
from tests.journeys.workbench import workbench

if TYPE_CHECKING:
    from pathlib import Path

    from policies.model import Job

WORDS = "UPSTREAM-WORDS req_123 https://internal.example.net/x"
OTHER = "00000000-0000-4000-8000-000000000000"


def down(times: int = 0) -> Behavior:
    """Return answers of 503."""
    return Behavior("status", status=503, times=times)


async def test_sick_entry_is_passed_over(tmp_path: Path) -> None:
    """After five failures an entry is left alone, and one call after its pause finds it well again."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("main", down())
        for _ in range(4):
            job = await bench.run_to_end(await bench.submit("main", "spare"))
            assert job.provider == "spare"
        assert (bench.counts("main"), bench.counts("spare")) == ((5, 0), (4, 4))
        bench.fakes["main"].script.clear()
        bench.run_clock.ahead += 10_000
        for _ in range(2):
            job = await bench.run_to_end(await bench.submit("main", "spare"))
            assert job.provider == "main"
        assert bench.counts("main") == (7, 2)


async def test_failed_probe_lengthens_pause(tmp_path: Path) -> None:
    """A sick entry's probe that fails sends its work on, and the entry rests twice as long."""
    async with workbench(tmp_path, "main", "spare") as bench:
        bench.script("main", down())
        calls = []
        for wait in (0, 0, 0, 10_000, 10_000, 20_000):
            bench.run_clock.ahead += wait
            await bench.run_to_end(await bench.submit("main", "spare"))
            calls.append(bench.counts("main")[0])
        assert calls == [3, 5, 5, 6, 6, 7]


async def test_lone_sick_entry_waits(tmp_path: Path) -> None:
    """A job whose only entry is sick waits for it to be asked again, and is made then."""
    async with workbench(tmp_path, "main") as bench:
        bench.script("main", down(5))
        await bench.run_to_end(await bench.submit("main"))
        job = await bench.run_to_end(await bench.submit("main"))
        assert job.state is JobState.SUCCEEDED
        assert bench.waits.count(1.0) >= 9


async def test_unrelated_trouble_is_health(tmp_path: Path) -> None:
    """A refusal, a limit, a missing right: an upstream that says so is well."""
    async with workbench(tmp_path, "main", "spare") as bench:
        for status in (400, 401, 402, 403, 404, 429):
            bench.script("main", Behavior("status", status=status), Behavior("refusal"))
            await bench.run_to_end(await bench.submit("main", "spare"))
            await bench.run_to_end(await bench.submit("main", "spare"))
        assert bench.upstreams.healthy("main")
        assert bench.counts("main") == (12, 0)


def bodies(entry: str) -> list[str]:
    """Return poll answers of every state about a job that is not ours."""
    link = "https://elsewhere.example.com/somebody-elses.png"
    if entry == "plus":
        states: tuple[str, ...] = ("queued", "running", "succeeded", "failed", "blocked")
        rows = [{"id": "gen_999999", "status": s, "outputs": [{"png": link}]} for s in states]
    else:
        states = ("pending", "running", "succeeded", "failed")
        more = {"results": [{"imageUrl": link}], "error": "content_moderation_blocked"}
        rows = [{"jobId": OTHER, "status": s, **more} for s in states[:3]]
        rows.append({"jobId": OTHER, "status": "failed", "error": "image_generation_failed"})
    return [msgspec.json.encode(row).decode() for row in rows]


@pytest.mark.parametrize(("entry", "body"), [(e, body) for e in ("plus", "ai") for body in bodies(e)])
async def test_foreign_answers_are_not_believed(entry: str, body: str, tmp_path: Path) -> None:
    """A poll answered about another job of the upstream tells nothing: it is asked again."""
    async with workbench(tmp_path, entry) as bench:
        answer = Behavior("status", on="poll", status=200, body=body, headers={"retry-after-ms": "20"})
        bench.script(entry, answer)
        job = await bench.worked(await bench.submit(entry))
        assert job.state is JobState.SUCCEEDED
        assert bench.counts(entry) == (1, 1)
        assert len(bench.fakes[entry].seen("poll")) == 3


def seen_by_clients(job: Job) -> bytes:
    """Return the parts of a job that answers to clients are made from."""
    return msgspec.json.encode((job.error, job.outputs, job.shortfall))


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 502])
@pytest.mark.parametrize("entry", ["main", "plus", "ai"])
async def test_upstream_words_stay_inside(entry: str, status: int, tmp_path: Path) -> None:
    """What an upstream says of a failure is in no answer, no line of the trail, no log and no metric."""
    body = msgspec.json.encode({"error": {"message": WORDS, "code": WORDS, "type": WORDS}, "status": WORDS})
    async with workbench(tmp_path, entry, deadline_seconds=5) as bench:
        bench.script(entry, Behavior("status", status=status, times=0, body=body.decode()))
        job = await bench.worked(await bench.submit(entry))
        assert job.state is JobState.FAILED
        trail = b"".join(link.rows for link in await bench.engine.audit_page("acme"))
        metrics = bench.telemetry.render()[0]
        bench.telemetry.close()
        everything = seen_by_clients(job) + trail + metrics + bench.sink.getvalue()
        for word in (*WORDS.split(), bench.fakes[entry].key):
            assert word.encode() not in everything


@pytest.mark.parametrize("entry", ["plus", "ai"])
async def test_upstream_ids_stay_inside(entry: str, tmp_path: Path) -> None:
    """An upstream's id and links are in no output, no error and no line of the trail."""
    async with workbench(tmp_path, entry) as bench:
        job = await bench.worked(await bench.submit(entry))
        upstream_id = job.attempts[-1].upstream_id
        assert upstream_id is not None
        trail = b"".join(link.rows for link in await bench.engine.audit_page("acme"))
        for word in (upstream_id, f"{entry}.example.com", "http"):
            assert word.encode() not in seen_by_clients(job) + trail


async def test_each_call_is_told(tmp_path: Path) -> None:
    """Each call to an upstream is one line with its entry, phase, outcome and status or cut."""
    async with workbench(tmp_path, "plus") as bench:
        bench.script("plus", Behavior("reset_after"))
        await bench.worked(await bench.submit("plus"))
        told = [
            (line["phase"], line["outcome"], line.get("upstream_status"), line.get("cut"))
            for line in bench.told("attempt")
        ]
        assert told == [
            ("submit", "unknown", None, "reset"),
            ("submit", "running", 202, None),
            ("poll", "running", 200, None),
            ("poll", "finished", 200, None),
            ("fetch", "finished", 200, None),
        ]


async def test_offers_name_all_entries(tmp_path: Path) -> None:
    """Routing is offered every configured entry with its kind."""
    async with workbench(tmp_path, "main", "ai") as bench:
        assert [(offer.entry, offer.kind) for offer in bench.upstreams.offers()] == [
            ("main", "openai"),
            ("ai", "gptimage2_ai"),
        ]
