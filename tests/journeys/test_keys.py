"""Service keys through the running house: made, used, lost, revoked; and the command that keeps them."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

from gateway.cli.client import Client
from gateway.errors import Problem
from tests.fakes.command import run, running
from tests.journeys.stage import HOUR, Stage
from tests.journeys.visitor import Visitor

DAY = 24 * HOUR
NEVER_SEEN = {"Accept": "application/x-nothing"}
"""Asks for what no route makes: who passes the gate is told 406 there, and no handler runs."""


async def made(by: Visitor, **asked: Any) -> dict[str, Any]:
    """Make a key and return it as it was shown."""
    reply = await by.post("/v1/keys", asked)
    assert reply.status == 201, reply
    shown: dict[str, Any] = reply.json
    return shown


def holder(stage: Stage, key: str) -> Visitor:
    """Return a client that comes with a key."""
    return Visitor(stage.url, stage.tape, key)


def closed(stage: Stage) -> set[tuple[str, str]]:
    """Return method and path of every route that asks who calls."""
    app: Any = stage.house.api.app
    return {
        (method, re.sub(r"\{[a-z_]+:[a-z]+\}", "x", route.path))
        for route in app.routes
        for one in getattr(route, "route_handlers", ())
        if isinstance(one, HTTPRouteHandler) and "public" not in one.opt
        for method in one.http_methods
        if method != "OPTIONS"
    }


async def test_key_opens_every_route(stage: Stage) -> None:
    """Wherever a token is asked for, in our API and in every dialect, a service key will do."""
    ci = holder(stage, (await made(stage.admin(), roles=["tenant_admin"], prefix="gimg"))["key"])
    routes = closed(stage)
    assert len(routes) > 15
    told = {(path, (await ci.ask(method, path, NEVER_SEEN)).status) for method, path in routes}
    assert {status for path, status in told if path.startswith("/v1/") and "images" not in path} == {406}
    assert not [path for path, status in told if status == 401]
    refused = {(await stage.stranger().ask(method, path, NEVER_SEEN)).status for method, path in routes}
    assert refused == {401}


async def test_key_makes_a_picture(stage: Stage) -> None:
    """A key's job is its subject's: their token reads it, their idempotency keys and limits count."""
    ann = stage.visit()
    ci = holder(stage, (await made(ann))["key"])
    job = await ci.made(key="once")
    assert (job["state"], job["subject"]) == ("succeeded", "ann")
    again = await ann.submit(key="once")
    assert (again.json["id"], again.headers["idempotent-replayed"]) == (job["id"], "true")
    before = int((await ann.submit()).headers["x-ratelimit-remaining"])
    other = holder(stage, (await made(ann))["key"])
    assert int((await other.submit()).headers["x-ratelimit-remaining"]) == before - 1


async def test_revocation_counts_at_once(stage: Stage) -> None:
    """The request after a revocation is 401, and an open stream tells nothing more."""
    ann = stage.visit()
    shown = await made(ann)
    ci = holder(stage, shown["key"])
    job = await ci.job("endless")
    async with ci.stream(f"/v1/jobs/{job['id']}/events") as line:
        assert await line.event() is not None
        assert (await ann.ask("DELETE", f"/v1/keys/{shown['id']}")).status == 204
        await ann.post(f"/v1/jobs/{job['id']}/cancel")
        while event := await line.event():
            assert not event.job["ended"]
    refused = await ci.get("/v1/account")
    assert (refused.status, refused.json["detail"]) == (401, "The bearer token is not accepted here.")
    assert (await ann.ask("DELETE", f"/v1/keys/{shown['id']}")).status == 204
    (listed,) = (await ann.get("/v1/keys")).json["data"]
    assert (listed["id"], listed["revoked_at"] is None) == (shown["id"], False)


async def test_keys_end_with_their_time(stage: Stage) -> None:
    """A key is good for the days it was made for, and no longer."""
    ci = holder(stage, (await made(stage.visit(), expires_in_days=30))["key"])
    stage.clock.move(30 * DAY - HOUR)
    assert (await ci.get("/v1/account")).status == 200
    stage.clock.move(HOUR)
    refused = await ci.get("/v1/account")
    assert (refused.status, refused.json["detail"]) == (401, "The bearer token has expired.")


async def test_tenants_keep_their_keys(stage: Stage) -> None:
    """Another tenant's admin neither lists nor revokes a key; the same tenant's does both."""
    shown = await made(stage.visit())
    one = f"/v1/keys/{shown['id']}"
    chief = stage.admin("other")
    assert (await chief.get("/v1/keys")).json["data"] == []
    assert (await chief.ask("DELETE", one)).code == "not_found"
    assert (await stage.visit("bob").get("/v1/keys")).json["data"] == []
    assert (await stage.visit("bob").ask("DELETE", one)).code == "not_found"
    assert [key["id"] for key in (await stage.admin().get("/v1/keys")).json["data"]] == [shown["id"]]
    assert (await stage.admin().ask("DELETE", one)).status == 204


async def test_dead_store_proves_no_key(stage: Stage) -> None:
    """Where keys cannot be looked up nobody comes in by one; tokens are proved without the store."""
    ci = holder(stage, (await made(stage.visit()))["key"])
    stage.sick.verb = "find_key"
    assert (await ci.get("/v1/models")).code == "store_unavailable"
    assert (await stage.visit().get("/v1/models")).status == 200
    stage.sick.verb = ""
    assert (await ci.get("/v1/models")).status == 200


async def test_stolen_store_opens_nothing(stage: Stage) -> None:
    """Whoever reads the whole store finds hashes: none is a key, with a prefix or without."""
    shown = await made(stage.visit())
    with closing(sqlite3.connect(f"file:{stage.folder / 'safelight.db'}?mode=ro", uri=True)) as file:
        text = " ".join(map(str, file.execute("SELECT * FROM docs").fetchall()))
    hashes = set(re.findall(r"\b[0-9a-f]{64}\b", text))
    assert len(hashes) == 1
    (digest,) = hashes
    for stolen in (digest, f"sk_{digest}", f"sk_{digest[:43]}", shown["hint"].replace("…", "")):
        assert (await holder(stage, stolen).get("/v1/account")).status == 401


async def test_trail_knows_both_ends(stage: Stage) -> None:
    """Making, revoking and what was refused stand on the trail under who did it, without the key."""
    boss, ann = stage.admin(), stage.visit()
    shown = await made(boss, subject="ann", roles=["tenant_admin"])
    assert (await ann.post("/v1/keys", {"subject": "bob"})).code == "forbidden"
    await boss.ask("DELETE", f"/v1/keys/{shown['id']}")
    lines = (await boss.get("/v1/audit")).json["data"]
    told = [(line["action"], line["decision"], line["role"], line["code"], line["rule"]) for line in lines]
    assert told == [
        ("key.revoke", "allow", "tenant_admin", None, None),
        ("access", "deny", None, "forbidden", "key.create"),
        ("key.create", "allow", "tenant_admin", None, None),
    ]
    assert lines[0]["subject_ref"] == lines[2]["subject_ref"] != lines[1]["subject_ref"]


async def test_key_text_is_nowhere(stage: Stage) -> None:
    """A key is in the one answer that made it: not in the log, the trail, a list, or any byte on disk."""
    ann = stage.visit()
    shown = await made(ann, label="a label")
    key = shown["key"].encode()
    assert b"".join(stage.tape).count(key) == 1
    ci = holder(stage, shown["key"])
    await ci.made()
    await ci.get(f"/v1/jobs/{shown['key']}")
    await ci.ask("GET", "/v1/jobs", {"Idempotency-Key": shown["key"], "User-Agent": shown["key"]})
    assert (await holder(stage, shown["key"] + "A").get("/v1/jobs")).status == 401
    await ann.get("/v1/keys")
    await stage.admin().get("/v1/audit")
    await stage.stranger().get("/metrics")
    assert b"".join(stage.tape).count(key) == 1
    log = stage.log.getvalue() + json.dumps(stage.lines).encode()
    assert b"/v1/keys" in log
    assert key not in log
    files = {path: path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()}
    assert any(b"a label" in data for data in files.values())
    assert [path for path, data in files.items() if key in data or key[-43:] in data] == []


def told(*words: str, cwd: Path, **more: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `safelight key`."""
    done = run("key", *words, cwd=cwd, **more)
    return done.returncode, done.stdout, done.stderr


