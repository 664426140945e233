"""One job from prompt to file, by a maker that does what a test wants."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway import dev
from gateway.cli.client import Client, Cost, Picture, Place, Seen, Shown
from gateway.cli.image import Order, asked, make, maker_of, names, run_image, words_of
from gateway.cli.inprocess import Inprocess
from gateway.cli.screen import Screen
from gateway.errors import Problem, Refusal
from gateway.secrets import load_or_create

QUEUED = Seen("job_1", "queued", ended=False, version=1, cost=Cost(10, 0, 0), queue=Place(2))
RUNNING = replace(QUEUED, state="running", version=2, queue=None)
DONE = replace(RUNNING, state="succeeded", ended=True, version=3, cost=Cost(10, 10, 0))
ORDER = Order("a lighthouse", {}, None, None, None, Path(".safelight"))


class Told:
    """A maker that tells one state after another, and ends as it is told after the last."""

    def __init__(self, *states: Seen, end: BaseException | None = None) -> None:
        self.end = end or KeyboardInterrupt()
        self.states = list(states)
        self.canceled: list[str] = []
        self.waited: list[int] = []

    def submit(self, asked: Mapping[str, object]) -> Shown:
        """Tell the first state."""
        return Shown(self.states.pop(0), 90)

    def wait(self, job: Seen) -> Shown:
        """Tell the next."""
        self.waited.append(job.version)
        if not self.states:
            raise self.end
        return Shown(self.states.pop(0), 80)

    def picture(self, picture: Picture) -> bytes:
        """Return bytes."""
        return b"\x89PNG"

    def cancel(self, job: Seen) -> None:
        """Remember it, and say that it is too late."""
        self.canceled.append(job.id)
        raise Problem("not_found")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty working folder."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_making_waits_to_the_end() -> None:
    """A job is waited for from version to version, and each state is shown."""
    maker, shown = Told(QUEUED, RUNNING, RUNNING, DONE), list[str]()
    assert make(maker, {}, shown.append) == Shown(DONE, 80)
    assert maker.waited == [1, 2, 2]
    assert shown == ["queued, 2 before it", "running", "running"]
    assert maker.canceled == []


def test_broken_off_jobs_are_canceled() -> None:
    """Whoever stops waiting cancels the job; that it cannot be canceled any more changes nothing."""
    maker = Told(QUEUED, RUNNING)
    with pytest.raises(KeyboardInterrupt):
        make(maker, {}, lambda _: None)
    assert maker.canceled == ["job_1"]


def test_lost_server_keeps_the_job() -> None:
    """Where the server goes away while a job is waited for, the job is named: it is not lost."""
    maker = Told(QUEUED, RUNNING, end=Refusal("no answer"))
    with pytest.raises(Refusal, match=r"^no answer\. The job job_1 is kept and goes on there\.$"):
        make(maker, {}, lambda _: None)
    assert maker.canceled == []


def test_first_in_line_is_queued() -> None:
    """Nobody before it is not worth a word."""
    assert words_of(replace(QUEUED, queue=Place(0))) == words_of(replace(QUEUED, queue=None)) == "queued"


@pytest.mark.parametrize(
    ("output", "options", "fields"),
    [
        (None, {"size": None, "seed": 0}, {"seed": 0}),
        ("a.png", {"count": 2}, {"count": 2}),
        ("a.WEBP", {}, {"format": "webp"}),
        ("a.jpg", {}, {"format": "jpeg"}),
        ("a.jpeg", {}, {"format": "jpeg"}),
        ("a", {}, {}),
    ],
)
def test_only_given_fields_are_asked(
    output: str | None, options: Mapping[str, object], fields: Mapping[str, object]
) -> None:
    """The request holds what was given, and the format that the file's ending asks for."""
    order = replace(ORDER, output=Path(output) if output else None, options=options)
    assert asked(order) == {"prompt": "a lighthouse", **fields}


