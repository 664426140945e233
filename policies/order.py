"""Who comes first in the queue, and when it takes no more.

Jobs wait in two lines: what somebody waits for (`interactive`), and what can wait (`batch`). Tenants take
turns within a line; how is the store's affair. The first line goes first, but every eighth place is the
second's if anything waits there, so that it moves however long the first is. A queue that is too long or
too old makes jobs that die at their deadline: it is better to say so before they are accepted. What
waits in the second line is never a reason to refuse the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from policies.model import Deny, Millis, Priority, Reason

if TYPE_CHECKING:
    from policies.bundle import Plan

PRIORITIES: Final[tuple[Priority, ...]] = ("interactive", "batch")
"""The lines, in the order in which they are served."""
SHARE: Final = 8
"""Of so many places one is the second line's."""
STALE_MS: Final = 10_000
"""How long a look at the queue counts: after that nobody is refused by it."""
FULL_ESTIMATE_MS: Final = 5_000
"""When there may be room again: a full queue moves by jobs a second. An estimate, and said to be one."""


class Line(Struct, frozen=True):
    """The jobs of one line that are due and that nobody works on. `oldest_at`: since when the first waits."""

    depth: int = 0
    oldest_at: Millis | None = None

    def age_ms(self, now: int) -> int:
        """Return how long the first has waited."""
        return 0 if self.oldest_at is None else max(0, now - self.oldest_at)


class Backlog(Struct, frozen=True):
    """What waits, over all tenants, as it was `at` an instant."""

    at: Millis = 0
    interactive: Line = Line()
    batch: Line = Line()


class Bounds(Struct, frozen=True):
    """How many jobs may wait, and how long the first of them may have waited."""

    depth: int
    age_ms: int

    @classmethod
    def of(cls, depth: int, deadline_seconds: int) -> Bounds:
        """Return the bounds where jobs have that long: half of it is for those that wait already."""
        return cls(depth, deadline_seconds * 500)


def priority(tenant: Plan, user: Plan) -> Priority:
    """Return the line of a job: the second, where the tenant's plan or the caller's own says so."""
    return "batch" if "batch" in (tenant.priority, user.priority) else "interactive"


def kept(owed: int, n: int) -> int:
    """Return how many of the next `n` places are the second line's. `owed` were given since its last."""
    return (owed + n) // SHARE


def owed(before: int, given: int, late: int, n: int) -> int:
    """Return what the second line is owed after `n` places were offered: `given` in all, `late` of them its.

    Where it took more or fewer than were kept for it, nobody waits there who should have been served.
    """
    share = kept(before, n)
    return max(0, before + given - SHARE * share) if late == share else 0


def full(seen: Backlog, priority: Priority, bounds: Bounds, now: int) -> Deny | None:
    """Refuse a job that would wait behind too many, or behind one that has waited for too long."""
    if now - seen.at > STALE_MS:
        return None
    ahead = (seen.interactive,) if priority == "interactive" else (seen.interactive, seen.batch)
    if sum(line.depth for line in ahead) >= bounds.depth:
        return _full("queue.depth")
    if max(line.age_ms(seen.at) for line in ahead) >= bounds.age_ms:
        return _full("queue.age")
    return None


def _full(rule: str) -> Deny:
    return Deny(
        Reason.QUEUE_FULL,
        "More jobs wait than can be made before their deadlines.",
        retry_after_ms=FULL_ESTIMATE_MS,
        rule=rule,
    )
