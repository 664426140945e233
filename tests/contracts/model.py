"""Money as plain dicts: what submits, ends, cancels, grants, sweeps and months must come to.

Written without the product's rules, so that the two can disagree. A level is a dict of figures; a job
is a dict; a verb returns the word that the store's answer must bear. One caller, no concurrency: what
happens at once is compared afterwards.
"""

from __future__ import annotations

import time
from typing import Any

from tests.contracts.hooks import Hooks

HOUR = 3_600_000
DAY = 24 * HOUR
LEASE = 30_000
ATTEMPT = 60_000
MARGIN = 10_000

LIMITS = {
    "user": {"submit": 4, "write": 1, "flight": 3, "cap": 150},
    "tenant": {"submit": 5, "write": 2, "flight": 4, "cap": 260},
}
A_MONTH = 200
"""What a tenant is filled up to each month: less than its cap, so that both are met."""

Level = dict[str, Any]


def level() -> Level:
    """Return a level nobody has used."""
    return {"granted": None, "charged": 0, "held": 0, "flight": 0, "month": "", "spent": 0, "windows": {}}


class Model:
    """The figures of some tenants and their users, and the jobs that make them."""

    def __init__(self) -> None:
        self.tenants: dict[str, Level] = {}
        self.users: dict[tuple[str, str], Level] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[tuple[str, str, str], tuple[str, str, int]] = {}
        self.grants: set[tuple[str, str]] = set()
        self.hooks = Hooks()

    def levels(self, tenant: str, subject: str) -> tuple[Level, Level]:
        """Return user and tenant, in the order they are asked."""
        if tenant not in self.tenants:
            self.tenants[tenant] = level() | {"granted": 0}
        return self.users.setdefault((tenant, subject), level()), self.tenants[tenant]

    def submit(self, now: int, job: dict[str, Any], key: str | None) -> str:
        """Answer from the key, or admit and hold, or say which limit is met first."""
        tenant, subject = job["tenant"], job["subject"]
        bound = self.keys.get((tenant, subject, key or ""))
        if key is not None and bound and now - bound[2] < 72 * HOUR:
            if bound[0] != job["body"]:
                return "Conflict"
            return "Replayed" if bound[1] in self.jobs else "Erased"
        denied = self._denied(now, tenant, subject, job["price"])
        if denied:
            return denied
        for each in self._turned(now, tenant, subject):
            self._count(each, "submit", now)
            each["held"] += job["price"]
            each["spent"] += job["price"]
            each["flight"] += 1
        month = self.tenants[tenant]["month"]
        self.jobs[job["id"]] = {
            **job,
            "month": month,
            "state": "queued",
            "charged": 0,
            "due": now,
            "fence": 0,
        }
        if key is not None:
            self.keys[tenant, subject, key] = (job["body"], job["id"], now)
        return "Submitted"

    def _denied(self, now: int, tenant: str, subject: str, price: int) -> str | None:
        month = _month(now)
        user, whole = self.levels(tenant, subject)
        sides = ((user, LIMITS["user"]), (whole, LIMITS["tenant"]))
        if any(self._full(each, "submit", limits["submit"], now) for each, limits in sides):
            return "rate_limited"
        if any(each["flight"] >= limits["flight"] for each, limits in sides):
            return "too_many_in_flight"
        for each in (user, whole):
            if each["granted"] is not None:
                there = each["granted"] - each["charged"] - each["held"]
                if each is whole and each["month"] != month:
                    there = max(there, A_MONTH)
                if price > there:
                    return "insufficient_credits"
        for each, limits in sides:
            if (each["spent"] if each["month"] == month else 0) + price > limits["cap"]:
                return "monthly_cap_reached"
        return None

    def _turned(self, now: int, tenant: str, subject: str) -> tuple[Level, Level]:
        user, whole = self.levels(tenant, subject)
        if whole["month"] != _month(now):
            there = whole["granted"] - whole["charged"] - whole["held"]
            whole["granted"] += max(0, A_MONTH - there)
        for each in (user, whole):
            if each["month"] != _month(now):
                each |= {"month": _month(now), "spent": 0}
        return user, whole

    @staticmethod
    def _full(each: Level, name: str, limit: int, now: int) -> bool:
        start, count = each["windows"].get(name, (None, 0))
        return start is not None and now < start + HOUR and count >= limit

    @staticmethod
    def _count(each: Level, name: str, now: int) -> None:
        start, count = each["windows"].get(name, (None, 0))
        fresh = start is None or now >= start + HOUR
        each["windows"] = {**each["windows"], name: (now, 1) if fresh else (start, count + 1)}

    def written(self, job: dict[str, Any], now: int) -> bool:
        """Count a write of a job's or an endpoint's owner, if there is room for one."""
        user, whole = self.levels(job["tenant"], job["subject"])
        if self._full(user, "write", LIMITS["user"]["write"], now):
            return False
        if self._full(whole, "write", LIMITS["tenant"]["write"], now):
            return False
        self._count(user, "write", now)
        self._count(whole, "write", now)
        return True

    def _end(self, now: int, job: dict[str, Any], state: str, charged: int) -> None:
        for each in self.levels(job["tenant"], job["subject"]):
            each["held"] -= job["price"]
            each["charged"] += charged
            each["flight"] -= 1
            if each["month"] == job["month"]:
                each["spent"] -= job["price"] - charged
        job |= {"state": state, "charged": charged, "due": None, "ended": now}
        self.hooks.ended(now, job)

    def cancel(self, now: int, name: str) -> str:
        """End a queued job, ask a running one."""
        job = self.jobs.get(name)
        if job is None:
            return "Absent"
        if job["state"] not in ("queued", "running"):
            return "Ended"
        if job.get("asked"):
            return "Asked"
        if not self.written(job, now):
            return "rate_limited"
        if job["state"] == "running":
            job["asked"] = True
            return "Asked"
        self._end(now, job, "canceled", 0)
        return "Canceled"

    def erase(self, now: int, name: str) -> str:
        """Forget an ended job."""
        job = self.jobs.get(name)
        if job is None:
            return "Absent"
        if job["state"] in ("queued", "running"):
            return "Open"
        if not self.written(job, now):
            return "rate_limited"
        self._forget(name)
        return "Gone"

    def claim(self, now: int) -> set[str]:
        """Lease all that is due. Which `fence` a lease has is the store's to say: `leased`."""
        due = {name for name, job in self.jobs.items() if job["due"] is not None and job["due"] <= now}
        for name in due:
            self.jobs[name]["due"] = now + LEASE
        return due

    def leased(self, name: str, fence: int) -> None:
        """Take a lease's fence: from now on it alone may change the job."""
        self.jobs[name]["fence"] = fence

    def restart(self, now: int) -> None:
        """Take all leases back."""
        for job in self.jobs.values():
            if job["due"] is not None:
                job |= {"due": min(job["due"], now), "fence": 0}
        self.hooks.restart()

    def holds(self, name: str, fence: int) -> bool:
        """Say whether a lease is the one that may change its job."""
        job = self.jobs.get(name)
        return job is not None and job["due"] is not None and job["fence"] == fence

    def begin(self, now: int, name: str, fence: int) -> str:
        """Run, and lease until the call must be over."""
        if not self.holds(name, fence):
            return "Stale"
        self.jobs[name] |= {"state": "running", "due": now + ATTEMPT + MARGIN}
        return "Begun"

    def record(self, now: int, name: str, fence: int, end: tuple[str, int]) -> str:
        """End and settle."""
        if not self.holds(name, fence):
            return "Stale"
        job = self.jobs[name]
        self._end(now, job, end[0], end[1] * job["each"])
        return "Recorded"

    def grant(self, tenant: str, subject: str | None, amount: int, key: str) -> str:
        """Give once; a user's first budget begins above what was drawn before."""
        if (tenant, key) in self.grants:
            return "replayed"
        self.grants.add((tenant, key))
        user, whole = self.levels(tenant, subject or "")
        if subject is None:
            whole["granted"] += amount
        elif user["granted"] is None:
            user["granted"] = user["charged"] + user["held"] + amount
        else:
            user["granted"] += amount
        return "granted"

    def sweep(self, now: int, kept: int) -> set[str]:
        """Forget jobs that ended long ago."""
        old = {name for name, job in self.jobs.items() if job["due"] is None and job["ended"] <= now - kept}
        for name in old:
            self._forget(name)
        return old

    def _forget(self, name: str) -> None:
        del self.jobs[name]
        self.hooks.forget(name)


def _month(now: int) -> str:
    return time.strftime("%Y-%m", time.gmtime(now // 1000))
