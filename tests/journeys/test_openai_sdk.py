"""The official `openai` Python SDK against a running house: pictures, edits, models, and its own errors."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from msgspec.structs import replace
from PIL import Image

from policies.bundle import Bundle, PerLevel
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import holed, picture
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage

Shop = Callable[..., openai.AsyncOpenAI]


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Return what makes clients, which the test's end closes."""
    made: list[openai.AsyncOpenAI] = []

    def client(stage: Stage, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
        own = {"base_url": f"{stage.url}/v1", "api_key": key or stage.token(), "max_retries": 0}
        made.append(openai.AsyncOpenAI(**{**own, **options}))
        return made[-1]

    yield client
    for each in made:
        await each.close()


def planned(**fields: Any) -> Callable[[Bundle], Bundle]:
    """Return what gives the plan `pro` other terms."""

    def changed(bundle: Bundle) -> Bundle:
        return replace(bundle, plans={**bundle.plans, "pro": replace(bundle.plans["pro"], **fields)})

    return changed


async def test_generate_brings_pictures(stage: Stage, upstream: Fake, shop: Shop) -> None:
    """Pictures come as the bytes the provider made, with what was decided about them beside."""
    made = await shop(stage).images.generate(
        model="gpt-image-2", prompt="a lighthouse", n=2, size="1536x1024", quality="low", output_format="webp"
    )
    assert made.data is not None
    pictures = [base64.b64decode(each.b64_json or "") for each in made.data]
    assert pictures == [picture("webp", 1536, 1024, f"a lighthouse/{at}") for at in range(2)]
    shown = made.model_dump(exclude={"data", "usage"}, exclude_none=True)
    assert shown == {
        "created": made.created,
        "background": "opaque",
        "output_format": "webp",
        "quality": "low",
        "size": "1536x1024",
    }
    assert made.usage is not None
    assert (made.usage.total_tokens, made.usage.input_tokens_details.image_tokens) == (0, 0)
    (job,) = (await stage.visit().get("/v1/jobs")).json["data"]
    assert (job["model"], job["cost"]["charged"], upstream.paid) == ("standard", 2, 1)


async def test_large_bodies_come_whole(stage: Stage, upstream: Fake, shop: Shop) -> None:
    """Pictures and inputs of many bytes come and go as small ones do."""
    noise = Image.frombytes("RGB", (256, 256), random.Random(7).randbytes(3 * 256 * 256))
    with io.BytesIO() as out:
        noise.save(out, "PNG")
        sent = out.getvalue()
    made = await shop(stage).images.edit(
        image=sent, prompt="a hat", size="2304x1536", output_format="jpeg", n=2
    )
    assert made.data is not None
    for at, each in enumerate(made.data):
        assert base64.b64decode(each.b64_json or "") == picture("jpeg", 2304, 1536, f"a hat/{at}")
    with Image.open(io.BytesIO(upstream.edits[0].images[0])) as brought:
        assert brought.tobytes() == noise.tobytes()


async def test_generate_brings_links(stage: Stage, shop: Shop) -> None:
    """`response_format` url brings links that open for whoever has them, with nothing in base64."""
    made = await shop(stage).images.generate(
        prompt="a hat", model="dall-e-3", response_format="url", quality="hd"
    )
    assert made.data is not None
    (shown,) = made.data
    assert shown.b64_json is None
    assert shown.url is not None
    fetched = await stage.stranger().get(shown.url.removeprefix(stage.url))
    assert (fetched.status, fetched.body) == (200, picture("png", 1024, 1024, "a hat/0"))
    assert made.quality == "high"


async def test_unused_fields_are_named(stage: Stage, shop: Shop) -> None:
    """What is passed over is named in a header; who it was made for stays with the job alone."""
    raw = await shop(stage).images.with_raw_response.generate(
        prompt="a hat", moderation="low", style="vivid", user="u-7", extra_body={"seed": 7}
    )
    assert raw.headers["safelight-ignored"] == "moderation, style, seed"
    assert raw.headers["x-request-id"]
    (job,) = (await stage.visit().get("/v1/jobs")).json["data"]
    assert job["metadata"] == {"user": "u-7"}


@pytest.mark.parametrize("count", [1, 3])
async def test_edit_brings_inputs(stage: Stage, upstream: Fake, shop: Shop, count: int) -> None:
    """One image or several are sent on in order, and the edit comes back."""
    images = [("a.png", picture("png", 64, 48, f"{at}"), "image/png") for at in range(count)]
    made = await shop(stage).images.edit(
        image=images if count > 1 else images[0], prompt="a hat", model="gpt-image-2"
    )
    assert made.data is not None
    assert made.data[0].b64_json is not None
    (edit,) = upstream.edits
    assert len(edit.images) == count
    for sent, (_, brought, _) in zip(edit.images, images, strict=True):
        with Image.open(io.BytesIO(sent)) as one, Image.open(io.BytesIO(brought)) as other:
            assert one.convert("RGB").tobytes() == other.convert("RGB").tobytes()
    (job,) = (await stage.visit().get("/v1/jobs")).json["data"]
    assert (job["operation"], len(job["inputs"]), job["cost"]["charged"]) == ("edit", count, 10)


async def test_edit_brings_mask(stage: Stage, upstream: Fake, shop: Shop) -> None:
    """A mask goes to the provider as it came: transparent where the picture is to change, and only there."""
    await shop(stage).images.edit(
        image=picture("png", 64, 48, "a"), mask=holed(64, 48), prompt="a hat", n=2, size="1024x1024"
    )
    (edit,) = upstream.edits
    assert edit.mask is not None
    with Image.open(io.BytesIO(edit.mask)) as sent:
        assert sent.size == (64, 48)
        alpha = sent.getchannel("A")
        assert (alpha.getpixel((0, 0)), alpha.getpixel((31, 47)), alpha.getpixel((32, 0))) == (0, 0, 255)


async def test_edit_takes_json(stage: Stage, upstream: Fake, shop: Shop) -> None:
    """In JSON images are named by URL: one of the web is fetched, one that holds its bytes is read."""
    client = shop(stage)
    made = await client.images.generate(prompt="a hat", response_format="url")
    assert made.data is not None
    images = [{"image_url": made.data[0].url}, {"image_url": _url(picture("png", 64, 48, "a"))}]
    body = {"prompt": "another", "images": images, "mask": {"image_url": _url(holed(1024, 1024))}}
    edited = await client.post("/images/edits", cast_to=openai.types.ImagesResponse, body=body)
    assert edited.data is not None
    (edit,) = upstream.edits
    assert (len(edit.images), edit.mask is not None) == (2, True)


def _url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"image": b"no image"}, "image"),
        ({"image": [picture("png", 64, 48, "a")] * 5}, None),
        ({"image": picture("png", 64, 48, "a"), "mask": picture("png", 64, 48, "a")}, "mask"),
        ({"image": picture("png", 64, 48, "a"), "mask": b"no mask"}, "mask"),
        ({"image": picture("png", 64, 48, "a"), "n": 9}, "n"),
        ({"image": picture("png", 64, 48, "a"), "markup": picture("png", 64, 48, "a")}, "markup"),
    ],
)
async def test_bad_edits_are_refused(
    stage: Stage, upstream: Fake, shop: Shop, fields: dict[str, Any], param: str | None
) -> None:
    """What is no image, no mask or too many is refused by name before anything is spent."""
    with pytest.raises(openai.APIStatusError) as refused:
        await shop(stage).images.edit(prompt="a hat", **fields)
    error = refused.value
    assert (error.status_code, error.param) == (403 if param is None else 400, param)
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []
    assert upstream.paid == 0


