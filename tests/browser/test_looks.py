"""How the pages stand in a window: every control by the keyboard, any width, by day and by night."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest
from playwright.async_api import FilePayload, expect

from gateway.errors import CATALOGUE
from tests.browser.company import allowing
from tests.browser.conftest import Staging, Visiting
from tests.browser.visit import NARROW, WIDE, Scheme, Visit
from tests.fakes.pictures import png
from tests.house import ROOT

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("browser")]

CONTROLS: Final = (
    "a[href], button, select, textarea, summary, input:not([type=radio]), input:checked, [tabindex='0']"
)
FOCUSED: Final = """() => {
  const { id, className, tagName } = document.activeElement;
  return tagName === "BODY" ? "" : id || className || tagName;
}"""
OUTLINED: Final = """(one) => [one, ...(one.labels ?? [])].flatMap((each) => [each, each.lastElementChild])
  .some((each) => each && getComputedStyle(each).outlineStyle === "solid")"""
NAMED: Final = """(all) => all.filter((one) => one.checkVisibility() && !one.disabled)
  .map(({ id, className, tagName }) => id || className || tagName)"""
AXE: Final = ROOT / ".tools/node/node_modules/axe-core/axe.min.js"
SCHEMES: Final[tuple[Scheme, ...]] = ("dark", "light")


async def test_keyboard_reaches_every_control(bench: Visit) -> None:
    """Tab alone goes through every control that can be seen, and each is outlined when it is reached."""
    card = await bench.make("a picture for the keyboard", quality="low")
    await expect(card.locator(".print.seen")).to_be_visible()
    for fold in ("#more summary", "#code summary"):
        await bench.find(fold).click()
    wanted = await bench.find(CONTROLS).evaluate_all(NAMED)
    await bench.find(".skip").focus()
    await bench.page.keyboard.press("Tab")
    await bench.page.keyboard.press("Shift+Tab")
    reached: list[str] = []
    plain: list[str] = []
    while (name := await bench.page.evaluate(FOCUSED)) and len(reached) <= len(wanted):
        reached.append(name)
        if not await bench.find(":focus").evaluate(OUTLINED):
            plain.append(name)
        await bench.page.keyboard.press("Tab")
    assert sorted(reached) == sorted(wanted)
    assert {"prompt", "files", "size", "style", "make", "copy", "sample", "save", "reuse"} <= set(reached)
    assert plain == []


async def test_keyboard_alone_does_all(bench: Visit) -> None:
    """By keys alone a prompt is sent, a picture is chosen, a job is canceled and its words are used again."""
    keys = bench.page.keyboard
    bench.page.on("filechooser", lambda _chooser: None)  # or the first may open before it is waited for
    await expect(bench.find("#prompt")).to_be_focused()
    await keys.type("typed and sent")
    await keys.press("Control+Enter")
    card = bench.find(".job").first
    await expect(card.locator(".words")).to_have_text("typed and sent")
    await expect(card.locator(".said")).to_have_text("Done")
    await keys.press("Tab")
    await expect(bench.find("#files")).to_be_focused()
    async with bench.page.expect_file_chooser() as chosen:
        await keys.press("Space")
    picture = FilePayload(name="harbor.png", mimeType="image/png", buffer=png(64, 64))
    await (await chosen.value).set_files(picture)
    await expect(bench.find(".reference:not(.uploading)")).to_have_count(1)
    await bench.find(".reference button").focus()
    await keys.press("Enter")
    await expect(bench.find(".reference")).to_have_count(0)
    await bench.find("#prompt").focus()
    await keys.press("Control+A")
    await keys.type("[[slow 60]] a long one")
    for name in ("files", "model", "size", "quality"):
        await keys.press("Tab")
        await expect(bench.find(f"#{name}")).to_be_focused()
    await keys.type("low")
    for _ in range(3):
        await keys.press("Tab")
    await expect(bench.find("#make")).to_be_focused()
    await keys.press("Enter")
    await expect(card.locator(".said")).to_have_text("Developing")
    await card.locator(".cancel").focus()
    await keys.press("Space")
    await expect(card.locator(".said")).to_have_text("Canceled")
    await expect(card.locator(".facts")).to_contain_text("low")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("window", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_page_fits_its_window(visiting: Visiting, window: tuple[int, int], scheme: Scheme) -> None:
    """By day and by night, on a phone and on a desk: nothing is cut, and a new picture comes into view."""
    visit = await visiting(window, scheme)
    await visit.bench()
    assert await visit.overflow() == 0
    for fold in ("#more summary", "#code summary"):
        await visit.find(fold).click()
    words = "W" * 90
    picture = FilePayload(name=f"{words}.png", mimeType="image/png", buffer=png(64, 64))
    await visit.find("#files").set_input_files(picture)
    await expect(visit.find(".reference:not(.uploading)")).to_have_count(1)
    assert await visit.overflow() == 0
    assert await visit.spill("#form") == 0
    await visit.find(".reference button").click()
    card = await visit.make(f"[[refuse]] {words} {scheme} {window[0]}", quality="low")
    await expect(card.locator(".reason")).to_be_visible()
    card = await visit.make(f"a wide river {scheme} {window[0]}", size="2304x1536", quality="low", count="2")
    await expect(card.locator(".said")).to_be_in_viewport()
    await expect(card.locator(".print.seen")).to_have_count(2)
    await visit.choose(f"a safelight-blocked {words}")
    await expect(visit.find("#verdict")).to_be_visible()
    assert await visit.overflow() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_text_stands_out(visiting: Visiting, scheme: Scheme) -> None:
    """Text and background differ by a contrast of 4.5 at least (WCAG 2.2, 1.4.3), small words too."""
    visit = await visiting(scheme=scheme)
    await visit.bench()
    room = _rgb(await visit.find("body").evaluate("(one) => getComputedStyle(one).backgroundColor"))
    for selector in ("h1", "#who", "#credits", "label >> nth=0", ".hint", "footer span", "#price"):
        ink = _rgb(await visit.find(selector).evaluate("(one) => getComputedStyle(one).color"))
        assert _contrast(ink, room) >= 4.5, selector
    assert (_light(room) < 0.1) == (scheme == "dark")


@pytest.mark.parametrize("window", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_documents_show_every_call(visiting: Visiting, window: tuple[int, int]) -> None:
    """`/docs` shows each operation of the OpenAPI document, and what one takes when it is opened."""
    visit = await visiting(window)
    await visit.open("/openapi.json")
    paths = json.loads(await visit.find("pre").inner_text())["paths"]
    await visit.open("/docs")
    calls = sorted(f"{method.upper()} {path}" for path, ways in paths.items() for method in ways)
    shown = visit.find(".opblock-summary")
    await expect(shown).to_have_count(len(calls))
    told = [
        f"{await one.locator('.opblock-summary-method').inner_text()} "
        f"{await one.locator('.opblock-summary-path').get_attribute('data-path')}"
        for one in await shown.all()
    ]
    assert sorted(told) == calls
    await visit.find("#operations-Jobs-createJob .opblock-summary-control").click()
    await expect(visit.find("#operations-Jobs-createJob .opblock-body")).to_contain_text("Idempotency-Key")
    assert await visit.overflow() == 0


@pytest.mark.parametrize(("code", "words"), [("prompt_blocked", "demo.blocked"), ("rate_limited", "12")])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_problem_pages_read_well(visiting: Visiting, code: str, words: str, scheme: Scheme) -> None:
    """A problem's page shows its title, its meaning and an example in a narrow window, and leads on."""
    visit = await visiting(NARROW, scheme)
    await visit.open(f"/problems/{code}")
    await expect(visit.find("h1")).to_have_text(CATALOGUE[code].title)
    await expect(visit.find("pre")).to_contain_text(words)
    assert await visit.overflow() == 0
    await visit.find("a").click()
    await expect(visit.find(".opblock").first).to_be_visible()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("window", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_axe_finds_nothing(visiting: Visiting, window: tuple[int, int], scheme: Scheme) -> None:
    """The rules of axe-core find no violation: empty, at work, refused, unfolded, by day and by night."""
    visit = await visiting(window, scheme)
    await visit.bench()
    assert await violations(visit) == []
    card = await visit.make(f"a picture for axe {scheme} {window[0]}", quality="low", count="2")
    await expect(card.locator(".print.seen")).to_have_count(2)
    await visit.make(f"[[fail]] for axe {scheme} {window[0]}", quality="low")
    await expect(visit.find(".job .reason:visible").first).to_be_visible()
    for fold in ("#more summary", "#code summary"):
        await visit.find(fold).click()
    picture = FilePayload(name="harbor.png", mimeType="image/png", buffer=png(64, 64))
    await visit.find("#files").set_input_files(picture)
    await expect(visit.find(".reference:not(.uploading)")).to_have_count(1)
    await visit.choose("a safelight-blocked thing")
    await expect(visit.find("#verdict")).to_be_visible()
    await visit.page.emulate_media(reduced_motion="reduce")
    assert await violations(visit) == []
    await visit.bench()
    await expect(visit.find(".print.seen").first).to_be_visible()
    assert await violations(visit) == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_axe_likes_the_entry(staging: Staging, visiting: Visiting, scheme: Scheme) -> None:
    """The page that asks for a token has no violation either, and fits a narrow window."""
    scene = await staging(allowing())
    visit = await visiting(NARROW, scheme, scene.tap.url)
    await visit.open()
    await expect(visit.find("#token")).to_be_focused()
    assert await violations(visit) == []
    assert await visit.overflow() == 0


async def violations(visit: Visit) -> list[str]:
    """Return what axe-core finds on a page: rule and element."""
    await visit.page.evaluate(AXE.read_text())
    found = await visit.page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


def _rgb(text: str) -> tuple[float, ...]:
    """Return the shares of red, green and blue of a computed color."""
    return tuple(int(n) / 255 for n in re.findall(r"\d+", text)[:3])


def _light(color: tuple[float, ...]) -> float:
    """Return a color's relative luminance (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    bright, dim = sorted((_light(one), _light(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)
