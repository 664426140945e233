"""A house for as long as one command takes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.cli.client import Place
from gateway.cli.inprocess import Bugs, Inprocess
from gateway.errors import Refusal

IDLE = {"SAFELIGHT_WORKER_CONCURRENCY": "0"}


def test_folder_has_one_holder(tmp_path: Path) -> None:
    """A data folder that a process holds is refused to another, and is free once it is left."""
    with Inprocess(tmp_path, {}, io.BytesIO()):
        second = Inprocess(tmp_path, {}, io.BytesIO())
        with pytest.raises(Refusal, match="in use by another Safelight process"):
            second.__enter__()
    with Inprocess(tmp_path, IDLE, io.BytesIO()) as maker:
        assert maker.submit({"prompt": "x"}).job.queue == Place(0)


def test_refused_start_lets_go(tmp_path: Path) -> None:
    """A start that is refused leaves the folder to the next, which finds it mended."""
    (tmp_path / "blobs").touch()
    first = Inprocess(tmp_path, {}, io.BytesIO())
    with pytest.raises(Refusal, match="blobs"):
        first.__enter__()
    (tmp_path / "blobs").unlink()
    with Inprocess(tmp_path, IDLE, io.BytesIO()) as maker:
        assert maker.submit({"prompt": "x"}).job.state == "queued"


def test_queued_jobs_can_be_canceled(tmp_path: Path) -> None:
    """A job that is canceled before its turn ends at once, and its credits are back."""
    with Inprocess(tmp_path, IDLE, io.BytesIO()) as maker:
        before = maker.submit({"prompt": "x"})
        maker.cancel(before.job)
        after = maker.wait(before.job)
    assert (before.credits, after.credits) == (9_990, 10_000)
    assert (after.job.state, after.job.cost.refunded) == ("canceled", 10)


def test_lost_pictures_are_told(tmp_path: Path) -> None:
    """A picture that was removed from the folder is a refusal, and no trace."""
    with Inprocess(tmp_path, {}, io.BytesIO()) as maker:
        shown = maker.submit({"prompt": "x"})
        while not shown.job.ended:
            shown = maker.wait(shown.job)
        (picture,) = shown.job.outputs
        assert maker.picture(picture).startswith(b"\x89PNG")
        (tmp_path / "blobs" / picture.url).unlink()
        with pytest.raises(Refusal, match="the picture is gone"):
            maker.picture(picture)


def test_only_bugs_reach_the_person() -> None:
    """Of the log a person at a command sees bugs; the rest is for whoever runs a server."""
    seen = io.BytesIO()
    bugs = Bugs(seen)
    bugs.write(b'{"level":"error","event":"alarm"}\n{"level":"error","event":"bug","error":"KeyError"}\n')
    bugs.flush()
    assert seen.getvalue() == b'{"level":"error","event":"bug","error":"KeyError"}\n'
