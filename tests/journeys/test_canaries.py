"""Canaries: a provider's key and a caller's prompt go through everything, and are then looked for.

The fakes quote both in their answers, a bug quotes both in its message. What is searched is all a run
leaves behind: answers, log, metrics, trail, file names and bytes, links, and the store's own file.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, closing
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.secrets import Secret
from gateway.settings import ProviderSettings
from policies.bundle import Bundle, PerLevel, Target
from tests.fakes import gptimage2_ai, gptimage2_plus, openai
from tests.fakes.behavior import Behavior
from tests.fakes.server import Fake
from tests.journeys.conftest import Opening
from tests.journeys.stage import SECRET, Stage
from tests.journeys.visitor import Reply, Visitor

KEY = "sk-canary-5d0c1e7b9f42"
PROMPT = "an otter in violet quartz"
QUOTE = f"Your key {KEY} may not draw: {PROMPT}"
ERROR = {"error": {"message": QUOTE, "type": QUOTE, "code": QUOTE, "param": PROMPT}}
REFUSED = {"error": {"message": QUOTE, "type": "image_generation_user_error", "code": "moderation_blocked"}}
ODD = {"id": KEY, "jobId": KEY, "generationId": KEY, "status": "running", "message": QUOTE, "seed": PROMPT}

HOLDS_PROMPTS = {("jobs", "d")}
"""Every column of the store in which a prompt may stand."""
SHOWS_PROMPTS = {"prompt", "final_prompt"}
"""Every field of an answer to its owner in which a prompt may stand."""


def says(status: int, body: object, match: str, **more: Any) -> Behavior:
    """Return the behavior that answers with a quoting body and headers."""
    headers = {"content-type": "application/json", "x-echo": f"{KEY} {PROMPT}"}
    return Behavior(
        do="status",
        status=status,
        body=json.dumps(body),
        headers=headers,
        match=match,
        **{"times": 0, **more},
    )


SCRIPT = [
    says(400, ERROR, "[400]"),
    says(400, REFUSED, "[refused]"),
    says(401, ERROR, "[401]"),
    says(402, ERROR, "[402]"),
    says(422, ERROR, "[422]"),
    says(504, ERROR, "[504]"),
    says(200, ODD, "[odd]"),
    says(202, {**ODD, "status": KEY}, "[odd state]"),
    Behavior(do="half", match="[half]", times=0),
    Behavior(do="no_image", match="[no image]", times=0),
    Behavior(do="hang", match="[hang]", times=0),
]
MARKS = (
    "",
    "[400]",
    "[refused]",
    "[401]",
    "[402]",
    "[422]",
    "[504]",
    "[odd]",
    "[odd state]",
    "[half]",
    "[no image]",
)


def routed(bundle: Bundle) -> Bundle:
    """Return the bundle with a model for each provider alone."""
    pro, standard = bundle.plans["pro"], bundle.models["standard"]
    models = {
        name: replace(standard, route=(Target(name, standard.route[0].model),))
        for name in ("openai", "plus", "ai", "drawn")
    }
    plan = replace(pro, models=tuple(models), in_flight=PerLevel(500, 500), streams=100)
    return replace(bundle, models=models, plans={**bundle.plans, "pro": plan})


@pytest.fixture
async def stage(opening: Opening) -> AsyncIterator[Stage]:
    """A house over all providers, each under the canary key."""
    async with AsyncExitStack() as stack:
        fakes: dict[str, Fake] = {
            "openai": await stack.enter_async_context(openai.fake(KEY, script=SCRIPT)),
            "plus": await stack.enter_async_context(gptimage2_plus.fake(KEY, script=SCRIPT)),
            "ai": await stack.enter_async_context(gptimage2_ai.fake(KEY, script=SCRIPT)),
        }
        for name in ("plus", "ai"):
            fakes[name].script.add(says(500, ERROR, "", on="poll", times=1))
        kinds = {
            "openai": ("openai", "/v1"),
            "plus": ("gptimage2_plus", "/api/v1"),
            "ai": ("gptimage2_ai", ""),
        }
        entries = {
            name: ProviderSettings(kind=kind, key=Secret(KEY), base_url=fakes[name].url + root)
            for name, (kind, root) in kinds.items()
        }
        providers = {**entries, "drawn": ProviderSettings(kind="sandbox")}
        yield await opening(providers=providers, bundle=routed)


class Owner:
    """Ann, who may read her prompts: what she is told of her jobs is kept apart from all else."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.told: list[Reply] = []
        self._tape: list[bytes] = []
        self.visitor = Visitor(stage.url, self._tape, stage.token())

    @property
    def tape(self) -> bytes:
        """Every byte she was sent."""
        return b"".join(self._tape)

    async def run(self, model: str, mark: str) -> None:
        """Submit a job and follow it to its end; one that would take long is canceled."""
        said = await self.visitor.submit(f"{PROMPT} {mark}".strip(), model=model, metadata={"for": "ann"})
        assert said.status == 202, said
        path = f"/v1/jobs/{said.json['id']}"
        lingers = mark == "[hang]" or (model == "plus" and mark in ("[504]", "[half]"))
        read = await self.visitor.get(f"{path}?wait={0.2 if lingers else 20}")
        self.told += [said, read]
        if not read.json["ended"]:
            self.told.append(await self.visitor.post(f"{path}/cancel"))
            self.told.append(await self.visitor.get(f"{path}?wait=20"))
        assert self.told[-1].json["ended"], (model, mark)
        async with self.visitor.stream(f"{path}/events") as line:
            event = await line.event()
            assert event is not None
            self.told.append(Reply(200, {}, json.dumps(event.job).encode()))
        await self.look(event.job)

    async def look(self, job: Mapping[str, Any]) -> None:
        """Open every picture of a job, and every copy of one."""
        for output in job["outputs"]:
            for url in (output["url"], *output["variants"].values()):
                reply = await self.stage.stranger().get(url.removeprefix(self.stage.url))
                assert reply.status == 200, url

    async def runs(self) -> None:
        """Run every mark on every provider."""
        async with self.visitor.stream("/v1/events") as line:
            for mark in (*MARKS, "[hang]"):
                models = ["openai", "plus", "ai"] + (["drawn"] if mark == "" else [])
                await asyncio.gather(*(self.run(model, mark) for model in models))
                self.stage.clock.move(60_000)  # upstreams are well again, and reads are due
            event = await line.event()
            assert event is not None
            assert PROMPT in event.job["prompt"]
        self.told.append(await self.visitor.get("/v1/jobs?limit=100"))
        self.told.append(await self.visitor.post("/v1/quote", {"prompt": PROMPT, "model": "openai"}))


