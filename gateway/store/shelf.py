"""What a store can be asked of what lies beside the jobs: service keys, uploads, webhooks.

The same rules as for jobs (`contract.py`): complete, atomic sentences, tenant first, answers as values.
What is put counts against the window that `count` names and is told to the trail in the same commit; a
replay counts nothing. Deliveries are leased and fenced as jobs are, and made by the commit that ends
their job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from policies.model import Deny, Job, ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.audit import Record
    from gateway.store.contract import Absent, Conflict, Count, Denied, Erased, Key, Stale


class Dropped(Struct, frozen=True):
    """What a rule says of an endpoint that is to be removed."""

    id: str


Endpoints = Callable[[tuple[Endpoint, ...], int], Endpoint | Dropped | Deny | None]
"""From all endpoints of the tenant and the store's time to the one that is put or dropped; None: absent."""

Told = Callable[[Delivery, Endpoint, int], tuple[Delivery, Endpoint]]
"""From a delivery and its endpoint as they are to both after a try."""


class Kept(Struct, frozen=True):
    """What was put, as it now is. `replayed`: it was there before."""

    value: Endpoint | Upload | ServiceKey | Delivery
    replayed: bool = False


class Notice(Struct, frozen=True):
    """A leased delivery, with what it needs: its endpoint, and its job (None for a test)."""

    delivery: Delivery
    endpoint: Endpoint
    job: Job | None
    fence: int


class DeliveryPage(Struct, frozen=True):
    """Newest first; `next` continues below the last, None at the end."""

    deliveries: tuple[Delivery, ...]
    next: int | None = None


class Keys(Protocol):
    """Service keys: long-lived bearers, found by their hash."""

    async def put_key(self, key: ServiceKey, count: Count, record: Record, *, by: str) -> Kept | Denied:
        """Keep a new service key. `by` is the subject who makes it, counted and told of."""
        ...

    async def find_key(self, digest: str) -> ServiceKey | None:
        """Return the key of a hash (hex), whatever its tenant, revoked and expired ones too."""
        ...

    async def list_keys(self, tenant: str) -> Sequence[ServiceKey]:
        """Return all keys of a tenant, newest first."""
        ...

    async def revoke_key(
        self, tenant: str, key: str, count: Count, record: Record, *, by: str
    ) -> Kept | Absent | Denied:
        """Revoke a key, for ever. One revoked before stays as it was."""
        ...


class Uploads(Protocol):
    """Images that callers bring, as they were declared."""

    async def put_upload(
        self, upload: Upload, count: Count, record: Record, *, key: Key | None = None
    ) -> Kept | Conflict | Erased | Denied:
        """Keep what was declared of an upload, or return the one its key made before.

        An upload that is there (same id) is returned, with its expiry moved to the new one's if later; one
        that was dropped before is no more among `remains`.
        """
        ...

    async def get_upload(self, tenant: str, upload: str) -> Upload | None:
        """Return an upload of the tenant, expired ones too while they are kept."""
        ...

    async def drop_upload(self, tenant: str, upload: str) -> None:
        """Forget an upload; its blobs are among `remains` until they are buried. Harmless twice."""
        ...


class Hooks(Protocol):
    """Endpoints that are told of ended jobs, and what they are told."""

    async def change_endpoint(
        self, tenant: str, change: Endpoints, count: Count, record: Record, *, by: str
    ) -> Kept | Dropped | Absent | Denied:
        """Put or drop one endpoint by a rule over all of the tenant's. Dropping forgets its deliveries."""
        ...

    async def list_endpoints(self, tenant: str) -> Sequence[Endpoint]:
        """Return all endpoints of the tenant, oldest first."""
        ...

    async def put_delivery(
        self, delivery: Delivery, count: Count, record: Record, *, by: str
    ) -> Kept | Absent | Denied:
        """Make a delivery due: a new one (a test), or one of before again. Absent without its endpoint.

        Of a delivery that is there only `state` and `due_at` are taken over: its tries stay.
        """
        ...

    async def get_delivery(self, tenant: str, delivery: str) -> Delivery | None:
        """Return a delivery."""
        ...

    async def list_deliveries(
        self, tenant: str, endpoint: str, *, before: int | None, limit: int
    ) -> DeliveryPage:
        """Return an endpoint's deliveries, newest first."""
        ...

    async def claim_deliveries(
        self, n: int, lease_ms: int, *, busy: Sequence[str] = (), each: int = 4
    ) -> Sequence[Notice]:
        """Lease due deliveries, at most `each` an endpoint and none of `busy` endpoints, oldest due first.

        One whose endpoint is disabled is not due; one whose job is gone is dropped with the job.
        """
        ...

    async def record_delivery(self, notice: Notice, told: Told, record: Record | None = None) -> Kept | Stale:
        """Write down what came of a try, for the delivery and its endpoint, in one step.

        `record` is told to the trail where the try disabled the endpoint.
        """
        ...

    async def release_deliveries(self, notices: Sequence[Notice], after_ms: int = 0) -> None:
        """Make leased deliveries due again, untried. Lost leases are passed over."""
        ...

    async def deliveries_due(self, seconds: float) -> None:
        """Return when there may be a delivery to claim, or when the time ran out."""
        ...
