"""What is called how in Redis. Only names: no command, no connection.

Everything of a tenant lies in one of 64 shards, by a hash tag, so that a script that serves one tenant
touches one slot. A subject stands in key names as a hash: it may hold any letter, and is personal. What a
sorted set of a shard names is a reference: the id, and behind blanks the tenant, which may hold blanks.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from policies.model import Priority

SHARDS: Final = 64
ROOMS: Final = 4096
"""Tenants whose keys are kept at hand."""


@lru_cache(maxsize=4096)
def shard_of(name: str) -> int:
    """Return the shard of a tenant (or of a service key's hash)."""
    return crc32(name.encode()) % SHARDS


@lru_cache(maxsize=4096)
def digest(*parts: str) -> str:
    """Return hex SHA-256 over parts, a zero byte between two."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def ref(name: str, tenant: str) -> str:
    """Return a reference to something of a tenant."""
    return f"{name} {tenant}"


def unref(text: str) -> tuple[str, str]:
    """Return name and tenant of a reference."""
    name, _, tenant = text.partition(" ")
    return name, tenant


def lane(name: str, priority: Priority) -> str:
    """Return what is called so in a line: jobs of the second have keys of their own."""
    return name if priority == "interactive" else f"b{name}"


class Shard:
    """The keys all tenants of a shard share.

    `turn` and `bturn` when tenants are served next, a line each; `line` and `bline` all open jobs, by when
    they are due, as the tenants' queues have them.
    """

    def __init__(self, prefix: str, number: int) -> None:
        self.at = f"{prefix}{{s{number}}}:"

    def __getattr__(self, name: str) -> str:
        made = self.__dict__[name] = self.at + name
        return made

    def turns(self, priority: Priority) -> str:
        """Return the key of the turns of a line."""
        return self.at + lane("turn", priority)

    def line(self, priority: Priority) -> str:
        """Return the key of all jobs of a line."""
        return self.at + lane("line", priority)


class Room:
    """The keys of one tenant.

    `t` document, `u` users, `s` references, `ix` jobs, `open` and `wait` those that have not ended and those
    that have not begun, `due` queue, `led` ledger, `aud` trail, `ep` endpoints, `ky` service keys, `up`
    uploads, `dl` deliveries, `df` their fences, `hu` since which version endpoints are hushed (dropped ones
    for good). Of batch jobs it is `bwait` and `bdue`.
    """

    def __init__(self, prefix: str, tenant: str) -> None:
        self.tenant = tenant
        self.shard = shard_of(tenant)
        self._at = f"{prefix}{{s{self.shard}}}:"
        self._tail = f":{tenant}"

    def __getattr__(self, name: str) -> str:
        made = self.__dict__[name] = self._at + name + self._tail
        return made

    def queue(self, priority: Priority) -> str:
        """Return the key of the jobs of a line, by when they are due."""
        return f"{self._at}{lane('due', priority)}{self._tail}"

    def waits(self, priority: Priority) -> str:
        """Return the key of the jobs of a line that have not begun."""
        return f"{self._at}{lane('wait', priority)}{self._tail}"

    def job(self, job: str) -> str:
        """Return the key of a job: hash of version, document, subject."""
        return f"{self._at}j{self._tail}:{job}"

    def key(self, subject: str, key: str) -> tuple[str, str]:
        """Return the key of an idempotency key, and the hash it is named by."""
        name = digest(subject, key)
        return self.named(name), name

    def named(self, name: str) -> str:
        """Return the key of an idempotency key by the hash it is named by."""
        return f"{self._at}i{self._tail}:{name}"

    def by(self, subject: str) -> str:
        """Return the key of a subject's jobs."""
        return f"{self._at}ixu{self._tail}:{digest(subject)[:32]}"

    def told(self, endpoint: str) -> str:
        """Return the key of all deliveries of an endpoint, in their order."""
        return f"{self._at}dx{self._tail}:{endpoint}"

    def pending(self, endpoint: str) -> str:
        """Return the key of an endpoint's deliveries that are due some time."""
        return f"{self._at}dq{self._tail}:{endpoint}"

    def of_job(self, job: str) -> str:
        """Return the key of a job's deliveries: their ids and endpoints."""
        return f"{self._at}dj{self._tail}:{job}"


class Names:
    """All keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.wake = f"{prefix}wake"
        self.schema = f"{prefix}schema"
        self.roll = f"{prefix}roll{{{self.schema}}}"  # in the slot of the other
        self.shards = tuple(Shard(prefix, number) for number in range(SHARDS))
        self._rooms: dict[str, Room] = {}

    def room(self, tenant: str) -> Room:
        """Return the keys of a tenant. Those of many are kept, since they are wanted again."""
        room = self._rooms.get(tenant)
        if room is None:
            if len(self._rooms) >= ROOMS:
                self._rooms.clear()
            room = self._rooms[tenant] = Room(self.prefix, tenant)
        return room

    def shard(self, tenant: str) -> Shard:
        """Return the shard's keys of a tenant."""
        return self.shards[shard_of(tenant)]
