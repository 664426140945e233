"""What all dialects have: how their calls are named to the API, how bodies come in and answers go out.

A `Speaker` is one dialect: the paths that are its own, the calls on them, and its spelling of a problem.
Whoever mounts it routes by the calls and asks it for every error below its paths, so that a client of a
foreign API never meets an error in a form it does not know. Nothing here knows a framework.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from gateway.api import problems
from gateway.api.exchange import JSON, Answer, encode
from gateway.api.jobs import idempotency_key
from gateway.errors import Problem
from policies import ids
from policies.model import Job

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange, Headers
    from gateway.blobs import Blobs, Links
    from gateway.images import Studio
    from gateway.jobs import Accepted, Jobs
    from gateway.lifetime import Lifetime
    from gateway.manners import Manner
    from gateway.telemetry import Telemetry
    from gateway.uploads import Uploads
    from gateway.webhooks import Webhooks
    from policies.access import Action
    from policies.model import Dialect, JobRequest, Output

NO_STORE: Final = (b"cache-control", b"no-store")
REPLAYED: Final = (b"idempotent-replayed", b"true")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)

Serve = Callable[["Exchange", Mapping[str, str]], Awaitable[Answer]]
"""Serves one call, given the values in its path."""


class Call(NamedTuple):
    """One call: `path` names its values in braces, `action` is what its caller must be allowed."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    operation: str
    action: Action
    serve: Serve


class Speaker(Protocol):
    """One dialect."""

    dialect: Dialect
    prefixes: tuple[str, ...]
    """Paths whose errors are told in this dialect: each itself, and all below it."""

    def calls(self) -> Sequence[Call]:
        """Return the calls of this API."""
        ...

    async def problem(self, problem: Problem, exchange: Exchange) -> Answer:
        """Return the answer that tells of a problem in this dialect. Raises nothing: nobody is behind it."""
        ...


@dataclass(frozen=True)
class SpeakerParts:
    """What dialects are made of. `sync_seconds` is the longest a call waits for its job."""

    jobs: Jobs
    uploads: Uploads
    webhooks: Webhooks
    studio: Studio
    links: Links
    blobs: Blobs
    lifetime: Lifetime
    telemetry: Telemetry
    sync_seconds: float = 110.0


async def submitted(
    parts: SpeakerParts, exchange: Exchange, request: JobRequest, manner: Manner
) -> tuple[Accepted, Headers]:
    """Submit a job under the request's key, if it has one; return it, and the header of a replay for one."""
    accepted = await parts.jobs.submit(exchange.who, request, idempotency_key(exchange), manner)
    exchange.usage, exchange.job = accepted.usage, accepted.job.id
    exchange.replayed = accepted.replayed
    if accepted.replayed:
        return accepted, (REPLAYED,)
    parts.telemetry.held(accepted.job.hold.amount)
    return accepted, ()


async def read_object(exchange: Exchange) -> dict[str, object]:
    """Return a body that is a JSON object, whatever is in it; `Problem` for every other body."""
    value = await exchange.json(dict)
    if any(not isinstance(name, str) for name in value):  # pragma: no cover - JSON has no other names
        raise Problem("invalid_request")
    return value


def tell(value: object, status: int = 200, headers: Headers = ()) -> Answer:
    """Return an answer in JSON that nobody keeps."""
    return Answer(status, [JSON, NO_STORE, *headers], encode(value))


def ignored(exchange: Exchange, names: Iterable[str]) -> Headers:
    """Return the header that names what of a request was not understood, and note it for the log."""
    known = [name for name in names if _NAME.fullmatch(name)][:16]
    if not known:
        return ()
    exchange.ignored = ", ".join(known)
    return ((b"safelight-ignored", exchange.ignored.encode()),)


def refusal_headers(problem: Problem) -> Headers:
    """Return the headers an error has in every dialect, besides its type."""
    return [field for field in problems.headers(problem) if field[0] != b"content-type"]


def job_of(values: Mapping[str, str]) -> str:
    """Return the UUID's text of the job a path names, in either spelling; `Problem` (404) where none."""
    job = ids.parse(values["id"])
    if job is None:
        raise Problem("not_found")
    return job


def address(parts: SpeakerParts, job: Job, key: str) -> str:
    """Return the link to a blob of a job: for good where the job was promised so, else for minutes."""
    return parts.links.durable(key) if job.links == "durable" else parts.links.make(key, parts.jobs.now())


def image(parts: SpeakerParts, job: Job, output: Output) -> str:
    """Return the link to an output."""
    return address(parts, job, output.key)
