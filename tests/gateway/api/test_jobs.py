"""The calls about jobs, over use cases in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import Problem
from gateway.jobs import Quoted
from policies import ids
from policies.model import (
    Account,
    Hold,
    JobError,
    JobRequest,
    JobState,
    Money,
    Output,
    Shortfall,
    Usage,
    Window,
)
from tests.fakes.jobs import NOON, uuid
from tests.gateway.api.conftest import URL, Site, settle

ONE = f"/v1/jobs/{ids.shown(uuid(1))}"
KEY = "0123456789abcdef/" + uuid(1) + "/0.png"
SUBMIT = {"prompt": "a lighthouse"}

FIELDS = [
    *("id", "state", "ended", "version", "subject", "policy_version", "prompt", "operation", "size"),
    *("aspect_ratio", "quality", "count", "inputs", "mask", "style", "lighting", "camera", "negative"),
    *("seed", "format", "background", "model", "metadata", "on_unsupported", "final_prompt"),
    *("adjustments", "outputs", "shortfall", "error", "cost", "queue", "cancel_requested_at"),
    *("created_at", "started_at", "ended_at", "links"),
]


async def test_submit_answers_with_job(site: Site) -> None:
    """A submit is 202 with the job, where it is, when to look again, and what credits are left."""
    answer = await site.post("/v1/jobs", SUBMIT)
    assert answer.status == 202
    assert answer.headers["location"] == URL + ONE == answer.json["links"]["self"]
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["safelight-credits-available"] == "100"
    assert "idempotent-replayed" not in answer.headers
    assert answer.json["queue"] == {"position": 3, "eta_seconds": None}
    assert site.told[-1]["job"] == uuid(1)


@pytest.mark.parametrize("spelling", ["k-1", '"k-1"'])
async def test_replay_says_so(site: Site, spelling: str) -> None:
    """The same key, plain or quoted, brings the same job as it now is, and a header that says so."""
    await site.post("/v1/jobs", SUBMIT, ("Idempotency-Key", "k-1"))
    site.jobs.end(1)
    answer = await site.post("/v1/jobs", SUBMIT, ("Idempotency-Key", spelling))
    assert (answer.status, answer.json["state"]) == (202, "canceled")
    assert answer.headers["idempotent-replayed"] == "true"
    assert site.told[-1]["replayed"] is True


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("k" * 255, "k" * 255),
        ('"' + "k" * 255 + '"', "k" * 255),
        (r'"a\"b\\c d"', r'a"b\c d'),
        ("k" * 256, None),
        ("", None),
        ('""', None),
        ("a b", None),
        ('"a', None),
        (r'"a\b"', None),
        ("é", None),
        ('"' + "k" * 256 + '"', None),
    ],
)
async def test_key_is_bounded_text(site: Site, key: str, sent: str | None) -> None:
    """A key is 1 to 255 printable characters; anything else is refused with its place."""
    answer = await site.post("/v1/jobs", SUBMIT, ("Idempotency-Key", key))
    if sent is None:
        assert answer.status == 400
        assert [flaw["pointer"] for flaw in answer.json["errors"]] == ["/header/idempotency-key"]
    else:
        assert site.jobs.asked[-1][1][1] == sent


async def test_bad_body_lists_all(site: Site) -> None:
    """Every mistake of a body is listed with its place."""
    answer = await site.post("/v1/jobs", {"promt": "a", "count": 11, "quality": "best"})
    assert answer.status == 400
    assert {flaw["pointer"] for flaw in answer.json["errors"]} == {"/promt", "/prompt", "/count", "/quality"}
    assert answer.headers["ratelimit"] == '"submit";r=60;t=3600'


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b'{"prompt":"a","prompt":"b"}', b'{"prompt": NaN}', b"\xff"]
)
async def test_unreadable_body_is_400(site: Site, body: bytes) -> None:
    """Bytes that are no strict JSON are the caller's mistake, however deep or broken."""
    answer = await site.ask(
        "POST", "/v1/jobs", site.bearer(), ("Content-Type", "application/json"), body=body
    )
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("application/json", 202),
        ("Application/JSON; charset=UTF-8", 202),
        ('application/json;charset="utf-8"', 202),
        ("application/json;", 202),
        ("text/plain", 415),
        ("application/json; charset=latin-1", 415),
        ("application/json; boundary=x", 415),
        ("application/jsonp", 415),
        ("multipart/form-data", 415),
        ("", 415),
    ],
)
async def test_body_must_be_json(site: Site, sent: str, status: int) -> None:
    """Only a body that says it is JSON is read: a form or plain text would pass a browser's preflight."""
    answer = await site.ask("POST", "/v1/jobs", site.bearer(), ("Content-Type", sent), body=b'{"prompt":"a"}')
    assert answer.status == status


