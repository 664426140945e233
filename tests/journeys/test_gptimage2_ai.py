"""gptimage2.ai's API as its clients call it: the table of answers, and what the document promises."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from msgspec.structs import replace

from policies.bundle import Bundle
from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage
from tests.journeys.visitor import Reply, Visitor

CREATE = "/api/generate"
BRIEF = "A clean studio product photo of a ceramic espresso cup"
FULL = {"paidCredits": 490, "freeImagesRemaining": 0, "totalImages": 49, "freeImagesPerDay": 0}
FIELDS = ("style", "lighting", "camera", "negative")


def five_hundred(bundle: Bundle) -> Bundle:
    """Give each tenant 500 credits."""
    plan = replace(bundle.plans["pro"], credits_per_month=500)
    return replace(bundle, plans=bundle.plans | {"pro": plan})


async def create(visitor: Visitor, **fields: Any) -> Reply:
    """Submit as the document does."""
    return await visitor.post(CREATE, {"prompt": BRIEF, **fields})


async def ended(visitor: Visitor, job: str) -> Reply:
    """Wait for the job's end and poll it as the document does."""
    await visitor.get(f"/v1/jobs/{job}?wait=20")
    return await visitor.get(f"{CREATE}/{job}")


@pytest.mark.fact("A1", "A2", "A5", "A17", "A18", "A20", "A21", "A22", "A23", "A24", "A25", "A37")
async def test_create_and_poll(opening: Opening, upstream: Fake) -> None:
    """A create is 202 with what is left, a poll 202 until it is 200 with pictures; the balance stands."""
    upstream.script.add(Behavior(do="slow", seconds=0.2))
    stage = await opening(providers=entry(upstream), bundle=five_hundred)
    ann = stage.visit()
    made = await create(ann, mode="text-to-image", ratio="1:1", count=1, style="studio-product")
    assert made.status == 202
    job = made.json["jobId"]
    assert str(uuid.UUID(job)) == job
    assert made.json == {"jobId": job, "status": "pending", "balance": FULL}
    assert made.headers["cache-control"] == "no-store"
    assert made.headers["content-type"] == "application/json"
    early = await ann.get(f"{CREATE}/{job}")
    assert (early.status, "results" in early.json) == (202, False)
    assert early.json["status"] in ("pending", "running")
    reply = await ended(ann, job)
    assert (reply.status, reply.json["status"], reply.json["balance"]) == (200, "succeeded", FULL)
    (result,) = reply.json["results"]
    assert result.keys() == {"imageUrl", "seed", "finalPrompt"}
    assert isinstance(result["seed"], str)
    assert result["finalPrompt"].startswith(BRIEF)
    picture = await stage.stranger().get(result["imageUrl"].removeprefix(stage.url))
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert upstream.paid == 1


@pytest.mark.fact("A6", "A19")
@pytest.mark.parametrize(
    ("behavior", "error"),
    [("refusal", "prompt_blocked"), ("malformed", "image_generation_failed")],
)
async def test_failure_is_one_code(opening: Opening, upstream: Fake, behavior: str, error: str) -> None:
    """A job without a picture is 200, failed, with one code and no results, and its credits are back."""
    upstream.script.add(Behavior(do=behavior, times=0))  # type: ignore[arg-type]
    stage = await opening(providers=entry(upstream), bundle=five_hundred)
    ann = stage.visit()
    reply = await ended(ann, (await create(ann)).json["jobId"])
    assert reply.status == 200
    balance = {**FULL, "paidCredits": 500, "totalImages": 50}
    job = reply.json["jobId"]
    assert reply.json == {"jobId": job, "status": "failed", "error": error, "balance": balance}


