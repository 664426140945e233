"""The use cases of webhooks: register an endpoint, change it, try it, see what it was sent.

Which endpoints a caller sees, and what one may hear, is asked of `policies/webhooks.py`; its address of the
judge, here and again at each send. A secret is returned once, to whoever made or rotated it, and kept
sealed. Nothing is sent here: that is `deliveries.py`. Foreign and unknown endpoints are the same 404.
Callers name a form where their API knows one alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from gateway import notices
from gateway.audit import Record
from gateway.errors import Problem
from gateway.store.contract import Absent, Denied, Dropped, Kept
from policies import quota, webhooks
from policies.egress import PUBLIC
from policies.model import Deny, Flaw
from policies.webhooks import Delivery, Endpoint, Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.callers import Caller
    from gateway.secrets import Keyring
    from gateway.store.contract import DeliveryPage, Endpoints, Store
    from policies.model import Principal
    from policies.webhooks import Form

    Judge = Callable[[str], Awaitable[bool]]
    """Says whether a URL may be called from here."""
    TurnedAway = Callable[[Principal, str, str], Awaitable[None]]
    """Tells the trail of a caller who may not do what they asked: who, the code, what for."""

Url = Annotated[str, Meta(max_length=2048, description="https, at a public address.")]
Events = Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=16)]
Label = Annotated[str, Meta(max_length=200, description="What people know it by.")]

Rule = Callable[[Endpoint, int], Endpoint | Dropped]
"""From an endpoint the caller sees, and the store's time, to what becomes of it."""

DISABLED: Final = "The endpoint is disabled: enable it first, then send."


class WebhookRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a new webhook. Absent `events` are all of them; `scope` `tenant` is for admins."""

    url: Url
    events: Events | None = None
    scope: Scope = "own"
    label: Label = ""


class WebhookPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of a webhook; what is absent stays. `enabled` switches it on or off."""

    url: Url | None = None
    events: Events | None = None
    label: Label | None = None
    enabled: bool | None = None


class Made(Struct, frozen=True):
    """An endpoint with a secret just made: nobody can be told that again."""

    endpoint: Endpoint
    secret: str


