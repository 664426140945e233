"""Servers and loads as processes, each on its core: what every measurement here stands on."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gateway.dev import token
from policies.model import Principal, Role

READERS: Final = 2000
BODY: Final = {"prompt": "a lighthouse at dusk, waves against the rocks, long exposure", "count": 1}
ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
SECONDS: Final = float(os.environ.get("SECONDS", "3"))
CONNECTIONS: Final = 32
SERVER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fsync_micros(folder: Path) -> float:
    """Return the median time of an fsync of one page on the folder's file system."""
    path, times = folder / "fsync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times) * 1e6


@contextmanager
def served(module: str, *arguments: str, core: int = SERVER_CORE) -> Iterator[tuple[int, int, float]]:
    """Run a server on a core; yield port, process id, and seconds to its first 200."""
    port = free_port()
    command = ["taskset", "-c", str(core), sys.executable, "-m", module, str(port), *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1).read()
                break
            except OSError:
                assert process.poll() is None, f"{module} did not start"
                time.sleep(0.01)
        yield port, process.pid, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


def drive(module: str, order: dict[str, Any]) -> dict[str, Any]:
    """Run a load on its core and return what it found."""
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", module]
    done = subprocess.run(command, input=json.dumps(order).encode(), stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def once(
    port: int, requests: list[dict[str, str]], seconds: float = SECONDS, connections: int = CONNECTIONS
) -> dict[str, Any]:
    """Run one closed loop."""
    order = {"port": port, "requests": requests, "connections": connections, "seconds": seconds}
    found = drive("tests.bench.load", order)
    assert found["bad"] == 0, found["answer"][:400]
    return found


def submits(secret: Any, tenants: int) -> list[dict[str, str]]:
    """Return submits of so many tenants in turn."""
    now = time.time_ns() // 1_000_000
    body = json.dumps(BODY)
    return [
        {
            "method": "POST",
            "path": "/v1/jobs",
            "token": token(secret, Principal(f"t{at}", f"s{at % 7}"), now),
            "body": body,
        }
        for at in range(tenants)
    ]


def polls(secret: Any, job: str) -> list[dict[str, str]]:
    """Return polls of one job by many admins of its tenant: one caller alone meets the read limit."""
    now = time.time_ns() // 1_000_000
    roles = frozenset({Role.USER, Role.TENANT_ADMIN})
    return [
        {
            "method": "GET",
            "path": f"/v1/jobs/{job}",
            "token": token(secret, Principal("t0", f"admin{at}", roles), now),
        }
        for at in range(READERS)
    ]
