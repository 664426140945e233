"""Log lines: an allow list of fields, bounded texts, exceptions without their words, a patient writer."""

from __future__ import annotations

import enum
import io
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Problem, StoreUnavailable
from gateway.lines import DEEPEST, FIELDS, LONGEST, Lines, bound, describe, keep, place, template
from policies.model import EXACT, JobState

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "headers",
        "prompt",
        "final_prompt",
        "negative",
        "metadata",
        "body",
        "detail",
        "query",
        "url",
        "path",
        "subject",
        "token",
        "secret",
        "key",
        "message",
        "trace",
        "event",
        "level",
        "at",
    ],
)
def test_telling_fields_have_no_name(name: str) -> None:
    """What could hold a secret, a prompt or a person's name is dropped whatever its value, and counted."""
    assert name not in FIELDS
    assert keep({name: "canary", "route": "/v1/jobs"}) == ({"route": "/v1/jobs"}, 1)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("queued", {"state": "queued"}),
        (JobState.FAILED, {"state": "failed"}),
        (7, {"state": 7}),
        (True, {"state": True}),
        (0.123456789, {"state": 0.123457}),
        (EXACT + 1, {"state": "out of range"}),
        (-(10**40), {"state": "out of range"}),
        (None, {}),
    ],
)
def test_plain_values_are_kept(value: object, kept: dict[str, object]) -> None:
    """Words and figures stand in a line as they are; None means the field does not apply."""
    assert keep({"state": value}) == (kept, 0)


@pytest.mark.parametrize("value", [b"bytes", ["a"], {"a": 1}, ("a",), object(), ValueError("canary")])
def test_grown_values_are_dropped(value: object) -> None:
    """A value with an inside (bytes, a list, an exception) is dropped: nobody bounds what is in it."""
    assert keep({"state": value}) == ({}, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a short word", "a short word"),
        ("Käse 日本", "Käse 日本"),
        ("/files/a.png?sig=canary", "/files/a.png…"),
        ("?canary", "…"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * LONGEST + "…"),
        ("two\nlines\x1b[31m", "two\\u{a}lines\\u{1b}[31m"),
        ("\x7f\x9b", "\\u{7f}\\u{9b}"),
        ("\u202egnp.exe", "\\u{202e}gnp.exe"),
        ("half \ud800", "half \\u{d800}"),
        ("a\u2028b", "a\\u{2028}b"),
    ],
)
def test_texts_are_made_harmless(text: str, shown: str) -> None:
    """A text is cut to its bound and before a query, and what does not print is spelled out."""
    assert bound(text) == shown


@given(st.text(max_size=500))
def test_any_text_fits_a_line(text: str) -> None:
    """Whatever comes, what stands in a line prints, is short and encodes as UTF-8."""
    shown = bound(text)
    assert shown.isprintable()
    assert len(shown) <= LONGEST + 1
    assert shown.encode().decode() == shown


class Sly(enum.Enum):
    """An exception's class may be anything; so may what it says."""

    TEXT = "canary prompt"


def _raise(error: BaseException) -> None:
    raise error