async def test_models_are_listed(stage: Stage, shop: Shop) -> None:
    """The SDK lists the caller's models and retrieves each; one that is not there is its NotFoundError."""
    client = shop(stage)
    names = [model.id async for model in client.models.list()]
    assert names == ["standard", "quick"]
    model = await client.models.retrieve("quick")
    assert (model.id, model.object, model.owned_by) == ("quick", "model", "safelight")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("fine")


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        ({"prompt": "a safelight-blocked hat"}, openai.BadRequestError, ("prompt", "moderation_blocked")),
        ({"prompt": "an unwanted hat"}, openai.BadRequestError, ("prompt", "moderation_blocked")),
        ({"prompt": " "}, openai.BadRequestError, ("prompt", "invalid_value")),
        ({"prompt": "x" * 4001}, openai.BadRequestError, ("prompt", "invalid_value")),
        ({"size": "256x256"}, openai.BadRequestError, ("size", "invalid_value")),
        ({"quality": "max"}, openai.BadRequestError, ("quality", "invalid_value")),
        ({"n": 5}, openai.BadRequestError, ("n", "invalid_value")),
        ({"n": 11}, openai.BadRequestError, ("n", "invalid_value")),
        (
            {"background": "transparent", "output_format": "jpeg"},
            openai.BadRequestError,
            ("background", "invalid_value"),
        ),
        ({"stream": True}, openai.BadRequestError, ("stream", "unsupported_parameter")),
        ({"partial_images": 1}, openai.BadRequestError, ("partial_images", "unsupported_parameter")),
        ({"model": "gpt-5"}, openai.NotFoundError, ("model", "model_not_found")),
        ({"model": "fine"}, openai.PermissionDeniedError, (None, "plan_required")),
        ({"prompt": "a broken hat"}, openai.InternalServerError, (None, "upstream_failed")),
        ({"prompt": "a cut hat"}, openai.InternalServerError, (None, "outcome_unknown")),
    ],
)
async def test_errors_are_typed(
    stage: Stage,
    upstream: Fake,
    shop: Shop,
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    told: tuple[str | None, str],
) -> None:
    """Each refusal and each failure is the SDK's own exception, names its field and costs nothing."""
    upstream.script.add(
        Behavior(do="refusal", match="unwanted", times=0),
        Behavior(do="malformed", match="broken", times=0),
        Behavior(do="reset_after", match="cut", times=0),
    )
    with pytest.raises(kind) as refused:
        await shop(stage).images.generate(**{"prompt": "a hat", **fields})
    error = refused.value
    assert (error.param, error.code) == told
    assert error.request_id
    retried = error.response.headers["x-should-retry"] == "true"
    assert retried is (error.code == "upstream_failed")
    credits_ = (await stage.visit().get("/v1/account")).json["credits"]
    assert (credits_["charged"], credits_["held"]) == (0, 0)


