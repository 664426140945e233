"""Looks at the queue: how often, what becomes of one that fails, and how long the last one counts."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any, cast

from gateway.errors import StoreUnavailable
from gateway.lifetime import Lifetime
from gateway.pressure import Pressure
from gateway.telemetry import Telemetry
from policies.order import STALE_MS, Backlog, Bounds, Line

NOW = 1_795_176_000_000
FULL = Backlog(NOW, Line(9, NOW - 5_000), Line(1, NOW - 7_000))


class Looked:
    """A store that answers looks with a full queue, or with what it is told to raise; it ends the process."""

    def __init__(self, lifetime: Lifetime, *troubles: Exception) -> None:
        self.troubles = list(troubles)
        self.lifetime = lifetime

    async def backlog(self) -> Backlog:
        """Fail, or say that the queue is full."""
        if self.troubles:
            raise self.troubles.pop(0)
        self.lifetime.begin_drain()
        return FULL


class Bench:
    """A pressure over such a store, with a clock to be set."""

    def __init__(self, *troubles: Exception) -> None:
        self.now = NOW
        self.log = io.BytesIO()
        self.telemetry = Telemetry(self.log, lambda: self.now)
        self.lifetime = Lifetime()
        store = cast("Any", Looked(self.lifetime, *troubles))
        self.pressure = Pressure(store, Bounds(9, 10_000), self.telemetry, lambda: self.now, seconds=0)

    async def run(self) -> list[dict[str, Any]]:
        """Look until the process stops; return what was told."""
        async with asyncio.timeout(5):
            await self.pressure.run(self.lifetime)
        self.telemetry.close()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


async def test_failed_looks_are_told() -> None:
    """A look that fails, foreseen or not, is told, and the next one comes."""
    bench = Bench(StoreUnavailable("gone"), ZeroDivisionError("bug"))
    lines = await bench.run()
    assert [(line["event"], line["kind"]) for line in lines] == [("fault", "backlog"), ("bug", "backlog")]
    assert bench.pressure.seen == FULL


async def test_stopped_process_looks_no_more() -> None:
    """A process on its way out does not begin to look."""
    bench = Bench()
    bench.lifetime.begin_drain()
    await bench.run()
    assert bench.pressure.seen == Backlog()


async def test_last_look_counts_for_seconds() -> None:
    """What was seen refuses until it is too old, and nothing was seen before the first look."""
    bench = Bench()
    assert bench.pressure.full("interactive") is None
    await bench.run()
    for late, rule in ((0, "queue.depth"), (STALE_MS, "queue.depth"), (STALE_MS + 1, None)):
        bench.now = NOW + late
        answer = bench.pressure.full("interactive")
        assert (None if answer is None else answer.rule) == rule


async def test_figures_are_those_seen() -> None:
    """The metrics show depth and age of each line as they were seen, however late they are asked."""
    bench = Bench()
    await bench.run()
    bench.now += 60_000
    text = bench.telemetry.render()[0].decode()
    figures = dict(line.split(" ") for line in text.splitlines() if line.startswith("safelight_queue_"))
    assert figures == {
        "safelight_queue_interactive": "9.0",
        "safelight_queue_batch": "1.0",
        "safelight_queue_interactive_age_seconds": "5.0",
        "safelight_queue_batch_age_seconds": "7.0",
    }
