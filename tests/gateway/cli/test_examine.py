"""The books as a person is told of them."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest

from gateway.cli.examine import run_doctor, run_release, run_verify
from gateway.cli.inprocess import Inprocess
from gateway.cli.screen import Screen
from gateway.cli.sources import Kept, kept


@pytest.fixture
def books(tmp_path: Path) -> Kept:
    """A closed store with one job, queued."""
    with Inprocess(tmp_path, {"SAFELIGHT_WORKER_CONCURRENCY": "0"}, io.BytesIO()) as maker:
        maker.submit({"prompt": "x"})
    return kept(None, tmp_path, {})


def told(books: Kept) -> list[tuple[int, str]]:
    """Return exit code and words of both looks at the books."""
    outs = io.StringIO(), io.StringIO()
    return [
        (run_verify(books, Screen(outs[0])), outs[0].getvalue()),
        (run_doctor(books, Screen(outs[1])), outs[1].getvalue()),
    ]


def changed(books: Kept, *statements: str) -> None:
    """Change the file behind the server's back."""
    with sqlite3.connect(str(books.store.file)) as file:
        for statement in statements:
            file.execute(statement)
    file.close()


def test_good_books_tell_figures(books: Kept) -> None:
    """What is right is told with what was counted."""
    assert told(books) == [
        (0, "✓ the trail holds: 1 link of 1 tenant\n"),
        (0, "✓ the books balance: 1 tenant, 1 job, 2 ledger entries, 1 trail link\n"),
    ]


def test_empty_books_are_right(tmp_path: Path) -> None:
    """A store nobody used yet is told as such."""
    with Inprocess(tmp_path, {}, io.BytesIO()):
        pass
    verified, examined = told(kept(None, tmp_path, {}))
    assert verified == (0, "✓ the trail holds: 0 links of 0 tenants\n")
    assert examined[0] == 0


def test_altered_trails_are_told(books: Kept) -> None:
    """A line of the trail that was altered is told with its place, and both looks fail."""
    changed(
        books, "UPDATE audit SET rows = CAST(replace(CAST(rows AS TEXT), 'job.submit', 'job.permit') AS BLOB)"
    )
    (verify, words), (doctor, findings) = told(books)
    assert (verify, doctor) == (1, 1)
    assert words == "✗ demo, version 1: the link does not follow from the one before it\n"
    assert "✗ demo, trail: version 1: the link does not follow" in findings


def test_missing_entries_are_told(books: Kept) -> None:
    """A balance without the entries it is made of is told, and the trail is not blamed."""
    changed(books, "DELETE FROM ledger")
    (verify, _), (doctor, findings) = told(books)
    assert (verify, doctor) == (0, 1)
    assert "✗ demo, tenant: held is 10; the ledger says 0" in findings.splitlines()


def test_flags_are_no_fault(books: Kept) -> None:
    """Jobs flagged for the operator are listed, and the books are still right."""
    changed(
        books,
        "UPDATE jobs SET d = json_set(d, '$.operator_flag', 'outcome_unknown')",
    )
    _, (doctor, words) = told(books)
    assert doctor == 0
    assert words.splitlines()[1].startswith("  to look at: demo, job ")
    assert words.endswith("outcome_unknown\n")


def test_closed_tenants_are_told_and_opened(books: Kept) -> None:
    """A closed tenant fails the doctor, with what was known and what is there, until it is released, once."""
    shut = '{"at":1793534400000,"by":"p1","version":9,"head":"k.ab","found":1,"found_head":"k.cd","job":"j"}'
    changed(books, f"UPDATE tenants SET d = json_set(d, '$.shut', json('{shut}'))")
    _, (doctor, words) = told(books)
    assert doctor == 1
    first, hint, *_ = words.splitlines()
    assert first == (
        "✗ demo, tenant: closed at 2026-11-01 12:00:00 UTC: the process p1 knew of version 9 (k.ab),"
        " and the store had version 1 (k.cd), job j behind what it had been"
    )
    assert hint == "  once it is looked at: safelight doctor --release demo"
    outs = io.StringIO(), io.StringIO()
    assert run_release(books, "demo", "alice", Screen(outs[0])) == 0
    assert run_release(books, "demo", "alice", Screen(outs[1])) == 1
    assert outs[0].getvalue().startswith("✓ demo is open again")
    assert outs[1].getvalue() == "✗ demo is not closed\n"
    _, (doctor, words) = told(books)
    assert (doctor, "closed" in words) == (0, False)
