"""A browser's visit to a server, and what must hold of every visit.

Chromium is the system's own, asked by its path: nothing is downloaded, and where it is missing the tests
fail with that path in the message. What a page shows is asked by its elements: text that is run in the
page is what its policy forbids.
"""

from __future__ import annotations

import base64
from typing import Final, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Locator, Page, Playwright, Request, expect

CHROMIUM: Final = "/usr/bin/chromium"
FLAGS: Final = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS: Final = 15_000
REFUSED: Final = "the server responded with a status of 4"
OFFLINE: Final = "net::ERR_INTERNET_DISCONNECTED"
BROKEN: Final = "Failed to load resource: net::ERR_"
"""Chromium's own words for an answer that refuses, for no network, and for a connection that broke."""
CARRY: Final = """([name, type, data]) => {
  const carried = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  carried.items.add(new File([bytes], name, { type }));
  return carried;
}"""
WIDE: Final = (1280, 900)
NARROW: Final = (390, 844)

Scheme = Literal["dark", "light"]


async def launched(playwright: Playwright) -> Browser:
    """Start the system's Chromium."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))


class Visit:
    """One page in a fresh profile, with all it asked for and all it complained of.

    `refusals` is how many answers of 4xx the visit means to get, `broken` whether connections may break,
    `others` which origins may be asked besides its own.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.refusals = 0
        self.broken = False
        self.others: set[str] = set()
        self._complaints: list[str] = []
        self._asked: list[str] = []
        self._gone_offline = False
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._heard)
        page.on("pageerror", self._failed)
        page.on("request", self._noted)

    def find(self, selector: str) -> Locator:
        """Return what a selector finds, once it is there."""
        return self.page.locator(selector)

    async def open(self, path: str = "/") -> None:
        """Go to a path of the server."""
        await self.page.goto(self.url + path)

    async def bench(self) -> None:
        """Open the page, and wait until it can be worked with."""
        await self.open()
        await expect(self.find("#account")).to_be_visible()

    async def choose(self, prompt: str, **chosen: str) -> None:
        """Fill in the form as a person does."""
        await self.find("#prompt").fill(prompt)
        for name, value in chosen.items():
            await self.find(f"#{name}").select_option(value)

    async def make(self, prompt: str, **chosen: str) -> Locator:
        """Ask for a picture, and return its card in the tray."""
        await self.choose(prompt, **chosen)
        await self.find("#make").click()
        card = self.find(".job").filter(has_text=prompt).first
        await expect(card).to_be_visible()
        return card

    async def drop(self, selector: str, name: str, kind: str, data: bytes) -> None:
        """Drop a file on an element, as from a folder's window."""
        carried = await self.page.evaluate_handle(CARRY, [name, kind, base64.b64encode(data).decode()])
        await self.page.dispatch_event(selector, "dragover", {"dataTransfer": carried})
        await self.page.dispatch_event(selector, "drop", {"dataTransfer": carried})

    async def credits(self) -> int:
        """Return how many credits the page says are left."""
        text = await self.find("#credits").inner_text()
        return int("".join(letter for letter in text if letter.isdecimal()))

    async def offline(self, away: bool) -> None:  # noqa: FBT001 - as the browser's own switch has it
        """Take the network away, or give it back."""
        self._gone_offline = True
        await self.page.context.set_offline(away)

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        wide, shown = await self.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        return max(0, int(wide) - int(shown))

    async def spill(self, selector: str) -> int:
        """Return by how many pixels what is in an element is wider than it."""
        return int(await self.find(selector).evaluate("(one) => one.scrollWidth - one.clientWidth"))

    def hold(self) -> None:
        """Hold the visit to what must always be so: no complaint but those meant, nothing from elsewhere."""
        refused = [text for text in self._complaints if REFUSED in text]
        missed = [text for text in self._complaints if OFFLINE in text and self._gone_offline]
        broken = [text for text in self._complaints if BROKEN in text and self.broken]
        assert sorted(refused + missed + broken) == sorted(self._complaints), self._complaints
        assert len(refused) == self.refusals, refused
        homes = {urlsplit(url)[:2] for url in (self.url, *self.others)}
        for asked in map(urlsplit, self._asked):
            assert asked.scheme in ("data", "blob") or asked[:2] in homes, asked.geturl()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complaints.append(message.text)

    def _failed(self, error: Error) -> None:
        self._complaints.append(str(error))

    def _noted(self, request: Request) -> None:
        self._asked.append(request.url)
