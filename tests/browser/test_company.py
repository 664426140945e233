"""The playground where a company serves it, and a program of the company's on another origin."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from playwright.async_api import FilePayload, Locator, expect

from tests.browser.company import KEY, Bucket, Elsewhere, allowing, elsewhere, one_an_hour
from tests.browser.conftest import Scene, Staging, Visiting
from tests.browser.visit import Visit
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import png
from tests.fakes.storage import Storage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("browser")]

HOUR: Final = 3_600_000
BUDGET: Final = 60_000
"""Bytes that may come before the first picture."""


async def enter(visit: Visit, token: str) -> None:
    """Type a token where the page asks for one."""
    await visit.find("#token").fill(token)
    await visit.find("#enter").click()


async def entered(visiting: Visiting, scene: Scene, **claims: Any) -> Visit:
    """Return a visit to the page, with a token."""
    visit = await visiting(url=scene.tap.url)
    await visit.open()
    await enter(visit, scene.house.token(**claims))
    await expect(visit.find("#account")).to_be_visible()
    return visit


def said(card: Locator) -> Locator:
    """Return where a card says how its job is."""
    return card.locator(".said")


async def test_token_is_asked_for(staging: Staging, visiting: Visiting) -> None:
    """Without a token there is a field for one and nothing else; a refused one is asked for again."""
    scene = await staging(allowing())
    visit = await visiting(url=scene.tap.url)
    await visit.open()
    await expect(visit.find("#token")).to_be_focused()
    await expect(visit.find("#form")).to_be_hidden()
    visit.refusals = 1
    await enter(visit, "not-a-token")
    await expect(visit.find("#entry-why")).to_contain_text("no longer taken")
    await enter(visit, scene.house.token())
    await expect(visit.find("#who")).to_have_text("ann of acme")
    await visit.open()
    await expect(visit.find("#account")).to_be_visible()
    assert (await visit.page.context.storage_state())["origins"] == []
    assert await visit.page.context.cookies() == []


async def test_expired_token_is_renewed(staging: Staging, visiting: Visiting) -> None:
    """When the token expires the page asks for a fresh one, keeps the words, and goes on."""
    scene = await staging(allowing())
    visit = await entered(visiting, scene)
    await expect(visit.find("#price")).not_to_be_empty()
    scene.house.clock.move(2 * HOUR)
    visit.refusals = 1
    await visit.choose("words that outlive a token", quality="low")
    await expect(visit.find("#entry")).to_be_visible()
    await enter(visit, scene.house.token())
    await expect(visit.find("#prompt")).to_have_value("words that outlive a token")
    await visit.find("#make").click()
    await expect(visit.find(".job .said")).to_have_text("Done")


async def test_exhausted_quota_is_told(staging: Staging, visiting: Visiting) -> None:
    """Who lacks the credits reads what it costs, what is left and what to do, before and after sending."""
    scene = await staging(allowing("pro", credits_per_month=15))
    visit = await entered(visiting, scene)
    card = await visit.make("the last one", quality="medium")
    await expect(said(card)).to_have_text("Done")
    await expect(visit.find("#credits")).to_have_text(re.compile(r"^5\s"))
    await visit.choose("one too many")
    verdict = visit.find("#verdict")
    await expect(verdict).to_contain_text(
        re.compile(r"costs 10\scredits; 5\scredits are left\. A lower quality")
    )
    visit.refusals = 1
    await visit.find("#make").click()
    await expect(visit.find("#make")).to_be_enabled()
    await expect(verdict).to_contain_text("A lower quality")
    await visit.choose("one that fits", quality="low")
    await expect(verdict).to_be_hidden()
    await expect(said(await visit.make("one that fits"))).to_have_text("Done")


async def test_rate_limit_counts_down(staging: Staging, visiting: Visiting) -> None:
    """Who sends too many reads when the next may go, and sees the seconds pass."""
    scene = await staging(allowing("pro", submit_per_hour=one_an_hour()))
    visit = await entered(visiting, scene)
    await expect(said(await visit.make("the first", quality="low"))).to_have_text("Done")
    visit.refusals = 1
    await visit.choose("the second")
    await visit.find("#make").click()
    await expect(visit.find("#verdict")).to_contain_text("a lot in a short time")
    clock = visit.find("#verdict .countdown")
    first = await clock.inner_text()
    assert 3000 < int(first.replace(",", "")) <= 3600
    await expect(clock).not_to_have_text(first)
    await expect(visit.find("#prompt")).to_have_value("the second")


async def test_seven_share_one_stream(staging: Staging, visiting: Visiting) -> None:
    """Seven jobs at once are followed to their ends over one stream, and nobody polls."""
    scene = await staging(allowing("pro"))
    visit = await entered(visiting, scene, plan="max")
    for n in range(7):
        await visit.make(f"[hold] boat {n}.", quality="low")
    cards = visit.find(".job")
    await expect(visit.find(".job[data-state=running]")).to_have_count(7)
    scene.upstream.release()
    await expect(visit.find(".job[data-state=succeeded]")).to_have_count(7)
    await expect(cards.first.locator(".words")).to_have_text("[hold] boat 6.")
    await expect(cards.first.locator(".print.seen")).to_be_visible()
    asked = scene.tap.asked
    assert asked.count(b"GET /v1/events") == 1
    assert not [line for line in asked if line.startswith(b"GET /v1/jobs/")]
    assert len([line for line in asked if line == b"POST /v1/jobs"]) == 7


async def test_dropped_stream_goes_on(staging: Staging, visiting: Visiting) -> None:
    """When every connection breaks in mid-job, the page takes its stream up again and shows the end."""
    scene = await staging(allowing())
    visit = await entered(visiting, scene)
    card = await visit.make("[hold] through a storm", quality="low")
    await expect(said(card)).to_have_text("Developing")
    scene.tap.cut()
    visit.broken = True
    scene.upstream.release()
    await expect(said(card)).to_have_text("Done")
    await expect(card.locator(".print.seen")).to_be_visible()


async def test_reload_finds_the_job(staging: Staging, visiting: Visiting) -> None:
    """Who reloads in mid-job needs no second token, finds the job again, and sees it end."""
    scene = await staging(allowing())
    visit = await entered(visiting, scene)
    await expect(said(await visit.make("[hold] still going", quality="low"))).to_have_text("Developing")
    await visit.open()
    card = visit.find(".job").filter(has_text="still going")
    await expect(said(card)).to_have_text("Developing")
    scene.upstream.release()
    await expect(said(card)).to_have_text("Done")
    await expect(visit.find(".job")).to_have_count(1)


async def test_history_goes_back(staging: Staging, visiting: Visiting) -> None:
    """Earlier jobs stand small below the newest; one opens large, and older ones come by a button."""
    scene = await staging(allowing())
    ann = scene.house.visit()
    for n in range(23):
        await ann.made(f"one for the books, no. {n}.", quality="low")
    visit = await entered(visiting, scene)
    await expect(visit.find(".job .words")).to_have_text(
        [f"one for the books, no. {n}." for n in (22, 21, 20)]
    )
    past = visit.find(".past")
    await expect(past).to_have_count(17)
    await past.first.click()
    await expect(visit.find(".job .words").last).to_have_text("one for the books, no. 19.")
    await expect(past).to_have_count(16)
    await visit.find("#older").click()
    await expect(past).to_have_count(19)
    await expect(past.last).to_have_accessible_name("Show: one for the books, no. 0.")
    await expect(visit.find("#older")).to_be_hidden()


async def test_first_picture_costs_little(staging: Staging, visiting: Visiting) -> None:
    """All that comes before the first picture weighs at most sixty kilobytes, and the second visit less."""
    scene = await staging(allowing())
    visit = await entered(visiting, scene)
    card = await visit.make("a light one", quality="low")
    await expect(card.locator(".print.seen")).to_be_visible()
    first = scene.tap.served_before(b"GET /files/")
    assert first <= BUDGET
    scene.tap.log.clear()
    await visit.open()
    await expect(visit.find(".print.seen")).to_be_visible()
    assert sum(len(data) for served, data in scene.tap.log if served) < first


async def test_key_and_host_stay_inside(staging: Staging, visiting: Visiting) -> None:
    """In all that goes to and from a browser there is no provider's key, address or name."""
    scene = await staging(allowing())
    scene.upstream.script.add(
        Behavior(do="refusal", match="[refuse]"),
        Behavior(do="status", status=400, body=f'{{"error": {{"message": "{KEY}"}}}}', match="[400]"),
        Behavior(do="reset_after", match="[lost]"),
    )
    visit = await entered(visiting, scene)
    for mark, end in (("", "succeeded"), ("[refuse]", "blocked"), ("[400]", "failed"), ("[lost]", "failed")):
        card = await visit.make(f"an otter {mark} {end}", quality="low")
        await expect(visit.find(f".job[data-state={end}]").filter(has_text=f"{mark} {end}")).to_be_visible()
    await expect(card.locator(".reason")).to_be_visible()
    everything = scene.tap.everything
    port = scene.upstream.url.rpartition(":")[2]
    assert b"an otter [lost]" in everything
    for secret in (KEY, f"127.0.0.1:{port}", "openai", "gpt-image"):
        assert secret.encode() not in everything.lower(), secret


