"""The bell: who is told, who is not, and that nothing is left behind."""

from __future__ import annotations

import asyncio

from gateway.store.bell import ANY, AT_ONCE, Bell


async def test_narrowest_name_decides() -> None:
    """A watch with a job hears that job alone, whatever else it names."""
    bell = Bell()
    watch = bell.watch("acme", "ann", "j1")
    bell.ring("acme", "ann", "j2")
    assert await watch.changed(0) == frozenset()
    bell.ring("acme", "ann", "j1")
    assert await watch.changed(0) == {"j1"}


async def test_rings_gather_until_read() -> None:
    """What rings before anybody waits is told to the next who does, once."""
    bell = Bell()
    watch = bell.watch("acme", None, None)
    for job in ("j1", "j2", "j1"):
        bell.ring("acme", "ann", job)
    assert await watch.changed(9) == {"j1", "j2"}
    assert await watch.changed(0) == frozenset()


async def test_left_waiter_loses_nothing() -> None:
    """A wait that is canceled keeps what rings after it for the next wait."""
    bell = Bell()
    watch = bell.watch("acme", None, None)
    waiting = asyncio.create_task(watch.changed(60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bell.ring("acme", "ann", "j1")
    bell.ring("acme", "ann", "j2")
    assert await watch.changed(60) == {"j1", "j2"}


async def test_closed_watches_leave_nothing() -> None:
    """With the last watch of a name the name is forgotten."""
    bell = Bell()
    watches = [bell.watch("acme", None, "j1") for _ in range(3)]
    watches[0].close()
    watches[0].close()
    assert len(bell) == 2
    for watch in watches:
        watch.close()
    bell.ring("acme", "ann", "j1")
    assert len(bell) == 0


async def test_lost_news_wake_everybody() -> None:
    """Where news were lost a watch of a job hears its name, and one of many that any may have changed."""
    bell = Bell()
    one, many = bell.watch("acme", None, "j1"), bell.watch("acme", "ann", None)
    rings = bell.rings
    bell.ring_all()
    assert await one.changed(0) == {"j1"}
    assert await many.changed(0) == {ANY}
    assert bell.rings > rings


async def test_everybody_wakes_in_batches() -> None:
    """Where all are woken no more do so in one turn than are read for together, and nobody is left out."""
    bell = Bell()
    watches = [bell.watch("acme", None, f"j{n}") for n in range(2 * AT_ONCE + 1)]
    waiting = [asyncio.create_task(watch.changed(60)) for watch in watches]
    await asyncio.sleep(0)
    bell.ring_all()
    woken: list[int] = []
    while sum(woken) < len(watches):
        await asyncio.sleep(0)
        woken.append(sum(task.done() for task in waiting) - sum(woken))
    assert max(woken) == AT_ONCE
    assert [task.result() for task in waiting] == [{f"j{n}"} for n in range(len(watches))]
