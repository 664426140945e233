"""How full the queue is: looked at once a second by every process, never by a submit.

The rule is `policies/order.py`; here it is only asked, with what was last seen. A look that fails is told
and tried again: the last one counts for a few seconds more, then nobody is refused by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.errors import Fault
from gateway.telemetry import Reading
from policies import order

if TYPE_CHECKING:
    from gateway.lifetime import Lifetime
    from gateway.store.contract import Store
    from gateway.telemetry import Telemetry
    from policies.model import Deny, Priority

LOOK_SECONDS: Final = 1.0


class Pressure:
    """The backlog as it was last seen, and what follows from it."""

    def __init__(
        self,
        store: Store,
        bounds: order.Bounds,
        telemetry: Telemetry,
        now: Callable[[], int],
        *,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        self.seen = order.Backlog()
        self._store = store
        self._bounds = bounds
        self._telemetry = telemetry
        self._now = now
        self._seconds = seconds
        self._watch()

    def full(self, priority: Priority) -> Deny | None:
        """Return why a new job of a line is not taken now; None where it is."""
        return order.full(self.seen, priority, self._bounds, self._now())

    async def look(self) -> None:
        """Look at the queue."""
        self.seen = await self._store.backlog()

    async def run(self, lifetime: Lifetime) -> None:
        """Look about once a second, until the process stops."""
        stopping = lifetime.draining
        while not stopping:
            try:
                await self.look()
            except Fault as fault:
                self._telemetry.event("fault", level="warning", code=fault.code, kind="backlog")
            except Exception as bug:  # noqa: BLE001 - a look that stops unseen is worse; the bug is told
                self._telemetry.bug(bug, kind="backlog")
            stopping = await lifetime.pause(self._seconds)

    def _watch(self) -> None:
        """Show the figures of the last look."""
        watch = self._telemetry.watch
        watch(Reading.QUEUE_INTERACTIVE, lambda: self.seen.interactive.depth)
        watch(Reading.QUEUE_BATCH, lambda: self.seen.batch.depth)
        watch(Reading.QUEUE_INTERACTIVE_AGE, lambda: self.seen.interactive.age_ms(self.seen.at) / 1000)
        watch(Reading.QUEUE_BATCH_AGE, lambda: self.seen.batch.age_ms(self.seen.at) / 1000)
