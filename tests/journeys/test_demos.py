"""The documents' own demos, run as their readers would: the address and the key are changed, nothing else.

They stand in `demos/` and `next/` as the documents have them, addresses too; those are replaced here, when
they run. Behind the address is `safelight serve`, a process with settings of its own, and behind that a
fake upstream. The key is one that `safelight key create` made. One line is changed besides: the webhook's
registration carries a bearer where its document has a cookie.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from msgspec import Struct
from PIL import Image

from gateway.policy import PRESETS
from tests.fakes import openai
from tests.fakes.backend import PICTURES, Backend
from tests.fakes.behavior import Behavior
from tests.fakes.command import environ, run, running
from tests.fakes.server import Fake
from tests.fakes.tokens import ISSUER, signer
from tests.house import ROOT
from tests.journeys.visitor import Reply, Visitor

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("demos")]

DEMOS: Final = Path(__file__).parent / "demos"
APPLICATION: Final = ROOT / ".tools/next"
ROUTE: Final = "app/api/render/route.ts"
PATIENCE: Final = 60.0
SECRET: Final = "a secret of the demos, and a long one too"
AI: Final = "https://gptimage2.ai"
PLUS: Final = "https://gptimage2.plus"
ESPRESSO: Final = "A clean studio product photo of a ceramic espresso cup"
COOKIE: Final = "Cookie: <your session cookie>"
BEARER: Final = "Authorization: Bearer $GPTIMAGE2_API_KEY"


class Shop(Struct, frozen=True):
    """What a reader has: an address and a key. `upstream` and `backend` are what stands around."""

    url: str
    key: str
    upstream: Fake
    backend: Backend
    folder: Path

    @property
    def visitor(self) -> Visitor:
        """A client with the key, for what the demos do not ask."""
        return Visitor(self.url, [], self.key)

    async def demo(self, name: str, words: dict[str, str] | None = None, key: str = "") -> Told:
        """Run a demo in a process of its own, after replacing addresses, and what a reader fills in."""
        text = (DEMOS / name).read_text("utf-8")
        for said, meant in {AI: self.url, PLUS: self.url, **(words or {})}.items():
            text = text.replace(said, meant)
        file = self.folder / name.removesuffix(".txt")
        file.write_text(text, "utf-8")
        runner = {".sh": "bash", ".mjs": "node", ".py": sys.executable}[file.suffix]
        process = await asyncio.create_subprocess_exec(
            runner,
            file,
            env=environ(GPTIMAGE2_API_KEY=key or self.key),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with ended(process):
            out, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        return Told(process.returncode, out.decode(), errors.decode())

    async def waited(self, job: str) -> dict[str, Any]:
        """Wait for the end of a job and return it as our own API shows it."""
        found: dict[str, Any] = (await self.visitor.get(f"/v1/jobs/{job}?wait=20")).json
        assert found["ended"], found
        return found

    async def fetched(self, url: str) -> tuple[str, tuple[int, int]]:
        """Return media type and size of a picture, fetched as one who holds no key."""
        assert url.startswith(self.url)
        reply = await Visitor(self.url, []).get(url.removeprefix(self.url))
        with Image.open(io.BytesIO(reply.body)) as image:
            return reply.headers["content-type"], image.size


class Told(Struct, frozen=True):
    """How a demo ended, and what it printed."""

    code: int | None
    out: str
    errors: str

    @property
    def json(self) -> Any:
        """What it printed, read."""
        assert self.code == 0, self
        return json.loads(self.out)


@contextlib.asynccontextmanager
async def ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Have a process gone after the block."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def configured(folder: Path, upstream: Fake, backend: Backend) -> Path:
    """Write settings as an operator would: one provider, every tenant on `pro`, one private place allowed."""
    rules = (PRESETS / "default.yaml").read_text("utf-8")
    usual = '"*": {plan: free}'
    assert usual in rules
    (folder / "policies").mkdir()
    (folder / "policies/bundle.yaml").write_text(rules.replace(usual, '"*": {plan: pro}'))
    (folder / "keys.json").write_text(json.dumps({"keys": [signer("ES256").jwk]}))
    file = folder / "safelight.yaml"
    settings = {
        "secret": ["${env:SAFELIGHT_SECRET}"],
        "server": {"host": "127.0.0.1", "port": 0, "grace_seconds": 1},
        "store": {"url": f"sqlite:///{folder}/safelight.db"},
        "blobs": {"url": f"file://{folder}/blobs"},
        "auth": {"issuers": [{"issuer": ISSUER, "audience": "a", "jwks_file": f"{folder}/keys.json"}]},
        "providers": {
            "main": {"kind": "openai", "key": "${env:UPSTREAM_KEY}", "base_url": f"{upstream.url}/v1"}
        },
        "policies": {"path": str(folder / "policies")},
        "outbound": {"allow": [backend.place]},
    }
    file.write_text(json.dumps(settings))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shop keeps its files."""
    return tmp_path_factory.mktemp("demos")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(folder: Path) -> AsyncIterator[Shop]:
    """A `safelight serve` with a key that its operator made by command."""
    async with openai.fake() as upstream, Backend() as backend:
        file = configured(folder, upstream, backend)
        secrets = {"SAFELIGHT_SECRET": SECRET, "UPSTREAM_KEY": upstream.key}
        words = ("--tenant", "acme", "--subject", "shop", "--prefix", "gimg", "--config", str(file))
        made = await asyncio.to_thread(run, "key", "create", *words, cwd=folder, **secrets)
        assert made.returncode == 0, made.stderr
        start = ("serve", "--config", str(file))
        with running(*start, cwd=folder, last='"event":"start"', **secrets) as server:
            url = f"http://127.0.0.1:{json.loads(server.lines[-1])['port']}"
            yield Shop(url, made.stdout.strip(), upstream, backend, folder)
            assert await asyncio.to_thread(server.end) == 0
        log = "".join(server.lines)
        assert not [secret for secret in (*secrets.values(), made.stdout.strip()) if secret in log]