async def bad_bodies(stage: Stage) -> None:
    """Say both words in bodies that are refused."""
    ann, both = stage.visit(), f"{KEY} {PROMPT}"
    bodies: list[object] = [
        {"prompt": [both]},
        {"prompt": PROMPT + " " + "a" * 5_000},
        {"prompt": PROMPT, "quality": both, "size": both, "style": both, "seed": both, "model": both},
        {"prompt": PROMPT, "metadata": {"a": both * 100}, "count": 99, "camera": 7},
        {"prompt": PROMPT, "model": "none-such"},
        {"prompt": PROMPT, "inputs": [{"url": f"https://x.example/{KEY}"}]},
        {
            "prompt": PROMPT,
            "operation": "edit",
            "inputs": [{"url": both, "upload": both}],
            "mask": {"url": both},
        },
        {"prompt": PROMPT, "operation": "edit", "inputs": [], "mask": {"upload": KEY}},
        {"prompt": f"safelight-blocked {PROMPT}", "metadata": {"key": KEY}},
        both,
    ]
    for body in bodies:
        for path in ("/v1/jobs", "/v1/quote"):
            reply = await ann.post(path, body)
            assert reply.status in (200, 400, 403, 422), (body, reply)
    raw = [f'{{"prompt": "{both}"', f'{{"prompt": "{both}", "prompt": "{both}"}}', both, f'"{both}\\ud800"']
    for text in raw:
        assert (await ann.ask("POST", "/v1/jobs", body=text.encode())).status == 400


async def bad_heads(stage: Stage) -> None:
    """Say both words in paths, queries, headers and tokens, and have a bug say them."""
    ann, both = stage.visit(), f"{KEY} {PROMPT}"
    word = both.replace(" ", "%20")
    for path in ("/v1/jobs/", "/", "/v1/jobs?cursor=", "/v1/jobs?state=", "/files/"):
        assert (await ann.get(path + word)).status in (400, 403, 404)
    for header in ("Idempotency-Key", "Last-Event-ID", "If-None-Match", "User-Agent", "X-Request-Id"):
        await ann.ask("GET", "/v1/events", {header: both, "Accept": "text/plain"})
    await ann.ask("POST", "/v1/jobs", {"Content-Type": both, "Accept": both}, b"{}")
    for token in (KEY, f"{KEY}.{KEY}.{KEY}", both):
        stranger = Visitor(stage.url, stage.tape, token)
        assert (await stranger.get("/v1/account")).status in (400, 401)
    stage.sick.error, stage.sick.verb, stage.foretold = RuntimeError(both), "list_jobs", 1
    assert (await ann.get("/v1/jobs")).code == "internal"
    stage.sick.verb = ""


