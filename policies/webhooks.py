"""Webhooks: who is told of what, in which words, when again, and when no more?

An endpoint belongs to a subject and hears of their own jobs, or (a tenant's admin's) of the whole
tenant's. Two forms: our own (Standard Webhooks 1.0) and gptimage2.plus's, whose document knows two events
and one schedule. A delivery is one event for one endpoint and keeps its id through all its tries. Time
and chance come in as arguments; nothing is signed or sent here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from policies.access import may_see
from policies.model import ALLOW, EXACT, Allow, Deny, Flaw, Job, JobState, Millis, Principal, Reason

Form = Literal["native", "gptimage2_plus"]
Scope = Literal["own", "tenant"]
"""Whose jobs an endpoint hears of: its subject's, or the whole tenant's."""
TEST: Final = "webhook.test"
"""The event of a delivery that was asked for to try an endpoint; it tells of no job."""

EVENTS: Final[dict[Form, tuple[str, ...]]] = {
    "native": ("job.succeeded", "job.failed", "job.blocked", "job.canceled"),
    "gptimage2_plus": ("generation.succeeded", "generation.failed"),
}

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS

WAITS_MS: Final[dict[Form, tuple[int, ...]]] = {
    "native": (
        5 * SECOND_MS,
        MINUTE_MS,
        5 * MINUTE_MS,
        30 * MINUTE_MS,
        2 * HOUR_MS,
        5 * HOUR_MS,
        6 * HOUR_MS,
        10 * HOUR_MS,
    ),
    "gptimage2_plus": (30 * SECOND_MS, 2 * MINUTE_MS, 10 * MINUTE_MS),
}
"""What lies between two tries. Our own end within a day of the first; the other form's are its document's."""
JITTER: Final = 0.2
"""The share of our own waits that chance may take away, so that what failed together does not return so."""
LONGEST_ASKED_MS: Final = HOUR_MS
"""The most a `Retry-After` may put a try off."""
PLUS_SECONDS: Final = 5
PLUS_DISABLE_AFTER: Final = 8
ROTATION_MS: Final = 24 * HOUR_MS
"""How long the secret before a rotation is still good."""
LONGEST_REST_MS: Final = 5 * MINUTE_MS
TRIES_KEPT: Final = 20
"""The newest tries of a delivery; more than a schedule has."""


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
    scope: Scope = "own"
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


class Answered(Struct, frozen=True):
    """What came of a try: the try as it is kept, and when the receiver would like the next."""

    tried: Try
    retry_after_ms: int | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has it: any 2xx, whatever the body, and no redirect."""
        return self.tried.status is not None and 200 <= self.tried.status < 300


def seconds_of(form: Form, attempt_seconds: int) -> int:
    """Return how long one try may take; the other form's document says it itself."""
    return attempt_seconds if form == "native" else PLUS_SECONDS


def tried(
    told: Delivery, endpoint: Endpoint, answered: Answered, now: int, *, chance: float, disable_after: int
) -> tuple[Delivery, Endpoint]:
    """Return a delivery and its endpoint as they are after a try.

    Any 2xx resets the endpoint's count of failed tries in a row, which runs over all its deliveries; at
    `disable_after` (8 for the other form) the endpoint is disabled. What is undelivered then is kept and
    not due, and so it stays when the endpoint is enabled again. `chance` in [0, 1) spreads our own waits.
    """
    tries = (*told.tries, answered.tried)[-TRIES_KEPT:]
    if answered.taken:
        delivered = replace(told, state="delivered", tries=tries, due_at=None)
        return delivered, replace(endpoint, failures=0)
    endpoint = _failed(endpoint, answered, disable_after)
    wait = _wait_ms(endpoint.form, len(tries), answered, chance)
    if wait is None:
        return replace(told, state="failed", tries=tries, due_at=None), endpoint
    due_at = None if endpoint.disabled else now + wait
    return replace(told, state="pending", tries=tries, due_at=due_at), endpoint


