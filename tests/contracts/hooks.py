"""Webhooks and the trail as plain dicts: who is told of which end, how often, and what was said.

The other half of the plain model (`model.py`), written without the product's rules as well. A delivery is
known by its endpoint and by what it tells of: a job, or its own name where it is a test.
"""

from __future__ import annotations

from typing import Any

LEASE = 20_000
WAIT = 5_000

Delivery = dict[str, Any]
Known = tuple[str, str]


class Hooks:
    """Endpoints, deliveries and lines of some tenants."""

    def __init__(self) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.deliveries: dict[Known, Delivery] = {}
        self.said: list[tuple[str, int, str]] = []
        self.cut = 0

    def put(self, name: str, tenant: str, subject: str) -> None:
        """Take an endpoint in, or switch it on again."""
        known = {"tenant": tenant, "subject": subject}
        self.endpoints[name] = {**known, "disabled": False, "failures": 0}

    def drop(self, name: str) -> str:
        """Forget an endpoint and what it was to be told."""
        if self.endpoints.pop(name, None) is None:
            return "Absent"
        self.deliveries = {of: each for of, each in self.deliveries.items() if of[0] != name}
        return "Dropped"

    def ended(self, now: int, job: dict[str, Any]) -> None:
        """Tell each endpoint of the job's subject."""
        for name, hook in self.endpoints.items():
            if (hook["tenant"], hook["subject"]) == (job["tenant"], job["subject"]) and not hook["disabled"]:
                self.queue(now, (name, job["id"]))

    def queue(self, now: int, known: Known) -> None:
        """Make a delivery due: a new one, or one of before again."""
        due = None if self.endpoints[known[0]]["disabled"] else now
        fresh = {"tries": 0, "made": now}
        before = self.deliveries.get(known, fresh)
        self.deliveries[known] = {**before, "state": "pending", "due": due, "free": due, "fence": 0}

    def forget(self, job: str) -> None:
        """Forget what was to be told of a job."""
        self.deliveries = {of: each for of, each in self.deliveries.items() if of[1] != job}

    def claim(self, now: int) -> set[Known]:
        """Lease all that is due."""
        due = {of for of, each in self.deliveries.items() if each["free"] is not None and each["free"] <= now}
        for of in due:
            self.deliveries[of]["free"] = now + LEASE
        return due

    def tell(self, now: int, of: Known, fence: int, how: str) -> str:
        """Count a try of whoever holds the lease; a failed one may be the endpoint's last."""
        each = self.deliveries.get(of)
        if each is None or each["fence"] != fence:
            return "Stale"
        hook = self.endpoints[of[0]]
        taken = how == "delivered"
        hook["failures"] = 0 if taken else hook["failures"] + 1
        hook["disabled"] = hook["disabled"] or how == "gone"
        due = None if taken or hook["disabled"] else now + WAIT
        state = "delivered" if taken else "pending"
        each |= {"state": state, "tries": each["tries"] + 1, "due": due, "free": due, "fence": 0}
        if how == "gone":
            for other, waiting in self.deliveries.items():
                if other[0] == of[0]:
                    waiting |= {"due": None, "free": None}
        return "Kept"

    def restart(self) -> None:
        """Take all leases back."""
        for each in self.deliveries.values():
            if each["free"] is not None:
                each |= {"free": each["due"], "fence": 0}

    def sweep(self, now: int, deliveries_ms: int, trail_ms: int) -> None:
        """Forget old deliveries of which nothing more is sent, and old lines."""
        old = now - deliveries_ms
        kept = self.deliveries.items()
        self.deliveries = {of: each for of, each in kept if each["due"] is not None or each["made"] > old}
        self.cut = max(self.cut, now - trail_ms)

    def lines(self, tenant: str) -> list[str]:
        """Return what was said at a tenant and is not cut."""
        return [text for of, at, text in self.said if of == tenant and at > self.cut]

    def of(self, endpoint: str) -> list[tuple[str, str, int, int | None]]:
        """Return what an endpoint was to be told, newest first: of what, state, tries, when again."""
        mine = [(of[1], each) for of, each in self.deliveries.items() if of[0] == endpoint]
        return [(what, each["state"], each["tries"], each["due"]) for what, each in reversed(mine)]
