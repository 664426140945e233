"""The README stays true: its commands run, its settings are taken, what it names is there.

Each command of a `sh` block stands in a table with how it is run: by this module, by `.ci/run`, or by hand
where it takes minutes or a terminal. A command that is in neither is a complaint.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from gateway.__main__ import command
from gateway.auth import Issuer
from gateway.configure import OVERRIDES
from gateway.providers import KINDS
from gateway.settings import Settings
from policies.bundle import Bundle
from tests.fakes.command import Running, run, running
from tests.fakes.tokens import signer
from tests.house import ROOT

README: Final = (ROOT / "README.md").read_text("utf-8")
CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text("utf-8")
PROSE: Final = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
NAMED: Final = tuple(re.findall(r"`([^`\n]+)`", PROSE))
"""Whatever the prose sets in backticks."""

SECRETS: Final = {
    "SAFELIGHT_SECRET": "a secret of forty characters, or so, here",
    "OPENAI_API_KEY": "sk-none",
}
"""What the README's settings refer to."""
TOP: Final = {
    "CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "gateway", "helm", "policies",
    "pyproject.toml", "tests", "uv.lock",
}  # fmt: skip
BY_HAND: Final = {
    "make dev": "stays until it is stopped; `safelight dev` is run below and in the journeys",
    "make bench": "takes minutes and a quiet machine",
    "make chaos": "takes minutes",
}
BESIDE_DEV: Final = (
    '.venv/bin/safelight image "a lighthouse at dusk" -o out.png',
    ".venv/bin/safelight doctor --data .safelight",
    ".venv/bin/safelight audit verify --data .safelight",
    ".venv/bin/safelight key create --tenant demo --subject ci --prefix gimg",
)
BY_FILE: Final = (
    ".venv/bin/safelight check --config safelight.yaml",
    ".venv/bin/safelight serve --config safelight.yaml",
    ".venv/bin/safelight blobs check --config safelight.yaml",
)


def blocks(kind: str) -> list[str]:
    """Return the README's blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """Return the text under a heading."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def lines_of(kind: str) -> list[str]:
    """Return every line of the blocks of a kind."""
    return [line for block in blocks(kind) for line in block.splitlines()]


def sources() -> str:
    """Return all code of the product."""
    return "\n".join(
        p.read_text("utf-8") for top in ("gateway", "policies") for p in (ROOT / top).rglob("*.py")
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A `safelight dev`, as `make dev` starts it, on a port that is free."""
    with running("dev", "--port", "0", cwd=tmp_path_factory.mktemp("readme")) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the README's settings, its absolute places moved into the folder."""
    (text,) = blocks("yaml")
    (tmp_path / "safelight.yaml").write_text(text.replace("/var/lib/safelight", str(tmp_path)))
    return tmp_path


def test_every_command_is_run() -> None:
    """Each command shown is run here or by `.ci/run`, or stands in the table of those run by hand."""
    by_ci = set((ROOT / ".ci/run").read_text("utf-8").splitlines())
    known = {*BY_HAND, *BESIDE_DEV, *BY_FILE, *(line for line in by_ci if line.startswith("make "))}
    assert set(lines_of("sh")) <= known
    assert {*BY_HAND, *BESIDE_DEV, *BY_FILE} <= set(lines_of("sh"))


def test_make_targets_exist() -> None:
    """Each `make` target that is named can be made, and `make help` tells of it."""
    told = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for text in (*NAMED, *lines_of("sh")) for word in re.findall(r"^make ([a-z]+)$", text)}
    assert {"dev", "test", "demo", "check"} <= named <= told


@pytest.mark.parametrize("line", BESIDE_DEV)
def test_commands_run_beside_dev(server: Running, line: str) -> None:
    """What is shown to be typed in a second terminal works there, as it stands."""
    done = run(*shlex.split(line)[1:], cwd=server.cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_shown_settings_are_sound(home: Path) -> None:
    """The settings shown pass `safelight check` once the environment holds what they refer to."""
    words = shlex.split(BY_FILE[0])[1:]
    done = run(*words, "--no-probe", cwd=home, **SECRETS)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    for name in SECRETS:
        missing = run(*words, "--no-probe", cwd=home, **{k: v for k, v in SECRETS.items() if k != name})
        assert (missing.returncode, name in missing.stdout) == (2, True)


def test_shown_settings_serve(home: Path) -> None:
    """A server starts by the settings shown, with keys of its issuer that need no network."""
    (home / "keys.json").write_text(json.dumps({"keys": [signer("ES256").jwk]}))
    text = (home / "safelight.yaml").read_text()
    moved = re.sub(r"jwks_url: \S+", f"jwks_file: {home}/keys.json", text)
    (home / "safelight.yaml").write_text(moved)
    here = {"SAFELIGHT_SERVER_HOST": "127.0.0.1", "SAFELIGHT_SERVER_PORT": "0"}
    words = shlex.split(BY_FILE[1])[1:]
    with running(*words, cwd=home, last='"event":"start"', **SECRETS, **here) as server:
        port = json.loads(server.lines[-1])["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
            assert answer.status == 200


def test_named_settings_exist() -> None:
    """Each setting that is named is one, and each variable that stands above the file is named."""
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for name in NAMED:
        head, _, rest = name.partition(".")
        if head in sections and re.fullmatch(r"[a-z_]+", rest):
            assert rest in {field.name for field in msgspec.structs.fields(sections[head])}, name
    whole = {f"SAFELIGHT{name}" if name.startswith("_") else name for name in NAMED}
    variables = {name for name in whole if name.startswith("SAFELIGHT_")}
    assert variables == set(OVERRIDES)
    assert {"token_types", "jwks_file"} <= set(Issuer.__struct_fields__)
    assert all(kind in README for kind in KINDS)


def test_named_policies_exist() -> None:
    """What is said to be policy are the parts of the bundle."""
    told = re.search(r"^(Plans, .*?) are policy", README, re.MULTILINE | re.DOTALL)
    assert told
    words = re.split(r", | and ", re.sub(r"\s+", " ", told[1]).lower())
    assert {word.replace(" ", "_") for word in words} - {"routes"} == set(Bundle.__struct_fields__)


def test_calls_are_the_servers(server: Running) -> None:
    """The tables of calls have each call of the OpenAPI document, and no other."""
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=20) as answer:
        paths = json.load(answer)["paths"]
    served = {f"{method.upper()} {path}" for path, ways in paths.items() for method in ways}
    told = set()
    for title in ("The API in one page", "Keep the client you have"):
        for row in re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE):
            for name in re.findall(r"`([^`]+)`", row):
                told.add(name if " " in name else f"GET {name}")
    assert {bare(call) for call in told} == {bare(call) for call in served}


