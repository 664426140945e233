"""The attack by those who answer: servers that redirect inward, drip, flood and lie.

The first server is one the sender may call; another one waits inside, and its connections are counted.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import pytest

from gateway.outbound import Outbound
from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies.egress import Allowed
from tests.fakes.calls import HOST
from tests.fakes.dials import Dials
from tests.fakes.raw_server import Act, RawServer, Talk, says, says_and_stays

MOST: Final = 10_000


class Scene(NamedTuple):
    """A server that may be called, one that may not, a sender, and what it dialed."""

    outer: RawServer
    inner: RawServer
    outbound: Outbound
    dials: Dials

    async def fetch(self, seconds: float = 5.0) -> Wire:
        """Fetch from the outer server."""
        url = f"http://{HOST}:{self.outer.port}/0.png"
        return await self.outbound.fetch(WireRequest("GET", url, seconds=seconds, max_bytes=MOST))

    def inward(self, target: str) -> str:
        """Return a redirect's target with the ports of this scene."""
        return target.replace("INNER", str(self.inner.port)).replace("OUTER", str(self.outer.port))

    @property
    def reached(self) -> int:
        """Connections that should not have been: to the inner server, or to any other place."""
        return self.inner.connections + sum(
            place != ("127.0.0.1", self.outer.port) for place in self.dials.dialed
        )


async def everywhere(_host: str) -> Sequence[str]:
    """Resolve every name to this machine."""
    return ["127.0.0.1"]


@asynccontextmanager
async def opened(*acts: Act) -> AsyncIterator[Scene]:
    """Open a scene whose outer server acts so."""
    async with RawServer(*acts) as outer, RawServer(says(b"HTTP/1.1 200 OK\r\n\r\nown")) as inner:
        outbound = Outbound({}, Allowed(sockets=frozenset({(HOST, outer.port)})), resolve=everywhere)
        try:
            with Dials() as dials:
                yield Scene(outer, inner, outbound, dials)
        finally:
            await outbound.close()


def moved(location: str, status: int = 302) -> Act:
    """Return an act that redirects, in UTF-8 where it must."""
    head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return says(head.encode())


INWARD: Final = [
    "http://127.0.0.1:INNER/",
    "http://localhost:INNER/",
    "http://[::1]:INNER/",
    "http://[::ffff:127.0.0.1]:INNER/",
    "http://2130706433:INNER/",
    "http://0x7f.1:INNER/",
    "http://other.example.com:OUTER/",
    f"http://{HOST}:INNER/",
    f"https://{HOST}:INNER/",
    f"http://{HOST}.:OUTER/",
    f"http://user@{HOST}:OUTER/",
    f"http://{HOST}@127.0.0.1:INNER/",
    f"http://{HOST}:OUTER@127.0.0.1:INNER/",
    f"http://{HOST}\\@127.0.0.1:INNER/",
    "//127.0.0.1:INNER/",
    "\\\\127.0.0.1:INNER/",
    "https://127.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "https://metadata.google.internal/",
    "https://good.example.com:8443/",
    "https://good.example.com/",
    "http://good.example.com/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "gopher://127.0.0.1:INNER/_x",
    "data:image/png;base64,iVBORw0KGgo=",
    "ftp://127.0.0.1:INNER/",
    "javascript:alert(1)",
    "unix:/var/run/docker.sock",
    "http://１２７.０.０.１:INNER/",
    "http://127。0。0。1:INNER/",
    "",
    "http://[",
]


@pytest.mark.parametrize("hop", [1, 2, 3])
@pytest.mark.parametrize("target", INWARD, ids=ascii)
async def test_no_hop_leads_inward(target: str, hop: int) -> None:
    """At each of three hops a redirect inward ends there: the hops so far were made, and nothing else."""
    async with opened() as scene:
        outward = [moved(f"/{n}.png") for n in range(1, hop)]
        scene.outer.acts = (*outward, moved(scene.inward(target)))
        answer = await scene.fetch()
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.JUDGED
        assert (scene.outer.connections, scene.reached) == (hop, 0)


