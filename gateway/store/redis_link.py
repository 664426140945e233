"""Commands to one Redis and their replies: connections, time limits, and what a failure means.

The one room of the client library, whose own retries are off: it would repeat a script whose reply was
lost. All commands of a call travel together with a nonce that must come back, from each script before its
answer and else last of all, so that the replies of one call are never taken for another's. A script that
Redis forgot is loaded and sent again; nothing else is. No foreign exception leaves, and no key or figure is
known here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as Late
from redis.maint_notifications import MaintNotificationsConfig

from gateway.errors import StoreUnavailable
from gateway.store.redis_door import reason, unmet
from gateway.store.redis_fit import facts
from gateway.store.redis_lineage import ASKED, Lineage, replicates

CONNECTIONS: Final = 32
POOL_SECONDS: Final = 1.0
"""How long a call waits for a connection: less than a commit may take."""
ANSWER_SECONDS: Final = 1.0
"""How long Redis may take to answer or to be reached. A slow store is a dead one."""
WAIT_MS: Final = 100
"""How long replicas may take to have what was written."""
LEAVE_SECONDS: Final = 0.1
"""How long the other end may take to say goodbye, as it does over TLS: nobody waits for a hung one."""
SILENT_SECONDS: Final = 5.0
"""How long a listener hears nothing before it asks for a sign of life."""

BARRED: Final = "NOPERM"
"""What Redis says of a command that its user may not run."""
ONE: Final = "one"
"""The name of the only primary there is."""

Value = str | int | float | bytes
Command = tuple[Value, ...]


class Silent(StoreUnavailable):
    """Redis does not answer in time; it may yet do what it was asked."""


class Cut(StoreUnavailable):
    """A connection broke, or could not be made."""


class Away(Cut):
    """No connection could be made: nothing was sent."""


class Gone(StoreUnavailable):
    """It is known not to be there, so it was sent nothing. Soon it will be tried again."""


class Barred(Gone):
    """Its user may not do this at this Redis, and another try would not do it either."""


class Turned(Gone):
    """Redis may have lost what it had confirmed: it is sent nothing until that was looked into."""


class Unconfirmed(StoreUnavailable):
    """It is done, and too few replicas have it: it may yet be lost. `reply` is what it said."""

    def __init__(self, reply: Any) -> None:
        super().__init__("redis: too few replicas")
        self.reply = reply


class Copies(NamedTuple):
    """How many replicas must have what a script did (by its hash, `of`) before that is answered."""

    number: int
    of: Container[str]


ALONE: Final = Copies(0, ())
"""No replica is waited for."""
PLAIN: Final[Mapping[str, Any]] = MappingProxyType({})
"""What else the library is told of a connection, such as a password, where that is nothing."""


class Script(NamedTuple):
    """A script by its text and the hash Redis knows it by."""

    text: str
    sha: str


class Call(NamedTuple):
    """A script with its keys and arguments; behind them goes the nonce, and {nonce, answer} comes back."""

    script: Script
    keys: Sequence[str]
    values: Sequence[Value]


class Rejected(NamedTuple):
    """Redis' word for why it did not do a command: its first word, such as `OOM`, and the rest."""

    code: str
    text: str

    def fault(self) -> StoreUnavailable:
        """Return the fault it amounts to: a word, but of what a user may not do all that is said."""
        if self.code == BARRED:
            return Barred(f"redis: {self.code} {self.text}")
        return StoreUnavailable(f"redis: {self.code}")


