"""All that a doctor looks at of a tenant in Redis, read beside whoever writes.

What changes with the tenant's version is read between two looks at it, and is little: figures, the queue,
the jobs that are open. What never changes again is read after that, in pages: ledger and trail up to that
version, and the jobs that had ended by it. Retention may take of it meanwhile: a job that is gone is not
missed, and a trail that was cut is read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.backend import Examined, TenantState, UserState
from gateway.store.redis_pack import PLACES
from gateway.store.redis_reads import endpoints, job_of, ledger, links, pairs, state, users
from policies.order import PRIORITIES

if TYPE_CHECKING:
    from gateway.store.redis_keys import Room
    from gateway.store.redis_link import Command
    from gateway.store.redis_site import Site

PAGE: Final = 500
CHANGING: Final = 20
"""How often a tenant may change under the reader."""


class Moment(NamedTuple):
    """What is of one version of a tenant: `opened` are the texts of jobs that have not ended.

    `ahead` are the newest entries of ledger and trail that are newer than that: there may be none.
    """

    state: TenantState
    users: dict[str, UserState]
    opened: dict[str, bytes | None]
    queued: frozenset[str]
    endpoints: int
    ahead: tuple[list[Any], list[Any]]


async def examine(site: Site, tenant: str, page: int = PAGE) -> Examined:
    """Return everything of a tenant, as of one moment."""
    room = site.names.room(tenant)
    for _ in range(CHANGING):
        found = await _moment(site, room)
        if found is None:
            continue
        version = found.state.version
        rows = [*await _entries(site, room.led, version, page), *found.ahead[0]]
        trail = [*await _entries(site, room.aud, version, page), *found.ahead[1]]
        texts = await _texts(site, room, found, page)
        (document,) = await site.ask([("HMGET", room.t, "v", "d")])
        if state(document, site.reading).doc.anchor == found.state.doc.anchor:
            jobs = {name: job_of(site.reading, name, text) for name, text in texts.items()}
            return Examined(
                state=found.state,
                users=found.users,
                ledger=tuple(ledger(rows)),
                jobs=tuple(job for job in jobs.values() if job is not None),
                queued=found.queued,
                links=tuple(links(trail)),
                unreadable=frozenset(name for name, job in jobs.items() if job is None),
                endpoints=found.endpoints,
            )
    raise StoreUnavailable("the tenant changes faster than it can be read")


async def _moment(site: Site, room: Room) -> Moment | None:
    """Return what is of one version; None where that moved meanwhile."""
    (found,) = await site.ask([("ZRANGE", room.open, 0, -1)])
    names = [name.decode() for name in found]
    commands: list[Command] = [
        ("HMGET", room.t, "v", "d"),
        ("HGETALL", room.u),
        ("HGETALL", room.s),
        *(("ZRANGE", room.queue(priority), 0, -1) for priority in PRIORITIES),
        ("HGETALL", room.ep),
        *(("XREVRANGE", key, "+", "-", "COUNT", 1) for key in (room.led, room.aud)),
        ("ZRANGE", room.open, 0, -1),
        *(("HGET", room.job(name), "d") for name in names),
        ("HGET", room.t, "v"),
    ]
    document, figures, refs, due, later, hooks, led, aud, opened, *texts, version = await site.ask(commands)
    if document[0] != version or opened != found:
        return None
    named, figured = pairs(refs), pairs(figures)
    return Moment(
        state(document, site.reading),
        users(named, [figured.get(subject) for subject in named], list(named.values())),
        dict(zip(names, texts, strict=True)),
        frozenset(name.decode() for name in (*due, *later)),
        len(endpoints(site.reading, hooks)),
        (_above(led, version), _above(aud, version)),
    )


def _above(newest: list[Any], version: bytes | None) -> list[Any]:
    """Return a stream's newest entry if it is newer than the tenant, which must not be."""
    return [each for each in newest if int(each[0].partition(b"-")[0]) > int(version or 0)]


async def _entries(site: Site, key: str, version: int, page: int) -> list[Any]:
    """Return the entries of a stream up to a version."""
    entries: list[Any] = []
    start = "-"
    while True:
        (found,) = await site.ask([("XRANGE", key, start, f"{version}-0", "COUNT", page)])
        entries += found
        if len(found) < page:
            return entries
        start = f"({found[-1][0].decode()}"


async def _texts(site: Site, room: Room, of: Moment, page: int) -> dict[str, bytes]:
    """Return the texts of jobs that were there at a moment; those of open ones as they were then."""
    texts: dict[str, bytes] = {}
    opened = {name: text or b"" for name, text in of.opened.items()}
    edge, last = "-inf", f"({(of.state.version + 1) * PLACES}"
    while True:
        (found,) = await site.ask([("ZRANGEBYSCORE", room.ix, edge, last, "WITHSCORES", "LIMIT", 0, page)])
        names = [name.decode() for name in found[::2]]
        ended = [name for name in names if name not in opened]
        read = await site.ask([("HGET", room.job(name), "d") for name in ended])
        known = opened | {name: text for name, text in zip(ended, read, strict=True) if text is not None}
        texts |= {name: known[name] for name in names if name in known}
        if len(names) < page:
            return texts | opened  # of which some may have ended since, and be gone
        edge = f"({found[-1].decode()}"
