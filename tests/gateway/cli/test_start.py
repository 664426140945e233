"""What is said when a server is ready, and what keeps one from starting."""

from __future__ import annotations

import io
import json
import os
import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway import dev
from gateway.cli.screen import Screen
from gateway.cli.sources import Mistaken
from gateway.cli.start import Facts, block, curl, image_command, run_dev, run_serve
from gateway.errors import Refusal

FACTS = Facts("http://127.0.0.1:8080", "/data", "to.k-e_n", 1_795_176_000_000, {}, "safelight image x")


def test_block_names_variables_only() -> None:
    """Each key that was found is told by its variable and its provider; without one, the sandbox is."""
    text = block(replace(FACTS, keys={"OPENAI_API_KEY": "openai", "GPTIMAGE2_API_KEY": "gptimage2_ai"})).plain
    assert "pictures  made by openai, with the key in OPENAI_API_KEY\n" in text
    assert "            made by gptimage2_ai, with the key in GPTIMAGE2_API_KEY\n" in text
    bare = block(FACTS).plain
    assert "no provider key is set" in bare
    assert all(name in bare for name in dev.KEYS)


def test_copied_lines_stand_alone() -> None:
    """Token, cURL and command begin at the left edge, and no line has a blank at its end."""
    lines = block(FACTS).plain.splitlines()
    assert {"to.k-e_n", "safelight image x", "curl -sS 'http://127.0.0.1:8080/v1/jobs' \\"} <= set(lines)
    assert [line for line in lines if line != line.rstrip()] == []
    assert all(line == "" or line.startswith("  ") or line in block(FACTS).plain for line in lines)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:80"])
def test_curl_is_one_shell_command(url: str) -> None:
    """A shell reads the cURL as one command with the address, the token and a JSON body."""
    words = shlex.split(curl(url, "tok").replace("\\\n", ""))
    assert words[:3] == ["curl", "-sS", f"{url}/v1/jobs"]
    assert words[3:7] == ["-H", "Authorization: Bearer tok", "-H", "Content-Type: application/json"]
    assert json.loads(words[8]) == {"prompt": "a lighthouse at dusk"}


def test_command_fits_the_folder(tmp_path: Path) -> None:
    """The command to go on with names the data folder where it is not the usual one."""
    usual, other = (
        shlex.split(image_command(Path(".safelight"))),
        shlex.split(image_command(tmp_path / "a b")),
    )
    assert usual[0].endswith("safelight")
    assert usual[1:] == ["image", "a lighthouse at dusk"]
    assert other == [*usual, "--data", str(tmp_path / "a b")]


def test_dev_needs_a_folder(tmp_path: Path) -> None:
    """A data folder that cannot be made is refused, and the port is free again."""
    (tmp_path / "file").touch()
    for _ in range(2):
        with pytest.raises(Refusal, match=r"file/data cannot be made: Not a directory"):
            run_dev("127.0.0.1", 0, tmp_path / "file/data", {}, Screen(io.StringIO()))


@pytest.mark.parametrize("role", ["api", "worker"])
def test_sqlite_refuses_half_a_server(role: str, tmp_path: Path) -> None:
    """A process that only serves, or only works, needs a store that two can share."""
    (tmp_path / "s.yaml").write_text("server: {port: 0}\n")
    with pytest.raises(Mistaken, match=f"SQLite serves one process: it takes --role all, not {role}"):
        run_serve(str(tmp_path / "s.yaml"), role, {})  # type: ignore[arg-type] # a row of the table


def test_bad_policies_stop_serve(tmp_path: Path) -> None:
    """Mistakes in policies are told like those in settings, before anything is opened."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/all.yaml").write_text("plans: {free: {}}\n")
    (tmp_path / "s.yaml").write_text(
        f'secret: ["${{env:SECRET}}"]\nserver: {{port: 0}}\npolicies: {{path: "{tmp_path}/rules"}}\n'
        f'store: {{url: "sqlite:///{tmp_path}/s.db"}}\n'
        "auth: {issuers: [{issuer: 'https://a.example', audience: i, jwks_url: 'https://a.example/k'}]}\n"
    )
    with pytest.raises(Mistaken, match=r"rules/all\.yaml"):
        run_serve(str(tmp_path / "s.yaml"), "all", {"SECRET": "x" * 40})
    assert not (tmp_path / "s.db").exists()


def test_run_file_is_its_owners(tmp_path: Path) -> None:
    """Word of where a server answers is taken back by its own process alone; nonsense is no word."""
    dev.write_run(tmp_path, "http://127.0.0.1:1")
    assert dev.read_run(tmp_path) == "http://127.0.0.1:1"
    dev.clear_run(tmp_path)
    dev.clear_run(tmp_path)
    assert dev.read_run(tmp_path) is None
    for text in ('{"pid": 1}', "[]", "{", json.dumps({"pid": os.getpid() + 1, "url": "x"})):
        (tmp_path / "run.json").write_text(text)
        dev.clear_run(tmp_path)
        assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize(("text", "jobs"), [("", 64), ("0", 0), ("1", 1), ("9999", 9999)])
def test_dev_takes_the_concurrency(tmp_path: Path, text: str, jobs: int) -> None:
    """How many jobs `dev` makes at once may be set as it is for `serve`."""
    settings = dev.settings_of(tmp_path, {dev.CONCURRENCY: text}, "127.0.0.1", 0)
    assert (settings.worker.concurrency, settings.worker.drain_seconds) == (jobs, 5)


@pytest.mark.parametrize("text", ["-1", "many", "10000", "1.5", "²"])
def test_odd_concurrency_is_refused(tmp_path: Path, text: str) -> None:
    """What is no count of jobs is refused by the variable's name."""
    with pytest.raises(Refusal, match=dev.CONCURRENCY):
        dev.settings_of(tmp_path, {dev.CONCURRENCY: text}, "127.0.0.1", 0)