@pytest.mark.parametrize(
    ("prompt", "output", "types", "there", "files"),
    [
        ("A lighthouse, at dusk!", None, ["png"], [], ["a-lighthouse-at-dusk.png"]),
        ("x", None, ["png"], ["x.png", "x-1.png"], ["x-2.png"]),
        ("x", None, ["webp", "webp"], ["x.webp"], ["x-1.webp", "x-2.webp"]),
        ("x", None, ["jpeg", "jpeg"], ["x-1.jpg"], ["x-2.jpg", "x-3.jpg"]),
        ("灯台", None, ["png"], [], ["picture.png"]),
        ("../../etc/passwd", None, ["png"], [], ["etc-passwd.png"]),
        ("word " * 40, None, ["png"], [], ["-".join(["word"] * 12) + ".png"]),
        ("x", "d/out.png", ["png"], ["d/out.png"], ["d/out.png"]),
        ("x", "d/out.png", ["png", "png"], [], ["d/out-1.png", "d/out-2.png"]),
    ],
)
def test_files_are_named_by_prompt(
    here: Path, prompt: str, output: str | None, types: list[str], there: list[str], files: list[str]
) -> None:
    """A file named by its prompt overwrites none; one that was named is taken at its word."""
    (here / "d").mkdir()
    for name in there:
        (here / name).touch()
    order = replace(ORDER, prompt=prompt, output=Path(output) if output else None)
    assert names(order, [f"image/{kind}" for kind in types]) == [Path(name) for name in files]


def test_named_server_needs_a_token(tmp_path: Path) -> None:
    """A server that is named gets the token that was given, and none of the data folder's."""
    order = replace(ORDER, url="http://127.0.0.1:1", data=tmp_path)
    with pytest.raises(Refusal, match="--url needs a token"), maker_of(order, {}, io.BytesIO()):
        pass
    with maker_of(replace(order, token="tok"), {}, io.BytesIO()) as maker:
        assert isinstance(maker, Client)
    assert list(tmp_path.iterdir()) == []


def test_silent_server_is_passed_over(tmp_path: Path) -> None:
    """Where the data folder's server does not answer, the job is made in this process."""
    load_or_create(tmp_path / "secret")
    dev.write_run(tmp_path, "http://127.0.0.1:1")
    with maker_of(replace(ORDER, data=tmp_path), {}, io.BytesIO()) as maker:
        assert isinstance(maker, Inprocess)


def ordered(data: Path, **fields: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of an order made in this process."""
    out, err = io.StringIO(), io.StringIO()
    log = io.BytesIO()
    order = Order(str(fields.pop("prompt", "x")), fields, data.parent / "out.png", None, None, data)
    code = run_image(order, {}, Screen(out, err), log)
    assert log.getvalue() == b""
    return code, out.getvalue(), err.getvalue()


def test_pictures_are_made_in_process(tmp_path: Path) -> None:
    """Without a server the pictures, what was adjusted, what is missing and the money are told."""
    code, out, err = ordered(tmp_path / "data", prompt="[[partial 1]] x", count=2, style="own-style")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/out.png  1024x1024  ")
    assert lines[1] == "  style: own-style is not one of ours, its name was sent as words"
    assert lines[2] == "10 credits charged, 9,990 left"
    assert "one picture was not delivered (" in err
    assert err.startswith("queued\nrunning\n")


def test_failure_in_process_is_told(tmp_path: Path) -> None:
    """A job that brought no picture ends with code 1: what happened, its code, the money, the job."""
    code, out, err = ordered(tmp_path / "data", prompt="[[refuse]] x")
    assert (code, out) == (1, "")
    assert "✗ No picture: blocked" in err
    assert "code   upstream_refused" in err
    assert "money  0 credits charged, 10 came back" in err
    assert "job    job_" in err


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"count": 11}, "invalid_request"),
        ({"size": "17x17"}, "unsupported_option"),
        ({"prompt": "safelight-blocked"}, "prompt_blocked"),
    ],
)
def test_rules_hold_in_process(tmp_path: Path, fields: dict[str, object], code: str) -> None:
    """Made in this process or by a server: the same request is refused with the same code."""
    with pytest.raises(Problem) as caught:
        ordered(tmp_path / "data", **fields)
    assert caught.value.code == code


def test_unwritable_output_is_told(tmp_path: Path) -> None:
    """A picture that cannot be saved is not lost: its job is named."""
    (tmp_path / "out.png").mkdir()
    order = Order("x", {}, tmp_path / "out.png", None, None, tmp_path / "data")
    with pytest.raises(Refusal, match=r"cannot be written: Is a directory\. .* job_"):
        run_image(order, {}, Screen(io.StringIO(), io.StringIO()), io.BytesIO())


@pytest.mark.parametrize(("name", "words"), [("no/out.png", "there is no folder"), ("out.gif", r"\.png, ")])
def test_impossible_files_cost_nothing(tmp_path: Path, name: str, words: str) -> None:
    """A file that cannot be written, or whose ending is no picture's here, is refused before it is paid."""
    order = Order("x", {}, tmp_path / name, None, None, tmp_path / "data")
    with pytest.raises(Refusal, match=words):
        run_image(order, {}, Screen(io.StringIO(), io.StringIO()), io.BytesIO())
    assert not (tmp_path / "data").exists()