@pytest.fixture(autouse=True)
def afresh(shop: Shop) -> Iterator[None]:
    """Let each test see its own calls of the upstream."""
    shop.upstream.calls.clear()
    shop.upstream.edits.clear()
    yield
    shop.upstream.script.clear()


@pytest.mark.fact("A26", "A27")
async def test_curl_creates_and_polls(shop: Shop) -> None:
    """The two command lines make a picture: a job with what is left of the credits, then its link."""
    made = (await shop.demo("create.sh")).json
    assert made.keys() == {"jobId", "status", "balance"}
    assert made["status"] == "pending"
    job = await shop.waited(made["jobId"])
    assert job["prompt"] == ESPRESSO
    polled = (await shop.demo("poll.sh", {"{jobId}": made["jobId"]})).json
    assert (polled["jobId"], polled["status"]) == (made["jobId"], "succeeded")
    assert polled["balance"] == made["balance"]
    (result,) = polled["results"]
    assert result["finalPrompt"].startswith(ESPRESSO)
    assert await shop.fetched(result["imageUrl"]) == ("image/png", (1024, 1024))
    (call,) = shop.upstream.calls
    assert (call.prompt, call.key) == (result["finalPrompt"], shop.upstream.key)


@pytest.mark.fact("A28")
async def test_curl_sends_two_references(shop: Shop) -> None:
    """Two pictures at addresses of one's own reach the upstream, in order and pixel for pixel."""
    made = (await shop.demo("edit.sh", {"https://cdn.example.com": shop.backend.url})).json
    job = await shop.waited(made["jobId"])
    assert (job["state"], job["operation"]) == ("succeeded", "edit")
    polled = (await shop.demo("poll.sh", {"{jobId}": made["jobId"]})).json
    assert await shop.fetched(polled["results"][0]["imageUrl"]) == ("image/png", (1024, 1024))
    (edit,) = shop.upstream.edits
    assert edit.prompt.startswith("Keep the product from ref 1")
    assert [pixels(data) for data in edit.images] == [pixels(data) for data in PICTURES.values()]


async def test_other_addresses_stay_closed(shop: Shop) -> None:
    """A reference at a private address that the operator did not allow is refused, and costs nothing."""
    closed = "http://127.0.0.1:9"
    made = (await shop.demo("edit.sh", {"https://cdn.example.com": closed})).json
    assert made["error"] == "invalid_image_url"
    assert shop.upstream.calls == []


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Return size and pixels of a picture."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


@pytest.mark.fact("A29", "A30")
@pytest.mark.parametrize("script", ["polling.mjs", "polling.py.txt"])
@pytest.mark.parametrize("error", ["", "image_generation_failed", "prompt_blocked"])
async def test_polling_scripts_see_the_end(shop: Shop, script: str, error: str) -> None:
    """From Node and from Python: the script polls to the end and prints the link, or the error."""
    if error:
        shop.upstream.script.add(Behavior(do="refusal" if error == "prompt_blocked" else "malformed"))
    told = await shop.demo(script)
    assert (told.code, told.errors) == (0, "")
    (line,) = told.out.splitlines()
    if error:
        assert line == error
    else:
        assert await shop.fetched(line) == ("image/png", (1024, 1024))
    assert shop.upstream.paid == (error != "prompt_blocked")


@pytest.mark.parametrize(
    ("script", "words"), [("polling.mjs", "Error: unauthorized"), ("polling.py.txt", "401 Client Error")]
)
async def test_wrong_key_ends_the_script(shop: Shop, script: str, words: str) -> None:
    """With a key that is none the script stops at the create, and says so in its own way."""
    told = await shop.demo(script, key=f"{shop.key}x")
    assert (told.code, words in told.errors, told.out) == (1, True, "")
    assert shop.upstream.calls == []


