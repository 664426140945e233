"""Telemetry: one line a unit of work, bounded metrics, foreign logs taken in and given back."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.telemetry import MOST_SERIES, Form, Level, Reading, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOON = 1_795_176_000_123


class Told:
    """A `Telemetry` and what it wrote."""

    def __init__(
        self, level: Level = "info", form: Form = "json", now: Callable[[], int] = lambda: NOON
    ) -> None:
        self.sink = io.BytesIO()
        self.telemetry = Telemetry(self.sink, now, level=level, form=form, version="1.2.3")

    @property
    def text(self) -> str:
        """What was written until now."""
        self.telemetry.close()
        return self.sink.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The same, read back."""
        return [json.loads(line) for line in self.text.splitlines()]

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a metric's value; None where it was never counted."""
        pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        sample = re.escape(f"safelight_{name}" + (f"{{{pairs}}}" if pairs else ""))
        found = re.search(rf"^{sample} (\S+)$", self.telemetry.render()[0].decode(), re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture
def told() -> Iterator[Told]:
    """A telemetry that takes in foreign logs for the length of a test."""
    made = Told()
    made.telemetry.open()
    yield made
    made.telemetry.close()


def test_event_is_one_json_line() -> None:
    """A unit of work is one object on one line: when, how grave, what, then the fields in their order."""
    told = Told()
    told.telemetry.event("sweep", jobs=3, blobs=7, cause="retention")
    assert told.text == (
        '{"at":"2026-11-20T12:00:00.123Z","level":"info","event":"sweep",'
        '"jobs":3,"blobs":7,"cause":"retention"}\n'
    )


def test_stamps_follow_the_clock() -> None:
    """Each line has its own milliseconds, over the turn of a second and back."""
    times = iter([1_999, 2_000, 2_001, 1_000])
    told = Told(now=lambda: next(times))
    for _ in range(4):
        told.telemetry.event("tick")
    assert [line["at"][-7:] for line in told.lines] == ["01.999Z", "02.000Z", "02.001Z", "01.000Z"]


def test_unnamed_fields_are_counted() -> None:
    """A field that is not on the list is not written; the line and a metric say that one was dropped."""
    told = Told()
    told.telemetry.event("request", prompt="canary", authorization="Bearer canary", status=200)
    (line,) = told.lines
    assert (line["status"], line["dropped"]) == (200, 2)
    assert "canary" not in told.text
    assert told.metric("log_drops_total", what="field") == 2


@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", "debug info warning error"), ("info", "info warning error"), ("error", "error")],
)
def test_quieter_levels_are_left_out(level: Level, written: str) -> None:
    """Lines below the configured level are not written."""
    told = Told(level=level)
    for one in ("debug", "info", "warning", "error"):
        told.telemetry.event("tick", level=one)
    assert " ".join(line["level"] for line in told.lines) == written


def test_request_is_told_and_counted() -> None:
    """An answered request is one line and one count by template, method and class of status."""
    told = Told()
    told.telemetry.request(route="/v1/jobs/{id}", method="GET", status=404, seconds=0.004, tenant="acme")
    (line,) = told.lines
    assert line["event"] == "request"
    assert (line["route"], line["status"], line["tenant"]) == ("/v1/jobs/{id}", 404, "acme")
    assert told.metric("requests_total", method="GET", route="/v1/jobs/{id}", status="4xx") == 1
    assert told.metric("request_seconds_bucket", le="0.005", route="/v1/jobs/{id}") == 1
    assert told.metric("request_seconds_bucket", le="0.0025", route="/v1/jobs/{id}") == 0


def test_made_up_methods_share_a_label() -> None:
    """A method the wire invented is told and counted as OTHER."""
    told = Told()
    told.telemetry.request(route="none", method="CANARY", status=501, seconds=0)
    assert "CANARY" not in told.text
    assert told.metric("requests_total", method="OTHER", route="none", status="5xx") == 1


def test_attempt_is_told_and_counted() -> None:
    """A call to an upstream is one line and counts by entry, phase and outcome."""
    told = Told()
    told.telemetry.attempt(
        entry="main", phase="submit", outcome="finished", seconds=9.0, job="j", slot=0, n=1
    )
    assert told.lines[0] | {"event": "attempt", "outcome": "finished", "job": "j", "n": 1} == told.lines[0]
    assert told.metric("attempts_total", entry="main", outcome="finished", phase="submit") == 1
    assert told.metric("attempt_seconds_sum", entry="main", phase="submit") == 9


def test_delivery_is_told_and_counted() -> None:
    """A try to tell a webhook is one line, without its address, and counts by form and outcome."""
    told = Told()
    told.telemetry.delivery(
        form="native", outcome="again", seconds=0.25, status=500, endpoint="we_1", delivery="dl_1", url="u"
    )
    assert told.lines[0] | {"event": "delivery", "endpoint": "we_1", "status": 500} == told.lines[0]
    assert "url" not in told.lines[0]
    assert told.metric("deliveries_total", form="native", outcome="again") == 1
    assert told.metric("delivery_seconds_sum", form="native") == 0.25


def test_job_end_counts_credits() -> None:
    """A job's end counts by state and model, and what was charged adds up beside what was held."""
    told = Told()
    told.telemetry.held(40)
    told.telemetry.job(state="succeeded", model="standard", seconds=12.5, charged=30, refunded=10)
    assert told.lines[0] | {"event": "job", "charged": 30, "refunded": 10} == told.lines[0]
    assert told.metric("jobs_total", model="standard", state="succeeded") == 1
    assert told.metric("credits_total", move="held") == 40
    assert told.metric("credits_total", move="charged") == 30


