"""Two thousand browsers that wait: each has a stream, each is told of its job's end.

Run as a process; reads its order from standard input and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import uvloop

from tests.bench.load import load, request

TERMINAL = b'"ended":true'


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - a plain read
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def waiting(port: int, job: str, token: str, ready: asyncio.Semaphore) -> float:
    """Hold one stream to its end; return the instant at which the end arrived, 0.0 if it never did."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("GET", f"/v1/jobs/{job}/events", token))
    seen = b""
    while b"event: job" not in seen:
        chunk = await reader.read(65_536)
        if not chunk or not seen.startswith(b"HTTP/1.1 200"[: len(seen)]):
            raise ConnectionError(seen.decode("latin-1")[:300])
        seen += chunk
    ready.release()
    while TERMINAL not in seen:
        chunk = await reader.read(65_536)
        if not chunk:
            return 0.0
        seen = seen[-64:] + chunk
    writer.close()
    return time.perf_counter()


async def main() -> None:
    """Submit, open the streams, end the jobs, count who was told."""
    order = json.loads(sys.stdin.read())
    port, tokens, pid, count = order["port"], order["tokens"], order["pid"], order["count"]
    body = json.dumps({"prompt": "a lighthouse at dusk"}).encode()
    jobs = []
    for at in range(count):
        token = tokens[at % len(tokens)]
        found = await load(port, iter([request("POST", "/v1/jobs", token, body)]), 1, 0.0)
        text = str(found["answer"])
        jobs.append((text.partition('"id":"')[2].partition('"')[0], token))
    before = resident(pid)
    ready = asyncio.Semaphore(0)
    streams = [asyncio.create_task(waiting(port, job, token, ready)) for job, token in jobs]
    failed = asyncio.gather(*streams)
    for _ in jobs:
        await asyncio.wait((asyncio.ensure_future(ready.acquire()), failed), return_when="FIRST_COMPLETED")
        if failed.done():
            failed.result()
    after = resident(pid)
    for job, token in jobs:
        await load(port, iter([request("POST", f"/v1/jobs/{job}/cancel", token, b"{}")]), 1, 0.0)
    told = await failed
    sys.stdout.write(
        json.dumps(
            {
                "streams": count,
                "told": sum(1 for at in told if at),
                "kib_each": (after - before) / count,
                "pid": os.getpid(),
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main())
