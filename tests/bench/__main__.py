"""`make bench`: the server on one core, the load on another; every figure a ratio within this run.

Runs are interleaved, five rounds, and the median counts: machines are noisy, neighbors noisier. Prints
the table that stands in the README, and leaves with 1 where a figure is missed.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gateway.dev import token
from gateway.secrets import load_or_create
from policies.model import Principal
from tests.bench import grown, images, over_redis
from tests.bench.machine import (
    CONNECTIONS,
    ROUNDS,
    drive,
    fsync_micros,
    once,
    polls,
    served,
    submits,
)
from tests.bench.streams import resident

STREAMS: Final = 2000
TENANTS: Final = 200
STORED: Final = 1_000_000 if os.environ.get("FULL") else grown.JOBS
"""Jobs in the store that what a job costs is measured in. A million take a quarter of an hour."""
FLOORS: Final = {"submit, one tenant": 0.40, "submit, 200 tenants": 0.28, "poll": 0.50}


class Bench:
    """All runs, interleaved."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.secret = load_or_create(data / "secret")
        self.rounds: list[dict[str, dict[str, Any]]] = []
        self.facts: dict[str, float] = {}
        self.images: images.Found = {}
        self.redis = over_redis.Found()
        self.grown: dict[str, grown.Cost] = {}

    def run(self, progress: Progress) -> None:
        """Run every round."""
        bar = progress.add_task("rounds", total=ROUNDS * (5 + len(images.WAYS)) + over_redis.STEPS + 3)
        one, many = submits(self.secret, 1), submits(self.secret, TENANTS)
        with served("tests.bench.server", str(self.data)) as (port, pid, started):
            self.facts |= {"start": started, "idle": resident(pid) / 1024}
            first = once(port, one, 0.5)["answer"]
            head, _, body = first.partition("\r\n\r\n")
            del head
            job = json.loads(body)["id"]
            poll = polls(self.secret, job)
            once(port, many, 0.5)
            with served("tests.bench.bare", str(len(body))) as (bare, _pid, _started):
                for _ in range(ROUNDS):
                    found = {}
                    for name, target, requests in (
                        ("bare POST", bare, one),
                        ("submit, one tenant", port, one),
                        ("submit, 200 tenants", port, many),
                        ("bare GET", bare, poll),
                        ("poll", port, poll),
                    ):
                        found[name] = once(target, requests)
                        progress.advance(bar)
                    self.rounds.append(found)
        self.streams()
        progress.advance(bar)
        self.images = images.measure(self.data, lambda: progress.advance(bar))
        self.redis = over_redis.measure(self.data, lambda: progress.advance(bar))
        for kind in grown.KINDS:
            self.grown[kind] = grown.run(kind, STORED)
            progress.advance(bar)

    def streams(self) -> None:
        """Hold two thousand streams and end their jobs."""
        folder = self.data / "streams"
        folder.mkdir()
        secret = load_or_create(folder / "secret")
        with served("tests.bench.server", str(folder)) as (port, pid, _started):
            now = time.time_ns() // 1_000_000
            tokens = [token(secret, Principal("t", f"s{at}"), now) for at in range(STREAMS // 20)]
            order = {"port": port, "tokens": tokens, "pid": pid, "count": STREAMS}
            found = drive("tests.bench.streams", order)
        self.facts |= {"told": found["told"], "stream": found["kib_each"]}

    def ratio(self, name: str) -> float:
        """Return the median ratio to bare Litestar of the same round."""
        bare = "bare GET" if name == "poll" else "bare POST"
        return float(statistics.median(each[name]["rate"] / each[bare]["rate"] for each in self.rounds))

    def middle(self, name: str, figure: str) -> float:
        """Return the median of a figure."""
        return statistics.median(float(each[name][figure]) for each in self.rounds)


def rows(bench: Bench) -> list[tuple[str, str, str, bool]]:
    """Return what was measured, what it should be, and whether it is."""
    found = []
    for name, floor in FLOORS.items():
        ratio, rate = bench.ratio(name), bench.middle(name, "rate")
        detail = f"{ratio:.2f} of bare ({rate:,.0f}/s, p50 {bench.middle(name, 'p50'):.1f} ms)"
        found.append((name, detail, f"≥ {floor:.2f}", ratio >= floor))
    for name in ("submit, one tenant", "submit, 200 tenants"):
        tail = statistics.median(each[name]["p99"] / each[name]["p50"] for each in bench.rounds)
        found.append((f"{name}, p99 ÷ p50", f"{tail:.1f}", "≤ 5", tail <= 5))
    found += images.rows(bench.images) + over_redis.rows(bench.redis)
    for kind, cost in bench.grown.items():
        detail = f"{cost.ratio:.2f} ({cost.grown:.0f} us of processor beside {cost.small:.0f})"
        way = f"{kind}: cost a job beside {cost.jobs:,} ÷ beside {grown.FEW}"
        found.append((way, detail, f"≤ {grown.FLAT}", cost.ratio <= grown.FLAT))
    facts = bench.facts
    found += [
        ("start to first 200", f"{facts['start']:.2f} s", "≤ 1.5 s", facts["start"] <= 1.5),
        ("idle resident memory", f"{facts['idle']:.0f} MiB", "≤ 120 MiB", facts["idle"] <= 120),
        ("waiting streams told of their end", f"{facts['told']:.0f}", f"{STREAMS}", facts["told"] == STREAMS),
        ("memory a waiting stream", f"{facts['stream']:.0f} KiB", "≤ 60 KiB", facts["stream"] <= 60),
    ]
    return found


def main() -> int:
    """Measure, print, judge."""
    console = Console()
    here = Path(tempfile.mkdtemp(prefix="bench-", dir=Path.cwd()))
    try:
        fsync = fsync_micros(here)
        with Progress(console=console, transient=True) as progress:
            bench = Bench(here)
            bench.run(progress)
    finally:
        shutil.rmtree(here)
    today = datetime.datetime.now(datetime.UTC).date()
    table = Table(
        title=f"{today} · {platform.machine()}, {os.cpu_count()} cores · Python {platform.python_version()}"
        f" · fsync {fsync:.0f} µs · {CONNECTIONS} connections · median of {ROUNDS}"
    )
    for column in ("what", "measured", "wanted", ""):
        table.add_column(column)
    for what, measured, wanted, good in rows(bench):
        table.add_row(what, measured, wanted, "✓" if good else "✗")
    bare = bench.middle("bare POST", "rate"), bench.middle("bare GET", "rate")
    console.print(table)
    console.print(f"bare Litestar: POST {bare[0]:,.0f}/s, GET {bare[1]:,.0f}/s")
    return 0 if all(good for *_rest, good in rows(bench)) else 1


if __name__ == "__main__":
    sys.exit(main())
