"""By what it says of itself, whether a Redis is the one that was written to."""

from __future__ import annotations

import pytest

from gateway.store.backend import Strange
from gateway.store.redis_lineage import Lineage


def told(name: str, offset: int, before: str = "0" * 4, until: int = -1) -> dict[str, str]:
    """Return what a primary says of its history."""
    return {
        "master_replid": name,
        "master_repl_offset": str(offset),
        "master_replid2": before,
        "second_repl_offset": str(until),
    }


@pytest.fixture
def ours() -> Lineage:
    """A lineage that knows one history, up to an offset, and takes no other."""
    made = Lineage()
    made.meet(told("a", 70))
    made.meet(told("a", 90))
    made.meet(told("a", 80))
    made.armed = True
    return made


def test_any_is_taken_before_armed() -> None:
    """Before a process has begun it has nothing to lose: whatever it meets is its own."""
    lineage = Lineage()
    assert lineage.holds(lineage.meet(told("a", 1)))
    assert lineage.holds(lineage.meet(told("b", 1)))
    assert lineage.strange() is None


@pytest.mark.parametrize(
    ("of", "lost"),
    [
        (told("b", 95, "a", 91), 0),
        (told("b", 95, "a", 61), 30),
        (told("b", 0), 0),
        (told("b", 10, "c", 5), 0),
    ],
)
def test_other_history_is_strange(ours: Lineage, of: dict[str, str], lost: int) -> None:
    """Another name is strange whatever it continues; where it continues ours, it says what it lacks of it."""
    heard: list[int] = []
    ours.watch(lambda: heard.append(1))
    assert not ours.holds(ours.meet(of))
    assert ours.strange() == Strange(frozenset({"b"}), lost)
    assert heard == [1]


def test_strange_stops_all_until_accepted(ours: Lineage) -> None:
    """While one history is strange none is written to; what is accepted is ours, and no more than that."""
    ours.meet(told("b", 5))
    assert not ours.holds("a")
    met = ours.strange()
    assert met is not None
    ours.meet(told("c", 5))
    ours.accept(met)
    assert not ours.holds("b")
    rest = ours.strange()
    assert rest == Strange(frozenset({"c"}))
    ours.accept(rest)
    assert ours.holds("a")
    assert ours.holds("b")
    assert ours.holds(ours.meet(told("c", 9)))


def test_replica_hides_no_loss(ours: Lineage) -> None:
    """What a replica does not know of its primary is neither forgotten for its sake nor passed over later."""
    ours.meet(told("b", 95, "a", 61))
    ours.meet(told("b", 95))
    assert ours.strange() == Strange(frozenset({"b"}), 30)
    ours.meet(told("c", 95))
    met = ours.strange()
    assert met is not None
    ours.accept(met)
    assert ours.holds(ours.meet(told("b", 96, "a", 61)))
    assert not ours.holds(ours.meet(told("c", 96, "a", 51)))
    assert ours.strange() == Strange(frozenset({"c"}), 40)
