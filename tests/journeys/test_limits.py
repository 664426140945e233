"""What a caller may use, over HTTP: rates to the second, credits to the last, and what headers say of it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace

from policies.bundle import Bundle, PerLevel, Plan
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import MINUTE, NOON, Stage
from tests.journeys.visitor import Reply

ORIGIN = "https://app.example.com"


def plan_of(bundle: Bundle, **fields: object) -> Bundle:
    """Return the bundle with another plan for everyone."""
    plan: Plan = replace(bundle.plans["pro"], **fields)
    return replace(bundle, plans={**bundle.plans, "pro": plan})


def rates(reply: Reply) -> dict[str, str]:
    """Return the headers that tell of the submit counter."""
    return {name: value for name, value in reply.headers.items() if "ratelimit" in name}


async def test_rate_headers_are_exact(opening: Opening, upstream: Fake) -> None:
    """Every answer to a known caller tells limit, calls left and the window's end of the submit counter."""
    stage = await opening(providers=entry(upstream))
    stage.clock.hold()
    ann = stage.visit()
    idle = {
        "ratelimit-policy": '"submit";q=600;w=3600',
        "ratelimit": '"submit";r=600;t=3600',
        "x-ratelimit-limit": "600",
        "x-ratelimit-remaining": "600",
        "x-ratelimit-reset": str(-(-stage.clock() // 1000) + 3600),
    }
    assert rates(await ann.get("/v1/models")) == idle
    begun = -(-(stage.clock() + 3_600_000) // 1000)
    first = await ann.submit()
    assert rates(first)["ratelimit"] == '"submit";r=599;t=3600'
    stage.clock.move(10 * MINUTE)
    for reply in (
        await ann.get("/v1/account"),
        await ann.get("/v1/jobs?limit=0"),
        await ann.get("/v1/jobs/none"),
        await ann.submit("safelight-blocked"),
    ):
        told = rates(reply)
        assert told["ratelimit"] == '"submit";r=599;t=3000', reply
        assert told["x-ratelimit-reset"] == str(begun)
    assert rates(await stage.stranger().get("/v1/account")) == {}
    assert rates(await stage.stranger().get("/livez")) == {}


@pytest.mark.parametrize("level", ["user", "tenant"])
async def test_retry_after_is_true(opening: Opening, upstream: Fake, level: str) -> None:
    """The refused call is admitted exactly `Retry-After` later, and not one second earlier."""
    submits = PerLevel(3, 600) if level == "user" else PerLevel(600, 3)
    stage = await opening(
        providers=entry(upstream), concurrency=0, bundle=lambda b: plan_of(b, submit_per_hour=submits)
    )
    stage.clock.hold()
    for _ in range(3):
        assert (await stage.visit().submit()).status == 202
        stage.clock.move(7 * MINUTE + 100)
    ann = stage.visit(seconds=7200)
    refused = await ann.submit()
    assert (refused.status, refused.code, refused.json["rule"]) == (429, "rate_limited", "limit.submit")
    wait = int(refused.headers["retry-after"])
    assert wait == refused.json["retry_after"] == 3600 - 3 * 7 * 60
    assert rates(refused)["ratelimit"] == f'"submit";r=0;t={wait}'
    stage.clock.move((wait - 1) * 1000)
    early = await ann.submit()
    assert (early.status, early.headers["retry-after"]) == (429, "1")
    stage.clock.move(1000)
    assert (await ann.submit()).status == 202
    assert upstream.calls == []


async def test_reads_and_quotes_are_bounded(stage: Stage) -> None:
    """Reads and quotes have limits of their own, which say when the next one is admitted."""
    stage.clock.hold()
    ann = stage.visit()
    replies = [await ann.get("/v1/account") for _ in range(61)]
    assert [reply.status for reply in replies] == [200] * 60 + [429]
    assert (replies[-1].json["rule"], replies[-1].headers["retry-after"]) == ("limit.read", "1")
    assert (await stage.visit("ben").get("/v1/account")).status == 200
    quotes = [await ann.post("/v1/quote", {"prompt": "a"}) for _ in range(61)]
    assert [reply.status for reply in quotes] == [200] * 60 + [429]
    assert (quotes[-1].json["rule"], quotes[-1].headers["retry-after"]) == ("limit.quote", "60")
    stage.clock.move(59_000)
    assert (await ann.post("/v1/quote", {"prompt": "a"})).status == 429
    stage.clock.move(1_000)
    assert (await ann.post("/v1/quote", {"prompt": "a"})).status == 200
    assert (await ann.get("/v1/account")).status == 200


async def test_identical_submits_make_one_job(stage: Stage, upstream: Fake) -> None:
    """Sixty-four identical submits with one key, at once, are one job, one charge and one paid call."""
    ann = stage.visit()
    replies = await asyncio.gather(*(ann.submit(key="k-1") for _ in range(64)))
    assert {reply.status for reply in replies} == {202}
    (job,) = {reply.json["id"] for reply in replies}
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 63
    assert (await ann.ended({"id": job}))["state"] == "succeeded"
    account = (await ann.get("/v1/account")).json
    assert account["credits"] == {"granted": 10_000, "held": 0, "charged": 10, "available": 9_990}
    assert account["limits"]["submit"]["remaining"] == 599
    assert upstream.paid == 1


async def test_last_credits_admit_what_fits(opening: Opening, upstream: Fake) -> None:
    """Sixty-four submits at once against credits for seven admit seven; the others are told why not."""
    tight = {"credits_per_month": 79, "in_flight": PerLevel(100, 100)}
    stage = await opening(providers=entry(upstream), bundle=lambda bundle: plan_of(bundle, **tight))
    users = [stage.visit(f"user-{n % 4}") for n in range(64)]
    replies = await asyncio.gather(*(user.submit(f"number {n}") for n, user in enumerate(users)))
    assert Counter((reply.status, reply.code) for reply in replies) == {
        (202, ""): 7,
        (402, "insufficient_credits"): 57,
    }
    for user, reply in zip(users, replies, strict=True):
        if reply.status == 202:
            assert (await user.ended(reply.json))["state"] == "succeeded"
    credit = (await users[0].get("/v1/account")).json["credits"]
    assert credit == {"granted": 79, "held": 0, "charged": 70, "available": 9}
    assert upstream.paid == 7


async def test_in_flight_admits_what_fits(opening: Opening, upstream: Fake) -> None:
    """Of many submits at once as many are admitted as may be in flight, at user and tenant level."""
    stage = await opening(
        providers=entry(upstream), concurrency=0, bundle=lambda b: plan_of(b, in_flight=PerLevel(3, 5))
    )
    users = [stage.visit("ann")] * 16 + [stage.visit("ben")] * 16
    replies = await asyncio.gather(*(user.submit() for user in users))
    codes = Counter((reply.status, reply.code) for reply in replies)
    assert codes == {(202, ""): 5, (429, "too_many_in_flight"): 27}
    assert max(Counter(reply.json["subject"] for reply in replies if reply.status == 202).values()) == 3
    assert {reply.headers["retry-after"] for reply in replies if reply.status == 429} == {"5"}


async def test_only_named_origins_may_read(opening: Opening, upstream: Fake) -> None:
    """A page of a named origin may ask and read; any other gets no permission, nor does `null`."""
    stage = await opening(providers=entry(upstream), dev=True, server={"cors_origins": (ORIGIN,)})
    asking = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    for origin, good in [
        (ORIGIN, True),
        ("http://localhost:5173", True),
        ("null", False),
        (ORIGIN + ".evil", False),
    ]:
        headers = {"Origin": origin, **{n.replace("_", "-"): v for n, v in asking.items()}}
        preflight = await stage.stranger().ask("OPTIONS", "/v1/jobs", headers)
        assert (preflight.status, preflight.headers["vary"]) == (204, "Origin")
        reply = await stage.visit().get("/v1/account", Origin=origin)
        refused = await stage.stranger().get("/v1/account", Origin=origin)
        for answer in (preflight, reply, refused):
            assert answer.headers.get("access-control-allow-origin") == (origin if good else None)
            assert "access-control-allow-credentials" not in answer.headers
        if good:
            assert preflight.headers["access-control-max-age"] == "7200"
            allowed = set(preflight.headers["access-control-allow-headers"].split(", "))
            assert allowed == {
                *("authorization", "content-type", "idempotency-key", "if-none-match", "last-event-id")
            }
            exposed = {name.lower() for name in reply.headers["access-control-expose-headers"].split(", ")}
            assert {"etag", "location", "retry-after", "x-request-id", *rates(reply)} <= exposed
            assert {name for name in reply.headers if name.startswith("safelight-")} <= exposed
    assert stage.clock() > NOON


async def test_every_answer_is_dressed(stage: Stage) -> None:
    """Whatever is answered carries request id, version, and the headers that keep browsers strict."""
    ann = stage.visit()
    asked = [
        await ann.get("/v1/account"),
        await ann.get("/v1/none"),
        await ann.post("/v1/jobs", {}),
        await stage.stranger().get("/v1/jobs"),
        await stage.stranger().get("/livez"),
        await stage.stranger().get("/metrics"),
        await stage.stranger().get("/openapi.json"),
        await ann.ask("PUT", "/v1/jobs"),
    ]
    for reply in asked:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "Origin" in reply.headers["vary"]
        assert "server" not in reply.headers
        assert len(reply.headers["x-request-id"]) == 36
        assert reply.headers["safelight-version"]
    assert len({reply.headers["x-request-id"] for reply in asked}) == len(asked)
