"""One Chromium, one `safelight dev` a module, houses of companies, and a fresh profile a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser, async_playwright, expect

from gateway.blobs import Blobs, open_blobs
from tests.browser.company import KEY, Company, plotted
from tests.browser.visit import PATIENCE_MS, WIDE, Scheme, Visit, launched
from tests.fakes import openai
from tests.fakes.behavior import Behavior
from tests.fakes.command import Running, running
from tests.fakes.server import Fake
from tests.fakes.wiretap import Wiretap, tapped

Visiting = Callable[..., Awaitable[Visit]]


class Scene(Struct, frozen=True):
    """A company's house, the upstream behind it, and the way to it on which all is kept."""

    house: Company
    upstream: Fake
    tap: Wiretap


Opener = Callable[[str], Blobs]
Staging = Callable[..., Awaitable[Scene]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser that is gone when the tests are."""
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await launched(playwright)
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A `safelight dev` on a free port with a data folder of its own."""
    with running("dev", "--port", "0", cwd=tmp_path_factory.mktemp("browser")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def staging(tmp_path: Path) -> AsyncIterator[Staging]:
    """Open a company's house by its bundle; it held the pictures whose prompt asks for it, and saw no bug."""
    async with AsyncExitStack() as stack:
        houses: list[Company] = []

        async def staged(bundle: Any, blobs: Opener = open_blobs, **server: Any) -> Scene:
            script = [Behavior(do="hold", match="[hold]", times=0)]
            upstream = await stack.enter_async_context(openai.fake(KEY, script=script))
            houses.append(Company(tmp_path / "house", plotted(upstream, bundle, blobs, **server)))
            await stack.enter_async_context(houses[-1].open())
            return Scene(houses[-1], upstream, await stack.enter_async_context(tapped(houses[-1].port)))

        yield staged
    for house in houses:
        assert house.bugs == []


@pytest_asyncio.fixture(loop_scope="session")
async def visiting(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Visiting]:
    """Open visits, to `safelight dev` where no address is given; each is held to what must always be so."""
    visits: list[Visit] = []
    async with AsyncExitStack() as stack:

        async def opened(window: tuple[int, int] = WIDE, scheme: Scheme = "dark", url: str = "") -> Visit:
            width, height = window
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-US"
            )
            stack.push_async_callback(context.close)
            home = url or request.getfixturevalue("server").url
            visits.append(Visit(await context.new_page(), home))
            return visits[-1]

        yield opened
    for visit in visits:
        visit.hold()


@pytest_asyncio.fixture(loop_scope="session")
async def bench(visiting: Visiting) -> Visit:
    """A visit to the page, ready to be worked with."""
    visit = await visiting()
    await visit.bench()
    return visit