@pytest.mark.parametrize("inner", ["169.254.169.254", "::1", "0.0.0.0", "::ffff:127.0.0.1", "fd00:ec2::254"])
async def test_name_turns_between_hops(inner: str) -> None:
    """A name the operator allows, good at the first hop, is refused when it means metadata at the second."""
    turns = iter([["127.0.0.1"], [inner]])

    async def turning(_host: str) -> Sequence[str]:
        return next(turns)

    async with RawServer(moved("/next")) as outer:
        outbound = Outbound({}, Allowed(sockets=frozenset({(HOST, outer.port)})), resolve=turning)
        with Dials() as dials:
            answer = await outbound.fetch(WireRequest("GET", f"http://{HOST}:{outer.port}/", seconds=5.0))
        await outbound.close()
    if inner == "::1":  # a named host may be this machine's: then nobody listens there
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.UNREACHABLE
    else:
        assert answer == WireFailure(Cut.JUDGED, "address")
        assert dials.dialed == [("127.0.0.1", outer.port)]


@pytest.mark.parametrize("target", ["/again", "?x=1", "", "//HOST:OUTER/again"])
async def test_circles_end_soon(target: str) -> None:
    """A circle of redirects is followed three times at most, whatever it is spelled like."""
    async with opened() as scene:
        scene.outer.acts = (moved(scene.inward(target).replace("HOST", HOST)),)
        answer = await scene.fetch()
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.JUDGED
        assert scene.outer.connections == (4 if target else 1)


HINTS: Final = [
    b"HTTP/1.1 200 OK\r\nLocation: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 201 Made\r\nLocation: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 300 Many\r\nLocation: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 305 Proxy\r\nLocation: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 399 Odd\r\nLocation: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nRefresh: 0; url=http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Location: http://127.0.0.1:INNER/\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nLink: <http://127.0.0.1:INNER/>; rel=preload\r\nContent-Length: 2\r\n\r\nok",
    b'HTTP/1.1 200 OK\r\nAlt-Svc: h2="127.0.0.1:INNER"\r\nContent-Length: 2\r\n\r\nok',
    b"HTTP/1.1 103 Early\r\nLink: <//127.0.0.1:INNER/>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok",
]


@pytest.mark.parametrize("said", HINTS, ids=lambda said: said[:32].decode())
async def test_only_redirects_move(said: bytes) -> None:
    """What is no redirect moves nobody: no header else is followed, and nothing is asked again."""
    async with opened() as scene:
        scene.outer.acts = (says(scene.inward(said.decode()).encode()),)
        answer = await scene.fetch()
        assert isinstance(answer, WireResponse)
        assert answer.body == b"ok"
        assert (scene.outer.connections, scene.reached) == (1, 0)


async def test_two_locations_lead_nowhere() -> None:
    """Two Location headers are not chosen between: together they are no address that may be called."""
    both = b"Location: /a.png\r\nLocation: http://127.0.0.1:INNER/\r\n"
    async with opened() as scene:
        said = b"HTTP/1.1 302 Moved\r\n" + both + b"Content-Length: 0\r\n\r\n"
        scene.outer.acts = (says(scene.inward(said.decode()).encode()),)
        answer = await scene.fetch()
        assert isinstance(answer, WireFailure)
        assert (answer.cut, scene.reached) == (Cut.JUDGED, 0)


def drips(start: bytes, drop: bytes) -> Act:
    """Return an act that never stops sending a little."""

    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.write(start)
        while not await talk.gone(within=0.01):
            await talk.write(drop)

    return act


DRIPS: Final = {
    "status line": drips(b"HTTP/1.1 2", b"0"),
    "headers": drips(b"HTTP/1.1 200 OK\r\n", b"X"),
    "informational": drips(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"."),
    "chunks": drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    "silence": says_and_stays(b""),
}


