"""The three books of a run, opened once it is over: clients', upstreams', and the store's."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gateway import doctor
from gateway.app import chain_of
from gateway.secrets import Secret
from tests.chaos.book import read_book
from tests.chaos.listener import arrivals
from tests.chaos.marks import read_marks
from tests.chaos.orders import by_number
from tests.chaos.stage import FAKES, SECRET, Open

if TYPE_CHECKING:
    from gateway.store.backend import Examined
    from policies.model import Job
    from tests.chaos.book import Said
    from tests.chaos.listener import Arrived
    from tests.chaos.marks import Mark
    from tests.chaos.orders import Order
    from tests.chaos.plan import Profile
    from tests.chaos.stage import Stage
    from tests.fakes.behavior import Call


class Books(Struct, frozen=True, dict=True):
    """What everybody says of one run. `logged`: when a process told of an upstream's answer."""

    said: Sequence[Said]
    known: Mapping[int, Order]
    calls: Mapping[str, Sequence[Call]]
    tenants: Mapping[str, Examined]
    told: Counter[Arrived]
    marks: Sequence[Mark]
    logged: Mapping[str, Sequence[int]]
    exposed: frozenset[Open]
    differences: tuple[str, ...]
    broken: tuple[str, ...]

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job the store holds."""
        return [job for tenant in self.tenants.values() for job in tenant.jobs]

    @cached_property
    def paid(self) -> dict[str, Counter[str]]:
        """Paid work by upstream and what names it: the slot's key where one is sent, else the prompt."""
        return {
            name: Counter(call.idempotency_key or call.prompt for call in calls if call.paid)
            for name, calls in self.calls.items()
        }

    def orders(self, word: str) -> set[int]:
        """Return the orders of which something was noted."""
        return {line.order for line in self.said if line.said == word}


async def open_books(stage: Stage, profile: Profile, exposed: set[Open]) -> Books:
    """Read all there is of a run whose gateway has stopped."""
    said = read_book(stage.folder / "clients")
    backend = stage.ground.read()
    if backend is None:
        raise RuntimeError(f"there is no store: see {stage.folder}")
    chain = chain_of((Secret(SECRET),))
    try:
        different = tuple(str(f) for f in await doctor.examine(backend, chain) if f.kind == "difference")
        trails = [await doctor.verify_trail(backend, chain, name) for name in await backend.tenants()]
        tenants = {name: await backend.examine(name) for name in await backend.tenants()}
    finally:
        await backend.close()
    return Books(
        said=said,
        known=by_number(profile.mix, max((line.order for line in said), default=0)),
        calls={name: stage.calls(name) for name in FAKES},
        tenants=tenants,
        told=arrivals(stage.folder / "webhooks"),
        marks=read_marks(stage.folder / "marks"),
        logged={life.name: _answers(stage, life.name) for life in stage.lives},
        exposed=frozenset(exposed),
        differences=different,
        broken=tuple(str(trail) for trail in trails if isinstance(trail, doctor.Broken)),
    )


class _Line(Struct):
    at: str = ""
    event: str = ""


def _answers(stage: Stage, name: str) -> list[int]:
    """Return when a process told its log of an upstream's answer, over all its lives."""
    path = stage.folder / f"{name}.log"
    instants = []
    for raw in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = msgspec.json.decode(raw, type=_Line)
        except msgspec.DecodeError:
            continue  # its writer died over it
        if line.event == "attempt":
            instants.append(_millis(line.at))
    return instants


def _millis(text: str) -> int:
    """Return the instant of a line of the log."""
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)
