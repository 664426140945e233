"""Inputs of edits: what callers bring, and what a job is pinned to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.manners import Pinned
from policies.model import Deny, Reason

if TYPE_CHECKING:
    from gateway.jobs import Caller
    from policies.model import JobRequest


class Uploads:
    """The use cases of uploads."""

    async def pin(self, who: Caller, request: JobRequest) -> Pinned | Deny:
        """Return the inputs of an edit, judged; or which one cannot be used, and why."""
        return Deny(Reason.UNSUPPORTED_OPTION, "Edits are not offered by any configured model.")
