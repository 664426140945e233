"""gptimage2.plus's API as its clients call it: the table of answers, and what the document promises."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from msgspec.structs import replace

from policies.bundle import Bundle
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import png
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import HOUR, Stage
from tests.journeys.visitor import Reply, Visitor

CREATE = "/api/v1/generate"
BRIEF = "A lighthouse at dusk, 35 mm, f/2.8, soft rim light"
INSTANT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def create(visitor: Visitor, **fields: Any) -> Reply:
    """Submit as the document does."""
    return await visitor.post(CREATE, {"prompt": BRIEF, **fields})


async def ended(visitor: Visitor, job: str) -> Reply:
    """Wait for the job's end and poll it as the document does."""
    await visitor.get(f"/v1/jobs/{job}?wait=20")
    return await visitor.get(f"/api/v1/generations/{job}")


def changed(**fields: Any) -> Any:
    """Return what changes the plan `pro`."""

    def change(bundle: Bundle) -> Bundle:
        pro = replace(bundle.plans["pro"], **fields)
        return replace(bundle, plans=bundle.plans | {"pro": pro})

    return change


@pytest.mark.fact("P5", "P7", "P9", "P10", "P11", "P12", "P15", "P25", "P40", "P41", "P42", "P60")
async def test_generate_and_poll(opening: Opening, upstream: Fake) -> None:
    """A submit is 202 at once, a poll 200 always, and each answer tells of the hour's 600."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    made = await create(ann, quality="low")
    job = made.json["generationId"]
    assert (made.status, made.json) == (202, {"generationId": job, "status": "queued"})
    assert str(uuid.UUID(job)) == job
    reply = await ann.get(f"/api/v1/generations/{job}")
    assert reply.status == 200
    shown = reply.json
    assert INSTANT.fullmatch(shown.pop("createdAt"))
    assert shown == {
        "id": job,
        "status": "queued",
        "type": "text2img",
        "outputs": [],
        "error": None,
        "costCredits": 1,
        "completedAt": None,
    }
    for answer in (made, reply):
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == (
            "600",
            "599",
        )
        assert int(answer.headers["x-ratelimit-reset"]) * 1000 > stage.clock()
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert "retry-after" not in answer.headers
        assert "x-request-id" in answer.headers


@pytest.mark.fact("P17", "P20", "P22", "P23", "P44", "P45", "P46", "P47", "P48", "P49")
async def test_success_has_public_outputs(stage: Stage, upstream: Fake) -> None:
    """A success has a PNG and a WebP an output, by links anyone may open and keep, and its cost."""
    ann = stage.visit()
    reply = await ended(ann, (await create(ann, n=2)).json["generationId"])
    shown = reply.json
    assert (shown["status"], shown["error"], shown["costCredits"]) == ("succeeded", None, 20)
    assert INSTANT.fullmatch(shown["completedAt"])
    assert len(shown["outputs"]) == 2
    for output in shown["outputs"]:
        assert output.keys() == {"png", "webp", "width", "height"}
        assert (output["width"], output["height"]) == (1024, 1024)
        for kind in ("png", "webp"):
            picture = await stage.stranger().get(output[kind].removeprefix(stage.url))
            assert (picture.status, picture.headers["content-type"]) == (200, f"image/{kind}")
            assert picture.headers["cache-control"] == "public, max-age=86400, immutable"
    stage.clock.move(100 * HOUR)
    later = await stage.visit().get(f"/api/v1/generations/{shown['id']}")
    assert later.json["outputs"] == shown["outputs"]
    assert (await stage.stranger().get(shown["outputs"][0]["png"].removeprefix(stage.url))).status == 200
    assert (await stage.visit().ask("DELETE", f"/v1/jobs/{shown['id']}")).status == 204
    assert (await stage.stranger().get(shown["outputs"][0]["png"].removeprefix(stage.url))).status == 404


@pytest.mark.fact("P43", "P47", "P48")
@pytest.mark.parametrize(
    ("behavior", "status", "error"),
    [
        ("refusal", "blocked", "Blocked by content policy"),
        ("malformed", "failed", "Image generation failed"),
    ],
)
async def test_end_without_picture(
    stage: Stage, upstream: Fake, behavior: Any, status: str, error: str
) -> None:
    """Blocked and failed are told with a sentence and cost nothing."""
    upstream.script.add(Behavior(do=behavior, times=0))
    ann = stage.visit()
    shown = (await ended(ann, (await create(ann)).json["generationId"])).json
    assert (shown["status"], shown["error"]) == (status, error)
    assert (shown["outputs"], shown["costCredits"]) == ([], 0)
    assert INSTANT.fullmatch(shown["completedAt"])


@pytest.mark.fact("P19", "P21")
@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1024, 1024)),
        ({"size": "1536x1024"}, (1536, 1024)),
        ({"quality": "high"}, (2048, 2048)),
        ({"quality": "high", "size": "1024x1536"}, (1536, 2304)),
    ],
)
async def test_high_is_the_large_size(stage: Stage, fields: dict[str, str], size: tuple[int, int]) -> None:
    """A size is made as it is asked for; high is the large one of the same ratio, at one price."""
    ann = stage.visit()
    shown = (await ended(ann, (await create(ann, **fields)).json["generationId"])).json
    (output,) = shown["outputs"]
    assert (output["width"], output["height"]) == size
    assert shown["costCredits"] == (40 if "quality" in fields else 10)


@pytest.mark.fact("P16", "P18", "P26")
async def test_bad_body_lists_all(stage: Stage) -> None:
    """Every mistake of a body is an issue as Zod words it, and all of them one sentence."""
    reply = await stage.visit().post(CREATE, {"n": 9})
    issues = [
        {"path": ["prompt"], "message": "Required", "code": "invalid_type"},
        {"path": ["n"], "message": "Number must be less than or equal to 4", "code": "too_big"},
    ]
    error = "Invalid body: prompt: Required; n: Number must be less than or equal to 4"
    assert (reply.status, reply.json) == (
        400,
        {"error": error, "code": "invalid_request", "issues": issues},
    )


@pytest.mark.fact("P16", "P18", "P19", "P20", "P23", "P24", "P35")
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": ""}, ["prompt"]),
        ({"prompt": "  "}, ["prompt"]),
        ({"prompt": "x" * 4001}, ["prompt"]),
        ({"prompt": 7}, ["prompt"]),
        ({"prompt": None}, ["prompt"]),
        ({"type": "upscale"}, ["type"]),
        ({"type": None}, ["type"]),
        ({"type": "edit"}, ["inputImageKeys"]),
        ({"type": "edit", "inputImageKeys": []}, ["inputImageKeys"]),
        ({"inputImageKeys": ["up_1"]}, ["inputImageKeys"]),
        ({"type": "edit", "inputImageKeys": ["a"] * 5}, ["inputImageKeys"]),
        ({"type": "edit", "inputImageKeys": ["a", 7]}, ["inputImageKeys", 1]),
        ({"type": "edit", "inputImageKeys": [""]}, ["inputImageKeys", 0]),
        ({"type": "edit", "inputImageKeys": "a"}, ["inputImageKeys"]),
        ({"size": "512x512"}, ["size"]),
        ({"quality": "ultra"}, ["quality"]),
        ({"n": 0}, ["n"]),
        ({"n": 1.5}, ["n"]),
        ({"n": "1"}, ["n"]),
        ({"n": True}, ["n"]),
    ],
)
async def test_mistake_has_its_place(stage: Stage, fields: dict[str, object], path: list[object]) -> None:
    """A mistake is 400 at its place, and nothing is made."""
    ann = stage.visit()
    reply = await create(ann, **fields)
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    (issue,) = reply.json["issues"]
    assert issue["path"] == path
    assert reply.json["error"] == f"Invalid body: {'.'.join(map(str, path))}: {issue['message']}"
    assert (await ann.get("/v1/jobs")).json["data"] == []


@pytest.mark.fact("P16")
async def test_prompt_is_measured_as_sent(opening: Opening, upstream: Fake) -> None:
    """A prompt's characters are counted as they go out: composed, and without the blanks around it."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann, letter = stage.visit(), "e\u0301"
    assert (await create(ann, prompt=f"  {letter * 4000}\n")).status == 202
    reply = await create(ann, prompt=letter * 4001)
    assert (reply.status, [issue["path"] for issue in reply.json["issues"]]) == (400, [["prompt"]])


