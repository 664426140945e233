"""The places of one claim, shared between the two lines as `policies/order.py` says.

What is owed to the second line is counted by each process for itself: each gives it its share, so all
do. A line that fails takes nothing from the other, nor what was leased: nobody else would make those jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import StoreUnavailable
from policies import order

if TYPE_CHECKING:
    from gateway.store.backend import Backend
    from gateway.store.contract import Claim
    from policies.model import Priority


class Places:
    """The claims of one process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._owed = 0

    async def claim(self, n: int, lease_ms: int) -> list[Claim]:
        """Lease up to `n` jobs: those that are owed to the second line, the first, and then what is left."""
        kept = order.kept(self._owed, n)
        faults: list[StoreUnavailable] = []
        late = await self._lease(kept, lease_ms, "batch", faults)
        claims = await self._lease(n - len(late), lease_ms, "interactive", faults)
        if len(late) == kept and not faults:  # there may be more, where the first line left room
            late += await self._lease(n - len(claims) - len(late), lease_ms, "batch", faults)
        claims += late
        if faults and not claims:
            raise faults[0]
        self._owed = order.owed(self._owed, len(claims), len(late), n)
        return claims

    async def _lease(
        self, n: int, lease_ms: int, priority: Priority, faults: list[StoreUnavailable]
    ) -> list[Claim]:
        now = self._backend.clock()
        try:
            return await self._backend.claim(n, now, now + lease_ms, priority) if n else []
        except StoreUnavailable as fault:
            faults.append(fault)
            return []
