"""The command line as a whole: its help, and the commands that start nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import ROLES, command
from gateway.auth import Authenticator, dev_issuer
from gateway.secrets import load_or_create
from policies.model import Role
from tests.fakes.command import run

NAMES = [
    "dev",
    "image",
    "token",
    "key",
    "serve",
    "check",
    "blobs",
    "audit",
    "doctor",
    "migrate",
    "demo",
    "version",
]
ENVIRON = {name: None for name in os.environ if name.startswith("SAFELIGHT_")}


def invoked(*words: str, cwd: Path | None = None) -> Result:
    """Return how a command line ends, in a folder of its own where one is given."""
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        return CliRunner().invoke(command, words, env=ENVIRON)
    finally:
        os.chdir(before)


def leaves(group: click.Group, path: str = "safelight") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its whole name."""
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from leaves(one, f"{path} {name}")
        else:
            yield f"{path} {name}", one


def test_alone_shows_the_commands() -> None:
    """Without a word the commands are listed, in the order they are met, with what to try first."""
    told = invoked().output
    assert [line.split()[0] for line in told.partition("Commands:\n")[2].splitlines()[: len(NAMES)]] == NAMES
    assert "safelight demo" in told.partition("Try:")[2]


@pytest.mark.parametrize(("path", "one"), list(leaves(command)), ids=str)
def test_help_is_worth_reading(path: str, one: click.Command) -> None:
    """A command says what it does in a short sentence; what takes words has an example and explains each."""
    told = invoked(*path.split()[1:], "--help").output
    first = (one.help or "").partition("\n")[0]
    assert first.endswith(".")
    assert len(first) < 70
    for option in one.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None), option.name
    assert not one.params or f"Try:\n  {path}" in told or f"({path}" in told


def test_roles_are_the_models() -> None:
    """The roles a token can be given are those a principal can have."""
    assert set(ROLES) == set(Role)


def test_version_is_told() -> None:
    """`version` prints the name and the number."""
    assert invoked("version").output == "safelight 0.1.0\n"


@pytest.mark.parametrize("words", [("version",), ("token", "--tenant", "a", "--subject", "b")])
def test_small_commands_stay_quick(words: tuple[str, ...], tmp_path: Path) -> None:
    """What starts no server imports none: the rooms of server, store and images stay closed."""
    load_or_create(tmp_path / ".safelight/secret")
    done = run(*words, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    entered = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "click" in entered
    assert not entered & {"litestar", "uvicorn", "PIL", "aiohttp", "apsw", "rich", "gateway.app"}


async def test_token_is_who_it_names(tmp_path: Path) -> None:
    """A token is printed alone, holds tenant, subject, roles and plan, and ends when it was asked to."""
    secret = load_or_create(tmp_path / "secret")
    words = ("--tenant", "acme", "--subject", "ann", "--role", "tenant_admin", "--plan", "max", "--ttl", "2h")
    text = invoked("token", *words, "--data", str(tmp_path)).output
    now = time.time_ns() // 1_000_000
    who = await Authenticator([dev_issuer([secret])], now=lambda: now).verify(f"Bearer {text.strip()}")
    assert text == f"{text.strip()}\n"
    assert (who.tenant, who.subject, who.plan) == ("acme", "ann", "max")
    assert who.roles == {Role.USER, Role.TENANT_ADMIN}
    assert 7_100_000 < who.expires_at - now <= 7_200_000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("token", "--tenant", "a b", "--subject", "x"), "safelight: 'a b' is not a tenant's name\n"),
        (("audit", "verify"), "safelight: there is no store at .safelight/safelight.db yet\n"),
        (("doctor",), "safelight: there is no store at .safelight/safelight.db yet\n"),
        (("doctor", "--data", "no"), "safelight: no is not a data folder yet: `safelight dev` makes one,"),
        (("token", "--tenant", "a", "--subject", "b", "--data", "no"), "safelight: no is not a data folder"),
        (("dev", "--port", "0", "--data", "file/x"), "safelight: the data folder file/x cannot be made: Not"),
        (("dev", "--host", "256.0.0.1"), "safelight: cannot listen on 256.0.0.1:8080: "),
        (("image", "x", "--url", "http://127.0.0.1:1"), "safelight: --url needs a token: give --token, or"),
        (("image", "x", "--url", "ftp://a", "--token", "t"), "safelight: 'ftp://a' is not an address such"),
        (("image", "x", "-o", "no/x.png"), "safelight: no/x.png cannot be written: there is no folder no\n"),
        (("image", "x", "-o", "x.gif"), "safelight: x.gif: pictures are saved as .png, .webp or .jpg\n"),
    ],
)
def test_refusals_are_told_plainly(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    """What cannot be done is said in one line that tells what to do instead; the exit code is 1."""
    load_or_create(tmp_path / ".safelight/secret")
    (tmp_path / "file").write_text("")
    result = invoked(*words, cwd=tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(told)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("size", ["big", "1024", "1024X1024", "01x10", "1024x1024\n", "1x1"])
def test_sizes_are_explained(size: str) -> None:
    """A size that is none is refused with one to copy, before anybody is asked."""
    result = invoked("image", "x", "--size", size)
    assert (result.exit_code, "is written like 1536x1024" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["check", "serve"])
def test_mistakes_are_listed_alike(name: str, tmp_path: Path) -> None:
    """`check` and `serve` list the same mistakes of the settings file found here, and end with code 2."""
    (tmp_path / "safelight.yaml").write_text("server: {prot: 1}\nworker: {concurrency: -1}\n")
    result = invoked(name, cwd=tmp_path)
    assert result.exit_code == 2
    for words in (
        "safelight.yaml:1:10: server.prot: ",
        "worker.concurrency: ",
        "secret: no secret",
        "mistakes\n",
    ):
        assert words in result.output


def test_check_only_reads_on_demand(tmp_path: Path) -> None:
    """Without probes a folder that cannot be is no mistake."""
    (tmp_path / "keys.json").write_text('{"keys": []}')
    (tmp_path / "named.yaml").write_text(
        'secret: ["${env:SECRET}"]\nblobs: {url: "file:///dev/null/blobs"}\nserver: {port: 0}\n'
        "auth: {issuers: [{issuer: 'https://a.example', audience: i, jwks_url: 'https://a.example/k'}]}\n"
    )
    words = ("check", "--config", str(tmp_path / "named.yaml"))
    secret = {"SECRET": "x" * 40}
    probed = CliRunner().invoke(command, words, env=secret)
    reading = CliRunner().invoke(command, [*words, "--no-probe"], env=secret)
    assert (probed.exit_code, reading.exit_code) == (2, 0)
    assert "blobs.url" in probed.output
    assert reading.output.endswith("ok\n")


def test_books_need_a_secret(tmp_path: Path) -> None:
    """A settings file without a secret cannot verify a trail, and is told so."""
    (tmp_path / "bare.yaml").write_text("server: {port: 0}\n")
    result = invoked("doctor", "--config", str(tmp_path / "bare.yaml"))
    assert (result.exit_code, "sets no secret" in result.stderr) == (1, True)
