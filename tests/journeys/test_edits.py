"""Edits from end to end: what a caller brings, what each upstream sees of it, what comes back."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from gateway.secrets import Secret
from gateway.settings import ProviderSettings
from policies.bundle import Bundle, Target
from tests.fakes import gptimage2_ai, gptimage2_plus, openai
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import measured, picture, png
from tests.fakes.raw_server import RawServer, says
from tests.fakes.server import Fake
from tests.journeys.bringing import brought, kept
from tests.journeys.conftest import Opening
from tests.journeys.stage import Stage

KINDS = {"openai": "/v1", "gptimage2_plus": "/api/v1", "gptimage2_ai": ""}
BOTH = {"upload": "{good}", "url": "https://a.example.org"}
CANARY = "my garden, 52.5N 13.4E"


def routed(bundle: Bundle) -> Bundle:
    """Return the bundle with a model for each provider alone."""
    pro, standard = bundle.plans["pro"], bundle.models["standard"]
    names = (*KINDS, "sandbox")
    models = {name: replace(standard, route=(Target(name, standard.route[0].model),)) for name in names}
    plan = replace(pro, models=tuple(models))
    return replace(bundle, models=models, plans={**bundle.plans, "pro": plan})


@pytest.fixture
async def fakes() -> AsyncIterator[Mapping[str, Fake]]:
    """A fake of each upstream."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(make.fake())
            for name, make in zip(KINDS, (openai, gptimage2_plus, gptimage2_ai), strict=True)
        }


@pytest.fixture
async def stage(opening: Opening, fakes: Mapping[str, Fake]) -> Stage:
    """A house over all of them and the sandbox."""
    entries = {
        name: ProviderSettings(kind=name, key=Secret(fake.key), base_url=fake.url + KINDS[name])
        for name, fake in fakes.items()
    }
    return await opening(providers={**entries, "sandbox": ProviderSettings(kind="sandbox")}, bundle=routed)


def photo() -> bytes:
    """Return a photograph that lies on its side and says where it was taken."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, CANARY
    out = io.BytesIO()
    with Image.open(io.BytesIO(png(60, 40, "photo"))) as image:
        image.convert("RGB").save(out, "JPEG", exif=exif)
    assert CANARY.encode() in out.getvalue()
    return out.getvalue()


@pytest.mark.parametrize("name", KINDS)
async def test_edit_reaches_its_upstream(stage: Stage, fakes: Mapping[str, Fake], name: str) -> None:
    """Two pictures go upstream in order, upright and without what the camera wrote; one comes back."""
    ann = stage.visit()
    inputs = [{"upload": await brought(ann, photo(), "jpeg")}, {"upload": await brought(ann, png(30, 20))}]
    job = await ann.made("a boat", model=name, operation="edit", inputs=inputs)
    assert (job["state"], job["inputs"]) == ("succeeded", [{**each, "url": None} for each in inputs])
    (made,) = fakes[name].edits
    assert made.prompt == "a boat"
    assert [measured(each) for each in made.images] == [
        ("jpeg", (40, 60), False),
        ("png", (30, 20), False),
    ]
    assert CANARY.encode() not in b"".join(made.images)
    assert (await stage.stranger().get(job["outputs"][0]["url"].removeprefix(stage.url))).status == 200
    assert job["cost"] == {"quoted": 10, "held": 0, "charged": 10, "refunded": 0}


async def test_sandbox_edits_the_picture(stage: Stage) -> None:
    """The keyless provider changes the very picture it was given, and only where the mask is white."""
    ann, white = stage.visit(), io.BytesIO()
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (0, 0, 30, 40))
    mask.save(white, "PNG")
    name, hole = await brought(ann, png(60, 40, "red")), await brought(ann, white.getvalue())
    made = {}
    for what, more in (("plain", {}), ("masked", {"mask": {"upload": hole}})):
        job = await ann.made("a boat", model="sandbox", operation="edit", inputs=[{"upload": name}], **more)
        made[what] = (await stage.stranger().get(job["outputs"][0]["url"].removeprefix(stage.url))).body
    assert made["plain"] != made["masked"]
    again = await ann.made("a boat", model="sandbox", operation="edit", inputs=[{"upload": name}])
    body = (await stage.stranger().get(again["outputs"][0]["url"].removeprefix(stage.url))).body
    assert body == made["plain"]


async def test_mask_is_turned_for_upstream(stage: Stage, fakes: Mapping[str, Fake]) -> None:
    """White means change, whatever the caller's format; where the upstream wants it clear, it is clear."""
    ann, out = stage.visit(), io.BytesIO()
    drawn = Image.new("L", (30, 20), 0)
    drawn.paste(255, (0, 0, 15, 20))
    drawn.save(out, "WEBP", lossless=True)
    name, mask = await brought(ann, png(60, 40)), await brought(ann, out.getvalue(), "webp")
    job = await ann.made(model="openai", operation="edit", inputs=[{"upload": name}], mask={"upload": mask})
    assert job["state"] == "succeeded"
    sent = fakes["openai"].edits[0].mask
    assert sent is not None
    with Image.open(io.BytesIO(sent)) as image:
        assert image.size == (60, 40)
        alpha = image.convert("RGBA").getchannel("A")
        assert (alpha.getpixel((5, 5)), alpha.getpixel((55, 35))) == (0, 255)
    refused = await ann.submit(
        model="gptimage2_plus", operation="edit", inputs=[{"upload": name}], mask={"upload": mask}
    )
    assert (refused.status, refused.code) == (422, "unsupported_option")


