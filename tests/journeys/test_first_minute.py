"""The first minute: `dev`, the cURL it prints, `image`, the books, `demo`. All as real processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.command import LINE, Running, environ, run, running
from tests.fakes.tokens import ISSUER, signer

TICKS = 9
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": ""}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A `safelight dev` on a free port, with its data folder where it runs."""
    with running("dev", "--port", "0", cwd=tmp_path_factory.mktemp("dev")) as server:
        yield server


def size_of(path: Path) -> tuple[int, int]:
    """Return a PNG's width and height by its header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def fetched(url: str) -> int:
    """Return the status a page is answered with."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)


def test_dev_is_ready_soon(server: Running) -> None:
    """The ready block takes less than three seconds of a core: `make bench` has what a clock says."""
    assert 0 < server.work < 3


def test_ready_block_tells_all(server: Running) -> None:
    """Address, page, docs, data folder, token and its expiry, and who draws: each is said and true."""
    assert fetched(server.row("page")) == fetched(server.row("docs")) == fetched(f"{server.url}/livez") == 200
    assert server.row("data") == str(server.cwd / ".safelight")
    assert "no provider key is set" in server.row("pictures")
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d \(12 hours\)", server.row("token"))
    assert json.loads((server.cwd / ".safelight/run.json").read_text()) == {
        "pid": server.process.pid,
        "url": server.url,
    }


def test_printed_curl_works_verbatim(server: Running) -> None:
    """The cURL, copied from the output of a pipe into a shell, submits a job."""
    done = subprocess.run(["bash", "-c", server.curl], capture_output=True, text=True, check=True)
    job = json.loads(done.stdout)
    assert (job["state"], job["subject"], done.stderr) == ("queued", "you", "")
    assert "\x1b" not in server.block


def test_image_finds_running_server(server: Running) -> None:
    """`image` asks the server of the data folder and saves a PNG of the size that was asked for."""
    words = ("image", "a lighthouse at dusk", "-o", "out.png", "--size", "1536x1024")
    done = run(*words, cwd=server.cwd)
    assert (done.returncode, size_of(server.cwd / "out.png")) == (0, (1536, 1024))
    assert re.fullmatch(r"out\.png  1536x1024  \d+ kB\n10 credits charged, [\d,]+ left\n", done.stdout), (
        done.stdout
    )
    assert done.stderr.splitlines()[-1] in ("queued", "running")