async def test_denial_carries_rate_headers(site: Site) -> None:
    """A refusal to a known caller tells where the smaller of both counters stands."""
    window = Window(NOON - 600_000, 598)
    site.jobs.figures = Usage(
        Account(granted=5, month="2026-11", windows={"submit": window}),
        Account(granted=None, month="2026-11"),
    )
    site.jobs.raising = Problem("insufficient_credits")
    answer = await site.post("/v1/jobs", SUBMIT)
    assert answer.status == 402
    assert answer.headers["ratelimit-policy"] == '"submit";q=600;w=3600'
    assert answer.headers["ratelimit"] == '"submit";r=2;t=3000'
    assert answer.headers["x-ratelimit-limit"] == "600"
    assert answer.headers["x-ratelimit-remaining"] == "2"
    assert answer.headers["x-ratelimit-reset"] == str((NOON + 3_000_000) // 1000)


async def test_money_is_counted(site: Site) -> None:
    """Metrics count what was set aside once a job, and each refusal of a policy by its reason."""
    site.jobs.hold = Hold(20, "2026-11")
    for _ in range(2):
        await site.post("/v1/jobs", SUBMIT, ("Idempotency-Key", "k"))
    site.jobs.raising = Problem("insufficient_credits")
    await site.post("/v1/jobs", SUBMIT)
    shown = (await site.ask("GET", "/metrics")).body
    assert b'safelight_credits_total{move="held"} 20.0' in shown
    assert b'safelight_denials_total{reason="insufficient_credits"} 1.0' in shown


async def test_job_has_every_field(site: Site) -> None:
    """A job is shown with exactly the promised fields, and nothing that is the operator's."""
    request = JobRequest(prompt="sea", count=2, seed=7, metadata={"a": "b"})
    site.jobs.put(
        1,
        request=request,
        state=JobState.SUCCEEDED,
        price_each=10,
        hold=Hold(20, "2026-11"),
        charged=10,
        final_prompt="sea, at dusk",
        outputs=(Output(0, KEY, "image/png", 1024, 1024, 9, "ab" * 32, "7", {"thumb": KEY}),),
        shortfall=(Shortfall(1, "output_rejected", 10),),
        started_at=NOON + 5,
        ended_at=NOON + 9,
        provider="secret-entry",
        provider_cost=Money(5),
        policy_version="p1_0",
    )
    job = (await site.get(ONE)).json
    assert list(job) == FIELDS
    assert job["cost"] == {"quoted": 20, "held": 0, "charged": 10, "refunded": 10}
    assert job["shortfall"] == [{"index": 1, "code": "output_rejected", "refunded": 10}]
    assert (job["started_at"], job["ended_at"]) == ("2026-11-20T12:00:00.005Z", "2026-11-20T12:00:00.009Z")
    assert (job["ended"], job["queue"], job["error"]) == (True, None, None)
    output = job["outputs"][0]
    link = site.links.make(KEY, NOON)
    assert output["url"] == link == output["variants"]["thumb"]
    assert output["expires_at"] == "2026-11-20T12:10:00.000Z"
    assert "secret-entry" not in str(job)


async def test_durable_links_do_not_expire(site: Site) -> None:
    """A job whose links are durable shows such, the same on every read, and no expiry."""
    output = Output(0, KEY, "image/png", 1024, 1024, 9, "ab" * 32, "7", {"thumb": KEY})
    site.jobs.put(1, state=JobState.SUCCEEDED, ended_at=NOON, outputs=(output,), links="durable")
    shown = (await site.get(ONE)).json["outputs"][0]
    link = site.links.durable(KEY)
    assert (shown["url"], shown["variants"]["thumb"], shown["expires_at"]) == (link, link, None)


async def test_failed_job_says_why(site: Site) -> None:
    """An ended job without a picture has an error; `rule` is there only where one decided."""
    error = JobError("upstream_refused", "No.", "upstream", retryable=False, rule="r.1")
    site.jobs.put(1, state=JobState.BLOCKED, ended_at=NOON, error=error, show_final_prompt=False)
    job = (await site.get(ONE)).json
    assert job["error"] == {
        "code": "upstream_refused",
        "detail": "No.",
        "stage": "upstream",
        "retryable": False,
        "rule": "r.1",
    }
    assert job["final_prompt"] is None
    site.jobs.put(1, error=JobError("canceled", "", "upstream", retryable=True))
    assert "rule" not in (await site.get(ONE)).json["error"]


async def test_both_spellings_are_read(site: Site) -> None:
    """A path takes the id as shown and as UUID; any other text is a 404 like an unknown job."""
    site.jobs.put(1)
    assert (await site.get(f"/v1/jobs/{uuid(1)}")).json == (await site.get(ONE)).json
    unknown = (await site.get(f"/v1/jobs/{uuid(2)}")).json
    site.jobs.put(2, tenant="other")
    site.jobs.put(3, subject="bob")
    for name in (uuid(2), uuid(3), "job_x", uuid(1).upper(), "%00", "job_01jcp0e000e008000000000001"):
        answer = await site.get(f"/v1/jobs/{name}")
        assert answer.status == 404
        assert answer.json | {"request_id": ""} == unknown | {"request_id": ""}


async def test_read_is_always_200(site: Site) -> None:
    """Whatever became of a job, reading it succeeds; `Retry-After` is there while it is open."""
    for state in JobState:
        site.jobs.put(1, state=state, ended_at=NOON if state.ended else None)
        answer = await site.get(ONE)
        assert (answer.status, answer.json["state"]) == (200, state)
        assert ("retry-after" in answer.headers) is not state.ended
        assert answer.headers["safelight-credits-available"] == "100"


async def test_etag_spares_the_body(site: Site) -> None:
    """An unchanged job is 304, until its version or the step of its links moves on."""
    site.jobs.put(1, state=JobState.SUCCEEDED, ended_at=NOON)
    tag = (await site.get(ONE)).headers["etag"]
    for condition in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        answer = await site.get(ONE, ("If-None-Match", condition))
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == tag
        assert "content-length" not in answer.headers
        assert "safelight-credits-available" in answer.headers
    assert (await site.get(ONE, ("If-None-Match", '"other"'))).status == 200
    site.jobs.at += 1
    assert (await site.get(ONE, ("If-None-Match", tag))).status == 200
    site.jobs.at -= 1
    site.jobs.put(1)
    assert (await site.get(ONE, ("If-None-Match", tag))).status == 200


async def test_wait_holds_until_end(site: Site) -> None:
    """`wait` alone passes over changes and answers at the end."""
    site.jobs.put(1)
    opened = site.open("GET", f"{ONE}?wait=20", [site.bearer()])
    await settle()
    site.jobs.put(1, state=JobState.RUNNING)
    await settle()
    assert not opened.task.done()
    site.jobs.end(1)
    answer = await opened.done()
    assert answer.json["state"] == "canceled"
    assert site.told[-1]["waited"] is True
    assert not len(site.jobs.bell)


async def test_wait_after_answers_change(site: Site) -> None:
    """`wait` with `after` answers the first version above that one, at once if it is there."""
    site.jobs.put(1)
    opened = site.open("GET", f"{ONE}?wait=20&after=1", [site.bearer()])
    await settle()
    assert not opened.task.done()
    site.jobs.put(1, state=JobState.RUNNING)
    assert (await opened.done()).json["version"] == 2
    assert (await site.get(f"{ONE}?wait=20&after=1")).json["version"] == 2


async def test_wait_is_clamped(site: Site) -> None:
    """However long a caller would wait, the server answers in its own time, always 200."""
    site.jobs.put(1)
    answer = await site.rebuilt(max_wait_seconds=0.01).get(f"{ONE}?wait=86400")
    assert (answer.status, answer.json["state"]) == (200, "queued")
    assert (await site.get(f"{ONE}?wait=0")).json["state"] == "queued"


async def test_wait_ends_with_its_client(site: Site) -> None:
    """A client that leaves while it waits is answered nothing, and its waiter goes with it."""
    site.jobs.put(1)
    opened = site.open("GET", f"{ONE}?wait=20", [site.bearer()])
    await settle()
    assert len(site.jobs.bell) == 1
    opened.left.set()
    assert (await opened.done()).status == 0
    await settle()
    assert not len(site.jobs.bell)
    assert site.told[-1]["status"] == 499


async def test_wait_ends_with_drain(site: Site) -> None:
    """A stopping process answers its waiting reads with the job as it is."""
    site.jobs.put(1)
    opened = site.open("GET", f"{ONE}?wait=20", [site.bearer()])
    await settle()
    site.lifetime.begin_drain()
    assert (await opened.done()).json["state"] == "queued"
    await settle()
    assert not len(site.jobs.bell)


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("wait=x", ["wait"]),
        ("wait=-1", ["wait"]),
        ("wait=1e3", ["wait"]),
        ("wait=86401", ["wait"]),
        ("wait=", ["wait"]),
        ("after=1", ["after"]),
        ("wait=1&after=1.5", ["after"]),
        ("wait=1&after=-1", ["after"]),
        (f"wait=1&after={2**53}", ["after"]),
        ("wait=1&wait=2", ["wait"]),
        ("wiat=1", ["wiat"]),
        ("wiat=1&foo=2&after=x", ["wiat", "foo", "after"]),
    ],
)
async def test_bad_query_lists_all(site: Site, query: str, places: list[str]) -> None:
    """Every parameter that cannot be read is listed, an unknown one too."""
    site.jobs.put(1)
    answer = await site.get(f"{ONE}?{query}")
    assert answer.status == 400
    assert [flaw["pointer"] for flaw in answer.json["errors"]] == [f"/query/{place}" for place in places]


