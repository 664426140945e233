"""The page at `/`, used as a person uses it: typing, choosing, clicking, waiting, looking."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest
from playwright.async_api import FilePayload, Locator, Route, expect

from gateway.dev import SUBJECT, TENANT, token
from gateway.secrets import Secret
from policies.model import Principal
from tests.browser.conftest import Visiting
from tests.browser.visit import Visit
from tests.fakes.command import Running
from tests.fakes.pictures import png

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("browser")]

SLOW: Final = "[[slow 60]]"
EDIT: Final = re.compile("^edit ")
"""How the facts of an edit begin: a credit is an edit too, by its letters."""
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
    told = r"As many pictures .* cancel one\. Again in \d+ s\. The rule is limit\.in_flight"
    await expect(verdict).to_contain_text(re.compile(told))
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
    await bench.find("#code summary").click()
    await expect(bench.find("#sample")).to_contain_text(r"<b>it'\''s bold</b>")
    await expect(bench.find("#sample")).not_to_contain_text("Bearer ey")


async def test_dropped_picture_is_edited(bench: Visit) -> None:
    """A picture dropped on the bench is uploaded and priced, a mask goes with it, and the edit shows both."""
    await bench.drop("#form", "harbor.png", "image/png", png(256, 256))
    await expect(bench.find(".reference .name")).to_have_text("harbor.png")
    mask = FilePayload(name="white.png", mimeType="image/png", buffer=png(256, 256, "mask"))
    await bench.find("#mask").set_input_files(mask)
    await expect(bench.find(".reference .name").nth(1)).to_have_text("white.png (mask)")
    card = await bench.make("the same at night", quality="low")
    await expect(said(card)).to_have_text("Done")
    await expect(card.locator(".facts")).to_contain_text(EDIT)
    await expect(card.locator(".print.seen")).to_be_visible()
    sent = json.loads(re.findall(r"-d '(.*)'", await bench.find("#sample").text_content() or "")[0])
    assert (sent["operation"], len(sent["inputs"]), list(sent["mask"])) == ("edit", 1, ["upload"])


async def test_made_picture_is_edited(bench: Visit) -> None:
    """A picture of the tray becomes one to start from by its button, and can be taken away again."""
    card = await bench.make("a picture to start from", quality="low")
    await card.locator(".edit").click()
    await expect(bench.find(".reference .name")).to_have_text("picture-1.png")
    await expect(bench.find("#prompt")).to_be_focused()
    card = await bench.make("and the same in snow", quality="low")
    await expect(said(card)).to_have_text("Done")
    await bench.find(".reference button").click()
    await expect(bench.find("#reference-list")).to_be_hidden()
    await expect(bench.find("#sample")).not_to_contain_text("inputs")


@pytest.mark.parametrize(
    ("name", "kind", "data", "told"),
    [
        ("notes.txt", "text/plain", b"words", "notes.txt: only PNG, JPEG and WebP can be used."),
        ("vast.png", "image/png", b"\x89PNG" + bytes(10 * 2**20), "vast.png is larger than 10 MiB."),
    ],
)
async def test_useless_files_are_told(bench: Visit, name: str, kind: str, data: bytes, told: str) -> None:
    """A file that cannot be used is told at once, without being sent."""
    await bench.drop("#form", name, kind, data)
    await expect(bench.find("#reference-said")).to_have_text(told)
    await expect(bench.find(".reference")).to_have_count(0)


async def test_false_picture_is_told(bench: Visit) -> None:
    """A file that only calls itself a picture is refused by the gateway; the page says why and drops it."""
    await bench.drop("#form", "false.png", "image/png", b"these are no pixels")
    await expect(bench.find(".reference:not(.uploading)")).to_have_count(1)
    bench.refusals = 1
    await bench.choose("a street at night", quality="low")
    await bench.find("#make").click()
    told = "false.png is no image that can be used"
    await expect(bench.find("#reference-said")).to_contain_text(told)
    await expect(bench.find(".reference")).to_have_count(0)
    await expect(bench.find(".job").filter(has_text="a street at night")).to_have_count(0)
    card = await bench.make("a street at night", quality="low")
    await expect(said(card)).to_have_text("Done")
    await expect(card.locator(".facts")).not_to_contain_text(EDIT)


@pytest.mark.parametrize("tongue", ["curl", "javascript", "python"])
async def test_samples_run_as_they_are(bench: Visit, tongue: str, tmp_path: Path) -> None:
    """What is copied makes the same picture: the command, the module and the script run as they stand."""
    await bench.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await bench.choose(f'it\'s "{tongue}" — ✓', quality="low")
    await bench.find("#code summary").click()
    await bench.find(f"[value={tongue}]").check(force=True)
    await bench.find("#copy").click()
    await expect(bench.find("#copied")).to_have_text("Copied.")
    text = await bench.page.evaluate("navigator.clipboard.readText()")
    assert (await bench.find("#sample").inner_text()).strip() == text.strip()
    found = await asyncio.to_thread(ran, tongue, text, tmp_path)
    assert "succeeded" in found or '"state":"queued"' in found, found
    card = bench.find(".job").filter(has_text=f'it\'s "{tongue}" — ✓').first
    await expect(said(card)).to_have_text("Done")


def ran(tongue: str, text: str, folder: Path) -> str:
    """Run a sample as its reader would, and return what it printed."""
    if tongue == "curl":
        line = ["sh", "-c", text]
    elif tongue == "python":
        line = [sys.executable, "-c", text]
    else:
        address = re.findall(r'from "(.*)"', text)[0]
        with urlopen(address) as answer:
            (folder / "client.mjs").write_bytes(answer.read())
        (folder / "sample.mjs").write_text(text.replace(f'from "{address}"', 'from "./client.mjs"'))
        line = ["node", str(folder / "sample.mjs")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


async def test_expired_dev_token_is_fetched(visiting: Visiting, server: Running) -> None:
    """Under `dev` a token that expired is fetched anew, and nobody notices."""
    secret = Secret((server.cwd / ".safelight/secret").read_text().strip())
    stale = token(secret, Principal(TENANT, SUBJECT), time.time_ns() // 1_000_000 - 7_200_000, 60)
    visit = await visiting()
    given = []

    async def first(route: Route) -> None:
        given.append(route)
        await (route.fulfill(json={"token": stale}) if len(given) == 1 else route.continue_())

    await visit.page.route("**/dev/token", first)
    visit.refusals = 1
    await visit.bench()
    assert len(given) == 2
    await expect(said(await visit.make("unnoticed", quality="low"))).to_have_text("Done")


async def test_lost_server_is_told(bench: Visit) -> None:
    """While the server cannot be reached the page says so and keeps the words; `Try again` goes on."""
    await bench.offline(away=True)
    await bench.choose("words that are kept")
    await expect(bench.find("#trouble")).to_contain_text("The server does not answer")
    await bench.offline(away=False)
    await bench.find("#again").click()
    await expect(bench.find("#trouble")).to_be_hidden()
    await expect(bench.find("#prompt")).to_have_value("words that are kept")
