"""The calls about webhooks: register, list, change, rotate, try, and see what was sent.

A secret is in one answer, the one to its making. What is shown of a try never tells why an address may not
be called. Whether the caller may, the use case asks; what an endpoint is sent is `bodies.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from litestar import delete, get, patch, post
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct
from msgspec.structs import asdict

from gateway.api.exchange import Answer, exchange_of, json_answer
from gateway.api.gate import closed
from gateway.api.queries import Cursors, Query
from gateway.api.views import Time, Url, time_text
from gateway.errors import Problem
from gateway.webhooks import WebhookPatch, WebhookRequest
from policies import ids
from policies.access import Action
from policies.webhooks import Form

if TYPE_CHECKING:
    from gateway.webhooks import Made, Webhooks
    from policies.webhooks import Delivery, Endpoint

Handler = Request[Any, Any, Any]


class WebhookView(Struct, frozen=True):
    """A webhook. `failures` counts failed tries in a row; enough of them disable it (`failing`).

    Through a rotation the secret before is good until `previous_secret_expires_at`.
    """

    id: str
    url: Url
    events: tuple[str, ...]
    scope: Literal["own", "tenant"]
    label: str
    form: Form
    subject: str
    enabled: bool
    disabled_reason: Literal["failing", "gone", "asked"] | None
    failures: int
    created_at: Time
    previous_secret_expires_at: Time | None


class NewWebhookView(WebhookView, frozen=True):
    """A webhook with a secret just made, shown this once."""

    secret: str


class WebhookPage(Struct, frozen=True):
    """A page of webhooks, newest first. `next` is the cursor of the page after, null at the end."""

    data: tuple[WebhookView, ...]
    next: str | None


class TryView(Struct, frozen=True):
    """One sending: the answer's `status`, or how it was cut; `duration_ms` until then."""

    at: Time
    status: int | None
    cut: str | None
    duration_ms: int


class DeliveryView(Struct, frozen=True):
    """One event for one webhook, with its newest tries. `job` is null for a test."""

    id: str
    event: str
    job: str | None
    state: Literal["pending", "delivered", "failed"]
    tries: tuple[TryView, ...]
    created_at: Time
    next_try_at: Time | None


class DeliveryPageView(Struct, frozen=True):
    """A page of deliveries, newest first. `next` is the cursor of the page after, null at the end."""

    data: tuple[DeliveryView, ...]
    next: str | None