async def test_cancel_says_what_is_over(site: Site) -> None:
    """Cancel is 200 with what is over and 202 while a provider is asked; again is the same."""
    site.jobs.put(1)
    site.jobs.put(2, state=JobState.RUNNING)
    for _ in range(2):
        over = await site.post(f"{ONE}/cancel")
        asked = await site.post(f"/v1/jobs/{uuid(2)}/cancel")
        assert (over.status, over.json["state"]) == (200, "canceled")
        assert (asked.status, asked.json["state"]) == (202, "running")
        assert asked.json["cancel_requested_at"] == "2026-11-20T12:00:00.000Z"
        assert over.headers["safelight-credits-available"] == "100"
    assert (await site.post(f"/v1/jobs/{uuid(3)}/cancel")).status == 404


async def test_delete_wants_end(site: Site) -> None:
    """An open job cannot be deleted; an ended one is gone afterwards."""
    site.jobs.put(1)
    assert (await site.ask("DELETE", ONE, site.bearer())).json["code"] == "job_open"
    site.jobs.end(1)
    deleted = await site.ask("DELETE", ONE, site.bearer())
    assert (deleted.status, deleted.body) == (204, b"")
    assert "ratelimit" in deleted.headers
    assert (await site.ask("DELETE", ONE, site.bearer())).status == 404
    assert (await site.get(ONE)).status == 404


