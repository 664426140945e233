"""What the tests of keys, uploads and webhooks share: nouns made short, and the calls that put them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from gateway.audit import Record, decode
from gateway.store.contract import Dropped, Endpoints, Kept, Notice, Recorded, Told
from gateway.store.engine import Engine
from policies import quota, webhooks
from policies.model import Deny, Job, ServiceKey, Upload
from policies.webhooks import Delivery, Endpoint
from tests.contracts.rig import (
    HOUR,
    NOVEMBER,
    OPEN_TERMS,
    SAID,
    WIDE,
    Rig,
    attempt,
    counting,
    ending,
    put,
    take,
)

NO_WRITES: Final = replace(OPEN_TERMS, user=replace(WIDE, write=0))
TOLD: Final = Record(action="webhook.put")
LEASE: Final = 20_000


def service_key(rig: Rig, tenant: str = "acme", digest: str = "", **fields: Any) -> ServiceKey:
    """Return a service key of ann's."""
    name = rig.uuid()
    made: dict[str, Any] = {"created_at": rig.clock.at} | fields
    return ServiceKey(name, tenant, "ann", digest or name[-12:], "sl_…ab", **made)


def upload(rig: Rig, tenant: str = "acme", subject: str = "ann", **fields: Any) -> Upload:
    """Return an upload that may be used for an hour."""
    made: dict[str, Any] = {"id": rig.uuid(), "expires_at": rig.clock.at + HOUR} | fields
    return Upload(tenant=tenant, subject=subject, media_type="image/png", bytes=9, **made)


def endpoint(rig: Rig, tenant: str = "acme", subject: str = "ann", **fields: Any) -> Endpoint:
    """Return an endpoint that hears all ends of its subject's jobs."""
    made: dict[str, Any] = {"events": webhooks.EVENTS["native"], "created_at": rig.clock.at} | fields
    return Endpoint(rig.uuid(), tenant, subject, "https://example.com/hook", "sealed", **made)


def putting(value: Endpoint | Dropped | Deny | None) -> Endpoints:
    """Return the rule that answers this, whatever there is."""
    return lambda _there, _now: value


async def register(store: Engine, hook: Endpoint, terms: quota.Terms = OPEN_TERMS) -> Any:
    """Put an endpoint."""
    return await store.change_endpoint(hook.tenant, putting(hook), counting(terms), TOLD, by=hook.subject)


async def hooked(rig: Rig, store: Engine, **fields: Any) -> Endpoint:
    """Put a new endpoint; return it."""
    hook = endpoint(rig, **fields)
    assert await register(store, hook) == Kept(hook)
    return hook


async def ended(rig: Rig, store: Engine, made: int = 1, **fields: Any) -> Job:
    """Run a job to its end."""
    await put(store, rig.job(**fields))
    (claim,) = await take(store)
    await store.begin_attempt(claim, attempt(deadline_at=rig.clock.at + 60_000))
    answer = await store.record(claim, ending(made), SAID)
    assert isinstance(answer, Recorded)
    return answer.job


def trial(rig: Rig, hook: Endpoint, due_at: int | None = None) -> Delivery:
    """Return a delivery that is asked for to try an endpoint."""
    now = rig.clock.at
    return Delivery(rig.uuid(), hook.tenant, hook.id, webhooks.TEST, created_at=now, due_at=due_at or now)


async def trials(rig: Rig, store: Engine, hook: Endpoint, n: int) -> list[str]:
    """Make that many deliveries due, each a millisecond after the other; return their ids."""
    made = [trial(rig, hook, NOVEMBER + at + 1) for at in range(n)]
    await asyncio.gather(*(store.put_delivery(each, counting(), TOLD, by=hook.subject) for each in made))
    return [each.id for each in made]


async def all_of(store: Engine, hook: Endpoint) -> tuple[Delivery, ...]:
    """Return the deliveries of an endpoint, newest first."""
    page = await store.list_deliveries(hook.tenant, hook.id, before=None, limit=10**6)
    return page.deliveries


async def lease(store: Engine, n: int = 1, **how: Any) -> list[Notice]:
    """Lease that many deliveries, not fewer."""
    notices = await store.claim_deliveries(n, LEASE, **how)
    assert len(notices) == n
    return list(notices)


def delivered(told: Delivery, hook: Endpoint, now: int) -> tuple[Delivery, Endpoint]:
    """Take a delivery as told."""
    tried = (*told.tries, webhooks.Try(now, 204))
    return replace(told, state="delivered", tries=tried, due_at=None), replace(hook, failures=0)


def failing(wait: int = 5000, why: Any = None) -> Told:
    """Return the rule of a failed try: when again, and whether the endpoint is disabled by it."""

    def told(of: Delivery, hook: Endpoint, now: int) -> tuple[Delivery, Endpoint]:
        tried = (*of.tries, webhooks.Try(now, 500))
        after = replace(hook, failures=hook.failures + 1, disabled=hook.disabled or why)
        return replace(of, tries=tried, due_at=now + wait), after

    return told


async def lines(store: Engine, tenant: str = "acme") -> list[Record]:
    """Return the lines of a trail, oldest first."""
    links = await store.audit_page(tenant, before=0, limit=10**6, order="up")
    return [line for link in links for line in decode(link.rows)]


async def writes(store: Engine, subject: str = "ann") -> int:
    """Return how many writes of a subject were counted."""
    windows = (await store.usage("acme", subject)).user.windows
    return windows["write"].count if "write" in windows else 0


def ids(notices: Sequence[Notice]) -> list[str]:
    """Return the ids of leased deliveries."""
    return [each.delivery.id for each in notices]
