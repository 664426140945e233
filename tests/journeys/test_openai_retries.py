"""OpenAI's SDKs hang up and send again by themselves, without a key: one job is made of it, paid for once."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import openai
import pytest
from msgspec.structs import replace
from openai import Omit

from policies.bundle import Bundle
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import picture
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage
from tests.journeys.visitor import PATIENCE, Reply, Visitor

GENERATE = "/v1/images/generations"
PROMPT = "a lighthouse"
PICTURE = picture("png", 1024, 1024, "a lighthouse/0")
HOLD = Behavior(do="hold", match="lighthouse")
AGAIN = {"X_Stainless_Retry_Count": "1"}


class Watched(openai.AsyncOpenAI):
    """The SDK as it is, but that its pauses are written down and not slept through.

    The upstream answers once the client has paused `before` times.
    """

    pauses: list[float]
    before: int
    upstream: Fake

    def _calculate_retry_timeout(self, *args: Any, **options: Any) -> float:
        self.pauses.append(super()._calculate_retry_timeout(*args, **options))
        if len(self.pauses) == self.before:
            self.upstream.release()
        return 0.0


def watched(stage: Stage, upstream: Fake, before: int, **options: Any) -> Watched:
    """Return the SDK with its own number of retries, against a house."""
    client = Watched(base_url=f"{stage.url}/v1", api_key=stage.token(), **options)
    client.pauses, client.before, client.upstream = [], before, upstream
    return client


async def tally(stage: Stage, upstream: Fake) -> tuple[list[str], int, int]:
    """Return the states of all jobs, the upstream's paid calls, and the credits charged."""
    ann = stage.visit()
    jobs = (await ann.get("/v1/jobs")).json["data"]
    charged = (await ann.get("/v1/account")).json["credits"]["charged"]
    return [job["state"] for job in jobs], len(upstream.seen("create")), charged


async def generate(visitor: Visitor, **headers: str) -> Reply:
    """Ask for the picture in one request."""
    return await visitor.post(GENERATE, {"prompt": PROMPT}, **headers)


async def working(upstream: Fake) -> None:
    """Wait until the upstream is asked for a picture."""
    async with asyncio.timeout(PATIENCE):
        while not upstream.seen("create"):  # noqa: ASYNC110 - a fake tells nobody that it was asked
            await asyncio.sleep(0)


async def attached(stage: Stage, upstream: Fake) -> Visitor:
    """Return a caller whose one job is held by the upstream, and who has hung up on it."""
    ann = stage.visit()
    async with await ann.dial() as line:
        line.write(ann.request("POST", GENERATE, {}, b'{"prompt":"a lighthouse"}'))
        await working(upstream)
    return ann


async def test_hasty_client_gets_picture(stage: Stage, upstream: Fake) -> None:
    """A client that listens for two seconds is answered before, told when to return, and gets its picture.

    By then an upstream that takes twenty seconds is done: one job, one call, one charge.
    """
    upstream.script.add(HOLD)
    async with watched(stage, upstream, 1, timeout=2) as client:
        made = await client.images.generate(prompt=PROMPT)
    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == PICTURE
    assert client.pauses == [19.0]
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


async def test_timed_out_client_gets_picture(stage: Stage, upstream: Fake) -> None:
    """A client that does not say how long it listens, and hangs up twice, finds the job of its first send."""
    upstream.script.add(HOLD)
    silent = {"x-stainless-read-timeout": Omit()}
    async with watched(stage, upstream, 2, timeout=0.5) as client:
        made = await client.images.generate(prompt=PROMPT, extra_headers=silent)
    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == PICTURE
    assert len(client.pauses) == 2
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


async def test_hasty_edit_gets_picture(stage: Stage, upstream: Fake) -> None:
    """An edit sent again with its image is the same edit."""
    upstream.script.add(HOLD)
    async with watched(stage, upstream, 1, timeout=2) as client:
        made = await client.images.edit(prompt=PROMPT, image=picture("png", 64, 64, "a"))
    assert made.data is not None
    assert len(client.pauses) == 1
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


