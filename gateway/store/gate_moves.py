"""Closing a tenant whose store went back, and opening it again, as moves.

A tenant is closed in its own document, so that every process meets it at its next commit, whatever it
knew. Its version passes all that are known to be lost: none of them is ever used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gateway.audit import Record
from gateway.store.moves import Move

if TYPE_CHECKING:
    from gateway.store.contract import Shut
    from gateway.store.draft import Draft

SYSTEM: Final = "_"
"""The house's own tenant, in whose trail it stands what befell the store. It is never closed."""


class ShutMove(Move):
    """Close a tenant. One that is closed for as much as this is left as it is."""

    gate = True

    def __init__(self, tenant: str, shut: Shut) -> None:
        super().__init__(tenant)
        self._shut = shut

    def fold(self, draft: Draft) -> object:
        """Write down why, and what was known."""
        before = draft.tenant_doc.shut
        mark = self._shut
        if before is None or before.version < mark.version or before.lost < mark.lost:
            draft.shut(replace(mark, at=draft.now))
            draft.say(None, rewound(mark))
        return None


class ReopenMove(Move):
    """Open a closed tenant again; answers why it was closed, None where it was not."""

    gate = True

    def __init__(self, tenant: str, by: str) -> None:
        super().__init__(tenant, by)

    def fold(self, draft: Draft) -> object:
        """Drop the mark, and say who did."""
        before = draft.tenant_doc.shut
        if before is not None:
            draft.shut(None)
            draft.say(self.subject, reopened())
        return before


def rewound(shut: Shut, tenant: str | None = None) -> Record:
    """Return the line that tells of a tenant that went back, by how many versions; of the store, by bytes."""
    count = max(shut.version - shut.found, shut.lost, 1)
    return Record(action="store.rewound", code="store_rewound", count=count, tenant=tenant)


def reopened(tenant: str | None = None) -> Record:
    """Return the line that tells of a tenant that was opened again."""
    return Record(action="store.reopen", tenant=tenant)
