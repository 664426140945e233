"""What clients are shown of a job: the JSON of this API, rendered from the job as it is stored.

A view leaves out what is the operator's (provider, upstream ids, costs, attempts) by not having a place
for it. Links and times are made here, ids are respelled; nothing is looked up. The structs are the
documents' schema too, so their docstrings and field names are read by strangers.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.blobs import STEP_MS, Links
from policies import ids
from policies.model import Background, Format, InputRef, Job, JobState, Operation, Output, Quality, Shortfall

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""UTC, with milliseconds and `Z`."""
Url = Annotated[str, Meta(extra_json_schema={"format": "uri"})]

BODIES_KEPT: Final = 512
_encoder: Final = msgspec.json.Encoder()
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class OutputView(Struct, frozen=True):
    """One delivered image, byte for byte as it was made.

    `url` is good until `expires_at`; where that is null, for as long as the job is kept.
    """

    index: int
    url: Url
    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: str | None
    variants: dict[str, Url]
    expires_at: Time | None


class JobErrorView(Struct, frozen=True):
    """Why a job ended without a picture. `retryable`: a new submit may work, and nothing is owed."""

    code: str
    detail: str
    stage: Literal["input", "upstream", "output"]
    retryable: bool
    rule: str | UnsetType = UNSET


class CostView(Struct, frozen=True):
    """Credits: quoted for all images, held now, charged for those delivered, refunded of the hold."""

    quoted: int
    held: int
    charged: int
    refunded: int


class QueueView(Struct, frozen=True):
    """Where a queued job stands: how many of the tenant's are before it."""

    position: int
    eta_seconds: int | None = None


class JobLinks(Struct, frozen=True):
    """Where to read the job, and where to watch it."""

    self: Url
    events: Url


class JobView(Struct, frozen=True):
    """A job: what was asked for, as resolved, and what came of it. `version` rises with every change."""

    id: str
    state: JobState
    ended: bool
    version: int
    subject: str
    policy_version: str
    prompt: str
    operation: Operation
    size: str
    aspect_ratio: str
    quality: Quality
    count: int
    inputs: tuple[InputRef, ...]
    mask: InputRef | None
    style: str | None
    lighting: str | None
    camera: str | None
    negative: str | None
    seed: int | None
    format: Format
    background: Background
    model: str
    metadata: dict[str, str]
    on_unsupported: Literal["refuse", "drop"]
    final_prompt: str | None
    adjustments: tuple[str, ...]
    outputs: tuple[OutputView, ...]
    shortfall: tuple[Shortfall, ...]
    error: JobErrorView | None
    cost: CostView
    queue: QueueView | None
    cancel_requested_at: Time | None
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    links: JobLinks


@functools.lru_cache(maxsize=4096)
def time_text(millis: int) -> str:
    """Return an instant as clients read it: `2026-11-20T09:30:00.000Z`."""
    moment = _EPOCH + datetime.timedelta(milliseconds=millis)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _time(millis: int | None) -> str | None:
    return None if millis is None else time_text(millis)


def etag(job: Job, now: int) -> bytes:
    """Return the weak validator of a job's view.

    It covers the version and the five-minute step of the links: a client that is told "not modified"
    after the step would keep links that die. Weak, since a place in the queue moves without a version.
    """
    return b'W/"%d.%d"' % (job.version, Links.expires_at(now) // STEP_MS)


class Views:
    """Renders jobs. `public_url` is asked each time, for a server may learn its port late."""

    def __init__(self, links: Links, public_url: Callable[[], str]) -> None:
        self._links = links
        self._public_url = public_url
        self._bodies: dict[tuple[str, int, int, int | None], bytes] = {}

    def body(self, job: Job, now: int, position: int | None = None) -> bytes:
        """Return a job's view as JSON. Polls of an unchanged job within one step of its links share it."""
        name = (job.id, job.version, Links.expires_at(now), position)
        body = self._bodies.get(name)
        if body is None:
            if len(self._bodies) >= BODIES_KEPT:
                del self._bodies[next(iter(self._bodies))]
            body = self._bodies[name] = _encoder.encode(self.job(job, now, position))
        return body

    def address(self, job: str) -> str:
        """Return where a job is read, by its UUID's text."""
        return f"{self._public_url()}/v1/jobs/{ids.shown(job)}"

    def job(self, job: Job, now: int, position: int | None = None) -> JobView:
        """Return the view of a job; its links are those of this instant."""
        return JobView(
            id=ids.shown(job.id),
            state=job.state,
            ended=job.state.ended,
            version=job.version,
            subject=job.subject,
            policy_version=job.policy_version,
            prompt=job.request.prompt,
            operation=job.request.operation,
            size=job.size,
            aspect_ratio=job.aspect_ratio,
            quality=job.request.quality,
            count=job.request.count,
            inputs=job.request.inputs,
            mask=job.request.mask,
            style=job.request.style,
            lighting=job.request.lighting,
            camera=job.request.camera,
            negative=job.request.negative,
            seed=job.request.seed,
            format=job.request.format,
            background=job.request.background,
            model=job.model,
            metadata=job.request.metadata,
            on_unsupported=job.request.on_unsupported,
            final_prompt=job.final_prompt if job.show_final_prompt else None,
            adjustments=job.adjustments,
            outputs=self._outputs(job, now),
            shortfall=job.shortfall,
            error=_error(job),
            cost=CostView(job.quoted, job.held, job.charged, job.refunded),
            queue=None if position is None else QueueView(position),
            cancel_requested_at=_time(job.cancel_requested_at),
            created_at=time_text(job.created_at),
            started_at=_time(job.started_at),
            ended_at=_time(job.ended_at),
            links=self._links_of(job.id),
        )

    def _links_of(self, job: str) -> JobLinks:
        address = self.address(job)
        return JobLinks(address, address + "/events")

    def _outputs(self, job: Job, now: int) -> tuple[OutputView, ...]:
        lasting = job.links == "durable"
        return tuple([self._output(output, now, lasting=lasting) for output in job.outputs])

    def link(self, key: str, now: int, *, lasting: bool) -> str:
        """Return a link to one blob: durable, or signed at this instant."""
        return self._links.durable(key) if lasting else self._links.make(key, now)

    def _output(self, output: Output, now: int, *, lasting: bool) -> OutputView:
        return OutputView(
            index=output.index,
            url=self.link(output.key, now, lasting=lasting),
            media_type=output.media_type,
            width=output.width,
            height=output.height,
            bytes=output.bytes,
            sha256=output.sha256,
            seed=output.seed,
            variants={name: self.link(key, now, lasting=lasting) for name, key in output.variants.items()},
            expires_at=None if lasting else time_text(self._links.expires_at(now)),
        )


def _error(job: Job) -> JobErrorView | None:
    error = job.error
    if error is None:
        return None
    return JobErrorView(error.code, error.detail, error.stage, error.retryable, error.rule or UNSET)
