"""A job that somebody waits for: subscribed to first, then looked at, so that no news falls in between.

News wake, and whoever is woken looks. News may be lost on their way, so each waits a while at most before a
look of its own; that while differs a little from waiter to waiter and from look to look, so that many who
were woken together do not look together ever after. A look is one read, and nothing else is asked meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

    from gateway.store.contract import Watch
    from policies.model import Job

LOOK_SECONDS: Final = 15.0
"""What lies between two looks of one waiter, about, where it hears of nothing."""
SPREAD: Final = 0.1
"""By how much of it two such times differ from it at most."""


class Following:
    """One subscription and what it is looked at by. `chance` tells numbers in [0, 1)."""

    def __init__(
        self, watch: Watch, look: Callable[[], Awaitable[Job | None]], chance: Callable[[], float]
    ) -> None:
        self.look = look
        self._watch = watch
        self._chance = chance

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()

    async def rings(self, seconds: float = LOOK_SECONDS, most: float = float("inf")) -> bool:
        """Wait for news about that many seconds, never more than `most`; return whether any came."""
        about = seconds * (1 - SPREAD + 2 * SPREAD * self._chance())
        return bool(await self._watch.changed(min(about, most)))

    async def until(self, over: Callable[[Job], bool], known: Job, seconds: float) -> Job | None:
        """Return the job once it is `over`, as it is when time is up, or None once it is gone."""
        clock = asyncio.get_running_loop().time  # a wait's length is not the time of day's to change
        end = clock() + seconds
        job: Job | None = known
        while job is not None and not over(job) and (left := end - clock()) > 0:
            await self.rings(most=left)
            job = await self.look()
        return job
