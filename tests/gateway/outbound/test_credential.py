"""Where a key goes and where it does not, and which headers may go beside it."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from gateway.outbound import Outbound, open_credential
from gateway.secrets import Secret
from gateway.wire import Cut, WireFailure, WireRequest, WireResponse
from policies.egress import Allowed
from tests.fakes.calls import HOST, KEY, LOOPBACK, OK, ask, entry, post
from tests.fakes.raw_server import RawServer, says


class TestCredential:
    """Where a key goes, and where it does not."""

    async def test_key_reaches_its_own_place(self) -> None:
        """The key is attached for the base URL's scheme, host and port."""
        async with RawServer(says(OK)) as server:
            await ask(server, post(server.port))
            assert f"authorization: Bearer {KEY}\r\n".encode() in server.requests[0]

    @pytest.mark.parametrize(
        "url",
        [
            "http://other.example.com:{port}/v1",
            "https://upstream.example.com:{port}/v1",
            "https://upstream.example.com/v1",
            "http://127.0.0.1:{port}/v1",
            "http://cdn.example.com/v1",
            "http://upstream.example.com:{port}@evil.com/",
            "http://upstream.example.com.evil.com:{port}/",
        ],
    )
    async def test_key_reaches_no_other_place(self, url: str) -> None:
        """A request that names a credential and leads elsewhere is not sent, with or without the key."""
        async with RawServer(says(OK)) as server:
            allowed = Allowed(
                sockets=frozenset({("other.example.com", server.port), ("127.0.0.1", server.port)}),
                hosts=frozenset({HOST}),
            )
            outbound = Outbound(entry(server.port), allowed, resolve=LOOPBACK)
            answer = await outbound.send(WireRequest("GET", url.format(port=server.port), credential="main"))
            await outbound.close()
            assert isinstance(answer, WireFailure)
            assert (answer.cut, server.connections) == (Cut.JUDGED, 0)

    async def test_no_credential_means_no_key(self) -> None:
        """A request without a credential carries none, even to the provider's own place."""
        async with RawServer(says(OK)) as server:
            outbound = Outbound(
                entry(server.port), Allowed(sockets=frozenset({(HOST, server.port)})), resolve=LOOPBACK
            )
            answer = await outbound.send(WireRequest("GET", f"http://{HOST}:{server.port}/x.png"))
            await outbound.close()
            assert isinstance(answer, WireResponse)
            assert KEY.encode() not in server.requests[0]

    async def test_base_url_is_trusted_alone(self) -> None:
        """An internal base URL opens nothing for requests that do not name its credential, also after it."""
        async with RawServer(says(OK)) as server:
            outbound = Outbound(entry(server.port), resolve=LOOPBACK)
            assert isinstance(await outbound.send(post(server.port)), WireResponse)
            answer = await outbound.send(WireRequest("GET", f"http://{HOST}:{server.port}/x.png"))
            await outbound.close()
            assert answer == WireFailure(Cut.JUDGED, "scheme")
            assert server.connections == 1

    async def test_quoted_key_becomes_stars(self) -> None:
        """An upstream that quotes the key it was sent quotes it to nobody but this room."""
        said = f"Incorrect key {KEY}, or {KEY}".encode()
        head = f"HTTP/1.1 401 No\r\nX-Key: Bearer {KEY}\r\nContent-Length: {len(said)}\r\n\r\n".encode()
        async with RawServer(says(head + said)) as server:
            answer = await ask(server, post(server.port))
        stars = "*" * len(KEY)
        assert isinstance(answer, WireResponse)
        assert answer.body.decode() == f"Incorrect key {stars}, or {stars}"
        assert answer.headers["x-key"] == f"Bearer {stars}"

    async def test_unknown_credential_is_not_sent(self) -> None:
        """A credential nobody configured is refused before anything is dialed."""
        outbound = Outbound({})
        answer = await outbound.send(WireRequest("GET", "https://example.com/", credential="gone"))
        assert answer == WireFailure(Cut.JUDGED, "no such credential")

    def test_repr_shows_no_key(self) -> None:
        """A credential printed shows stars."""
        assert KEY not in repr(entry(80))

    @pytest.mark.parametrize(
        ("base", "header", "value"),
        [
            ("ftp://a.b/", "Authorization", "x"),
            ("https://u@a.b/", "Authorization", "x"),
            ("https://a.b/", "Bad Header", "x"),
            ("https://a.b/", "Host", "x"),
            ("https://a.b/", "Authorization", "x\r\nEvil: 1"),
            ("https://a.b/", "Authorization", "k\u00e9y"),
        ],
    )
    def test_unusable_credential_is_refused(self, base: str, header: str, value: str) -> None:
        """A base URL or a key that cannot go out is refused at the start, without being shown."""
        with pytest.raises(Refusal) as refused:
            open_credential(base, header, Secret(value))
        assert value not in str(refused.value) or value == "x"


@pytest.mark.parametrize(
    "headers",
    [
        (("X-A", "1\r\nX-Evil: 1"),),
        (("X-A", "1\nX-Evil: 1"),),
        (("X-A", "\x00"),),
        (("X-A", " lead"),),
        (("X-A", "\u00e9"),),
        (("X-A\r\nX-Evil", "1"),),
        (("X A", "1"),),
        (("", "1"),),
        (("Host", "evil.com"),),
        (("Content-Length", "0"),),
        (("Transfer-Encoding", "chunked"),),
        (("Accept-Encoding", "gzip"),),
        (("Proxy-Authorization", "x"),),
        (("X-A", "1"), ("x-a", "2")),
        (("Authorization", "Bearer mine"),),
    ],
)
async def test_headers_cannot_break_the_framing(headers: tuple[tuple[str, str], ...]) -> None:
    """A header that would split the request, name another host or meet the key is not sent."""
    async with RawServer(says(OK)) as server:
        answer = await ask(server, post(server.port, headers=headers))
        assert isinstance(answer, WireFailure)
        assert (answer.cut, server.connections) == (Cut.JUDGED, 0)


async def test_own_headers_go_out() -> None:
    """An adapter's headers go out as they are, and may replace `accept`."""
    async with RawServer(says(OK)) as server:
        headers = (("Content-Type", "application/json"), ("Idempotency-Key", "k-1"), ("Accept", "image/png"))
        await ask(server, post(server.port, headers=headers))
        sent = server.requests[0].lower()
    for line in (b"content-type: application/json", b"idempotency-key: k-1", b"accept: image/png"):
        assert sent.count(b"\r\n" + line + b"\r\n") == 1
