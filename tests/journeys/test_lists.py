"""Lists and the trail over HTTP: filters, cursors, who sees what."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import HOUR, Stage
from tests.journeys.visitor import Visitor


async def prompts(who: Visitor, query: str = "") -> list[str]:
    """Return the prompts of a list's first page."""
    reply = await who.get(f"/v1/jobs{query}")
    assert reply.status == 200, reply
    return [job["prompt"] for job in reply.json["data"]]


async def pages(who: Visitor, path: str) -> list[list[dict[str, Any]]]:
    """Return all pages of a list."""
    found, cursor = [], ""
    while True:
        reply = (await who.get(path + cursor)).json
        found.append(reply["data"])
        if reply["next"] is None:
            return found
        cursor = f"&cursor={reply['next']}"


@pytest.fixture
async def shelf(opening: Opening, upstream: Fake) -> Stage:
    """Ann's jobs a to e, an hour apart, in every sort; one of Ben's and one of another tenant's Ann."""
    upstream.script.add(
        Behavior(do="malformed", match='"b"'),
        Behavior(do="refusal", match='"c"'),
        Behavior(do="hang", match='"e"', times=0),
    )
    stage = await opening(providers=entry(upstream))
    ann = stage.visit(seconds=24 * 3600)
    fields: list[tuple[str, dict[str, Any]]] = [
        ("a", {"metadata": {"page": "1", "shop.id": 'x"y'}}),
        ("b", {"metadata": {"page": "2"}}),
        ("c", {"model": "quick"}),
        ("d", {"metadata": {"page": "1"}}),
    ]
    for prompt, more in fields:
        await ann.made(prompt, **more)
        stage.clock.move(HOUR)
    await ann.running(await ann.job("e"))
    await stage.visit("ben").made("of ben")
    await stage.visit("ann", "other").made("of the other")
    return stage


FILTERS = [
    ("", "edcba"),
    ("?limit=2", "ed"),
    ("?state=succeeded", "da"),
    ("?state=failed&state=blocked", "cb"),
    ("?state=running", "e"),
    ("?state=queued", ""),
    ("?operation=generate", "edcba"),
    ("?operation=edit", ""),
    ("?model=quick", "c"),
    ("?model=none", ""),
    ("?metadata.page=1", "da"),
    ("?metadata.page=1&metadata.shop.id=x%22y", "a"),
    ("?metadata.page=", ""),
    ("?subject=ann", "edcba"),
    ("?created_after=2026-11-20T13:30:00Z", "edc"),
    ("?created_before=2026-11-20T15:30:00.5%2B01:00", "cba"),
    ("?created_after=2026-11-20T12:30:00Z&created_before=2026-11-20T14:30:00Z&state=blocked", "c"),
]


async def test_list_filters_narrow_it(shelf: Stage) -> None:
    """Each filter keeps what fits it, filters add up, and the newest comes first."""
    for query, expected in FILTERS:
        assert await prompts(shelf.visit(), query) == list(expected), query


async def test_admin_lists_the_tenant(shelf: Stage) -> None:
    """An admin's list is the tenant's, by subject where asked; nobody else may ask for a subject."""
    boss = shelf.admin()
    assert await prompts(boss) == ["of ben", *"edcba"]
    assert await prompts(boss, "?subject=ben") == ["of ben"]
    assert await prompts(shelf.visit("ben")) == ["of ben"]
    assert await prompts(shelf.visit("ann", "other")) == ["of the other"]
    assert await prompts(shelf.admin("other")) == ["of the other"]
    refused = await shelf.visit("ben").get("/v1/jobs?subject=ann")
    assert (refused.status, refused.code) == (403, "forbidden")


