"""A job's life as a caller sees it: submit, poll, wait, cancel, delete, and what it costs."""

from __future__ import annotations

import hashlib
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from policies import ids
from policies.bundle import Bundle
from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import HOUR, Stage

HANG = Behavior(do="hang", match="endless", times=0)
REFUSAL = Behavior(do="refusal", match="unwanted", times=0)


async def test_submit_poll_and_picture(stage: Stage, upstream: Fake) -> None:
    """A prompt becomes a job, the job a picture whose link opens to the bytes the job speaks of."""
    ann = stage.visit()
    accepted = await ann.submit("a lighthouse at dusk", size="1536x1024", metadata={"page": "7"})
    assert (accepted.status, accepted.headers["retry-after"]) == (202, "1")
    assert accepted.headers["location"] == accepted.json["links"]["self"]
    job = await ann.ended(accepted.json)
    assert (job["state"], job["model"], job["metadata"]) == ("succeeded", "standard", {"page": "7"})
    assert job["cost"] == {"quoted": 10, "held": 0, "charged": 10, "refunded": 0}
    (output,) = job["outputs"]
    assert (output["width"], output["height"], output["media_type"]) == (1536, 1024, "image/png")
    picture = await stage.stranger().get(output["url"].removeprefix(stage.url))
    assert (picture.status, len(picture.body)) == (200, output["bytes"])
    assert hashlib.sha256(picture.body).hexdigest() == output["sha256"]
    thumb = await stage.stranger().get(output["variants"]["thumb"].removeprefix(stage.url))
    assert (thumb.status, thumb.body[:4], thumb.headers["content-type"]) == (200, b"RIFF", "image/webp")
    assert upstream.paid == 1


async def test_wait_holds_until_end(stage: Stage, upstream: Fake) -> None:
    """`?wait=` answers when the job ends; with `after` it answers at each later version."""
    upstream.script.add(Behavior(do="slow", seconds=0.2))
    ann = stage.visit()
    job = await ann.job()
    versions, states = [job["version"]], [job["state"]]
    while not job["ended"]:
        reply = await ann.get(f"/v1/jobs/{job['id']}?wait=20&after={job['version']}")
        assert "retry-after" in reply.headers or reply.json["ended"]
        job = reply.json
        versions.append(job["version"])
        states.append(job["state"])
    assert versions == sorted(set(versions))
    assert states[-1] == "succeeded"
    assert set(states) <= {"queued", "running", "succeeded"}


async def test_wait_gives_up_politely(opening: Opening, upstream: Fake) -> None:
    """A wait that brings no news answers 200 with the job as it is, at most after the server's longest."""
    stage = await opening(providers=entry(upstream), concurrency=0, server={"max_wait_seconds": 0})
    job = await stage.visit().job()
    for query in ("?wait=0", "?wait=25", f"?wait=20&after={job['version']}", "?wait=0.01"):
        reply = await stage.visit().get(f"/v1/jobs/{job['id']}{query}")
        assert (reply.status, reply.json["state"], reply.headers["retry-after"]) == (200, "queued", "1")


async def test_unchanged_job_is_304(stage: Stage) -> None:
    """A job that did not change is 304 by its ETag, until the five-minute mark would change its links."""
    ann = stage.visit()
    path = f"/v1/jobs/{(await ann.made())['id']}"
    first = await ann.get(path)
    tag = first.headers["etag"]
    same = await ann.get(path, If_None_Match=tag)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
    assert (await ann.get(path, If_None_Match=f'"other", {tag}')).status == 304
    assert (await ann.get(path, If_None_Match='"other"')).status == 200
    stage.clock.move(5 * 60_000)
    again = await ann.get(path, If_None_Match=tag)
    assert again.status == 200
    assert again.json["outputs"][0]["url"] != first.json["outputs"][0]["url"]


