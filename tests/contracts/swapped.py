"""A store that goes back: one place is put under an engine in place of another, which knew less."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.backend import Change, Failed, Loaded, News, Outcome, Strange, Want
from gateway.store.contract import Shut
from gateway.store.engine import Engine
from gateway.store.flight import QUIET, Patience
from policies.model import Job
from tests.contracts.rig import Rig, put


class Swapped:
    """A back end that stands for several, one at a time. It fails the commits of `failing`, by number.

    What `odd` holds, a tenant, is no document. `unsure`: what is committed is done, and nobody is told so.
    """

    def __init__(self, first: Any) -> None:
        self.now = first
        self.failing: set[int] = set()
        self.commits = 0
        self.deaf: Literal["", "all", "each"] = ""
        self.odd = ""
        self.unsure = False
        self.met: Strange | None = None
        self.turned: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)

    def listen(self, told: Callable[[News | None], None], turned: Callable[[], None]) -> None:
        """Keep what is told of a change."""
        self.turned = turned
        self.now.listen(told, turned)

    def strange(self) -> Strange | None:
        """Return what the test says was met."""
        return self.met

    def accept(self, strange: Strange) -> None:
        """Take it."""
        assert strange == self.met
        self.met = None

    async def load(self, wants: Sequence[Want]) -> list[Loaded]:
        """Load, or fail: by one fault, by one for each want, or for any that is odd."""
        if self.deaf == "all":
            raise StoreUnavailable("no disk")
        if any(want.tenant == self.odd for want in wants):
            raise msgspec.DecodeError("not a document")
        loaded: list[Loaded] = await self.now.load(wants)
        return [Loaded(fault=StoreUnavailable("loading")) for _ in wants] if self.deaf else loaded

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit, or fail."""
        self.commits += 1
        if self.met is not None or self.commits in self.failing:
            self.failing.discard(self.commits)
            raise StoreUnavailable("no disk")
        outcomes: list[Outcome] = await self.now.commit(changes)
        return [Failed(StoreUnavailable("unconfirmed")) for _ in outcomes] if self.unsure else outcomes


class TwoStories:
    """Two stores of one kind and one clock, whose histories part. `store` is put back to what `older` has.

    `told` is what its engine said of tenants that went back.
    """

    def __init__(self, kind: str, place: Path) -> None:
        places = [place / f"{place.name}-{name}" for name in ("new", "old")]
        for each in places:
            each.mkdir()
        self.rig, self.old = Rig(kind, places[0]), Rig(kind, places[1])
        self.old.clock = self.rig.clock
        self.told: list[tuple[str, Shut]] = []
        self.heard = asyncio.Event()

    async def open(self) -> None:
        """Open both, and an engine that works on the first."""
        self._first = self.rig.backend()
        self.under: Any = Swapped(self._first)
        self.older = Engine(self.old.backend(), self.rig.chain, _names())
        self.store = self.engine(Patience(settle=0.0))

    def engine(self, patience: Patience) -> Engine:
        """Return an engine on what is to go back."""
        hears = QUIET._replace(rewound=self._tell)
        return Engine(self.under, self.rig.chain, _names(), hears=hears, patience=patience)

    async def both(self, n: int = 1, **fields: object) -> list[Job]:
        """Submit as many jobs, which the older store has too."""
        jobs = [self.rig.job(**fields) for _ in range(n)]  # type: ignore[arg-type]
        for job in jobs:
            await put(self.older, job)
        return [await put(self.store, job) for job in jobs]

    def go_back(self) -> None:
        """Put the older store in place of the newer."""
        self.under.now = self.older.backend

    async def close(self) -> None:
        """Close both."""
        self.go_back()
        await self.store.close()
        await self._first.close()
        await self.older.close()

    def _tell(self, tenant: str, shut: Shut) -> None:
        self.told.append((tenant, shut))
        self.heard.set()


def _names() -> Callable[[], str]:
    """Return what gives references: the same ones, in the same order, each time."""
    numbers = itertools.count(1)
    return lambda: f"r{next(numbers):031x}"
