"""Lists of jobs: pages, cursors, filters, and whose jobs they show."""

from __future__ import annotations

import pytest

from gateway.store.contract import JobFilter
from policies import ids
from policies.model import JobState
from tests.fakes.jobs import NOON, uuid
from tests.gateway.api.conftest import Site


async def test_list_goes_through_pages(site: Site) -> None:
    """A list is newest first, and its cursor goes on below whatever came in between."""
    for number in range(1, 6):
        site.jobs.put(number)
    first = (await site.get("/v1/jobs?limit=2")).json
    site.jobs.put(6)
    second = (await site.get(f"/v1/jobs?limit=2&cursor={first['next']}")).json
    third = (await site.get(f"/v1/jobs?limit=2&cursor={second['next']}")).json
    shown = [job["id"] for page in (first, second, third) for job in page["data"]]
    assert shown == [ids.shown(uuid(number)) for number in (5, 4, 3, 2, 1)]
    assert third["next"] is None


async def test_cursor_fits_its_list_only(site: Site) -> None:
    """An altered cursor, another caller's and another list's are refused with their place."""
    for number in range(1, 4):
        site.jobs.put(number)
    cursor: str = (await site.get("/v1/jobs?limit=1")).json["next"]
    altered = cursor[:5] + ("A" if cursor[5] != "A" else "B") + cursor[6:]
    for text in (altered, cursor[:-1], cursor + "=", "", "1"):
        answer = await site.get(f"/v1/jobs?cursor={text}")
        assert answer.status == 400
        assert answer.json["errors"][0]["pointer"] == "/query/cursor"
    assert (await site.ask("GET", f"/v1/jobs?cursor={cursor}", site.bearer("bob"))).status == 400
    assert (await site.ask("GET", f"/v1/audit?cursor={cursor}", site.admin)).status == 400


async def test_list_filters_are_read(site: Site) -> None:
    """Filters arrive at the use case as values."""
    query = (
        "state=queued&state=running&operation=edit&model=standard&created_after=2026-11-20T12:00:00Z"
        "&created_before=2026-11-20T13:00:00.5%2B01:00&metadata.team=a%20b&subject=ann"
    )
    await site.ask("GET", f"/v1/jobs?{query}", site.admin)
    assert site.jobs.asked[-1] == (
        "list",
        JobFilter(
            subject="ann",
            states=frozenset({JobState.QUEUED, JobState.RUNNING}),
            operation="edit",
            model="standard",
            created_after=NOON,
            created_before=NOON + 500,
            metadata={"team": "a b"},
        ),
    )


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("state=quued", "state"),
        ("operation=draw", "operation"),
        ("operation=edit&operation=generate", "operation"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-13-20T12:00:00Z", "created_after"),
        ("created_after=1969-01-01T00:00:00Z", "created_after"),
        ("created_before=2026-11-20", "created_before"),
        ("metadata.=x", "metadata."),
        ("metadata.a=1&metadata.a=2", "metadata.a"),
        ("a~/b=1", "a~0~1b"),
        ("%C3%A9=1", "\\xe9"),
    ],
)
async def test_bad_filter_is_placed(site: Site, query: str, place: str) -> None:
    """A filter that cannot be read is refused with its place."""
    answer = await site.get(f"/v1/jobs?{query}")
    assert answer.status == 400
    assert answer.json["errors"][0]["pointer"] == f"/query/{place}"


async def test_bad_filter_names_likely_one(site: Site) -> None:
    """A misspelled parameter or word is answered with the one probably meant."""
    errors = (await site.get("/v1/jobs?stat=queued&state=quued")).json["errors"]
    assert 'did you mean "state"?' in errors[0]["detail"]
    assert 'did you mean "queued"?' in errors[1]["detail"]


@pytest.mark.parametrize("query", ["%ff=1", "&".join(f"state=q{n}" for n in range(201))])
async def test_hostile_query_is_400(site: Site, query: str) -> None:
    """A query that is no UTF-8, or endless, is one mistake."""
    errors = (await site.get(f"/v1/jobs?{query}")).json["errors"]
    assert [flaw["pointer"] for flaw in errors] == ["/query"]


async def test_list_of_others_is_admins(site: Site) -> None:
    """Who is no admin may name themselves as subject and nobody else."""
    site.jobs.put(1)
    site.jobs.put(2, subject="bob")
    assert len((await site.get("/v1/jobs?subject=ann")).json["data"]) == 1
    assert (await site.get("/v1/jobs?subject=bob")).status == 403
    assert len((await site.ask("GET", "/v1/jobs", site.admin)).json["data"]) == 2
