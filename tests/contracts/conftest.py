"""The store under test, once a back end."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.store.engine import Engine
from tests.contracts.rig import MEMORY, OPENERS, Rig


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
