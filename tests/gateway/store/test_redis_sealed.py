"""A store behind TLS, for a user of some rules: one Redis, a Cluster, one that a sentinel watches."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple
from uuid import uuid4

import pytest

from gateway import doctor
from gateway.errors import Refusal
from gateway.store.contract import Begun, Claim, Recorded
from gateway.store.opening import How, Place, open_backend
from gateway.store.redis_lineage import Lineage
from gateway.store.redis_nodes import nodes_of
from gateway.store.redis_rights import RULES
from tests.contracts.rig import SAID, attempt, ending, put, take
from tests.fakes.cluster import Cluster
from tests.fakes.papers import Papers
from tests.fakes.redis import Redis
from tests.fakes.sentinel import Sentinel
from tests.gateway.store.processes import Processes

PASSWORD, WATCHWORD = "hushhush", "hushmore"


class Sealed(NamedTuple):
    """Stores that speak TLS alone and know a user; to those of `asking` one must show a certificate."""

    papers: Papers
    one: Redis
    asking: Redis
    cluster: Cluster
    watched: Sentinel

    def url(self, name: str) -> str:
        """Return the address of one of them, with the user's name."""
        return str(getattr(self, name).url).replace("://", "://safelight@")


@pytest.fixture(scope="module")
def sealed() -> Iterator[Sealed]:
    """Whatever there is, each with certificates of one issuer."""
    with (
        Papers("localhost") as papers,
        Redis(papers=papers) as one,
        Redis(papers=papers, asks=True) as asking,
        Cluster(3, papers=papers) as cluster,
        Sentinel(papers) as watched,
    ):
        for node in (one, asking, *cluster.nodes, watched.primary):
            node.ask("ACL", "SETUSER", "safelight", "on", f">{PASSWORD}", *RULES.split())
        watched.sentinel.ask("ACL", "SETUSER", "default", "resetpass", f">{WATCHWORD}")
        yield Sealed(papers, one, asking, cluster, watched)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Takes what is to be closed after a test."""
    async with AsyncExitStack() as made:
        yield made


def place(sealed: Sealed, name: str, **more: str | None) -> Place:
    """Return the place of one of them, as its user is told it."""
    files = {"ca_file": sealed.papers.ca, **more}
    return Place(sealed.url(name), lambda: PASSWORD, lambda: WATCHWORD, **files)  # type: ignore[arg-type]


async def looked_at(at: Place) -> None:
    """Open a place, look at it, close it."""
    backend = open_backend(at, How("me"))
    try:
        await backend.look()
    finally:
        await backend.close()


async def refused(at: Place) -> str:
    """Look at a place that cannot be the store; return what is said of it."""
    with pytest.raises(Refusal) as told:
        await looked_at(at)
    assert "hush" not in f"{told.value!r} {at!r}"
    return str(told.value)


@pytest.mark.parametrize("name", ["one", "cluster", "watched"])
async def test_user_is_served_over_tls(sealed: Sealed, stack: AsyncExitStack, name: str) -> None:
    """Over TLS, with the rules that README lists, all goes on: also who waits is woken by other processes."""
    many = Processes(sealed.url(name), f"safelight:{uuid4().hex}:")
    stack.push_async_callback(many.close)
    at = place(sealed, name)
    many.more = {"password": at.password, "sentinel_password": at.sentinel_password, "ca_file": at.ca_file}
    api, worker = await many.process(), await many.process()
    job = await put(api, many.job())
    waiting = asyncio.create_task(api.wait_job("acme", job.id, 1, 60.0))
    (claim,) = await take(worker)
    begun = await worker.begin_attempt(claim, attempt(deadline_at=await worker.now() + 60_000))
    assert isinstance(begun, Begun)
    assert await asyncio.wait_for(waiting, 5) == begun.job
    assert isinstance(await worker.record(Claim(begun.job, claim.fence), ending(1), SAID), Recorded)
    found = await api.get_job("acme", job.id, "ann")
    assert found is not None
    assert (found.job.state, found.usage.user.charged) == ("succeeded", 10)
    await api.ping()
    assert await doctor.examine(api.backend, many.chain) == []


@pytest.mark.parametrize("name", ["one", "cluster", "watched"])
async def test_unknown_issuer_is_told(sealed: Sealed, name: str) -> None:
    """A certificate of an issuer that this host does not know is refused, and what to set is said."""
    told = await refused(place(sealed, name, ca_file=None))
    assert "its certificate is not trusted (self-signed certificate" in told
    assert "`store.ca_file` names who may issue one" in told
    with Papers() as others:
        assert "not trusted" in await refused(place(sealed, name, ca_file=others.ca))


async def test_other_name_is_told(sealed: Sealed) -> None:
    """A good certificate is refused from a host whose name is not in it."""
    with Papers() as nameless, Redis(papers=nameless) as running:
        at = Place(running.url.replace("127.0.0.1", "localhost"), ca_file=nameless.ca)
        told = await refused(at)
    assert "is not trusted (Hostname mismatch" in told
    assert "ca_file" not in told
    await looked_at(Place(sealed.one.url.replace("127.0.0.1", "localhost"), ca_file=sealed.papers.ca))


async def test_certificate_of_ours_is_shown(sealed: Sealed) -> None:
    """A Redis that asks for a certificate is shown ours; without one, or without TLS, it hangs up."""
    papers = sealed.papers
    await looked_at(place(sealed, "asking", cert_file=papers.cert, key_file=papers.key))
    assert "our certificate (`store.cert_file`)" in await refused(place(sealed, "asking"))
    assert "it hangs up at once, as one that wants TLS (`rediss://`)" in await refused(
        Place(sealed.one.url.replace("rediss", "redis"))
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca_file": "/none"}, "store.ca_file: /none cannot be read: No such file"),
        ({"ca_file": "key"}, "is not what it should be, in PEM"),
        ({"cert_file": "/none"}, "store.cert_file or key_file: /none cannot be read"),
        ({"cert_file": "cert"}, "is not what it should be, in PEM"),
    ],
)
async def test_bad_files_are_told(sealed: Sealed, files: dict[str, str], words: str) -> None:
    """A file for TLS that is not there, or holds something else, is named in a sentence."""
    ours = {name: path if path[0] == "/" else getattr(sealed.papers, path) for name, path in files.items()}
    assert words in await refused(place(sealed, "one", **ours))


async def test_wrong_password_is_told(sealed: Sealed) -> None:
    """A password that is turned away is told as that, and not shown."""
    at = Place(sealed.url("one"), lambda: "hushwrong", ca_file=sealed.papers.ca)
    assert "it does not take this user and password" in await refused(at)


async def test_hung_redis_is_left_at_once(sealed: Sealed) -> None:
    """Nobody waits until a Redis that hangs has taken leave: there is another in its place."""
    nodes = nodes_of(place(sealed, "one"), Lineage())
    assert await nodes.reach([("PING",)]) == [b"PONG"]
    sealed.one.signal(signal.SIGSTOP)
    try:
        await asyncio.wait_for(nodes.close(), 0.5)
    finally:
        sealed.one.signal(signal.SIGCONT)
    while "user=safelight" in await asyncio.to_thread(sealed.one.ask, "CLIENT", "LIST"):
        pass
