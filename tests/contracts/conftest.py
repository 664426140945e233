"""The store under test, once a back end."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.store.engine import Engine
from tests.contracts.rig import MEMORY, OPENERS, Rig
from tests.contracts.watched import Watched, Watching


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for one test, in memory if there is such."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(params=sorted(OPENERS))
async def rig(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Rig]:
    """A place with a clock, where stores are opened."""
    made = Rig(request.param, place)
    yield made
    await made.close()


@pytest.fixture
async def store(rig: Rig) -> Engine:
    """An empty store."""
    return await rig.open()


@pytest.fixture(params=sorted(OPENERS))
async def watched(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Watching]:
    """A rig whose store stands on a back end that is watched."""
    made: list[Watched] = []

    def wrap(backend: Any) -> Any:
        made.append(Watched(backend))
        return made[-1]

    rig = Rig(request.param, place, wrap)
    store = await rig.open()
    yield rig, store, made[0]
    await rig.close()
