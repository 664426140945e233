"""Event streams over a socket: one job's and all of a caller's, with resume, limits and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage
from tests.journeys.visitor import Event, Line, Visitor

SLOW = Behavior(do="slow", match="slow", times=0, seconds=0.2)
HANG = Behavior(do="hang", match="endless", times=0)


async def every(line: Line) -> list[Event]:
    """Return the events of a stream to its end."""
    events = []
    while (event := await line.event()) is not None:
        events.append(event)
    return events


async def test_job_stream_tells_to_the_end(stage: Stage, upstream: Fake) -> None:
    """A job's stream tells the whole job at each version it sees, ends with its end, and says so by id."""
    upstream.script.add(SLOW)
    ann = stage.visit()
    job = await ann.job("a slow sunrise")
    async with ann.stream(f"/v1/jobs/{job['id']}/events") as line:
        assert (await line.chunk()).startswith(b"retry: 2000\n:\n")
        events = await every(line)
    assert [event.id for event in events] == [event.job["version"] for event in events]
    assert sorted({event.id for event in events}) == [event.id for event in events]
    assert [event.job["ended"] for event in events[:-1]] == [False] * (len(events) - 1)
    assert events[-1].job == await ann.ended(job)


async def test_job_stream_resumes(stage: Stage, upstream: Fake) -> None:
    """`Last-Event-ID` brings what came after it; after the last event there is nothing: 204."""
    upstream.script.add(SLOW)
    ann = stage.visit()
    job = await ann.running(await ann.job("a slow sunrise"))
    path = f"/v1/jobs/{job['id']}/events"
    async with ann.stream(path, Last_Event_ID=str(job["version"])) as line:
        events = await every(line)
    assert min(event.id for event in events) > job["version"]
    last = events[-1]
    assert last.job["state"] == "succeeded"
    async with ann.stream(path, Last_Event_ID=str(last.id - 1)) as line:
        assert [event.id for event in await every(line)] == [last.id]
    over = await ann.get(path, Last_Event_ID=str(last.id))
    assert (over.status, over.body) == (204, b"")
    wrong = await ann.get(path, Last_Event_ID="yesterday")
    assert (wrong.status, wrong.json["errors"][0]["pointer"]) == (400, "/header/last-event-id")


async def test_own_stream_tells_all_jobs(stage: Stage, upstream: Fake) -> None:
    """One stream begins with the caller's open jobs and tells each change of them and of new ones."""
    upstream.script.add(HANG)
    ann, ben = stage.visit(), stage.visit("ben")
    first = await ann.running(await ann.job("an endless staircase"))
    foreign = await ben.running(await ben.job("another endless staircase"))
    async with ann.stream("/v1/events") as line:
        snapshot = await line.event()
        assert snapshot is not None
        assert snapshot.job == first
        await ben.post(f"/v1/jobs/{foreign['id']}/cancel")
        second = await ann.job()
        seen: dict[str, Any] = {}
        while second["id"] not in seen or not seen[second["id"]]["ended"]:
            event = await line.event()
            assert event is not None
            seen[event.job["id"]] = event.job
        await ann.post(f"/v1/jobs/{first['id']}/cancel")
        while not seen.get(first["id"], first)["ended"]:
            event = await line.event()
            assert event is not None
            seen[event.job["id"]] = event.job
    assert {job: found["state"] for job, found in seen.items()} == {
        first["id"]: "canceled",
        second["id"]: "succeeded",
    }


async def test_own_stream_can_be_narrowed(stage: Stage, upstream: Fake) -> None:
    """`?jobs=` tells of the named jobs alone; ids that are not the caller's own are passed over."""
    upstream.script.add(HANG)
    ann = stage.visit()
    ended, other = await ann.made(), await ann.job("an endless staircase")
    foreign = await stage.visit("ben").made()
    names = ",".join([ended["id"], foreign["id"]])
    async with ann.stream(f"/v1/events?jobs={names}") as line:
        event = await line.event()
        assert event is not None
        assert event.job == ended
        await ann.post(f"/v1/jobs/{other['id']}/cancel")
        await ann.ended(other)
        await ann.ask("DELETE", f"/v1/jobs/{ended['id']}")
        stage.house.lifetime.begin_drain()
        assert await line.event() is None