@contextlib.asynccontextmanager
async def application(safelight: str, key: str) -> AsyncIterator[Visitor]:
    """Run the Next.js application on a free port; yield a client as a browser would be one."""
    program = APPLICATION / "node_modules/next/dist/bin/next"
    assert program.exists(), "the application is not built: run tests/parts.sh"
    process = await asyncio.create_subprocess_exec(
        "node",
        program,
        *("start", "--hostname", "127.0.0.1", "--port", "0"),
        cwd=APPLICATION,
        env=environ(SAFELIGHT_URL=safelight, GPTIMAGE2_API_KEY=key, NEXT_TELEMETRY_DISABLED="1"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with ended(process):
        said = ""
        async with asyncio.timeout(PATIENCE):
            while "Ready in" not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said
        yield Visitor(found[0], [])


@pytest.mark.fact("A3", "A31")
async def test_application_passes_answers_on(shop: Shop) -> None:
    """A browser gets body and status as Safelight said them, uncached, and never sees the key."""
    written = (ROOT / "tests/journeys/next" / ROUTE).read_text()
    assert written.count(AI) == 1
    address = "`${process.env.SAFELIGHT_URL}/api/generate`"
    assert (APPLICATION / ROUTE).read_text() == written.replace(f'"{AI}/api/generate"', address)
    async with application(shop.url, shop.key) as browser:
        made = await browser.post("/api/render", {"prompt": "a lamp of brass"})
        assert (made.status, made.json["status"], "balance" in made.json) == (202, "pending", True)
        assert made.headers["cache-control"] == "no-store"
        assert (await shop.waited(made.json["jobId"]))["prompt"] == "a lamp of brass"
        seen = len(await jobs(shop))
        blocked = await browser.post("/api/render", {"prompt": "a safelight-blocked thing"})
        assert (blocked.status, blocked.json["error"]) == (422, "prompt_blocked")
        assert blocked.headers["cache-control"] == "no-store"
        for prompt in ("", "  \n", None):
            empty = await browser.post("/api/render", {"prompt": prompt})
            assert (empty.status, empty.json) == (400, {"error": "prompt_required"})
        assert len(await jobs(shop)) == seen
    assert not [reply for reply in (made, blocked, empty) if holds(reply, shop.key)]


async def jobs(shop: Shop) -> list[Any]:
    """Return the key's newest jobs."""
    found: list[Any] = (await shop.visitor.get("/v1/jobs?limit=100")).json["data"]
    return found


def holds(reply: Reply, secret: str) -> bool:
    """Say whether an answer holds a text anywhere."""
    return secret in f"{reply.headers}{reply.body.decode()}"


@pytest.mark.fact("A31")
async def test_application_survives_our_absence(shop: Shop) -> None:
    """Where nobody answers at the address, a browser is told one code, and nothing of the reason."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        async with application(f"http://127.0.0.1:{reserved.getsockname()[1]}", shop.key) as browser:
            reply = await browser.post("/api/render", {"prompt": "a lamp of brass"})
    assert (reply.status, reply.json) == (500, {"error": "image_generation_failed"})


@pytest.mark.fact("P51", "P52", "P53", "P54", "P56")
async def test_curl_registers_a_webhook(shop: Shop) -> None:
    """Registered with a bearer for a cookie, it hears of the next picture, signed by what was shown once."""
    address = {"https://your-app.com": shop.backend.url}
    refused = (await shop.demo("register.sh", address)).json
    assert refused == {"error": "Missing or invalid API key", "code": "unauthenticated"}
    made = (await shop.demo("register.sh", {**address, COOKIE: BEARER})).json
    assert (made.keys(), made["secret"][:6]) == ({"id", "secret"}, "whsec_")
    listed = await shop.visitor.get("/api/account/webhooks")
    assert [each["label"] for each in listed.json["webhooks"]] == ["Production app"]
    assert made["secret"] not in listed.body.decode()
    job = (await shop.demo("create.sh")).json["jobId"]
    told = await asyncio.wait_for(shop.backend.told.get(), PATIENCE)
    assert (told.path, json.loads(told.body)["data"]["generationId"]) == ("/hooks/gptimg", job)
    signed = hmac.new(made["secret"].encode(), told.body, "sha256").hexdigest()
    assert told.headers["x-gptimg-signature"] == signed
    assert (await shop.visitor.ask("DELETE", f"/api/account/webhooks/{made['id']}")).status == 204


@pytest.mark.fact("P5", "P6")
async def test_key_begins_as_documented(shop: Shop) -> None:
    """An operator's command makes the key a document shows: `gimg_`, and 32 characters or more."""
    assert re.fullmatch(r"gimg_[A-Za-z0-9_-]{32,}", shop.key)
    for path in ("/api/v1/generations/none", "/api/generate/none"):
        assert (await shop.visitor.get(path)).status == 404
        assert (await Visitor(shop.url, [], shop.key.removeprefix("gimg_")).get(path)).status == 401