def _caught(make: Callable[[], None]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any exception is the subject here
        make()
    return caught.value


def _chained() -> None:
    try:
        _raise(KeyError("canary"))
    except KeyError as error:
        raise ValueError("canary") from error


def _during() -> None:
    try:
        _raise(KeyError("canary"))
    finally:
        _raise(TypeError("canary"))


def _hushed() -> None:
    try:
        _raise(KeyError("canary"))
    except KeyError:
        raise ValueError("canary") from None


def _grouped() -> None:
    raise ExceptionGroup("canary", [OSError("canary"), ValueError("canary")])


@pytest.mark.parametrize(
    ("make", "types"),
    [
        (lambda: _raise(ValueError("canary")), "ValueError"),
        (lambda: _raise(UnicodeEncodeError("utf-8", "canary", 0, 1, "canary")), "UnicodeEncodeError"),
        (_chained, "ValueError < KeyError"),
        (_during, "TypeError < KeyError"),
        (_hushed, "ValueError"),
        (_grouped, "ExceptionGroup < OSError"),
    ],
)
def test_foreign_messages_are_left_out(make: Callable[[], None], types: str) -> None:
    """Of an exception that is not ours the types stay, cause by cause, and none of its words."""
    fields = describe(_caught(make))
    assert fields["error"] == types
    assert "message" not in fields
    assert "canary" not in repr(fields)


@pytest.mark.parametrize(
    ("error", "message"),
    [(StoreUnavailable("no answer in 2 s"), "no answer in 2 s"), (Problem("not_found"), "not_found")],
)
def test_own_messages_are_kept(error: Exception, message: str) -> None:
    """Our own exceptions say what we wrote, so their message is told, bounded like all texts."""
    assert describe(_caught(lambda: _raise(error)))["message"] == message
    assert describe(error)["error"] == f"gateway.errors.{type(error).__name__}"


def test_wordless_own_errors_have_no_message() -> None:
    """An exception of ours that says nothing adds no empty field."""
    assert "message" not in describe(StoreUnavailable())


def test_trace_names_places_only() -> None:
    """A trace is file, line and function, innermost last, without a line of source."""
    trace = describe(_caught(_chained))["trace"]
    assert isinstance(trace, list)
    assert trace[-1].startswith("gateway/test_lines.py:")
    assert trace[-1].endswith(" _chained")
    assert "raise" not in repr(trace).replace("_raise", "")


def test_endless_recursion_leaves_short_trace() -> None:
    """However deep an exception was raised, the innermost places alone are told."""

    def deeper(n: int) -> None:
        _raise(ValueError()) if n == 0 else deeper(n - 1)

    trace = describe(_caught(lambda: deeper(100)))["trace"]
    assert isinstance(trace, list)
    assert len(trace) == DEEPEST
    assert trace[-1].endswith(" _raise")


def test_circular_causes_come_to_an_end() -> None:
    """Exceptions that cause one another are told once each."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe(first)["error"] == "ValueError < KeyError"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/srv/app/gateway/store/sqlite.py", "gateway/store/sqlite.py:7 run"),
        ("/venv/lib/python3.11/site-packages/aiohttp/client.py", "aiohttp/client.py:7 run"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "asyncio/tasks.py:7 run"),
        ("C:\\venv\\site-packages\\gateway\\jobs.py", "gateway/jobs.py:7 run"),
        ("<string>", "<string>:7 run"),
    ],
)
def test_places_begin_at_their_package(path: str, shown: str) -> None:
    """A place in code tells the package and the file, not where it was installed."""
    assert place(path, 7, "run") == shown


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Invalid HTTP request received.", "Invalid HTTP request received."),
        ("Task exception was never retrieved\nfuture: <Task canary>", "Task exception was never retrieved"),
        ("Exception in callback <canary at 0x1>", "Exception in callback"),
        ("bad value 'canary'", "bad value"),
        ('{"prompt": "canary"}', ""),
        ("GET /v1/jobs?canary", "GET"),
        ("got %s from %s", "got %s from %s"),
        (Sly.TEXT, "Sly.TEXT"),
    ],
)
def test_foreign_logs_keep_their_template(message: object, said: str) -> None:
    """Of a library's log call the words before its first argument stay, and nothing it quotes."""
    record = logging.LogRecord("aiohttp", logging.ERROR, "x.py", 1, message, ("canary", "canary"), None)
    assert template(record) == said


class Pipe:
    """A sink that says when it was written to, and can be shut."""

    def __init__(self) -> None:
        self.data = io.BytesIO()
        self.wrote = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def write(self, data: bytes, /) -> None:
        """Take the bytes, once the reader reads."""
        self.wrote.set()
        self.free.wait(10)
        if self.broken:
            raise BrokenPipeError
        self.data.write(data)

    def flush(self) -> None:
        """Do nothing."""


def test_lines_keep_their_order() -> None:
    """Lines come out in the order they were put, all of them, at the latest when the writer closes."""
    pipe, lost = Pipe(), list[int]()
    lines = Lines(pipe, lost.append, wake=3, beat=60)
    lines.open()
    for n in range(1000):
        lines.put(b"%d\n" % n)
    lines.close()
    lines.close()
    assert pipe.data.getvalue().split() == [b"%d" % n for n in range(1000)]
    assert lost == []


@pytest.mark.parametrize("urgent", [True, False])
def test_lines_leave_without_close(*, urgent: bool) -> None:
    """An urgent line leaves at once; a line alone leaves with the next beat."""
    pipe = Pipe()
    lines = Lines(pipe, list[int]().append, wake=1000, beat=60 if urgent else 0.001)
    lines.open()
    (lines.put_now if urgent else lines.put)(b"line\n")
    assert pipe.wrote.wait(10)
    lines.close()
    assert pipe.data.getvalue() == b"line\n"


def test_many_lines_leave_together() -> None:
    """Lines wait for one another up to a count, then go in one write."""
    pipe = Pipe()
    lines = Lines(pipe, list[int]().append, wake=2, beat=60)
    lines.open()
    lines.put(b"a")
    assert not pipe.wrote.is_set()
    lines.put(b"b")
    assert pipe.wrote.wait(10)
    lines.close()
    assert pipe.data.getvalue() == b"ab"


def test_stuck_reader_costs_lines_only() -> None:
    """While nobody reads, putting goes on, a bounded number waits, the rest is lost and counted."""
    pipe, lost = Pipe(), list[int]()
    pipe.free.clear()
    lines = Lines(pipe, lost.append, wake=1, most=5, beat=60, patience=0)
    lines.open()
    lines.put(b"first\n")
    assert pipe.wrote.wait(10)
    for n in range(8):
        lines.put(b"%d\n" % n)
    lines.close()
    assert sum(lost) == 3
    pipe.free.set()


def test_broken_sink_loses_and_counts() -> None:
    """A sink that fails costs the lines it was given; later lines may pass again."""
    pipe, lost = Pipe(), list[int]()
    lines = Lines(pipe, lost.append)
    pipe.broken = True
    lines.put(b"a")
    lines.put(b"b")
    lines.flush()
    pipe.broken = False
    lines.put(b"c")
    lines.flush()
    assert (lost, pipe.data.getvalue()) == ([2], b"c")


def test_closed_file_is_a_loss() -> None:
    """A sink closed by somebody else is a loss of lines, not an exception."""
    sink, lost = io.BytesIO(), list[int]()
    sink.close()
    lines = Lines(sink, lost.append)
    lines.put_now(b"a")
    lines.close()
    assert lost == [1]