async def reports(stage: Stage) -> None:
    """Read everything an operator or admin can read."""
    boss = stage.admin()
    assert len((await boss.get("/v1/audit?limit=100")).json["data"]) > 30
    await boss.get("/v1/audit", Accept="application/x-ndjson")
    await stage.stranger().get("/metrics")
    await stage.visit("ben").get("/v1/jobs")


def columns(stage: Stage, word: str) -> set[tuple[str, str]]:
    """Return the tables and columns of the store that hold a word."""
    found = set()
    with closing(sqlite3.connect(f"file:{stage.folder / 'safelight.db'}?mode=ro", uri=True)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {"jobs", "audit", "ledger", "idem", "tenants", "users", "queue"} <= set(tables)
        for table in tables:
            names = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
            for row in file.execute(f"SELECT * FROM {table}"):
                pairs = zip(names, row, strict=True)
                found |= {(table, name) for name, value in pairs if word in str(value)}
    return found


def stored(stage: Stage) -> dict[str, bytes]:
    """Return every file of the data folder by its path."""
    return {str(path): path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()}


def without_prompts(value: Any) -> Any:
    """Return an answer's JSON without the fields that may show a prompt."""
    if isinstance(value, dict):
        return {name: without_prompts(each) for name, each in value.items() if name not in SHOWS_PROMPTS}
    return [without_prompts(each) for each in value] if isinstance(value, list) else value


async def test_canaries_are_found_nowhere(stage: Stage) -> None:
    """After a whole run the key is nowhere, and the prompt only in its owner's jobs and one column."""
    owner = Owner(stage)
    await owner.runs()
    await bad_bodies(stage)
    await bad_heads(stage)
    await reports(stage)
    ends = {
        (job["state"], (job["error"] or {}).get("code"))
        for job in (r.json for r in owner.told)
        if "state" in job
    }
    assert {("succeeded", None), ("blocked", "upstream_refused"), ("failed", "upstream_failed")} <= ends
    assert {("failed", "outcome_unknown"), ("failed", "output_rejected"), ("canceled", "canceled")} <= ends

    tape, log = b"".join(stage.tape), json.dumps(stage.lines).encode() + stage.log.getvalue()
    files = stored(stage)
    everything = [tape, owner.tape, log, *files.values(), *(path.encode() for path in files)]
    assert len([path for path in files if path.endswith((".png", ".webp"))]) >= 8
    assert PROMPT.encode() in owner.tape
    assert [where for where in everything if KEY.encode() in where] == []
    assert [where for where in everything if SECRET.reveal().encode() in where] == []
    assert str(owner.visitor.token).encode() not in log + b"".join(files.values())

    assert PROMPT.encode() not in tape
    assert PROMPT.encode() not in log
    assert PROMPT.encode().replace(b" ", b"%20") not in log + tape
    for reply in owner.told:
        assert PROMPT not in json.dumps(without_prompts(reply.json)) + json.dumps(reply.headers)
    holding = {path.rpartition("/")[2] for path, data in files.items() if PROMPT.encode() in data}
    assert holding <= {"safelight.db", "safelight.db-wal"}
    assert columns(stage, PROMPT) == HOLDS_PROMPTS
    assert columns(stage, KEY) == set()


async def test_deleted_prompt_leaves_the_file(stage: Stage) -> None:
    """After a delete and a step of the sweep not one byte of the prompt is in the data folder."""
    owner = Owner(stage)
    for mark in ("", "[refused]", "[hang]"):
        await owner.run("openai", mark)
    await asyncio.gather(
        *(owner.visitor.made(f"{PROMPT} {'of great length ' * 200}", model="ai") for _ in range(3))
    )
    assert columns(stage, PROMPT) == HOLDS_PROMPTS
    for job in (await owner.visitor.get("/v1/jobs")).json["data"]:
        assert (await owner.visitor.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204
    await stage.house.sweeper.step()
    assert [path for path, data in stored(stage).items() if PROMPT.encode() in data] == []
    assert (await owner.visitor.get("/v1/jobs")).json["data"] == []
