"""Connections to Redis: what a reply is, whose it is, and what its absence means."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.redis_lineage import Lineage
from gateway.store.redis_link import Away, Call, Cut, Link, Rejected, Script, Silent, script
from gateway.store.redis_site import SCRIPTS
from tests.fakes.redis import Redis, free_port, server

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """Connections to a real Redis."""
    made = Link(server().url)
    yield made
    await made.close()


@asynccontextmanager
async def against(answer: Answer, seconds: float = 0.2, password: str | None = None) -> AsyncIterator[Link]:
    """A link with one connection to something that answers in its own way."""
    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        with contextlib.suppress(OSError):
            await answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        mine.set()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    link = Link(url, seconds, connections=1, more={"password": password} if password else {})
    yield link
    await link.close()
    listening.close()
    await asyncio.gather(*(each.wait() for each in ended))


async def test_errors_are_replies(link: Link) -> None:
    """An error reply stands in its place among the others, and the connection goes on."""
    key = "link:errors"
    replies = await link.exchange([("SET", key, "x"), ("HGET", key, "f"), ("NOSUCH",), ("GET", key)])
    assert [isinstance(reply, Rejected) for reply in replies] == [False, True, True, False]
    assert [replies[1].code, replies[2].code, replies[3]] == ["WRONGTYPE", "ERR", b"x"]
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await link.ask([("HGET", key, "f")])


@pytest.mark.parametrize("steps", range(9))
async def test_cancellation_is_never_lost(link: Link, steps: int) -> None:
    """A call that is canceled ends canceled, however far it was, and the next one is answered."""
    await link.ask([("PING",)])
    call = asyncio.create_task(link.ask([("PING",)]))
    for _ in range(steps):
        await asyncio.sleep(0)
    if call.cancel():
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await link.ask([("ECHO", "on")]) == [b"on"]


async def test_foreign_replies_are_refused() -> None:
    """Replies that do not end with this call's nonce are not taken for its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"+someone's\r\n$1\r\n7\r\n")
        await reader.read(1)

    async with against(answer) as link:
        with pytest.raises(Cut):
            await link.exchange([("GET", "x")])


@pytest.mark.parametrize(
    "told",
    [
        b"*2\r\n$1\r\n7\r\n$1\r\nx\r\n",
        b"*3\r\n$1\r\n1\r\n$1\r\nx\r\n$1\r\nx\r\n",
        b"$1\r\n1\r\n",
        b"-ERR someone's\r\n$1\r\n7\r\n",
    ],
)
async def test_foreign_answers_are_refused(told: bytes) -> None:
    """A script's answer without this call's nonce is not its own; an error is asked whose it is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(told)
        await reader.read(1000)

    async with against(answer) as link:
        (lost,) = await link.run([Call(script("commit"), ["x"], ("y",))])
        assert isinstance(lost, Cut)


async def test_silence_is_told_apart() -> None:
    """No answer in time is silence: what was asked may be done yet. A closed link says that it is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with against(answer) as link:
        with pytest.raises(Silent):
            await link.exchange([("GET", "x")])
        await link.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await link.exchange([("GET", "x")])


