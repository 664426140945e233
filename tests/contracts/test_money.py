"""A job is paid for exactly once or not at all: thousands of histories against a plain model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from gateway.store.contract import Decide
from policies.model import Job
from tests.contracts.histories import (
    ENDS,
    SUBJECTS,
    Difference,
    History,
    KeepsRefund,
    SettlesTwice,
    ghostly,
    step,
)
from tests.contracts.model import ATTEMPT, DAY, HOUR, LEASE
from tests.contracts.rig import MEMORY, OPENERS, Rig, Wrap

HISTORIES = 2000
SLOWER = {"redis": 4}
"""By how much fewer histories are told where each step goes over a network."""
STEPS = 40


async def tell(rig: Rig, numbers: range, rule: Callable[[Job], Decide] | None = None) -> None:
    """Run random histories by their numbers, each to its end."""
    store = await rig.open()
    for number in numbers:
        coin = Random(number)
        history = History(rig, store, f"h{number}", rule)
        for _ in range(coin.randint(10, STEPS)):
            await step(history, coin)
        await history.finish()


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", sorted(OPENERS))
async def test_histories_match_plain_model(kind: str, place: Path, part: int) -> None:
    """Over random histories store and model agree after each step on every answer and figure."""
    rig, share = Rig(kind, place), HISTORIES // 4 // SLOWER.get(kind, 1)
    await tell(rig, range(part * share, (part + 1) * share))
    await rig.close()


@pytest.mark.parametrize("kind", sorted(OPENERS))
@pytest.mark.parametrize(
    ("wrap", "rule"),
    [(SettlesTwice, None), (KeepsRefund, None), (lambda backend: backend, ghostly)],
    ids=["settle twice", "refund ignored", "hold without job"],
)
async def test_planted_faults_turn_red(
    kind: str, place: Path, wrap: Wrap, rule: Callable[[Job], Decide] | None
) -> None:
    """A store that settles twice, keeps a refund, or holds for no job is found by the same comparison."""
    rig = Rig(kind, place, wrap)
    with pytest.raises(Difference):
        await tell(rig, range(20), rule)
    await rig.close()


WHICH = st.integers(0, 60)


class Machine(RuleBasedStateMachine):
    """The same history, its steps chosen by one who searches for the shortest that breaks."""

    kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.runner = asyncio.Runner()
        self.rig = Rig(self.kind, Path(self.folder.name))
        self.history = History(self.rig, self.runner.run(self.rig.open()), "m")

    def teardown(self) -> None:
        """End all that is open, and close."""
        try:
            self.runner.run(self.history.finish())
        finally:
            self.runner.run(self.rig.close())
            self.runner.close()
            self.folder.cleanup()

    @rule(
        tenant=st.integers(0, 1),
        subject=st.sampled_from(SUBJECTS),
        each=st.sampled_from((1, 10, 40)),
        count=st.integers(1, 4),
        key=st.sampled_from((None, "k1", "k2")),
    )
    def submits(self, **how: Any) -> None:
        """Submit."""
        self.runner.run(self.history.submit(**how))

    @rule(which=WHICH, body=st.sampled_from((None, "another")))
    def replays(self, **how: Any) -> None:
        """Send again."""
        self.runner.run(self.history.replay(**how))

    @rule(verb=st.sampled_from(("claim", "claim", "sweep", "reopen")))
    def keeps_house(self, verb: str) -> None:
        """Claim, sweep or restart."""
        self.runner.run(getattr(self.history, verb)())

    @rule(which=WHICH, verb=st.sampled_from(("begin", "begin", "cancel", "erase")))
    def moves(self, which: int, verb: str) -> None:
        """Begin, cancel or erase."""
        self.runner.run(getattr(self.history, verb)(which))

    @rule(which=WHICH, how=st.sampled_from(sorted(ENDS)))
    def records(self, **how: Any) -> None:
        """End a claimed job."""
        self.runner.run(self.history.record(**how))

    @rule(
        tenant=st.integers(0, 1),
        subject=st.sampled_from((None, *SUBJECTS)),
        amount=st.integers(0, 90),
        key=st.sampled_from("gh"),
    )
    def grants(self, **how: Any) -> None:
        """Give credits."""
        self.runner.run(self.history.grant(**how))

    @rule(ms=st.sampled_from((1, LEASE - 1, LEASE, ATTEMPT, HOUR, 3 * DAY, 31 * DAY)))
    def waits(self, ms: int) -> None:
        """Let time pass."""
        self.rig.clock.forward(ms)


@pytest.mark.parametrize("kind", sorted(OPENERS))
def test_state_machine_finds_nothing(kind: str) -> None:
    """No order of submits, claims, expiries, records, cancels, sweeps and restarts parts the two."""
    run_state_machine_as_test(
        type("Chosen", (Machine,), {"kind": kind}),
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
