"""The house over Redis beside bare Litestar: submits, polls, and how many commands they take.

`python -m tests.bench.over_redis FOLDER` runs this alone. The Redis writes its log every second, as in
production, and shares a core with the load, since its host is never the server's. Commands are Redis' own
count, without those that scripts make, and without those of an idle process, which looks around now and then.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.secrets import load_or_create
from tests.bench import commands, contend
from tests.bench.machine import LOAD_CORE, ROUNDS, SECONDS, once, polls, served, submits
from tests.fakes.redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

TENANTS: Final = 200
CONNECTIONS: Final = (32, 128)
FLOORS: Final = {"submit, one tenant": 0.42, f"submit, {TENANTS} tenants": 0.33, "poll": 0.45}
COMMANDS: Final = 0.1
"""Commands a submit, at most."""
CLUSTERED: Final = {32: 1.0, 128: 0.6}
"""The same on a Cluster, where a script serves one shard, by callers at once on the engine itself."""
SHORT: Final = 0.5
IDLE: Final = 3.0
STEPS: Final = ROUNDS * 2 * len(CONNECTIONS)
"""How often `measure` says that it has got on."""

Run = dict[str, Any]


class Found:
    """What was measured: by way and connections the run and bare Litestar's, a pair a round."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[str, int], list[tuple[Run, Run]]] = {}
        self.commands: dict[tuple[str, int], float] = {}
        self.idle = 0.0
        self.clustered: dict[int, float] = {}
        self.shared: dict[int, list[contend.Found]] = {}


def measure(data: Path, done: Callable[[], object]) -> Found:
    """Return what the house does over Redis, and bare Litestar beside it, interleaved."""
    folder, found = data / "over-redis", Found()
    folder.mkdir()
    with Redis("--appendfsync", "everysec") as redis:
        redis.keep_to(LOAD_CORE)
        with served("tests.bench.server", str(folder), "-", redis.url) as (port, _, _):
            _requests(found, folder, redis, port, done)
        redis.keep_to(*range(os.cpu_count() or 1))
        for _ in range(ROUNDS):
            for callers in CONNECTIONS:
                found.shared.setdefault(callers, []).append(contend.measure(redis, callers, SECONDS))
                done()
    found.clustered = commands.clustered()
    return found


def _requests(found: Found, folder: Path, redis: Redis, port: int, done: Callable[[], object]) -> None:
    secret = load_or_create(folder / "secret")
    one, many = submits(secret, 1), submits(secret, TENANTS)
    body = once(port, one, SHORT)["answer"].partition("\r\n\r\n")[2]
    poll = polls(secret, json.loads(body)["id"])
    once(port, many, SHORT)
    ways = dict(zip(FLOORS, (one, many, poll), strict=True))
    with redis.counting() as count:
        time.sleep(IDLE)
    found.idle = count() / IDLE
    for name, requests in ways.items():
        for connections in CONNECTIONS:
            with redis.counting() as count:
                run = once(port, requests, SECONDS, connections)
            idle = found.idle * run["done"] / run["rate"]
            found.commands[name, connections] = max(count() - idle, 0) / run["done"]
    with served("tests.bench.bare", str(len(body))) as (bare, _, _):
        for _ in range(ROUNDS):
            for connections in CONNECTIONS:
                posts, gets = (once(bare, requests, connections=connections) for requests in (one, poll))
                for name, requests in ways.items():
                    pair = once(port, requests, connections=connections), gets if name == "poll" else posts
                    found.pairs.setdefault((name, connections), []).append(pair)
                done()


def rows(found: Found) -> list[tuple[str, str, str, bool]]:
    """Return what was measured, what it should be, and whether it is."""
    shown = []
    for (name, connections), pairs in found.pairs.items():
        ratio = statistics.median(ours["rate"] / bare["rate"] for ours, bare in pairs)
        rate = statistics.median(ours["rate"] for ours, _ in pairs)
        middle = statistics.median(ours["p50"] for ours, _ in pairs)
        detail = f"{ratio:.2f} of bare ({rate:,.0f}/s, p50 {middle:.1f} ms)"
        way = f"Redis: {name}, {connections} connections"
        shown.append((way, detail, f"≥ {FLOORS[name]:.2f}", ratio >= FLOORS[name]))
    for (name, connections), sent in found.commands.items():
        way = f"Redis: commands a {name}, {connections} connections"
        if name == "poll":
            shown.append((way, f"{sent:.3f}", "", True))
        else:
            shown.append((way, f"{sent:.3f}", f"≤ {COMMANDS}", sent <= COMMANDS))
    for callers, sent in found.clustered.items():
        way = f"Redis Cluster: commands a submit, {TENANTS} tenants, {callers} callers"
        shown.append((way, f"{sent:.3f}", f"≤ {CLUSTERED[callers]}", sent <= CLUSTERED[callers]))
    shown.append(("Redis: commands a second of an idle process", f"{found.idle:.0f}", "", True))
    return shown + [_shared(callers, runs) for callers, runs in found.shared.items()]


def _shared(callers: int, runs: list[contend.Found]) -> tuple[str, str, str, bool]:
    """Return the row of one tenant that three processes and a worker want at once."""
    p99, tries = statistics.median(run.p99 for run in runs), max(run.tries for run in runs)
    slowest = statistics.median(run.slowest for run in runs)
    together = statistics.median(run.together for run in runs)
    return (
        f"Redis: 3 processes and a worker at one tenant, {callers} callers each",
        f"p99 {p99:.0f} ms, {tries} tries, slowest {slowest:.2f} of the mean, together {together:.2f} of one",
        "≤ 50 ms, ≤ 10, ≥ 0.5, ≥ 0.4",
        p99 <= 50 and tries <= 10 and slowest >= 0.5 and together >= 0.4,
    )


if __name__ == "__main__":
    for row in rows(measure(Path(sys.argv[1]), lambda: None)):
        sys.stdout.write(f"{row}\n")