async def test_quote_tells_price(site: Site) -> None:
    """A quote has price, model, size and limits; what does not apply is absent."""
    quote = (await site.post("/v1/quote", SUBMIT)).json
    assert quote | {"limits": None} == {
        "allowed": True,
        "price": 10,
        "model": "standard",
        "size": "1024x1024",
        "adjustments": [],
        "limits": None,
    }
    assert quote["limits"]["submit"]["remaining"] == 60


async def test_blocked_quote_is_200(site: Site) -> None:
    """A prompt a rule blocks is an answer of the quote, with code, rule and wait."""
    site.jobs.quoted = Quoted(
        allowed=False, code="prompt_blocked", rule="r.1", detail="No.", retry_after_ms=1500, final_prompt="x"
    )
    answer = await site.post("/v1/quote", SUBMIT)
    assert answer.status == 200
    told: dict[str, Any] = {"code": "prompt_blocked", "rule": "r.1", "detail": "No.", "retry_after": 2}
    assert told.items() <= answer.json.items()
    assert answer.json["final_prompt"] == "x"
    assert site.told[-1]["rule"] == "r.1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs"),
        ("POST", "/v1/quote"),
        ("POST", f"{ONE}/cancel"),
        ("DELETE", ONE),
        ("GET", "/v1/models"),
    ],
)
async def test_stray_query_is_refused(site: Site, method: str, path: str) -> None:
    """A call without parameters takes none."""
    site.jobs.put(1, state=JobState.CANCELED)
    answer = await site.ask(
        method, f"{path}?x=1", site.bearer(), ("Content-Type", "application/json"), body=b'{"prompt":"a"}'
    )
    assert answer.json["errors"][0]["pointer"] == "/query/x"


async def test_mount_prefix_is_kept_out(site: Site) -> None:
    """Mounted below a prefix, routes are found and links still begin with the public address."""
    site.jobs.put(1)
    answer = await site.ask("GET", f"/api/images{ONE}", site.bearer(), root="/api/images")
    assert answer.json["links"]["self"] == URL + ONE


async def test_many_answers_at_once(site: Site) -> None:
    """Requests under way together do not share what is known of one."""
    for number in range(1, 9):
        site.jobs.put(number)
    answers = await asyncio.gather(*(site.get(f"/v1/jobs/{uuid(number)}") for number in range(1, 9)))
    assert [answer.json["id"] for answer in answers] == [ids.shown(uuid(number)) for number in range(1, 9)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 8