@pytest.mark.parametrize("kept", ["folder", "bucket"])
@pytest.mark.parametrize("kind", ["generate", "edit"])
async def test_other_origin_makes_pictures(
    staging: Staging, visiting: Visiting, storage: Storage, kind: str, kept: str
) -> None:
    """A program of another origin loads the client, renews its token, uploads, and shows a picture."""
    bucket = Bucket(storage)
    async with elsewhere() as other:
        bucket.allow(other.url)
        blobs = {"blobs": bucket.blobs} if kept == "bucket" else {}
        scene = await staging(allowing(), cors_origins=(other.url,), playground=False, **blobs)
        other.gateway, other.storage = scene.house.url, storage.endpoint
        other.tokens = [scene.house.token(seconds=-HOUR), scene.house.token()]
        visit = await visiting(url=other.url)
        visit.others |= {other.gateway, other.storage}
        visit.refusals = 1
        await visit.open()
        await visit.find("#prompt").fill("a picture for another page")
        if kind == "edit":
            picture = FilePayload(name="harbor.png", mimeType="image/png", buffer=png(64, 64))
            await visit.find("#file").set_input_files(picture)
        await visit.find("button").click()
        await expect(visit.find("#said")).to_have_text(re.compile("succeeded$"))
        assert await visit.find("#picture").evaluate("(one) => one.naturalWidth") == 1024
        assert (await scene.house.visit().get("/v1/jobs")).json["data"][0]["operation"] == kind


