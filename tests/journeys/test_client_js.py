"""client.js as a program uses it: under Node, against a running server, over ways that are good and bad.

Each case stands in `tests/node/client.mjs` and is run in a process of its own, with the file as the server
serves it. What happens to the way, the clock and the upstream is done here, when the case asks for it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes import openai
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import png
from tests.fakes.server import Fake
from tests.fakes.wiretap import Manner, Wiretap, tapped
from tests.house import ROOT
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage

CASES: Final = ROOT / "tests/node/client.mjs"
PROGRAM: Final = ROOT / "tests/node/program.ts"
TSC: Final = ROOT / ".tools/node/node_modules/.bin/tsc"
PATIENCE: Final = 60.0
LEEWAY: Final = 30
"""Seconds for which an expired token is still taken."""

Play = Callable[..., Awaitable[Any]]


@pytest.fixture
async def upstream() -> AsyncIterator[Fake]:
    """A fake of OpenAI that holds the pictures whose prompt asks for it."""
    async with openai.fake(script=[Behavior(do="hold", match="[hold]", times=0)]) as fake:
        yield fake


@pytest.fixture
async def stage(opening: Opening, upstream: Fake) -> Stage:
    """The usual house, over that upstream."""
    return await opening(providers=entry(upstream))


@pytest.fixture
async def tap(stage: Stage) -> AsyncIterator[Wiretap]:
    """The way on which the cases reach it."""
    async with tapped(stage.port) as tap:
        yield tap


@pytest.fixture
def play(stage: Stage, upstream: Fake, tap: Wiretap, tmp_path: Path) -> Play:
    """Run a case to its end, and return its result."""

    async def deed(name: str) -> None:
        if name == "release":
            upstream.release()
        if name == "expire":
            stage.clock.move(10_000)
        if name in ("cut", "expire"):
            tap.cut()

    async def played(case: str, **facts: Any) -> Any:
        client = tmp_path / "client.mjs"
        client.write_bytes((await stage.stranger().get("/client.js")).body)
        said = {"client": str(client), "url": tap.url, "token": stage.token(), **facts}
        process = await asyncio.create_subprocess_exec(
            "node", CASES, case, json.dumps(said), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(PATIENCE):
                return await followed(process, deed)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return played


async def followed(process: asyncio.subprocess.Process, deed: Callable[[str], Awaitable[None]]) -> Any:
    """Do what a case asks for until it says its result."""
    assert process.stdin is not None
    assert process.stdout is not None
    async for line in process.stdout:
        said = json.loads(line)
        if "result" in said:
            return said["result"]
        await deed(said["do"])
        process.stdin.write(b"\n")
    raise AssertionError(await process.wait())


async def test_submit_and_wait_bring_a_picture(play: Play) -> None:
    """A program submits, waits over one stream, is told of every change, and reads the picture."""
    result = await play("submit_and_wait")
    assert result["state"] == "succeeded"
    assert result["versions"] == sorted(set(result["versions"]))
    assert result["notes"] == ["POST /v1/jobs", "GET /v1/jobs/ID/events"]
    assert bytes(result["magic"]) == b"\x89PNG"
    assert result["same"] is True


async def test_every_call_is_spoken(play: Play) -> None:
    """Lists with filters and pages, quotes, models, account, cancel and delete come as the API has them."""
    result = await play("all_calls")
    first, second = result["ids"]
    assert (result["page"], result["rest"], result["last"]) == ([second], [first], None)
    assert result["marked"] == [first]
    assert (result["price"], result["canceled"], result["subject"]) == (20, "succeeded", "ann")
    assert result["models"] == ["standard", "quick"]
    assert (result["gone"]["code"], result["gone"]["status"]) == ("not_found", 404)


async def test_problems_are_typed(play: Play) -> None:
    """Whatever goes wrong is one kind of error with a code: a refusal, no answer, a stranger's page."""
    result = await play("problems")
    flawed, blocked = result["flawed"], result["blocked"]
    assert result["typed"] is True
    assert (flawed["code"], flawed["status"], flawed["retryable"]) == ("invalid_request", 400, False)
    assert {flaw["pointer"] for flaw in flawed["errors"]} == {"/quality", "/count", "/extra"}
    assert (blocked["code"], blocked["rule"]) == ("prompt_blocked", "demo.blocked")
    assert flawed["requestId"] != blocked["requestId"]
    assert result["stranger"]["code"] == "unauthenticated"
    for name in ("nobody", "broken"):
        assert (result[name]["code"], result[name]["status"], result[name]["retryable"]) == (
            "unreachable",
            0,
            True,
        )
    odd = result["odd"]
    assert (odd["code"], odd["status"], odd["retryable"], odd["retryAfter"]) == ("unknown", 502, True, 7)