class Webhooks:
    """The use cases. `judge` looks at a URL, `mint` makes a new id (UUIDv7 text), `coin` random bytes."""

    def __init__(
        self,
        store: Store,
        ring: Keyring,
        judge: Judge,
        turned_away: TurnedAway,
        mint: Callable[[], str],
        coin: Callable[[int], bytes],
        now: Callable[[], int],
    ) -> None:
        self.now = now
        self._store = store
        self._ring = ring
        self._judge = judge
        self._turned_away = turned_away
        self._mint = mint
        self._coin = coin

    # -- endpoints ---------------------------------------------------------------------------------

    async def create(self, who: Caller, wish: WebhookRequest, form: Form = "native") -> Made:
        """Register an endpoint; raises `Problem` for a bad address, unknown events, one too many.

        The trail is told of who asks for one that hears more than they may.
        """
        principal = who.principal
        allowed = webhooks.may_register(principal, wish.scope)
        if isinstance(allowed, Deny):
            await self._turned_away(principal, str(allowed.reason), "webhook.create")
            raise Problem.of(allowed)
        events = _events(form, wish.events)
        await self._judged(wish.url)
        secret, name = notices.new_secret(self._coin), self._mint()
        fresh = Endpoint(
            id=name,
            tenant=principal.tenant,
            subject=principal.subject,
            url=wish.url,
            secret=notices.seal(self._ring, principal.tenant, name, secret),
            form=form,
            events=events,
            scope=wish.scope,
            label=wish.label,
        )
        most = who.user_plan.webhooks

        def rule(there: tuple[Endpoint, ...], now: int) -> Endpoint | Deny:
            return webhooks.registered(there, fresh, most, now)

        kept = await self._change(who, rule, "webhook.create")
        return Made(_endpoint(kept), secret)

    async def list(self, who: Caller, form: Form | None = None) -> tuple[Endpoint, ...]:
        """Return the caller's endpoints, or the tenant's for its admins, newest first."""
        there = await self._store.list_endpoints(who.principal.tenant)
        return tuple(
            sorted(
                (each for each in there if _there(who, each, form)), key=lambda each: each.id, reverse=True
            )
        )

    async def get(self, who: Caller, name: str, form: Form | None = None) -> Endpoint:
        """Return an endpoint the caller sees."""
        found = next((each for each in await self.list(who, form) if each.id == name), None)
        if found is None:
            raise Problem("not_found")
        return found

    async def update(
        self, who: Caller, name: str, change: WebhookPatch, form: Form | None = None
    ) -> Endpoint:
        """Change an endpoint. Switched on again it is sent what ends from now on, nothing of before."""
        there = await self.get(who, name, form)
        events = None if change.events is None else _events(there.form, change.events)
        if change.url is not None:
            await self._judged(change.url)

        def rule(endpoint: Endpoint, _now: int) -> Endpoint:
            after = webhooks.changed(endpoint, url=change.url, events=events, label=change.label)
            wanted = change.enabled
            return after if wanted is None else webhooks.enabled(after, wanted=wanted)

        return _endpoint(await self._change(who, _one(who, name, form, rule), "webhook.update"))

    async def drop(self, who: Caller, name: str, form: Form | None = None) -> None:
        """Forget an endpoint and all it was or was to be sent."""
        rule = _one(who, name, form, lambda endpoint, _now: Dropped(endpoint.id))
        await self._change(who, rule, "webhook.delete")

    async def rotate(self, who: Caller, name: str, form: Form | None = None) -> Made:
        """Give an endpoint a new secret; the one it has is good for 24 hours more, or until the next."""
        secret = notices.new_secret(self._coin)
        sealed = notices.seal(self._ring, who.principal.tenant, name, secret)
        rule = _one(who, name, form, lambda endpoint, now: webhooks.rotated(endpoint, sealed, now))
        return Made(_endpoint(await self._change(who, rule, "webhook.rotate")), secret)

    # -- deliveries --------------------------------------------------------------------------------

    async def test(self, who: Caller, name: str, form: Form | None = None) -> Delivery:
        """Send an endpoint an event that tells of no job."""
        endpoint = await self._enabled(who, name, form)
        now = self.now()
        told = Delivery(self._mint(), endpoint.tenant, endpoint.id, webhooks.TEST, created_at=now, due_at=now)
        return await self._send(who, told, "webhook.test")

    async def deliveries(
        self, who: Caller, name: str, before: int | None, limit: int, form: Form | None = None
    ) -> DeliveryPage:
        """Return what an endpoint was or is to be sent, newest first, with every try."""
        endpoint = await self.get(who, name, form)
        return await self._store.list_deliveries(endpoint.tenant, endpoint.id, before=before, limit=limit)

    async def redeliver(self, who: Caller, name: str, delivery: str, form: Form | None = None) -> Delivery:
        """Send a delivery again, now, under the id it has, whatever came of it before."""
        endpoint = await self._enabled(who, name, form)
        told = await self._store.get_delivery(endpoint.tenant, delivery)
        if told is None or told.endpoint != endpoint.id:
            raise Problem("not_found")
        again = replace(told, state="pending", due_at=self.now())
        return await self._send(who, again, "webhook.redeliver")

    # -- what these share --------------------------------------------------------------------------

    async def _judged(self, url: str) -> None:
        """Raise `Problem` for an address that is not called from here, in one text for all reasons."""
        if not await self._judge(url):
            raise Problem("invalid_request", flaws=(Flaw("/url", PUBLIC),))

    async def _enabled(self, who: Caller, name: str, form: Form | None) -> Endpoint:
        endpoint = await self.get(who, name, form)
        if endpoint.disabled is not None:
            raise Problem("webhook_disabled", DISABLED)
        return endpoint

    async def _change(self, who: Caller, rule: Endpoints, action: str) -> Kept | Dropped:
        answer = await self._store.change_endpoint(
            who.principal.tenant,
            rule,
            quota.write(who.terms),
            Record(action=action),
            by=who.principal.subject,
        )
        return _taken(answer)

    async def _send(self, who: Caller, told: Delivery, action: str) -> Delivery:
        answer = await self._store.put_delivery(
            told, quota.write(who.terms), Record(action=action, job=told.job), by=who.principal.subject
        )
        kept = _taken(answer)
        assert isinstance(kept, Kept)  # noqa: S101 - a delivery that is put is there
        assert isinstance(kept.value, Delivery)  # noqa: S101 - and it is what the store keeps
        return kept.value


def _taken(answer: Kept | Dropped | Absent | Denied) -> Kept | Dropped:
    """Return what the store did; raises `Problem` where it did nothing."""
    match answer:
        case Absent():
            raise Problem("not_found")
        case Denied(deny, _):
            raise Problem.of(deny)
        case done:
            return done


def _there(who: Caller, endpoint: Endpoint, form: Form | None) -> bool:
    return webhooks.sees(who.principal, endpoint) and form in (None, endpoint.form)


def _one(who: Caller, name: str, form: Form | None, rule: Rule) -> Endpoints:
    """Return the rule over all endpoints that changes one of those the caller sees."""

    def change(there: tuple[Endpoint, ...], now: int) -> Endpoint | Dropped | None:
        for each in there:
            if each.id == name and _there(who, each, form):
                return rule(each, now)
        return None

    return change


def _events(form: Form, named: tuple[str, ...] | None) -> tuple[str, ...]:
    events = webhooks.chosen(form, named)
    if isinstance(events, Deny):
        raise Problem.of(events)
    return events


def _endpoint(kept: Kept | Dropped) -> Endpoint:
    assert isinstance(kept, Kept)  # noqa: S101 - a rule that returns an endpoint drops none
    assert isinstance(kept.value, Endpoint)  # noqa: S101 - nor does it keep anything else
    return kept.value