async def test_head_is_get_without_body(stage: Stage) -> None:
    """HEAD answers what GET would, without the body: on jobs, lists, pictures and pages."""
    ann = stage.visit()
    job = await ann.made()
    picture = job["outputs"][0]["url"].removeprefix(stage.url)
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs", "/v1/account", picture, "/docs", "/livez"):
        full, head = await ann.get(path), await ann.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(full.body))
        varying = {"date", "x-request-id"}
        assert {n: v for n, v in head.headers.items() if n not in varying} == {
            n: v for n, v in full.headers.items() if n not in varying
        }


async def test_cancel_of_queued_job(opening: Opening, upstream: Fake) -> None:
    """A queued job is canceled at once, its credits come back, and a repeat changes nothing."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit()
    job = await ann.job(count=2)
    assert (job["queue"], job["cost"]["held"]) == ({"position": 0, "eta_seconds": None}, 20)
    canceled = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (canceled.status, canceled.json["state"]) == (200, "canceled")
    assert canceled.json["cost"] == {"quoted": 20, "held": 0, "charged": 0, "refunded": 20}
    assert canceled.json["error"]["code"] == "canceled"
    assert canceled.headers["safelight-credits-available"] == "10000"
    again = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (again.status, again.json) == (200, canceled.json)


async def test_cancel_of_running_job(stage: Stage, upstream: Fake) -> None:
    """A running job is asked to end: 202 with the instant of the asking, then canceled and refunded."""
    upstream.script.add(HANG)
    ann = stage.visit()
    job = await ann.running(await ann.job("an endless staircase"))
    asked = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (asked.status, asked.json["ended"]) == (202, False)
    assert asked.json["cancel_requested_at"] is not None
    ended = await ann.ended(job)
    assert (ended["state"], ended["cost"]["refunded"]) == ("canceled", 10)
    over = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (over.status, over.json["version"]) == (200, ended["version"])


async def test_cancel_after_the_end(stage: Stage) -> None:
    """To cancel a job that is over is 200 with the job, whatever its end was."""
    ann = stage.visit()
    job = await ann.made()
    reply = await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (reply.status, reply.json["state"], reply.json["cost"]["charged"]) == (200, "succeeded", 10)


async def test_delete_forgets_the_job(stage: Stage) -> None:
    """A deleted job is 404, so are its pictures; its key answers 410; what was charged stays charged."""
    ann = stage.visit()
    job = await ann.made(key="k-1")
    picture = job["outputs"][0]["url"].removeprefix(stage.url)
    gone = await ann.ask("DELETE", f"/v1/jobs/{job['id']}")
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE"):
        reply = await ann.ask(method, f"/v1/jobs/{job['id']}")
        assert (reply.status, reply.code) == (404, "not_found")
    assert (await ann.get(picture)).code == "not_found"
    replay = await ann.submit(key="k-1")
    assert (replay.status, replay.code) == (410, "job_erased")
    assert (await ann.get("/v1/account")).json["credits"]["charged"] == 10
    assert not list((stage.folder / "blobs").glob("*/*/*"))


async def test_unreadable_job_is_told(stage: Stage) -> None:
    """A stored job that cannot be read is answered as unknown, and an alarm tells the operator."""
    ann = stage.visit()
    job = await ann.made()
    file = apsw.Connection(str(stage.folder / "safelight.db"))  # as the store: it heeds the store's locks
    file.execute("UPDATE jobs SET d = '{}'")
    file.close()
    assert (await ann.get(f"/v1/jobs/{job['id']}")).code == "not_found"
    assert (await ann.get("/v1/jobs")).json["data"] == []
    (alarm,) = [line for line in stage.lines if line["event"] == "alarm"]
    assert (alarm["alarm"], ids.shown(alarm["job"])) == ("job_unreadable", job["id"])


async def test_open_job_stays(stage: Stage, upstream: Fake) -> None:
    """A job that has not ended cannot be deleted."""
    upstream.script.add(HANG)
    ann = stage.visit()
    job = await ann.job("an endless staircase")
    reply = await ann.ask("DELETE", f"/v1/jobs/{job['id']}")
    assert (reply.status, reply.code, reply.json["retryable"]) == (409, "job_open", True)


async def test_replay_returns_the_job(stage: Stage, upstream: Fake) -> None:
    """The same key and body bring the same job as it now is; another body under the key is refused."""
    ann = stage.visit()
    job = await ann.made(key="k-1", seed=None)
    for key in ("k-1", '"k-1"'):
        replay = await ann.submit(key=key)
        assert (replay.status, replay.headers["idempotent-replayed"]) == (202, "true")
        assert (replay.json["id"], replay.json["state"]) == (job["id"], "succeeded")
    assert (await ann.submit(key="k-1", quality="medium", count=1)).json["id"] == job["id"]
    other = await ann.submit("a windmill", key="k-1")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (await stage.visit("ben").submit(key="k-1")).json["id"] != job["id"]
    assert (await stage.visit("ann", "other").submit(key="k-1")).json["id"] != job["id"]
    assert upstream.seen("create")[0].prompt == "a lighthouse at dusk"


async def test_key_is_kept_three_days(opening: Opening, upstream: Fake) -> None:
    """A key is bound for 72 hours and then free again."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    first = await stage.visit().job(key="k-1")
    stage.clock.move(72 * HOUR - 60_000)
    assert (await stage.visit().job(key="k-1"))["id"] == first["id"]
    stage.clock.move(61_000)
    assert (await stage.visit().job(key="k-1"))["id"] != first["id"]


