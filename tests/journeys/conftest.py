"""Houses to call: each test gets its own, over a real socket, and none may have seen a bug."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.secrets import Secret
from gateway.settings import ProviderSettings
from tests.fakes import openai
from tests.fakes.server import Fake
from tests.journeys.stage import Plot, Stage

Opening = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncIterator[Opening]:
    """Open a house from the fields of a `Plot`; it closes with the test, and saw as many bugs as foretold."""
    async with AsyncExitStack() as stack:
        stages: list[Stage] = []

        async def opened(**plot: Any) -> Stage:
            stage = Stage(tmp_path / str(len(stages)), Plot(**plot))
            stages.append(await stack.enter_async_context(stage.open()))
            return stage

        yield opened
    for each in stages:
        assert len(each.bugs) == each.foretold, each.bugs


@pytest.fixture
async def upstream() -> AsyncIterator[Fake]:
    """A fake of OpenAI, which answers at once."""
    async with openai.fake() as fake:
        yield fake


def entry(fake: Fake) -> dict[str, ProviderSettings]:
    """Return the provider entry of a fake."""
    return {"main": ProviderSettings(kind="openai", key=Secret(fake.key), base_url=f"{fake.url}/v1")}


@pytest.fixture
async def stage(opening: Opening, upstream: Fake) -> Stage:
    """The usual house: plan `pro` for everyone, one provider."""
    return await opening(providers=entry(upstream))
