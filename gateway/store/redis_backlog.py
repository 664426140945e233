"""How much waits in Redis: read from the shards' lines, which have every open job by when it is due.

A line repeats what the tenants' queues say, so that a look costs the same however many tenants there are.
It is a repetition: a process of before, which did not know lines, may have ended a job and left it there.
So the head of a line is held against its queue before it is believed, and what is wrong is put right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.store.redis_keys import unref
from policies.order import PRIORITIES, Backlog, Line

if TYPE_CHECKING:
    from gateway.store.redis_link import Command
    from gateway.store.redis_site import Site
    from policies.model import Priority

DOUBTED_MS: Final = 60_000
"""How long a job must have been due for its place to be doubted: longer than a lease."""
HEADS: Final = 100
"""Places of one line that are looked at again at once."""

Head = tuple[str, int]
"""A reference to a job, and when the line says it is due."""


async def backlog(site: Site, now: int) -> Backlog:
    """Return what is due and not leased, of one look at each line."""
    return Backlog(now, *[await _line(site, now, priority) for priority in PRIORITIES])


async def _line(site: Site, now: int, priority: Priority) -> Line:
    keys = [shard.line(priority) for shard in site.names.shards]
    commands: list[Command] = []
    for key in keys:
        commands += [("ZCOUNT", key, "-inf", now), ("ZRANGE", key, 0, 0, "WITHSCORES")]
    replies = await site.survey(commands)
    oldest: list[int] = []
    for key, reply in zip(keys, replies[1::2], strict=True):
        (head,) = _heads(reply) or (None,)
        if head is not None and head[1] <= now - DOUBTED_MS:
            head = await _believed(site, key, priority, now)
        if head is not None and head[1] <= now:
            oldest.append(head[1])
    depth = sum(int(count or 0) for count in replies[::2])
    return Line(depth, min(oldest, default=None))


async def _believed(site: Site, key: str, priority: Priority, now: int) -> Head | None:
    """Return the first due job of a line that is where its queue has it; mend the places before it."""
    (reply,) = await site.ask([("ZRANGE", key, 0, HEADS - 1, "WITHSCORES")])
    heads = _heads(reply)
    queues = [
        ("ZSCORE", site.names.room(tenant).queue(priority), job)
        for job, tenant in (unref(name) for name, _due in heads)
    ]
    mends: list[Command] = []
    for (name, at), score in zip(heads, await site.ask(queues), strict=True):
        due = None if score is None else int(float(score))
        if due == at:
            break
        mends.append(("ZREM", key, name) if due is None else ("ZADD", key, "XX", due, name))
    await site.ask(mends)
    left = [head for head in heads[len(mends) :] if head[1] <= now]
    return left[0] if left else None


def _heads(reply: Sequence[bytes]) -> list[Head]:
    return [(name.decode(), int(float(at))) for name, at in zip(reply[::2], reply[1::2], strict=True)]