@pytest.mark.parametrize("body", [b"[]", b"{", b"", b'{"prompt": "a", "prompt": "b"}'])
async def test_body_must_be_an_object(stage: Stage, body: bytes) -> None:
    """What is not a JSON object is a bad body."""
    reply = await stage.visit().ask("POST", CREATE, {"Content-Type": "application/json"}, body)
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert reply.json["error"].startswith("Invalid body: ")


@pytest.mark.fact("P13", "P14")
async def test_key_returns_the_generation(stage: Stage, upstream: Fake) -> None:
    """A repeat with its key is 202 with the generation as it now is, and one charge; another body is 409."""
    ann = stage.visit()
    made = await ann.post(CREATE, {"prompt": BRIEF}, Idempotency_Key="order-7")
    await ended(ann, made.json["generationId"])
    again = await ann.post(CREATE, {"prompt": BRIEF}, Idempotency_Key="order-7")
    assert (again.status, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json == {"generationId": made.json["generationId"], "status": "succeeded"}
    assert again.headers["x-ratelimit-remaining"] == "599"
    assert upstream.paid == 1
    other = await ann.post(CREATE, {"prompt": BRIEF, "n": 2}, Idempotency_Key="order-7")
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")


async def test_unknown_fields_are_named(stage: Stage) -> None:
    """Fields the document does not have are passed over and named."""
    reply = await create(stage.visit(), seed=7, negative_prompt="text", **{"bad name": 1})
    assert (reply.status, reply.headers["safelight-ignored"]) == (202, "seed, negative_prompt")


@pytest.mark.fact("P3", "P6")
async def test_person_makes_their_key(stage: Stage) -> None:
    """Whoever has an account makes a key that begins as documented, and it opens this API as themself."""
    ann = stage.visit()
    shown = (await ann.post("/v1/keys", {"prefix": "gimg", "label": "my script"})).json
    assert re.fullmatch(r"gimg_[A-Za-z0-9_-]{32,}", shown["key"])
    made = await create(Visitor(stage.url, stage.tape, shown["key"]))
    assert made.status == 202
    assert (await ended(ann, made.json["generationId"])).json["status"] == "succeeded"


@pytest.mark.fact("P2", "P8", "P27", "P28", "P29", "P30", "P31", "P32")
async def test_refusals_have_one_form(opening: Opening, upstream: Fake) -> None:
    """Each refusal is a status, a sentence and a code; 422 is a blocked prompt alone."""
    tight = changed(credits_per_month=15)
    stage = await opening(providers=entry(upstream), concurrency=0, bundle=tight)
    ann = stage.visit()
    seen: dict[str, tuple[int, Reply]] = {
        "unauthenticated": (401, await stage.stranger().post(CREATE, {"prompt": BRIEF})),
        "plan_required": (403, await stage.visit("eve", plan="free").post(CREATE, {"prompt": BRIEF})),
        "not_found": (404, await ann.get(f"/api/v1/generations/{uuid.uuid4()}")),
        "method_not_allowed": (405, await ann.get(CREATE)),
        "payload_too_large": (413, await ann.ask("POST", CREATE, {}, b" " * (2**20 + 1))),
        "unsupported_media_type": (
            415,
            await ann.ask("POST", CREATE, {"Content-Type": "text/plain"}, b"{}"),
        ),
        "prompt_blocked": (422, await create(ann, prompt="nude child")),
        "insufficient_credits": (402, await create(ann, n=2)),
    }
    for _ in range(5):
        assert (await create(ann, quality="low")).status == 202
    seen["too_many_in_flight"] = (429, await create(ann, quality="low"))
    stage.sick.verb = "submit"
    seen["store_unavailable"] = (503, await create(ann))
    for code, (status, reply) in seen.items():
        assert (reply.status, reply.json["code"]) == (status, code), reply
        assert isinstance(reply.json["error"], str)
        assert reply.headers["content-type"] == "application/json"
        assert ("retry-after" in reply.headers) == (status in (429, 503))
    assert seen["unauthenticated"][1].headers["www-authenticate"].startswith("Bearer")
    assert seen["not_found"][1].json == {"error": "Not found", "code": "not_found"}
    other = await stage.visit("bob", "other").get(f"/api/v1/generations/{uuid.uuid4()}")
    assert other.json == seen["not_found"][1].json
    assert (await ann.get("/api/v1/nothing")).json == seen["not_found"][1].json


@pytest.mark.fact("P28")
async def test_monthly_cap_is_402(opening: Opening, upstream: Fake) -> None:
    """The month's cap is told as the document words it."""
    stage = await opening(providers=entry(upstream), concurrency=0, bundle=changed(monthly_cap=5))
    reply = await create(stage.visit())
    assert (reply.status, reply.json["code"]) == (402, "monthly_cap_reached")
    assert reply.json["error"] == "Monthly compute cap reached"


@pytest.mark.fact("P7", "P31")
async def test_hour_is_counted_and_told(opening: Opening, upstream: Fake) -> None:
    """The hour's calls are counted by submits alone; past them 429 says when one is admitted again."""

    def few(bundle: Bundle) -> Bundle:
        pro = bundle.plans["pro"]
        per_hour = replace(pro.submit_per_hour, user=2)
        return changed(submit_per_hour=per_hour)(bundle)  # type: ignore[no-any-return]

    stage = await opening(providers=entry(upstream), concurrency=0, bundle=few)
    ann = stage.visit()
    jobs = [(await create(ann, quality="low")).json["generationId"] for _ in range(2)]
    for _ in range(5):
        assert (await ann.get(f"/api/v1/generations/{jobs[0]}")).headers["x-ratelimit-remaining"] == "0"
    late = await create(ann, quality="low")
    assert (late.status, late.json["code"]) == (429, "rate_limited")
    stage.clock.move(int(late.headers["retry-after"]) * 1000)
    assert (await create(ann, quality="low")).status == 202


async def test_job_is_read_in_any_api(stage: Stage) -> None:
    """A job made here is our own API's too, and one made there is read here, in either spelling."""
    ann = stage.visit()
    native = await ann.made()
    shown = (await ann.get(f"/api/v1/generations/{native['id']}")).json
    assert (shown["status"], len(shown["outputs"])) == ("succeeded", 1)
    assert shown["outputs"][0]["webp"] == shown["outputs"][0]["png"]
    here = (await create(ann)).json["generationId"]
    assert (await ann.get(f"/v1/jobs/{here}")).json["prompt"] == BRIEF


# -- uploads and edits ---------------------------------------------------------------------------------


async def put(stage: Stage, url: str, data: bytes, **headers: str) -> Reply:
    """PUT bytes to the URL of an upload, as anyone who holds it may."""
    named = {"Content-Type": "image/png", **headers}
    return await stage.stranger().ask("PUT", url.removeprefix(stage.url), named, data)


@pytest.mark.fact("P18", "P24", "P33", "P34", "P35", "P36", "P37", "P38", "P39", "P44")
async def test_edit_of_an_upload(stage: Stage, upstream: Fake) -> None:
    """Two steps bring an image, its key makes an edit; the URL of the PUT is good for five minutes."""
    ann, data = stage.visit(), png(64, 64)
    declared = {"filename": "../../etc/passwd", "contentType": "image/png", "size": len(data)}
    asked = await ann.post("/api/v1/upload", declared)
    assert (asked.status, asked.json.keys()) == (200, {"url", "key"})
    assert "passwd" not in asked.json["url"] + asked.json["key"]
    early = await create(ann, type="edit", inputImageKeys=[asked.json["key"]])
    assert (early.status, early.json["code"]) == (400, "unsupported_option")
    arrived = await put(stage, asked.json["url"], data)
    assert (arrived.status, "etag" in arrived.headers) == (200, True)
    assert (await put(stage, asked.json["url"], data)).status == 409
    made = await create(ann, type="edit", inputImageKeys=[asked.json["key"]])
    assert made.status == 202, made
    shown = (await ended(ann, made.json["generationId"])).json
    assert (shown["status"], shown["type"], len(shown["outputs"])) == ("succeeded", "edit", 1)
    late = await ann.post("/api/v1/upload", declared)
    stage.clock.move(301_000)
    assert (await put(stage, late.json["url"], data)).status == 410


@pytest.mark.fact("P13", "P34", "P35", "P36")
async def test_upload_is_judged_as_declared(stage: Stage) -> None:
    """Each mistake of a declaration is an issue; a repeat under its key has the same name, a fresh URL."""
    ann = stage.visit()
    whole = {"filename": "a.png", "contentType": "image/png", "size": 10_485_760}
    for fields, name in (
        ({"filename": "x" * 201}, "filename"),
        ({"contentType": "image/gif"}, "contentType"),
        ({"contentType": "image/PNG"}, "contentType"),
        ({"size": 0}, "size"),
        ({"size": 10_485_761}, "size"),
        ({"size": "7"}, "size"),
    ):
        reply = await ann.post("/api/v1/upload", whole | fields)
        assert (reply.status, reply.json["issues"][0]["path"]) == (400, [name])
    assert len((await ann.post("/api/v1/upload", {})).json["issues"]) == 3
    first = await ann.post("/api/v1/upload", whole, Idempotency_Key="one")
    stage.clock.move(60_000)
    again = await ann.post("/api/v1/upload", whole, Idempotency_Key="one")
    assert (again.json["key"], again.headers["idempotent-replayed"]) == (first.json["key"], "true")
    assert again.json["url"] != first.json["url"]


@pytest.mark.fact("P36")
async def test_put_is_held_to_its_size(stage: Stage) -> None:
    """Bytes that are not as many as declared, or of another type, are refused."""
    data = png(64, 64)
    declared = {"filename": "a.png", "contentType": "image/png", "size": len(data)}
    url = (await stage.visit().post("/api/v1/upload", declared)).json["url"]
    assert (await put(stage, url, data[:-1])).status == 400
    assert (await put(stage, url, data + b"x")).status == 400
    assert (await put(stage, url, data, **{"Content-Type": "image/jpeg"})).status == 400
    assert (await put(stage, url, data)).status == 200


async def test_keys_of_others_are_none(stage: Stage) -> None:
    """An upload of somebody else is as unknown as one that never was."""
    data = png(64, 64)
    declared = {"filename": "a.png", "contentType": "image/png", "size": len(data)}
    asked = await stage.visit("bob").post("/api/v1/upload", declared)
    await put(stage, asked.json["url"], data)
    foreign = await create(stage.visit(), type="edit", inputImageKeys=[asked.json["key"]])
    never = await create(stage.visit(), type="edit", inputImageKeys=["up_01JW0000000000000000000000"])
    assert (foreign.status, foreign.json["code"]) == (400, "invalid_request")
    assert foreign.json["issues"] == never.json["issues"]
    assert foreign.json["issues"][0]["path"] == ["inputImageKeys", 0]


# -- webhooks ------------------------------------------------------------------------------------------

HOOKS = "/api/account/webhooks"
WISH = {
    "url": "http://127.0.0.1:9/gptimg",  # what dev allows; elsewhere https at a public address
    "events": ["generation.succeeded", "generation.failed"],
    "label": "Production app",
}


@pytest.mark.fact("P50", "P51", "P52", "P53", "P54")
async def test_webhook_is_kept_by_its_owner(stage: Stage) -> None:
    """A registration shows its secret once; it is listed, changed, rotated and deleted by its owner."""
    ann, bob = stage.visit(), stage.visit("bob")
    made = await ann.post(HOOKS, WISH, Idempotency_Key="ignored", Cookie="session=1")
    assert (made.status, made.json.keys()) == (201, {"id", "secret"})
    assert made.json["secret"].startswith("whsec_")
    (listed,) = (await ann.get(HOOKS)).json["webhooks"]
    assert {name: listed[name] for name in WISH} == WISH
    assert (listed["enabled"], "secret" in listed) == (True, False)
    assert (await bob.get(HOOKS)).json == {"webhooks": []}
    one = f"{HOOKS}/{made.json['id']}"
    off = await ann.ask("PATCH", one, body=b'{"enabled": false, "label": "off"}')
    assert (off.status, off.json["enabled"], off.json["label"]) == (200, False, "off")
    assert (await bob.ask("PATCH", one, body=b'{"label": "mine"}')).status == 404
    rotated = await ann.post(f"{one}/rotate")
    assert rotated.json["secret"] != made.json["secret"]
    assert (await bob.ask("DELETE", one)).status == 404
    assert (await ann.ask("DELETE", one)).status == 204
    assert (await ann.get(HOOKS)).json == {"webhooks": []}


@pytest.mark.fact("P52")
async def test_cookie_registers_nothing(stage: Stage) -> None:
    """A cookie alone is no caller."""
    reply = await stage.stranger().post(HOOKS, WISH, Cookie="session=1")
    assert (reply.status, reply.json["code"]) == (401, "unauthenticated")


@pytest.mark.fact("P53")
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"url": "http://hooks.example.com"}, ["url"]),
        ({"url": "https://10.0.0.1/"}, ["url"]),
        ({"url": 7}, ["url"]),
        ({"events": ["generation.started"]}, ["events"]),
        ({"events": "generation.failed"}, ["events"]),
        ({"label": "x" * 201}, ["label"]),
        ({"scope": "all"}, ["scope"]),
    ],
)
async def test_webhook_is_judged(stage: Stage, fields: dict[str, object], path: list[str]) -> None:
    """A registration that cannot be kept is told where."""
    reply = await stage.visit().post(HOOKS, WISH | fields)
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert reply.json["issues"][0]["path"][:1] == path


async def test_tenant_scope_is_for_admins(stage: Stage) -> None:
    """Only a tenant's admin hears of the whole tenant."""
    denied = await stage.visit().post(HOOKS, WISH | {"scope": "tenant"})
    assert (denied.status, denied.json["code"]) == (403, "forbidden")
    assert (await stage.admin().post(HOOKS, WISH | {"scope": "tenant"})).status == 201