@pytest.mark.parametrize("act", DRIPS.values(), ids=DRIPS)
async def test_drips_end_at_deadline(act: Act) -> None:
    """A server that always sends a little more, of anything, is left at the deadline with its socket."""
    async with opened(act) as scene:
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = await scene.fetch(seconds=0.25)
        assert clock() - began < 2
        assert isinstance(answer, WireFailure)
        assert answer.sent
        await asyncio.wait_for(scene.outer.left.wait(), 5)
        assert scene.outer.connections == 1


async def test_slow_hops_share_one_deadline() -> None:
    """Hops that are each in time are together not: redirects buy no time."""

    async def slow(talk: Talk) -> None:
        await talk.request()
        if not await talk.gone(within=0.12):
            await talk.write(b"HTTP/1.1 302 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")

    async with opened(slow) as scene:
        answer = await scene.fetch(seconds=0.3)
        assert isinstance(answer, WireFailure)
        assert answer.cut in (Cut.TIMEOUT, Cut.UNREACHABLE)
        assert scene.outer.connections <= 3


def floods(head: bytes, piece: bytes) -> Act:
    """Return an act that sends as fast as it is read, for ever."""

    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.write(head)
        while True:
            await talk.write(piece)

    return act


FLOODS: Final = {
    "endless": floods(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 2**16),
    "chunked": floods(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"8000\r\n" + b"a" * 2**15 + b"\r\n"
    ),
    "understated": floods(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"a" * 2**16),
    "headers": floods(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"a" * 9000 + b"\r\n"),
    "one header": floods(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 2**16),
    "many headers": floods(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000),
}


@pytest.mark.parametrize("act", FLOODS.values(), ids=FLOODS)
async def test_floods_are_cut_off(act: Act) -> None:
    """An answer without an end is cut at its cap long before the deadline, body and head alike."""
    async with opened(act) as scene:
        async with asyncio.timeout(10):
            answer = await scene.fetch(seconds=60)
        assert isinstance(answer, WireFailure)
        assert answer.cut in (Cut.TOO_LARGE, Cut.HALF)


BOMB: Final = bytes(50 * 2**20)
PACKED: Final = {
    "gzip": gzip.compress(gzip.compress(BOMB)),
    "deflate": zlib.compress(zlib.compress(BOMB)),
    "br": b"\xcf\xff\xff\x7f\xf8'\x00\xe2\xb1\x40\x20\xf0\x1f",
    "zstd": b"(\xb5/\xfd\x04X",
}


@pytest.mark.parametrize("coding", PACKED)
async def test_bombs_stay_packed(coding: str) -> None:
    """A body that was packed in spite of our asking is never unpacked: its bytes are those of the wire."""
    packed = PACKED[coding]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Encoding: {coding}\r\n"
    async with opened(says(f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)) as scene:
        answer = await scene.fetch()
        assert isinstance(answer, WireResponse)
        assert answer.body == packed
        assert b"accept-encoding: identity" in scene.outer.requests[0].lower()


@pytest.mark.parametrize("packed", [gzip.compress(BOMB), zlib.compress(BOMB)], ids=["gzip", "deflate"])
async def test_large_bombs_are_cut(packed: bytes) -> None:
    """A packed body counts by its bytes on the wire, and is cut where those are too many."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with opened(says(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed))) as scene:
        answer = await scene.fetch()
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.TOO_LARGE


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "application/x-sh", "image/png\u00e9", "", "x" * 4000]
)
async def test_types_are_only_claims(kind: str) -> None:
    """A content type makes no difference to what is fetched: who uses the bytes looks at the bytes."""
    said = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 6\r\n\r\n<html>"
    async with opened(says(said.encode("latin-1"))) as scene:
        answer = await scene.fetch()
        assert isinstance(answer, WireResponse)
        assert (answer.status, answer.body) == (200, b"<html>")
