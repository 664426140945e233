"""Reads of one moment travel together and come apart again: one exchange, however many callers.

What several ask is asked once. Each caller is answered, or told a fault, by itself: what cannot be sent never
joins the others, and an error among the replies is the error of whoever asked for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.redis_link import packed

if TYPE_CHECKING:
    from gateway.store.redis_link import Command

Send = Callable[[Sequence["Command"]], Coroutine[Any, Any, list[Any]]]


class Caller(NamedTuple):
    """What one caller asks, and where they wait for the replies."""

    commands: Sequence[Command]
    replies: asyncio.Future[list[Any]]


class Together:
    """Gathers what is asked in one turn of the loop. `send` returns replies, a fault in place of some."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[Caller] = []
        self._under_way: set[asyncio.Task[list[Any]]] = set()

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies, in order; raises `StoreUnavailable` where one is a fault."""
        return whole(await self.reach(commands))

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply of each, in order, or the fault that stood in the way."""
        packed(commands)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._leave)
        caller = Caller(commands, loop.create_future())
        self._waiting.append(caller)
        return await caller.replies

    def _leave(self) -> None:
        callers, self._waiting = self._waiting, []
        commands = list(dict.fromkeys(command for caller in callers for command in caller.commands))
        task = asyncio.get_running_loop().create_task(self._send(commands), name="store reads")
        self._under_way.add(task)
        task.add_done_callback(partial(self._arrive, callers, commands))

    def _arrive(
        self, callers: Sequence[Caller], commands: Sequence[Command], task: asyncio.Task[list[Any]]
    ) -> None:
        """Hand out what came. A bug is everybody's; who has gone away wants nothing any more."""
        self._under_way.discard(task)
        gone = StoreUnavailable("the reads were given up")
        bug = gone if task.cancelled() else task.exception()
        replies = {} if bug else dict(zip(commands, task.result(), strict=True))
        for caller in callers:
            if caller.replies.done():
                continue
            if bug is None:
                caller.replies.set_result([replies[command] for command in caller.commands])
            else:
                caller.replies.set_exception(bug)


def whole(replies: list[Any]) -> list[Any]:
    """Return replies, or raise the first fault among them."""
    for reply in replies:
        if isinstance(reply, StoreUnavailable):
            raise reply
    return replies
