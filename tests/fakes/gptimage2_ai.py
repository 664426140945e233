"""gptimage2.ai as it is documented: an id, polls of 202, then 200 for success and failure alike.

It names no idempotency header, so none is honored: a request sent twice is two jobs and paid twice.
Counts out of range are clamped, hints are appended to the final prompt, and 10 credits an image leave
the balance when the job is created. Reference pictures are fetched before that, from wherever they are.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from msgspec import Struct

from tests.fakes.pictures import measured, picture
from tests.fakes.server import Answer, Asked, Edit, Fake, arguments, run, say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.behavior import Behavior, Part

KEY = "fake-ai-key"
CREDITS_EACH = 10
PLENTY = 1_000_000
SIZES = {
    "1:1": (1024, 1024),
    "16:9": (1536, 864),
    "9:16": (864, 1536),
    "4:3": (1280, 960),
    "3:4": (960, 1280),
}
_ERRORS = {
    400: "invalid_request",
    401: "unauthorized",
    402: "insufficient_credits",
    404: "not_found",
    429: "rate_limited",
}


class Ask(Struct):
    """The documented request."""

    prompt: str = ""
    mode: str = "text-to-image"
    ratio: str = "1:1"
    count: int = 1
    style: str | None = None
    lighting: str | None = None
    camera: str | None = None
    negative: str | None = None
    imageUrls: list[str] = []  # noqa: N815 - the name on the wire


class Work(Struct):
    """One accepted job and how far it is."""

    name: str
    ask: Ask
    count: int
    polls: int
    ready_at: float
    ended: str = ""
    code: str = ""


class AiUpstream:
    """What the service says. `retry_after_ms` tells pollers to come sooner than the document's 2.5 s."""

    def __init__(
        self, delay: float = 0.0, polls: int = 1, balance: int = PLENTY, retry_after_ms: int | None = 20
    ) -> None:
        self.delay = delay
        self.jobs: dict[str, Work] = {}
        self.credits = balance
        self._polls = polls
        self._hint = {} if retry_after_ms is None else {"retry_after_ms": str(retry_after_ms)}

    def part(self, method: str, path: str) -> Part | None:
        """Return the part a request belongs to."""
        if method == "POST" and path == "/api/generate":
            return "create"
        if method == "GET" and path.startswith("/api/generate/"):
            return "poll"
        return "image" if method == "GET" and path.startswith("/generated/") else None

    def waits(self, part: Part) -> bool:
        """Return whether the answer itself takes as long as an image."""
        return False

    def error(self, status: int) -> Answer:
        """Return this service's error body for a status."""
        more = {"retry_after": "1"} if status == 429 else {}
        return say(status, {"error": _ERRORS.get(status, "internal_error")}, f"error_{status}", **more)

    async def answer(self, part: Part, asked: Asked, behavior: Behavior | None) -> Answer:
        """Return the documented answer, bent where the behavior bends what is said."""
        match part:
            case "image":
                return self._file(asked.path)
            case "create":
                refused = behavior is not None and behavior.do == "refusal"
                return (
                    say(400, {"error": "content_policy_blocked"}, "refused")
                    if refused
                    else await self._create(asked)
                )
            case _:
                return self._poll(asked, behavior)

    async def _create(self, asked: Asked) -> Answer:
        try:
            ask = msgspec.json.decode(asked.body, type=Ask)
        except msgspec.ValidationError:
            return self.error(400)
        if not ask.prompt.strip():
            return say(400, {"error": "prompt_required"}, "error_400")
        if ask.ratio not in SIZES or ask.mode not in {"text-to-image", "image-to-image"}:
            return self.error(400)
        edit = await _fetched(ask) if ask.mode == "image-to-image" else None
        if ask.mode == "image-to-image" and edit is None:
            return say(400, {"error": "invalid_image_url"}, "error_400")
        count = min(max(ask.count, 1), 4)
        if self.credits < count * CREDITS_EACH:
            return self.error(402)
        self.credits -= count * CREDITS_EACH
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, str(len(self.jobs))))
        self.jobs[name] = Work(name, ask, count, self._polls, time.monotonic() + self.delay)
        accepted = say(202, self._row(self.jobs[name], "pending", asked.root), "accepted", **self._hint)
        return msgspec.structs.replace(accepted, paid=1, edit=edit)

    def _poll(self, asked: Asked, behavior: Behavior | None) -> Answer:
        job = self.jobs.get(asked.path.rpartition("/")[2])
        if job is None:
            return self.error(404)
        if behavior and behavior.do in {"refusal", "failed"}:
            job.ended = "failed"
            job.code = "content_moderation_blocked" if behavior.do == "refusal" else behavior.code
        if behavior and behavior.do == "fewer":
            job.count, job.polls, job.ready_at = behavior.count, 0, 0.0
        if not job.ended and (job.polls > 0 or time.monotonic() < job.ready_at):
            job.polls -= 1
            return say(202, self._row(job, "running", asked.root), "running", **self._hint)
        job.ended = job.ended or "succeeded"
        return say(200, self._row(job, job.ended, asked.root), job.ended)

    def _row(self, job: Work, state: str, root: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "jobId": job.name,
            "status": state,
            "balance": {
                "paidCredits": self.credits,
                "freeImagesRemaining": 0,
                "totalImages": self.credits // CREDITS_EACH,
                "freeImagesPerDay": 0,
            },
        }
        if state == "failed":
            row["error"] = job.code
        if state == "succeeded":
            row["results"] = [
                {
                    "imageUrl": f"{root}/generated/{job.name}/{index}.png",
                    "seed": str(index + 1),
                    "finalPrompt": _final(job.ask),
                }
                for index in range(job.count)
            ]
        return row

    def _file(self, path: str) -> Answer:
        name, _, file = path.removeprefix("/generated/").partition("/")
        job = self.jobs.get(name)
        if job is None:
            return Answer(404, b"", outcome="missing")
        data = picture("png", *SIZES[job.ask.ratio], f"{job.ask.prompt}/{file}")
        return Answer(200, data, {"content-type": "image/png"}, outcome="fetched")


async def _fetched(ask: Ask) -> Edit | None:
    """Return the pictures that a job's links lead to; None where one leads to none."""
    images = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for url in ask.imageUrls:
            try:
                async with session.get(url, allow_redirects=False) as answer:
                    images.append(await answer.read() if answer.status == 200 else b"")
            except (aiohttp.ClientError, TimeoutError):
                return None
    return Edit(ask.prompt, tuple(images)) if images and all(map(measured, images)) else None


def _final(ask: Ask) -> str:
    hints = (ask.style, ask.lighting, ask.camera, ask.negative and f"avoid {ask.negative}")
    return ", ".join([ask.prompt, *filter(None, hints)])


def fake(
    key: str = KEY,
    delay: float = 0.0,
    polls: int = 1,
    script: list[Behavior] | None = None,
    log: Path | None = None,
    balance: int = PLENTY,
) -> Fake:
    """Return the fake. Its adapter's base URL is `url`."""
    return Fake(AiUpstream(delay, polls, balance), key, script, log=log)


if __name__ == "__main__":
    parser = arguments(KEY)
    parser.add_argument("--polls", type=int, default=1, help="polls that find a job open")
    parser.add_argument("--balance", type=int, default=PLENTY)
    parser.add_argument("--retry-after-ms", type=int, default=20)
    options = parser.parse_args()
    run(options, AiUpstream(options.delay, options.polls, options.balance, options.retry_after_ms))
