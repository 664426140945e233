"""Hears what other processes have changed, so that those who wait here wake at once.

News are names, never state, and may be lost: whoever is woken reads, and whoever is not reads after a
while all the same. When the subscription was down everybody is woken, since anything may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.redis_pack import Heard

if TYPE_CHECKING:
    from gateway.store.backend import News
    from gateway.store.redis_site import Site

AGAIN_SECONDS: Final = 0.5
"""What lies between two attempts to subscribe."""

_heard = msgspec.json.Decoder(Heard)


class Ear:
    """One subscription, kept up until it is closed."""

    def __init__(self, site: Site, tell: Callable[[News | None], None]) -> None:
        self._site = site
        self._tell = tell
        self._own = f'["{site.me}",'.encode()
        self.up = asyncio.Event()
        """Set once it hears."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="store news")

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async for message in self._site.link.listen(self._site.names.wake):
                    self._take(message)
            except StoreUnavailable:
                self.up.clear()
            await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, message: bytes | None) -> None:
        """Tell what is another's; one's own is known."""
        if message is None:
            self.up.set()
            self._tell(None)
            return
        if message.startswith(self._own):  # most are, where one process is busy: not worth reading
            return
        try:
            heard = _heard.decode(message)
        except msgspec.DecodeError:
            return
        for news in heard.news:
            self._tell(news)