async def test_failure_is_made_anew(stage: Stage, upstream: Fake) -> None:
    """What failed and was refunded is sent again by the SDK and made anew, not told again."""
    upstream.script.add(Behavior(do="malformed"))
    async with watched(stage, upstream, 0) as client:
        made = await client.images.generate(prompt=PROMPT)
    assert made.data is not None
    assert await tally(stage, upstream) == (["succeeded", "failed"], 2, 10)


async def test_refusals_are_not_repeated(stage: Stage, upstream: Fake) -> None:
    """What would be refused or lost again is not sent again by the SDK."""
    upstream.script.add(Behavior(do="refusal"), Behavior(do="reset_after"))
    async with watched(stage, upstream, 0) as client:
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(prompt=PROMPT)
        with pytest.raises(openai.InternalServerError):
            await client.images.generate(prompt=PROMPT)
        assert client.pauses == []
    assert await tally(stage, upstream) == (["failed", "blocked"], 2, 0)


async def test_leaving_cancels_nothing(stage: Stage, upstream: Fake) -> None:
    """A caller that hangs up has its job made; a repeat, at once or after its end, is the same picture."""
    upstream.script.add(HOLD)
    ann = await attached(stage, upstream)
    upstream.release()
    first = await generate(ann, **AGAIN)
    second = await generate(ann, **AGAIN)
    assert (first.status, first.headers["idempotent-replayed"]) == (200, "true")
    assert first.json == second.json
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


async def test_repeats_at_once_are_one(stage: Stage, upstream: Fake) -> None:
    """Repeats that come together, before anything was made, make one job between them."""
    upstream.script.add(HOLD)
    ann = stage.visit()
    asking = [asyncio.ensure_future(generate(ann, **AGAIN)) for _ in range(5)]
    await working(upstream)
    upstream.release()
    replies = await asyncio.gather(*asking)
    assert {reply.body for reply in replies} == {replies[0].body}
    assert sorted("idempotent-replayed" in reply.headers for reply in replies) == [False, *[True] * 4]
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


@pytest.mark.parametrize("count", ["0", "x", "-1", ""])
async def test_first_sends_are_new(stage: Stage, upstream: Fake, count: str) -> None:
    """The same request sent anew is another picture: only what calls itself a repeat is one."""
    ann = stage.visit()
    for _ in range(2):
        assert (await generate(ann, X_Stainless_Retry_Count=count)).status == 200
    assert await tally(stage, upstream) == (["succeeded", "succeeded"], 2, 20)


async def test_repeats_belong_to_callers(stage: Stage, upstream: Fake) -> None:
    """Another caller's repeat of the same words is a first send, and so is one of other words."""
    await generate(stage.visit())
    assert "idempotent-replayed" not in (await generate(stage.visit("bob"), **AGAIN)).headers
    other = await stage.visit().post(GENERATE, {"prompt": "another lighthouse"}, **AGAIN)
    assert "idempotent-replayed" not in other.headers
    assert upstream.paid == 3


async def test_waits_end_in_time(opening: Opening, upstream: Fake) -> None:
    """A wait is no longer than the server allows; then the job runs on, and the repeat is welcome later."""
    upstream.script.add(HOLD)
    stage = await opening(providers=entry(upstream), server={"sync_wait_seconds": 1})
    late = await generate(stage.visit())
    assert (late.status, late.json["error"]["code"]) == (504, "still_running")
    assert (late.headers["x-should-retry"], late.headers["retry-after"]) == ("true", "19")
    upstream.release()
    assert (await generate(stage.visit(), **AGAIN)).status == 200
    assert await tally(stage, upstream) == (["succeeded"], 1, 10)