class WebhookCalls:
    """The routes of webhooks."""

    def __init__(self, webhooks: Webhooks, cursors: Cursors) -> None:
        self._webhooks = webhooks
        self._cursors = cursors

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        opt = closed(Action.WEBHOOKS)
        one = "/v1/webhooks/{webhook_id:str}"
        again = f"{one}/deliveries/{{delivery_id:str}}/redeliver"
        return [
            post("/v1/webhooks", operation_id="createWebhook", status_code=201, opt=opt)(self.create),
            get("/v1/webhooks", operation_id="listWebhooks", opt=opt)(self.page),
            get(one, operation_id="getWebhook", opt=opt)(self.get),
            patch(one, operation_id="updateWebhook", opt=opt)(self.update),
            delete(one, operation_id="deleteWebhook", opt=opt)(self.drop),
            post(f"{one}/rotate", operation_id="rotateWebhook", status_code=200, opt=opt)(self.rotate),
            post(f"{one}/test", operation_id="testWebhook", status_code=202, opt=opt)(self.test),
            get(f"{one}/deliveries", operation_id="listDeliveries", opt=opt)(self.deliveries),
            post(again, operation_id="redeliverWebhook", status_code=202, opt=opt)(self.redeliver),
        ]

    async def create(self, request: Handler) -> Answer:
        """Register a webhook.

        It hears of the ends of the caller's own jobs, or of the whole tenant's (`scope` `tenant`, for its
        admins). What it is sent is signed as Standard Webhooks 1.0 says, by `secret`, shown this once.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        made = await self._webhooks.create(exchange.who, await exchange.json(WebhookRequest))
        return json_answer(new_webhook_view(made), 201)

    async def page(self, request: Handler) -> Answer:
        """List webhooks, newest first.

        A caller's own; for the tenant's admins the tenant's.
        """
        who = exchange_of(request.scope).who
        query = Query(request.scope, ("cursor", "limit"))
        scope = ("webhooks", who.principal.tenant, "" if who.principal.is_admin else who.principal.subject)
        before, limit = query.page(self._cursors, *scope)
        query.close()
        found = [one for one in await self._webhooks.list(who) if before is None or _place(one) < before]
        shown = tuple(webhook_view(one) for one in found[:limit])
        more = len(found) > limit
        return json_answer(
            WebhookPage(shown, self._cursors.make(_place(found[limit - 1]), *scope) if more else None)
        )

    async def get(self, request: Handler) -> Answer:
        """Read a webhook."""
        Query(request.scope).close()
        who = exchange_of(request.scope).who
        return json_answer(webhook_view(await self._webhooks.get(who, _webhook(request))))

    async def update(self, request: Handler) -> Answer:
        """Change a webhook.

        Its address, events, label, and whether it is on. Switched on again it is sent what ends from then
        on; what it missed can be sent again, one by one.
        """
        exchange = exchange_of(request.scope)
        name = _webhook(request)
        Query(request.scope).close()
        change = await exchange.json(WebhookPatch)
        return json_answer(webhook_view(await self._webhooks.update(exchange.who, name, change)))

    async def drop(self, request: Handler) -> None:
        """Delete a webhook.

        With all that it was sent, and was to be sent.
        """
        name = _webhook(request)
        Query(request.scope).close()
        await self._webhooks.drop(exchange_of(request.scope).who, name)

    async def rotate(self, request: Handler) -> Answer:
        """Rotate a webhook's secret.

        The new one is shown this once. For 24 hours what is sent is signed by both; one rotated out before
        is good no more.
        """
        name = _webhook(request)
        Query(request.scope).close()
        made = await self._webhooks.rotate(exchange_of(request.scope).who, name)
        return json_answer(new_webhook_view(made))

    async def test(self, request: Handler) -> Answer:
        """Send a test.

        An event `webhook.test`, signed and tried again as any other; its delivery tells what came of it.
        """
        name = _webhook(request)
        Query(request.scope).close()
        told = await self._webhooks.test(exchange_of(request.scope).who, name)
        return json_answer(delivery_view(told), 202)

    async def deliveries(self, request: Handler) -> Answer:
        """List deliveries, newest first.

        What a webhook was sent, and is to be sent, with every try.
        """
        name = _webhook(request)
        query = Query(request.scope, ("cursor", "limit"))
        before, limit = query.page(self._cursors, "deliveries", name)
        query.close()
        found = await self._webhooks.deliveries(exchange_of(request.scope).who, name, before, limit)
        following = None if found.next is None else self._cursors.make(found.next, "deliveries", name)
        return json_answer(DeliveryPageView(tuple(delivery_view(one) for one in found.deliveries), following))

    async def redeliver(self, request: Handler) -> Answer:
        """Send a delivery again.

        Now, whatever came of it before, under the id it has: a receiver that goes by ids sees it once.
        """
        name = _webhook(request)
        delivery = ids.parse(request.path_params["delivery_id"], ids.DELIVERY)
        Query(request.scope).close()
        if delivery is None:
            raise Problem("not_found")
        told = await self._webhooks.redeliver(exchange_of(request.scope).who, name, delivery)
        return json_answer(delivery_view(told), 202)


def _webhook(request: Handler) -> str:
    """Return the UUID's text of the webhook a path names; `Problem` (404) where it can name none."""
    name = ids.parse(request.path_params["webhook_id"], ids.ENDPOINT)
    if name is None:
        raise Problem("not_found")
    return name


def _place(endpoint: Endpoint) -> int:
    """Return an endpoint's place in a list: the first 80 bits of its id, which sorts by when it was made."""
    return int(endpoint.id.replace("-", ""), 16) >> 48


def webhook_view(endpoint: Endpoint) -> WebhookView:
    """Return an endpoint as it is shown, without its secret."""
    rotating = endpoint.former is not None
    return WebhookView(
        id=ids.shown(endpoint.id, ids.ENDPOINT),
        url=endpoint.url,
        events=endpoint.events,
        scope=endpoint.scope,
        label=endpoint.label,
        form=endpoint.form,
        subject=endpoint.subject,
        enabled=endpoint.disabled is None,
        disabled_reason=endpoint.disabled,
        failures=endpoint.failures,
        created_at=time_text(endpoint.created_at),
        previous_secret_expires_at=time_text(endpoint.former_until) if rotating else None,
    )


def new_webhook_view(made: Made) -> NewWebhookView:
    """Return an endpoint with its new secret, this once."""
    return NewWebhookView(secret=made.secret, **asdict(webhook_view(made.endpoint)))


def delivery_view(delivery: Delivery) -> DeliveryView:
    """Return a delivery as it is shown, with its tries."""
    return DeliveryView(
        id=ids.shown(delivery.id, ids.DELIVERY),
        event=delivery.event,
        job=None if delivery.job is None else ids.shown(delivery.job),
        state=delivery.state,
        tries=tuple(TryView(time_text(one.at), one.status, one.cut, one.millis) for one in delivery.tries),
        created_at=time_text(delivery.created_at),
        next_try_at=None if delivery.due_at is None else time_text(delivery.due_at),
    )