def test_tokens_open_the_server(server: Running) -> None:
    """`token` prints a token alone, and the running server takes it for who it names."""
    words = ("--tenant", "acme", "--subject", "ann", "--role", "tenant_admin", "--plan", "max")
    made = run("token", *words, cwd=server.cwd).stdout.strip()
    request = urllib.request.Request(f"{server.url}/v1/account", headers={"Authorization": f"Bearer {made}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        account = json.load(answer)
    assert (account["tenant"], account["subject"], account["plan"]) == ("acme", "ann", "max")
    assert account["roles"] == ["tenant_admin", "user"]


def test_problems_are_told_kindly(server: Running) -> None:
    """A blocked prompt ends with code 1, its rule and what to do; nothing is saved."""
    done = run("image", "a safelight-blocked thing", "-o", "no.png", cwd=server.cwd)
    assert (done.returncode, done.stdout, (server.cwd / "no.png").exists()) == (1, "", False)
    assert "Prompt blocked" in done.stderr
    assert "demo.blocked" in done.stderr
    assert "to do" in done.stderr


def test_failed_jobs_cost_nothing(server: Running) -> None:
    """A job that fails at its provider is told with its code and the refund, and the command fails."""
    done = run("image", "[[refuse]] a thing", cwd=server.cwd)
    assert done.returncode == 1
    assert "upstream_refused" in done.stderr
    assert "0 credits charged, 10 came back" in done.stderr


def test_taken_places_are_refused(server: Running, tmp_path: Path) -> None:
    """A port or folder in use is refused in one sentence that says what to choose, without a trace."""
    port = server.url.rpartition(":")[2]
    taken = run("dev", "--port", port, cwd=tmp_path)
    shared = run("dev", "--port", "0", cwd=server.cwd)
    for done, words in ((taken, "--port"), (shared, "--data")):
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("safelight: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert fetched(f"{server.url}/livez") == 200
    assert (server.cwd / ".safelight/run.json").exists()


def test_books_open_beside_server(server: Running) -> None:
    """`audit verify` and `doctor` read beside the running server, and say what they counted."""
    run("image", "one for the books", cwd=server.cwd)
    verified, examined = run("audit", "verify", cwd=server.cwd), run("doctor", cwd=server.cwd)
    assert verified.returncode == examined.returncode == 0
    assert re.fullmatch(r"✓ the trail holds: \d+ links of \d tenants?\n", verified.stdout), verified.stdout
    assert re.match(r"✓ the books balance: \d tenants?, \d+ jobs?, \d+ ledger entries, ", examined.stdout)


@pytest.mark.parametrize(("rows", "columns", "shown"), [(40, 100, True), (0, 0, False), (5, 100, False)])
def test_image_shows_in_terminal(server: Running, rows: int, columns: int, shown: bool) -> None:  # noqa: FBT001 - a column
    """A terminal with room is shown the picture, in half blocks where it offers nothing better."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    line = [*LINE, "image", "a red lighthouse", "-o", "seen.png"]
    told = b""
    with subprocess.Popen(
        line, cwd=server.cwd, env=environ(**TERMINAL), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        while chunk := read_terminal(ours):
            told += chunk
    os.close(ours)
    assert process.returncode == 0, told.decode()
    assert (told.count("▀".encode()) > 100) == shown
    assert b"credits charged" in told


def read_terminal(handle: int) -> bytes:
    """Return what a terminal was written, nothing once its last program ended."""
    try:
        return os.read(handle, 65_536)
    except OSError:
        return b""


def test_interrupt_cancels_the_job(server: Running) -> None:
    """Ctrl-C while a picture is made cancels its job at the server, and says so."""
    heeded = ("env", "--default-signal=INT")  # whoever runs the tests in the background has it ignored
    line = [*heeded, *LINE, "image", "[[slow 30]] a thing", "-o", "never.png"]
    with subprocess.Popen(
        line, cwd=server.cwd, env=environ(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        assert any(text.startswith("running") for text in process.stderr)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert (process.returncode, (server.cwd / "never.png").exists()) == (130, False)
    assert "Stopped" in told
    request = urllib.request.Request(
        f"{server.url}/v1/jobs?limit=1", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        (job,) = json.load(answer)["data"]
    assert job["cancel_requested_at"] is not None


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_dev_stops_in_order(sign: signal.Signals, tmp_path: Path) -> None:
    """A signal ends `dev` with code 0, and its word of where it answers is taken back."""
    with running("dev", "--port", "0", cwd=tmp_path, OPENAI_API_KEY="sk-canary-0123456789") as server:
        assert server.row("pictures") == "made by openai, with the key in OPENAI_API_KEY"
        assert server.end(sign) == 0
    assert not (tmp_path / ".safelight/run.json").exists()
    assert "sk-canary" not in "".join(server.lines)
    assert "\x1b" not in "".join(server.lines)


def test_image_needs_no_server(tmp_path: Path) -> None:
    """Without a server a picture is made in the command's own process; stale word of one does not mislead."""
    first = run("image", "Ein Leuchtturm, bei Nacht!", "--count", "2", "--quality", "low", cwd=tmp_path)
    assert first.stdout.splitlines()[-1] == "2 credits charged, 9,998 left"
    names = ["ein-leuchtturm-bei-nacht-1.png", "ein-leuchtturm-bei-nacht-2.png"]
    assert [size_of(tmp_path / name) for name in names] == [(1024, 1024)] * 2
    gone = {"pid": os.getpid(), "url": "http://127.0.0.1:1"}
    (tmp_path / ".safelight/run.json").write_text(json.dumps(gone))
    assert run("image", "again", "-o", "again.webp", cwd=tmp_path).returncode == 0
    assert (tmp_path / "again.webp").read_bytes()[8:12] == b"WEBP"
    assert run("doctor", cwd=tmp_path).returncode == 0


def test_serve_runs_by_file(tmp_path: Path) -> None:
    """`serve` tells its start in one JSON line, takes no token of `dev`, and stops at SIGTERM."""
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [signer("ES256").jwk]}))
    (tmp_path / "safelight.yaml").write_text(
        'secret: ["${env:SAFELIGHT_SECRET}"]\n'
        "server: {host: 127.0.0.1, port: 0, grace_seconds: 1}\n"
        f'store: {{url: "sqlite:///{tmp_path}/safelight.db"}}\n'
        f'blobs: {{url: "file://{tmp_path}/blobs"}}\n'
        f"auth: {{issuers: [{{issuer: '{ISSUER}', audience: images, jwks_file: '{tmp_path}/keys.json'}}]}}\n"
        "providers: {here: {kind: sandbox}}\n"
    )
    secret = "a secret of forty characters, or so, here"
    with running("serve", cwd=tmp_path, last='"event":"start"', SAFELIGHT_SECRET=secret) as server:
        start = json.loads(server.lines[-1])
        assert (start["role"], start["providers"], start["address"]) == ("all", "here", "127.0.0.1")
        assert fetched(f"http://127.0.0.1:{start['port']}/livez") == 200
        assert server.end() == 0
    assert json.loads(server.lines[-1])["event"] == "stop"
    assert secret not in "".join(server.lines)
    refused = run("serve", "--role", "worker", cwd=tmp_path, SAFELIGHT_SECRET=secret)
    assert (refused.returncode, "SQLite serves one process" in refused.stderr) == (2, True)


def test_demo_keeps_every_promise(tmp_path: Path) -> None:
    """The demo ticks every line, ends with 0, and leaves neither a process nor a folder."""
    done = run("demo", cwd=tmp_path, TMPDIR=str(tmp_path), OPENAI_API_KEY="sk-canary-0123456789")
    assert done.returncode == 0, done.stdout
    ticks = [line for line in done.stdout.splitlines() if line.startswith("✓ ")]
    assert len(ticks) == TICKS, done.stdout
    for words in ("demo.blocked", "64 identical", "kill -9", "outcome_unknown", "audit verify", "doctor"):
        assert sum(words in tick for tick in ticks) == 1
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in commands()


def test_failing_demo_says_why(tmp_path: Path) -> None:
    """A demo whose server cannot start ends with 1 and the server's own words, and cleans up."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'dev' in sys.orig_argv: sys.exit('not on this machine')\n"
    )
    done = run("demo", cwd=tmp_path, TMPDIR=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "✗ the server did not start" in done.stdout
    assert not any(path.name.startswith("safelight-demo-") for path in tmp_path.iterdir())


def test_stopped_demo_cleans_up(tmp_path: Path) -> None:
    """A demo that is told to end takes its server and its folder along."""
    line = [*LINE, "demo"]
    env = environ(TMPDIR=str(tmp_path))
    with subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as demo:
        assert demo.stdout is not None
        assert any(text.startswith("✓") for text in demo.stdout)
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
    assert demo.returncode != 0
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in commands()


def commands() -> str:
    """Return the command lines of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(found)
