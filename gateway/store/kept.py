"""What one process keeps of tenants between batches: a hint, which each commit's version check proves.

Kept is what the last commit left, until something says that it may be old. Bounded: the tenant that was
longest untouched goes first, and is read again when it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.backend import TenantState
from gateway.store.draft import Scene

if TYPE_CHECKING:
    from gateway.store.backend import UserState
    from policies.webhooks import Endpoint

TENANTS: Final = 4096
USERS: Final = 4096
"""Users kept a tenant; past that they are read again."""

_Known = tuple[TenantState, "dict[str, UserState | None]", "dict[str, Endpoint] | None"]


class Kept:
    """Tenants by name: figures, users (None: known not to be there) and endpoints."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._known

    def scene(self, tenant: str) -> Scene:
        """Return what is known of a tenant, to be written on; that of one not kept is empty."""
        state, users, endpoints = self._known.get(tenant, (TenantState(), {}, None))
        return Scene(state, users, {}, {}, set(), endpoints=endpoints)

    def version(self, tenant: str) -> int:
        """Return the version that is kept; 0 where none is."""
        return self._known[tenant][0].version if tenant in self._known else 0

    def keep(self, tenant: str, scene: Scene) -> None:
        """Keep what is now known of a tenant. Of one that is shut nothing is: nobody tells when it opens."""
        self._known.pop(tenant, None)
        if scene.state.doc.shut is not None:
            return
        users = scene.users if len(scene.users) <= USERS else {}
        self._known[tenant] = (scene.state, users, scene.endpoints)
        if len(self._known) > TENANTS:
            del self._known[next(iter(self._known))]

    def forget(self, tenant: str) -> None:
        """Read a tenant again when it is wanted."""
        self._known.pop(tenant, None)

    def clear(self) -> None:
        """Read all again."""
        self._known.clear()
