"""OpenAI's Images API, spoken to our clients: generations and edits, answered with the pictures themselves.

The call waits for its job. Who leaves does not cancel it: OpenAI's SDKs send no idempotency key, hang up
when their time is up and send the same again, by themselves, twice. So a request that says it is a repeat
attaches to the job its first one made; and who says how long it will listen is answered before, and told
when to come back. Bodies are `openai_bodies`' to read, errors `openai_errors`' to spell.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Raw, structs

from gateway.api.exchange import JSON, Answer, encode
from gateway.api.waiting import until_news
from gateway.dialects import openai_bodies, openai_errors
from gateway.dialects.forms import is_form, read_form
from gateway.dialects.speech import NO_STORE, Call, ignored, image, read_object, submitted
from gateway.errors import Problem, StoreUnavailable
from gateway.manners import Manner
from policies.access import Action
from policies.model import InputRef, JobState

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange, Headers
    from gateway.callers import Caller
    from gateway.dialects.openai_bodies import Brought, Wish
    from gateway.dialects.speech import SpeakerParts
    from policies.model import Dialect, Job

FIRST: Final = Manner(dialect="openai", links="durable", repeat="renew", aliases=True)
AGAIN: Final = Manner(dialect="openai", links="durable", repeat="attach", aliases=True)

UNMARKED: Final = structs.replace(AGAIN, within_ms=600_000)
"""For plans whose clients repeat and do not say so: the same request within ten minutes is the same job."""

REPEATS: Final = b"x-stainless-retry-count"
LISTENS: Final = (b"x-stainless-read-timeout", b"x-stainless-timeout")
"""Headers of OpenAI's SDKs: which repeat a request is, and the seconds its sender waits for an answer."""
MARGIN: Final = 0.25
"""The part of a client's patience that is kept for the answer's way, at most a second."""
ROUND_SECONDS: Final = 20.0
"""How long a hasty client's wait and pause should last together: with its two repeats that is an image."""