@pytest.mark.parametrize(
    ("prompt", "behavior", "state", "code"),
    [
        ("unwanted", REFUSAL, "blocked", "upstream_refused"),
        ("broken", Behavior(do="malformed"), "failed", "upstream_failed"),
        ("broken", Behavior(do="no_image"), "failed", "output_rejected"),
        ("broken", Behavior(do="half"), "failed", "outcome_unknown"),
    ],
    ids=["refused", "malformed", "no image", "half"],
)
async def test_ends_without_a_picture(
    stage: Stage, upstream: Fake, prompt: str, behavior: Behavior, state: str, code: str
) -> None:
    """A job without a picture is a finished job with a reason, and costs nothing."""
    upstream.script.add(behavior)
    ann = stage.visit()
    job = await ann.made(prompt)
    assert (job["state"], job["error"]["code"], job["outputs"]) == (state, code, [])
    assert job["cost"] == {"quoted": 10, "held": 0, "charged": 0, "refunded": 10}
    assert (await ann.get("/v1/account")).json["credits"]["available"] == 10_000


async def test_partial_delivery_is_charged(stage: Stage, upstream: Fake) -> None:
    """Of four images two come: two are charged, two refunded and named in the shortfall."""
    upstream.script.add(Behavior(do="fewer", count=2))
    ann = stage.visit()
    job = await ann.made(count=4)
    assert (job["state"], [output["index"] for output in job["outputs"]]) == ("succeeded", [0, 1])
    assert [(short["index"], short["refunded"]) for short in job["shortfall"]] == [(2, 10), (3, 10)]
    assert job["cost"] == {"quoted": 40, "held": 0, "charged": 20, "refunded": 20}
    assert (await ann.get("/v1/account")).json["credits"]["available"] == 9_980


async def test_quote_spends_nothing(stage: Stage) -> None:
    """A quote tells price and prompt of a submit and changes neither credits nor counters."""
    ann = stage.visit()
    before = (await ann.get("/v1/account")).json
    reply = await ann.post("/v1/quote", {"prompt": " a lighthouse ", "count": 2, "quality": "high"})
    assert (reply.status, reply.json["allowed"], reply.json["price"]) == (200, True, 80)
    assert (reply.json["model"], reply.json["size"]) == ("standard", "1024x1024")
    assert reply.json["final_prompt"] == "a lighthouse"
    assert (await ann.get("/v1/account")).json["credits"] == before["credits"]
    assert (await ann.get("/v1/account")).json["limits"]["submit"]["remaining"] == 600
    assert (await ann.get("/v1/jobs")).json == {"data": [], "next": None}