async def test_canceled_elsewhere_is_told(opening: Opening, upstream: Fake) -> None:
    """A job canceled by our own API is a failed one here, by the code canceled."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    job = (await create(ann)).json["jobId"]
    await ann.post(f"/v1/jobs/{job}/cancel")
    reply = await ann.get(f"{CREATE}/{job}")
    assert (reply.status, reply.json["status"], reply.json["error"]) == (200, "failed", "canceled")


@pytest.mark.fact("A7", "A32")
@pytest.mark.parametrize("prompt", [None, "", "   \n", 7, ["a"], "\u200b"])
async def test_prompt_is_required(stage: Stage, prompt: object) -> None:
    """A prompt that is absent, blank or no text is refused before anything is spent."""
    reply = await stage.visit().post(CREATE, {} if prompt is None else {"prompt": prompt})
    assert (reply.status, reply.json["error"]) == (400, "prompt_required")
    assert isinstance(reply.json["message"], str)


@pytest.mark.fact("A8", "A9", "A11", "A32")
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"prompt": "x" * 4001}, "prompt_too_long"),
        ({"prompt": "x" * 40_000}, "prompt_too_long"),
        ({"mode": "inpaint"}, "invalid_mode"),
        ({"mode": 1}, "invalid_mode"),
        ({"ratio": "21:9"}, "invalid_ratio"),
        ({"ratio": "wide"}, "invalid_ratio"),
        ({"ratio": 1}, "invalid_ratio"),
        ({"count": "2"}, "invalid_count"),
        ({"count": True}, "invalid_count"),
        ({"mode": "image-to-image"}, "image_urls_required"),
        ({"mode": "image-to-image", "imageUrls": []}, "image_urls_required"),
        ({"imageUrls": ["https://a.example.com/1.png"] * 5}, "too_many_image_urls"),
        ({"imageUrls": ["https://10.0.0.1/1.png"]}, "invalid_image_url"),
        ({"imageUrls": "https://a.example.com/1.png"}, "invalid_image_url"),
        ({"imageUrls": [7]}, "invalid_image_url"),
        *(({field: "x" * 1001}, "invalid_field") for field in FIELDS),
        *(({field: 7}, "invalid_field") for field in FIELDS),
        ({"style": "Not A Slug"}, "invalid_field"),
        ({"ratio": "bad", "count": "bad", "mode": "bad"}, "invalid_mode"),
    ],
)
async def test_mistakes_are_one_code(stage: Stage, fields: dict[str, object], error: str) -> None:
    """A mistake is 400 with one code, the first in the document's order, and nothing is made."""
    reply = await stage.visit().post(CREATE, {"prompt": BRIEF, **fields})
    assert (reply.status, reply.json["error"]) == (400, error)
    assert (await stage.visit().get("/v1/jobs")).json["data"] == []


@pytest.mark.parametrize("body", [b"[]", b"7", b"{", b'{"prompt": "a", "prompt": "b"}'])
async def test_body_must_be_an_object(stage: Stage, body: bytes) -> None:
    """What is not a JSON object is told so in one code."""
    reply = await stage.visit().ask("POST", CREATE, body=body)
    assert (reply.status, reply.json["error"]) == (400, "invalid_body")


@pytest.mark.fact("A10", "A33")
@pytest.mark.parametrize(
    ("count", "made"), [(None, 1), (0, 1), (-3, 1), (1, 1), (2.9, 2), (4, 4), (9, 4), (1e9, 4)]
)
async def test_count_is_capped(opening: Opening, upstream: Fake, count: object, made: int) -> None:
    """A number is cut to a whole one between 1 and 4; without one a single image is made."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    reply = await create(ann, **({} if count is None else {"count": count}))
    assert reply.status == 202
    assert (await ann.get(f"/v1/jobs/{reply.json['jobId']}")).json["count"] == made


@pytest.mark.fact("A12", "A13", "A14", "A15", "A16", "A34")
async def test_hints_are_appended(opening: Opening, upstream: Fake) -> None:
    """Style, lighting, camera and negative go into the final prompt; a style nobody knows as its words."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    reply = await create(
        ann, style="watercolor", lighting="soft window light", camera="85 mm", negative="text", ratio="16:9"
    )
    job = (await ann.get(f"/v1/jobs/{reply.json['jobId']}")).json
    lines = [
        BRIEF,
        "Style: watercolor",
        "Lighting: soft window light",
        "Camera: 85 mm",
        "Avoid: text",
    ]
    assert job["final_prompt"].splitlines() == lines
    assert any("watercolor" in note for note in job["adjustments"])
    assert (job["aspect_ratio"], job["quality"], job["prompt"]) == ("16:9", "medium", BRIEF)


