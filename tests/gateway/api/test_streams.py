"""Event streams: what they begin with, what wakes them, and all the ways they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.api.streams import OVERLAP_MS, StreamCalls
from gateway.errors import StoreUnavailable
from policies import ids
from policies.model import JobState
from tests.fakes.jobs import NOON, uuid
from tests.gateway.api.conftest import Site, settle

if TYPE_CHECKING:
    from tests.fakes.asgi import Open

ONE = f"/v1/jobs/{ids.shown(uuid(1))}/events"


def watching(site: Site, target: str = ONE, *headers: tuple[str, str]) -> Open:
    """Open a stream of Ann's."""
    return site.open("GET", target, [site.bearer(), *headers])


async def left(site: Site, opened: Open) -> None:
    """Leave a stream, and see that it held nothing back."""
    opened.left.set()
    await opened.done()
    await settle()
    assert len(site.jobs.bell) == 0


async def test_stream_tells_job_to_its_end(site: Site) -> None:
    """A stream begins with the job as it is, tells each change with its version, and ends with the job."""
    site.jobs.put(1)
    opened = watching(site)
    assert await opened.part() == "retry: 2000\n:\n\n"
    number, job = await opened.event() or ("", {})
    assert (number, job["state"], job["queue"]["position"]) == ("1", "queued", 3)
    site.jobs.put(1, state=JobState.RUNNING)
    assert (await opened.event() or ("", {}))[0] == "2"
    site.jobs.end(1)
    number, job = await opened.event() or ("", {})
    assert (number, job["ended"]) == ("3", True)
    assert await opened.event() is None
    answer = await opened.done()
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "private, no-store, no-transform"
    assert "ratelimit" in answer.headers
    assert len(site.jobs.bell) == 0


async def test_event_is_the_job_as_read(site: Site) -> None:
    """The data of an event is what reading the job answers."""
    site.jobs.put(1)
    opened = watching(site)
    shown = (await opened.event() or ("", {}))[1]
    assert shown == (await site.get(f"/v1/jobs/{uuid(1)}")).json
    await left(site, opened)


async def test_resume_passes_over_known(site: Site) -> None:
    """Who saw a version is told of later ones only; one that is not there yet counts as none."""
    site.jobs.put(1)
    for seen in ("1", "99"):
        opened = watching(site, ONE, ("Last-Event-ID", seen))
        await settle()
        assert opened.parts.qsize() == 1
        await left(site, opened)
    opened = watching(site, ONE, ("Last-Event-ID", "0"))
    assert (await opened.event() or ("", {}))[0] == "1"
    site.jobs.end(1)
    assert (await opened.event() or ("", {}))[0] == "2"
    await opened.done()


async def test_nothing_to_follow_is_204(site: Site) -> None:
    """Who saw the end of a job and asks again is told to stop asking; who did not, gets the end."""
    site.jobs.put(1)
    site.jobs.end(1)
    assert (await watching(site, ONE, ("Last-Event-ID", "2")).done()).status == 204
    assert b'"canceled"' in (await watching(site, ONE, ("Last-Event-ID", "1")).done()).body


@pytest.mark.parametrize("seen", ["x", "-1", "1.0", "٣", "9" * 17, str(2**53)])
async def test_strange_event_id_is_400(site: Site, seen: str) -> None:
    """An event id no stream sent is refused with its place."""
    site.jobs.put(1)
    answer = await site.get("/v1/events", ("Last-Event-ID", seen.encode().decode("latin-1")))
    assert answer.json["errors"][0]["pointer"] == "/header/last-event-id"


async def test_stream_of_unknown_is_404(site: Site) -> None:
    """A stream of a foreign or unknown job is refused like reading it, before it begins."""
    site.jobs.put(1, subject="bob")
    for target in (ONE, "/v1/jobs/job_x/events", f"/v1/jobs/{uuid(9)}/events"):
        answer = await site.get(target)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_streams_are_capped(site: Site) -> None:
    """A user has as many streams as the plan allows; one that ends makes room at once."""
    site.jobs.put(1)
    first, second = watching(site), watching(site, "/v1/events")
    await settle()
    refused = await site.get(ONE)
    assert (refused.status, refused.json["code"]) == (429, "too_many_streams")
    assert refused.headers["retry-after"] == "5"
    other = site.open("GET", "/v1/events", [site.bearer("bob")])
    await settle()
    assert other.answer.status == 200
    assert b"safelight_streams_open 3.0" in site.telemetry.render()[0]
    for opened in (first, second, other):
        await left_quietly(opened)
    assert b"safelight_streams_open 0.0" in site.telemetry.render()[0]
    assert len(site.jobs.bell) == 0


async def left_quietly(opened: Open) -> None:
    """Leave a stream."""
    opened.left.set()
    await opened.done()


@pytest.mark.parametrize("target", [ONE, "/v1/events"])
async def test_drain_ends_streams(site: Site, target: str) -> None:
    """A stopping process tells its streams to reconnect and refuses new ones."""
    site.jobs.put(1)
    opened = watching(site, target)
    await settle()
    site.lifetime.begin_drain()
    assert (await opened.done()).body.endswith(b": draining, reconnect\n\n")
    refused = await site.get(target)
    assert (refused.status, refused.json["code"]) == (503, "draining")
    assert refused.headers["retry-after"] == "1"


async def test_stream_ends_with_token(site: Site) -> None:
    """A stream does not outlive the token it was opened with."""
    site.jobs.put(1)
    site.jobs.at += 59_980
    who = ("Authorization", f"Bearer {site.token(seconds=60)}")
    site.jobs.at += 59_970
    opened = site.open("GET", ONE, [who])
    assert (await opened.done()).body.endswith(b": the token has expired\n\n")


