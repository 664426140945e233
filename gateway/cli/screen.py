"""What a person sees: words, ticks, progress, pictures; plain text where nobody looks.

Rich and textual_image are asked here and in `demo` alone. Styles go where a terminal is; a pipe gets the
same words without them. A text that came over the network is made printable before it is shown, so that
a server cannot steer the terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from gateway.errors import CATALOGUE, Problem

PICTURE_ROWS: Final = 24
"""How high a picture may stand in a terminal."""
NARROWEST: Final = 20
FEWEST_ROWS: Final = 4

TO_DO: Final[Mapping[str, str]] = {
    "prompt_blocked": "Say it in other words. `safelight image --help` shows the options.",
    "unauthenticated": "Make a token by `safelight token`, and give it by --token or SAFELIGHT_TOKEN.",
    "unsupported_option": "Leave the option out, or see what is offered at /v1/models.",
    "invalid_request": "Change what is named above.",
    "plan_required": "Ask for a plan that includes it, or leave the option out.",
    "insufficient_credits": "Wait for the month's credits, or ask for more.",
    "monthly_cap_reached": "Wait for the next month (UTC), or ask for a higher cap.",
    "too_many_in_flight": "Wait until a job has ended, or cancel one.",
    "no_provider_available": "Try again in a moment; if it stays, see the server's log.",
    "store_unavailable": "Nothing was admitted. Try again in a moment.",
    "draining": "The server is stopping. Try again in a moment.",
    "internal": "This is a bug. The request id finds it in the server's log.",
}
"""What helps, by the code of a problem."""


Waiting = Callable[[str], None]
"""Shows these words from now on, while something is waited for."""


class Screen:
    """The two streams of a command. `out` and `err` are text files; None stands for the process's own."""

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self.out = _console(out, error=False)
        self.err = _console(err, error=True)

    def say(self, text: str | Text = "", style: str = "") -> None:
        """Write a line of what was asked for."""
        self.out.print(text, style=style)

    def tell(self, text: str) -> None:
        """Write a line on stderr, beside what was asked for."""
        self.err.print(Text(printable(text)))

    def tick(self, text: str) -> None:
        """Write that something is as it should be."""
        self.out.print(Text.assemble(("✓ ", "bold green"), text))

    def cross(self, text: str) -> None:
        """Write that something is not."""
        self.out.print(Text.assemble(("✗ ", "bold red"), text))

    def note(self, text: str) -> None:
        """Write a line that explains the one above it."""
        self.out.print(Text(f"  {printable(text)}", "dim"))

    def complain(self, title: str, *lines: tuple[str, str]) -> None:
        """Write on stderr what went wrong, and labeled lines that help."""
        self.err.print(Text.assemble(("✗ ", "bold red"), (printable(title), "bold")))
        for label, words in lines:
            name = f"{label:<7}" if label else ""
            self.err.print(Text.assemble((f"  {name}", "dim"), printable(words)))

    @contextlib.contextmanager
    def waiting(self, words: str) -> Iterator[Waiting]:
        """Show on stderr that something is waited for, until the block ends."""
        if not self.err.is_terminal:
            yield _Lines(self.err)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True) as progress:
            task = progress.add_task(words, total=None)
            yield _Bar(progress, task)

    def picture(self, path: Path) -> bool:
        """Show a picture where stdout is a terminal that can; say whether it was shown."""
        rows = min(PICTURE_ROWS, self.out.height - 4)
        if not _can_show(self.out) or rows < FEWEST_ROWS:
            return False
        # The library asks the terminal what it can, and warns of one that stays silent: that is no news.
        with contextlib.redirect_stderr(io.StringIO()):
            from textual_image.renderable import Image

            self.out.print(Image(path, width="auto", height=rows), soft_wrap=False)
        return True


def problem_lines(problem: Problem) -> tuple[str, list[tuple[str, str]]]:
    """Return a problem's title, and its detail, mistakes, rule and remedy as labeled lines."""
    row = CATALOGUE[problem.code]
    listed = problem.flaws and problem.detail == row.meaning
    lines = [] if listed else [("", problem.detail)]
    for flaw in problem.flaws:
        at = flaw.pointer.removeprefix("/") or "the request"
        lines.append(("at", at if flaw.detail == problem.detail else f"{at} {flaw.detail}"))
    if problem.rule is not None:
        lines.append(("rule", problem.rule))
    if problem.retry_after_ms is not None:
        lines.append(("wait", f"{-(-problem.retry_after_ms // 1000)} s, then it may be admitted"))
    if problem.code in TO_DO:
        lines.append(("to do", TO_DO[problem.code]))
    return row.title, lines


def printable(text: str) -> str:
    """Return a text without anything that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def size_text(count: int) -> str:
    """Return a number of bytes as people say it."""
    return f"{count / 1_000_000:.1f} MB" if count >= 1_000_000 else f"{-(-count // 1000)} kB"


def colorful(stream: IO[str]) -> bool:
    """Say whether a stream is a terminal whose reader wants colors (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _can_show(console: Console) -> bool:
    """Say whether a console is a terminal with a size and colors, whose answers we can read."""
    if not console.is_terminal or console.is_dumb_terminal or console.no_color:
        return False
    try:
        columns = min(os.get_terminal_size(stream.fileno()).columns for stream in (sys.stdin, sys.stdout))
    except (OSError, ValueError):  # one of them is no terminal
        return False
    return columns >= NARROWEST  # 0 in a container's terminal that nobody sized


def _console(file: IO[str] | None, *, error: bool) -> Console:
    return Console(
        file=file, stderr=error, highlight=False, markup=False, emoji=False, soft_wrap=True, width=None
    )


class _Lines:
    """Progress for a pipe: a line a change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, words: str) -> None:
        if words != self._last:
            self._console.print(words)
            self._last = words


class _Bar:
    """Progress for a person."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, words: str) -> None:
        self._progress.update(self._task, description=words)
