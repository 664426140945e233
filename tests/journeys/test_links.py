"""Signed links: whoever holds one sees the picture, for minutes; nobody else does, however they spell it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from tests.journeys.stage import MINUTE, NOON, Stage

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


async def link(stage: Stage) -> str:
    """Return path and query of a fresh picture's link."""
    job = await stage.visit().made()
    url: str = job["outputs"][0]["url"]
    return url.removeprefix(stage.url)


async def test_link_answers_with_picture(stage: Stage) -> None:
    """A link opens without a token, for every page, as an image of its own name and nothing else."""
    path = await link(stage)
    reply = await stage.stranger().get(path, Origin="https://elsewhere.example")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["cross-origin-resource-policy"] == "cross-origin"
    assert reply.headers["x-content-type-options"] == "nosniff"
    job = (await stage.visit().get("/v1/jobs")).json["data"][0]
    assert reply.headers["content-disposition"] == f'inline; filename="{job["id"]}-0.png"'
    assert reply.headers["etag"] == f'"{job["outputs"][0]["sha256"]}"'
    attached = await stage.stranger().get(f"{path}&download=1")
    assert attached.headers["content-disposition"].startswith("attachment;")
    assert attached.body == reply.body
    same = await stage.stranger().get(path, If_None_Match=reply.headers["etag"])
    assert (same.status, same.body) == (304, b"")


async def test_every_altered_byte_is_refused(stage: Stage) -> None:
    """Whatever character of key, expiry or signature is another one, the link is invalid."""
    path = await link(stage)
    assert (await stage.stranger().get(path)).status == 200
    spans = re.fullmatch(r"/files/(.+)\?exp=(.+)&sig=(.+)", path)
    assert spans is not None
    places = [at for group in (1, 2, 3) for at in range(*spans.span(group))]
    assert len(places) == len("0123456789abcdef/") + 36 + len("/0.png") + 10 + 43
    for at in places:
        for step in (1, 32):
            other = ALPHABET[(ALPHABET.find(path[at]) + step) % 64]
            reply = await stage.stranger().get(path[:at] + other + path[at + 1 :])
            assert (reply.status, reply.code) == (403, "link_invalid"), (at, other)


SPELLINGS: Sequence[Callable[[str], str]] = [
    lambda path: path.replace("/files/", "/files//"),
    lambda path: path.replace("/0.png", "/./0.png"),
    lambda path: path.replace("/0.png", "/../" + path.split("/")[3] + "/0.png"),
    lambda path: path.replace("/0.png", "/%30.png"),
    lambda path: path.replace("/0.png", "%2F0.png"),
    lambda path: path.replace("/0.png", "/0.thumb.webp"),
    lambda path: path.replace("/0.png", "/0.png/"),
    lambda path: path.replace("/0.png", "/0.PNG"),
    lambda path: path.replace("?exp=", "?exp=0"),
    lambda path: path.replace("?exp=", "?exp=+"),
    lambda path: path + "=",
    lambda path: path + "A",
    lambda path: path[:-1],
    lambda path: path.replace("sig=", "sig=%5F"),
    lambda path: path + "&exp=1",
    lambda path: path + "&other=1",
    lambda path: path + "&download=2",
    lambda path: path.partition("?")[0],
    lambda path: path.partition("&")[0],
    lambda path: "/files/" + quote("../safelight.db", safe="") + "?" + path.partition("?")[2],
    lambda path: "/files/../safelight.db?" + path.partition("?")[2],
    lambda path: "/files/%2e%2e/%2e%2e/etc/passwd?" + path.partition("?")[2],
    lambda path: "/files/..%5c..%5cetc?" + path.partition("?")[2],
]


async def test_other_spellings_are_refused(stage: Stage) -> None:
    """A link is good as it was made, letter by letter: no other path, query or place leads anywhere."""
    path = await link(stage)
    for spell in SPELLINGS:
        reply = await stage.stranger().get(spell(path))
        assert (reply.status, reply.code) == (403, "link_invalid"), spell(path)


async def test_link_runs_out(stage: Stage) -> None:
    """A link is good to the end of its last second, then 410; the job read again has a fresh one."""
    path = await link(stage)
    expiry = int(path.partition("exp=")[2].partition("&")[0]) * 1000
    assert expiry == NOON + 15 * MINUTE
    stage.clock.hold()
    stage.clock.move(expiry - 1 - stage.clock())
    assert (await stage.stranger().get(path)).status == 200
    stage.clock.move(1)
    late = await stage.stranger().get(path)
    assert (late.status, late.code) == (410, "link_expired")
    assert late.headers["access-control-allow-origin"] == "*"
    fresh = (await stage.visit().get("/v1/jobs")).json["data"][0]["outputs"][0]["url"]
    assert (await stage.stranger().get(fresh.removeprefix(stage.url))).status == 200


async def test_link_is_same_between_marks(stage: Stage) -> None:
    """Two reads between the same five-minute marks bring the same link; the next mark another."""
    ann = stage.visit()
    path = f"/v1/jobs/{(await ann.made())['id']}"
    stage.clock.hold()
    links = []
    for at in (NOON + 2 * MINUTE, NOON + 5 * MINUTE, NOON + 5 * MINUTE + 1, NOON + 10 * MINUTE):
        stage.clock.move(at - stage.clock())
        output = (await ann.get(path)).json["outputs"][0]
        links.append((output["url"], output["expires_at"]))
    assert links[0] == links[1]
    assert links[1] != links[2] == links[3]
    assert [at for _, at in links] == ["2026-11-20T12:15:00.000Z"] * 2 + ["2026-11-20T12:20:00.000Z"] * 2
