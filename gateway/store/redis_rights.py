"""What a user must be allowed at a Redis, and whether it is.

A script that meets a command its user may not run stops where it is, with half of a commit written: so it is
asked at the start, of every primary. Redis judges by names, keys and the channel; nothing is run for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.redis_site import fault_of, unpack
from gateway.store.redis_together import whole

if TYPE_CHECKING:
    from gateway.store.redis_site import Site

ON_KEYS: Final = (
    "DEL", "EXPIRE", "GET", "HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HLEN", "HMGET", "HSCAN", "HSET",
    "HVALS", "SADD", "SET", "SMEMBERS", "SSCAN", "TYPE", "UNLINK", "XADD", "XRANGE", "XREVRANGE", "XTRIM",
    "ZADD", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREM", "ZREVRANGEBYSCORE", "ZSCORE",
)  # fmt: skip
"""What is done to keys, each named by the first argument."""
PLAIN: Final = (
    ("EVALSHA", "", "0"),
    ("SCRIPT", "LOAD", ""),
    ("INFO",),
    ("PING",),
    ("TIME",),
    ("SELECT", "0"),
)
HEARD: Final = ("PUBLISH", "SUBSCRIBE")
SCATTERED: Final = (("CLUSTER", "SLOTS"), ("ASKING",))
COPIED: Final = (("WAIT", "1", "1"),)
RULES: Final = "~safelight:* &safelight:* +@all -@admin -@dangerous +info"
"""Rules for a user that are enough."""
CURE: Final = f"Rules that are enough: `{RULES}`."


def needed(site: Site, at: str, *, copied: bool) -> list[tuple[str, ...]]:
    """Return commands as they will be run on keys that begin with `at`; `copied`: replicas are waited for."""
    keyed = [(name, f"{at}may") for name in ON_KEYS]
    heard = [(name, site.names.wake) for name in HEARD]
    rare = (SCATTERED if site.link.scattered else ()) + (COPIED if copied else ())
    return [*keyed, *heard, *PLAIN, *rare]


async def barred(site: Site, user: str, *, copied: bool) -> str | None:
    """Say what a user may not run at some primary, and what to set; None where all is well.

    Raises `StoreUnavailable` where that cannot be asked.
    """
    places = {site.link.home(shard.at): shard.at for shard in site.names.shards}.values()
    asked = [needed(site, at, copied=copied) for at in places]
    calls = [site.call("may", [f"{at}may"], some) for at, some in zip(places, asked, strict=True)]
    replies = whole([fault_of(reply) or reply for reply in await site.surely(calls)])
    found = {some[at] for some, reply in zip(asked, replies, strict=True) for at in unpack(reply)}
    if not found:
        return None
    keyed = sorted({name for name, *_ in found if name in ON_KEYS})
    heard = sorted({name for name, *_ in found if name in HEARD})
    plain = sorted(
        {" ".join(filter(str.isalpha, each)) for each in found if each in PLAIN + SCATTERED + COPIED}
    )
    told = [f"{', '.join(keyed)} on keys `{site.names.prefix}*`"] * bool(keyed)
    told += [f"{', '.join(heard)} on the channel `{site.names.wake}`"] * bool(heard)
    return f"This Redis does not let its user {user} run {'; '.join(told + plain)}. {CURE}"