async def test_rate_limit_is_typed(opening: Opening, upstream: Fake, shop: Shop) -> None:
    """At the limit the SDK raises RateLimitError; its Retry-After is when one more is let in."""
    stage = await opening(providers=entry(upstream), bundle=planned(submit_per_hour=PerLevel(1, 9)))
    stage.clock.hold()
    client = shop(stage)
    await client.images.generate(prompt="one")
    with pytest.raises(openai.RateLimitError) as refused:
        await client.images.generate(prompt="two")
    headers = refused.value.response.headers
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
    assert (headers["retry-after"], headers["x-should-retry"]) == ("3600", "true")
    stage.clock.move(3_599_999)
    with pytest.raises(openai.RateLimitError):
        await client.with_options(api_key=stage.token()).images.generate(prompt="two")
    stage.clock.move(1)
    await client.with_options(api_key=stage.token()).images.generate(prompt="two")


@pytest.mark.parametrize("field", ["credits_per_month", "monthly_cap"])
async def test_lack_of_credits_is_typed(opening: Opening, upstream: Fake, shop: Shop, field: str) -> None:
    """Without credits or above the cap it is OpenAI's quota error, which the SDK does not send again."""
    stage = await opening(providers=entry(upstream), bundle=planned(**{field: 5}))
    with pytest.raises(openai.RateLimitError) as refused:
        await shop(stage, max_retries=2).images.generate(prompt="a hat")
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    refused_times = [line for line in stage.lines if line.get("status") == 429]
    assert len(refused_times) == 1


async def test_bad_keys_are_typed(stage: Stage, shop: Shop) -> None:
    """A key that is none is AuthenticationError, wherever it is used."""
    client = shop(stage, key="sk-nobody")
    for call in (client.images.generate(prompt="a hat"), client.models.retrieve("quick")):
        with pytest.raises(openai.AuthenticationError):
            await call
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.images.edit(prompt="a hat", image=b"x" * 2**21)
    assert (refused.value.code, refused.value.param) == ("invalid_api_key", None)


async def test_service_keys_are_api_keys(stage: Stage, shop: Shop) -> None:
    """A service key is what the SDK calls an API key: its pictures are its subject's, until it is revoked."""
    ann = stage.visit()
    made = (await ann.post("/v1/keys", {"label": "a script"})).json
    client = shop(stage, key=made["key"])
    await client.images.generate(prompt="a hat")
    (job,) = (await ann.get("/v1/jobs")).json["data"]
    assert job["subject"] == "ann"
    await ann.ask("DELETE", f"/v1/keys/{made['id']}")
    with pytest.raises(openai.AuthenticationError):
        await client.images.generate(prompt="a hat")


async def test_plans_open_the_dialect(opening: Opening, upstream: Fake, shop: Shop) -> None:
    """A plan without this API is PermissionDeniedError, told in this API's words."""
    stage = await opening(providers=entry(upstream), bundle=planned(dialects=("native",)))
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await shop(stage).images.generate(prompt="a hat")
    assert (refused.value.code, refused.value.type) == ("plan_required", "invalid_request_error")


async def test_keys_make_one_job(stage: Stage, upstream: Fake, shop: Shop) -> None:
    """With an Idempotency-Key the same request is the same pictures, and another one a ConflictError."""
    client, key = shop(stage), {"Idempotency-Key": "k-1"}
    first = await client.images.generate(prompt="a hat", extra_headers=key)
    raw = await client.images.with_raw_response.generate(prompt="a hat", extra_headers=key)
    assert raw.headers["idempotent-replayed"] == "true"
    assert raw.parse() == first
    with pytest.raises(openai.ConflictError) as refused:
        await client.images.generate(prompt="a coat", extra_headers=key)
    assert refused.value.code == "idempotency_key_reused"
    assert upstream.paid == 1
