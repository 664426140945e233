"""Webhooks through the running house: an end is told, verified, retried with links that open, and kept."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import standardwebhooks
import svix

from policies import ids
from tests.fakes.behavior import Behavior
from tests.fakes.post import FAILS, OK, Sent, sent
from tests.fakes.raw_server import RawServer, says
from tests.journeys.stage import HOUR, MINUTE, Stage
from tests.journeys.visitor import PATIENCE

if TYPE_CHECKING:
    from tests.fakes.server import Fake
    from tests.journeys.visitor import Visitor

NATIVE: Final = "/v1/webhooks"
PLUS: Final = "/api/account/webhooks"
SNIPPET: Final = Path(__file__).parents[1] / "node" / "webhook.mjs"


@pytest.fixture
async def receiver() -> AsyncIterator[RawServer]:
    """A receiver that takes everything."""
    async with RawServer(says(OK)) as server:
        yield server


async def registered(visitor: Visitor, server: RawServer, place: str = NATIVE, **more: Any) -> Any:
    """Register a webhook at a receiver."""
    reply = await visitor.post(place, {"url": f"http://127.0.0.1:{server.port}/hook", **more})
    assert reply.status == 201, reply
    return reply.json


async def got(server: RawServer, count: int = 1) -> Sent:
    """Return the newest request of a receiver once it has so many."""
    async with asyncio.timeout(PATIENCE):
        while len(server.requests) < count:
            server.heard.clear()
            await server.heard.wait()
    return sent(server)[count - 1]


async def over(stage: Stage, webhook: str, tries: int = 1) -> dict[str, Any]:
    """Return Ann's webhook's newest delivery, once so many tries of it are written down."""
    name = ids.parse(webhook, ids.ENDPOINT)
    assert name is not None
    store = stage.house.store
    async with asyncio.timeout(PATIENCE):
        while True:
            page = await store.list_deliveries("acme", name, before=None, limit=1)
            if page.deliveries and len(page.deliveries[0].tries) >= tries:
                break
            await asyncio.sleep(0)
    shown = (await stage.visit().get(f"{NATIVE}/{webhook}/deliveries?limit=1")).json
    found: dict[str, Any] = shown["data"][0]
    return found


async def later(stage: Stage, millis: int) -> None:
    """Move the clock, and have the deliverer look again."""
    stage.clock.move(millis)
    await stage.house.store.release_deliveries([])


def verified(secret: str, one: Sent) -> bool:
    """Say whether both packages of the standard would sign a request so, at the instant it names."""
    moment = datetime.datetime.fromtimestamp(int(one.headers["webhook-timestamp"]), datetime.UTC)
    signatures = one.headers["webhook-signature"].split(" ")
    ours = [
        kind(secret).sign(one.id, moment, one.body.decode())
        for kind in (standardwebhooks.Webhook, svix.Webhook)
    ]
    return all(signature in signatures for signature in ours)


async def by_node(secret: str, one: Sent) -> bool:
    """Return what the document's own snippet says of a request."""
    process = await asyncio.create_subprocess_exec(
        "node", SNIPPET, env={"WEBHOOK_SECRET": secret}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    said = {"headers": one.headers, "body": base64.b64encode(one.body).decode()}
    out, _ = await process.communicate(json.dumps(said).encode())
    assert process.returncode == 0
    return bool(json.loads(out))


# -- our own form ----------------------------------------------------------------------------------


async def test_end_arrives_as_reading_shows(stage: Stage, receiver: RawServer) -> None:
    """What a webhook is told of a job's end is what reading the job answers, and both packages verify it."""
    ann = stage.visit()
    made = await registered(ann, receiver)
    job = await ann.made()
    one = await got(receiver)
    told = json.loads(one.body)
    assert (told["type"], told["api_version"], told["timestamp"]) == ("job.succeeded", "v1", job["ended_at"])
    assert told["data"] == job
    assert verified(made["secret"], one)
    assert not verified("whsec_" + base64.b64encode(b"w" * 32).decode(), one)
    assert (await over(stage, made["id"]))["state"] == "delivered"


@pytest.mark.parametrize("state", ["failed", "blocked", "canceled"])
async def test_every_end_is_told(stage: Stage, receiver: RawServer, upstream: Fake, state: str) -> None:
    """An end without a picture is told as one with it."""
    ann = stage.visit()
    await registered(ann, receiver)
    deeds = {"failed": Behavior("malformed"), "blocked": Behavior("refusal"), "canceled": Behavior("hang")}
    upstream.script.add(deeds[state])
    job = await ann.job()
    if state == "canceled":
        await ann.running(job)
        await ann.post(f"/v1/jobs/{job['id']}/cancel")
    told = json.loads((await got(receiver)).body)
    assert (told["type"], told["data"]["id"], told["data"]["state"]) == (f"job.{state}", job["id"], state)


async def test_late_links_still_open(stage: Stage) -> None:
    """The body of a try an hour later has links of that hour: they open where the first ones have run out."""
    ann = stage.visit()
    async with RawServer(says(FAILS), says(OK)) as server:
        made = await registered(ann, server)
        await ann.made()
        await over(stage, made["id"])
        await later(stage, HOUR)
        ann = stage.visit()
        assert (await over(stage, made["id"], 2))["state"] == "delivered"
        first, second = sent(server)
    links = [json.loads(one.body)["data"]["outputs"][0]["url"] for one in (first, second)]
    replies = [await stage.stranger().get(link.removeprefix(stage.url)) for link in links]
    assert [reply.status for reply in replies] == [410, 200]
    assert first.id == second.id
    assert verified(made["secret"], second)


async def test_tenant_hears_of_all(stage: Stage, receiver: RawServer) -> None:
    """An admin's webhook of the tenant hears of every subject's ends, and of no other tenant's."""
    await registered(stage.admin(), receiver, scope="tenant")
    refused = await stage.visit().post(NATIVE, {"url": "https://a.example.org/", "scope": "tenant"})
    assert (refused.status, refused.code) == (403, "forbidden")
    await stage.visit("zoe", "globex").made()
    for name in ("ann", "bob"):
        await stage.visit(name).made()
    await got(receiver, 2)
    assert {json.loads(one.body)["data"]["subject"] for one in sent(receiver)} == {"ann", "bob"}


async def test_test_and_redelivery_arrive(stage: Stage, receiver: RawServer) -> None:
    """A test arrives at once; a delivery that is asked for again arrives again under its id."""
    ann = stage.visit()
    name = (await registered(ann, receiver))["id"]
    assert (await ann.post(f"{NATIVE}/{name}/test")).status == 202
    told = await over(stage, name)
    again = await ann.post(f"{NATIVE}/{name}/deliveries/{told['id']}/redeliver")
    assert (again.status, again.json["id"]) == (202, told["id"])
    second = await got(receiver, 2)
    assert second.id == told["id"]
    assert json.loads(second.body)["data"] == {"webhook": name}


async def test_trail_tells_of_webhooks(stage: Stage, receiver: RawServer) -> None:
    """Who registers, changes, rotates and deletes a webhook is on the trail, without address or secret."""
    ann = stage.visit()
    made = await registered(ann, receiver)
    one = f"{NATIVE}/{made['id']}"
    await ann.ask("PATCH", one, body=b'{"label": "x"}')
    rotated = (await ann.post(f"{one}/rotate")).json
    await ann.ask("DELETE", one)
    lines = (await stage.admin().get("/v1/audit")).json["data"]
    actions = [line["action"] for line in lines if line["action"].startswith("webhook.")]
    assert actions == ["webhook.delete", "webhook.rotate", "webhook.update", "webhook.create"]
    whole = json.dumps(lines) + stage.log.getvalue().decode()
    assert all(text not in whole for text in ("/hook", made["secret"], rotated["secret"]))


async def test_gone_receiver_is_told_of(stage: Stage) -> None:
    """A receiver that says it is gone is sent nothing more until its owner enables it; the trail says why."""
    ann = stage.visit()
    async with RawServer(says(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), says(OK)) as server:
        name = (await registered(ann, server))["id"]
        await ann.made()
        await over(stage, name)
        shown = (await ann.get(f"{NATIVE}/{name}")).json
        assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
        assert (await ann.post(f"{NATIVE}/{name}/test")).code == "webhook_disabled"
        (line,) = (await stage.admin().get("/v1/audit?action=webhook.disable")).json["data"]
        assert line["code"] == "gone"
        await ann.ask("PATCH", f"{NATIVE}/{name}", body=b'{"enabled": true}')
        await ann.made()
        await got(server, 2)
        assert len({one.id for one in sent(server)}) == 2


# -- gptimage2.plus's form -------------------------------------------------------------------------


@pytest.mark.fact("P50", "P55", "P56", "P57", "P58", "P59", "P60")
async def test_seed_event_is_as_documented(stage: Stage, receiver: RawServer) -> None:
    """A webhook of the other form gets the document's headers and payload, key for key."""
    ann = stage.visit()
    made = await registered(ann, receiver, PLUS)
    reply = await ann.post("/api/v1/generate", {"prompt": "a lighthouse"})
    one = await got(receiver)
    assert one.line.startswith("POST ")
    assert one.headers["content-type"] == "application/json"
    assert one.headers["x-gptimg-event"] == "generation.succeeded"
    assert str(uuid.UUID(one.headers["x-gptimg-delivery"])) == one.headers["x-gptimg-delivery"]
    assert await by_node(made["secret"], one)
    told = json.loads(one.body)
    assert list(told) == ["event", "data"]
    data = told["data"]
    shown = (await ann.get(f"/api/v1/generations/{reply.json['generationId']}")).json
    assert data["generationId"] == shown["id"]
    assert {name: data[name] for name in list(data)[1:]} == {
        name: shown[name] for name in ("type", "status", "outputs", "createdAt", "completedAt")
    }
    assert data["createdAt"][-5] == "."
    assert data["completedAt"].endswith("Z")


async def test_seed_failure_has_its_reason(stage: Stage, receiver: RawServer, upstream: Fake) -> None:
    """A blocked job is told as failed, with its true status and why, so that nobody waits for ever."""
    ann = stage.visit()
    await registered(ann, receiver, PLUS)
    upstream.script.add(Behavior("refusal"))
    await ann.made()
    one = await got(receiver)
    told = json.loads(one.body)
    assert one.headers["x-gptimg-event"] == told["event"] == "generation.failed"
    assert (told["data"]["status"], told["data"]["error"]) == ("blocked", "Blocked by content policy")


@pytest.mark.fact("P56", "P61")
async def test_seed_snippet_through_a_rotation(stage: Stage, receiver: RawServer) -> None:
    """The document's snippet, run by Node, holds with the old secret for a day, then with the new."""
    ann = stage.visit()
    made = await registered(ann, receiver, PLUS)
    new = (await ann.post(f"{PLUS}/{made['id']}/rotate")).json["secret"]
    await ann.made()
    during = await got(receiver)
    assert await by_node(made["secret"], during)
    assert not await by_node(new, during)
    coming = Sent(
        "", {**during.headers, "x-gptimg-signature": during.headers["x-gptimg-signature-next"]}, b""
    )
    assert await by_node(new, Sent("", coming.headers, during.body))
    stage.clock.move(24 * HOUR)
    await stage.visit().made()
    after = await got(receiver, 2)
    assert await by_node(new, after)
    assert not await by_node(made["secret"], after)
    assert "x-gptimg-signature-next" not in after.headers


@pytest.mark.fact("P62", "P63")
async def test_seed_schedule_is_as_documented(stage: Stage) -> None:
    """What is not taken is sent again after 30 seconds, 2 and 10 minutes, under one id, and no more."""
    ann = stage.visit()
    async with RawServer(says(FAILS)) as server:
        name = (await registered(ann, server, PLUS))["id"]
        await ann.made()
        stage.clock.hold()
        for n, wait in enumerate((30_000, 2 * MINUTE, 10 * MINUTE), start=1):
            await over(stage, name, n)
            await later(stage, wait)
        told = await over(stage, name, 4)
        assert (told["state"], told["next_try_at"]) == ("failed", None)
        await later(stage, 24 * HOUR)
        assert len({one.id for one in sent(server)}) == 1
        assert len(server.requests) == 4


@pytest.mark.fact("P64")
async def test_eight_failures_disable_by_document(stage: Stage) -> None:
    """The eighth failed attempt in a row, over all deliveries, disables until a person enables."""
    async with RawServer(*[says(FAILS)] * 8, says(OK)) as server:
        ann = stage.visit()
        name = (await registered(ann, server, PLUS))["id"]
        for _ in range(3):
            await ann.made()
        async with asyncio.timeout(PATIENCE):
            while (await stage.house.store.list_endpoints("acme"))[0].disabled is None:
                await later(stage, 10_000)
                await asyncio.sleep(0)
        assert len(server.requests) == 8
        ann = stage.visit()
        assert (await ann.get(PLUS)).json["webhooks"][0]["failures"] == 8
        enabled = await ann.ask("PATCH", f"{PLUS}/{name}", body=b'{"enabled": true}')
        assert enabled.json["enabled"] is True
        await later(stage, HOUR)
        ann = stage.visit()
        job = await ann.made()
        one = await got(server, 9)
        assert json.loads(one.body)["data"]["completedAt"] == job["ended_at"]
        assert len(server.requests) == 9
