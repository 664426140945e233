"""One Chromium, one `safelight dev` a module, and a fresh profile a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.visit import PATIENCE_MS, WIDE, Scheme, Visit, launched
from tests.fakes.command import Running, running

Visiting = Callable[..., Awaitable[Visit]]


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
async def visiting(browser: Browser, server: Running) -> AsyncIterator[Visiting]:
    """Open visits; each is held to what must always be so."""
    visits: list[Visit] = []
    async with AsyncExitStack() as stack:

        async def opened(window: tuple[int, int] = WIDE, scheme: Scheme = "dark") -> Visit:
            width, height = window
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-US"
            )
            stack.push_async_callback(context.close)
            visits.append(Visit(await context.new_page(), server.url))
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