async def test_page_works_over_a_bucket(staging: Staging, visiting: Visiting, storage: Storage) -> None:
    """Where pictures are kept in object storage the page shows, uploads and edits them past the gateway."""
    bucket = Bucket(storage)
    scene = await staging(allowing(), blobs=bucket.blobs)
    bucket.allow(scene.tap.url)
    visit = await entered(visiting, scene)
    visit.others.add(storage.endpoint)
    card = await visit.make("a picture in a bucket", quality="low")
    await expect(card.locator(".print.seen")).to_be_visible()
    await card.locator(".edit").click()
    await expect(visit.find(".reference:not(.uploading)")).to_have_count(1)
    card = await visit.make("the same again, but bluer", quality="low")
    await expect(said(card)).to_have_text("Done")
    await expect(card.locator(".print.seen")).to_be_visible()
    assert b"\x89PNG" not in scene.tap.everything


async def test_problems_cross_origins(staging: Staging, visiting: Visiting) -> None:
    """What the gateway refuses is read by a program of another origin: its code, and the request's number."""
    async with elsewhere() as other:
        scene = await staging(allowing(), cors_origins=(other.url,))
        visit = await opened_elsewhere(other, scene, visiting)
        visit.refusals = 1
        await visit.find("#prompt").fill("a safelight-blocked picture")
        await visit.find("button").click()
        await expect(visit.find("#said")).to_have_text(re.compile(r"^prompt_blocked [0-9a-f-]{36}$"))


async def opened_elsewhere(other: Elsewhere, scene: Scene, visiting: Visiting) -> Visit:
    """Return a visit to the other origin's page, whose user is logged in."""
    other.gateway, other.tokens = scene.house.url, [scene.house.token()]
    visit = await visiting(url=other.url)
    visit.others.add(other.gateway)
    await visit.open()
    return visit
