"""Lifetime: forward only, and no pause outlasts the drain."""

from __future__ import annotations

import asyncio

import pytest

from gateway.lifetime import Lifetime, Phase


@pytest.mark.parametrize(
    ("calls", "phase", "ready", "draining"),
    [
        ([], Phase.STARTING, False, False),
        (["become_ready"], Phase.READY, True, False),
        (["become_ready", "begin_drain"], Phase.DRAINING, False, True),
        (["begin_drain", "become_ready"], Phase.DRAINING, False, True),
        (["become_ready", "begin_drain", "begin_drain"], Phase.DRAINING, False, True),
        (["become_ready", "end"], Phase.STOPPED, False, True),
        (["end", "become_ready", "begin_drain"], Phase.STOPPED, False, True),
    ],
)
def test_life_only_moves_forward(*, calls: list[str], phase: Phase, ready: bool, draining: bool) -> None:
    """Whatever is called in whatever order, a process is never made young again."""
    life = Lifetime()
    for call in calls:
        getattr(life, call)()
    assert (life.phase, life.ready, life.draining) == (phase, ready, draining)
    assert life.stopping.is_set() == draining


async def test_pause_runs_its_time() -> None:
    """A pause nobody cuts short says so."""
    assert await Lifetime().pause(0) is False


async def test_drain_cuts_pauses_short() -> None:
    """All pauses under way end at once when the drain begins, and later ones do not begin."""
    life = Lifetime()
    pauses = [asyncio.create_task(life.pause(3600)) for _ in range(3)]
    asyncio.get_running_loop().call_soon(life.begin_drain)
    assert await asyncio.gather(*pauses) == [True, True, True]
    assert await life.pause(3600) is True
    assert await life.pause(0) is True


async def test_canceled_pause_is_canceled() -> None:
    """A cancellation goes through a pause and is not taken for its end."""
    pause = asyncio.create_task(Lifetime().pause(3600))
    asyncio.get_running_loop().call_soon(pause.cancel)
    with pytest.raises(asyncio.CancelledError):
        await pause