CI = ("--tenant", "acme", "--subject", "ci")
ACME = ("--tenant", "acme")


def test_command_keeps_keys(tmp_path: Path) -> None:
    """Keys are made and revoked beside a running `dev` and without one, and are the same keys."""
    with running("dev", "--port", "0", cwd=tmp_path) as server:
        code, text, words = told("create", *CI, "--prefix", "gimg", "--label", "night", cwd=tmp_path)
        assert (code, bool(re.fullmatch(r"gimg_[A-Za-z0-9_-]{43}\n", text))) == (0, True)
        assert text.strip() not in words
        assert "for ci; user; label 'night'; until " in words
        key = text.strip()
        assert json.loads(Client(server.url, key).get("/v1/account").body)["subject"] == "ci"

        place = ("--url", server.url, "--token", server.token)
        code, text, words = told("create", *CI, *place, cwd=tmp_path)
        assert (code, text, words) == (
            1,
            "",
            "safelight: the token is of the tenant 'demo', not of 'acme'\n",
        )
        (tmp_path / ".safelight/run.json").unlink()
        code, text, words = told("list", *ACME, cwd=tmp_path)
        assert (code, text) == (1, "")
        assert "is in use by a server that this command cannot find. Name it by --url, with" in words

    code, text, _ = told("list", *ACME, cwd=tmp_path)
    (line,) = text.splitlines()
    assert (code, line.split()[1]) == (0, f"gimg_…{key[-4:]}")
    name = line.split()[0]
    assert told("revoke", name, *ACME, cwd=tmp_path)[0] == 0
    with running("dev", "--port", "0", cwd=tmp_path) as server:
        with pytest.raises(Problem, match="unauthenticated"):
            Client(server.url, key).get("/v1/account")
        code, text, _ = told("list", *ACME, cwd=tmp_path)
        assert text.startswith(f"{name}  gimg_…{key[-4:]}  for ci; user; label 'night'; revoked ")
