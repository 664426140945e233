"""`safelight dev`: everything on this machine, nothing to set up.

A data folder stands for the configuration: store, blobs and a secret made on first use. Keys are taken
from the environment; the sandbox draws only where there is none. The page at `/` and its token are for
this machine's own browser.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.auth import mint_dev
from gateway.errors import Refusal
from gateway.secrets import Secret, load_or_create
from gateway.settings import (
    BlobsSettings,
    ProviderSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)
from gateway.web import may_have_token
from gateway.web.serving import App, header, reply
from policies.model import Principal

KEYS: Final[Mapping[str, str]] = {
    "OPENAI_API_KEY": "openai",
    "GPTIMAGE2_PLUS_API_KEY": "gptimage2_plus",
    "GPTIMAGE2_API_KEY": "gptimage2_ai",
}
"""Environment variables, and the provider kind whose key they hold."""
TENANT: Final = "demo"
SUBJECT: Final = "you"
TOKEN_SECONDS: Final = 12 * 3600
PAGE_TOKEN_SECONDS: Final = 3600
DRAIN_SECONDS: Final = 5
CONCURRENCY: Final = "SAFELIGHT_WORKER_CONCURRENCY"
TOKEN_PATH: Final = "/dev/token"  # noqa: S105 - where it is, not what it is


def settings_of(data: Path, environ: Mapping[str, str], host: str, port: int) -> Settings:
    """Return the settings a data folder stands for. Makes the folder and its secret."""
    data.mkdir(parents=True, exist_ok=True)
    secret = load_or_create(data / "secret")
    entries = {
        kind: ProviderSettings(kind=kind, key=Secret(environ[name]))
        for name, kind in KEYS.items()
        if environ.get(name)
    }
    return Settings(
        server=ServerSettings(host=host, port=port, grace_seconds=DRAIN_SECONDS, playground=True),
        worker=_worker(environ),
        store=StoreSettings(url=f"sqlite:///{(data / 'safelight.db').absolute()}"),
        blobs=BlobsSettings(url=f"file://{(data / 'blobs').absolute()}"),
        providers=entries or {"sandbox": ProviderSettings(kind="sandbox")},
        secret=(secret,),
    )


def _worker(environ: Mapping[str, str]) -> WorkerSettings:
    """Return how jobs are made here; the environment may set how many at once, as for `serve`."""
    asked = environ.get(CONCURRENCY)
    if not asked:
        return WorkerSettings(drain_seconds=DRAIN_SECONDS)
    if not asked.isascii() or not asked.isdecimal() or len(asked) > 4:
        raise Refusal(f"{CONCURRENCY} must be a number from 0 to 9999")
    return WorkerSettings(drain_seconds=DRAIN_SECONDS, concurrency=int(asked))


def token(secret: Secret, who: Principal, now_ms: int, seconds: int = TOKEN_SECONDS) -> str:
    """Return a token of the dev issuer."""
    return mint_dev(secret, who, ttl_seconds=seconds, now_ms=now_ms, jti=os.urandom(9).hex())


def write_run(data: Path, url: str) -> None:
    """Leave word of where this process answers, for commands that look for it."""
    text = json.dumps({"pid": os.getpid(), "url": url})
    fresh = data / f".run.{os.getpid()}"
    fresh.write_text(text)
    fresh.replace(data / "run.json")


def clear_run(data: Path) -> None:
    """Take back the word this process left; another process's stays."""
    try:
        run = json.loads((data / "run.json").read_text())
        if run["pid"] == os.getpid():
            (data / "run.json").unlink()
    except (OSError, ValueError, KeyError, TypeError):
        return


def read_run(data: Path) -> str | None:
    """Return the URL of the process that runs on a data folder; None where none is alive."""
    try:
        run = json.loads((data / "run.json").read_text())
        os.kill(int(run["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(run["url"])


def pages(secret: Secret, now: Callable[[], int]) -> dict[str, App]:
    """Return what the page has only here: its token."""
    return {TOKEN_PATH: _token(secret, now)}


def _token(secret: Secret, now: Callable[[], int]) -> App:
    """Return the application that gives the page its token, and nobody else one."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        host, site = header(scope, b"host") or "", header(scope, b"sec-fetch-site")
        headers = (("content-type", "application/json"), ("cache-control", "no-store"))
        peer = (scope.get("client") or ("",))[0]
        if not may_have_token(host, site, peer):
            await reply(send, 403, headers, b'{"error":"this token is for the page on this machine"}')
            return
        text = token(secret, Principal(TENANT, SUBJECT), now(), PAGE_TOKEN_SECONDS)
        body = {"token": text, "expires_at": now() + PAGE_TOKEN_SECONDS * 1000}
        await reply(send, 200, headers, json.dumps(body).encode())

    return app
