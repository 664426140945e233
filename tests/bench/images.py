"""OpenAI's call end to end, beside a bare pass-through to the same upstream.

`python -m tests.bench.images FOLDER` runs this alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.dev import token
from gateway.secrets import load_or_create
from policies.model import Principal
from tests.bench.machine import LOAD_CORE, ROUNDS, once, served

if TYPE_CHECKING:
    from collections.abc import Callable

PATH: Final = "/v1/images/generations"
BODY: Final = {"prompt": "a lighthouse at dusk, waves against the rocks, long exposure", "quality": "low"}
TENANTS: Final = 20
WAYS: Final = [(millis, connections) for millis in (0, 50) for connections in (32, 128)]
"""Milliseconds an image takes, and how many ask at once."""
FLOOR: Final = 0.40

Found = dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]
"""By way: what the pass-through did and what the house did, a pair a round."""


def asks(secret: Any) -> list[dict[str, str]]:
    """Return calls of some tenants in turn."""
    now = time.time_ns() // 1_000_000
    body = json.dumps(BODY)
    return [
        {"method": "POST", "path": PATH, "token": token(secret, Principal(f"t{at}", "s"), now), "body": body}
        for at in range(TENANTS)
    ]


def name(millis: int, connections: int) -> str:
    """Return what a way is called in the table."""
    return f"OpenAI call, {millis} ms upstream, {connections} connections"


def measure(data: Path, done: Callable[[], object]) -> Found:
    """Return for each way what the pass-through and the house did, a pair a round, interleaved."""
    found: Found = {}
    for millis in sorted({millis for millis, _ in WAYS}):
        folder = data / f"images-{millis}"
        folder.mkdir()
        requests = asks(load_or_create(folder / "secret"))
        with (
            served("tests.bench.upstream", str(millis), core=LOAD_CORE) as (upstream, _, _),
            served("tests.bench.through", str(upstream)) as (bare, _, _),
            served("tests.bench.server", str(folder), str(upstream)) as (port, _, _),
        ):
            once(port, requests, 0.5)
            for _ in range(ROUNDS):
                for connections in [connections for took, connections in WAYS if took == millis]:
                    theirs = once(bare, requests, connections=connections)
                    ours = once(port, requests, connections=connections)
                    found.setdefault(name(millis, connections), []).append((theirs, ours))
                    done()
    return found


def rows(found: Found) -> list[tuple[str, str, str, bool]]:
    """Return what was measured, what it should be, and whether it is."""
    shown = []
    for way, pairs in found.items():
        ratio = statistics.median(ours["rate"] / bare["rate"] for bare, ours in pairs)
        rate = statistics.median(ours["rate"] for _, ours in pairs)
        middle = statistics.median(ours["p50"] for _, ours in pairs)
        detail = f"{ratio:.2f} of pass-through ({rate:,.0f}/s, p50 {middle:.1f} ms)"
        shown.append((way, detail, f"≥ {FLOOR:.2f}", ratio >= FLOOR))
    return shown


if __name__ == "__main__":
    for row in rows(measure(Path(sys.argv[1]), lambda: None)):
        sys.stdout.write(f"{row}\n")