async def test_own_stream_resumes_with_ends(stage: Stage) -> None:
    """After a break, `Last-Event-ID` brings the jobs that ended meanwhile, and those that are open."""
    ann = stage.visit()
    async with ann.stream("/v1/events") as line:
        before = await ann.job()
        event = await line.event()
        while event is not None and not event.job["ended"]:
            event = await line.event()
        assert event is not None
        assert event.job["id"] == before["id"]
    missed = await ann.made("a windmill")
    async with ann.stream("/v1/events", Last_Event_ID=str(event.id)) as line:
        told = {}
        while missed["id"] not in told:
            found = await line.event()
            assert found is not None
            told[found.job["id"]] = found.job
    assert told[missed["id"]] == missed
    stage.clock.move(60_000)
    async with ann.stream("/v1/events", Last_Event_ID=str(stage.clock())) as line:
        latest = await ann.made("a dovecote")
        found = await line.event()
        assert found is not None
        assert found.job["id"] == latest["id"]


async def test_streams_are_counted(stage: Stage) -> None:
    """One stream more than the plan has is refused; one that is hung up leaves its place."""
    ann = stage.visit(plan="free")
    async with ann.stream("/v1/events"), ann.stream("/v1/events") as last:
        refused = await ann.get("/v1/events")
        assert (refused.status, refused.code) == (429, "too_many_streams")
        assert refused.json["retry_after"] == int(refused.headers["retry-after"]) == 5
        async with stage.visit("ben", plan="free").stream("/v1/events"):
            pass
        last.hang_up()
        while (await ann.ask("HEAD", "/v1/events")).status == 429:
            pass
        async with ann.stream("/v1/events"):
            pass


@asynccontextmanager
async def following(who: Visitor) -> AsyncIterator[tuple[Line, Line]]:
    """Follow a new job and all jobs, each stream past its first event."""
    job = await who.job("an endless staircase")
    async with who.stream(f"/v1/jobs/{job['id']}/events") as one, who.stream("/v1/events") as all_:
        for line in (one, all_):
            await line.chunk()
            assert await line.event() is not None
        yield one, all_


async def test_stream_ends_with_drain(stage: Stage, upstream: Fake) -> None:
    """A process that stops tells its streams to reconnect, ends them, and takes no new ones."""
    upstream.script.add(HANG)
    ann = stage.visit()
    async with following(ann) as (one, all_):
        stage.house.lifetime.begin_drain()
        for line in (one, all_):
            assert (await line.rest()).endswith(b": draining, reconnect\n\n\r\n0\r\n\r\n")
    refused = await ann.get("/v1/events")
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "draining", "1")
    assert (await stage.stranger().get("/readyz")).code == "draining"
    assert (await stage.stranger().get("/livez")).status == 200


async def test_lost_news_end_wide_streams(stage: Stage, upstream: Fake) -> None:
    """Where a process missed what others did, a stream of all jobs ends, and the next one tells what is."""
    upstream.script.add(HANG)
    ann = stage.visit()
    async with following(ann) as (_one, all_):
        stage.sick.lose_news()
        assert (await all_.rest()).endswith(b"0\r\n\r\n")
        async with ann.stream("/v1/events") as again:
            await again.chunk()
            assert await again.event() is not None


async def test_stream_ends_with_token(opening: Opening, upstream: Fake) -> None:
    """A stream is not longer than the token it was opened with."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    job = await stage.visit().job()
    token = stage.token(seconds=60)
    stage.clock.move(59_500)
    ann = stage.visit()
    ann.token = token
    async with ann.stream(f"/v1/jobs/{job['id']}/events") as line:
        assert (await line.rest()).endswith(b": the token has expired\n\n\r\n0\r\n\r\n")
    stage.clock.move(60_000)  # what clocks may differ by
    assert (await ann.get("/v1/jobs")).code == "unauthenticated"


@pytest.mark.parametrize("path", ["/v1/jobs/{id}", "/v1/jobs/{id}/events", "/v1/jobs/{id}/cancel"])
async def test_strangers_see_no_job(stage: Stage, path: str) -> None:
    """Another user, another tenant and nobody learn nothing of a job; the tenant's admin does."""
    job = await stage.visit().made()
    method = "POST" if path.endswith("cancel") else "GET"
    target = path.format(id=job["id"])
    unknown = path.format(id="job_00000000000000000000000000")
    for who in (stage.visit("ben"), stage.visit("ann", "other"), stage.admin("other")):
        reply, other = await who.ask(method, target), await who.ask(method, unknown)
        assert reply.status == other.status == 404
        assert plain(reply.body, reply.headers) == plain(other.body, other.headers)
    assert (await stage.stranger().ask(method, target)).code == "unauthenticated"
    if "events" not in path:
        assert (await stage.admin().ask(method, target)).json["id"] == job["id"]


def plain(body: bytes, headers: dict[str, str]) -> bytes:
    """Return a body without the request's own id."""
    return body.replace(headers["x-request-id"].encode(), b"")
