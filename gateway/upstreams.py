"""The configured providers: an adapter, a credential and a health each, asked through `outbound`.

One call goes out here and its meaning comes back. What to do about the meaning is the run's business.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from gateway.providers.adapter import Failed, Finished, Handed, Reading, Refused, Running, read_fault
from gateway.wire import Wire, WireFailure, WireRequest, WireResponse
from policies import health
from policies.retry import Failure, Phase
from policies.routing import Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.outbound import Outbound
    from gateway.providers.adapter import Adapter, Hander, Task
    from gateway.telemetry import Telemetry
    from policies.model import Job

_UNSURE: Final = frozenset({Failure.UNKNOWN, Failure.MALFORMED, Failure.LOST, Failure.EXPIRED})
"""What may have been done, where doing it twice costs nothing."""
_SICK: Final = frozenset({Failure.UNREACHABLE, Failure.OVERLOADED, Failure.UNKNOWN, Failure.MALFORMED})


class Upstreams:
    """All provider entries of the settings, by name."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        outbound: Outbound,
        telemetry: Telemetry,
        now: Callable[[], int],
    ) -> None:
        self._adapters = dict(adapters)
        self._outbound = outbound
        self._telemetry = telemetry
        self._now = now
        self._health = dict.fromkeys(adapters, health.Health())

    def __contains__(self, entry: str) -> bool:
        return entry in self._adapters

    def offers(self) -> tuple[Offer, ...]:
        """Return what each entry can do, for routing."""
        return tuple(Offer(name, a.kind, a.capabilities) for name, a in self._adapters.items())

    def adapter(self, entry: str) -> Adapter:
        """Return an entry's adapter."""
        return self._adapters[entry]

    def healthy(self, entry: str) -> bool:
        """Whether the entry is to be asked for new work now."""
        return health.may_ask(self._health[entry], self._now())

    async def ask(self, entry: str, request: WireRequest, phase: Phase, task: Task, job: Job) -> Reading:
        """Send one request of an entry's work and return what its answer means."""
        if phase in (Phase.SYNC, Phase.SUBMIT):
            self._health[entry] = health.asked(self._health[entry], self._now())
        began = time.perf_counter()
        answer = await self._outbound.send(request)
        reading = self._adapters[entry].read(answer, phase, task)
        failed = reading if isinstance(reading, Failed) else None
        if phase is not Phase.FETCH:
            well = failed is None or failed.kind not in _SICK
            self._health[entry] = health.observe(self._health[entry], well, self._now())
        self._telemetry.attempt(
            entry=entry,
            phase=str(phase),
            outcome=_outcome(reading),
            seconds=time.perf_counter() - began,
            job=job.id,
            cut=str(answer.cut) if isinstance(answer, WireFailure) else None,
            upstream_status=None if isinstance(answer, WireFailure) else answer.status,
        )
        if failed is not None and failed.kind is Failure.DENIED and phase is not Phase.FETCH:
            self._telemetry.alarm("provider_denied", entry=entry, job=job.id)
        return reading

    async def hand(self, entry: str, task: Task, at: int, job: Job) -> str | Failed:
        """Hand an input over to an upstream that wants it first; return the upstream's name for it.

        None of it is paid for, so whatever becomes of it may be tried again.
        """
        adapter = cast("Hander", self._adapters[entry])
        began = time.perf_counter()
        answer = await self._outbound.send(adapter.announce(task, at))
        handed: Handed | Failed = adapter.handed(answer, task, at)
        if isinstance(handed, Handed):
            answer = await self._outbound.send(handed.put)
            fault = None if _is_there(answer) else read_fault(answer)
            handed = handed if fault is None else fault
        if isinstance(handed, Failed) and handed.kind in _UNSURE:
            handed = Failed(Failure.UNREACHABLE)
        failed = handed if isinstance(handed, Failed) else None
        self._telemetry.attempt(
            entry=entry,
            phase="hand",
            outcome="handed" if failed is None else str(failed.kind),
            seconds=time.perf_counter() - began,
            job=job.id,
            cut=str(answer.cut) if isinstance(answer, WireFailure) else None,
            upstream_status=None if isinstance(answer, WireFailure) else answer.status,
        )
        if failed is not None and failed.kind is Failure.DENIED:
            self._telemetry.alarm("provider_denied", entry=entry, job=job.id)
        return handed.name if isinstance(handed, Handed) else handed


def _is_there(answer: Wire) -> bool:
    """Say whether a place that takes a file once has it already: the same one, put there before a crash."""
    return isinstance(answer, WireResponse) and answer.status in (409, 412)


def _outcome(reading: Reading) -> str:
    match reading:
        case Finished():
            return "finished"
        case Running():
            return "running"
        case Refused():
            return "refused"
        case Failed(kind):
            return str(kind)
