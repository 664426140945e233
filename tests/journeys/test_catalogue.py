"""The catalogue of codes, walked: each is raised over HTTP here, or says which issue will raise it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.errors import CATALOGUE
from policies.bundle import Bundle, PerLevel, TenantRow
from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.bringing import put, ticket
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import HOUR, Stage
from tests.journeys.visitor import Reply, parsed

Raise = Callable[[Stage], Awaitable[Reply]]

LATER = {
    "paused": "D: the operator's switches",
}
"""Codes that nothing of this slice can raise, and the issue that brings what raises them."""


def tight(bundle: Bundle) -> Bundle:
    """Return the bundle with a tenant for each way to be refused, and no price for `high`."""
    pro = bundle.plans["pro"]
    plans = {
        "poor": replace(pro, credits_per_month=5),
        "capped": replace(pro, monthly_cap=5),
        "slow": replace(pro, submit_per_hour=PerLevel(1, 1)),
        "narrow": replace(pro, in_flight=PerLevel(1, 1)),
        "unheard": replace(pro, webhooks=0, keys=0),
    }
    return replace(
        bundle,
        plans={**bundle.plans, **plans},
        tenants={
            **{name: TenantRow(name) for name in plans},
            "late": TenantRow("pro", suspended=True),
        },
        prices=(replace(bundle.prices[-1], high=None),),
        models={
            **bundle.models,
            "fine": replace(bundle.models["fine"], route=bundle.models["fine"].route[-1:]),
        },
    )


async def asked(stage: Stage, method: str, target: str, **headers: str) -> Reply:
    """Send Ann's request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await stage.visit().ask(method, target, named)


async def twice(stage: Stage, tenant: str) -> Reply:
    """Submit an endless job, then another."""
    ann = stage.visit(tenant=tenant)
    assert (await ann.submit("endless")).status == 202
    return await ann.submit("endless")


