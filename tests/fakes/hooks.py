"""Webhooks in memory: the store's verbs of them that calls use, and the use cases over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from gateway.audit import Record
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Absent, Count, DeliveryPage, Denied, Dropped, Endpoints, Kept
from gateway.webhooks import Webhooks
from policies.model import Deny, Usage
from policies.webhooks import Delivery, Endpoint
from tests.fakes.jobs import FakeJobs, uuid

if TYPE_CHECKING:
    from gateway.store.contract import Store

RING = Keyring([Secret("h" * 32)])


class HookShelf:
    """Endpoints and deliveries of all tenants, oldest first, and what the trail was told."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.endpoints: list[Endpoint] = []
        self.deliveries: list[Delivery] = []
        self.told: list[tuple[str, str]] = []
        self.full: Deny | None = None
        """What every count says, where it says no."""

    async def change_endpoint(
        self, tenant: str, change: Endpoints, count: Count, record: Record, *, by: str
    ) -> Kept | Dropped | Absent | Denied:
        """Ask the rule, then do as it says."""
        there = tuple(await self.list_endpoints(tenant))
        after = self.full or change(there, self._now())
        if isinstance(after, Deny):
            return Denied(after, Usage())
        if after is None:
            return Absent()
        self.told.append((by, record.action))
        self.endpoints = [each for each in self.endpoints if each.id != after.id]
        if isinstance(after, Dropped):
            return after
        self.endpoints = sorted([*self.endpoints, after], key=lambda each: each.id)
        return Kept(after)

    async def list_endpoints(self, tenant: str) -> Sequence[Endpoint]:
        """Return a tenant's endpoints."""
        return [each for each in self.endpoints if each.tenant == tenant]

    async def put_delivery(
        self, delivery: Delivery, count: Count, record: Record, *, by: str
    ) -> Kept | Absent | Denied:
        """Keep a delivery, or make one due again."""
        if self.full is not None:
            return Denied(self.full, Usage())
        if all(each.id != delivery.endpoint for each in self.endpoints):
            return Absent()
        self.told.append((by, record.action))
        self.deliveries = [*(each for each in self.deliveries if each.id != delivery.id), delivery]
        return Kept(delivery)

    async def get_delivery(self, tenant: str, delivery: str) -> Delivery | None:
        """Return a delivery."""
        return next((each for each in self.deliveries if (each.tenant, each.id) == (tenant, delivery)), None)

    async def list_deliveries(
        self, tenant: str, endpoint: str, *, before: int | None, limit: int
    ) -> DeliveryPage:
        """Return deliveries newest first, by their places."""
        places = [n for n, each in enumerate(self.deliveries) if each.endpoint == endpoint]
        fitting = [n for n in reversed(places) if before is None or n < before]
        page = fitting[:limit]
        more = page[-1] if len(fitting) > limit else None
        return DeliveryPage(tuple(self.deliveries[n] for n in page), more)

    def patch(self, **fields: Any) -> None:
        """Change the newest endpoint, as a deliverer does."""
        self.endpoints[-1] = replace(self.endpoints[-1], **fields)


def office(shelf: HookShelf, jobs: FakeJobs) -> Webhooks:
    """Return the use cases over a shelf. Addresses on `example.org` may be called."""

    async def judge(url: str) -> bool:
        return url.startswith("https://") and ".example.org/" in url

    minted = iter(range(1, 10_000))
    return Webhooks(
        cast("Store", shelf),
        RING,
        judge,
        jobs.turned_away,
        lambda: _sorted(next(minted)),
        lambda count: bytes(range(count)),
        jobs.now,
    )


def _sorted(number: int) -> str:
    """Return an id that sorts by the number, as those of a clock do."""
    return f"{number:08x}{uuid(0)[8:]}"
