"""Holds a request until there is news of its job: for our own `?wait=` and for dialects that answer late.

A wait ends by news, by its own length, with this process, or when the client leaves. It changes nothing:
who leaves does not cancel a job.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.api.exchange import Exchange, Vanished, left

if TYPE_CHECKING:
    from gateway.jobs import Jobs
    from gateway.lifetime import Lifetime
    from gateway.store.contract import Found


async def until_news(
    jobs: Jobs, lifetime: Lifetime, exchange: Exchange, job: str, after: int | None, seconds: float
) -> Found:
    """Return the job once there is news of it, or as it is when time or this process runs out.

    News is its end, or with `after` a version above that one. Raises `Vanished` when the client leaves first.
    """
    exchange.waited = True
    news = asyncio.ensure_future(jobs.wait(exchange.who, job, after, seconds))
    stop = asyncio.ensure_future(lifetime.stopping.wait())
    gone = asyncio.ensure_future(left(exchange.receive))
    try:
        await asyncio.wait((news, stop, gone), return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not news.done():
            raise Vanished
        return news.result() if news.done() else await jobs.get(exchange.who, job)
    finally:
        for task in (news, stop, gone):
            task.cancel()
