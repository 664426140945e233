"""The calls about service keys: make one, list them, revoke one.

A key's text is in one answer, the one to its making, and that is never stored on its way. A list shows
what people know a key by. Whether the caller may, the use case asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import delete, get, post
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct
from msgspec.structs import asdict

from gateway.api.exchange import Answer, exchange_of, json_answer
from gateway.api.gate import closed
from gateway.api.queries import Cursors, Query
from gateway.api.views import Time, time_text
from gateway.errors import Problem
from policies import ids
from policies.access import Action, KeyRequest

if TYPE_CHECKING:
    from gateway.keys import Keys, Made
    from policies.model import ServiceKey

Handler = Request[Any, Any, Any]


class Known(Struct, frozen=True):
    """What a service key is known by, and what it may."""

    id: str
    hint: str
    label: str
    subject: str
    roles: tuple[str, ...]
    plan: str | None
    scopes: tuple[str, ...] | None
    created_at: Time
    expires_at: Time


class NewKeyView(Known, frozen=True):
    """A service key just made. `key` is the bearer, shown this once."""

    key: str


class KeyView(Known, frozen=True):
    """A service key, known by its `hint`. Without `scopes` (null) it is bound by its roles alone."""

    revoked_at: Time | None


class KeyPage(Struct, frozen=True):
    """A page of service keys, newest first. `next` is the cursor of the page after, null at the end."""

    data: tuple[KeyView, ...]
    next: str | None


class KeyCalls:
    """The routes of service keys."""

    def __init__(self, keys: Keys, cursors: Cursors) -> None:
        self._keys = keys
        self._cursors = cursors

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        read, write = closed(Action.READ), closed(Action.WRITE)
        return [
            post("/v1/keys", operation_id="createKey", status_code=201, opt=write)(self.create),
            get("/v1/keys", operation_id="listKeys", opt=read)(self.page),
            delete("/v1/keys/{key_id:str}", operation_id="revokeKey", opt=write)(self.revoke),
        ]

    async def create(self, request: Handler) -> Answer:
        """Make a service key.

        For those who cannot ask for a token each hour: send `key` as the bearer, wherever a token is sent.
        It is shown this once. It speaks for the caller, with no more than theirs; the tenant's admins make
        keys for others too. A service key makes none.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        made = await self._keys.create(exchange.who, await exchange.json(KeyRequest))
        return json_answer(new_key_view(made), 201)

    async def page(self, request: Handler) -> Answer:
        """List service keys, newest first.

        A caller's own; for the tenant's admins the tenant's. Revoked and expired ones are listed too.
        """
        who = exchange_of(request.scope).who
        query = Query(request.scope, ("cursor", "limit"))
        scope = ("keys", who.principal.tenant, "" if who.principal.is_admin else who.principal.subject)
        before, limit = query.page(self._cursors, *scope)
        query.close()
        keys = await self._keys.list(who)
        # Keys are never removed, so a place counted from the oldest stays where it is when new ones come.
        left = len(keys) if before is None else min(before, len(keys))
        start = len(keys) - left
        shown = tuple(key_view(key) for key in keys[start : start + limit])
        following = self._cursors.make(left - limit, *scope) if left > limit else None
        return json_answer(KeyPage(shown, following))

    async def revoke(self, request: Handler) -> None:
        """Revoke a service key.

        The next request that comes with it is refused, and it never counts again. May be repeated.
        """
        key = ids.parse(request.path_params["key_id"], ids.KEY)
        Query(request.scope).close()
        if key is None:
            raise Problem("not_found")
        await self._keys.revoke(exchange_of(request.scope).who, key)


def new_key_view(made: Made) -> NewKeyView:
    """Return a new key as it is shown, this once."""
    return NewKeyView(key=made.text, **asdict(_known(made.key)))


def key_view(key: ServiceKey) -> KeyView:
    """Return a key as it is listed."""
    revoked = None if key.revoked_at is None else time_text(key.revoked_at)
    return KeyView(revoked_at=revoked, **asdict(_known(key)))


def _known(key: ServiceKey) -> Known:
    return Known(
        id=ids.shown(key.id, ids.KEY),
        hint=key.hint,
        label=key.label,
        subject=key.subject,
        roles=key.roles,
        plan=key.plan,
        scopes=key.scopes,
        created_at=time_text(key.created_at),
        expires_at=time_text(key.expires_at),
    )
