"""A queue that is full, told over HTTP: who is refused, who is answered all the same, and when it is over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policies.bundle import Bundle
from tests.journeys.conftest import Opening
from tests.journeys.stage import SANDBOX, Stage

SECOND = 1_000
DEPTH = 3
DEADLINE = 900


def bulky(bundle: Bundle) -> Bundle:
    """Return the bundle with a plan whose jobs can wait."""
    return replace(bundle, plans={**bundle.plans, "bulk": replace(bundle.plans["pro"], priority="batch")})


@pytest.fixture
async def stage(opening: Opening) -> Stage:
    """A house that makes nothing, so that jobs wait: three at most."""
    worker = {"queue_depth": DEPTH, "job_deadline_seconds": DEADLINE}
    return await opening(providers=SANDBOX, bundle=bulky, concurrency=0, worker=worker)


async def fill(stage: Stage, n: int = DEPTH, subject: str = "ann", **who: str) -> list[str]:
    """Submit jobs under keys, and let the house look; return the jobs' ids."""
    caller = stage.visit(subject, **who)
    jobs = [(await caller.job(key=f"k{number}"))["id"] for number in range(n)]
    await stage.house.pressure.look()
    return jobs


async def test_full_queue_is_told(stage: Stage) -> None:
    """At the bound a new job is 503 with a time to come again; nothing is held, and the trail has a line."""
    await fill(stage)
    ben = stage.visit("ben")
    reply = await ben.submit(key="n")
    assert (reply.status, reply.code, reply.json["rule"]) == (503, "queue_full", "queue.depth")
    assert int(reply.headers["retry-after"]) == reply.json["retry_after"] > 0
    assert reply.json["retryable"]
    quote = (await ben.post("/v1/quote", {"prompt": "a"})).json
    assert (quote["allowed"], quote["code"]) == (False, "queue_full")
    assert (await ben.get("/v1/account")).json["limits"]["submit"]["remaining"] == 600
    trail = (await stage.admin().get("/v1/audit")).json
    line = next(each for each in trail["data"] if each["decision"] == "deny")
    assert (line["action"], line["code"], line["rule"]) == ("job.submit", "queue_full", "queue.depth")


async def test_replay_passes_full_queue(stage: Stage) -> None:
    """A key that has made its job is answered with it, however full the queue is."""
    jobs = await fill(stage)
    again = await stage.visit().submit(key="k0")
    assert (again.status, again.json["id"]) == (202, jobs[0])
    assert again.headers["idempotent-replayed"] == "true"
    assert (await stage.visit().submit(key="k9")).code == "queue_full"


async def test_room_is_taken_again(stage: Stage) -> None:
    """Once a waiting job is gone, the key that was refused makes its job."""
    jobs = await fill(stage)
    ann = stage.visit()
    assert (await ann.submit(key="k9")).code == "queue_full"
    await ann.post(f"/v1/jobs/{jobs[1]}/cancel")
    await stage.house.pressure.look()
    assert (await ann.submit(key="k9")).status == 202


async def test_old_queue_is_full(stage: Stage) -> None:
    """A job that has waited for half of the time it has refuses new ones, until it is gone."""
    (old,) = await fill(stage, 1)
    stage.clock.move(DEADLINE * SECOND // 2)
    await stage.house.pressure.look()
    ann = stage.visit()
    reply = await ann.submit()
    assert (reply.status, reply.code, reply.json["rule"]) == (503, "queue_full", "queue.age")
    await ann.post(f"/v1/jobs/{old}/cancel")
    await stage.house.pressure.look()
    assert (await ann.submit()).status == 202


async def test_batch_fills_its_line_alone(stage: Stage) -> None:
    """What waits as batch refuses batch alone: interactive jobs are taken, and are served first."""
    await fill(stage, plan="bulk")
    assert (await stage.visit(plan="bulk").submit()).code == "queue_full"
    await stage.visit("ben").job()
    first, *_ = await stage.house.store.claim(2, SECOND)
    assert (first.job.subject, first.job.priority) == ("ben", "interactive")


async def test_caller_hears_own_limit_first(stage: Stage) -> None:
    """A caller who may submit nothing anyway is told that, not to come again."""
    ann = stage.visit(plan="free")
    await ann.job()
    await fill(stage, DEPTH - 1, tenant="other")
    assert (await ann.submit()).code == "too_many_in_flight"


@pytest.mark.parametrize(
    ("path", "body", "shown"),
    [
        (
            "/v1/images/generations",
            {"prompt": "a", "model": "gpt-image-1"},
            ("error", "code", "queue_full"),
        ),
        ("/api/v1/generate", {"prompt": "a lighthouse at dusk"}, ("code", "store_unavailable")),
        ("/api/generate", {"prompt": "a lighthouse at dusk"}, ("error", "service_unavailable")),
    ],
)
async def test_each_dialect_tells_it(
    stage: Stage, path: str, body: dict[str, str], shown: tuple[str, ...]
) -> None:
    """Every client API answers 503 in its own form, with a time to come again."""
    await fill(stage, tenant="other")
    reply = await stage.visit().post(path, body)
    assert reply.status == 503, reply
    assert int(reply.headers["retry-after"]) > 0
    value = reply.json
    for name in shown[:-1]:
        value = value[name]
    assert value == shown[-1]
