"""What is to happen in a run: how many jobs, and which faults to whom, all drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.crash import POINTS
from tests.chaos.marks import ANY_MOMENT, PAUSE
from tests.chaos.orders import Mix
from tests.chaos.stage import TIGHT, Setup
from tests.chaos.troubles import KINDS

if TYPE_CHECKING:
    from gateway.settings import Role
    from tests.chaos.life import Life

SEED: Final = 20_261_120
SERVING: Final = frozenset({"accepted", "held", "job_stored", "delivery_queued", "audit_appended"})
"""Points a process passes that answers clients."""
WORKING: Final = frozenset(POINTS) - {"accepted", "held", "job_stored"}
"""Points a process passes that makes jobs."""
STOPPED: Final = frozenset({"lease_returned"})
"""Points that are passed only by a process that was told to stop."""
ONCE: Final = frozenset({"audit_appended"})
"""Points that are passed once in a life, at its start."""
STORE: Final = (
    "store: killed and restarted",
    "store: connections cut",
    "store: replies lost",
    "store: answers delayed",
)
AWAY: Final = "upstream: away"
"""It refuses connections for a time."""


class Profile(Struct, frozen=True):
    """How much of it, and where.

    `hits` are deaths at each point of a role, `moments` and `pauses` of each role at any moment, `store`
    faults of the store of each kind, `away` absences of upstreams, `trouble` the share of orders whose
    upstream misbehaves (`busy`: has no time). A fault waits for its share of the jobs, but not longer than
    `longest_peace` seconds. A `pause` is so many seconds: past a lease always, past that of an open call
    sometimes.
    """

    jobs: int = 200
    hits: int = 2
    moments: int = 5
    pauses: int = 0
    store: int = 0
    away: int = 0
    points: tuple[str, ...] = POINTS
    trouble: float = 0.0
    busy: bool = False
    pause: tuple[float, float] = (3.5, 9.0)
    clients: int = 48
    seed: int = SEED
    longest_peace: float = 10.0
    most_seconds: float = 900.0
    end_seconds: float = 120.0
    setup: Setup = Setup()

    @property
    def mix(self) -> Mix:
        """What its orders are made from."""
        return Mix(self.seed, self.trouble, self.busy)


def points_of(profile: Profile, role: Role) -> list[str]:
    """Return the points at which processes of a role die."""
    passed = {"api": SERVING, "worker": WORKING}.get(role, frozenset(POINTS))
    return [point for point in profile.points if point in passed]


def plan_of(profile: Profile, role: Role) -> list[str]:
    """Return all faults of a role's processes."""
    points = [point for point in points_of(profile, role) for _ in range(profile.hits)]
    return points + [ANY_MOMENT] * profile.moments + [PAUSE] * profile.pauses


def watched_plan(profile: Profile, lives: Sequence[Life], life: Life) -> list[str]:
    """Return one process's faults: its share of its role's, in an order of the seed's."""
    plan = plan_of(profile, life.role)
    random.Random(f"{profile.seed} {life.role}").shuffle(plan)
    alike = [each for each in lives if each.role == life.role]
    return plan[alike.index(life) :: len(alike)]


def store_plan(profile: Profile, kinds: Iterable[str]) -> list[str]:
    """Return all faults of the store, in an order of the seed's."""
    plan = [kind for kind in kinds for _ in range(profile.store)]
    random.Random(f"{profile.seed} store").shuffle(plan)
    return plan


def wanted(profile: Profile) -> dict[str, int]:
    """Return how often each fault is brought about."""
    roles = dict.fromkeys(profile.setup.roles)
    want = {f"{role}: {kind}": 0 for role in roles for kind in plan_of(profile, role)}
    for role in roles:
        for kind in plan_of(profile, role):
            want[f"{role}: {kind}"] += 1
    if profile.setup.store == "redis":
        want |= {kind: profile.store for kind in STORE if profile.store}
    return want | ({AWAY: profile.away} if profile.away else {})


def expected(profile: Profile) -> dict[str, int]:
    """Return how often each fault has to be seen at least.

    Those of upstreams are counted by their logs, and each kind is seen where enough orders meet one.
    """
    sure = not profile.busy and profile.jobs * profile.trouble >= TROUBLES
    return wanted(profile) | dict.fromkeys(KINDS if sure else (), 1)


def pressed(profile: Profile) -> tuple[str, ...]:
    """Return the tenants whose limits a run of this size must reach."""
    return tuple(TIGHT) if profile.jobs >= ENOUGH else ()


TROUBLES: Final = 100
"""Orders with a trouble among which every kind of trouble is."""
ENOUGH: Final = 400
"""Jobs of a run in which every limit is reached."""


def spec(point: str, dice: random.Random) -> str:
    """Return how often a point is passed before it kills, and how long after, once the life is told to die.

    The hook for a request that is on its way cannot know how far it is, so that death comes a little
    later: before, while, and just after the upstream has it.
    """
    late = f":{dice.randrange(30)}" if point == "upstream_sent" else ""
    if point in ONCE:
        return f"{point}:1"
    return f"~{point}:{dice.randrange(1, 4)}{late}"
