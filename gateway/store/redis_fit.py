"""Is this a Redis that keeps what it is given? From what it says of itself, in a sentence for its operator.

What holds credits may not be evicted, and what was answered must be found after a restart. What this
version does not know how to use safely, it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OLDEST: Final = 7
"""The first major version whose commands are all there."""


def facts(told: bytes) -> dict[str, str]:
    """Return what `INFO` tells, by name."""
    lines = [line.partition(":") for line in told.decode("utf-8", "replace").splitlines()]
    return {name: value for name, colon, value in lines if colon}


def unfit(of: Mapping[str, str], *, scattered: bool = False) -> str | None:
    """Say why a Redis cannot be the store, or a part of a `scattered` one, and what to set; else None."""
    version = of.get("redis_version", "0")
    if int(version.partition(".")[0] or 0) < OLDEST:
        return f"This Redis is of version {version}: {OLDEST}.0 or later is needed."
    if of.get("cluster_enabled") != str(int(scattered)):
        return "This Redis is part of a Cluster: give it as redis+cluster://HOST:PORT."
    if of.get("role") != "master":
        return "This Redis is a replica: give the primary's address."
    if of.get("maxmemory_policy") != "noeviction":
        policy = of.get("maxmemory_policy")
        return (
            f"This Redis may evict what it holds (maxmemory-policy {policy}), and jobs and credits with it. "
            "Set `maxmemory-policy noeviction`."
        )
    if of.get("aof_enabled") != "1":
        return (
            "This Redis keeps no log, and forgets jobs and credits when it stops. Set `appendonly yes`; "
            "with `appendfsync always` not even a second is lost when its host fails."
        )
    return None
