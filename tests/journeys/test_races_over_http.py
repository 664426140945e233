"""Callers in each other's way, over sockets and through every API at once: one job, one charge, no bug.

Whatever was raced, the doctor is asked afterwards: every balance is the sum of its ledger, nothing is held
for what is over, and the trail holds.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway import doctor
from gateway.store.sqlite import SqliteBackend
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import png
from tests.fakes.post import OK, sent
from tests.fakes.raw_server import RawServer, says
from tests.journeys.bringing import announced, brought, edit, put
from tests.journeys.stage import Stage
from tests.journeys.visitor import Reply, Visitor

if TYPE_CHECKING:
    from tests.fakes.server import Fake

CROWD: Final = 64
HOLD: Final = Behavior("hold", times=0)
IMAGE: Final = png(64, 64)
ASKING: Final[Mapping[str, dict[str, object]]] = {
    "/v1/jobs": {"prompt": "a lighthouse"},
    "/api/v1/generate": {"prompt": "a lighthouse"},
    "/api/generate": {"prompt": "a lighthouse"},
    "/v1/images/generations": {"prompt": "a lighthouse"},
    "/v1/uploads": announced("png", len(IMAGE)),
}
"""One call of each API, and one that makes no job."""


@pytest.fixture
async def stage(stage: Stage) -> AsyncIterator[Stage]:
    """The usual house, examined when the test is over."""
    yield stage
    backend = SqliteBackend(stage.folder / "safelight.db", stage.clock, read_only=True)
    found = await doctor.examine(backend, stage.house.chain)
    for tenant in await backend.tenants():
        assert isinstance(await doctor.verify_trail(backend, stage.house.chain, tenant), doctor.Verified)
    await backend.close()
    assert [each for each in found if each.kind == "difference"] == []


async def jobs_of(who: Visitor) -> list[dict[str, Any]]:
    """Return a caller's jobs, each at its end."""
    listed = (await who.get("/v1/jobs?limit=100")).json["data"]
    return [job if job["ended"] else await who.ended(job) for job in listed]


async def tally(stage: Stage, subject: str = "ann") -> tuple[int, int, int]:
    """Return what a subject was charged, has held, and has in flight."""
    account = (await stage.house.store.usage("acme", subject)).user
    return account.charged, account.held, account.flight


async def test_one_key_through_every_api(stage: Stage, upstream: Fake) -> None:
    """One key through all APIs at once is one thing; who asked for it is told of it, others are refused."""
    ann = stage.visit()
    paths = [list(ASKING)[at % len(ASKING)] for at in range(CROWD)]
    keys = [("one", '"one"')[at % 2] for at in range(CROWD)]
    replies = await asyncio.gather(
        *(ann.post(p, ASKING[p], Idempotency_Key=k) for p, k in zip(paths, keys, strict=True))
    )
    told = Counter((r.status, "idempotent-replayed" in r.headers) for r in replies)
    taken = [status for status, replayed in told if status < 300 and not replayed]
    assert sum(told[status, False] for status in taken) == 1
    assert {status for status, _ in told} <= {200, 201, 202, 409, 422}
    jobs = await jobs_of(ann)
    assert (await tally(stage), upstream.paid) == ((10 * len(jobs), 0, 0), len(jobs))
    assert len(jobs) <= 1


async def test_crowd_of_repeats_is_one_job(stage: Stage, upstream: Fake) -> None:
    """Repeats an SDK sends by itself, sixty-four at once, make one picture, and all are given it."""
    ann = stage.visit()
    path = "/v1/images/generations"
    replies = await asyncio.gather(
        *(ann.post(path, ASKING[path], x_stainless_retry_count=str(1 + at % 2)) for at in range(CROWD))
    )
    assert {(r.status, r.body) for r in replies} == {(200, replies[0].body)}
    assert (await tally(stage), upstream.paid) == ((10, 0, 0), 1)


