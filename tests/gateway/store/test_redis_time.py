"""Redis' time as a process knows it."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.redis_keys import Names
from gateway.store.redis_site import Site
from gateway.store.redis_time import StoreTime


class Ticks:
    """A steady clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000_000

    def __call__(self) -> int:
        """Return its time."""
        return self.at


@given(
    wrong=st.integers(-(10**9), 10**9),
    trips=st.lists(st.tuples(st.integers(0, 900_000), st.integers(0, 900_000)), min_size=1, max_size=9),
)
def test_time_stays_within_the_trip(wrong: int, trips: list[tuple[int, int]]) -> None:
    """However wrong this host's clock, after a reply the estimate is off by no more than the trip took."""
    steady = Ticks()
    ahead = 5_000_000_000
    known = StoreTime(steady, lambda: steady.at + ahead + wrong)
    for there, back in trips:
        sent = known.mark()
        steady.at += there
        told = steady.at + ahead
        steady.at += back
        known.learn(sent, told)
        off = known() - (steady.at + ahead) // 1000
        assert -back // 1000 - 1 <= off <= there // 1000 + 1


def test_time_follows_a_step() -> None:
    """Where Redis' host sets its clock back or forward, the next reply brings the estimate along."""
    steady = Ticks()
    known = StoreTime(steady, lambda: 0)
    for told in (7_000, 6_000, 9_000):
        known.learn(known.mark(), told * 1000)
        assert known() == told


def test_time_does_not_leap() -> None:
    """A reply that the estimate agrees with changes nothing, however long it took."""
    steady = Ticks()
    known = StoreTime(steady, lambda: 50_000_000)
    sent = known.mark()
    steady.at += 800_000
    known.learn(sent, 50_400_000)
    assert known() == 50_800


def test_nodes_have_their_own_clocks() -> None:
    """Each node's moments are by its own clock; the store's time is the leader's, as any reply finds it."""
    steady = Ticks()
    known = StoreTime(steady, lambda: 50_000_000)
    leader = ["a"]
    known.led_by(lambda: leader[0])
    known.learn(known.mark(), 60_000_000, "a")
    known.learn(known.mark(), 9_000_000, "b")
    mark = known.mark()
    steady.at += 1_000_000
    assert (known(), known.at(mark, "a"), known.at(mark, "b")) == (61_000, 60_000, 9_000)
    leader[0] = "b"
    known.learn(known.mark(), 61_000_000, "a")
    assert known() == 10_000
    leader[0] = "nobody"
    known.learn(known.mark(), 61_000_000, "a")
    assert (known(), known.at(mark, "nobody")) == (10_000, 9_000)


def test_stamps_are_by_the_shards_clock() -> None:
    """What a node holds against its own clock is stamped by it; what is decided is by the first shard's."""
    steady, names = Ticks(), Names("x:")

    class Two:
        """Two nodes: shard 0 is on one of them, all others on the other."""

        def home(self, key: str) -> str:
            """Return who has a key."""
            return "a" if key.startswith(names.shards[0].at) else "b"

    known, nodes = StoreTime(steady, lambda: 50_000_000), Two()
    link: Any = nodes
    site = Site(link, names, "me", known, cast("Any", None))
    known.learn(known.mark(), 60_000_000, "a")
    known.learn(known.mark(), 9_000_000, "b")
    mark = known.mark()
    steady.at += 1_000_000
    assert (site.time(), site.stamp(0), site.stamp(1), site.stamp(1, mark)) == (61_000, 61_000, 10_000, 9_000)
