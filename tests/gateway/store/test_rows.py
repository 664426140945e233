"""What queries cost: those asked often read what is open or asked for, never all that ever was."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Any

import pytest

from gateway.store import queue_sqlite, rows, shelf_rows
from gateway.store.contract import JobFilter
from policies.model import JobState

OPEN = frozenset({JobState.QUEUED, JobState.RUNNING})
QUERIES = {
    "position": (rows.POSITION, ("acme", "acme", "job", "acme", "open")),
    "open jobs": rows.page_query("acme", JobFilter(states=OPEN), None, 21),
    "own open jobs": rows.page_query("acme", JobFilter(subject="al", states=OPEN), None, 21),
    "own jobs": rows.page_query("acme", JobFilter(subject="al"), None, 21),
    "stale links": (rows.EXPIRED_LINKS, (200, 0)),
    "old links": (rows.EXPIRED_LINKS, (20, 10**6)),
    "due jobs": (queue_sqlite.DUE, ("acme", "job", 10**6, 5)),
    "due jobs beside batch": (queue_sqlite.DUE, ("late", "job", 10**6, 5)),
    "fences": (rows.FENCES, ('[["acme", "open"]]',)),
    "waiting jobs": (queue_sqlite.LINE, ("job", 10**6)),
    "due deliveries": (shelf_rows.CLAIM, ("[]", 10**6, 16, 4)),
    "due deliveries of the idle": (shelf_rows.CLAIM, ('["bad"]', 10**6, 16, 4)),
    "next delivery": (shelf_rows.NEXT_DUE, ("[]",)),
    "own deliveries": (shelf_rows.PAGE, ("acme", "good", 10**6, 21)),
    "key of a hash": (shelf_rows.KEY_OF, ("h",)),
    "stale uploads": (shelf_rows.EXPIRED_UPLOADS, (0, 200)),
}


def filled(history: int) -> sqlite3.Connection:
    """Return a data base with one open job, so many that ended, and as much batch and trail."""
    base = sqlite3.connect(":memory:")
    for tables in ("schema.sql", "additions.sql"):
        base.executescript(resources.files("gateway.store").joinpath(tables).read_text())
    base.execute("INSERT INTO tenants VALUES ('acme', 1, '{}')")
    into = "INSERT INTO jobs (tenant, id, subject, created, ended, state, v, d)"
    put = f"{into} VALUES ('acme', ?, 'al', ?, ?, ?, 1, ?)"
    base.executemany(put, [(f"{i:09d}", i, i, "succeeded", "{}") for i in range(history)])
    base.execute(put, ("open", history, None, "queued", "{}"))
    base.execute("INSERT INTO queue VALUES ('acme', 'job', 'open', 1, 0)")
    base.executemany("INSERT INTO queue VALUES ('late', 'batch', ?, 1, 0)", [(i,) for i in range(history)])
    base.executemany("INSERT INTO audit VALUES ('acme',?,?,'h',x'00')", [(i, i + 1) for i in range(history)])
    fill_beside(base, history)
    return base


def fill_beside(base: sqlite3.Connection, history: int) -> None:
    """Add as many keys, uploads and sent deliveries, and an endpoint that has as many due."""
    ids = [f"{i:09d}" for i in range(history)]
    doc = "INSERT INTO docs VALUES ('acme', ?, ?, 'al', 1, ?)"
    for kind in ("key", "upload"):
        base.executemany(doc, [(kind, name, f'{{"hash": "{name}"}}') for name in ids])
    base.executemany(doc, [("endpoint", name, "{}") for name in ("bad", "good")])
    into = "INSERT INTO deliveries (tenant, id, endpoint, due, fence, created, d)"
    put = f"{into} VALUES ('acme', ?, ?, ?, 0, 1, '{{}}')"
    base.executemany(put, [(f"due {name}", "bad", 1) for name in ids])
    base.executemany(put, [(f"sent {name}", "good", None) for name in ids])
    base.executemany(put, [(f"good {at}", "good", 2) for at in range(5)])


def steps(history: int, sql: str, values: tuple[Any, ...]) -> int:
    """Return how many tens of its machine's instructions a query takes."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    base = filled(history)
    base.set_progress_handler(count, 10)
    base.execute(sql, values).fetchall()
    base.close()
    return taken


@pytest.mark.parametrize("name", QUERIES)
def test_history_does_not_slow_queries(name: str) -> None:
    """A query that is asked often takes as many steps after ten thousand jobs as after a hundred."""
    assert steps(10_000, *QUERIES[name]) <= steps(100, *QUERIES[name]) + 10


def test_listing_open_jobs_finds_them() -> None:
    """The way by the queue finds the same open jobs that reading all would."""
    for name in ("open jobs", "own open jobs"):
        sql, values = QUERIES[name]
        assert [row[0] for row in filled(50).execute(sql, values)] == [51]


def test_oldest_links_are_cut_in_steps() -> None:
    """Of the links past their time the sweep is told the last of one step's worth."""
    sql, _ = QUERIES["old links"]
    assert [row[1] for row in filled(50).execute(sql, (20, 10**6))] == [19]
    assert [row[1] for row in filled(50).execute(sql, (20, 5))] == [4]
    assert filled(50).execute(sql, (20, 0)).fetchall() == []


def test_poisoned_endpoint_fills_no_claim() -> None:
    """However many are due at one endpoint, a claim takes its share and all of another's."""
    sql, values = QUERIES["due deliveries"]
    claimed = [row[1].partition(" ")[0] for row in filled(5000).execute(sql, values)]
    assert claimed == ["due"] * 4 + ["good"] * 4
    sql, values = QUERIES["due deliveries of the idle"]
    assert [row[1] for row in filled(50).execute(sql, values)] == [f"good {at}" for at in range(4)]