async def test_lost_answer_costs_once(play: Play, upstream: Fake) -> None:
    """A submit whose answer was lost is sent again under its own key: one job, paid for once."""
    result = await play("same_key_same_job")
    first, again, *_ = result["keys"]
    assert first == again
    assert (result["same"], result["jobs"]) == (True, 1)
    assert upstream.paid <= 1


async def test_refused_token_is_asked_for_anew(play: Play, stage: Stage) -> None:
    """A refused token is asked for once more, by one caller for all; a fixed one is not."""
    result = await play("refused_token_is_renewed", expired=stage.token(seconds=-3600))
    assert result["answers"] == 3
    assert result["asked"] == 2 + 20
    assert result["refused"]["code"] == result["fixed"]["code"] == "unauthenticated"


async def test_wait_outlives_its_token(play: Play, stage: Stage) -> None:
    """A token that expires while a job is waited for is renewed, and the wait goes on."""
    tokens = {"brief": stage.token(seconds=5 - LEEWAY), "later": stage.token(seconds=600)}
    assert await play("expired_in_mid_wait", **tokens) == {"state": "succeeded", "asked": 2}


async def test_abort_ends_a_call(play: Play) -> None:
    """A signal ends every kind of waiting with its reason; the job itself goes on until it is canceled."""
    assert await play("aborted") == {
        "early": "early",
        "wait": "AbortError",
        "poll": "AbortError",
        "events": True,
        "left": True,
        "still": False,
        "end": "canceled",
    }


async def test_dropped_stream_resumes(play: Play, tap: Wiretap) -> None:
    """A stream that is cut in mid-job is taken up where it was: no change comes twice, none is missed."""
    result = await play("dropped_stream_is_resumed")
    assert result["state"] == "succeeded"
    assert result["states"] == ["running", "succeeded"]
    assert set(result["notes"][1:]) == {"GET /v1/jobs/ID/events"}
    assert b"last-event-id: " in tap.everything.lower()


@pytest.mark.parametrize("manner", ["refuse", "silence"])
async def test_wait_does_without_streams(play: Play, tap: Wiretap, manner: Manner) -> None:
    """Where no stream can be had, refused or held up on its way, the job is long-polled to its end."""
    tap.barred = (b"/events", manner)
    result = await play("falls_back_to_polling", hurry=8 if manner == "silence" else 1)
    assert result["state"] == "succeeded"
    streams = result["notes"].count("GET /v1/jobs/ID/events")
    assert streams == (1 if manner == "refuse" else 2)
    assert result["notes"][-1] == "GET /v1/jobs/ID"


async def test_too_many_streams_are_no_obstacle(play: Play, stage: Stage, tap: Wiretap) -> None:
    """A caller whose plan has no stream left waits all the same, and at once."""
    ann = stage.visit()
    streams = [ann.stream("/v1/events") for _ in range(10)]
    lines = [await each.__aenter__() for each in streams]
    result = await play("falls_back_to_polling", hurry=1)
    for line in lines:
        line.hang_up()
    assert result["state"] == "succeeded"
    assert result["notes"][1:3] == ["GET /v1/jobs/ID/events", "GET /v1/jobs/ID"]


async def test_one_stream_follows_many(play: Play) -> None:
    """Five jobs are followed to their ends over one stream, which is cut meanwhile and taken up again."""
    result = await play("one_stream_for_many")
    assert result["states"] == ["succeeded"] * 5
    assert (result["end"], result["opened"]) == ("AbortError", 2)
    assert set(result["notes"]) == {"POST /v1/jobs", "GET /v1/events"}


async def test_limits_are_honored(play: Play) -> None:
    """A safe call waits as long as `Retry-After` says, within bounds; what may not be repeated is thrown."""
    result = await play("limits_are_waited_for")
    assert result["waits"] == [3000] * 4
    assert (result["models"], result["account"]) == (["all"], {"data": ["all"]})
    assert result["codes"] == [["rate_limited", 3]] * 3
    assert result["left"] == 9 - 1 - 2 - 1


async def test_upload_becomes_an_edit(play: Play) -> None:
    """A picture is uploaded in two steps and named in an edit; what is no picture is refused."""
    result = await play("upload_and_edit", picture=base64.b64encode(png(64, 64)).decode())
    assert (result["state"], result["error"]) == ("succeeded", None)
    assert [each["upload"] for each in result["inputs"]] == [result["id"]]
    assert result["wrong"]["code"] == "invalid_request"


async def test_types_hold_a_program() -> None:
    """A strict compiler takes a program written to the types, and finds each of its planted mistakes."""
    strict = ["--strict", "--noUncheckedIndexedAccess", "--noEmit"]
    kind = ["--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"]
    known = ["--lib", "es2023,dom,dom.asynciterable"]
    process = await asyncio.create_subprocess_exec(
        TSC, *strict, *kind, *known, PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, "")
