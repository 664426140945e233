"""The page at `/`, used as a person uses it: typing, choosing, clicking, waiting, looking."""

from __future__ import annotations

import re
from typing import Final

import pytest
from playwright.async_api import Locator, expect

from tests.browser.visit import Visit

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("browser")]

SLOW: Final = "[[slow 60]]"
ROOM: Final = 5
"""How many jobs in flight the plan of `dev` allows a user."""


def said(card: Locator) -> Locator:
    """Return where a card says how its job is."""
    return card.locator(".said")


async def size_of(card: Locator) -> tuple[int, int]:
    """Return the size of a card's picture as the browser decoded it."""
    found = await card.locator("img").evaluate("(img) => [img.naturalWidth, img.naturalHeight]")
    return found[0], found[1]


async def cancel(card: Locator) -> None:
    """Cancel a card's job, and wait for its end."""
    await card.locator(".cancel").click()
    await expect(said(card)).to_have_text("Canceled")


async def test_prompt_becomes_a_picture(bench: Visit) -> None:
    """A typed prompt is waited for and developed before one's eyes, and ends as a picture to save."""
    before = await bench.credits()
    card = await bench.make("[[slow 2]] a lighthouse at dusk", size="1536x1024", quality="low")
    await expect(said(card)).to_have_text(re.compile("Waiting|Developing"))
    await expect(said(card)).to_have_text("Developing")
    await expect(card.locator(".clock")).to_have_text(re.compile("[1-9]"))
    await expect(said(card)).to_have_text("Done")
    await expect(card.locator(".print.seen img")).to_have_css("opacity", "1")
    await expect(card.locator(".facts")).to_contain_text(
        re.compile(r"1536\s×\s1024 · low · standard · 1\scredit$")
    )
    assert await size_of(card) == (1536, 1024)
    await expect(card.locator(".cancel")).to_be_hidden()
    await expect(bench.find("#credits")).to_have_text(re.compile(rf"^{before - 1:,}\s"))


async def test_picture_can_be_saved(bench: Visit) -> None:
    """The link under a picture hands over a file with a name and the bytes of a PNG."""
    card = await bench.make("a harbor to keep", quality="low")
    await expect(card.locator(".print.seen")).to_be_visible()
    async with bench.page.expect_download() as expected:
        await card.locator(".save").click()
    download = await expected.value
    assert download.suggested_filename.endswith(".png")
    path = await download.path()
    assert path.read_bytes().startswith(b"\x89PNG")


async def test_several_come_up_together(bench: Visit) -> None:
    """A job of several pictures shows a sheet for each at once, and each picture on its own."""
    card = await bench.make("two boats", count="2", quality="low")
    await expect(card.locator(".print")).to_have_count(2)
    await expect(card.locator(".print.seen")).to_have_count(2)
    labels = [await save.get_attribute("aria-label") for save in await card.locator(".save").all()]
    assert labels == ["Save picture 1", "Save picture 2"]


async def test_price_is_shown_before(bench: Visit) -> None:
    """What a picture costs stands beside the button before it is pressed, and follows each choice."""
    price = bench.find("#price")
    await expect(price).to_have_text(re.compile(r"^10\scredits$"))
    await bench.find("#quality").select_option("low")
    await expect(price).to_have_text(re.compile(r"^1\scredit$"))
    await bench.choose("dear ones", quality="high", count="4")
    await expect(price).to_have_text(re.compile(r"^160\scredits$"))


async def test_blocked_prompt_is_told_kindly(bench: Visit) -> None:
    """A blocked prompt is told while it is typed, with its rule, and again when sent; nothing is spent."""
    before = await bench.credits()
    verdict = bench.find("#verdict")
    await bench.choose("a safelight-blocked lighthouse")
    await expect(verdict).to_contain_text("The rule is demo.blocked.")
    await expect(verdict).to_contain_text("Nothing was spent")
    await expect(bench.find("#prompt")).to_have_attribute("aria-invalid", "true")
    bench.refusals = 1
    await bench.find("#make").click()
    await expect(bench.find("#make")).to_be_enabled()
    await expect(verdict).to_be_visible()
    await bench.choose("a lighthouse after all")
    await expect(verdict).to_be_hidden()
    assert await bench.credits() == before


