"""The runs there are: the short one, the long one in parts, and one for each planted fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.plan import SEED, Profile
from tests.chaos.stage import Setup

if TYPE_CHECKING:
    from tests.chaos.plants import Plant

REDIS: Final = Setup(store="redis", roles=("api", "api", "worker", "worker"))
"""Two processes that answer clients and two that work, over one Redis."""
SMOKE: Final = (
    Profile(jobs=500, hits=2, moments=6, away=2, trouble=0.1),
    Profile(jobs=2_600, hits=4, moments=12, pauses=3, store=5, away=6, trouble=0.1, setup=REDIS),
)
LONG: Final = (
    Profile(jobs=500, hits=2, moments=10, away=2, trouble=0.08),
    Profile(jobs=2_600, hits=5, moments=20, pauses=6, store=8, away=6, trouble=0.08, setup=REDIS),
)
PARTS: Final = 10
"""How often the long pair runs, each time from another seed."""


class Planted(Struct, frozen=True):
    """A fault, the shortest run that must see it, and the promise it breaks."""

    plant: Plant
    profile: Profile
    promise: str


def _short(points: tuple[str, ...], **more: object) -> Profile:
    fields = {"jobs": 30, "hits": 3, "moments": 2, "end_seconds": 4.0, "longest_peace": 2.0, **more}
    return Profile(points=points, **fields)  # type: ignore[arg-type]


WAITING: Final = _short(
    (),
    jobs=60,
    moments=0,
    pauses=5,
    pause=(4.5, 6.5),
    trouble=1.0,
    busy=True,
    clients=64,
    end_seconds=8.0,
    setup=replace(REDIS, roles=("all", "all"), delay=4.0, concurrency=64),
)
"""Jobs that wait for a second call while who makes them is paused, and another has room to make them."""
PLANTS: Final = (
    Planted("blind", _short(("upstream_sent", "upstream_answered")), "no upstream was paid twice"),
    Planted("early", _short(("held", "job_stored")), "every 202 came to an end"),
    Planted("deaf", _short(("delivery_queued", "delivery_sent")), "every end was told to its webhook"),
    Planted("unheld", _short(("held",), setup=REDIS), "every 202 came to an end"),
    Planted("resent", _short(("held",), setup=REDIS), "nothing was charged twice"),
    Planted("twice", _short(("recorded",), setup=REDIS), "doctor finds no difference"),
    Planted("fenceless", WAITING, "no upstream was paid twice"),
)


def smoke(seed: int) -> list[Profile]:
    """Return the stages of the short run."""
    return [replace(profile, seed=seed) for profile in SMOKE]


def long(seed: int) -> list[Profile]:
    """Return the stages of the long run, in their order."""
    return [replace(profile, seed=seed + part) for part in range(PARTS) for profile in LONG]


def planted(plant: str) -> Planted:
    """Return the run for a planted fault."""
    (found,) = (each for each in PLANTS if each.plant == plant)
    profile = replace(found.profile, seed=SEED, setup=replace(found.profile.setup, plant=found.plant))
    return replace(found, profile=profile)
