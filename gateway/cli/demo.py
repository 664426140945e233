"""`safelight demo`: what the gateway promises, shown on a real server in half a minute, a tick a line.

The server is `safelight dev` in a process of its own, on a free port and a folder that goes away, so that
it can be killed like any other. Every line is checked before it is ticked; one that fails ends the demo
with its reason and exit code 1. No provider key is handed on, so nothing is spent anywhere.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway import dev
from gateway.cli.client import Client, Seen, Shown
from gateway.cli.screen import Screen, size_text
from gateway.cli.sources import secret_in
from gateway.errors import Problem, Refusal
from policies.model import Principal

START_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.02
SAME: Final = 64
QUEUED: Final = 3
PROMPT: Final = "a lighthouse at dusk"
BLOCKED: Final = "a lighthouse, safelight-blocked"
SLOW: Final = "[[slow 60]] a very slow lighthouse"


class NotAsPromisedError(Exception):
    """A line of the demo did not come true; the message says what was seen."""


class _Account(Struct):
    credits: dict[str, int]


class Server:
    """`safelight dev` as a process of its own."""

    def __init__(self, data: Path, environ: Mapping[str, str], *, at_once: int | None = None) -> None:
        self._data = data
        self._environ = {name: value for name, value in environ.items() if name not in dev.KEYS}
        if at_once is not None:
            self._environ[dev.CONCURRENCY] = str(at_once)
        self._log = data.with_suffix(".log")
        self._process = self._start()
        try:
            self.client = self._ready()
        except BaseException:
            self.kill()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "gateway", "dev", "--port", "0", "--data", str(self._data)]
        with self._log.open("ab") as log:
            return subprocess.Popen(line, stdout=log, stderr=log, env=self._environ)  # noqa: S603 - ours

    def _ready(self) -> Client:
        """Wait until it says where it answers."""
        until = time.monotonic() + START_SECONDS
        while (url := dev.read_run(self._data)) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                raise NotAsPromisedError(f"the server did not start: {self._log.read_text()[-1000:]}")
            time.sleep(LOOK_SECONDS)
        now = time.time_ns() // 1_000_000
        return Client(url, dev.token(secret_in(self._data), Principal(dev.TENANT, dev.SUBJECT), now))

    def kill(self) -> None:
        """Kill it as the kernel does: nothing of it runs any more."""
        self._process.kill()
        self._process.wait()
        (self._data / "run.json").unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask it to end, and wait for that; kill it where it does not."""
        self._process.terminate()
        try:
            self._process.wait(dev.DRAIN_SECONDS * 2)
        except subprocess.TimeoutExpired:
            self.kill()


