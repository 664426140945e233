"""What a committer is told by and how long it waits; and who waits for the commit that is under way.

Where nobody else writes, figures are answered from what is kept, and jobs from the data base: between a
commit and the moment its process knows of it the one would be older than the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from gateway.store.contract import Shut

Observe = Callable[[int, float], None]
"""Told the size of each batch and the seconds its commit took."""
Rewound = Callable[[str, Shut], None]
"""Told each tenant that was found behind what was known of it, and what that was."""


class Patience(NamedTuple):
    """Seconds. A commit that takes longer is given up: its callers are told that the store is not there.

    A store that was changed is admitted nothing to for a moment: as long as others may take to notice.
    """

    commit: float = 5.0
    settle: float = 2.0


class Hears(NamedTuple):
    """Who hears of what: of batches, of deliveries that were queued, of tenants that went back."""

    observe: Observe
    rewound: Rewound
    queued: Callable[[], object] = lambda: None


QUIET: Final = Hears(lambda _moves, _seconds: None, lambda _tenant, _shut: None)
"""Nobody hears."""


class Flight:
    """The tenants of one commit, until its outcome is known."""

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        self._tenants = frozenset(tenants)
        self._landed = asyncio.Event()

    async def over(self, tenant: str) -> None:
        """Return once a tenant's commit is known to be applied or not."""
        if tenant in self._tenants:
            await self._landed.wait()

    def land(self) -> None:
        """Let those go on who wait."""
        self._tenants = frozenset()
        self._landed.set()