def _failed(endpoint: Endpoint, answered: Answered, disable_after: int) -> Endpoint:
    """Count a failed try; the count, or a 410 to our own form, disables."""
    most = disable_after if endpoint.form == "native" else PLUS_DISABLE_AFTER
    failures = min(endpoint.failures + 1, EXACT)
    why = endpoint.disabled
    if why is None and answered.tried.status == 410 and endpoint.form == "native":
        why = "gone"
    if why is None and failures >= most:
        why = "failing"
    return replace(endpoint, failures=failures, disabled=why)


def _wait_ms(form: Form, tries: int, answered: Answered, chance: float) -> int | None:
    """Return what lies before the next try; None where there is none."""
    waits = WAITS_MS[form]
    if tries > len(waits):
        return None
    wait = waits[tries - 1]
    if form != "native":
        return wait
    asked = min(answered.retry_after_ms or 0, LONGEST_ASKED_MS)
    return max(int(wait * (1 - JITTER * chance)), asked)


def rest_ms(failures: int) -> int:
    """Return how long an endpoint is left alone after so many failed tries in a row.

    Doubling from a second to five minutes: a receiver that is down for a while does not spend the run of
    failures that disables it in one burst, and one that hangs does not keep others waiting.
    """
    return min(LONGEST_REST_MS, SECOND_MS << min(max(failures, 1) - 1, 20))


def sees(who: Principal, endpoint: Endpoint) -> bool:
    """Say whether an endpoint is there for a caller: the tenant's for its admins, one's own for others.

    What hears of the whole tenant is the admins' alone, also for a subject who is no longer one of them.
    """
    if isinstance(may_see(who, endpoint.tenant, endpoint.subject), Deny):
        return False
    return not isinstance(may_register(who, endpoint.scope), Deny)


def may_register(who: Principal, scope: Scope) -> Allow | Deny:
    """Decide whether the caller may have an endpoint that hears so much."""
    if scope == "tenant" and not who.is_admin:
        return Deny(Reason.FORBIDDEN, "Webhooks of the whole tenant are for its admins.")
    return ALLOW


def registered(there: Sequence[Endpoint], fresh: Endpoint, most: int, now: int) -> Endpoint | Deny:
    """Return a new endpoint as it is kept, unless its subject has as many as the plan allows."""
    if sum(each.subject == fresh.subject for each in there) >= most:
        return Deny(Reason.WEBHOOK_LIMIT, f"The plan allows {most} webhooks.", rule="limit.webhooks")
    return replace(fresh, created_at=now)


def chosen(form: Form, events: Sequence[str] | None) -> tuple[str, ...] | Deny:
    """Return the events an endpoint is to hear, each once and in order: all where none are named."""
    known = EVENTS[form]
    if events is None:
        return known
    flaws = [Flaw(f"/events/{at}", "is no event here") for at, name in enumerate(events) if name not in known]
    if not events:
        flaws.append(Flaw("/events", "names no event"))
    if flaws:
        return Deny(Reason.INVALID_REQUEST, "", flaws=tuple(flaws))
    return tuple(name for name in known if name in events)


def changed(
    endpoint: Endpoint, *, url: str | None, events: tuple[str, ...] | None, label: str | None
) -> Endpoint:
    """Return an endpoint with what is given in place of what was; at a new address its count begins anew."""
    return replace(
        endpoint,
        url=endpoint.url if url is None else url,
        events=endpoint.events if events is None else events,
        label=endpoint.label if label is None else label,
        failures=endpoint.failures if url in (None, endpoint.url) else 0,
    )


def enabled(endpoint: Endpoint, *, wanted: bool) -> Endpoint:
    """Return an endpoint switched on, with its count begun anew, or off; one that is off keeps its why."""
    if wanted:
        return replace(endpoint, disabled=None, failures=0)
    return replace(endpoint, disabled=endpoint.disabled or "asked")


def rotated(endpoint: Endpoint, secret: str, now: int) -> Endpoint:
    """Return an endpoint with a new secret; the one it had is good for a day more, and none before it."""
    return replace(endpoint, secret=secret, former=endpoint.secret, former_until=now + ROTATION_MS)


def live(endpoint: Endpoint, now: int) -> tuple[str, ...]:
    """Return the sealed secrets that sign now, the newest first."""
    if endpoint.former is None or now >= endpoint.former_until:
        return (endpoint.secret,)
    return (endpoint.secret, endpoint.former)
