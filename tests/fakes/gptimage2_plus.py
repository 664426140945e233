"""gptimage2.plus as it is documented: 202 and an id, then polls; the same idempotency key is the same job.

Pictures of an edit are announced, then put where the answer says; each address works for `upload_seconds`.
A job needs `polls` polls that find it open and `delay` seconds. Both limits of the document are there:
`hourly` requests, told on every answer, and `flight` open jobs; they are wide unless a test narrows them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from tests.fakes.pictures import measured, picture
from tests.fakes.server import Answer, Asked, Edit, Fake, arguments, run, say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.behavior import Behavior, Part

KEY = "gimg_fake"
WIDE = 1_000_000
_ROOT = "/api/v1"
_COSTS = {"low": 1, "medium": 10, "high": 40}
_ERRORS = {
    400: "Invalid body",
    401: "Missing or invalid API key",
    402: "Insufficient credits",
    403: "Pro or Max plan required",
    404: "Not found",
    422: "Prompt blocked by content policy",
    429: "Rate limit reached",
}


class Ask(Struct):
    """The documented request."""

    prompt: str
    type: Literal["text2img", "edit"] = "text2img"
    size: Literal["1024x1024", "1024x1536", "1536x1024"] = "1024x1024"
    quality: Literal["low", "medium", "high"] = "medium"
    n: int = 1
    inputImageKeys: list[str] = []  # noqa: N815 - the name on the wire


class Announced(Struct, forbid_unknown_fields=True):
    """What is said of a picture before it comes."""

    filename: str
    contentType: Literal["image/png", "image/jpeg", "image/webp"]  # noqa: N815 - the name on the wire
    size: int


class Place(Struct):
    """Where a picture may be put until a time, and what was put there."""

    announced: Announced
    until: float
    data: bytes | None = None


class Generation(Struct):
    """One accepted job and how far it is."""

    name: str
    ask: Ask
    polls: int
    ready_at: float
    ended: str = ""
    count: int = 0


class PlusUpstream:
    """What the service says. `retry_after_ms` tells pollers to come sooner than 600 an hour would."""

    def __init__(
        self,
        delay: float = 0.0,
        polls: int = 1,
        hourly: int = WIDE,
        flight: int = WIDE,
        retry_after_ms: int | None = 20,
        upload_seconds: float = 300.0,
    ) -> None:
        self.delay = delay
        self.jobs: dict[str, Generation] = {}
        self.places: dict[str, Place] = {}
        self._by_key: dict[str, str] = {}
        self._upload_seconds = upload_seconds
        self._polls = polls
        self._hourly = hourly
        self._flight = flight
        self._hint = {} if retry_after_ms is None else {"retry_after_ms": str(retry_after_ms)}
        self._seen = 0
        self._reset = int(time.time()) + 3600

    def part(self, method: str, path: str) -> Part | None:
        """Return the part a request belongs to."""
        if method == "POST" and path == f"{_ROOT}/generate":
            return "create"
        if method == "POST" and path == f"{_ROOT}/upload":
            return "upload"
        if method == "PUT" and path.startswith("/r2/"):
            return "put"
        if method == "GET" and path.startswith(f"{_ROOT}/generations/"):
            return "poll"
        return "image" if method == "GET" and path.startswith("/files/") else None

    def waits(self, part: Part) -> bool:
        """Return whether the answer itself takes as long as an image."""
        return False

    def error(self, status: int) -> Answer:
        """Return this service's error body for a status."""
        more = {"retry_after": "1"} if status == 429 else {}
        return self._say(status, {"error": _ERRORS.get(status, "Internal error")}, f"error_{status}", **more)

    async def answer(self, part: Part, asked: Asked, behavior: Behavior | None) -> Answer:
        """Return the documented answer, bent where the behavior bends what is said."""
        if part == "image":
            return self._file(asked.path)
        if part == "put":
            return self._put(asked)
        self._seen += 1
        if self._seen > self._hourly:
            return self.error(429)
        if part == "upload":
            return self._announce(asked)
        if part == "create":
            return self.error(422) if behavior and behavior.do == "refusal" else self._create(asked)
        return self._poll(asked, behavior)

    def _announce(self, asked: Asked) -> Answer:
        """Return where a picture may be put; the same key names the same place."""
        try:
            announced = msgspec.json.decode(asked.body, type=Announced)
        except msgspec.ValidationError as error:
            return self._say(400, {"error": f"Invalid body: {error}"}, "error_400")
        if not 1 <= len(announced.filename) <= 200 or not 1 <= announced.size <= 10 * 2**20:
            return self._say(400, {"error": "Invalid body: out of range"}, "error_400")
        again = asked.headers.get("idempotency-key", "")
        name = self._by_key.get(f"upload {again}") or f"uploads/{len(self.places) + 1:06d}"
        if again:
            self._by_key[f"upload {again}"] = name
        until = time.monotonic() + self._upload_seconds
        self.places[name] = Place(announced, until, self.places[name].data if name in self.places else None)
        url = f"{asked.root}/r2/{name}?X-Amz-Expires=300&X-Amz-Signature={'5' * 64}"
        return self._say(200, {"url": url, "key": name}, "announced")

    def _put(self, asked: Asked) -> Answer:
        """Take a picture, if it is what was announced, in time and under the signed address."""
        place = self.places.get(asked.path.removeprefix("/r2/"))
        if place is None or "X-Amz-Signature=" not in asked.query or time.monotonic() >= place.until:
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>", outcome="put_denied")
        wanted = (place.announced.contentType, place.announced.size)
        if (asked.headers.get("content-type"), len(asked.body)) != wanted:
            return Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", outcome="put_denied")
        place.data = asked.body
        return Answer(200, b"", {"etag": '"0"'}, "put")

    def _edit(self, ask: Ask) -> Edit | None:
        """Return the pictures an edit names; None where one was not put, or is no picture."""
        places = [self.places.get(name) for name in ask.inputImageKeys]
        images = tuple(place.data for place in places if place is not None and place.data is not None)
        whole = 1 <= len(images) <= 4 and len(images) == len(places) and all(map(measured, images))
        return Edit(ask.prompt, images) if whole else None

    def _create(self, asked: Asked) -> Answer:
        key = asked.headers.get("idempotency-key", "")
        known = self.jobs.get(self._by_key.get(key, ""))
        if known is not None:
            return self._say(202, {"generationId": known.name, "status": known.ended or "queued"}, "replayed")
        try:
            ask = msgspec.json.decode(asked.body, type=Ask)
        except msgspec.ValidationError as error:
            return self._say(400, {"error": f"Invalid body: {error}"}, "error_400")
        if not 1 <= len(ask.prompt) <= 4000 or not 1 <= ask.n <= 4:
            return self._say(400, {"error": "Invalid body: out of range"}, "error_400")
        edit = self._edit(ask)
        if (edit is None) == (ask.type == "edit"):
            return self._say(400, {"error": "Invalid body: inputImageKeys"}, "error_400")
        if sum(not job.ended for job in self.jobs.values()) >= self._flight:
            return self.error(429)
        name = f"gen_{len(self.jobs) + 1:06d}"
        self.jobs[name] = Generation(name, ask, self._polls, time.monotonic() + self.delay, count=ask.n)
        if key:
            self._by_key[key] = name
        accepted = self._say(202, {"generationId": name, "status": "queued"}, "accepted", **self._hint)
        return msgspec.structs.replace(accepted, paid=1, edit=edit)

    def _poll(self, asked: Asked, behavior: Behavior | None) -> Answer:
        job = self.jobs.get(asked.path.rpartition("/")[2])
        if job is None:
            return self.error(404)
        if behavior and behavior.do in {"refusal", "failed"}:
            job.ended = "blocked" if behavior.do == "refusal" else "failed"
        if behavior and behavior.do == "fewer":
            job.count, job.polls, job.ready_at = behavior.count, 0, 0.0
        if not job.ended and (job.polls > 0 or time.monotonic() < job.ready_at):
            job.polls -= 1
            return self._say(200, self._row(job, "running", asked.root), "running", **self._hint)
        job.ended = job.ended or "succeeded"
        return self._say(200, self._row(job, job.ended, asked.root), job.ended)

    def _row(self, job: Generation, state: str, root: str) -> dict[str, Any]:
        width, height = job.ask.size.split("x")
        outputs = [
            {
                "png": f"{root}/files/{job.name}/{index}.png",
                "webp": f"{root}/files/{job.name}/{index}.webp",
                "width": int(width),
                "height": int(height),
            }
            for index in range(job.count)
        ]
        errors = {"blocked": "The input was blocked by content moderation", "failed": "Generation failed"}
        return {
            "id": job.name,
            "status": state,
            "type": job.ask.type,
            "outputs": outputs if state == "succeeded" else [],
            "error": errors.get(state),
            "costCredits": 0 if state in errors else _COSTS[job.ask.quality] * job.ask.n,
            "createdAt": "2026-11-20T08:00:00.000Z",
            "completedAt": None if state in {"queued", "running"} else "2026-11-20T08:00:05.000Z",
        }

    def _file(self, path: str) -> Answer:
        name, _, file = path.removeprefix("/files/").partition("/")
        index, _, kind = file.partition(".")
        job = self.jobs.get(name)
        if job is None or kind not in {"png", "webp"}:
            return Answer(404, b"", outcome="missing")
        width, height = (int(side) for side in job.ask.size.split("x"))
        data = picture(kind, width, height, f"{job.ask.prompt}/{index}")
        return Answer(200, data, {"content-type": f"image/{kind}"}, outcome="fetched")

    def _say(self, status: int, body: object, outcome: str, **more: str) -> Answer:
        return say(
            status,
            body,
            outcome,
            x_ratelimit_limit=str(self._hourly),
            x_ratelimit_remaining=str(max(0, self._hourly - self._seen)),
            x_ratelimit_reset=str(self._reset),
            **more,
        )


def fake(
    key: str = KEY,
    delay: float = 0.0,
    polls: int = 1,
    script: list[Behavior] | None = None,
    log: Path | None = None,
    hourly: int = WIDE,
    flight: int = WIDE,
    *,
    upload_seconds: float = 300.0,
) -> Fake:
    """Return the fake. Its adapter's base URL is `url` with `/api/v1` behind it."""
    upstream = PlusUpstream(delay, polls, hourly, flight, upload_seconds=upload_seconds)
    return Fake(upstream, key, script, log=log)


if __name__ == "__main__":
    parser = arguments(KEY)
    parser.add_argument("--polls", type=int, default=1, help="polls that find a job open")
    parser.add_argument("--hourly", type=int, default=WIDE)
    parser.add_argument("--flight", type=int, default=WIDE)
    parser.add_argument("--retry-after-ms", type=int, default=20)
    options = parser.parse_args()
    limits = (options.hourly, options.flight, options.retry_after_ms)
    run(options, PlusUpstream(options.delay, options.polls, *limits))
