"""A house as a company runs it, its users' tokens signed by the company's own login; and a page elsewhere.

Nothing of `dev` is in it: the playground is there by setting, other origins by name, and the upstream is
one whose key must not be seen. The other origin is a small program's page that uses client.js.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from msgspec.structs import replace

from gateway.auth import Issuer
from gateway.blobs import Blobs
from gateway.blobs.bucket import BucketBlobs
from gateway.secrets import Secret
from gateway.settings import AuthSettings, ProviderSettings, Settings
from policies.bundle import Bundle, PerLevel, TenantRow
from tests.fakes import tokens
from tests.journeys.stage import Plot, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.server import Fake
    from tests.fakes.storage import Storage

KEY: Final = "sk-canary-9f2b7c61d0ae"
HOME: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Elsewhere</title><link rel="icon" href="data:,">
<script type="module" src="app.js"></script></head>
<body><main><h1>Elsewhere</h1><form id="form"><label>Prompt <input id="prompt"></label>
<label>Picture <input id="file" type="file"></label><button>Go</button></form>
<p id="said" role="status"></p><img id="picture" alt=""></main></body></html>
"""
PROGRAM: Final = """
import {{ Safelight }} from "{gateway}/client.js";
const safelight = new Safelight({{ token: async () => (await fetch("token")).text() }});
const $ = (id) => document.getElementById(id);
$("form").onsubmit = async (event) => {{
  event.preventDefault();
  const states = [];
  try {{
    const request = {{ prompt: $("prompt").value, quality: "low" }};
    const [file] = $("file").files;
    if (file) {{
      const {{ id }} = await safelight.upload(file);
      Object.assign(request, {{ operation: "edit", inputs: [{{ upload: id }}] }});
    }}
    const onUpdate = ({{ state }}) => states.push(state);
    const job = await safelight.wait(await safelight.submit(request), {{ onUpdate }});
    $("picture").onload = () => ($("said").textContent = states.join(" "));
    $("picture").src = job.outputs[0].url;
  }} catch (problem) {{
    $("said").textContent = `${{problem.code}} ${{problem.requestId}}`;
  }}
}};
"""


def allowing(plan: str = "max", **terms: Any) -> Any:
    """Return what makes a bundle in which the company has a plan, with some of its terms changed."""

    def changed(bundle: Bundle) -> Bundle:
        plans = {**bundle.plans, plan: replace(bundle.plans[plan], **terms)}
        return replace(bundle, plans=plans, tenants={"acme": TenantRow(plan)})

    return changed


def one_an_hour() -> PerLevel:
    """Return the limit of one a user."""
    return PerLevel(1, 100)


class Company(Stage):
    """The house, and who signs for its users."""

    def __init__(self, folder: Path, plot: Plot) -> None:
        self._signer = tokens.signer()
        self._keys = folder / "keys.json"
        folder.mkdir(parents=True)
        self._keys.write_bytes(tokens.jwks(self._signer))
        super().__init__(folder, plot)

    def _settings(self, plot: Plot) -> Settings:
        login = Issuer(tokens.ISSUER, tokens.AUDIENCE, jwks_file=str(self._keys))
        return replace(super()._settings(plot), auth=AuthSettings((login,)))

    def token(self, subject: str = "ann", tenant: str = "acme", *, seconds: int = 3600, **more: Any) -> str:
        """Return a token of the company's login."""
        now = self.clock() // 1000
        claims = {"sub": subject, "tenant": tenant, "iat": now - 60, "exp": now + seconds, **more}
        return tokens.token(self._signer, claims).decode()


class Bucket:
    """A bucket of its own in a storage: `blobs` opens it as the house's."""

    def __init__(self, storage: Storage) -> None:
        self._name = f"b{uuid.uuid4().hex}"
        self._url = storage.bucket(self._name)
        self.storage = storage

    def blobs(self, _url: str) -> Blobs:
        """Return the place for pictures."""
        return BucketBlobs(self._url, self.storage.options)

    def allow(self, origin: str) -> None:
        """Let pages of an origin send and read."""
        self.storage.allow(self._name, [origin])


def plotted(upstream: Fake, bundle: Any, blobs: Callable[[str], Blobs], **server: Any) -> Plot:
    """Return what such a house is built from."""
    entry = ProviderSettings(kind="openai", key=Secret(KEY), base_url=f"{upstream.url}/v1")
    settings = {"playground": True, **server}
    return Plot({"main": entry}, bundle=bundle, server=settings, dev=False, concurrency=16, blobs=blobs)


class Elsewhere:
    """A page of another origin. `tokens` are handed out in turn, the last for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.gateway = ""
        self.storage = ""
        self.tokens: list[str] = []

    async def page(self, _request: web.Request) -> web.Response:
        """Answer with the page, which lets in the gateway and nothing else."""
        rules = (
            f"default-src 'none'; script-src 'self' {self.gateway}; "
            f"img-src {self.gateway} {self.storage} data:; connect-src 'self' {self.gateway} {self.storage}"
        )
        headers = {"content-security-policy": rules}
        return web.Response(text=HOME, content_type="text/html", headers=headers)

    async def program(self, _request: web.Request) -> web.Response:
        """Answer with the page's program."""
        return web.Response(text=PROGRAM.format(gateway=self.gateway), content_type="text/javascript")

    async def token(self, _request: web.Request) -> web.Response:
        """Answer with a token of who is logged in."""
        return web.Response(text=self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0])


@asynccontextmanager
async def elsewhere() -> AsyncIterator[Elsewhere]:
    """Serve the other origin on a port of its own."""
    other = Elsewhere()
    app = web.Application()
    app.add_routes(
        [web.get("/", other.page), web.get("/app.js", other.program), web.get("/token", other.token)]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    other.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield other
    finally:
        await runner.cleanup()
