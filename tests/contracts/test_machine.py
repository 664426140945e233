"""No order of calls parts a store from the plain model: one who searches for such an order finds none.

Over both back ends the same machine submits, replays, cancels, claims, lets leases run out, records, grants,
delivers, speaks to the trail, erases, sweeps and restarts. `EXAMPLES=5000` has it look further.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.contracts import hooks
from tests.contracts.histories import ENDS, Difference
from tests.contracts.model import ATTEMPT, DAY, HOUR, LEASE
from tests.contracts.rig import MEMORY, OPENERS, Rig, Wrap
from tests.contracts.stories import FencesNobody, ForgetsKeys, RefundsTwice, Story

EXAMPLES: Final = int(os.environ.get("EXAMPLES", "40"))
LENGTH: Final = 60
"""Steps of an example: together 2,400 over each back end."""
TENANT: Final = st.sampled_from((0, 0, 0, 1))
SUBJECT: Final = st.sampled_from(("ann", "ann", "ann", "bob", "cat"))
WHICH: Final = st.sampled_from((-1, -1, -1, -2, -3, 0, 1, 7))
"""Of those there are: mostly the newest."""
TO: Final = st.sampled_from((None, None, "ann"))
COUNT: Final = st.integers(1, 4)
AMOUNT: Final = st.integers(0, 90)
PRICE: Final = st.sampled_from((1, 1, 10, 40))
KEY: Final = st.sampled_from((None, None, "k1", "k2"))
HOW: Final = st.sampled_from(sorted(ENDS))
TRY: Final = st.sampled_from(("delivered", "failed", "failed", "gone"))
WAIT: Final = st.sampled_from((1, hooks.WAIT, hooks.LEASE, LEASE, ATTEMPT, HOUR, HOUR, 3 * DAY, 31 * DAY))


STEPS: Final[dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]]] = {
    "submit": (7, {"tenant": TENANT, "subject": SUBJECT, "each": PRICE, "count": COUNT, "key": KEY}),
    "replay": (2, {"which": WHICH, "body": st.sampled_from((None, None, "another"))}),
    "cancel": (2, {"which": WHICH}),
    "erase": (1, {"which": WHICH}),
    "claim": (5, {}),
    "begin": (2, {"which": WHICH}),
    "record": (7, {"which": WHICH, "how": HOW}),
    "grant": (2, {"tenant": TENANT, "subject": TO, "amount": AMOUNT, "key": st.sampled_from("gh")}),
    "register": (1, {"tenant": TENANT, "subject": SUBJECT}),
    "enable": (2, {"which": WHICH}),
    "unregister": (1, {"which": WHICH}),
    "send_again": (2, {"which": WHICH}),
    "lease": (5, {}),
    "tell": (7, {"which": WHICH, "how": TRY}),
    "say": (2, {"tenant": TENANT, "subject": SUBJECT, "text": st.sampled_from("xyz")}),
    "sweep": (1, {}),
    "reopen": (1, {}),
    "wait": (7, {"ms": WAIT}),
}  # fmt: skip
"""What a step may be: how often among the others, and what it takes."""


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a verb of the story and what it takes."""
    verb = draw(st.sampled_from([verb for verb, (weight, _how) in STEPS.items() for _ in range(weight)]))
    return verb, {name: draw(strategy) for name, strategy in STEPS[verb][1].items()}


class Machine(RuleBasedStateMachine):
    """One story, its steps chosen by one who searches for the shortest that breaks."""

    kind = "sqlite"
    wrap: Wrap | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.runner = asyncio.Runner()
        self.rig = Rig(self.kind, Path(self.folder.name), type(self).wrap or (lambda backend: backend))
        self.story = Story(self.rig, self.runner.run(self.rig.open()), "m")
        for tenant in (0, 1):
            self.runner.run(self.story.register(tenant, "ann"))

    def teardown(self) -> None:
        """End all that is open, compare what is left, and close."""
        try:
            self.runner.run(self.story.finish())
        finally:
            self.runner.run(self.rig.close())
            self.runner.close()
            self.folder.cleanup()

    @rule(step=steps())
    def acts(self, step: tuple[str, dict[str, Any]]) -> None:
        """Take a step."""
        verb, how = step
        self.runner.run(getattr(self.story, verb)(**how))


def search(kind: str, wrap: Wrap | None = None, *, examples: int = EXAMPLES) -> None:
    """Look for an order that parts store and model. A fault that was planted need not be made small."""
    phases = [Phase.generate] if wrap else [Phase.explicit, Phase.generate, Phase.shrink]
    run_state_machine_as_test(
        type("Chosen", (Machine,), {"kind": kind, "wrap": wrap}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=LENGTH,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("kind", sorted(OPENERS))
def test_state_machine_finds_nothing(kind: str) -> None:
    """No order of calls, expiries, sweeps and restarts parts a store from the model."""
    search(kind)


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
@pytest.mark.parametrize("fault", [FencesNobody, ForgetsKeys, RefundsTwice])
def test_state_machine_finds_faults(kind: str, fault: Wrap) -> None:
    """A store whose leases fence nobody, that forgets keys, or refunds twice is found out."""
    with pytest.raises(Difference):
        search(kind, fault, examples=100)
