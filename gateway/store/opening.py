"""Opens the store a URL names. The one place that knows which back ends there are.

A library is loaded only where its back end is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.crash import Hook, nowhere
from gateway.errors import Refusal
from gateway.store.format import Forms

if TYPE_CHECKING:
    from gateway.store.backend import Backend

FILE: Final = "sqlite"
READING_SECONDS: Final = 60.0
"""How long who reads all of a tenant at once waits for it: nobody waits for them."""


class Place(Struct, frozen=True):
    """Where a store is: its URL, and who can tell the passwords, which nothing that shows a place shows.

    `replicas`: how many of a Redis must have what is written before it counts. `ca_file`: who may issue its
    certificate; what this host trusts, where none is named. `cert_file` is ours, its key in `key_file` or
    behind it.
    """

    url: str
    password: Callable[[], str] | None = None
    sentinel_password: Callable[[], str] | None = None
    replicas: int = 0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def file(self) -> Path | None:
        """The file of a SQLite store, relative after three slashes, absolute after four; else None."""
        scheme, _, rest = self.url.partition("://")
        return Path(rest.removeprefix("/")) if scheme == FILE else None


class How(Struct, frozen=True):
    """How a store is opened. `me` names this process as no other is named, ever; `name` for its operator.

    Without a `clock` the store's time is its own: Redis', or this host's for a file.
    """

    me: str
    clock: Callable[[], int] | None = None
    crash: Hook = nowhere
    unreadable: Callable[[str], None] = lambda _job: None
    forms: Callable[[], Forms] = Forms
    name: str = ""


def open_backend(place: Place, how: How) -> Backend:
    """Open a store to read and write; a file is refused where another process has it."""
    if place.file is not None:
        from gateway.store.sqlite import SqliteBackend

        return SqliteBackend(
            place.file,
            how.clock or _now,
            crash=how.crash,
            me=how.me,
            unreadable=how.unreadable,
            forms=how.forms(),
        )
    from gateway.store.redis import RedisBackend

    return RedisBackend(place, how)


def open_to_read(place: Place, me: str) -> Backend:
    """Open a store beside whoever writes; a file must be there."""
    if place.file is None:
        from gateway.store.redis import RedisBackend

        return RedisBackend(place, How(me), seconds=READING_SECONDS)
    from gateway.store.sqlite import SqliteBackend

    if not place.file.exists():
        raise Refusal(f"there is no store at {place.file} yet")
    return SqliteBackend(place.file, _now, read_only=True)


def _now() -> int:
    return time.time_ns() // 1_000_000
