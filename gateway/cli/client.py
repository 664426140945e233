"""A caller of our own API, as small as one can be: the standard library, one connection a call.

What a command needs of a job, whether it is made by a server or in this process, is a `Maker`; this one
speaks HTTP. A problem document becomes the `Problem` it was; a server that cannot be understood or
reached becomes a `Refusal`. The token goes to the given address alone, and no redirect is followed.
"""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from gateway.errors import CATALOGUE, Problem, Refusal
from policies.model import Flaw

T = TypeVar("T")
SECONDS: Final = 60.0
"""How long one answer may take; longer than a held `?wait=`."""
WAIT_SECONDS: Final = 20
PAUSE_SECONDS: Final = 1.0
"""Between two reads that brought nothing new. A server that is stopping holds none."""


class Picture(Struct, frozen=True):
    """One image of a job. `url` is where its maker finds the bytes."""

    index: int
    url: str
    media_type: str
    width: int
    height: int
    bytes: int


class Trouble(Struct, frozen=True):
    """Why a job, or one image of it, was not made."""

    code: str
    detail: str = ""


class Cost(Struct, frozen=True):
    """Credits of a job."""

    quoted: int
    charged: int
    refunded: int


class Place(Struct, frozen=True):
    """Where a queued job stands."""

    position: int


class Seen(Struct, frozen=True):
    """What a command wants to know of a job."""

    id: str
    state: str
    ended: bool
    version: int
    cost: Cost
    adjustments: tuple[str, ...] = ()
    outputs: tuple[Picture, ...] = ()
    shortfall: tuple[Trouble, ...] = ()
    error: Trouble | None = None
    queue: Place | None = None


class Shown(Struct, frozen=True):
    """A job, and what its owner may still spend."""

    job: Seen
    credits: int | None = None


class Maker(Protocol):
    """Who makes a job: a server, or this process. Raises `Problem` and `Refusal`."""

    def submit(self, asked: Mapping[str, object]) -> Shown:
        """Submit a job by the fields of its request."""
        ...

    def wait(self, job: Seen) -> Shown:
        """Return the job once it is past the version seen, or after a while as it is."""
        ...

    def picture(self, picture: Picture) -> bytes:
        """Return an image's bytes."""
        ...

    def cancel(self, job: Seen) -> None:
        """End the job, or ask for its end."""
        ...


class Answer(Struct, frozen=True):
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Told(Struct, frozen=True):
    """A problem document (RFC 9457), as far as it is shown."""

    code: str = ""
    detail: str = ""
    request_id: str = ""
    retry_after: int | None = None
    rule: str | None = None
    errors: tuple[Flaw, ...] = ()


class Client:
    """A `Maker` over HTTP. Threads may share one."""

    def __init__(self, url: str, token: str, pause: Callable[[float], None] = time.sleep) -> None:
        _split(url)
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._pause = pause

    def submit(self, asked: Mapping[str, object], key: str | None = None) -> Shown:
        """Submit a job, under a key of its own where none is given."""
        return self._shown(self.post("/v1/jobs", asked, key))

    def post(self, path: str, body: Mapping[str, object], key: str | None = None) -> Answer:
        """Send a JSON body under an idempotency key; raises the problem it is answered with."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or str(uuid.uuid4())}
        return self.call("POST", path, msgspec.json.encode(body), headers)

    def get(self, path: str) -> Answer:
        """Read a path; raises the problem it is answered with."""
        return self.call("GET", path)

    def job(self, name: str) -> Shown:
        """Read a job as it is."""
        return self._shown(self.get(f"/v1/jobs/{name}"))

    def wait(self, job: Seen) -> Shown:
        """Hold a read until the job changes."""
        shown = self._shown(self.get(f"/v1/jobs/{job.id}?wait={WAIT_SECONDS}&after={job.version}"))
        if shown.job.version == job.version:
            self._pause(PAUSE_SECONDS)
        return shown

    def picture(self, picture: Picture) -> bytes:
        """Follow an image's signed link, which needs no token."""
        return _good(_send("GET", _split(picture.url), None, {})).body

    def cancel(self, job: Seen) -> None:
        """End the job, or ask for its end."""
        self.call("POST", f"/v1/jobs/{job.id}/cancel")

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one call with the token; raises `Problem` for a problem."""
        bearer = {"Authorization": f"Bearer {self._token}"}
        return _good(_send(method, _split(self.url + path), body, {**bearer, **(headers or {})}))

    def make(self, path: str, body: object, kind: type[T]) -> T:
        """Send a JSON body that makes something, and return what it shows."""
        data = msgspec.json.encode(body)
        return self._decoded(self.call("POST", path, data, {"Content-Type": "application/json"}), kind)

    def read(self, path: str, kind: type[T]) -> T:
        """Read a path as what it shows."""
        return self._decoded(self.get(path), kind)

    def _shown(self, answer: Answer) -> Shown:
        job = self._decoded(answer, Seen)
        left = answer.headers.get("safelight-credits-available", "")
        return Shown(job, int(left) if left.isdecimal() else None)

    def _decoded(self, answer: Answer, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError:
            raise Refusal(f"{self.url} does not answer as Safelight does") from None


def answers(url: str) -> bool:
    """Say whether a Safelight server is alive at an address."""
    try:
        return _send("GET", _split(url.rstrip("/") + "/livez"), None, {}).status == 200
    except Refusal:
        return False


def _good(answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    try:
        told = msgspec.json.decode(answer.body, type=_Told)
    except msgspec.DecodeError:
        told = _Told()
    if told.code not in CATALOGUE:
        raise Refusal(f"the server answered {answer.status}, in words that are not Safelight's")
    raise Problem(
        told.code,
        f"{told.detail} Request {told.request_id}." if answer.status >= 500 else told.detail,
        retry_after_ms=None if told.retry_after is None else told.retry_after * 1000,
        rule=told.rule,
        flaws=told.errors,
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise Refusal(f"{url!r} is not an address such as http://127.0.0.1:8080")
    return parts


def _send(method: str, url: SplitResult, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    """Send one request on a connection of its own; raises `Refusal` where nobody answers."""
    kind: type[Any] = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=SECONDS)
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Refusal(f"no answer from {url.scheme}://{url.netloc}: {reason}") from error
    finally:
        connection.close()
