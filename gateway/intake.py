"""Takes in what an upstream made: fetches it, judges it, keeps it.

Whatever comes is hostile until it has been decoded. What is kept is kept byte for byte; its copies are
named and not made, which is for `copies` once somebody looks at one. An image that cannot be had or read is
None, and the others of its job are delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway.blobs import folder
from gateway.copies import copies_of
from gateway.crash import Hook, nowhere
from gateway.images import NotAnImage, Picture
from gateway.providers.adapter import Failed, Finished, Image, Task
from policies import retry
from policies.model import Output
from policies.retry import Again, Failure, Phase, Trouble

if TYPE_CHECKING:
    from gateway.blobs import Blobs
    from gateway.images import Studio
    from gateway.runs import Run
    from gateway.secrets import Keyring
    from gateway.telemetry import Telemetry
    from gateway.wire import WireRequest

Fresh = Callable[[int], Awaitable[Image | None]]
"""Asks the upstream once more for the image of an index."""


class Intake:
    """Where images enter the house."""

    def __init__(
        self,
        blobs: Blobs,
        studio: Studio,
        ring: Keyring,
        telemetry: Telemetry,
        crash: Hook = nowhere,
    ) -> None:
        self._blobs = blobs
        self._studio = studio
        self._ring = ring
        self._telemetry = telemetry
        self._crash = crash

    async def take(
        self, run: Run, index: int, image: Image, fresh: Fresh, work: tuple[str, Task]
    ) -> Output | None:
        """Return the output an image became; None where it cannot be delivered."""
        data = image.data if image.fetch is None else await self._fetch(run, index, image.fetch, fresh, work)
        if data is None:
            return None
        found = await self._studio.inspect(data)
        if isinstance(found, NotAnImage):
            self._telemetry.alarm("output_rejected", job=run.job.id, cause=found.reason)
            return None
        return await self._keep(run, index, data, found, image.seed)

    async def _keep(
        self, run: Run, index: int, data: bytes, found: Picture, seed: str | None
    ) -> Output | None:
        """Store an image. What an attempt before a crash stored there is what counts."""
        key = f"{folder(self._ring, run.job.tenant, run.job.id)}/{index}.{found.ext}"
        kept = await run.insist(lambda: self._blobs.put(key, data))
        if kept != data:
            before = await self._studio.inspect(kept)
            if isinstance(before, NotAnImage):
                return None
            found = before
        self._crash("output_stored")
        return Output(
            index=index,
            key=key,
            media_type=found.media_type,
            width=found.width,
            height=found.height,
            bytes=len(kept),
            sha256=hashlib.sha256(kept).hexdigest(),
            seed=seed,
            variants=copies_of(key, run.job.variants),
        )

    async def _fetch(
        self, run: Run, index: int, request: WireRequest, fresh: Fresh, work: tuple[str, Task]
    ) -> bytes | None:
        """Get an image's bytes; a link that ran out is renewed once."""
        entry, task = work
        renewed, tries = False, 0
        while True:
            tries += 1
            asking = run.parts.upstreams.ask(entry, run.bounded(request), Phase.FETCH, task, run.job)
            reading = await asking
            if isinstance(reading, Finished):
                return reading.images[0].data
            failed = reading if isinstance(reading, Failed) else Failed(Failure.MALFORMED)
            if failed.kind is Failure.EXPIRED and not renewed:
                renewed = True
                image = await fresh(index)
                if image is not None and image.fetch is not None:
                    request = image.fetch
                    continue
            verdict = retry.after(_trouble(run, failed, tries))
            if not isinstance(verdict, Again):
                return None
            await run.rest(verdict.after_ms)


def _trouble(run: Run, failed: Failed, tries: int) -> Trouble:
    return Trouble(
        phase=Phase.FETCH,
        kind=failed.kind,
        tries=tries,
        more=False,
        left_ms=run.left_ms(),
        retry_after_ms=failed.retry_after_ms,
        chance=run.parts.chance(),
    )