async def test_cursor_is_stable_under_inserts(opening: Opening, upstream: Fake) -> None:
    """Pages follow each other without a gap or a double while new jobs arrive."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann = stage.visit(plan="max")
    made = [(await ann.job(f"number {n}"))["id"] for n in range(7)]
    first = (await ann.get("/v1/jobs?limit=3")).json
    await ann.job("a newcomer")
    second = (await ann.get(f"/v1/jobs?limit=3&cursor={first['next']}")).json
    await ann.job("another newcomer")
    third = (await ann.get(f"/v1/jobs?limit=3&cursor={second['next']}")).json
    listed = [job["id"] for page in (first, second, third) for job in page["data"]]
    assert listed == made[::-1]
    assert third["next"] is None
    assert [len(page) for page in await pages(ann, "/v1/jobs?limit=3")] == [3, 3, 3]


async def test_cursor_opens_its_list_only(opening: Opening, upstream: Fake) -> None:
    """A cursor that was altered, or made for another caller or list, is refused with its place."""
    stage = await opening(providers=entry(upstream), concurrency=0)
    ann, boss = stage.visit(plan="max"), stage.admin()
    for n in range(3):
        await ann.job(f"number {n}")
    cursor = (await ann.get("/v1/jobs?limit=1")).json["next"]
    altered = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    attempts = [
        (ann, f"/v1/jobs?cursor={altered}"),
        (ann, "/v1/jobs?cursor=1"),
        (stage.visit("ben"), f"/v1/jobs?cursor={cursor}"),
        (boss, f"/v1/jobs?cursor={cursor}"),
        (stage.visit("ann", "other"), f"/v1/jobs?cursor={cursor}"),
        (boss, f"/v1/audit?cursor={cursor}"),
    ]
    for who, path in attempts:
        reply = await who.get(path)
        assert (reply.status, reply.json["errors"][0]["pointer"]) == (400, "/query/cursor"), path


async def test_query_mistakes_are_listed(stage: Stage) -> None:
    """Every mistake of a query is listed with its place; nothing unknown is passed over."""
    query = "?limit=0&state=done&created_after=now&colour=red&operation=draw&model=a&model=b"
    reply = await stage.visit().get(f"/v1/jobs{query}")
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert {flaw["pointer"] for flaw in reply.json["errors"]} == {
        f"/query/{name}" for name in ("limit", "state", "created_after", "colour", "operation", "model")
    }


async def test_trail_tells_every_decision(stage: Stage, upstream: Fake) -> None:
    """Accepted, denied, charged, refunded, canceled, erased: each is a line with rule, cost and hash."""
    upstream.script.add(Behavior(do="refusal", match="unwanted"), Behavior(do="hang", match="endless"))
    ann, boss = stage.visit(), stage.admin()
    made = await ann.made()
    await ann.submit("safelight-blocked")
    await ann.made("unwanted")
    endless = await ann.running(await ann.job("endless"))
    await ann.post(f"/v1/jobs/{endless['id']}/cancel")
    await ann.ended(endless)
    await ann.ask("DELETE", f"/v1/jobs/{made['id']}")
    lines = (await boss.get("/v1/audit?limit=100")).json["data"]
    told = [(line["action"], line["decision"], line["code"], line["rule"], line["credits"]) for line in lines]
    assert told[::-1] == [
        ("job.submit", "allow", None, None, 10),
        ("job.end", "allow", "succeeded", None, 10),
        ("job.submit", "deny", "prompt_blocked", "demo.blocked", 0),
        ("job.submit", "allow", None, None, 10),
        ("job.end", "allow", "upstream_refused", None, 0),
        ("job.submit", "allow", None, None, 10),
        ("job.cancel", "allow", None, None, 0),
        ("job.end", "allow", "canceled", None, 0),
        ("job.erase", "allow", None, None, 0),
    ]
    submits = [line for line in lines if line["action"] == "job.submit"]
    assert all(len(line["prompt_hash"]) == 32 for line in submits)
    assert len({line["prompt_hash"] for line in submits}) == len(submits)
    assert len({line["subject_ref"] for line in lines}) == 1
    assert "ann" not in json.dumps(lines)


async def test_trail_tells_who_was_turned_away(stage: Stage) -> None:
    """A caller without the scope is on the trail at once, and their further tries with the next line."""
    reader, boss = stage.visit(scopes=frozenset({"images:read"})), stage.admin()
    for _ in range(3):
        assert (await reader.submit("a red bicycle")).status == 403
    stage.clock.move(60_000)
    assert (await reader.submit("a red bicycle")).status == 403
    lines = (await boss.get("/v1/audit")).json["data"]
    told = [(line["action"], line["decision"], line["code"], line["rule"], line["count"]) for line in lines]
    assert told == [("access", "deny", "forbidden", "images:write", n) for n in (3, 1)]


async def test_trail_filters_and_pages(stage: Stage) -> None:
    """The trail is narrowed by subject, job, action and time, and read page by page without a gap."""
    ann, boss = stage.visit(), stage.admin()
    first = await ann.made()
    stage.clock.move(HOUR)
    second = await stage.visit("ben").made()
    whole = (await boss.get("/v1/audit")).json["data"]
    assert len(whole) == 4
    assert [line for page in await pages(boss, "/v1/audit?limit=1") for line in page] == whole
    half = quote("2026-11-20T12:30:00Z")
    for query, expected in [
        (f"job={first['id']}", whole[2:]),
        (f"job={second['id']}&action=job.end", whole[:1]),
        ("subject=ann", whole[2:]),
        ("subject=nobody", []),
        ("action=job.submit", whole[1::2]),
        (f"created_after={half}", whole[:2]),
        (f"created_before={half}&action=job.end", whole[2:3]),
    ]:
        assert (await boss.get(f"/v1/audit?{query}")).json["data"] == expected, query


async def test_trail_names_who_acted(stage: Stage) -> None:
    """What an admin does to another's job is told as the admin's doing, not as its owner's."""
    ann, boss = stage.visit(), stage.admin()
    job = await ann.made()
    await boss.ask("DELETE", f"/v1/jobs/{job['id']}")
    told = {
        name: [line["action"] for line in (await boss.get(f"/v1/audit?subject={name}")).json["data"]]
        for name in ("ann", "boss")
    }
    assert told == {"ann": ["job.end", "job.submit"], "boss": ["job.erase"]}


async def test_trail_export_is_lines(stage: Stage) -> None:
    """`Accept: application/x-ndjson` answers with every line that fits, one JSON object a line."""
    await stage.visit().made()
    boss = stage.admin()
    export = await boss.get("/v1/audit", Accept="application/x-ndjson")
    assert (export.status, export.headers["content-type"]) == (200, "application/x-ndjson")
    page = (await boss.get("/v1/audit")).json["data"]
    assert [json.loads(line) for line in export.body.splitlines()] == page


async def test_trail_is_the_admins(stage: Stage) -> None:
    """The trail is for the tenant's admins, and is that tenant's alone."""
    await stage.visit().made()
    refused = await stage.visit().get("/v1/audit")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert (await stage.admin("other").get("/v1/audit")).json["data"] == []