async def test_quote_of_blocked_prompt(stage: Stage) -> None:
    """A blocked prompt quotes as 200 with `allowed` false and the rule; the submit is refused by it."""
    ann = stage.visit()
    body = {"prompt": "safelight-blocked"}
    quoted = await ann.post("/v1/quote", body)
    assert (quoted.status, quoted.json["allowed"]) == (200, False)
    assert (quoted.json["code"], quoted.json["rule"]) == ("prompt_blocked", "demo.blocked")
    refused = await ann.post("/v1/jobs", body)
    assert (refused.status, refused.code) == (422, "prompt_blocked")
    assert refused.json["rule"] == "demo.blocked"


async def test_account_tells_what_is_left(stage: Stage, upstream: Fake) -> None:
    """The account shows plan, every limit with what is left, and credits held, charged and available."""
    upstream.script.add(HANG)
    ann = stage.visit()
    await ann.made()
    await ann.running(await ann.job("an endless staircase", count=2))
    account = (await ann.get("/v1/account")).json
    assert (account["tenant"], account["subject"], account["plan"]) == ("acme", "ann", "pro")
    assert account["credits"] == {"granted": 10_000, "held": 20, "charged": 10, "available": 9_970}
    assert account["month"] == {"month": "2026-11", "spent": 30, "tenant_spent": 30}
    limits = account["limits"]
    assert limits["in_flight"] == {"limit": 5, "remaining": 4}
    assert limits["monthly_cap"] == {
        "limit": 10_000,
        "remaining": 9_970,
        "resets_at": "2026-12-01T00:00:00.000Z",
    }
    assert (limits["submit"]["limit"], limits["submit"]["remaining"]) == (600, 598)
    assert (limits["streams"], limits["count"], limits["prompt"]) == (10, 4, 4_000)


async def test_month_tops_credits_up(opening: Opening, upstream: Fake) -> None:
    """A new calendar month fills the tenant's credits up again, once."""

    def small(bundle: Bundle) -> Bundle:
        plan = replace(bundle.plans["pro"], credits_per_month=10, monthly_cap=10)
        return replace(bundle, plans={**bundle.plans, "pro": plan})

    stage = await opening(providers=entry(upstream), bundle=small)
    ann = stage.visit(seconds=40 * 86_400)
    assert (await ann.made())["cost"]["charged"] == 10
    assert (await ann.submit()).code == "insufficient_credits"
    stage.clock.move(11 * 24 * HOUR)
    assert (await ann.made())["cost"]["charged"] == 10
    assert (await ann.submit()).code == "insufficient_credits"
    assert (await ann.get("/v1/account")).json["credits"]["granted"] == 20


async def test_models_are_what_is_made(stage: Stage) -> None:
    """Every size, quality and format a model lists is accepted by a quote, at the listed price."""
    ann = stage.visit()
    reply = await ann.get("/v1/models")
    assert reply.json["object"] == "list"
    assert [model["id"] for model in reply.json["data"]] == ["standard", "quick"]
    asked: list[tuple[dict[str, Any], int]] = []
    for model in reply.json["data"]:
        assert (model["object"], model["owned_by"], model["operations"]) == (
            "model",
            "safelight",
            ["generate", "edit"],
        )
        for row in model["sizes"]:
            for quality in model["qualities"]:
                wish = {"model": model["id"], "size": row["size"], "quality": quality}
                asked.append((wish, row["prices"][quality]))
    for at in range(0, len(asked), 60):
        for wish, price in asked[at : at + 60]:
            quoted = await ann.post("/v1/quote", {"prompt": "a", **wish})
            assert (quoted.json["allowed"], quoted.json["price"]) == (True, price), wish
        stage.clock.move(60_000)
    assert len(asked) == 2 * 14 * 3
