"""What the machinery around a server asks: alive, ready, how it does.

Liveness knows no dependency, so a sick store never gets a healthy process killed. Readiness knows the
store and the drain. Metrics have no tenant, subject or id in them; who may reach them is the network's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from litestar import get
from litestar.handlers import HTTPRouteHandler

from gateway.api.exchange import Answer, json_answer
from gateway.api.gate import PUBLIC
from gateway.errors import Problem
from gateway.lifetime import Lifetime

if TYPE_CHECKING:
    from gateway.telemetry import Telemetry

OK: Final = {"status": "ok"}


class HealthCalls:
    """The routes of probes. `ping` raises a fault when the store would not take a write."""

    def __init__(self, lifetime: Lifetime, ping: Callable[[], Awaitable[None]], telemetry: Telemetry) -> None:
        self._lifetime = lifetime
        self._ping = ping
        self._telemetry = telemetry

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        return [
            get("/livez", operation_id="getLiveness", opt=PUBLIC)(self.live),
            get("/readyz", operation_id="getReadiness", opt=PUBLIC)(self.ready),
            get("/metrics", operation_id="getMetrics", opt=PUBLIC)(self.metrics),
        ]

    async def live(self) -> Answer:
        """Ask whether the process answers at all."""
        return json_answer(OK)

    async def ready(self) -> Answer:
        """Ask whether the process should get requests: it is not stopping and its store takes writes."""
        if self._lifetime.draining:
            raise Problem("draining")
        if not self._lifetime.ready:
            raise Problem("store_unavailable", "The process is starting.")
        await self._ping()
        return json_answer(OK)

    async def metrics(self) -> Answer:
        """Read the metrics, in the Prometheus text format."""
        body, media_type = self._telemetry.render()
        return Answer(200, [(b"content-type", media_type.encode())], body)