async def full_queue(stage: Stage) -> Reply:
    """Submit where the first of the queue has waited for half an hour."""
    stage.sick.verb = "claim"
    ann = stage.visit()
    await ann.job()
    stage.clock.move(HOUR // 2)
    await stage.house.pressure.look()
    return await ann.submit()


async def slow_body(stage: Stage) -> Reply:
    """Begin a body and never end it."""
    ann = stage.visit()
    async with await ann.dial() as line:
        line.write(
            ann.request("POST", "/v1/jobs", {"Content-Type": "application/json", "Content-Length": "9"})
        )
        line.write(b"{")
        return await line.whole()


async def huge_body(stage: Stage) -> Reply:
    """Send more than a body may hold."""
    return await stage.visit().post("/v1/jobs", {"prompt": "a" * 2**20})


async def many_headers(stage: Stage) -> Reply:
    """Send a hundred headers and more."""
    return await stage.visit().ask("GET", "/v1/jobs", {f"X-{n}": "1" for n in range(101)})


async def altered_link(stage: Stage) -> Reply:
    """Open a link with a letter too many."""
    return await stage.stranger().get(await picture(stage) + "A")


async def old_link(stage: Stage) -> Reply:
    """Open a link an hour later."""
    link = await picture(stage)
    stage.clock.move(HOUR)
    return await stage.stranger().get(link)


async def picture(stage: Stage) -> str:
    """Make a picture and return its link's path."""
    job = await stage.visit().made()
    return str(job["outputs"][0]["url"]).removeprefix(stage.url)


async def erased_job(stage: Stage) -> Reply:
    """Replay the key of a deleted job."""
    ann = stage.visit()
    job = await ann.made(key="k-1")
    await ann.ask("DELETE", f"/v1/jobs/{job['id']}")
    return await ann.submit(key="k-1")


async def open_job(stage: Stage) -> Reply:
    """Delete a job that runs."""
    ann = stage.visit()
    job = await ann.job("endless")
    return await ann.ask("DELETE", f"/v1/jobs/{job['id']}")


async def reused_key(stage: Stage) -> Reply:
    """Use a key for another body."""
    await stage.visit().submit("endless", key="k-1")
    return await stage.visit().submit("endless and more", key="k-1")


async def many_streams(stage: Stage) -> Reply:
    """Open one stream more than the plan has."""
    ann = stage.visit(plan="free")
    async with ann.stream("/v1/events"), ann.stream("/v1/events"):
        return await ann.get("/v1/events")


async def planted_bug(stage: Stage) -> Reply:
    """Have a verb of the store fail as nobody foresaw."""
    stage.sick.verb, stage.sick.error, stage.foretold = "list_jobs", RuntimeError("a bug with words"), 1
    return await stage.visit().get("/v1/jobs")


async def dead_store(stage: Stage) -> Reply:
    """Submit while the store is out of reach."""
    stage.sick.verb = "submit"
    return await stage.visit().submit()


WEBHOOK = {"url": "http://127.0.0.1:9/hook"}


async def disabled_webhook(stage: Stage) -> Reply:
    """Try a webhook that was switched off."""
    ann = stage.visit()
    one = f"/v1/webhooks/{(await ann.post('/v1/webhooks', WEBHOOK)).json['id']}"
    await ann.ask("PATCH", one, body=b'{"enabled": false}')
    return await ann.post(f"{one}/test")


async def draining(stage: Stage) -> Reply:
    """Open a stream on a process that stops."""
    stage.house.lifetime.begin_drain()
    return await stage.visit().get("/v1/events")


async def announced(stage: Stage) -> dict[str, Any]:
    """Announce an upload of a byte."""
    return await ticket(stage.visit(), "png", 1)


async def edited(stage: Stage, **source: str) -> Reply:
    """Ask for an edit of something."""
    return await stage.visit().submit(operation="edit", inputs=[source])


async def late_upload(stage: Stage) -> Reply:
    """Use an upload of the day before."""
    place = await announced(stage)
    stage.clock.move(24 * HOUR)
    return await edited(stage, upload=place["id"])


async def put_twice(stage: Stage) -> Reply:
    """Put an upload's bytes again."""
    place = await announced(stage)
    await put(place["url"], b"a")
    return await put(place["url"], b"b")


async def empty_upload(stage: Stage) -> Reply:
    """Use an upload whose bytes have not come."""
    return await edited(stage, upload=(await announced(stage))["id"])


RAISED: dict[str, Raise] = {
    "reference_rejected": lambda stage: edited(stage, url="https://10.0.0.1/a.png"),
    "upload_expired": late_upload,
    "upload_complete": put_twice,
    "upload_incomplete": empty_upload,
    "invalid_request": lambda stage: stage.visit().post("/v1/jobs", {}),
    "method_not_allowed": lambda stage: asked(stage, "PUT", "/v1/jobs"),
    "not_acceptable": lambda stage: asked(stage, "GET", "/v1/jobs", Accept="text/html"),
    "request_timeout": slow_body,
    "payload_too_large": huge_body,
    "unsupported_media_type": lambda stage: asked(stage, "POST", "/v1/jobs", Content_Type="text/plain"),
    "headers_too_large": many_headers,
    "not_implemented": lambda stage: asked(stage, "TRACE", "/v1/jobs"),
    "unsupported_option": lambda stage: stage.visit().submit(seed=7),
    "unauthenticated": lambda stage: stage.stranger().get("/v1/jobs"),
    "forbidden": lambda stage: asked(stage, "GET", "/v1/audit"),
    "link_invalid": altered_link,
    "insufficient_credits": lambda stage: stage.visit(tenant="poor").submit(),
    "monthly_cap_reached": lambda stage: stage.visit(tenant="capped").submit(),
    "plan_required": lambda stage: stage.visit().submit(model="fine"),
    "tenant_suspended": lambda stage: stage.visit(tenant="late").get("/v1/account"),
    "not_found": lambda stage: asked(stage, "GET", "/v1/jobs/job_00000000000000000000000000"),
    "link_expired": old_link,
    "job_erased": erased_job,
    "job_open": open_job,
    "key_limit": lambda stage: stage.visit(tenant="unheard").post("/v1/keys", {}),
    "webhook_limit": lambda stage: stage.visit(tenant="unheard").post("/v1/webhooks", WEBHOOK),
    "webhook_disabled": disabled_webhook,
    "idempotency_key_reused": reused_key,
    "prompt_blocked": lambda stage: stage.visit().submit("safelight-blocked"),
    "rate_limited": lambda stage: twice(stage, "slow"),
    "too_many_in_flight": lambda stage: twice(stage, "narrow"),
    "too_many_streams": many_streams,
    "internal": planted_bug,
    "store_unavailable": dead_store,
    "no_provider_available": lambda stage: stage.visit(plan="max").submit(model="fine"),
    "queue_full": full_queue,
    "unpriced": lambda stage: stage.visit().submit(quality="high"),
    "draining": draining,
}


def test_every_code_has_its_raiser() -> None:
    """Each code of the catalogue is raised in this file or says which issue will, and no code is both."""
    assert {*RAISED, *LATER} == set(CATALOGUE)
    assert not {*RAISED} & {*LATER}


@pytest.mark.parametrize("code", CATALOGUE)
async def test_each_code_is_answered(opening: Opening, upstream: Fake, code: str) -> None:
    """A code is answered with the catalogue's status, title and `retryable`, and its page can be read."""
    upstream.script.add(Behavior(do="hang", match="endless", times=0))
    stage = await opening(providers=entry(upstream), bundle=tight, body_seconds=0.2)
    page = await stage.stranger().get(f"/problems/{code}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert code.encode() in page.body
    if code in LATER:
        return
    row, reply = CATALOGUE[code], await RAISED[code](stage)
    assert (reply.status, reply.code) == (row.status, code), reply
    shown = reply.json
    assert shown["type"] == f"{stage.url}/problems/{code}"
    assert (shown["title"], shown["status"], shown["retryable"]) == (row.title, row.status, row.retryable)
    assert shown["request_id"] == reply.headers["x-request-id"]
    assert shown["detail"]
    assert str(shown.get("retry_after")) == reply.headers.get("retry-after", "None")
    if row.status in (429, 503):
        assert shown["retry_after"] > 0
    assert set(shown) <= {
        *(
            "type",
            "title",
            "status",
            "detail",
            "code",
            "request_id",
            "retryable",
            "retry_after",
            "rule",
            "errors",
        )
    }


async def test_unauthenticated_names_the_scheme(stage: Stage) -> None:
    """A 401 says how to authenticate, and a 405 which methods there are."""
    assert (await stage.stranger().get("/v1/jobs")).headers["www-authenticate"].startswith("Bearer")
    wrong = await stage.visit().ask("PATCH", "/v1/jobs")
    assert wrong.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_invalid_request_lists_all(stage: Stage) -> None:
    """A 400 lists every mistake of a body with its place, unknown names with what was likely meant."""
    body: dict[str, Any] = {
        "promt": "a",
        "count": 11,
        "seed": -1,
        "size": "big",
        "quality": "best",
        "metadata": {"a b": 1},
        "inputs": [{"file": "x"}],
    }
    reply = await stage.visit().post("/v1/jobs", body)
    assert (reply.status, reply.code) == (400, "invalid_request")
    flaws = {flaw["pointer"]: flaw["detail"] for flaw in reply.json["errors"]}
    assert {"/promt", "/prompt", "/count", "/seed", "/size", "/quality", "/inputs/0/file"} <= set(flaws)
    assert any(pointer.startswith("/metadata") for pointer in flaws)
    assert "prompt" in flaws["/promt"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("HEAD", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "?wait=1")],
)
async def test_foreign_equals_unknown(stage: Stage, method: str, path: str) -> None:
    """A foreign job, an unknown one and a malformed id are the same 404, byte for byte save its id."""
    job = await stage.visit().made()
    ben, shown = stage.visit("ben"), set()
    for name in (
        job["id"],
        "job_00000000000000000000000000",
        "0",
        "job_!",
        "01a1f8d4-d4a1-7c32-9a21-000000000000",
    ):
        async with await ben.dial() as line:
            line.write(ben.request(method, f"/v1/jobs/{name}{path}"))
            whole = await line.rest()
        reply = parsed(whole)
        assert reply.status == 404
        own = reply.headers["x-request-id"].encode()
        date = reply.headers["date"].encode()
        shown.add(whole.replace(own, b"id").replace(date, b"date"))
    assert len(shown) == 1, shown


async def test_unpriced_tells_the_operator(opening: Opening, upstream: Fake) -> None:
    """A combination without a price is never run and never free; the operator is told by an alarm."""
    stage = await opening(providers=entry(upstream), bundle=tight)
    assert (await stage.visit().submit(quality="high")).code == "unpriced"
    assert [line["alarm"] for line in stage.lines if line["event"] == "alarm"] == ["unpriced"]
    assert upstream.calls == []


async def test_dead_store_admits_nothing(stage: Stage, upstream: Fake) -> None:
    """Without its store the house admits nothing and says when to come again; with it, it goes on."""
    ann = stage.visit(plan="max")
    for verb in ("submit", "get_job", "list_jobs", "usage", "cancel", "erase", "audit_page"):
        stage.sick.verb = verb
        replies = await asyncio.gather(
            ann.submit(),
            ann.get("/v1/jobs/job_00000000000000000000000000"),
            ann.get("/v1/jobs"),
            ann.get("/v1/account"),
            ann.post("/v1/quote", {"prompt": "a"}),
            stage.admin().get("/v1/audit"),
        )
        for reply in replies:
            assert reply.status < 500 or (reply.status, reply.code) == (503, "store_unavailable"), (
                verb,
                reply,
            )
        assert any(reply.status == 503 for reply in replies) == (verb not in ("cancel", "erase"))
    stage.sick.verb = "ping"
    assert (await stage.stranger().get("/readyz")).code == "store_unavailable"
    assert (await stage.stranger().get("/livez")).status == 200
    stage.sick.verb = ""
    assert (await ann.made())["state"] == "succeeded"