async def test_quiet_stream_beats(site: Site) -> None:
    """Where nothing happens a comment is sent now and then, so that nobody on the way hangs up."""
    site.jobs.put(1)
    calls = StreamCalls(
        site.parts.jobs,
        site.views,
        site.lifetime,
        site.slots,
        site.parts.authenticator.stands,
        heartbeat=0.005,
    )
    for target, handler in ((ONE, calls.one), ("/v1/events", calls.all)):
        opened = site.direct(handler, target, job_id=uuid(1))
        await opened.event()
        assert await opened.part() == ":\n\n"
        await left(site, opened)


async def test_fault_cuts_the_stream(site: Site) -> None:
    """A store that fails in mid-stream leaves the answer half, so that the client comes again."""
    site.jobs.put(1)
    opened = watching(site)
    await opened.event()
    site.jobs.raising = StoreUnavailable("down")
    site.jobs.put(1)
    await opened.done()
    assert [line["event"] for line in site.told] == ["request"]
    assert site.told[-1]["code"] == "store_unavailable"
    assert len(site.jobs.bell) == 0


async def test_bug_in_stream_is_told(site: Site) -> None:
    """An unexpected exception in mid-stream is in the log under the request's id."""
    site.jobs.put(1)
    opened = watching(site)
    await opened.event()
    site.jobs.raising = ZeroDivisionError()
    site.jobs.put(1)
    await opened.done()
    bug, request = site.told
    assert bug["error"].startswith("ZeroDivisionError")
    assert bug["request_id"] == request["request_id"]


async def test_head_of_stream_is_short(site: Site) -> None:
    """HEAD on a stream answers its headers and holds nothing open."""
    site.jobs.put(1)
    answer = await site.ask("HEAD", ONE, site.bearer())
    assert (answer.status, answer.body) == (200, b"")


async def test_all_begins_with_open_jobs(site: Site) -> None:
    """The stream of all begins with the open jobs and tells every later change; ids are instants."""
    site.jobs.put(1)
    site.jobs.put(2, state=JobState.RUNNING)
    site.jobs.end(3)
    site.jobs.put(4, subject="bob")
    opened = watching(site, "/v1/events")
    first, second = await opened.event(), await opened.event()
    assert first is not None
    assert second is not None
    assert {first[1]["id"], second[1]["id"]} == {ids.shown(uuid(1)), ids.shown(uuid(2))}
    assert first[0] == str(NOON)
    site.jobs.at += 500
    site.jobs.put(5)
    site.jobs.put(4)
    number, job = await opened.event() or ("", {})
    assert (number, job["id"]) == (str(NOON + 500), ids.shown(uuid(5)))
    assert opened.parts.empty()
    await left(site, opened)


async def test_all_resumes_with_ended(site: Site) -> None:
    """Resumed, it tells again what is open and what ended since, and a little more rather than less."""
    for number in (1, 2, 3):
        site.jobs.put(number)
    site.jobs.put(1, state=JobState.CANCELED, ended_at=NOON - OVERLAP_MS)
    site.jobs.put(2, state=JobState.CANCELED, ended_at=NOON)
    opened = watching(site, "/v1/events", ("Last-Event-ID", str(NOON + 1)))
    told = [(await opened.event() or ("", {}))[1]["id"] for _ in range(2)]
    assert told == [ids.shown(uuid(3)), ids.shown(uuid(2))]
    await settle()
    assert opened.parts.empty()
    await left(site, opened)


async def test_named_jobs_are_told_whatever(site: Site) -> None:
    """`jobs` picks jobs in either spelling: an ended one is told at once, others not at all."""
    for number in (1, 2, 3):
        site.jobs.put(number)
    site.jobs.end(2)
    site.jobs.put(4, subject="bob")
    names = f"{ids.shown(uuid(1))},{uuid(2)},{uuid(4)},{uuid(99)}"
    opened = watching(site, f"/v1/events?jobs={names}")
    told = {(await opened.event() or ("", {}))[1]["state"] for _ in range(2)}
    assert told == {"queued", "canceled"}
    site.jobs.put(3)
    site.jobs.put(1, state=JobState.RUNNING)
    assert (await opened.event() or ("", {}))[1]["id"] == ids.shown(uuid(1))
    await left(site, opened)


@pytest.mark.parametrize("names", ["", "job_x", f"{uuid(1)},", ",".join([uuid(1)] * 101)])
async def test_bad_names_are_400(site: Site, names: str) -> None:
    """A list of jobs that cannot be read is refused with its place."""
    answer = await site.get(f"/v1/events?jobs={names}")
    assert answer.json["errors"][0]["pointer"] == "/query/jobs"


async def test_change_during_first_read_is_told(site: Site) -> None:
    """The stream of all listens before it reads, so a change in between is not lost."""
    site.jobs.put(1)
    site.jobs.meanwhile = lambda: site.jobs.put(1, state=JobState.RUNNING)
    opened = watching(site, "/v1/events")
    assert (await opened.event() or ("", {}))[1]["state"] == "queued"
    assert (await opened.event() or ("", {}))[1]["state"] == "running"
    await left(site, opened)


async def test_changes_fold_into_newest(site: Site) -> None:
    """Many changes before the next event are one event: the newest state, however many there were."""
    site.jobs.put(1)
    opened = watching(site)
    await opened.event()
    for _ in range(50):
        site.jobs.put(1)
    site.jobs.end(1)
    await opened.done()
    rest = opened.answer.body.count(b"event: job") - 1
    assert rest == 1
