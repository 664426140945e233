"""Submits and polls take a short way; what they are answered is what the long way answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from gateway.api.edge import Edge
    from tests.gateway.api.conftest import Site

JOB = "/v1/jobs/job_01JCP0E000E008000000000001"
OWN = {"x-request-id", "date"}


def both(site: Site) -> tuple[Edge, Edge]:
    """Return the application with its short way, and one without."""
    short = cast("Any", site.app)
    long = type(short)(short.app, short._parts)  # noqa: SLF001 - what differs is what is not given
    return short, long


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/jobs", {"prompt": "a"}),
        ("POST", "/v1/jobs", {"promt": "a"}),
        ("POST", "/v1/jobs?x=1", {"prompt": "a"}),
        ("GET", JOB, None),
        ("HEAD", JOB, None),
        ("GET", f"{JOB}?wait=x", None),
        ("GET", f"{JOB}/", None),
        ("GET", "/v1/jobs/", None),
        ("GET", "/v1/jobs/nonsense", None),
        ("PUT", "/v1/jobs", None),
        ("POST", JOB, None),
        ("GET", f"{JOB}/nothing", None),
    ],
)
async def test_short_way_answers_alike(site: Site, method: str, path: str, body: Any) -> None:
    """Status, body and headers are the same on both ways, but for the request's own id."""
    site.jobs.put(1)
    told = []
    for app in both(site):
        site.app = app
        answer = await (site.post(path, body) if body is not None else site.ask(method, path, site.bearer()))
        headers = {name: value for name, value in answer.headers.items() if name not in OWN}
        text = answer.body.replace(answer.headers["x-request-id"].encode(), b"")
        told.append((answer.status, headers, text))
    assert told[0][0] == told[1][0]
    if method != "POST" or told[0][0] != 202:  # a second job has a name of its own
        assert told[0] == told[1]