@pytest.mark.parametrize("name", [*KINDS, "sandbox"])
async def test_url_is_an_input(stage: Stage, fakes: Mapping[str, Fake], name: str) -> None:
    """A URL is fetched by us, through its redirects; upstreams get bytes or our own link, never the URL."""
    data = photo()
    moved = says(b"HTTP/1.1 302 Found\r\nLocation: /b.jpg\r\nContent-Length: 0\r\n\r\n")
    told = says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    async with RawServer(moved, told) as server:
        url = f"http://127.0.0.1:{server.port}/a.jpg?token=once"
        job = await stage.visit().made(model=name, operation="edit", inputs=[{"url": url}])
        assert (job["state"], server.connections) == ("succeeded", 2)
        assert not any(b"authorization" in request.lower() for request in server.requests)
    if name != "sandbox":
        assert measured(fakes[name].edits[0].images[0]) == ("jpeg", (40, 60), False)
    assert "token=once" not in str(stage.lines)


async def test_unreadable_input_is_refunded(stage: Stage, fakes: Mapping[str, Fake]) -> None:
    """A URL that leads to no picture ends its job unpaid, and nothing of it is kept."""
    page = says(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 6\r\n\r\n<html>")
    async with RawServer(page) as server:
        ann, url = stage.visit(), f"http://127.0.0.1:{server.port}/a.png"
        job = await ann.made(model="openai", operation="edit", inputs=[{"url": url}], count=2)
    assert (job["state"], job["error"]["code"], job["error"]["stage"]) == (
        "failed",
        "input_unreadable",
        "input",
    )
    assert job["error"]["retryable"] is False
    assert job["cost"] == {"quoted": 20, "held": 0, "charged": 0, "refunded": 20}
    assert [short["code"] for short in job["shortfall"]] == ["input_unreadable"] * 2
    assert fakes["openai"].calls == []
    assert kept(stage) == []


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"operation": "edit"}, "invalid_request", "/inputs"),
        ({"inputs": [{"upload": "{good}"}]}, "invalid_request", "/inputs"),
        ({"mask": {"upload": "{good}"}}, "invalid_request", "/mask"),
        ({"operation": "edit", "inputs": [{}]}, "invalid_request", "/inputs/0"),
        ({"operation": "edit", "inputs": [BOTH]}, "invalid_request", "/inputs/0"),
        ({"operation": "edit", "inputs": [{"upload": "{good}"}], "mask": {}}, "invalid_request", "/mask"),
        ({"operation": "edit", "inputs": [{"upload": "{good}"}] * 5}, "plan_required", None),
        ({"operation": "edit", "inputs": [{"upload": "{good}"}] * 17}, "invalid_request", "/inputs"),
    ],
    ids=range(8),
)
async def test_crooked_edit_is_refused(stage: Stage, body: Any, code: str, pointer: str | None) -> None:
    """An edit that cannot be meant is refused before anything is held, with its place and the way out."""
    ann = stage.visit()
    good = await brought(ann, png(9, 9))
    told = _filled(body, good)
    reply = await ann.submit(model="openai", **told)
    assert reply.code == code, reply
    assert pointer is None or pointer in [flaw["pointer"] for flaw in reply.json["errors"]]
    assert (await ann.get("/v1/jobs")).json["data"] == []


def _filled(value: Any, good: str) -> Any:
    """Return a body with a good upload's name where it is asked for."""
    match value:
        case dict():
            return {name: _filled(each, good) for name, each in value.items()}
        case list():
            return [_filled(each, good) for each in value]
        case "{good}":
            return good
        case _:
            return value


async def test_refused_edit_is_blocked(stage: Stage, fakes: Mapping[str, Fake]) -> None:
    """An upstream's refusal of an edit blocks the job and gives all back; the upload may be used again."""
    ann = stage.visit()
    name = await brought(ann, png(60, 40))
    fakes["openai"].script.add(Behavior("refusal"))
    asked: dict[str, Any] = {"model": "openai", "operation": "edit", "inputs": [{"upload": name}]}
    job = await ann.made(**asked)
    assert (job["state"], job["cost"]["charged"]) == ("blocked", 0)
    assert (await ann.made(**asked))["state"] == "succeeded"


async def test_deleted_edit_leaves_nothing(stage: Stage) -> None:
    """With the job go its copies of the inputs, its pictures and the uploads it was made from."""
    ann = stage.visit()
    name = await brought(ann, picture("webp", 60, 40), "webp")
    job = await ann.made(model="sandbox", operation="edit", inputs=[{"upload": name}])
    thumb = job["outputs"][0]["variants"]["thumb"].removeprefix(stage.url)
    assert (await stage.stranger().get(thumb)).status == 200
    assert kept(stage) == ["0.png", "0.thumb.webp", "0.webp", "1000.webp"]
    assert (await ann.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204
    assert kept(stage) == []
