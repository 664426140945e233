"""How a command line is read and refused: our kinds of command and of option, over click.

What a command refuses (`Refusal`, `Problem`, `Fault`) becomes a sentence on stderr and an exit code. What
nobody expected is left alone: its trace is the report of a bug.
"""

from __future__ import annotations

import re
from typing import IO, Any, Final

import click

from gateway.errors import Fault, Problem, Refusal

UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST: Final = 366 * 86_400
LONGEST_DAYS: Final = 3650


class Told(click.ClickException):
    """What a command could not do, shown as a person reads it."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self._reason = reason

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the reason on stderr."""
        if isinstance(self._reason, Problem):
            from gateway.cli.screen import Screen, problem_lines

            title, lines = problem_lines(self._reason)
            Screen(err=file).complain(title, *lines)
        elif isinstance(self._reason, Fault):
            click.echo("safelight: the store or the blobs did not answer in time", file, err=True)
        else:
            click.echo(f"safelight: {self.message}", file, err=True)


class Listed(click.ClickException):
    """Mistakes in settings, shown as `check` shows them."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the list on stderr."""
        click.echo(self.message, file, err=True)


class Command(click.Command):
    """A command whose help ends with lines to copy."""

    def __init__(self, *words: Any, examples: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(*words, **more)
        self._examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the examples as they are."""
        _write(formatter, self._examples)


class Commands(click.Group):
    """The commands in the order they are met, and our own errors as sentences."""

    command_class = Command
    group_class = type

    def __init__(self, *words: Any, examples: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(*words, **more)
        self._examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names as they were written, not by letter."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the examples as they are."""
        _write(formatter, self._examples)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it refuses is told, what it did not expect is a bug."""
        try:
            return super().invoke(ctx)
        except Refusal as reason:
            from gateway.cli.sources import Mistaken

            raise (Listed(str(reason)) if isinstance(reason, Mistaken) else Told(reason)) from reason
        except (Problem, Fault) as reason:
            raise Told(reason) from reason


def _write(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    if examples:
        with formatter.section("Try"):
            for example in examples:
                formatter.write(f"  {example}\n")


class Area(click.ParamType[str]):
    """A picture's size such as `1536x1024`. Which sizes there are, the model says."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or refuse it."""
        if not re.fullmatch(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}", str(value), re.ASCII):
            self.fail("is written like 1536x1024", param, ctx)
        return str(value)


class Days(click.ParamType[int]):
    """A length of time in whole days, such as `365d`."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the days, or refuse the text."""
        match = re.fullmatch(r"([1-9][0-9]{0,3})d?", str(value), re.ASCII)
        if match is None or int(match[1]) > LONGEST_DAYS:
            self.fail(f"is written like 90d or 365d, and is at most {LONGEST_DAYS}d", param, ctx)
        return int(match[1])


class Span(click.ParamType[int]):
    """A length of time such as `90s`, `30m`, `12h`, `7d`, as whole seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds, or refuse the text."""
        match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", str(value), re.ASCII)
        seconds = int(match[1]) * UNITS[match[2]] if match else 0
        if not 0 < seconds <= LONGEST:
            self.fail("is written like 90s, 30m, 12h or 7d, and is at most 366d", param, ctx)
        return seconds