@pytest.mark.parametrize(
    ("header", "text", "pause"),
    [
        ("X_Stainless_Timeout", "1", "20"),
        ("X_Stainless_Read_Timeout", "0.2", "20"),
        ("X_Stainless_Read_Timeout", "0.4", "20"),
    ],
)
async def test_patience_is_heeded(stage: Stage, upstream: Fake, header: str, text: str, pause: str) -> None:
    """Whichever header says how long a client listens, it is answered before its time is up."""
    upstream.script.add(HOLD)
    async with asyncio.timeout(PATIENCE):
        late = await generate(stage.visit(), **{header: text})
    assert (late.status, late.headers["retry-after"]) == (504, pause)
    upstream.release()


@pytest.mark.parametrize("text", ["None", "nan", "inf", "-1", "0", "1e999", "2,5"])
async def test_senseless_patience_is_none(stage: Stage, upstream: Fake, text: str) -> None:
    """A header that says no time says nothing, and the call waits as any other."""
    reply = await generate(stage.visit(), X_Stainless_Read_Timeout=text)
    assert reply.status == 200


async def test_drain_ends_the_wait(stage: Stage, upstream: Fake) -> None:
    """A process that stops answers who waits, and takes nothing new; both are told to come again."""
    upstream.script.add(HOLD)
    ann = stage.visit()
    asking = asyncio.ensure_future(generate(ann))
    await working(upstream)
    stage.house.lifetime.begin_drain()
    late, new = await asking, await generate(ann)
    assert (late.status, late.json["error"]["code"], late.headers["retry-after"]) == (
        504,
        "still_running",
        "1",
    )
    assert (new.status, new.json["error"]["code"]) == (503, "draining")
    assert late.headers["x-should-retry"] == new.headers["x-should-retry"] == "true"
    upstream.release()


async def test_canceled_elsewhere_is_told(stage: Stage, upstream: Fake) -> None:
    """A job that was canceled by our own API while the call waited ends it, and is not sent again."""
    upstream.script.add(HOLD)
    ann = stage.visit()
    asking = asyncio.ensure_future(generate(ann))
    await working(upstream)
    (job,) = (await ann.get("/v1/jobs?state=running")).json["data"]
    await ann.post(f"/v1/jobs/{job['id']}/cancel")
    reply = await asking
    assert (reply.status, reply.json["error"]["code"]) == (409, "canceled")
    assert reply.headers["x-should-retry"] == "false"


async def test_deleted_pictures_are_gone(stage: Stage, upstream: Fake) -> None:
    """A key whose job was deleted is 410 here too, in this API's words."""
    ann = stage.visit()
    await generate(ann, Idempotency_Key="k-1")
    (job,) = (await ann.get("/v1/jobs")).json["data"]
    await ann.ask("DELETE", f"/v1/jobs/{job['id']}")
    gone = await generate(ann, Idempotency_Key="k-1")
    assert (gone.status, gone.json["error"]["code"]) == (410, "job_erased")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", GENERATE, 405), ("POST", "/v1/images/variations", 404), ("POST", GENERATE, 415)],
)
async def test_every_error_is_openais(stage: Stage, method: str, path: str, status: int) -> None:
    """Whatever goes wrong below this API's paths is told in its form, with its request's id."""
    reply = await stage.visit().ask(
        method, path, {"Content-Type": "text/plain"}, b"x" if status == 415 else b""
    )
    assert reply.status == status
    assert reply.json["error"].keys() == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"]
    assert reply.headers["x-should-retry"] == "false"


async def test_plan_takes_sames_for_repeats(opening: Opening, upstream: Fake) -> None:
    """Where the plan says so, the same words within ten minutes are a repeat, unless marked as none."""

    def attaching(bundle: Bundle) -> Bundle:
        pro = replace(bundle.plans["pro"], attach_unmarked=True)
        return replace(bundle, plans=bundle.plans | {"pro": pro})

    stage = await opening(providers=entry(upstream), bundle=attaching)
    ann = stage.visit(seconds=7200)
    for again, paid in (({}, 1), ({}, 1), ({"X_Stainless_Retry_Count": "0"}, 2), ({}, 2)):
        assert (await generate(ann, **again)).status == 200
        assert upstream.paid == paid
    stage.clock.move(601_000)
    assert (await generate(ann)).status == 200
    assert upstream.paid == 3
