"""Service keys in memory: the store's four verbs of them, and the use cases over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from gateway.audit import Record
from gateway.auth import key_digest
from gateway.keys import Keys
from gateway.store.contract import Absent, Count, Denied, Kept
from policies.model import Deny, ServiceKey, Usage
from policies.quota import DAY_MS
from tests.fakes.jobs import FakeJobs, uuid

if TYPE_CHECKING:
    from gateway.store.contract import Store


class KeyShelf:
    """Keys of all tenants, oldest first, and what the trail was told. `usage` is what calls count against."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.keys: list[ServiceKey] = []
        self.told: list[tuple[str, Record]] = []
        self.usage = Usage()
        self.looked = 0

    async def put_key(self, key: ServiceKey, count: Count, record: Record, *, by: str) -> Kept | Denied:
        """Keep a key, unless the count says no."""
        counted = count(self.usage, self._now())
        if isinstance(counted, Deny):
            return Denied(counted, self.usage)
        self.usage = counted
        self.keys.append(key)
        self.told.append((by, record))
        return Kept(key)

    async def find_key(self, digest: str) -> ServiceKey | None:
        """Return the key of a hash, and count the look."""
        self.looked += 1
        return next((key for key in self.keys if key.hash == digest), None)

    async def list_keys(self, tenant: str) -> Sequence[ServiceKey]:
        """Return a tenant's keys, newest first."""
        return [key for key in reversed(self.keys) if key.tenant == tenant]

    async def revoke_key(
        self, tenant: str, key: str, count: Count, record: Record, *, by: str
    ) -> Kept | Absent | Denied:
        """Revoke a key, unless the count says no."""
        place = next((n for n, one in enumerate(self.keys) if (one.tenant, one.id) == (tenant, key)), None)
        if place is None:
            return Absent()
        if self.keys[place].revoked_at is not None:
            return Kept(self.keys[place], replayed=True)
        counted = count(self.usage, self._now())
        if isinstance(counted, Deny):
            return Denied(counted, self.usage)
        self.usage = counted
        self.keys[place] = replace(self.keys[place], revoked_at=self._now())
        self.told.append((by, record))
        return Kept(self.keys[place])

    def put(self, text: str, **fields: Any) -> ServiceKey:
        """Keep a key of this text, made by nobody."""
        made: dict[str, Any] = {
            "id": uuid(500 + len(self.keys)),
            "tenant": "acme",
            "subject": "ann",
            "hint": "sk_…",
            "hash": key_digest(text.encode()),
            "expires_at": self._now() + 365 * DAY_MS,
        }
        key = ServiceKey(**{**made, **fields})
        self.keys.append(key)
        return key


def desk(shelf: KeyShelf, jobs: FakeJobs) -> Keys:
    """Return the use cases over this shelf. Ids and random bytes are numbers that count up."""
    numbers = iter(range(1, 1000))
    return Keys(
        cast("Store", shelf),
        lambda: ("free", "pro"),
        jobs.turned_away,
        lambda: uuid(next(numbers)),
        lambda count: next(numbers).to_bytes(count),
        jobs.now,
    )