def script(name: str) -> Script:
    """Return a script that ships."""
    text = resources.files("gateway.store").joinpath(f"scripts/{name}.lua").read_text("utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Link:
    """Connections to one Redis: the `Nodes` of one. Opens none before the first call.

    Where a replica is met in the primary's place, all connections are made anew, since the address may
    lead to another by now. `anyone`: a replica will do, as in a Cluster, whose nodes say where to go.
    """

    scattered = False

    def __init__(
        self,
        url: str,
        seconds: float = ANSWER_SECONDS,
        connections: int = CONNECTIONS,
        lineage: Lineage | None = None,
        copies: Copies = ALONE,
        more: Mapping[str, Any] = PLAIN,
        *,
        anyone: bool = False,
    ) -> None:
        self._seconds = seconds
        self._copies = copies
        self._lineage = lineage
        self._anyone = anyone
        self._names: WeakKeyDictionary[AbstractConnection, str] = WeakKeyDictionary()
        self._calls = 0
        self._closed = False
        self._ears: set[AbstractConnection] = set()
        told = {
            "max_connections": connections,
            "timeout": POOL_SECONDS,
            "socket_timeout": None,  # the library would count it anew for each reply, by a task for each
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            "driver_info": None,
            "redis_connect_func": self._greet,
        }
        self._pool = BlockingConnectionPool(**{**told, **parse_url(url), **more})

    async def _greet(self, connection: AbstractConnection) -> None:
        """Ask, on each new connection, whose history is there."""
        await connection.on_connect()
        name = ""
        if self._lineage is not None:
            await _send(connection, [ASKED], ())
            told = facts(await connection.read_response())
            if self._lineage.armed and replicates(told) and not self._anyone:
                raise ReadOnlyError
            name = self._lineage.meet(told)
        self._names[connection] = name

    def _check(self, connection: AbstractConnection) -> None:
        if self._lineage is not None and not self._lineage.holds(self._names[connection]):
            raise Turned("redis: another history")

    async def _taken(self) -> AbstractConnection:
        """Take a connection, and greet anew whom it has not greeted since a replica was met."""
        connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        if connection not in self._names:
            try:
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                await self._pool.release(connection)
                raise
        return connection

    def _counted(self, commands: Sequence[Command]) -> bool:
        return self._copies.number > 0 and any(command[1] in self._copies.of for command in commands)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies, in order; raises `StoreUnavailable` where one is an error."""
        replies = await self.exchange(commands)
        for reply in replies:
            if isinstance(reply, Rejected):
                raise reply.fault()
        return replies

    async def reach(self, commands: Sequence[Command]) -> list[Any]:
        """Return the reply of each, in order, or the fault that stood in the way."""
        try:
            replies = await self.exchange(commands)
        except StoreUnavailable as fault:
            return [fault] * len(commands)
        return [reply.fault() if isinstance(reply, Rejected) else reply for reply in replies]

    async def each(self, commands: Sequence[Command]) -> dict[str, list[Any]]:
        """Return what each primary replies, or the fault that stood in the way, by its name."""
        return {ONE: await self.reach(commands)}

    def doubt(self, _name: str) -> None:
        """Greet anew on each connection before it is used, since whoever was met is no primary."""
        self._names.clear()

    def home(self, _key: str) -> str:
        """Return the name of the primary that has a key."""
        return ONE

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return the answer of each, why it was `Rejected`, or what stood in the way."""
        try:
            return await self._run(calls)
        except StoreUnavailable as fault:
            return [fault] * len(calls)

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        commands = [called(call) for call in calls]
        replies = await self.exchange(commands, signed=True)
        unknown = [at for at, reply in enumerate(replies) if _forgotten(reply)]
        if unknown:
            await self.ask([("SCRIPT", "LOAD", text) for text in {calls[at].script.text for at in unknown}])
            again = await self.exchange([commands[at] for at in unknown], signed=True)
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return replies

    async def exchange(
        self, commands: Sequence[Command], *, signed: bool = False, asked: Container[int] = ()
    ) -> list[Any]:
        """Send commands together; return the reply of each, or why it was `Rejected`.

        `signed`: they are scripts, each of which gives back the nonce. `asked` are the places of those whose
        slot is only on its way here. Raises `StoreUnavailable` where not all replies came: what was sent may
        have been done.
        """
        if not commands:
            return []
        if self._closed:
            raise StoreUnavailable("the store is closed")
        self._calls += 1
        nonce = b"%d" % self._calls
        with _heeded():
            try:
                async with asyncio.timeout(POOL_SECONDS + self._seconds):
                    connection = await self._taken()
            except (RedisError, OSError, TimeoutError) as error:
                raise _unmade(error) from error
            try:
                async with asyncio.timeout(self._seconds):
                    if signed:
                        self._check(connection)
                        wanted = self._copies.number if self._counted(commands) else 0
                        return await _exchange(connection, commands, nonce, asked, wanted)
                    return await _exchange(connection, commands, nonce, asked)
            except (RedisError, OSError, TimeoutError) as error:
                if isinstance(error, ReadOnlyError) and connection in self._names:
                    self._names.clear()
                raise _fault(error) from error
            finally:
                await self._pool.release(connection)

    async def listen(self, channel: str, silent: float = SILENT_SECONDS) -> AsyncIterator[bytes | None]:
        """Yield what is published, after None once it is subscribed; ends by a `StoreUnavailable`.

        On a connection of its own, which is asked for a sign of life when it was silent for so many seconds.
        """
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._ears.add(connection)
        try:
            with _heeded():
                async with asyncio.timeout(self._seconds):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", channel)
            while True:
                reply = await _next(connection, silent, self._seconds)
                if connection not in self._names:
                    raise ConnectionResetError
                if reply[0] == b"subscribe":
                    yield None
                elif reply[0] == b"message":
                    yield reply[2]
        except (RedisError, OSError, TimeoutError) as error:
            raise _fault(error) from error
        finally:
            self._ears.discard(connection)
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close all connections, those of listeners too. Harmless twice, and where the other end is hung."""
        self._closed = True
        for connection in list(self._ears):
            await connection.disconnect(nowait=True)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._pool.disconnect()


@contextmanager
def _heeded() -> Iterator[None]:
    """Bring back a cancellation that was swallowed.

    The library sends in an `asyncio.wait_for`, and that of Python 3.11 forgets a cancellation that comes
    when it is done: who waited would go on for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def _exchange(
    connection: AbstractConnection,
    commands: Sequence[Command],
    nonce: bytes,
    asked: Container[int],
    copies: int | None = None,
) -> list[Any]:
    """Send and read; a connection whose replies were not all read, in order, is closed.

    `copies`: of scripts, which give back the nonce, how many replicas must have what they did.
    """
    whole = False
    try:
        if copies is not None:
            replies = await _signed(connection, commands, nonce, asked, copies)
        else:
            await _send(connection, [*commands, ("PING", nonce)], asked)
            replies = await _replies(connection, len(commands), asked)
            _same(await _reply(connection), nonce)
        whole = True
        return replies
    finally:
        if not whole:
            await connection.disconnect(nowait=True)


async def _signed(
    connection: AbstractConnection,
    commands: Sequence[Command],
    nonce: bytes,
    asked: Container[int],
    copies: int,
) -> list[Any]:
    """Send scripts, read what they answer. An error brings no nonce: where it is the last, one is asked.

    Replicas are waited for after the last, whether it wrote or not: it may tell of what is new.
    """
    waits: list[Command] = [("WAIT", copies, WAIT_MS)] if copies else []
    await _send(connection, [*((*command, nonce) for command in commands), *waits], asked)
    replies = await _replies(connection, len(commands), asked)
    have = await _reply(connection) if waits else 0
    for at, reply in enumerate(replies):
        if not isinstance(reply, Rejected):
            told, replies[at] = reply if isinstance(reply, list) and len(reply) == 2 else (None, None)
            _same(told, nonce)
    if isinstance(replies[-1], Rejected):
        await _send(connection, [("PING", nonce)], ())
        _same(await _reply(connection), nonce)
    if isinstance(have, Rejected) or have < copies:
        return [reply if isinstance(reply, Rejected) else Unconfirmed(reply) for reply in replies]
    return replies


async def _send(connection: AbstractConnection, commands: Sequence[Command], asked: Container[int]) -> None:
    if asked:
        commands = [each for at, command in enumerate(commands) for each in _asking(command, at in asked)]
    with _heeded():
        await connection.send_packed_command([packed(commands)], check_health=False)


def packed(commands: Sequence[Command]) -> bytes:
    """Return commands as they are sent: the library's own way of it costs as much as all that is in them."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for value in command:
            text = value if isinstance(value, bytes) else str(value).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


def _asking(command: Command, asked: bool) -> tuple[Command, ...]:  # noqa: FBT001 - one line, one caller
    return (("ASKING",), command) if asked else (command,)


async def _replies(connection: AbstractConnection, count: int, asked: Container[int]) -> list[Any]:
    """Read replies in order, passing over those to the word that asks."""
    replies = []
    for at in range(count):
        if at in asked:
            await _reply(connection)
        replies.append(await _reply(connection))
    return replies


def _same(told: object, nonce: bytes) -> None:
    if isinstance(told, Rejected) and told.code == BARRED:
        raise told.fault()
    if told != nonce:
        raise ConnectionResetError("the replies are another call's")


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ReadOnlyError:  # no word about a command, but about who is there
        raise
    except ResponseError as error:
        first, _, rest = str(error).partition(" ")
        code = getattr(error, "status_code", None)
        return Rejected(code, str(error)) if code else Rejected(first, rest)


async def _next(connection: AbstractConnection, seconds: float, answer: float) -> Any:
    """Return the next message; a connection that is silent is pinged, and found dead by that."""
    reply = await connection.read_response(timeout=seconds)
    if reply is None:
        with _heeded():
            await connection.send_command("PING")
        reply = await connection.read_response(timeout=answer)
        if reply is None:
            raise TimeoutError
    return reply


def called(call: Call) -> Command:
    """Return the command that runs a script Redis knows."""
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.values)


def _forgotten(reply: object) -> bool:
    return isinstance(reply, Rejected) and reply.code == "NOSCRIPT"


def _unmade(error: BaseException) -> StoreUnavailable:
    """Return why there is no connection: it was too slow, all are taken, or none could be made."""
    crowded = isinstance(error.__cause__, TimeoutError)
    fault = _fault(error)
    return fault if crowded or isinstance(fault, Silent) else Away(f"redis: {unmet(error)}")


def _fault(error: BaseException) -> StoreUnavailable:
    kind = Silent if isinstance(error, Late | TimeoutError) else Cut
    return kind(f"redis: {reason(error)}")
