"""What may stand in a log line, and how lines leave the process.

Logs are an allow list: a field not named here is dropped and counted, so that a prompt, a token or a
signed link has no way in by accident. Texts are bounded, printable, and end where a query would begin.
An exception is its type and the places in code it came through; its message is kept only where the
class is ours, since a foreign message may quote what a caller sent. No library is known here.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from policies.model import EXACT

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping

_NAMES: Final = """
    request_id route method status code reason rule client dialect bytes_in bytes_out seconds waited
    replayed ignored
    tenant subject_ref plan issuer scope
    job operation model size quality count state version stage queued_seconds attempts outputs shortfall
    quoted held charged refunded credits operator_flag
    attempt slot n entry kind phase outcome failure cut cause upstream_id upstream_status host retry_after_ms
    images bytes cost_micros currency
    jobs blobs keys records uploads leases streams batch
    safelight python pid role address port data store providers policy_version concurrency drain_seconds
    endpoint delivery form
    documents mistakes signal found
"""
FIELDS: Final = frozenset(_NAMES.split())
"""Every field a caller may give. Never a subject, a prompt, a URL: there is no name for them here."""

LONGEST: Final = 200
DEEPEST: Final = 24
"""Places in code kept of one exception, the innermost ones."""
OURS: Final = ("gateway.", "policies.")


def keep(fields: Mapping[str, object]) -> tuple[dict[str, object], int]:
    """Return the fields that may be written, in a form that may, and how many were left out.

    None stands for "does not apply" and is left out without being counted.
    """
    there = {name: value for name, value in fields.items() if value is not None}
    if _plain(there):
        return there, 0
    kept: dict[str, object] = {}
    dropped = 0
    for name, value in there.items():
        if name not in FIELDS:
            dropped += 1
        elif isinstance(value, str):
            kept[name] = bound(value)
        elif isinstance(value, int):  # bool is one
            kept[name] = value if -EXACT <= value <= EXACT else "out of range"
        elif isinstance(value, float):
            kept[name] = round(value, 6)
        else:
            dropped += 1
    return kept, dropped


def _plain(fields: Mapping[str, object]) -> bool:
    """Whether all fields may be written as they are: what nearly every line is, told by few looks."""
    if not FIELDS.issuperset(fields):
        return False
    words: list[str] = []
    for value in fields.values():
        kind = type(value)
        if kind is str:
            words.append(value)  # type: ignore[arg-type]
        elif kind is float:
            if value != round(value, 6):  # type: ignore[call-overload]
                return False
        elif kind is not bool and (kind is not int or not -EXACT <= value <= EXACT):  # type: ignore[operator]
            return False
    text = "".join(words)
    return text.isprintable() and "?" not in text and (len(text) <= LONGEST or _short(words))


def _short(words: list[str]) -> bool:
    return len(max(words, key=len)) <= LONGEST


def bound(text: str, longest: int = LONGEST) -> str:
    """Return a text fit for a line: short, printable, cut where a query begins.

    What does not print (controls, half surrogates, marks that turn the reading direction) is spelled
    out, so that a value can neither forge a line nor steer a terminal.
    """
    if len(text) <= longest and text.isprintable() and "?" not in text:
        return text
    head, mark, _ = text[: longest + 1].partition("?")
    if not head.isprintable():
        head = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in head)
    return f"{head[:longest]}…" if mark or len(head) > longest else head


def describe(error: BaseException) -> dict[str, object]:
    """Return the fields that tell of an exception: types, places in code, and messages of our own."""
    chain = list(_chain(error))
    places = [place for one in reversed(chain) for place in _places(one)]
    fields: dict[str, object] = {
        "error": " < ".join(bound(_name(one)) for one in chain),
        "trace": places[-DEEPEST:],
    }
    if _is_ours(error) and str(error):
        fields["message"] = bound(str(error))
    return fields


def template(record: logging.LogRecord) -> str:
    """Return what a foreign log call says before its arguments: the part its author wrote.

    Libraries also format first and log afterwards; so the text ends at its first line, and at the
    first sign that begins a quotation, a repr or an address.
    """
    text = str(record.msg).partition("\n")[0]
    for sign in "<'\"{[(=/?":
        text = text.partition(sign)[0]
    return bound(text.rstrip())


def place(path: str, line: int, function: str) -> str:
    """Return a place in code, its path from the package on."""
    parts = path.replace("\\", "/").split("/")
    roots = [i for i, part in enumerate(parts) if part in ("site-packages", "gateway", "policies")]
    start = roots[0] + (parts[roots[0]] == "site-packages") if roots else len(parts) - 2
    return f"{'/'.join(parts[max(start, 0) :])}:{line} {function}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what brought it about, at most five, each once."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen and len(seen) < 5:
        seen.add(id(following))
        yield following
        if isinstance(following, BaseExceptionGroup):
            following = following.exceptions[0]
        elif following.__cause__ is not None or following.__suppress_context__:
            following = following.__cause__
        else:
            following = following.__context__


def _places(error: BaseException) -> Iterator[str]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield place(frame.f_code.co_filename, line, frame.f_code.co_qualname)


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith(OURS)


class Sink(Protocol):
    """Where lines go in the end: what a binary file has of it."""

    def write(self, data: bytes, /) -> object:
        """Take all of the bytes or raise `OSError`."""
        ...

    def flush(self) -> object:
        """Hand them on."""
        ...


class Lines:
    """Lines on their way out: put by any thread at the price of an append, written by one of its own.

    They are written when `wake` of them wait, when one is urgent, at every beat and at the end. A reader
    that does not read costs lines, which are counted, and never the caller's time.
    """

    def __init__(
        self,
        sink: Sink,
        lost: Callable[[int], object],
        *,
        wake: int = 256,
        most: int = 50_000,
        beat: float = 0.25,
        patience: float = 2.0,
    ) -> None:
        self._sink, self._lost = sink, lost
        self._wake, self._most, self._beat, self._patience = wake, most, beat, patience
        self._waiting: deque[bytes] = deque()
        self._call = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False

    def put(self, line: bytes) -> None:
        """Take a line. It is on its way, not yet out."""
        waiting = self._waiting
        waiting.append(line)
        if len(waiting) >= self._wake:
            self._press()

    def put_now(self, line: bytes) -> None:
        """Take a line that should not wait for others."""
        self._waiting.append(line)
        self._call.set()

    def open(self) -> None:
        """Begin to write by itself."""
        self._thread = threading.Thread(target=self._run, name="log lines", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left and stop; give up where the sink takes nothing. May be called again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing = True
            self._call.set()
            thread.join(self._patience)
        if thread is None or not thread.is_alive():
            self.flush()

    def flush(self) -> None:
        """Write what waits. A sink that fails loses it, and the loss is counted."""
        with self._turn:
            batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not batch:
                return
            try:
                self._sink.write(b"".join(batch))
                self._sink.flush()
            except (OSError, ValueError):  # ValueError: the file was closed
                self._lost(len(batch))

    def _press(self) -> None:
        if len(self._waiting) > self._most:
            self._waiting.pop()
            self._lost(1)
        self._call.set()

    def _run(self) -> None:
        while not self._closing:
            self._call.wait(self._beat)
            self._call.clear()
            self.flush()
