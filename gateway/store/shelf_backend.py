"""How thin a back end is for what lies beside the jobs: service keys, uploads, webhooks and their deliveries.

Reads, leases and what is removed by age. What changes any of it goes in a commit (`backend.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.store.contract import DeliveryPage, Notice
from policies.model import ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint


class Shelf(Protocol):
    """What an engine needs beside commits for service keys, uploads and webhooks."""

    async def key_of(self, digest: str) -> ServiceKey | None:
        """Return the service key of a hash, of whatever tenant."""
        ...

    async def keys(self, tenant: str) -> list[ServiceKey]:
        """Return a tenant's keys, newest first."""
        ...

    async def upload(self, tenant: str, upload: str) -> Upload | None:
        """Return one upload."""
        ...

    async def endpoints(self, tenant: str) -> list[Endpoint]:
        """Return a tenant's endpoints, oldest first."""
        ...

    async def delivery(self, tenant: str, delivery: str) -> Delivery | None:
        """Return one delivery."""
        ...

    async def page(self, tenant: str, endpoint: str, before: int | None, limit: int) -> DeliveryPage:
        """Return an endpoint's deliveries, newest first."""
        ...

    async def claim(self, n: int, each: int, busy: Sequence[str], now: int, until: int) -> list[Notice]:
        """Lease up to `n` due deliveries until `until`, oldest due first, at most `each` an endpoint."""
        ...

    async def release(self, notices: Sequence[Notice], due: int) -> None:
        """Make leased deliveries due. Lost leases are passed over."""
        ...

    async def next_due(self, busy: Sequence[str]) -> int | None:
        """Return the earliest instant at which a delivery of any but `busy` endpoints may be claimed."""
        ...

    async def drop_over(self, before: int, budget: int) -> int:
        """Remove deliveries made before an instant of which nothing more is sent; return how many."""
        ...