async def test_uploads_of_one_key_are_one(stage: Stage) -> None:
    """One key, announced in two APIs at once, is one upload; one PUT of its bytes wins, one edit is made."""
    ann = stage.visit()
    theirs = {"filename": "a picture", "contentType": "image/png", "size": len(IMAGE)}
    calls = [
        ("/v1/uploads", announced("png", len(IMAGE))) if at % 2 else ("/api/v1/upload", theirs)
        for at in range(CROWD // 2)
    ]
    replies = await asyncio.gather(*(ann.post(p, body, Idempotency_Key="up") for p, body in calls))
    names = {r.json.get("id") or r.json.get("key") for r in replies}
    (name,) = names
    puts = await asyncio.gather(*(put(r.json["url"], IMAGE) for r in replies))
    assert Counter(r.status for r in puts) == {200: 1, 409: len(puts) - 1}
    edits = await asyncio.gather(*(edit(ann, name, key="edit") for _ in range(CROWD // 2)))
    assert {r.status for r in edits} == {202}
    (job,) = await jobs_of(ann)
    assert (job["state"], await tally(stage)) == ("succeeded", (10, 0, 0))


async def test_revoked_key_makes_no_more(stage: Stage) -> None:
    """Of requests that race a key's revocation each is whole or refused; after it none is taken."""
    ann = stage.visit(plan="max")
    shown = (await ann.post("/v1/keys", {})).json
    ci = Visitor(stage.url, stage.tape, shown["key"])

    async def revoke() -> Reply:
        return await ann.ask("DELETE", f"/v1/keys/{shown['id']}")

    calls: list[Awaitable[Reply]] = [ci.submit() for _ in range(15)]
    replies = await asyncio.gather(*calls[:7], revoke(), *calls[7:])
    told = Counter(r.status for r in replies)
    assert told[204] == 1
    assert set(told) <= {202, 204, 401, 429}
    assert (await ci.submit()).status == 401
    jobs = await jobs_of(ann)
    assert (len(jobs), await tally(stage)) == (told[202], (10 * told[202], 0, 0))


async def test_hook_deleted_under_way(stage: Stage) -> None:
    """Webhooks deleted and jobs erased while deliveries are under way: all that arrives tells of a job."""
    ann = stage.visit(plan="max")
    async with RawServer(says(OK)) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        hooks = [(await ann.post("/v1/webhooks", {"url": url})).json["id"] for _ in range(4)]

        async def brief() -> None:
            job = await ann.made()
            assert (await ann.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204

        async def drop(name: str) -> None:
            assert (await ann.ask("DELETE", f"/v1/webhooks/{name}")).status == 204

        await asyncio.gather(*(brief() for _ in range(6)), *(drop(name) for name in hooks))
        told = [json.loads(one.body) for one in sent(receiver)]
    assert {each["type"] for each in told} <= {"job.succeeded"}
    assert all(each["data"]["ended"] for each in told)
    assert await stage.house.store.list_endpoints("acme") == []
    assert await tally(stage) == (60, 0, 0)


@pytest.mark.parametrize("turns", [0, 3, 10, 40, 160, 640])
async def test_cancel_in_each_phase(stage: Stage, turns: int) -> None:
    """An edit canceled at whatever moment is charged as it ended: in full, or not at all."""
    ann = stage.visit()
    upload = await brought(ann, IMAGE)
    job = (await edit(ann, upload)).json
    for _ in range(turns):
        await asyncio.sleep(0)
    reply = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert reply.status in (200, 202)
    ended = await ann.ended(job)
    price = {"canceled": 0, "succeeded": 10}[ended["state"]]
    assert (ended["cost"]["charged"], await tally(stage)) == (price, (price, 0, 0))


async def test_caller_leaves_in_each_call(stage: Stage, upstream: Fake) -> None:
    """Who hangs up before an answer has made a job or none, and a repeat of the call is told of that."""
    upstream.script.add(HOLD)
    ann = stage.visit(plan="max")
    for path in ("/v1/jobs", "/api/v1/generate", "/api/generate", "/v1/images/generations"):
        body = json.dumps(ASKING[path]).encode()
        request = ann.request("POST", path, {"Idempotency-Key": path}, body)
        async with await ann.dial() as line:
            line.write(request)
            await stage.stranger().get("/livez")
    upstream.release()
    replies = [await ann.post(path, ASKING[path], Idempotency_Key=path) for path in list(ASKING)[:4]]
    assert {r.status for r in replies} <= {200, 202}
    jobs = await jobs_of(ann)
    assert (len(jobs), await tally(stage)) == (4, (40, 0, 0))


# -- all of it at once -------------------------------------------------------------------------------

DEEDS: Final = (
    Behavior("status", status=500),
    Behavior("refusal"),
    Behavior("reset_after"),
    Behavior("half"),
    Behavior("malformed"),
    Behavior("no_image"),
    Behavior("slow", seconds=0.02),
)
"""What the upstream does to some of the jobs of a storm."""
DECLARED: Final = {"upstream_failed", "outcome_unknown"}
"""What OpenAI's API answers with 5xx after those."""
Verb = Callable[["Storm", Visitor, Random], Awaitable[Reply]]


class Storm:
    """What callers know of each other's things while they race."""

    def __init__(self, upload: str) -> None:
        self.uploads = [upload]
        self.jobs = ["job_" + "0" * 26]
        self.keys = ["key_" + "0" * 26]

    async def ask(self, who: Visitor, coin: Random) -> Reply:
        """Submit through any API, some with a key or as a repeat."""
        path = coin.choice(list(ASKING)[:4])
        body = {**ASKING[path], "prompt": f"a lighthouse {coin.randrange(4)}"}
        headers = coin.choice(
            ({}, {}, {"Idempotency_Key": f"k{coin.randrange(3)}"}, {"x_stainless_retry_count": "1"})
        )
        return self.seen(await who.post(path, body, **headers))

    async def alter(self, who: Visitor, coin: Random) -> Reply:
        """Edit an upload, somebody's."""
        return self.seen(await edit(who, coin.choice(self.uploads), key=coin.choice(("", "e1", "e2"))))

    async def announce(self, who: Visitor, _coin: Random) -> Reply:
        """Bring another upload."""
        self.uploads.append(await brought(who, IMAGE))
        return await who.get("/v1/account")

    async def cancel(self, who: Visitor, coin: Random) -> Reply:
        """Cancel a job, somebody's."""
        return await who.post(f"/v1/jobs/{coin.choice(self.jobs)}/cancel")

    async def erase(self, who: Visitor, coin: Random) -> Reply:
        """Erase a job, somebody's."""
        return await who.ask("DELETE", f"/v1/jobs/{coin.choice(self.jobs)}")

    async def listen(self, who: Visitor, _coin: Random) -> Reply:
        """Register a webhook where nobody answers."""
        return await who.post("/v1/webhooks", {"url": "http://127.0.0.1:9/"})

    async def leave(self, who: Visitor, coin: Random) -> Reply:
        """Submit, and hang up."""
        body = b'{"prompt": "a lighthouse %d"}' % coin.randrange(4)
        async with await who.dial() as line:
            line.write(who.request("POST", "/v1/images/generations", {}, body))
            return await who.get("/livez")

    def seen(self, reply: Reply) -> Reply:
        """Remember the job an answer tells of."""
        found = reply.json
        name = found.get("id") or found.get("generationId") or found.get("jobId")
        if reply.status == 202:
            self.jobs.append(name)
        return reply


VERBS: Final[tuple[Verb, ...]] = (
    *[Storm.ask] * 4, *[Storm.alter] * 2, *[Storm.cancel] * 2,
    Storm.announce, Storm.erase, Storm.listen, Storm.leave,
)  # fmt: skip


@pytest.mark.parametrize("number", range(3))
async def test_storms_cost_what_they_made(stage: Stage, upstream: Fake, number: int) -> None:
    """Whatever callers do at once, and the upstream to them: no 500, and charges are delivered images."""
    coin = Random(number)
    crowd = [stage.visit(name, plan="max") for name in ("ann", "bob", "ann")]
    storm = Storm(await brought(crowd[0], IMAGE))
    for _ in range(6):
        for deed in coin.choices(DEEDS, k=2):  # with more, health would have nothing asked for a while
            upstream.script.add(deed)
        replies = await asyncio.gather(
            *(coin.choice(VERBS)(storm, coin.choice(crowd), coin) for _ in range(20))
        )
        assert {r.json["error"]["code"] for r in replies if r.status >= 500} <= DECLARED
        stage.clock.move(60_000)
    jobs = await jobs_of(stage.admin())
    held = await stage.house.store.usage("acme", "ann")
    assert (held.tenant.held, held.tenant.flight) == (0, 0)
    assert held.tenant.charged >= sum(job["cost"]["charged"] for job in jobs)
    assert all(job["cost"]["charged"] == 10 * len(job["outputs"]) for job in jobs)
    assert upstream.paid * 10 >= held.tenant.charged