@pytest.mark.parametrize(
    ("prompt", "words", "reason"),
    [
        ("[[refuse]] a thing", "The provider would not make this", "refused"),
        ("[[fail]] a thing", "It did not come out", "could not"),
    ],
)
async def test_failures_are_free_and_told(bench: Visit, prompt: str, words: str, reason: str) -> None:
    """A job the provider refuses or fails says which of the two, why, and that nothing was charged."""
    before = await bench.credits()
    card = await bench.make(prompt)
    await expect(said(card)).to_have_text(words)
    await expect(card.locator(".reason")).to_contain_text(reason)
    await expect(card.locator(".facts")).to_contain_text(re.compile(r"nothing\scharged"))
    await expect(bench.find("#credits")).to_have_text(re.compile(rf"^{before:,}\s"))
    await expect(card.locator(".prints")).to_be_hidden()


async def test_canceled_job_comes_back(bench: Visit) -> None:
    """A picture under way is canceled by its button: it ends so, and its credits come back."""
    before = await bench.credits()
    card = await bench.make(f"{SLOW} a snail")
    await expect(said(card)).to_have_text("Developing")
    await expect(bench.find("#credits")).to_have_text(re.compile(rf"^{before - 10:,}\s"))
    await cancel(card)
    await expect(card.locator(".facts")).to_contain_text(re.compile(r"nothing\scharged"))
    await expect(bench.find("#credits")).to_have_text(re.compile(rf"^{before:,}\s"))
    await card.locator(".reuse").click()
    await expect(bench.find("#prompt")).to_have_value(f"{SLOW} a snail")
    await expect(bench.find("#prompt")).to_be_focused()


async def test_limits_are_told(bench: Visit) -> None:
    """One job more than the plan allows is refused with its rule and when to try again; the others go on."""
    cards = [await bench.make(f"{SLOW} no. {n}", quality="low") for n in range(ROOM)]
    bench.refusals = 1
    await bench.choose("one too many")
    await bench.find("#make").click()
    verdict = bench.find("#verdict")
    await expect(verdict).to_contain_text(re.compile(r"As many jobs .* Again in \d+ s. .* limit\.in_flight"))
    for card in cards:
        await cancel(card)
    await expect(bench.find(".job").filter(has_text="one too many")).to_have_count(0)


async def test_tray_survives_a_reload(bench: Visit) -> None:
    """Who comes back finds the pictures again, newest first, and one under way goes on where it was."""
    done = await bench.make("a picture to come back to", quality="low")
    await expect(said(done)).to_have_text("Done")
    await expect(said(await bench.make(f"{SLOW} still going", quality="low"))).to_have_text("Developing")
    await bench.bench()
    cards = bench.find(".job")
    await expect(cards.nth(0).locator(".words")).to_have_text(f"{SLOW} still going")
    await expect(cards.nth(1).locator(".print.seen")).to_be_visible()
    await cancel(cards.nth(0))


async def test_words_stay_words(bench: Visit) -> None:
    """A prompt written as markup is shown as it was written, in the card and in the cURL."""
    prompt = "<img src=x onerror=alert(1)> <b>it's bold</b>"
    card = await bench.make(prompt, quality="low")
    await expect(card.locator(".words")).to_have_text(prompt)
    assert await card.locator("b, .words img").count() == 0
    await bench.find("summary").click()
    await expect(bench.find("#command")).to_contain_text(r"<b>it'\''s bold</b>")
    await expect(bench.find("#command")).not_to_contain_text("Bearer ey")


async def test_lost_server_is_told(bench: Visit) -> None:
    """While the server cannot be reached the page says so and keeps the words; `Try again` goes on."""
    await bench.offline(away=True)
    await bench.choose("words that are kept")
    await expect(bench.find("#trouble")).to_contain_text("The server does not answer")
    await bench.offline(away=False)
    await bench.find("#again").click()
    await expect(bench.find("#trouble")).to_be_hidden()
    await expect(bench.find("#prompt")).to_have_value("words that are kept")
