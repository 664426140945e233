"""Ten thousand clients that wait, half by streams and half by polls, at two processes over one Redis.

A third process ends their jobs at a steady rate. `python -m tests.bench.waiters [WAITERS]` prints how long
after each commit the bytes were there, and what the store was asked while nothing happened.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.dev import token
from gateway.secrets import Secret, load_or_create
from policies.model import Principal
from tests.bench.browsers import Told, Waiting
from tests.bench.ender import Made, Order
from tests.bench.machine import LOAD_CORE, SERVER_CORE, served
from tests.bench.streams import resident
from tests.fakes.command import worked
from tests.fakes.redis import Redis

WAITERS: Final = 10_000
RATE: Final = 200
TENANTS: Final = 20
USERS: Final = 50
SAFETY: Final = 15.0
"""Seconds between two looks of one waiter, about."""
QUIET: Final = 15.0
SETTLE: Final = 3.0
LATE: Final = 250.0
LOOKS: Final = 1.1
KIB: Final = 60.0


Talk = subprocess.Popen[bytes]


class Found(msgspec.Struct, frozen=True):
    """What was measured: milliseconds from commit to bytes, reads, KiB a waiter, and who was told."""

    waiters: int
    told: int
    p50: float
    p99: float
    most: float
    looks: float
    """Reads of a waiter in fifteen seconds in which nothing happens, those of its own polls not counted."""
    others: dict[str, int]
    """What else the store was asked then, by command; a `ping` or an `echo` ends each exchange."""
    work: float
    """Processor seconds of both processes while all were told, in milliseconds an end."""
    kib: float


def calls(redis: Redis) -> dict[str, int]:
    """Return how often each command was called, by the store's own count."""
    told = redis.facts("commandstats").items()
    return {name.removeprefix("cmdstat_"): int(text.partition(",")[0][6:]) for name, text in told if text}


@contextmanager
def talking(module: str, order: Any) -> Iterator[Talk]:
    """Run a process that is told and tells by lines."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            say(process, order)
            yield process
        finally:
            process.terminate()


def say(process: Talk, what: Any) -> None:
    """Send a line."""
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(what) + b"\n")
    process.stdin.flush()


def hear(process: Talk, kind: Any) -> Any:
    """Wait for a line."""
    assert process.stdout is not None
    return msgspec.json.decode(process.stdout.readline(), type=kind)


def measure(count: int = WAITERS) -> Found:
    """Have so many wait, look at what that costs, and end what they wait for."""
    data = Path(tempfile.mkdtemp(prefix="waiters-", dir=Path.cwd()))
    secret = load_or_create(data / "secret")
    module = "tests.bench.server"
    try:
        with (
            Redis("--appendfsync", "everysec") as redis,
            served(module, str(data), "-", redis.url, core=SERVER_CORE) as (one, first, _),
            served(module, str(data), "-", redis.url, core=LOAD_CORE) as (two, second, _),
            talking("tests.bench.ender", Order(redis.url, secret.reveal(), count, TENANTS, USERS)) as ender,
        ):
            jobs = hear(ender, list[Made])
            before = resident(first) + resident(second)
            with talking("tests.bench.browsers", clients(jobs, (one, two), secret)) as browsers:
                hear(browsers, str)
                time.sleep(SETTLE)
                kib = (resident(first) + resident(second) - before) / count
                looks, others = quiet(redis, browsers, count)
                began = worked(first) + worked(second)
                late = ends(ender, browsers)
                work = worked(first) + worked(second) - began
    finally:
        shutil.rmtree(data)
    middle, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    return Found(count, len(late), middle, p99, late[-1], looks, others, 1000 * work / count, kib)


def clients(jobs: Sequence[Made], ports: tuple[int, int], secret: Secret) -> list[Waiting]:
    """Return who waits for each job, by turns at either process, by turns by a stream and by polls."""
    now = time.time_ns() // 1_000_000
    return [
        Waiting(
            ports[number % 2],
            token(secret, Principal(made.tenant, made.subject), now),
            made.job,
            ("stream", "poll")[number // 2 % 2],
        )
        for number, made in enumerate(jobs)
    ]


def quiet(redis: Redis, browsers: Talk, count: int) -> tuple[float, dict[str, int]]:
    """Return how often each looks while nothing happens, and what else the store is asked then."""
    say(browsers, "polls?")
    polls, before = hear(browsers, int), calls(redis)
    time.sleep(QUIET)
    since = {name: calls - before.get(name, 0) for name, calls in calls(redis).items()}
    say(browsers, "polls?")
    polls = hear(browsers, int) - polls
    reads = since.pop("hget", 0) - 2 * polls
    return reads / count * SAFETY / QUIET, {name: count for name, count in since.items() if count}


def ends(ender: Talk, browsers: Talk) -> list[float]:
    """End all jobs; return the milliseconds from each commit to the bytes, in order."""
    say(ender, RATE)
    at = hear(ender, dict[str, float])
    told = hear(browsers, Told)
    return sorted(1000 * (told.at[job] - instant) for job, instant in at.items())


def rows(found: Found) -> list[tuple[str, str, str, bool]]:
    """Return what was measured, what it should be, and whether it is."""
    late = f"{found.p99:.0f} ms (p50 {found.p50:.1f}, longest {found.most:.0f})"
    others = ", ".join(f"{name} {count}" for name, count in sorted(found.others.items()))
    return [
        ("told of their end", f"{found.told:,}", f"{found.waiters:,}", found.told == found.waiters),
        (f"commit to bytes, {RATE} ends a second, p99", late, f"≤ {LATE:.0f} ms", found.p99 <= LATE),
        ("processor an end, both processes", f"{found.work:.1f} ms", "", True),
        (f"reads a waiter in {SAFETY:.0f} s of quiet", f"{found.looks:.2f}", "≤ 1.1", found.looks <= LOOKS),
        ("all else the store was asked in it", others, "", True),
        ("memory a waiter", f"{found.kib:.0f} KiB", "≤ 60 KiB", found.kib <= KIB),
    ]


def main(count: int) -> int:
    """Measure, print, judge."""
    found = rows(measure(count))
    table = Table(title=f"{count:,} clients that wait, at two processes over one Redis")
    for column in ("what", "measured", "wanted", ""):
        table.add_column(column)
    for what, measured, wanted, good in found:
        table.add_row(what, measured, wanted, "✓" if good else "✗")
    Console().print(table)
    return 0 if all(good for *_rest, good in found) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else WAITERS))
