"""Sixty-four callers in a process of their own, as many processes as a test starts, over one Redis.

A process reads orders from standard input, one a line, and prints what its callers were answered. Its
host's clock may be wrong. `Crowd` is the test's end of them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from gateway.audit import Chain
from gateway.store.contract import Submitted
from gateway.store.engine import Engine
from gateway.store.opening import How, Place
from gateway.store.redis import RedisBackend
from gateway.store.redis_time import StoreTime, steady_us, wall_us
from policies.quota import Terms
from tests.contracts.histories import word
from tests.contracts.rig import KEYS, Rig, submit
from tests.fakes.command import environ

if TYPE_CHECKING:
    from typing import Self

CALLERS: Final = 64
SUBJECTS: Final = ("u0", "u1", "u2", "u3")


class Order(msgspec.Struct, frozen=True):
    """What each caller does: so many submits at this tenant, one after the other, under these terms."""

    tenant: str
    terms: Terms
    calls: int


class Told(msgspec.Struct, frozen=True):
    """How many answers of each word, and between which instants the admitted jobs were created."""

    words: dict[str, int]
    first: int | None = None
    last: int | None = None


class Crowd:
    """Processes of callers, one for each number of milliseconds that its host's clock is ahead."""

    def __init__(self, url: str, prefix: str, ahead: Iterable[int]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, url, prefix, str(skew)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ(),
            )
            for skew in ahead
        ]
        for process in self._processes:  # each says when it is ready
            assert process.stdout is not None
            process.stdout.readline()

    def all(self, order: Order) -> list[Told]:
        """Have all of them do it at once; return what each process was told."""
        line = msgspec.json.encode(order) + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        return [_read(process) for process in self._processes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()


def _read(process: subprocess.Popen[bytes]) -> Told:
    assert process.stdout is not None
    return msgspec.json.decode(process.stdout.readline(), type=Told)


async def carried_out(order: Order, engine: Engine, rig: Rig) -> Told:
    """Do what is ordered, all callers at once."""

    async def caller(subject: str) -> list[object]:
        jobs = [replace(rig.job(order.tenant, subject), id=str(uuid4())) for _ in range(order.calls)]
        return [await submit(engine, job, terms=order.terms) for job in jobs]

    subjects = (SUBJECTS * CALLERS)[:CALLERS]
    answers = [answer for each in await asyncio.gather(*map(caller, subjects)) for answer in each]
    words = Counter(word(answer) for answer in answers)
    made = [answer.job.created_at for answer in answers if isinstance(answer, Submitted)]
    return Told(dict(words), min(made, default=None), max(made, default=None))


async def main(url: str, prefix: str, ahead_ms: int) -> None:
    """Answer orders until there are no more."""
    time = StoreTime(steady_us, lambda: wall_us() + 1000 * ahead_ms)
    backend = RedisBackend(Place(url), How(uuid4().hex), prefix=prefix, time=time)
    engine = Engine(backend, Chain(KEYS), lambda: uuid4().hex)
    rig = Rig("redis", Path())
    await engine.start()
    await backend.heard()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        told = await carried_out(msgspec.json.decode(line, type=Order), engine, rig)
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
