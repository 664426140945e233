"""Webhooks: who is told of what, in which words, when again, and when no more?

An endpoint belongs to a subject and hears of their own jobs, or (a tenant's admin's) of the whole
tenant's. Two forms: our own (Standard Webhooks 1.0) and gptimage2.plus's, whose document knows two events
and one schedule. A delivery is one event for one endpoint and keeps its id through all its tries. Time
and chance come in as arguments; nothing is sent here.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from policies.model import EXACT, Job, JobState, Millis

Form = Literal["native", "gptimage2_plus"]
TEST: Final = "webhook.test"
"""The event of a delivery that was asked for to try an endpoint; it tells of no job."""

EVENTS: Final[dict[Form, tuple[str, ...]]] = {
    "native": ("job.succeeded", "job.failed", "job.blocked", "job.canceled"),
    "gptimage2_plus": ("generation.succeeded", "generation.failed"),
}


class Endpoint(Struct, frozen=True, omit_defaults=True):
    """A place that is told. Secrets are sealed: whoever reads the store cannot sign.

    `former` is the secret before the last rotation, good until `former_until`. `failures` counts failed
    tries in a row, over all deliveries. `disabled` says why nothing is sent.
    """

    id: str
    tenant: str
    subject: str
    url: str
    secret: str
    form: Form = "native"
    events: tuple[str, ...] = ()
    scope: Literal["own", "tenant"] = "own"
    label: str = ""
    former: str | None = None
    former_until: Millis = 0
    failures: Annotated[int, Meta(ge=0, le=EXACT)] = 0
    disabled: Literal["failing", "gone", "asked"] | None = None
    created_at: Millis = 0
    f: int = 1


class Try(Struct, frozen=True, omit_defaults=True):
    """One sending: when, what came back (a status, or how it was cut), how long it took."""

    at: Millis
    status: int | None = None
    cut: str | None = None
    millis: int = 0


class Delivery(Struct, frozen=True, omit_defaults=True):
    """One event for one endpoint. `job` is None for a test. `due_at` None: nothing more will be sent."""

    id: str
    tenant: str
    endpoint: str
    event: str
    job: str | None = None
    state: Literal["pending", "delivered", "failed"] = "pending"
    tries: tuple[Try, ...] = ()
    created_at: Millis = 0
    due_at: Millis | None = None
    f: int = 1


def event_of(form: Form, state: JobState) -> str:
    """Return the event a job's end is, in a form's words. The seed's form has no word but failed."""
    if form == "native":
        return f"job.{state}"
    return "generation.succeeded" if state is JobState.SUCCEEDED else "generation.failed"


def hears(endpoint: Endpoint, job: Job) -> str | None:
    """Return the event an endpoint is to be told of a job's end; None where it is none of its business."""
    if endpoint.disabled is not None or not job.state.ended:
        return None
    if endpoint.scope == "own" and endpoint.subject != job.subject:
        return None
    event = event_of(endpoint.form, job.state)
    return event if event in endpoint.events else None


def delivery(endpoint: Endpoint, job: Job, event: str, now: int) -> Delivery:
    """Return the delivery of a job's end, due now. Its id is told by what it tells, so it is made once."""
    digest = hashlib.sha256(f"{endpoint.id}\0{job.id}\0{event}".encode()).hexdigest()
    name = f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-9{digest[17:20]}-{digest[20:32]}"
    return Delivery(name, endpoint.tenant, endpoint.id, event, job.id, created_at=now, due_at=now)