async def test_silent_greeting_is_bounded() -> None:
    """A server that takes a connection and never greets is told of in time, by calls and by listeners."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with against(answer, password="x") as link:
        with pytest.raises(StoreUnavailable):
            await link.exchange([("GET", "x")])
        with pytest.raises(StoreUnavailable):
            [_ async for _ in link.listen("x")]


async def test_crowded_link_is_unavailable() -> None:
    """Whoever finds all connections taken waits a second at most, and is told that the store is not there."""
    free = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await free.wait()

    async with against(answer, seconds=5.0) as link:
        first = asyncio.create_task(link.exchange([("GET", "x")]))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await link.exchange([("GET", "y")])
        assert not first.done()
        free.set()
        with pytest.raises(Cut):
            await first


async def test_hung_end_is_closed_quietly() -> None:
    """Closing what the other end does not heed raises nothing, and ends calls and listeners all the same."""
    come, free = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"SUBSCRIBE" in await reader.read(1000):
            writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n")
        else:
            come.set()
        await free.wait()

    async with against(answer) as link:
        heard = link.listen("x")
        assert await anext(heard) is None
        call = asyncio.create_task(link.ask([("SET", "x", bytes(1 << 24))]))
        await come.wait()
        await link.close()
        for each in (call, anext(heard)):
            with pytest.raises(StoreUnavailable):
                await each
        free.set()


async def ids(link: Link) -> set[int]:
    """Return the ids of two connections that are used at the same time."""
    return {each for (each,) in await asyncio.gather(*(link.ask([("CLIENT", "ID")]) for _ in range(2)))}


async def test_replica_is_left_for_good() -> None:
    """Where one command is refused by a replica, no connection that stands is used or listened to again."""
    with Redis() as alone:
        link = Link(alone.url)
        heard = link.listen("link:news")
        assert await anext(heard) is None
        old = await ids(link)
        alone.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        with pytest.raises(Cut):
            await link.ask([("SET", "link:x", "y")])
        assert old.isdisjoint(await ids(link))
        alone.ask("PUBLISH", "link:news", "one")
        with pytest.raises(Cut):
            await anext(heard)
        await link.close()


async def test_replica_is_not_greeted() -> None:
    """Once a process has begun nothing is read of a replica in the primary's place; of a Cluster's it is."""
    with Redis() as alone:
        lineage = Lineage()
        link, node = Link(alone.url, lineage=lineage), Link(alone.url, lineage=lineage, anyone=True)
        await link.ask([("GET", "link:x")])
        lineage.armed = True
        alone.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        link.doubt("one")
        with pytest.raises(Away):
            await link.ask([("GET", "link:x")])
        assert await node.ask([("GET", "link:x")]) == [None]
        alone.ask("REPLICAOF", "NO", "ONE")
        assert await link.ask([("GET", "link:x")]) == [None]
        await asyncio.gather(link.close(), node.close())


async def test_nobody_home_is_unavailable() -> None:
    """Where nothing listens, or the password is wrong, the store is not there; neither word is shown."""
    for url in ("redis://127.0.0.1:1/0", f"redis://:hushhush@127.0.0.1:{server().port}/0"):
        link = Link(url)
        with pytest.raises(StoreUnavailable) as told:
            await link.exchange([("PING",)])
        assert "hush" not in str(told.value)
        await link.close()


async def test_answers_bring_the_nonce(link: Link) -> None:
    """What scripts answer comes without the nonce, errors stand among it, and the connection goes on."""
    text = "return KEYS[1] == 'x' and { ARGV[#ARGV], ARGV[1] } or redis.error_reply('WORD none')"
    made = Script(text, hashlib.sha1(text.encode()).hexdigest())
    good, bad = Call(made, ["x"], ("a", "b")), Call(made, ["y"], ())
    for _ in range(2):
        assert await link.run([good, bad, good]) == [b"a", Rejected("WORD", "none"), b"a"]
        assert await link.run([good, bad]) == [b"a", Rejected("WORD", "none")]


async def test_unknown_script_is_loaded_once(link: Link) -> None:
    """A script Redis does not know is loaded and run again, and only that one of those sent together."""
    server().say("SCRIPT", "FLUSH")
    text = "return { ARGV[1], redis.call('INCR', KEYS[1]) }"
    made = Script(text, hashlib.sha1(text.encode()).hexdigest())
    server().say("DEL", "link:a", "link:b")
    assert await link.run([Call(made, ["link:a"], ())]) == [1]
    other = Script(text + " ", hashlib.sha1(f"{text} ".encode()).hexdigest())
    assert await link.run([Call(made, ["link:a"], ()), Call(other, ["link:b"], ())]) == [2, 1]


async def test_listener_hears_and_ends(link: Link) -> None:
    """A subscription says when it stands, then tells what is published, and ends with its connection."""
    heard = link.listen("link:news")
    assert await anext(heard) is None
    server().say("PUBLISH", "link:news", "one")
    assert await anext(heard) == b"one"
    server().say("CLIENT", "KILL", "TYPE", "pubsub")
    with pytest.raises(Cut):
        await anext(heard)


async def test_silent_listener_is_pinged() -> None:
    """A listener that hears nothing asks for a sign of life, and ends where none comes."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))
        writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n")
        asked.append(await reader.read(1000))
        writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        asked.append(await reader.read(1000))
        await reader.read(1)

    async with against(answer) as link:
        with pytest.raises(Silent):
            [_ async for _ in link.listen("x", silent=0.05)]
    assert [b"SUBSCRIBE" in asked[0], b"PING" in asked[1], b"PING" in asked[2]] == [True, True, True]


@pytest.mark.parametrize("name", SCRIPTS)
async def test_scripts_are_good_lua(link: Link, name: str) -> None:
    """Each script that ships is one Redis takes, known by the hash that is told of it."""
    (sha,) = await link.ask([("SCRIPT", "LOAD", script(name).text)])
    assert sha.decode() == script(name).sha
