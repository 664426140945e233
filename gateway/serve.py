"""Listens: one process, one port, one loop. The only room that knows uvicorn and uvloop.

Signals are ours, not the server's: the first SIGTERM or SIGINT begins the drain, a second one stops at
once. While the worker drains the port stays open, so that probes are told and jobs can be read; new jobs
are turned away and streams told to reconnect. Then open requests get their grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.exchange import OFFER
from gateway.errors import Refusal
from gateway.heap import Heap

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.api.edge import Edge
    from gateway.api.exchange import Headers
    from gateway.app import House

BACKLOG: Final = 2048
KEEP_ALIVE_SECONDS: Final = 75
MOST_HEAD_BYTES: Final = 2**20
"""Where a connection is cut whose request line and headers do not end. The edge refuses far less in words."""
PATIENCE_SECONDS: Final = 30.0
"""How long a peer may send no whole head, or take nothing of an answer, before its connection is cut."""

_T = TypeVar("_T")


class _Server(uvicorn.Server):
    """The server without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the process."""
        yield


class _Connection(HttpToolsProtocol):
    """A connection whose every refusal is a problem, and which costs a bounded time and memory.

    While the application is busy its own deadlines count, and between two requests the server's; a head
    under way and an answer that is not taken have none but the one kept here, by a look now and then.
    """

    _head_bytes = 0
    _messages = 0
    _resumed = 0
    _owed: tuple[str, int, int] | None = ("to send", 0, 0)

    def __init__(self, *args: Any, patience: float, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._patience = patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and look after it."""
        super().connection_made(transport)
        self._next_look = self.loop.call_later(self._patience, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Note that the peer takes what it is sent, then go on."""
        self._resumed += 1
        super().resume_writing()

    def _look(self) -> None:
        """Cut a peer that did nothing of what it owes since the last look."""
        owed = self._debt()
        if owed is not None and owed == self._owed:
            self.transport.abort()
            return
        self._owed = owed
        self._next_look = self.loop.call_later(self._patience, self._look)

    def _debt(self) -> tuple[str, int, int] | None:
        """Return what the peer owes and how far it got; None where it may rest."""
        if self.flow.write_paused:
            return ("to take", self._resumed, self.transport.get_write_buffer_size())
        busy = self.cycle is not None and not self.cycle.response_complete
        return None if busy or self.timeout_keep_alive_task else ("to send", self._messages, 0)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, then read."""
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Stop counting, go on, and make the application an offer."""
        self._head_bytes = -1
        super().on_headers_complete()
        if self.cycle is not None:
            scope: Any = self.cycle.scope
            scope[OFFER] = _Offer(self.cycle)

    def on_message_complete(self) -> None:
        """Count again, then go on."""
        self._head_bytes = 0
        self._messages += 1
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the library's words are not ours
        """Answer bytes that are no HTTP as the application answers mistakes, and hang up.

        In the middle of another answer there is nothing to say that would be understood.
        """
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            headers, body = self.config.loaded_app.unreadable()
            lines = [b"%s: %s\r\n" % field for field in (*headers, (b"content-length", b"%d" % len(body)))]
            head = [b"HTTP/1.1 400 Bad Request\r\n", *lines, b"connection: close\r\n\r\n"]
            self.transport.write(b"".join([*head, body]))
        self.transport.close()


class _Offer:
    """What this server can do beyond ASGI, for one request (`exchange.Offer`)."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def arrived(self) -> bool:
        """Whether the whole body is here."""
        return not self._cycle.more_body

    async def send(self, status: int, fields: Headers, body: bytes) -> None:
        """Send an answer in one piece: what the cycle's own `send` does in two, a header at a time.

        It was a tenth of a submit. The application makes every field itself; one that holds a line's end
        is left to the slow way, which refuses it. `fields` has the length, so nothing is chunked.
        """
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        lines = [b"%s: %s" % field for field in (*cycle.default_headers, *fields)]
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1:
            await cycle.send({"type": "http.response.start", "status": status, "headers": fields})
            await cycle.send({"type": "http.response.body", "body": body, "more_body": False})
            return
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        end = b"\r\n\r\n" if cycle.keep_alive else b"\r\nconnection: close\r\n\r\n"
        cycle.transport.write(b"".join((STATUS_LINE[status], head, end, body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def open_files() -> None:
    """Let this process open as many files as it may at all: each client that waits is one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems count to fewer than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a program on the loop this project is measured on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def bind(host: str, port: int) -> socket.socket:
    """Take the port, or refuse with a sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        cure = "Choose another port: --port of `dev`, server.port of `serve`."
        raise Refusal(f"cannot listen on {host}:{port}: {error.strerror}. {cure}") from error
    listener.set_inheritable(True)
    return listener


async def serve(house: House, listener: socket.socket, ready: Callable[[], Awaitable[None]]) -> None:
    """Serve until a signal, then drain and close. `ready` is called once requests are answered."""
    open_files()
    server = server_of(house.api, house.settings.server.grace_seconds)
    stop = _signals()
    await house.start()
    serving = asyncio.create_task(server.serve([listener]), name="serve")
    while not server.started and not serving.done():  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    heap = Heap()
    heap.start()
    await ready()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stop.clear()
    draining = asyncio.create_task(_drain(house, server, serving), name="drain")
    again = asyncio.create_task(stop.wait())
    await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        server.should_exit = server.force_exit = True
        draining.cancel()
    for task in (again, stopping):
        task.cancel()
    await asyncio.wait((draining, serving))
    await house.close()
    heap.stop()
    if not draining.cancelled():
        draining.result()
    serving.result()


async def _drain(house: House, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Turn work away, finish what is under way, then stop listening."""
    house.telemetry.event("drain", drain_seconds=house.settings.worker.drain_seconds)
    await house.drain()
    server.should_exit = True
    await asyncio.wait((serving,))


def server_of(app: Edge, grace_seconds: int, patience: float = PATIENCE_SECONDS) -> uvicorn.Server:
    """Return the server of an application, to be run on a listener by its `serve`."""
    connection: Any = functools.partial(_Connection, patience=patience)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what clients do wrong is told by the application, once
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
        backlog=BACKLOG,
    )
    return _Server(config)


def _signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    return stop
