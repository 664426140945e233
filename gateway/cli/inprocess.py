"""A job made in this process, where no server runs: a whole house for as long as one command takes.

The same use cases and worker as a server's, without a port. The house's loop runs only while the command
waits for it. It lives on a data folder as `safelight dev` does, so credits, jobs and trail go on there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from gateway import dev
from gateway.app import VERSION, Choices, House
from gateway.callers import Caller
from gateway.cli.client import Cost, Picture, Place, Seen, Shown, Trouble
from gateway.cli.sources import files_of
from gateway.errors import Problem, Refusal
from gateway.lines import Sink
from gateway.strict import Flawed, decode_json
from gateway.telemetry import Telemetry
from policies import ids
from policies.model import Job, JobRequest, JobState, Principal

STEP_SECONDS: Final = 20.0


class Bugs:
    """Passes on the lines that tell of a bug; the rest is for operators of servers."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes, /) -> None:
        """Take lines of the log."""
        for line in data.splitlines(keepends=True):
            if b'"event":"bug"' in line:
                self._sink.write(line)

    def flush(self) -> None:
        """Hand them on."""
        self._sink.flush()


class Inprocess:
    """A `Maker` in this process. Entered, it holds the data folder; left, it lets go of it."""

    def __init__(self, data: Path, environ: Mapping[str, str], sink: Sink) -> None:
        self._settings = dev.settings_of(data, environ, "127.0.0.1", 0)
        self._telemetry = Telemetry(Bugs(sink), _now, level="error", version=VERSION)
        self._runner = asyncio.Runner()
        self._house: House
        self._who: Caller

    def __enter__(self) -> Self:
        self._telemetry.open()
        try:
            self._runner.run(self._open())
        except BaseException:
            self._runner.close()
            self._telemetry.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._close())
        finally:
            self._runner.close()
            self._telemetry.close()

    def submit(self, asked: Mapping[str, object]) -> Shown:
        """Submit a job by the fields of its request."""
        request = decode_json(msgspec.json.encode(asked), JobRequest)
        if isinstance(request, Flawed):
            raise Problem("invalid_request", flaws=request.flaws)
        accepted = self._runner.run(self._house.jobs.submit(self._who, request, None))
        return self._shown(accepted.job)

    def wait(self, job: Seen) -> Shown:
        """Let the house work until the job changes."""
        waiting = self._house.jobs.wait(self._who, ids.parse(job.id) or "", job.version, STEP_SECONDS)
        return self._shown(self._runner.run(waiting).job)

    def picture(self, picture: Picture) -> bytes:
        """Read an image from the folder it was stored in."""
        data = self._runner.run(self._house.blobs.read(picture.url))
        if data is None:
            raise Refusal("the picture is gone: its job was deleted")
        return data

    def cancel(self, job: Seen) -> None:
        """End the job, or ask its worker to."""
        self._runner.run(self._house.jobs.cancel(self._who, ids.parse(job.id) or ""))

    async def _open(self) -> None:
        house = House(self._settings, files_of(self._settings), self._telemetry, Choices(dev=True))
        self._who = house.callers.admit_caller(Principal(dev.TENANT, dev.SUBJECT))
        self._house = house
        try:
            await house.start()
        except Refusal:
            await house.close()
            raise

    async def _close(self) -> None:
        await self._house.drain()
        await self._house.close()

    def _shown(self, job: Job) -> Shown:
        usage = self._runner.run(self._house.jobs.usage(self._who))
        position = self._runner.run(self._house.jobs.position(self._who, job))
        left = [at.available for at in (usage.user, usage.tenant) if at.available is not None]
        return Shown(seen(job, position), min(left, default=None))


def seen(job: Job, position: int | None) -> Seen:
    """Return what a command wants to know of a stored job."""
    error = job.error
    return Seen(
        id=ids.shown(job.id),
        state=str(job.state),
        ended=job.state.ended,
        version=job.version,
        cost=Cost(job.quoted, job.charged, job.refunded),
        adjustments=job.adjustments,
        outputs=tuple(Picture(o.index, o.key, o.media_type, o.width, o.height, o.bytes) for o in job.outputs),
        shortfall=tuple(Trouble(short.code) for short in job.shortfall),
        error=None if error is None else Trouble(error.code, error.detail),
        queue=None if position is None or job.state is not JobState.QUEUED else Place(position),
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
