"""A job is paid for exactly once or not at all: thousands of histories against a plain model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from gateway.store.contract import Decide
from policies.model import Job
from tests.contracts.histories import (
    Difference,
    History,
    KeepsRefund,
    SettlesTwice,
    ghostly,
    step,
)
from tests.contracts.rig import OPENERS, Rig, Wrap

HISTORIES = 2000
SLOWER = {"redis": 16, "cluster": 32}
"""By how much fewer histories are told where each step goes over a network, or little is new."""
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
