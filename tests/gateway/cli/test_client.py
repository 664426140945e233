"""The command's own HTTP client, against a server that says whatever a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.cli.client import Client, Picture, answers
from gateway.errors import Problem, Refusal
from policies.model import Flaw

JOB = {
    "id": "job_1",
    "state": "running",
    "ended": False,
    "version": 3,
    "cost": {"quoted": 20, "held": 20, "charged": 0, "refunded": 0},
    "final_prompt": "fields nobody asked for",
    "outputs": [],
    "error": None,
    "queue": None,
}


class Said:
    """A server's next answer, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b""
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    def next(self, status: int, body: Any, **headers: str) -> None:
        """Answer so from now on."""
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def said() -> Iterator[Said]:
    """A server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.asked.append((self.command, self.path, headers, body))
            self.send_response(told.status)
            for name, value in {"Content-Length": str(len(told.body)), **told.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Said(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_submit_sends_json_once(said: Said) -> None:
    """A submit is JSON with the token and a key of its own, and shows the job and the credits left."""
    said.next(202, JOB, Safelight_Credits_Available="70")
    shown = Client(f"{said.url}/", "tok").submit({"prompt": "é"})
    assert (shown.job.id, shown.job.state, shown.credits) == ("job_1", "running", 70)
    ((method, path, headers, body),) = said.asked
    assert (method, path, json.loads(body)) == ("POST", "/v1/jobs", {"prompt": "é"})
    assert headers["authorization"] == "Bearer tok"
    assert headers["content-type"] == "application/json"
    assert len(headers["idempotency-key"]) == 36


def test_wait_asks_past_the_version(said: Said) -> None:
    """Waiting holds the read until the job is past the version that was seen."""
    said.next(200, JOB)
    paused: list[float] = []
    client = Client(said.url, "tok", paused.append)
    seen = client.job("job_1").job
    said.next(200, {**JOB, "version": 4})
    assert client.wait(seen).credits is None
    assert paused == []
    assert [path for _, path, _, _ in said.asked] == ["/v1/jobs/job_1", "/v1/jobs/job_1?wait=20&after=3"]
    client.cancel(seen)
    assert said.asked[-1][:2] == ("POST", "/v1/jobs/job_1/cancel")


def test_idle_answers_are_paused_after(said: Said) -> None:
    """A read that comes back with nothing new, as of a server that stops, is not repeated at once."""
    said.next(200, JOB)
    paused: list[float] = []
    client = Client(said.url, "tok", paused.append)
    client.wait(client.job("job_1").job)
    assert paused == [1.0]


def test_token_stays_with_its_server(said: Said) -> None:
    """A picture's link is followed without the token, wherever it leads."""
    said.next(200, b"\x89PNG")
    link = Picture(0, f"{said.url}/files/a.png?exp=1&sig=x", "image/png", 1, 1, 4)
    assert Client("https://elsewhere.example", "tok").picture(link) == b"\x89PNG"
    _, path, headers, _ = said.asked[0]
    assert path == "/files/a.png?exp=1&sig=x"
    assert "authorization" not in headers


def test_problems_come_back_whole(said: Said) -> None:
    """A problem document becomes the problem it was: code, detail, rule, wait and places."""
    said.next(
        429,
        {
            "code": "rate_limited", "title": "x", "status": 429, "detail": "Too many.", "retry_after": 7,
            "rule": "limit.submit", "errors": [{"pointer": "/a", "detail": "b"}], "request_id": "r1",
        },
    )  # fmt: skip
    with pytest.raises(Problem) as caught:
        Client(said.url, "tok").get("/v1/account")
    problem = caught.value
    assert (problem.code, problem.detail, problem.rule) == ("rate_limited", "Too many.", "limit.submit")
    assert (problem.retry_after_ms, problem.flaws) == (7000, (Flaw("/a", "b"),))


def test_server_faults_name_the_request(said: Said) -> None:
    """A fault of the server is told with the id that finds it in the log."""
    said.next(500, {"code": "internal", "detail": "A bug.", "request_id": "r-42"})
    with pytest.raises(Problem) as caught:
        Client(said.url, "tok").get("/v1/account")
    assert caught.value.detail == "A bug. Request r-42."


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"code": "teapot"}', b'{"code": 7}'])
def test_strange_errors_are_refused(said: Said, body: bytes) -> None:
    """An error in words that are not ours is told by its status alone."""
    said.next(502, body)
    with pytest.raises(Refusal, match="the server answered 502, in words"):
        Client(said.url, "tok").get("/v1/account")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"id": 1}'])
def test_strange_answers_are_refused(said: Said, body: bytes) -> None:
    """A good status from something that is not Safelight is no answer."""
    said.next(200, body)
    with pytest.raises(Refusal, match="does not answer as Safelight does"):
        Client(said.url, "tok").job("job_1")


def test_redirects_are_not_followed(said: Said) -> None:
    """A redirect ends the call: nothing is sent anywhere else."""
    said.next(307, b"", Location=f"{said.url}/other")
    with pytest.raises(Refusal, match="answered 307"):
        Client(said.url, "tok").get("/v1/account")
    assert len(said.asked) == 1


def test_silence_is_told_with_the_address() -> None:
    """Where nobody listens, the refusal says where it was asked and why."""
    with pytest.raises(Refusal, match=r"^no answer from http://127\.0\.0\.1:1: Connection refused$"):
        Client("http://127.0.0.1:1", "tok").get("/v1/account")


@pytest.mark.parametrize(
    "url",
    ["foo", "ftp://a", "http://", "http://a:b", "http://a:0", "http://ä.example", "http://a b", "http://[::"],
)
def test_bad_addresses_are_refused(url: str) -> None:
    """What is no web address is refused before anything is sent."""
    with pytest.raises(Refusal, match="is not an address such as"):
        Client(url, "tok").get("/v1/account")


def test_bad_tokens_are_refused(said: Said) -> None:
    """A token that would end its header is not sent."""
    with pytest.raises(Refusal, match="no answer"):
        Client(said.url, "tok\r\nX: y").get("/v1/account")
    assert said.asked == []


@pytest.mark.parametrize(("status", "alive"), [(200, True), (404, False), (503, False)])
def test_liveness_is_a_plain_200(said: Said, status: int, alive: bool) -> None:  # noqa: FBT001 - a column
    """A server is alive where its `/livez` says so."""
    said.next(status, b"")
    assert answers(said.url) == alive
    assert not answers("http://127.0.0.1:1")
