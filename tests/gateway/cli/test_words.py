"""How a command line is read and refused."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from gateway.cli.sources import Mistaken
from gateway.cli.words import Commands, Days, Span
from gateway.documents import Mistake, Place
from gateway.errors import Problem, Refusal, StoreUnavailable
from policies.model import Flaw


def ended_by(error: Exception) -> Result:
    """Return how a command ends that raises an error."""
    group = Commands("all")

    @group.command(examples=("all one",))
    def one() -> None:
        """Raise it."""
        raise error

    return CliRunner().invoke(group, ["one"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("366d", 31_622_400)],
)
def test_spans_are_whole_seconds(text: str, seconds: int) -> None:
    """A length of time is a number and a unit, seconds where there is none."""
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-1h", "1.5h", "1w", "h", "1h30m", "367d", "１h", "9" * 400])
def test_odd_spans_are_refused(text: str) -> None:
    """Nothing, no time at all, a year and more, and other spellings are no length of time."""
    with pytest.raises(click.BadParameter, match="written like"):
        Span().convert(text, None, None)


@pytest.mark.parametrize(("text", "days"), [("1", 1), ("365d", 365), ("3650d", 3650)])
def test_days_are_counted_whole(text: str, days: int) -> None:
    """A long time is a number of days, with its unit or without."""
    assert Days().convert(text, None, None) == days


@pytest.mark.parametrize("text", ["", "0", "0d", "-1d", "1.5d", "12h", "1y", "3651d", "99999", "１d"])
def test_odd_days_are_refused(text: str) -> None:
    """No time, more than ten years, and other units are no number of days."""
    with pytest.raises(click.BadParameter, match="written like"):
        Days().convert(text, None, None)


def test_refusals_end_in_one_sentence() -> None:
    """A refusal is one line on stderr with the command's name, and exit code 1."""
    result = ended_by(Refusal("the port is taken"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "safelight: the port is taken\n"


def test_mistakes_end_as_check_tells() -> None:
    """Mistakes in settings come out as the report of `check`, with its exit code."""
    result = ended_by(Mistaken((Mistake(Place("safelight.yaml", 3, 5), "server.port", "is too large"),)))
    assert result.exit_code == 2
    assert result.stderr == "safelight.yaml:3:5: server.port: is too large\n1 mistake\n"


def test_problems_end_with_a_remedy() -> None:
    """A problem is told by title, detail, places, rule, wait and what to do, in this order."""
    problem = Problem(
        "invalid_request",
        "It cannot be.",
        rule="some.rule",
        retry_after_ms=1_200,
        flaws=(Flaw("/count", "is too much"), Flaw("", "It cannot be.")),
    )
    result = ended_by(problem)
    assert result.exit_code == 1
    assert [line.strip() for line in result.stderr.splitlines()] == [
        "✗ Invalid request",
        "It cannot be.",
        "at     count is too much",
        "at     the request",
        "rule   some.rule",
        "wait   2 s, then it may be admitted",
        "to do  Change what is named above.",
    ]


def test_faults_name_no_library() -> None:
    """A store that does not answer is one sentence, whatever the library said."""
    result = ended_by(StoreUnavailable("apsw.IOError: disk"))
    assert result.exit_code == 1
    assert result.stderr == "safelight: the store or the blobs did not answer in time\n"


def test_bugs_are_left_alone() -> None:
    """What nobody expected keeps its trace."""
    assert isinstance(ended_by(KeyError("x")).exception, KeyError)


def test_examples_are_not_wrapped() -> None:
    """The lines to copy stand in the help as they are, however long, in groups within groups too."""
    line = "all inner one " + "--word " * 20
    group = Commands("all", examples=(line,))
    inner = Commands("inner", examples=(line,))
    group.add_command(inner)
    assert f"Try:\n  {line}\n" in CliRunner().invoke(group, ["--help"]).stdout
    assert f"Try:\n  {line}\n" in CliRunner().invoke(group, ["inner", "--help"]).stdout