@pytest.mark.fact("A36")
async def test_unknown_fields_are_named(opening: Opening, upstream: Fake) -> None:
    """Fields of another provider are passed over and named; text-to-image passes over URLs."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    reply = await create(ann, width=1024, height=1024)
    assert (reply.status, reply.headers["safelight-ignored"]) == (202, "width, height")
    urls = await create(ann, mode="text-to-image", imageUrls=["https://cdn.example.com/a.png"])
    assert (urls.status, urls.headers["safelight-ignored"]) == (202, "imageUrls")
    job = (await ann.get(f"/v1/jobs/{urls.json['jobId']}")).json
    assert (job["operation"], job["inputs"]) == ("generate", [])


@pytest.mark.fact("A34")
async def test_key_replays_the_job(opening: Opening, upstream: Fake) -> None:
    """A repeat with its key is the same job and charges nothing; another body under it is 409."""
    stage = await opening(providers=entry(upstream), concurrency=0, bundle=five_hundred)
    ann = stage.visit()
    first = await ann.post(CREATE, {"prompt": BRIEF}, Idempotency_Key="order-7")
    again = await ann.post(CREATE, {"prompt": BRIEF, "count": 1}, Idempotency_Key='"order-7"')
    assert (again.status, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json == first.json
    other = await ann.post(CREATE, {"prompt": "another"}, Idempotency_Key="order-7")
    assert (other.status, other.json["error"]) == (409, "idempotency_key_reused")


@pytest.mark.fact("A4", "A35")
async def test_refusals_have_one_form(opening: Opening, upstream: Fake) -> None:
    """Each refusal is a status, a code and a sentence; what belongs to another is not found."""

    def tight(bundle: Bundle) -> Bundle:
        pro = replace(
            bundle.plans["pro"],
            credits_per_month=15,
            in_flight=replace(bundle.plans["pro"].in_flight, user=1),
        )
        return replace(bundle, plans=bundle.plans | {"pro": pro})

    stage = await opening(providers=entry(upstream), concurrency=0, bundle=tight)
    ann = stage.visit()
    seen: dict[str, Reply] = {
        "unauthorized": await stage.stranger().post(CREATE, {"prompt": BRIEF}),
        "plan_required": await stage.visit("eve", plan="free").post(CREATE, {"prompt": BRIEF}),
        "job_not_found": await ann.get(f"{CREATE}/{uuid.uuid4()}"),
        "unsupported_media_type": await ann.ask("POST", CREATE, {"Content-Type": "text/plain"}, b"{}"),
        "payload_too_large": await ann.ask("POST", CREATE, {}, b" " * (2**20 + 1)),
        "prompt_blocked": await create(ann, prompt="nude child"),
        "insufficient_credits": await create(ann, count=2),
        "method_not_allowed": await ann.ask("DELETE", CREATE),
    }
    job = (await create(ann)).json["jobId"]
    seen["too_many_in_flight"] = await create(ann)
    foreign = await stage.visit("bob", "other").get(f"{CREATE}/{job}")
    statuses = (401, 403, 404, 415, 413, 422, 402, 405, 429)
    assert [reply.status for reply in seen.values()] == list(statuses)
    for code, reply in seen.items():
        assert reply.json["error"] == code, reply
        assert isinstance(reply.json["message"], str)
        assert reply.headers["content-type"] == "application/json"
    assert seen["insufficient_credits"].json["balance"]["paidCredits"] == 15
    assert seen["unauthorized"].headers["www-authenticate"].startswith("Bearer")
    assert int(seen["too_many_in_flight"].headers["retry-after"]) >= 1
    assert foreign.json == seen["job_not_found"].json


async def test_store_fault_is_told(stage: Stage) -> None:
    """A store that does not answer is 503 in this API's words, with a time to come again."""
    stage.sick.verb = "submit"
    reply = await create(stage.visit())
    assert (reply.status, reply.json["error"]) == (503, "service_unavailable")
    assert "retry-after" in reply.headers
