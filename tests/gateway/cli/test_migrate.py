"""`safelight migrate`: what it tells of a store between two forms, and when it does not finish."""

from __future__ import annotations

import asyncio
import gzip
import time
from io import StringIO
from pathlib import Path

import apsw
import pytest

from gateway.cli.migrate import run_migrate
from gateway.cli.screen import Screen
from gateway.cli.sources import Kept
from gateway.errors import Refusal
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis_link import Link
from tests.fakes.redis import server
from tests.golden.make import STORES


def told(url: str, *, finish: bool = True) -> tuple[int, str]:
    """Return the exit code and what is printed."""
    out = StringIO()
    return run_migrate(Kept(Place(url), ()), Screen(out), finish=finish), out.getvalue()


def test_file_needs_no_end(tmp_path: Path) -> None:
    """Of a file it is said which form it has, whoever runs beside it, and nothing is changed."""
    path = tmp_path / "safelight.db"
    path.write_bytes(gzip.decompress((STORES / "1" / "safelight.db.gz").read_bytes()))
    assert told(f"sqlite:///{path}") == (
        0,
        "✓ the store is written in form 1, the newest this version knows\n",
    )
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", 7)
    connection.close()
    with pytest.raises(Refusal, match="has schema 7; this Safelight knows schema 1"):
        told(f"sqlite:///{path}")


def test_living_process_is_named() -> None:
    """At a Redis an older process is in the way while it lives, and named; then the upgrade is finished."""
    url = server().url.removesuffix("/0") + "/9"

    async def say(*words: str) -> None:
        link = Link(url)
        await link.ask([words])
        await link.close()

    async def start() -> None:
        backend = open_backend(Place(url), How("here"))
        await backend.start()
        await backend.close()

    asyncio.run(start())
    assert told(url, finish=False) == (0, "✓ the store is written in form 1, the newest this version knows\n")
    roll = "safelight:roll{safelight:schema}"
    asyncio.run(say("HSET", roll, "p1", f"0:{time.time_ns() // 10**6}:pod-a:17"))
    code, words = told(url)
    assert (code, words.splitlines()[0]) == (1, "✗ pod-a:17 lives and reads up to form 0: stop it first")
    assert told(url, finish=False)[0] == 0
    asyncio.run(say("HSET", roll, "p1", "0:1:pod-a:17"))
    assert told(url)[0] == 0


def test_dead_store_is_told() -> None:
    """Where the store does not answer that is said in a sentence."""
    with pytest.raises(Refusal, match="The store cannot be used"):
        told("redis://127.0.0.1:1/0")
