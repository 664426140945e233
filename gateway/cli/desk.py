"""The desk of service keys in this process, where no server runs on the store.

A whole house is built, as for a server, and none of it started: the same use case decides and counts and
tells the trail, no job is made. A store that another process holds is not touched; what to do is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from gateway import dev
from gateway.api.keys import key_view, new_key_view
from gateway.app import VERSION, Choices, House
from gateway.cli.inprocess import Bugs
from gateway.cli.keys import OPERATOR, Shown
from gateway.cli.sources import files_of, secret_in, settings_for
from gateway.errors import Problem, Refusal
from gateway.store.lock import InUse
from gateway.telemetry import Telemetry
from policies import access, ids
from policies.model import Principal, Role

if TYPE_CHECKING:
    from gateway.callers import Caller
    from gateway.cli.keys import Place
    from gateway.policy import PolicyFiles
    from gateway.settings import Settings
    from policies.access import KeyRequest


class Direct:
    """A `Desk` on a house that is open. It acts as an admin of the tenant."""

    def __init__(self, house: House, runner: asyncio.Runner, tenant: str) -> None:
        self._keys = house.keys
        self._runner = runner
        self._who = _admin(house, tenant)

    def create(self, asked: KeyRequest) -> Shown:
        """Make a key."""
        made = self._runner.run(self._keys.create(self._who, asked))
        return msgspec.convert(msgspec.to_builtins(new_key_view(made)), Shown)

    def all(self) -> Iterator[Shown]:
        """Go through the tenant's keys, newest first."""
        for key in self._runner.run(self._keys.list(self._who)):
            yield msgspec.convert(msgspec.to_builtins(key_view(key)), Shown)

    def revoke(self, name: str) -> None:
        """Revoke a key."""
        key = ids.parse(name, ids.KEY)
        if key is None:
            raise Problem("not_found")
        self._runner.run(self._keys.revoke(self._who, key))


@contextlib.contextmanager
def opened(place: Place, environ: Mapping[str, str], log: BinaryIO) -> Iterator[Direct]:
    """Open the store of a place for as long as a command takes; `Refusal` where another process has it."""
    settings, files, choices = _built_from(place, environ)
    telemetry = Telemetry(Bugs(log), _now, level="error", version=VERSION).open()
    with contextlib.closing(telemetry), asyncio.Runner() as runner:
        house = runner.run(_house(settings, files, telemetry, choices))
        try:
            yield Direct(house, runner, place.tenant)
        finally:
            runner.run(house.close())


def _built_from(place: Place, environ: Mapping[str, str]) -> tuple[Settings, PolicyFiles, Choices]:
    if place.config is not None:
        settings, files = settings_for(str(place.config), environ, "all")
        return settings, files, Choices()
    secret_in(place.data)  # a folder that is none yet is refused, not made
    settings = dev.settings_of(place.data, environ, "127.0.0.1", 0)
    return settings, files_of(settings), Choices(dev=True)


async def _house(settings: Settings, files: PolicyFiles, telemetry: Telemetry, choices: Choices) -> House:
    """Build a house, on the loop it lives on."""
    try:
        return House(settings, files, telemetry, choices)
    except InUse as reason:
        raise Refusal(
            f"{reason.path} is in use by a server that this command cannot find. "
            "Name it by --url, with a --token of the tenant's admin, or stop it first."
        ) from reason


def _admin(house: House, tenant: str) -> Caller:
    """Return the caller this desk acts as; `Refusal` for what is no tenant's name."""
    if not access.TENANT.fullmatch(tenant):
        raise Refusal(f"{tenant!r} is not a tenant's name")
    who = Principal(tenant, OPERATOR, frozenset(Role))
    return house.callers.admit_caller(who)


def _now() -> int:
    return time.time_ns() // 1_000_000
