"""Who is at a Redis, and in which form they all write.

Each process says every few seconds that it lives and what it can read, and hears the form in force. One
that was silent for long (frozen, or cut off) may be taken for dead and the form raised meanwhile: it says
its name again before it writes anything. A process that cannot read the form in force writes no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.errors import StoreUnavailable
from gateway.store.format import Forms, Member, TooNew, Upgrade, behind

if TYPE_CHECKING:
    from gateway.store.redis_site import Site

BEAT_SECONDS: Final = 10.0
FRESH_SECONDS: Final = 40.0
"""How long a process may write unheard: by more than a commit is good less than it is taken to live."""
FORGOTTEN_MS: Final = 3_600_000
"""How long one that is silent stays on the roll."""
TRIES: Final = 20


class Roll:
    """The roll, as one process has it. `steady` tells seconds that only go forward."""

    def __init__(
        self,
        site: Site,
        forms: Forms,
        clock: Callable[[], int],
        name: str,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._forms = forms
        self._clock = clock
        self._name = name
        self._steady = steady
        self._heard = -FRESH_SECONDS
        self._called = False
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Say one's name, and again every few seconds; raises `TooNew` where one cannot read the form."""
        await self.call()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="store roll")

    async def sure(self) -> None:
        """Say one's name if that was long ago. Before anything is written."""
        if self._steady() - self._heard >= FRESH_SECONDS:
            await self.call()

    async def call(self) -> None:
        """Say one's name and hear the form in force; raises `TooNew` where one cannot read it."""
        began, now, forms = self._steady(), self._clock(), self._forms
        said = f"{forms.newest}:{now}:{self._name}"
        asked = ("call", self._site.me, said, forms.newest, now - FORGOTTEN_MS)
        (form,) = await self._site.answers([self._site.call("roll", self._keys(), asked)])
        self._called = True
        refusal = forms.unfit(form)
        if refusal is not None:
            self._heard = began - FRESH_SECONDS
            raise TooNew(f"This Redis holds {refusal}")
        forms.writes = form
        self._heard = began

    async def stands(self) -> Upgrade:
        """Say how the store stands, and who is in the way of the newest form."""
        return (await self._seen())[0]

    async def finish(self) -> Upgrade:
        """Have the newest form written from now on, unless somebody lives who could not read it."""
        for _ in range(TRIES):
            stands, seen = await self._seen()
            if stands.behind or stands.form >= stands.newest:
                return stands
            asked = ("raise", seen, stands.newest)
            (form,) = await self._site.answers([self._site.call("roll", self._keys(), asked)])
            if form:
                return Upgrade(stands.newest, stands.newest)
        raise StoreUnavailable("processes come and go faster than they can be looked at")

    async def leave(self) -> None:
        """Take one's name off the roll."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._called:
            await self._site.ask([("HDEL", self._site.names.roll, self._site.me)])

    def _keys(self) -> tuple[str, str]:
        return self._site.names.schema, self._site.names.roll

    async def _seen(self) -> tuple[Upgrade, list[str]]:
        schema, roll = self._keys()
        found, form = await self._site.ask([("HGETALL", roll), ("GET", schema)])
        words = [word.decode() for word in found]
        members = [_member(me, said) for me, said in zip(words[::2], words[1::2], strict=True)]
        newest = self._forms.newest
        waits = behind(members, newest, self._clock())
        return Upgrade(newest if form is None else int(form), newest, waits), words

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(StoreUnavailable):  # then the next write asks, and is told
                await self.call()


def _member(me: str, said: str) -> Member:
    newest, at, name = said.split(":", 2)
    return Member(me, int(newest), int(at), name)