USAGE: Final[Mapping[str, object]] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""What is charged here are credits; there are no tokens to tell of."""
EACH_BYTES: Final = 128 * 2**20
ALL_BYTES: Final = 512 * 2**20
"""How many bytes of edits are in memory at once, of one caller and of all: bodies come before limits do."""
ROOM_MS: Final = 1_000
LIGHT: Final = 64 * 1024
"""Bytes up to which a body is read or written in place; more would hold up the loop."""


class OpenAI:
    """The dialect."""

    dialect: Dialect = "openai"
    prefixes: tuple[str, ...] = ("/v1/images",)

    def __init__(self, parts: SpeakerParts) -> None:
        self._parts = parts
        self._jobs = parts.jobs
        self._bodies: Counter[tuple[str, str]] = Counter()

    def calls(self) -> Sequence[Call]:
        """Return the calls of this API."""
        generations, edits = "/v1/images/generations", "/v1/images/edits"
        return (
            Call("POST", generations, "createOpenAIImages", Action.WRITE, self.generate),
            Call("POST", edits, "editOpenAIImages", Action.WRITE, self.edit),
        )

    async def generate(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Make images, and answer with them.

        Waits for the job. A repeat that the SDKs send by themselves finds the job their first one made.
        """
        self._admit()
        return await self._made(exchange, openai_bodies.wish_of(await read_object(exchange)))

    async def edit(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Make images from images, and answer with them.

        As a form with files, as the SDKs send it, or as JSON with links or data URLs.
        """
        self._admit()
        with self._room(exchange):
            wish = await self._edited(exchange)
        return await self._made(exchange, wish)

    async def _edited(self, exchange: Exchange) -> Wish:
        """Return what a body asks for, its images kept as uploads."""
        brought = await _brought(exchange)
        inputs = [await self._kept(exchange.who, each) for each in brought.images]
        mask = None if brought.mask is None else await self._mask(exchange.who, brought.mask)
        request = openai_bodies.edited(brought.wish.request, inputs, mask)
        return brought.wish._replace(request=request)

    async def problem(self, problem: Problem, _exchange: Exchange) -> Answer:
        """Return the answer that tells of a problem."""
        return openai_errors.of_problem(problem)

    @contextlib.contextmanager
    def _room(self, exchange: Exchange) -> Iterator[None]:
        """Hold memory for a body while it is read; `Problem` (429) where there is none left."""
        principal = exchange.who.principal
        who = (principal.tenant, principal.subject)
        length = exchange.fields.get(b"content-length")
        size = exchange.body_cap if length is None else int(length)
        if self._bodies[who] + size > EACH_BYTES or self._bodies.total() + size > ALL_BYTES:
            told = "As many edits are being read as there is room for; send this one again soon."
            raise Problem("too_many_in_flight", told, retry_after_ms=ROOM_MS)
        self._bodies[who] += size
        try:
            yield
        finally:
            self._bodies[who] -= size
            if not self._bodies[who]:
                del self._bodies[who]

    def _admit(self) -> None:
        if self._parts.lifetime.draining:
            raise Problem("draining")

    # -- inputs ------------------------------------------------------------------------------------

    async def _kept(self, who: Caller, brought: bytes | str) -> InputRef:
        """Return the reference to an image, kept as an upload where it came along."""
        if isinstance(brought, str) and not openai_bodies.is_data(brought):
            return InputRef(url=brought)
        upload = await self._parts.uploads.keep(who, await _bytes(brought, "image"))
        return InputRef(upload=upload.id)

    async def _mask(self, who: Caller, brought: bytes | str) -> InputRef:
        """Return the reference to a mask, turned to our form: theirs has holes where the picture changes."""
        if isinstance(brought, str) and not openai_bodies.is_data(brought):
            raise openai_bodies.flawed("mask", "A mask must be sent along, or be a data URL.")
        try:
            ours = await self._parts.studio.whiten(await _bytes(brought, "mask"))
        except ValueError:
            told = "A mask must be a PNG, transparent where the picture is to change."
            raise openai_bodies.flawed("mask", told) from None
        return InputRef(upload=(await self._parts.uploads.keep(who, ours)).id)

    # -- the job -----------------------------------------------------------------------------------

    async def _made(self, exchange: Exchange, wish: Wish) -> Answer:
        """Submit, wait, and answer with what came of it."""
        unused = ignored(exchange, wish.ignored)
        manner = _manner(exchange)
        accepted, replayed = await submitted(self._parts, exchange, wish.request, manner)
        job, headers = accepted.job, (*unused, *replayed)
        if not job.state.ended:
            job = await self._waited(exchange, job)
        if job.state is JobState.SUCCEEDED:
            return await self._shown(job, headers, links=wish.links)
        if job.state.ended:
            exchange.code = job.error.code if job.error is not None else None
            return openai_errors.of_job(job, headers)
        return openai_errors.still_running([*headers, *self._pause(exchange)])

    async def _waited(self, exchange: Exchange, job: Job) -> Job:
        """Return the job at its end or when time is up; as it was where the store is away meanwhile.

        It is there, and an answer that says the store is not would have it made anew.
        """
        try:
            found = await until_news(
                self._jobs, self._parts.lifetime, exchange, job.id, None, self._seconds(exchange)
            )
        except StoreUnavailable:
            return job
        exchange.usage = found.usage
        return found.job

    def _seconds(self, exchange: Exchange) -> float:
        """Return how long this request may wait: no longer than its sender listens."""
        most, listens = self._parts.sync_seconds, listening(exchange)
        return most if listens is None else min(most, listens - min(1.0, listens * MARGIN))

    def _pause(self, exchange: Exchange) -> Headers:
        """Return when to ask again: at once, but after a short wait only when there may be something."""
        left = 1.0 if self._parts.lifetime.draining else ROUND_SECONDS - self._seconds(exchange)
        return ((b"retry-after", b"%d" % math.ceil(left)),) if left > 0 else ()

    async def _shown(self, job: Job, headers: Headers, *, links: bool) -> Answer:
        """Return the answer with a job's pictures."""
        shown: dict[str, object] = {
            "created": job.created_at // 1000,
            "background": "transparent" if job.request.background == "transparent" else "opaque",
            "output_format": job.request.format,
            "quality": job.request.quality,
            "size": job.size,
        }
        if links:
            data = [{"url": image(self._parts, job, output)} for output in job.outputs]
            body = encode({**shown, "data": data, "usage": USAGE})
        else:
            body = await self._written(shown, job)
        return Answer(200, [JSON, NO_STORE, *headers], body)

    async def _written(self, shown: Mapping[str, object], job: Job) -> bytes:
        """Return the body that holds a job's pictures themselves."""
        found = await asyncio.gather(*(self._parts.blobs.read(output.key) for output in job.outputs))
        pictures = [data for data in found if data is not None]
        if len(pictures) < len(found):
            raise Problem("job_erased")
        if sum(map(len, pictures)) <= LIGHT:
            return written(shown, pictures)
        return await asyncio.to_thread(written, shown, pictures)


def written(shown: Mapping[str, object], pictures: Sequence[bytes]) -> bytes:
    """Return an answer's body with pictures in base64."""
    data = [Raw(b'{"b64_json":"%b"}' % binascii.b2a_base64(each, newline=False)) for each in pictures]
    return encode({**shown, "data": data, "usage": USAGE})


def listening(exchange: Exchange) -> float | None:
    """Return the seconds after which a request's sender hangs up, where it says so."""
    for name in LISTENS:
        try:
            seconds = float(exchange.fields.get(name, b"nan"))
        except ValueError:
            continue
        if 0 < seconds < math.inf:
            return seconds
    return None


def _manner(exchange: Exchange) -> Manner:
    """Return whether a request is a first send, a repeat, or to be taken for one."""
    count = exchange.fields.get(REPEATS)
    if count is None:
        return UNMARKED if exchange.who.user_plan.attach_unmarked else FIRST
    return AGAIN if count.isdigit() and count.strip(b"0") else FIRST


async def _brought(exchange: Exchange) -> Brought:
    """Return what the body of an edit asks for, as a form or as JSON."""
    kind = exchange.text(b"content-type") or ""
    if not is_form(kind):
        return openai_bodies.from_object(await read_object(exchange))
    body = await exchange.body()
    if len(body) <= LIGHT:
        return openai_bodies.from_form(read_form(kind, body))
    return openai_bodies.from_form(await asyncio.to_thread(read_form, kind, body))


async def _bytes(brought: bytes | str, param: str) -> bytes:
    """Return an image that came along, out of its data URL where it is in one."""
    if isinstance(brought, bytes):
        return brought
    return await asyncio.to_thread(openai_bodies.data_of, brought, param)
