"""What a person sees, and what a pipe gets."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.cli.screen import TO_DO, Screen, colorful, printable, problem_lines, size_text
from gateway.errors import CATALOGUE, Problem
from policies.model import Flaw


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def terminal_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal with colors, whatever this process runs in."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "40", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_pipes_get_plain_words() -> None:
    """Into a pipe go the words alone, a line however long, complaints apart from what was asked for."""
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err)
    screen.say("word " * 40, style="bold")
    screen.tick("as it should be")
    screen.cross("as it should not")
    screen.note("because")
    screen.tell("by the way\x1b")
    screen.complain("Not [bold]this[/bold] :smile:", ("", "a detail"), ("code", "some_code"))
    assert out.getvalue() == "word " * 40 + "\n✓ as it should be\n✗ as it should not\n  because\n"
    assert err.getvalue() == "by the way \n✗ Not [bold]this[/bold] :smile:\n  a detail\n  code   some_code\n"


def test_terminals_get_styles() -> None:
    """At a terminal a tick is green and what explains it is dim."""
    out = Terminal()
    Screen(out).tick("good")
    assert out.getvalue() == "\x1b[1;32m✓ \x1b[0mgood\n"


def test_progress_in_pipes_is_lines() -> None:
    """Where nobody looks, progress is a line for each change and not more."""
    err = io.StringIO()
    with Screen(err=err).waiting("asking") as waiting:
        for words in ("queued", "queued", "running"):
            waiting(words)
    assert err.getvalue() == "queued\nrunning\n"


def test_progress_at_terminals_vanishes() -> None:
    """At a terminal progress shows the state and the time, and is taken away in the end."""
    err = Terminal()
    with Screen(err=err).waiting("asking") as waiting:
        waiting("running")
    assert "running" in err.getvalue()
    assert "0:00:0" in err.getvalue()
    assert err.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_pictures_need_a_real_terminal(out: io.StringIO) -> None:
    """Into a pipe, or where no terminal answers, no picture is written."""
    assert not Screen(out).picture(Path("none.png"))
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain – ü 漢", "plain – ü 漢"), ("\x1b[31mred\x07", " [31mred "), ("a\nb\u202ec", "a b c")],
)
def test_foreign_text_cannot_steer(text: str, shown: str) -> None:
    """What would move a cursor, ring a bell or turn the reading direction is shown as a space."""
    assert printable(text) == shown
    err = io.StringIO()
    Screen(err=err).complain(text, ("", text))
    assert err.getvalue() == f"✗ {shown}\n  {shown}\n"


def test_remedies_are_of_the_catalogue() -> None:
    """What to do is said for codes that there are."""
    assert set(TO_DO) <= set(CATALOGUE)


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_problem_can_be_told(code: str) -> None:
    """Any code of the catalogue has a title and at least one line."""
    title, lines = problem_lines(Problem(code))
    assert title == CATALOGUE[code].title
    assert lines[0] == ("", CATALOGUE[code].meaning)


def test_listed_mistakes_speak_for_themselves() -> None:
    """Where mistakes are listed, the catalogue's sentence on how they are listed is left out."""
    _, lines = problem_lines(Problem("invalid_request", flaws=(Flaw("/prompt", "must not be empty"),)))
    assert lines[0] == ("at", "prompt must not be empty")


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 kB"), (1, "1 kB"), (337_001, "338 kB"), (1_000_000, "1.0 MB"), (2_340_000, "2.3 MB")],
)
def test_sizes_are_told_roughly(count: int, words: str) -> None:
    """Bytes are told in thousands, rounded up, and in millions from one on."""
    assert size_text(count) == words


def test_colors_can_be_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colors are for a terminal, unless NO_COLOR is set or it is dumb."""
    assert colorful(Terminal())
    assert not colorful(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colorful(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert not colorful(Terminal())
