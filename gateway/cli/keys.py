"""`safelight key`: make, list and revoke service keys, by a server that runs or straight on the store.

A key is printed alone on stdout, so that a shell can keep it; whatever a person wants to know goes to
stderr. The way is found once: a server that is named, else the one that runs on the data folder, else
this process, which asks the same use case. Each of them acts as an admin of the tenant.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from msgspec import Struct

from gateway import dev
from gateway.cli.client import Client, answers
from gateway.cli.screen import Screen, printable
from gateway.cli.sources import secret_in
from gateway.errors import Refusal
from policies.access import KeyRequest
from policies.model import Principal, Role

OPERATOR: Final = "operator"
"""The subject that acts where nobody's token says who does."""
TOKEN_SECONDS: Final = 60
PAGE: Final = 100


class Place(Struct, frozen=True):
    """Whose keys, and where they are: a server's address, a settings file, or a data folder."""

    tenant: str
    data: Path
    config: Path | None = None
    url: str | None = None
    token: str | None = None


class Shown(Struct, frozen=True):
    """A service key as it is shown. `key` is set where it was just made."""

    id: str
    hint: str
    label: str
    subject: str
    roles: tuple[str, ...]
    plan: str | None
    scopes: tuple[str, ...] | None
    created_at: str
    expires_at: str
    revoked_at: str | None = None
    key: str = ""


class Page(Struct, frozen=True):
    """Some keys, newest first, and where the list goes on."""

    data: tuple[Shown, ...]
    next: str | None


class Desk(Protocol):
    """Who keeps the keys: a server, or this process. Raises `Problem` and `Refusal`."""

    def create(self, asked: KeyRequest) -> Shown:
        """Make a key."""
        ...

    def all(self) -> Iterator[Shown]:
        """Go through the tenant's keys, newest first."""
        ...

    def revoke(self, name: str) -> None:
        """Revoke a key."""
        ...


class Server:
    """A `Desk` over HTTP."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, asked: KeyRequest) -> Shown:
        """Make a key."""
        return self._client.make("/v1/keys", asked, Shown)

    def all(self) -> Iterator[Shown]:
        """Go through the tenant's keys, page by page."""
        more = ""
        while True:
            page = self._client.read(f"/v1/keys?limit={PAGE}{more}", Page)
            yield from page.data
            if page.next is None:
                return
            more = f"&cursor={page.next}"

    def revoke(self, name: str) -> None:
        """Revoke a key."""
        self._client.call("DELETE", f"/v1/keys/{name}")


class _Account(Struct, frozen=True):
    """Whose a token is."""

    tenant: str


@contextlib.contextmanager
def desk_of(place: Place, environ: Mapping[str, str], log: BinaryIO) -> Iterator[Desk]:
    """Give whoever keeps the keys: the server named, else the data folder's, else this process."""
    if place.url is not None:
        yield Server(_named(place, place.url))
        return
    url = None if place.config is not None else dev.read_run(place.data)
    if url is not None and answers(url):
        admin = Principal(place.tenant, OPERATOR, frozenset(Role))
        now = time.time_ns() // 1_000_000
        yield Server(Client(url, dev.token(secret_in(place.data), admin, now, TOKEN_SECONDS)))
        return
    from gateway.cli.desk import opened

    with opened(place, environ, log) as desk:
        yield desk


def _named(place: Place, url: str) -> Client:
    """Return a client of the server named, whose token must be of the tenant that is meant."""
    if place.token is None:
        raise Refusal("--url needs a token of the tenant's admin: give --token, or set SAFELIGHT_TOKEN")
    client = Client(url, place.token)
    tenant = client.read("/v1/account", _Account).tenant
    if tenant != place.tenant:
        raise Refusal(f"the token is of the tenant {printable(tenant)!r}, not of {place.tenant!r}")
    return client


def run_create(desk: Desk, asked: KeyRequest, screen: Screen) -> None:
    """Make a key and print it alone; the rest is told on stderr."""
    made = desk.create(asked)
    screen.say(printable(made.key))
    screen.tell(f"{made.id}  {_words(made)}")
    screen.tell("It is shown this once. Send it as the bearer, wherever a token is sent.")


def run_list(desk: Desk, screen: Screen) -> None:
    """Tell of every key of the tenant, newest first."""
    keys = list(desk.all())
    for key in keys:
        screen.say(printable(f"{key.id}  {key.hint}  {_words(key)}"))
    if not keys:
        screen.tell("The tenant has no service keys.")


def run_revoke(desk: Desk, name: str, screen: Screen) -> None:
    """Revoke a key."""
    desk.revoke(name)
    screen.tell(f"{name} is revoked: the next request that comes with it is refused.")


def _words(key: Shown) -> str:
    """Return whom a key speaks for, with what, and how long."""
    parts = [f"for {key.subject}", ", ".join(key.roles)]
    if key.plan is not None:
        parts.append(f"plan {key.plan}")
    if key.scopes is not None:
        parts.append(f"scopes {' '.join(key.scopes)}")
    if key.label:
        parts.append(f"label {key.label!r}")
    parts.append(
        f"until {key.expires_at[:10]}" if key.revoked_at is None else f"revoked {key.revoked_at[:10]}"
    )
    return "; ".join(parts)