def bare(call: str) -> str:
    """Return a call without the names of what stands in its path."""
    return re.sub(r"\{[^}]*\}|…", "{}", call)


def test_shown_places_are_writable(home: Path) -> None:
    """The folder for pictures that the settings show passes its check."""
    done = run(*shlex.split(BY_FILE[2])[1:], cwd=home, **SECRETS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shown_client_gets_a_picture(server: Running, tmp_path: Path) -> None:
    """The Python shown for OpenAI's SDK makes a picture with a key made as shown."""
    made = run(*shlex.split(BESIDE_DEV[-1])[1:], cwd=server.cwd)
    (code,) = [block for block in blocks("python") if "OpenAI(" in block]
    script = code.replace("http://127.0.0.1:8080", server.url)
    environ = {**os.environ, "SAFELIGHT_KEY": made.stdout.strip()}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environ, check=True, timeout=60)
    assert (tmp_path / "dusk.png").read_bytes().startswith(b"\x89PNG")


def test_shown_middleware_mounts(home: Path) -> None:
    """The Python shown for a backend builds an application with the gateway in it."""
    (code,) = [block for block in blocks("python") if "GatewayMiddleware" in block]
    script = code + "\nprint([layer.cls.__name__ for layer in app.user_middleware])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=home, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['GatewayMiddleware']"


def test_shown_browser_calls_exist() -> None:
    """What the browser's example calls is in `client.js` and in its types."""
    (code,) = blocks("js")
    for name in re.findall(r"safelight\.([a-z]+)\(", code):
        for file in ("client.js", "client.d.ts"):
            assert re.search(rf"\b{name}\(", (ROOT / "gateway/web" / file).read_text("utf-8")), name


def test_alarms_are_the_codes() -> None:
    """The table of alarms has each name that an alarm is raised under, and no other."""
    text = sources()
    raised = set(re.findall(r'\.alarm\(\s*"([a-z_]+)"', text))
    flags = set(re.findall(r'\bflag\s*=\s*"([a-z_]+)"', text))
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \|$", section("Operation"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)} == raised | flags


def test_commands_are_told() -> None:
    """The changelog names each command there is, and the README no other."""
    top = {*command.commands} - {"audit"} | {"audit verify"}
    told = set(re.findall(r"`(?:safelight )?([a-z]+(?: verify)?)`", CHANGELOG))
    assert top <= told
    shown = {name.split()[1] for name in (*NAMED, *lines_of("sh")) if re.match(r"\S*safelight [a-z]", name)}
    assert shown <= set(command.commands)


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["readme", "changelog"])
def test_links_lead_somewhere(text: str) -> None:
    """Each relative link leads to a file, and each path in backticks to one or to a folder."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    paths = re.findall(r"`((?:gateway|policies|tests|\.ci)/[^`\s]*)`", text)
    assert [path for path in (*links, *paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("marker", ["bench", "chaos"])
def test_figures_have_a_date(marker: str) -> None:
    """What was measured stands in a table under its marker, with the day it was measured."""
    assert README.count(f"<!-- {marker} -->") == 1
    found = re.split(r"\n`make|\n## |<!--", README.partition(f"<!-- {marker} -->")[2])[0].strip()
    day = r"\b20\d\d-\d\d-\d\d\b|\b\d{1,2} [A-Z][a-z]+ 20\d\d\b"
    assert not found or (re.search(r"^\|-", found, re.MULTILINE) and re.search(day, found)), found


def test_top_holds_what_is_known() -> None:
    """The top of the repository holds what the house allows there, and dotfiles."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    top = {name.partition("/")[0] for name in listed}
    assert {name for name in top if not name.startswith(".")} <= TOP