class Demo:
    """The demo's lines, in order."""

    def __init__(self, data: Path, environ: Mapping[str, str], screen: Screen) -> None:
        self._data = data
        self._environ = environ
        self._screen = screen
        self._server: Server | None = None

    def run(self) -> None:
        """Show every line; raises `NotAsPromisedError` at the first that fails."""
        client = self._starts()
        self._makes_a_picture(client)
        self._blocks_a_prompt(client)
        self._charges_once(client)
        self._survives_a_kill(client)
        for words in (("audit", "verify"), ("doctor",)):
            self._books_are_right(*words)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def _starts(self) -> Client:
        started = time.monotonic()
        self._server = Server(self._data, self._environ, at_once=1)
        seconds = time.monotonic() - started
        self._screen.tick(f"safelight dev answers after {seconds:.1f} s, with no key and nothing configured")
        return self._server.client

    def _makes_a_picture(self, client: Client) -> None:
        with self._screen.waiting("making a picture"):
            job = ended(client, client.submit({"prompt": PROMPT}))
        _expect(job.state == "succeeded", f"the job {job.state}")
        picture = job.outputs[0]
        path = self._data / "picture.png"
        path.write_bytes(client.picture(picture))
        size = f"{picture.width}x{picture.height}, {size_text(picture.bytes)}"
        self._screen.tick(f"a picture from a prompt: {PROMPT}, {size}, {job.cost.charged} credits")
        self._screen.picture(path)

    def _blocks_a_prompt(self, client: Client) -> None:
        before = _credits(client)
        try:
            client.submit({"prompt": BLOCKED})
        except Problem as problem:
            _expect(problem.code == "prompt_blocked" and problem.rule is not None, problem.detail)
            _expect(_credits(client) == before, "a blocked prompt cost something")
            self._screen.tick(f"a blocked prompt: rule {problem.rule}, nothing charged")
        else:
            raise NotAsPromisedError("the prompt was not blocked")

    def _charges_once(self, client: Client) -> None:
        """Send one request many times at once, under one key."""
        before = _credits(client)
        body = {"prompt": "one lighthouse, however often it is asked for"}
        with ThreadPoolExecutor(SAME) as pool:
            answers = list(pool.map(lambda _: client.post("/v1/jobs", body, "demo-once"), range(SAME)))
        jobs = {msgspec.json.decode(answer.body, type=Seen).id for answer in answers}
        fresh = sum("idempotent-replayed" not in answer.headers for answer in answers)
        _expect(len(jobs) == 1 and fresh == 1, f"{SAME} submits made {len(jobs)} jobs")
        first = msgspec.json.decode(answers[0].body, type=Seen)
        charged = ended(client, Shown(first)).cost.charged
        spent = before - _credits(client)
        _expect(spent == charged > 0, f"{spent} credits left the account for a charge of {charged}")
        self._screen.tick(f"{SAME} identical submits at once: 1 job, charged once, {spent} credits")

    def _survives_a_kill(self, client: Client) -> None:
        """Kill the server with one call open at its provider and jobs queued behind it."""
        before = _credits(client)
        slow = client.submit({"prompt": SLOW})
        behind = [client.submit({"prompt": f"{PROMPT}, no. {n}"}).job for n in range(1, QUEUED + 1)]
        while slow.job.state == "queued":
            slow = client.wait(slow.job)
        _expect(slow.job.state == "running", f"the slow job {slow.job.state}")
        states = {client.job(job.id).job.state for job in behind}
        _expect(states == {"queued"}, f"the others were {', '.join(sorted(states))}")
        assert self._server is not None  # noqa: S101 - it answered a moment ago
        self._server.kill()
        self._screen.tick(f"kill -9 with 1 job in mid-call and {QUEUED} queued behind it")
        started = time.monotonic()
        self._server = Server(self._data, self._environ)
        client = self._server.client
        with self._screen.waiting("the restarted server goes on"):
            jobs = [ended(client, client.job(job.id)) for job in behind]
            open_call = ended(client, client.job(slow.job.id))
        self._tell_ends(jobs, open_call, time.monotonic() - started)
        spent = before - _credits(client)
        _expect(spent == sum(job.cost.charged for job in jobs), f"{spent} credits left the account")

    def _tell_ends(self, jobs: list[Seen], open_call: Seen, seconds: float) -> None:
        states = [job.state for job in jobs]
        _expect(set(states) == {"succeeded"}, f"the queued jobs: {', '.join(states)}")
        code = None if open_call.error is None else open_call.error.code
        _expect(code == "outcome_unknown" and not open_call.cost.charged, f"the open call ended {code}")
        self._screen.tick(
            f"restarted on the same folder: the {QUEUED} queued jobs were made, {seconds:.1f} s"
        )
        self._screen.tick(f"the one in mid-call: {code}, {open_call.cost.refunded} credits refunded")
        self._screen.note("Its provider may have made the picture; sent again, it might be paid for twice.")

    def _books_are_right(self, *words: str) -> None:
        """Run a command that looks at the books, beside the running server."""
        line = [sys.executable, "-m", "gateway", *words, "--data", str(self._data)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        first, *others = (done.stdout or done.stderr).strip().splitlines() or ["nothing was told"]
        _expect(done.returncode == 0, f"{' '.join(words)}: {first}")
        self._screen.tick(f"{' '.join(words)}: {first.removeprefix('✓ ')}")
        for other in others:
            self._screen.note(other.strip())


def run_demo(environ: Mapping[str, str], screen: Screen) -> int:
    """Run the demo in a folder that goes away; return the exit code."""
    started = time.monotonic()
    screen.say("Safelight demo: a server of its own, no key, nothing left behind\n", style="bold")
    with tempfile.TemporaryDirectory(prefix="safelight-demo-") as folder, _ended_by_signal():
        demo = Demo(Path(folder) / "data", environ, screen)
        try:
            demo.run()
        except (NotAsPromisedError, Problem, Refusal) as reason:
            screen.cross(reason.detail if isinstance(reason, Problem) else str(reason))
            return 1
        finally:
            demo.close()
    screen.say(f"\nAll of it in {time.monotonic() - started:.0f} s. Next: safelight dev", style="bold")
    return 0


def ended(client: Client, shown: Shown) -> Seen:
    """Wait for a job's end."""
    while not shown.job.ended:
        shown = client.wait(shown.job)
    return shown.job


def _credits(client: Client) -> int:
    return int(client.read("/v1/account", _Account).credits["available"])


def _expect(promise: bool, seen: str) -> None:  # noqa: FBT001 - it is the question
    if not promise:
        raise NotAsPromisedError(seen)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end the block in order, so that the server and the folder go too."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
