"""gptimage2.plus's webhooks: registered, listed, changed and rotated at `/api/account/webhooks`.

The document's page does so with a session's cookie; here a bearer is asked for and cookies mean nothing:
a cookie would bring request forgery. What is sent to them is `gptimage2_plus.webhook_body`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, cast

from gateway.api.exchange import Answer
from gateway.api.views import time_text
from gateway.dialects.speech import NO_STORE, Call, ignored, read_object, tell
from gateway.dialects.zod import Body, Issue
from gateway.errors import Problem
from gateway.webhooks import WebhookPatch, WebhookRequest
from policies import ids
from policies.access import Action
from policies.model import Flaw

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange
    from gateway.webhooks import Webhooks
    from policies.webhooks import Endpoint

FORM: Final = "gptimage2_plus"
PLACE: Final = "/api/account/webhooks"
LONGEST_URL: Final = 2048
LONGEST_LABEL: Final = 200
MOST_EVENTS: Final = 16


def registered(body: Body) -> WebhookRequest:
    """Return what a registration asks for; of no use where `body.issues` has something."""
    url = body.text("url", LONGEST_URL)
    events = body.texts("events", MOST_EVENTS, 64)
    label = body.text("label", LONGEST_LABEL, default="")
    scope = body.choice("scope", ("own", "tenant"), "own")
    return WebhookRequest(
        url=url,
        events=events if body.has("events") else None,
        label=label,
        scope=cast("Literal['own', 'tenant']", scope),
    )


def changed(body: Body) -> WebhookPatch:
    """Return what a change asks for; of no use where `body.issues` has something."""
    events = body.texts("events", MOST_EVENTS, 64)
    url, label = body.text("url", LONGEST_URL, default=""), body.text("label", LONGEST_LABEL, default="")
    return WebhookPatch(
        url=url if body.has("url") else None,
        events=events if body.has("events") else None,
        label=label if body.has("label") else None,
        enabled=body.flag("enabled"),
    )


def view(endpoint: Endpoint) -> dict[str, object]:
    """Return an endpoint as this API shows one. Its secret was shown once."""
    return {
        "id": ids.shown(endpoint.id, ids.ENDPOINT),
        "url": endpoint.url,
        "events": endpoint.events,
        "label": endpoint.label,
        "scope": endpoint.scope,
        "enabled": endpoint.disabled is None,
        "failures": endpoint.failures,
        "createdAt": time_text(endpoint.created_at),
    }


class AccountWebhooks:
    """The calls."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def calls(self) -> Sequence[Call]:
        """Return them."""
        hooks, one = Action.WEBHOOKS, PLACE + "/{id}"
        return (
            Call("POST", PLACE, "createPlusWebhook", hooks, self.create),
            Call("GET", PLACE, "listPlusWebhooks", hooks, self.list),
            Call("PATCH", one, "updatePlusWebhook", hooks, self.update),
            Call("DELETE", one, "deletePlusWebhook", hooks, self.delete),
            Call("POST", one + "/rotate", "rotatePlusWebhook", hooks, self.rotate),
        )

    async def create(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """Register a webhook of this API.

        Its secret is shown now and never again, so no key replays this.
        """
        body = Body(await read_object(exchange))
        wish = registered(body)
        _whole(body.issues)
        made = await self._webhooks.create(exchange.who, wish, FORM)
        headers = ignored(exchange, body.others("url", "events", "label", "scope"))
        return tell({"id": ids.shown(made.endpoint.id, ids.ENDPOINT), "secret": made.secret}, 201, headers)

    async def list(self, exchange: Exchange, _values: Mapping[str, str]) -> Answer:
        """List the caller's webhooks of this API."""
        found = await self._webhooks.list(exchange.who, FORM)
        return tell({"webhooks": [view(endpoint) for endpoint in found]})

    async def update(self, exchange: Exchange, values: Mapping[str, str]) -> Answer:
        """Change a webhook of this API, or switch it on again."""
        body = Body(await read_object(exchange))
        change = changed(body)
        _whole(body.issues)
        endpoint = await self._webhooks.update(exchange.who, _name(values), change, FORM)
        return tell(view(endpoint), 200, ignored(exchange, body.others("url", "events", "label", "enabled")))

    async def delete(self, exchange: Exchange, values: Mapping[str, str]) -> Answer:
        """Forget a webhook of this API."""
        await self._webhooks.drop(exchange.who, _name(values), FORM)
        return Answer(204, [NO_STORE])

    async def rotate(self, exchange: Exchange, values: Mapping[str, str]) -> Answer:
        """Make a new secret for a webhook of this API.

        For 24 hours the old one signs, and the new one beside it.
        """
        made = await self._webhooks.rotate(exchange.who, _name(values), FORM)
        return tell({"id": ids.shown(made.endpoint.id, ids.ENDPOINT), "secret": made.secret})


def _name(values: Mapping[str, str]) -> str:
    name = ids.parse(values["id"], ids.ENDPOINT)
    if name is None:
        raise Problem("not_found")
    return name


def _whole(issues: Sequence[Issue]) -> None:
    if issues:
        raise Problem("invalid_request", flaws=tuple(_flaw(issue) for issue in issues))


def _flaw(issue: Issue) -> Flaw:
    return Flaw("".join(f"/{part}" for part in issue.path), issue.message)
