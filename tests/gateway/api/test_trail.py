"""The trail over HTTP: pages, filters, export."""

from __future__ import annotations

import json

import pytest

from gateway.audit import Record
from gateway.trail import TrailFilter
from policies import ids
from tests.fakes.jobs import NOON, uuid
from tests.gateway.api.conftest import Site

LINE = Record(
    action="job.submit",
    at=NOON,
    ref="r1",
    job=uuid(1),
    model="standard",
    credits=10,
    prompt="ab12",
    policy="p1_0",
)


async def test_line_is_shown_whole(site: Site) -> None:
    """A line shows reference, hash and id, never a subject or a prompt."""
    site.jobs.records = [LINE]
    answer = await site.ask("GET", "/v1/audit", site.admin)
    assert answer.json == {
        "data": [
            {
                "at": "2026-11-20T12:00:00.000Z",
                "action": "job.submit",
                "decision": "allow",
                "subject_ref": "r1",
                "role": None,
                "job": ids.shown(uuid(1)),
                "code": None,
                "rule": None,
                "model": "standard",
                "credits": 10,
                "count": 1,
                "prompt_hash": "ab12",
                "policy_version": "p1_0",
            }
        ],
        "next": None,
    }


async def test_trail_goes_through_pages(site: Site) -> None:
    """Pages follow each other by cursor."""
    site.jobs.records = [Record(action="a", at=NOON - n) for n in range(3)]
    first = (await site.ask("GET", "/v1/audit?limit=2", site.admin)).json
    second = (await site.ask("GET", f"/v1/audit?limit=2&cursor={first['next']}", site.admin)).json
    assert [len(page["data"]) for page in (first, second)] == [2, 1]
    assert second["next"] is None


async def test_trail_filters_are_read(site: Site) -> None:
    """Filters arrive at the use case as values, an id in either spelling."""
    query = (
        f"subject=ann&job={ids.shown(uuid(1))}&action=job.cancel"
        "&created_after=2026-11-20T12:00:00Z&created_before=2026-11-20T12:00:01Z"
    )
    await site.ask("GET", f"/v1/audit?{query}", site.admin)
    assert site.jobs.asked[-1] == ("trail", TrailFilter("ann", uuid(1), "job.cancel", NOON, NOON + 1000))


@pytest.mark.parametrize(("query", "place"), [("job=x", "job"), ("actoin=a", "actoin")])
async def test_bad_trail_filter_is_placed(site: Site, query: str, place: str) -> None:
    """The trail refuses a filter it cannot read, and says which."""
    answer = await site.ask("GET", f"/v1/audit?{query}", site.admin)
    assert answer.json["errors"][0]["pointer"] == f"/query/{place}"


async def test_export_is_line_by_line(site: Site) -> None:
    """The export has every line, whatever the page size, one JSON object a line."""
    site.jobs.records = [Record(action="a", at=NOON - n) for n in range(250)]
    answer = await site.ask("GET", "/v1/audit", site.admin, ("Accept", "application/x-ndjson"))
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.ndjson"'
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert len({line["at"] for line in lines}) == 250
