"""The heap: what survived a walk is not walked again, and what dies is freed all the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from gateway.heap import Heap


class Node:
    """Something that may know itself."""

    me: Node | None = None


@pytest.fixture
async def heap() -> AsyncIterator[Heap]:
    """A heap that is looked after, and left as it was."""
    made = Heap(seconds=3600)
    made.start()
    yield made
    made.stop()
    made.stop()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("heap")
async def test_survivors_are_put_aside() -> None:
    """What has survived a full collection is in no generation the next one walks."""
    kept = [Node() for _ in range(1000)]
    before = gc.get_freeze_count()
    gc.collect()
    assert gc.get_freeze_count() >= before + len(kept)
    assert len(gc.get_objects()) < len(kept)


@pytest.mark.usefixtures("heap")
async def test_dead_are_freed_at_once() -> None:
    """What was put aside and knows not itself is freed when nobody knows it, without a walk."""
    node = Node()
    gone = weakref.ref(node)
    gc.collect()
    del node
    assert gone() is None


async def test_circles_are_found_in_time() -> None:
    """A circle that was put aside is freed by the walk over everything, and a young one by any."""
    heap = Heap(seconds=0.0)
    heap.start()
    node = Node()
    node.me, gone = node, weakref.ref(node)
    gc.collect()
    del node
    gc.collect()
    assert gone() is not None
    while gone() is not None:  # noqa: ASYNC110 - a walk has no event for it
        await asyncio.sleep(0)
    heap.stop()
