"""One upstream call's worth of images, through as many attempts as the retry table allows.

`read` says what an answer means, `retry` what to do about it, and this file does it. Each attempt is
written down before it is sent. What is found open after a crash is never sent blindly again: an
upstream id is asked for its result, a call under a provider's idempotency key is repeated under it, and
any other is an outcome nobody knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

from msgspec.structs import replace

from gateway import wire
from gateway.providers.adapter import Failed, Finished, Input, Reading, Refused, Running, Task
from policies import prompts, retry
from policies.model import Attempt, Shaping
from policies.retry import Again, Failure, Next, Phase, Stop, Trouble

if TYPE_CHECKING:
    from gateway.providers.adapter import Image
    from gateway.runs import Run
    from policies.model import Money, Step

SEND_WITHIN: Final = 5.0
"""Seconds after an attempt was written down in which it may be sent: a process that slept must not."""
POLL_LEAST_MS: Final = 250
ALL_SICK_MS: Final = 1_000
"""How often it is looked whether an upstream may be asked again when none may."""


class Slot:
    """Makes `job.slots[slot]` images, the first of which has index `first`."""

    def __init__(self, run: Run, slot: int) -> None:
        self._run = run
        self._p = run.parts
        self._slot = slot
        self._first = sum(run.job.slots[:slot])
        self._count = run.job.slots[slot]
        self._route = run.job.route
        self._step = 0
        self._tries = 0
        self._limited = 0
        self._doubt = False
        """Whether a send of the attempt under way may have been taken without our hearing of it."""
        self._attempt = Attempt(slot, -1, 0, 0, open=False)
        """The attempt under way; before the first one, a stand-in that was never sent."""
        self._inputs: tuple[Input, ...] = ()
        self._mask: Input | None = None
        self._names: dict[str, tuple[str, ...]] = {}
        """What entries call inputs that were handed to them."""

    async def make(self) -> None:
        """Bring the slot to its end and hand it to the run."""
        attempts = [attempt for attempt in self._run.job.attempts if attempt.slot == self._slot]
        if attempts and attempts[-1].done:
            return
        self._run.check_stop()
        reading = await (self._resume(attempts[-1]) if attempts else self._start(0))
        while reading is not None:
            match reading:
                case Running():
                    reading = await self._poll(reading)
                case Failed():
                    reading = await self._after(reading)
                case Refused(stage):
                    await self._close("upstream_refused", stage)
                    return
                case Finished(images, cost):
                    await self._deliver(images, cost)
                    return

    # -- attempts ----------------------------------------------------------------------------------

    async def _resume(self, attempt: Attempt) -> Reading | None:
        """Go on from what is written of an attempt begun before."""
        self._attempt, self._step = attempt, attempt.step
        known = self._route[attempt.step].entry in self._p.upstreams
        if not attempt.open:
            return await self._start(attempt.step)
        if known and attempt.upstream_id is not None and attempt.next is not None:
            return Running(attempt.upstream_id, wire.load(attempt.next), 0)
        if known and attempt.sent_key is not None:
            self._doubt = True
            if await self._reload(attempt):
                return await self._send()
        self._attempt = replace(attempt, sent_key=None, upstream_id=None)
        return Failed(Failure.UNKNOWN)

    async def _start(self, step: int) -> Reading | None:
        """Write the next attempt down, then send it; None where it is too late to begin one."""
        self._run.check_stop()
        chosen = await self._choose(step)
        if self._run.left_ms() <= 0:
            await self._close("deadline_exceeded", "upstream")
            return None
        if chosen is None:
            self._step = len(self._route) - 1
            return Failed(Failure.INVALID)
        if chosen != self._step:
            self._tries = 0
        self._step, self._doubt = chosen, False
        entry = self._route[chosen].entry
        if self._run.job.sources:
            trouble = await self._load(self._route[chosen])
            if trouble == "gone":
                await self._close("input_unreadable", "input")
                return None
            if trouble is not None:
                return trouble
        idempotent = self._p.upstreams.adapter(entry).capabilities.idempotent
        began = self._p.ticks()
        self._attempt = Attempt(
            slot=self._slot,
            n=self._attempt.n + 1,
            step=chosen,
            deadline_at=self._p.now() + int(self._limit() * 1000),
            sent_key=self._key() if idempotent else None,
            handed=self._names.get(entry, ()),
        )
        await self._run.begin(self._attempt)
        self._p.crash("attempt_recorded")
        if self._p.ticks() - began > SEND_WITHIN:
            return Failed(Failure.UNREACHABLE)
        return await self._send()

    async def _choose(self, step: int) -> int | None:
        """Return the first step from `step` on that may be asked now, waiting for one if none may."""
        steps = [at for at in range(step, len(self._route)) if self._route[at].entry in self._p.upstreams]
        while steps:
            for at in steps:
                if self._p.upstreams.healthy(self._route[at].entry):
                    return at
            if self._run.left_ms() <= 0:
                return None
            await self._run.pause(ALL_SICK_MS)
        return None

    async def _load(self, route: Step) -> Failed | Literal["gone"] | None:
        """Have the inputs ready in the form an upstream takes. Nothing of this is paid for."""
        adapter = self._p.upstreams.adapter(route.entry)
        prepared = await self._run.inputs()
        loaded = prepared and await self._p.inputs.load(prepared, adapter.capabilities, self._p.now())
        if not loaded:
            return "gone"
        self._inputs, self._mask = loaded
        if adapter.capabilities.inputs != "upload":
            return None
        names = self._names.get(route.entry) or await self._hand(route)
        if isinstance(names, Failed):
            self._tries += 1
            return names
        self._names[route.entry] = names
        self._inputs = _called(names)
        return None

    async def _hand(self, route: Step) -> tuple[str, ...] | Failed:
        """Hand the inputs over before the call that uses them; return what the upstream calls them."""
        names: list[str] = []
        for at in range(len(self._inputs)):
            self._run.check_stop()
            name = await self._p.upstreams.hand(route.entry, self._task(route), at, self._run.job)
            if isinstance(name, Failed):
                return name
            names.append(name)
        return tuple(names)

    async def _reload(self, attempt: Attempt) -> bool:
        """Have the same inputs ready for a call that is repeated; False where they cannot be had."""
        if not self._run.job.sources:
            return True
        if attempt.handed:
            self._inputs = _called(attempt.handed)
            return True
        return await self._load(self._route[attempt.step]) is None

    async def _send(self) -> Reading:
        """Send the paid request of the attempt under way."""
        route = self._route[self._attempt.step]
        adapter = self._p.upstreams.adapter(route.entry)
        task = self._task(route)
        phase = Phase.SUBMIT if adapter.capabilities.asynchronous else Phase.SYNC
        self._tries += 1
        asking = self._p.upstreams.ask(route.entry, adapter.build(task), phase, task, self._run.job)
        sending = asyncio.ensure_future(asking)
        try:
            await asyncio.sleep(0)
            self._p.crash("upstream_sent")
            reading = await sending
        finally:
            sending.cancel()
        self._p.crash("upstream_answered")
        return reading

    async def _poll(self, running: Running) -> Reading:
        """Write the upstream's id down once, wait as asked, ask how far it is."""
        if self._attempt.upstream_id is None:
            self._tries = 0
            self._inputs, self._mask = (), None  # megabytes, and sent
            self._attempt = replace(
                self._attempt, upstream_id=running.upstream_id, next=wire.dump(running.next)
            )
            await self._run.note(self._attempt)
        wait = max(POLL_LEAST_MS, running.after_ms) if running.after_ms else 0
        if wait and wait >= self._run.left_ms():
            return Failed(Failure.RATE_LIMITED, retry_after_ms=wait)
        if wait:
            await self._run.pause(wait)
        return await self._ask()

    async def _ask(self) -> Reading:
        """Ask the upstream how far the attempt under way is."""
        if self._attempt.next is None:
            return Failed(Failure.UNKNOWN)
        route = self._route[self._attempt.step]
        request = self._run.bounded(wire.load(self._attempt.next))
        task = replace(self._task(route), upstream_id=self._attempt.upstream_id)
        reading = await self._p.upstreams.ask(route.entry, request, Phase.POLL, task, self._run.job)
        self._tries = self._tries + 1 if isinstance(reading, Failed) else 0
        return reading

    async def _after(self, failed: Failed) -> Reading | None:
        """Do what the table says about a failure; None where the slot has ended."""
        polling = self._attempt.upstream_id is not None
        limited = failed.kind is Failure.RATE_LIMITED and not polling
        self._doubt |= failed.kind is Failure.UNKNOWN
        match retry.after(self._trouble(failed, polling=polling, limited=limited)):
            case Stop(code, flag):
                await self._close(code, "upstream", flag)
                return None
            case Next():
                await self._shut()
                return await self._start(self._step + 1)
            case Again(after_ms) if polling:
                await self._run.pause(after_ms)
                return await self._ask()
            case Again(after_ms, resend=True):
                await self._run.pause(after_ms)
                return await self._send()
            case Again(after_ms):
                await self._shut()
                await self._run.pause(after_ms)
                self._limited += limited
                return await self._start(0 if limited else self._step)

    def _trouble(self, failed: Failed, *, polling: bool, limited: bool) -> Trouble:
        """Say where a failure leaves the slot. Patience is asked for only where no other is healthy."""
        later = [s.entry for s in self._route[self._step + 1 :] if s.entry in self._p.upstreams]
        return Trouble(
            phase=Phase.POLL if polling else Phase.SUBMIT,
            kind=failed.kind,
            tries=self._limited + 1 if limited else max(1, self._tries),
            more=any(map(self._p.upstreams.healthy, later)) if limited else bool(later),
            left_ms=self._run.left_ms(),
            idempotent=self._attempt.sent_key is not None,
            doubt=self._doubt,
            retry_after_ms=failed.retry_after_ms,
            chance=self._p.chance(),
        )

    async def _shut(self) -> None:
        """Write down that the attempt under way came to nothing, before anything can part the run from it."""
        if self._attempt.open:
            self._attempt = replace(self._attempt, open=False)
            await self._run.note(self._attempt)

    # -- ends --------------------------------------------------------------------------------------

    async def _deliver(self, images: tuple[Image, ...], cost: Money | None) -> None:
        """Take the images in; what cannot be delivered is the shortfall, and its cost the operator's."""
        kept = [
            await self._p.intake.take(self._run, self._first + at, image, self._fresh, self._fetch_task())
            for at, image in enumerate(images[: self._count])
        ]
        outputs = tuple(output for output in kept if output is not None)
        rejected = len(outputs) < len(kept)
        code = "output_rejected" if rejected else "upstream_failed"
        await self._run.close(
            replace(
                self._attempt,
                open=False,
                outputs=outputs,
                code=None if len(outputs) == self._count else code,
                stage="output",
                cost=cost,
                flag="paid_and_unusable" if rejected else None,
            )
        )

    async def _fresh(self, index: int) -> Image | None:
        """Ask once more for an image whose link ran out."""
        reading = await self._ask()
        at = index - self._first
        found = isinstance(reading, Finished) and at < len(reading.images)
        return reading.images[at] if found and isinstance(reading, Finished) else None

    async def _close(
        self, code: str, stage: Literal["input", "upstream", "output"], flag: str | None = None
    ) -> None:
        await self._run.close(replace(self._attempt, open=False, code=code, stage=stage, flag=flag))

    # -- what is asked -----------------------------------------------------------------------------

    def _key(self) -> str:
        """Return the name of this slot's paid work: the same for every attempt at it."""
        return f"{self._run.job.id}-{self._slot}"

    def _limit(self) -> float:
        """Return the seconds a call that makes images may take from now."""
        return min(self._p.attempt_seconds, max(1.0, self._run.left_ms() / 1000))

    def _fetch_task(self) -> tuple[str, Task]:
        route = self._route[self._attempt.step]
        return route.entry, self._task(route)

    def _task(self, route: Step) -> Task:
        """Spell the slot for one upstream: native fields as fields, the others as words."""
        job = self._run.job
        words = job.shaping or Shaping(job.request.prompt)
        native = self._p.upstreams.adapter(route.entry).capabilities.takes(words.style)
        seed = job.request.seed if "seed" in native else None
        return Task(
            entry=route.entry,
            model=route.model,
            prompt=prompts.shape(words, native),
            key=self._key(),
            operation=job.request.operation,
            size=job.size,
            ratio=job.aspect_ratio,
            quality=job.request.quality,
            count=self._count,
            format=job.request.format,
            background=job.request.background,
            seed=None if seed is None else (seed + self._first) % 2**32,
            style=words.style if "style" in native else None,
            lighting=words.lighting if "lighting" in native else None,
            camera=words.camera if "camera" in native else None,
            negative=words.negative if "negative" in native else None,
            user=job.subject_ref,
            limit_seconds=self._limit(),
            inputs=self._inputs,
            mask=self._mask,
        )


def _called(names: tuple[str, ...]) -> tuple[Input, ...]:
    """Return inputs that an upstream has already, by the names it gave them."""
    return tuple(Input("", name=name) for name in names)