def test_denials_and_commits_only_count() -> None:
    """A denial and a commit have no line of their own: the request's line tells them."""
    told = Told()
    told.telemetry.denied("rate_limited")
    told.telemetry.committed(12, 0.002)
    assert told.text == ""
    assert told.metric("denials_total", reason="rate_limited") == 1
    assert told.metric("store_batch_size_bucket", le="8.0") == 0
    assert told.metric("store_batch_size_bucket", le="16.0") == 1
    assert told.metric("store_commit_seconds_sum") == 0.002


def test_alarm_is_told_and_counted() -> None:
    """An alarm is a line at error level and a count by its word."""
    told = Told()
    told.telemetry.alarm("upstream_denied", entry="main", key="canary")
    (line,) = told.lines
    assert (line["level"], line["event"], line["alarm"]) == ("error", "alarm", "upstream_denied")
    assert "canary" not in told.text
    assert told.metric("alarms_total", alarm="upstream_denied") == 1


def test_bug_hides_foreign_words() -> None:
    """A bug is told by type and place; what the exception says stays out of the log."""
    told = Told()
    with pytest.raises(KeyError) as caught:
        dict[str, str]().__getitem__("canary prompt")
    told.telemetry.bug(caught.value, request_id="r1")
    (line,) = told.lines
    assert (line["event"], line["error"], line["request_id"]) == ("bug", "KeyError", "r1")
    assert "test_telemetry.py" in line["trace"][-1]
    assert "canary" not in told.text
    assert told.metric("bugs_total", error="KeyError") == 1


def test_labels_stay_bounded() -> None:
    """However many label sets come, a metric keeps a fixed number; the rest counts as `other`."""
    told = Told()
    for n in range(MOST_SERIES + 50):
        told.telemetry.denied(f"reason {n}")
    assert told.metric("denials_total", reason="other") == 50
    assert told.telemetry.render()[0].count(b"safelight_denials_total{") == MOST_SERIES + 1


@pytest.mark.parametrize("reading", list(Reading))
def test_readings_are_asked_when_rendered(reading: Reading) -> None:
    """A watched figure shows what its source says at the time of the reading."""
    told, figures = Told(), [3.0]
    told.telemetry.watch(reading, lambda: figures[-1])
    assert told.metric(reading) == 3
    figures.append(5.0)
    assert told.metric(reading) == 5


def test_render_is_prometheus_text() -> None:
    """The metrics come in the text format, with what runs here and this process's memory."""
    body, media_type = Told().telemetry.render()
    assert media_type.startswith("text/plain")
    assert b'safelight_build_info{python="3.' in body
    assert b'version="1.2.3"' in body
    assert b"process_resident_memory_bytes" in body


def test_foreign_log_loses_its_arguments(told: Told) -> None:
    """A library's warning becomes a line with logger, place and template, and without its arguments."""
    logging.getLogger("aiohttp.client").warning("cannot reach %s", "https://canary/?sig=canary")
    (line,) = told.lines
    assert (line["level"], line["event"], line["logger"]) == ("warning", "log", "aiohttp.client")
    assert line["template"] == "cannot reach %s"
    assert "test_telemetry.py" in line["where"]
    assert "canary" not in told.text


def test_foreign_chatter_is_left_out(told: Told) -> None:
    """Access lines and other news of libraries below warning level are not taken in."""
    logging.getLogger("uvicorn.access").info('"GET /v1/jobs?canary" 200')
    logging.getLogger("httpx").debug("canary")
    assert told.text == ""


async def test_lost_task_is_told_without_words(told: Told) -> None:
    """An exception asyncio reports is told by type and place, not by the text it printed."""

    async def fail() -> None:
        raise ValueError("canary")

    loop = asyncio.get_running_loop()
    task = loop.create_task(fail())
    await asyncio.wait([task])
    loop.call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "task": task}
    )
    (line,) = told.lines
    assert (line["level"], line["logger"], line["error"]) == ("error", "asyncio", "ValueError")
    assert line["template"] == "Task exception was never retrieved"
    assert "canary" not in told.text


def test_close_gives_the_log_back() -> None:
    """After `close` the standard library's log is as it was found, however often it is called."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    telemetry = Told().telemetry.open()
    assert root.handlers != before[0]
    telemetry.close()
    telemetry.close()
    assert (root.handlers, root.level) == before


def test_broken_output_is_counted() -> None:
    """Lines that could not be written show in the metrics, since they show nowhere else."""
    told = Told()
    told.sink.close()
    told.telemetry.event("tick")
    told.telemetry.close()
    assert told.metric("log_drops_total", what="line") == 1


def test_console_line_is_short() -> None:
    """In a terminal a line is time, level, word and fields, colored; a trace stands below it."""
    told = Told(form="console")
    told.telemetry.event("start", address="http://127.0.0.1:8080")
    with pytest.raises(StoreUnavailable) as caught:
        raise StoreUnavailable("no answer")
    told.telemetry.bug(caught.value)
    start, bug, trace = re.sub(r"\x1b\[\d+m", "", told.text).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:00 \[info +\] start +address=http://127.0.0.1:8080", start)
    assert "error=gateway.errors.StoreUnavailable" in bug
    assert trace.startswith("    gateway/test_telemetry.py:")


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("error", True)])
def test_console_spares_tedious_fields(*, level: Level, shown: bool) -> None:
    """In a terminal ids and byte counts show only where something is wrong."""
    told = Told(form="console")
    told.telemetry.event("request", level=level, route="/v1/jobs", request_id="r1", bytes_in=7)
    assert "/v1/jobs" in told.text
    assert ("r1" in told.text, "bytes_in" in told.text) == (shown, shown)
