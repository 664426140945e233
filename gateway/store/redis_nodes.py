"""What the back end asks of the Redis of a URL, be it one, one that is watched, or many that are one.

Keys have a home: the primary that has them. Nothing here knows what a key holds, and nothing that Redis
may have done is sent a second time but by whoever asked for it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.store.redis_cluster import Cluster
from gateway.store.redis_door import sealed
from gateway.store.redis_fit import facts, unfit
from gateway.store.redis_link import ANSWER_SECONDS, Copies, Link, script
from gateway.store.redis_sentinel import Guarded

if TYPE_CHECKING:
    from gateway.store.opening import Place
    from gateway.store.redis_lineage import Lineage
    from gateway.store.redis_link import Call, Command

SEALED: Final = "rediss"
CLUSTER: Final = "cluster"
SENTINEL: Final = "sentinel"
_PORT: Final = re.compile(r":[0-9]+\Z")


class Nodes(Protocol):
    """One Redis, or many that are one. Opens no connection before it is first asked."""

    @property
    def scattered(self) -> bool:
        """Whether what a script touches must lie in one shard, since shards may lie on several hosts."""

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply to each command that may be done twice, or the fault that stood in the way.

        Those of one shard are done in their order, none of them later than those after it.
        """

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return the reply of each, why it was `Rejected`, or what stood in the way."""

    async def each(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        """Return what each primary replies, or the fault that stood in the way, by its name."""

    def doubt(self, name: str) -> None:
        """Ask anew who is there, since whoever has that name is no primary."""

    def home(self, key: str) -> str:
        """Return the name of the primary that has a key; empty where nobody is known to."""

    def listen(self, channel: str) -> AsyncIterator[bytes | None]:
        """Yield what is published, after None once it is subscribed; ends by a `StoreUnavailable`."""

    async def close(self) -> None:
        """Close all connections. Harmless twice."""


def nodes_of(place: Place, lineage: Lineage, seconds: float = ANSWER_SECONDS) -> Nodes:
    """Return the nodes of a URL, each asked for its history; `seconds` is how long one may take to answer.

    `redis://` is one, `redis+cluster://` a Cluster, `redis+sentinel://` one that is watched; `rediss` is TLS.
    Raises `Refusal` where a file for it cannot be read.
    """
    whole, _, rest = place.url.partition("://")
    scheme, _, kind = whole.partition("+")
    user, at, rest = rest.rpartition("@")
    hosts, _, tail = rest.partition("/")
    copies = Copies(place.replicas, (script("commit").sha,))
    door = sealed(place) if scheme == SEALED else {}
    opened = partial(Link, seconds=seconds, lineage=lineage, copies=copies, more=door | _with(place.password))

    def linked(address: str, base: str = "0") -> Link:
        return opened(f"{scheme}://{user}{at}{address}/{base}", anyone=kind == CLUSTER)

    if kind == CLUSTER:
        return Cluster(hosts.split(","), linked)
    if kind == SENTINEL:
        master, _, base = tail.partition("/")
        more = door | _with(place.sentinel_password)
        sentinels = [Link(f"{scheme}://{_ported(host)}", more=more) for host in hosts.split(",")]
        return Guarded(sentinels, master, partial(linked, base=base or "0"), lambda told: unfit(facts(told)))
    return opened(place.url)


def _with(password: Callable[[], str] | None) -> dict[str, Any]:
    """Return what the library is told of a password."""
    return {} if password is None else {"password": password()}


def _ported(host: str) -> str:
    """Return a sentinel's address with its port."""
    return host if _PORT.search(host) else f"{host}:26379"


def user_of(url: str) -> str:
    """Return the user a URL names: Redis calls one who is not named so."""
    user, at, _ = url.partition("://")[2].rpartition("@")
    return user if at else "default"
