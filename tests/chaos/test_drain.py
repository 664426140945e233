"""A stop in peace: what SIGTERM does to running jobs, open streams, probes and new work.

Every test leads a real process through its drain and looks at it from outside, then at what it left.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import replace

from policies.model import JobState
from tests.chaos.stage import Setup, Stage

HOLD = Setup(delay=1.0, concurrency=2, attempt_seconds=3, drain_seconds=4, grace_seconds=1)
"""Two jobs at a time, a second an image, and a drain that is longer than a call may take."""


class Caller:
    """One caller's calls, and what comes of them."""

    def __init__(self, stage: Stage, http: aiohttp.ClientSession) -> None:
        self._stage = stage
        self._http = http
        self._headers = {"authorization": f"Bearer {stage.token('acme', 'ann')}"}

    async def ask(self, method: str, path: str, wish: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and body."""
        url = self._stage.life.url + path
        async with self._http.request(method, url, json=wish, headers=self._headers) as answer:
            return answer.status, await answer.json()

    async def order(self, model: str, count: int) -> list[str]:
        """Submit so many jobs; return their ids."""
        wishes = [{"prompt": f"{model} number {n}", "model": model} for n in range(count)]
        answers = [await self.ask("POST", "/v1/jobs", wish) for wish in wishes]
        assert {status for status, _ in answers} == {202}
        return [body["id"] for _, body in answers]

    async def until_running(self, job: str) -> None:
        """Wait until a job runs."""
        status, body = await self.ask("GET", f"/v1/jobs/{job}?wait=5&after=1")
        assert (status, body["state"]) == (200, "running")

    async def until_ended(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended; return it."""
        _, body = await self.ask("GET", f"/v1/jobs/{job}?wait=20")
        assert body["ended"]
        return dict(body)

    async def listen(self, path: str, begun: asyncio.Event) -> tuple[str, float]:
        """Read a stream to its end; return its last words and when they came."""
        async with self._http.get(self._stage.life.url + path, headers=self._headers) as answer:
            text = ""
            async for data in answer.content.iter_any():
                begun.set()
                text += data.decode()
            return text.rstrip().rpartition("\n")[2], time.monotonic()


@asynccontextmanager
async def drained(folder: Path, setup: Setup) -> AsyncIterator[tuple[Stage, Caller]]:
    """Give a stage with a life under way, and a caller."""
    async with Stage(folder, setup) as stage, aiohttp.ClientSession() as http:
        assert await stage.life.begin()
        yield stage, Caller(stage, http)


def made(stage: Stage, model: str) -> int:
    """Return how much paid work an upstream was asked for."""
    return sum(call.paid for call in stage.calls(model))


async def states(stage: Stage) -> list[JobState]:
    """Return the states of all jobs of the caller, oldest first."""
    return [job.state for job in await stage.jobs()]


async def test_drain_lets_calls_finish(tmp_path: Path) -> None:
    """SIGTERM begins nothing and cuts nothing: calls under way end well, the rest is for the next start."""
    async with drained(tmp_path, HOLD) as (stage, caller):
        names = await caller.order("openai", 5)
        await asyncio.gather(*(caller.until_running(name) for name in names[:2]))
        stage.life.signal(signal.SIGTERM)
        assert await stage.life.gone(HOLD.drain_seconds) == 0
        assert await states(stage) == [JobState.SUCCEEDED] * 2 + [JobState.QUEUED] * 3
        assert made(stage, "openai") == 2
        assert await stage.under_way() == set()

        assert await stage.life.begin()
        ends = [await caller.until_ended(name) for name in names]
        assert [end["state"] for end in ends] == ["succeeded"] * 5
        assert made(stage, "openai") == 5


async def test_drain_tells_everyone_outside(tmp_path: Path) -> None:
    """While it drains, streams are told to reconnect, probes and new jobs get 503, jobs can be read."""
    async with drained(tmp_path, HOLD) as (stage, caller):
        (name,) = await caller.order("openai", 1)
        begun = [asyncio.Event(), asyncio.Event()]
        paths = ["/v1/events", f"/v1/jobs/{name}/events"]
        streams = [
            asyncio.create_task(caller.listen(path, event)) for path, event in zip(paths, begun, strict=True)
        ]
        await caller.until_running(name)
        await asyncio.gather(*(event.wait() for event in begun))
        assert (await caller.ask("GET", "/readyz"))[0] == 200

        told = time.monotonic()
        stage.life.signal(signal.SIGTERM)
        for words, at in await asyncio.gather(*streams):
            assert (words, at - told < HOLD.delay) == (": draining, reconnect", True)
        for method, path in (("GET", "/readyz"), ("POST", "/v1/jobs"), ("GET", "/v1/events")):
            status, body = await caller.ask(method, path, {"prompt": "late"} if method == "POST" else None)
            assert (status, body["code"]) == (503, "draining")
        status, body = await caller.ask("GET", f"/v1/jobs/{name}")
        assert (status, body["state"]) == (200, "running")
        assert await stage.life.gone(HOLD.drain_seconds) == 0
        assert await states(stage) == [JobState.SUCCEEDED]


async def test_drain_returns_polled_jobs(tmp_path: Path) -> None:
    """Jobs an upstream works on are given back at once and asked for by their ids after the next start."""
    setup = replace(HOLD, delay=3.0, concurrency=4)
    async with drained(tmp_path, setup) as (stage, caller):
        names = await caller.order("plus", 2) + await caller.order("ai", 2)
        await asyncio.gather(*(accepted(stage, caller, name) for name in names))
        told = time.monotonic()
        stage.life.signal(signal.SIGTERM)
        assert await stage.life.gone(setup.drain_seconds) == 0
        assert time.monotonic() - told < setup.delay
        left = await stage.jobs()
        assert [(job.state, job.attempts[-1].open) for job in left] == [(JobState.RUNNING, True)] * 4

        assert await stage.life.begin()
        ends = [await caller.until_ended(name) for name in names]
        assert [end["state"] for end in ends] == ["succeeded"] * 4
        assert (made(stage, "plus"), made(stage, "ai")) == (2, 2)


async def accepted(stage: Stage, caller: Caller, name: str) -> None:
    """Wait until a job's upstream has named it: the second change after it was stored."""
    status, body = await caller.ask("GET", f"/v1/jobs/{name}?wait=5&after=2")
    assert (status, body["version"] >= 3) == (200, True)


async def test_second_signal_stops_at_once(tmp_path: Path) -> None:
    """A second SIGTERM waits for nothing; what it cut off is unknown, told, and given back in credits."""
    setup = replace(HOLD, delay=2.5)
    async with drained(tmp_path, setup) as (stage, caller):
        names = await caller.order("openai", 3)
        await asyncio.gather(*(caller.until_running(name) for name in names[:2]))
        stage.life.signal(signal.SIGTERM)
        while (await caller.ask("GET", "/readyz"))[0] != 503:
            pass
        told = time.monotonic()
        stage.life.signal(signal.SIGTERM)
        assert await stage.life.gone(setup.drain_seconds) == 0
        assert time.monotonic() - told < setup.delay / 2
        assert len(await stage.under_way()) == 2

        assert await stage.life.begin()
        ends = [await caller.until_ended(name) for name in names]
        assert [(end["error"] or {}).get("code") for end in ends] == ["outcome_unknown"] * 2 + [None]
        assert [end["cost"]["charged"] for end in ends] == [0, 0, 10]
        assert made(stage, "openai") == 3


async def test_idle_process_stops_quickly(tmp_path: Path) -> None:
    """With nothing under way a stop takes no longer than its connections need to close."""
    async with drained(tmp_path, HOLD) as (stage, caller):
        assert (await caller.ask("GET", "/livez"))[0] == 200
        told = time.monotonic()
        stage.life.signal(signal.SIGTERM)
        assert await stage.life.gone(HOLD.drain_seconds) == 0
        assert time.monotonic() - told < HOLD.drain_seconds / 2
