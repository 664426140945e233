"""`safelight dev` and `safelight serve`: a house on a port, until it is told to stop.

`dev` says in one block where everything is and how to try it; `serve` says it in its log. A start that
cannot succeed is refused with a sentence before anything is taken.
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from rich.text import Text

from gateway import dev, serve
from gateway.app import VERSION, Choices, House
from gateway.cli.screen import Screen, colorful
from gateway.cli.sources import files_of, settings_for
from gateway.errors import Refusal
from gateway.policy import PolicyFiles
from gateway.settings import Role, Settings
from gateway.telemetry import Form, Telemetry
from policies.model import Principal

PROMPT: Final = "a lighthouse at dusk"
LABEL: Final = 10


class Facts(Struct, frozen=True):
    """What the ready block tells. `keys` maps variables that were found to the provider they are for."""

    url: str
    data: str
    token: str
    expires_at: int
    keys: Mapping[str, str]
    command: str


def run_dev(host: str, port: int, data: Path, environ: Mapping[str, str], screen: Screen) -> None:
    """Serve a data folder on this machine until a signal."""
    with serve.bind(host, port) as listener:
        try:
            settings = dev.settings_of(data, environ, host, listener.getsockname()[1])
        except OSError as error:
            raise Refusal(f"the data folder {data} cannot be made: {error.strerror}") from error
        serve.run(_dev(data, settings, listener, environ, screen))


def run_serve(config: str | None, role: Role, environ: Mapping[str, str]) -> None:
    """Serve by a settings file until a signal. Port 0 is any free one, and links name the one it became."""
    settings, files = settings_for(config, environ, role)
    with serve.bind(settings.server.host, settings.server.port) as listener:
        server = replace(settings.server, port=listener.getsockname()[1])
        serve.run(_serve(replace(settings, server=server), files, listener, role))


async def _dev(
    data: Path, settings: Settings, listener: socket.socket, environ: Mapping[str, str], screen: Screen
) -> None:
    place = str(data.absolute())  # noqa: ASYNC240 - no file is touched
    secret = settings.secret[0]
    form: Form = "console" if colorful(sys.stdout) else "plain"
    telemetry = Telemetry(sys.stdout.buffer, now, form=form, version=VERSION).open()

    async def ready() -> None:
        url = settings.server.address
        dev.write_run(data, url)
        facts = Facts(
            url=url,
            data=place,
            token=dev.token(secret, Principal(dev.TENANT, dev.SUBJECT), now()),
            expires_at=now() + dev.TOKEN_SECONDS * 1000,
            keys={name: kind for name, kind in dev.KEYS.items() if environ.get(name)},
            command=image_command(data),
        )
        screen.say(block(facts))
        screen.out.file.flush()

    try:
        choices = Choices(dev=True, extra=dev.pages(secret, now))
        house = House(settings, files_of(settings), telemetry, choices)
        await serve.serve(house, listener, ready)
    finally:
        dev.clear_run(data)
        telemetry.close()


async def _serve(settings: Settings, files: PolicyFiles, listener: socket.socket, role: Role) -> None:
    level = settings.telemetry.log_level
    telemetry = Telemetry(sys.stdout.buffer, now, level=level, version=VERSION).open()
    try:
        house = House(settings, files, telemetry, Choices(role=role))

        async def ready() -> None:
            telemetry.event(
                "start",
                safelight=VERSION,
                python=platform.python_version(),
                pid=os.getpid(),
                role=role,
                address=settings.server.host,
                port=listener.getsockname()[1],
                store=settings.store.url,
                providers=",".join(settings.providers),
                policy_version=house.book.version,
                concurrency=settings.worker.concurrency,
            )

        await serve.serve(house, listener, ready)
        telemetry.event("stop", pid=os.getpid())
    finally:
        telemetry.close()


def block(facts: Facts) -> Text:
    """Return the ready block. What is to be copied stands at the left edge, whole, without style."""
    until = datetime.datetime.fromtimestamp(facts.expires_at / 1000).astimezone()
    rows = [
        ("address", facts.url),
        ("page", f"{facts.url}/"),
        ("docs", f"{facts.url}/docs"),
        ("data", facts.data),
        *pictures(facts.keys),
        ("token", f"for {dev.SUBJECT} of {dev.TENANT}, until {until:%Y-%m-%d %H:%M} (12 hours)"),
    ]
    text = Text.assemble("\n", ("  Safelight is ready", "bold"), (f"  {VERSION}\n\n", "dim"))
    for label, words in rows:
        text.append_text(Text.assemble((f"  {label:<{LABEL}}", "dim"), words, "\n"))
    text.append(f"\n{facts.token}\n")
    text.append("\n  Ask for a picture (then read the answer's `links.self` with the same token):\n\n", "dim")
    text.append(f"{curl(facts.url, facts.token)}\n")
    text.append("\n  Or ask, wait and save it, in another terminal:\n\n", "dim")
    text.append(f"{facts.command}\n")
    text.append("\n  Ctrl-C stops.\n", "dim")
    return text


def pictures(keys: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the rows that say who makes the pictures. Variables are named, never what they hold."""
    if keys:
        made = [f"made by {kind}, with the key in {name}" for name, kind in keys.items()]
    else:
        made = ["drawn here by the sandbox: no provider key is set", f"({', '.join(dev.KEYS)})"]
    return [("pictures" if not place else "", words) for place, words in enumerate(made)]


def curl(url: str, token: str) -> str:
    """Return a command that submits a job, to be pasted into a shell as it is."""
    return (
        f"curl -sS '{url}/v1/jobs' \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"""  -d '{{"prompt": "{PROMPT}"}}'"""
    )


def image_command(data: Path) -> str:
    """Return how a picture is asked for from here, out of this data folder."""
    own = Path(sys.executable).with_name("safelight")
    inside = own.is_relative_to(Path.cwd())
    name = "safelight" if shutil.which("safelight") else str(own.relative_to(Path.cwd()) if inside else own)
    words = [name, "image", PROMPT]
    if data.absolute() != Path(".safelight").absolute():
        words += ["--data", str(data)]
    return shlex.join(words)


def now() -> int:
    """Return this host's time in milliseconds."""
    return time.time_ns() // 1_000_000
