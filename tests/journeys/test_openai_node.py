"""OpenAI's npm package against a running house: it generates, edits, and knows our errors as its own.

Each case stands in `tests/node/openai.mjs` and is run in a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
from typing import Any, Final

from msgspec.structs import replace

from policies.bundle import Bundle, PerLevel
from tests.fakes.behavior import Behavior
from tests.fakes.pictures import holed, picture
from tests.fakes.server import Fake
from tests.house import ROOT
from tests.journeys.conftest import Opening, entry
from tests.journeys.stage import Stage

CASES: Final = ROOT / "tests/node/openai.mjs"
PACKAGE: Final = ROOT / ".tools/node/node_modules/openai/index.mjs"
PATIENCE: Final = 60.0
IMAGES: Final = [picture("png", 64, 48, seed) for seed in ("a", "b")]


async def play(stage: Stage, upstream: Fake, case: str, **facts: Any) -> Any:
    """Run a case to its end and return its result; the upstream lets go what it holds when it is asked to."""
    said = {"package": str(PACKAGE), "url": stage.url, "token": stage.token(), **facts}
    process = await asyncio.create_subprocess_exec(
        "node", CASES, case, json.dumps(said), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in process.stdout:
                told = json.loads(line)
                if "result" in told:
                    return told["result"]
                upstream.release()
                process.stdin.write(b"\n")
        raise AssertionError(await process.wait())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def hashed(*pictures: bytes) -> list[str]:
    """Return what tells pictures apart."""
    return [hashlib.sha256(each).hexdigest() for each in pictures]


def text(data: bytes) -> str:
    """Return bytes as JSON can hold them."""
    return base64.b64encode(data).decode()


async def test_node_generates_pictures(stage: Stage, upstream: Fake) -> None:
    """The package's `images.generate` brings the provider's bytes, and its `models` what may be asked for."""
    result = await play(stage, upstream, "generate")
    assert result["hashes"] == hashed(*(picture("png", 1024, 1024, f"a lighthouse/{at}") for at in range(2)))
    assert (result["size"], result["quality"]) == ("1024x1024", "low")
    assert (result["models"], result["id"]) == (["standard", "quick"], "quick")


async def test_node_edits_pictures(stage: Stage, upstream: Fake) -> None:
    """The package's `images.edit` sends one image with a mask, or several, and brings the edits."""
    mask = holed(64, 48)
    result = await play(stage, upstream, "edit", images=[text(each) for each in IMAGES], mask=text(mask))
    first, second = upstream.edits
    assert (len(first.images), first.mask is not None) == (1, True)
    assert (len(second.images), second.mask) == (2, None)
    assert len(result["one"]) == len(result["both"]) == 1
    assert upstream.paid == 2


async def test_node_errors_are_typed(opening: Opening, upstream: Fake) -> None:
    """Each refusal is the package's own class of error, with the code and the field it is about."""

    def once(bundle: Bundle) -> Bundle:
        plan = replace(bundle.plans["pro"], submit_per_hour=PerLevel(1, 1))
        return replace(bundle, plans={**bundle.plans, "pro": plan})

    stage = await opening(providers=entry(upstream), bundle=once)
    told = await play(stage, upstream, "errors")
    kinds = {name: (error["kind"], error["status"], error["code"]) for name, error in told.items()}
    assert kinds == {
        "blocked": ("BadRequestError", 400, "moderation_blocked"),
        "option": ("BadRequestError", 400, "invalid_value"),
        "model": ("NotFoundError", 404, "model_not_found"),
        "key": ("AuthenticationError", 401, "invalid_api_key"),
        "limit": ("RateLimitError", 429, "rate_limit_exceeded"),
    }
    assert (told["option"]["param"], told["model"]["param"]) == ("size", "model")


async def test_node_repeats_are_one_job(stage: Stage, upstream: Fake) -> None:
    """A program that hangs up after a second and sends again by itself gets its one picture."""
    upstream.script.add(Behavior(do="hold", match="[hold]", times=0))
    result = await play(stage, upstream, "impatient")
    assert result == {"sends": 2, "hashes": hashed(picture("png", 1024, 1024, "[hold]/0"))}
    assert upstream.paid == len(upstream.seen("create")) == 1
    assert len((await stage.visit().get("/v1/jobs")).json["data"]) == 1
