"""Who is dialed: addresses judged one by one, and certificates by name."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx_aiohttp import AiohttpTransport

from gateway.outbound import Outbound
from gateway.outbound.connector import TRIP, Trip, open_transport
from gateway.wire import Cut, WireFailure, WireRequest, WireResponse
from policies.egress import NOTHING, Allowed, Barred, Place, Why
from tests.fakes.calls import HOST, LOOPBACK, OK, answers, entry
from tests.fakes.raw_server import RawServer, Talk, says


class TestJudge:
    """Addresses, at the moment they are dialed."""

    @pytest.mark.parametrize(
        "found",
        [
            ["127.0.0.1"],
            ["10.0.0.1"],
            ["169.254.169.254"],
            ["::1"],
            ["::ffff:127.0.0.1"],
            ["fe80::1%lo"],
            ["8.8.8.8", "127.0.0.1"],
        ],
    )
    async def test_private_answers_are_not_dialed(self, found: list[str]) -> None:
        """A public name that resolves to a private address is refused, also when only one answer is bad."""
        outbound = Outbound({}, resolve=answers(("images.example.com", found)))
        answer = await outbound.send(WireRequest("GET", "https://images.example.com/a.png"))
        await outbound.close()
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.JUDGED

    async def test_one_bad_answer_refuses_the_name(self) -> None:
        """Nothing is dialed for a name with a good answer before a bad one."""
        allowed = Allowed(networks=(IPv4Network("127.0.0.0/8"),))
        async with RawServer(says(OK)) as server:
            resolve = answers(("images.example.com", ["127.0.0.1", "10.0.0.1"]))
            transport = open_transport(resolve, ssl.create_default_context(), limit=1, keep=False)
            trip = await dial(transport, f"http://images.example.com:{server.port}/", allowed)
            assert (trip.barred, trip.departed) == (Barred(Why.ADDRESS, "10.0.0.1"), False)
            assert server.connections == 0

    async def test_literal_is_judged_at_its_socket(self) -> None:
        """An address that meets no resolver is judged where its socket is opened."""
        async with RawServer(says(OK)) as server:
            transport = open_transport(answers(), ssl.create_default_context(), limit=1, keep=False)
            trip = await dial(transport, f"http://127.0.0.1:{server.port}/", NOTHING)
            assert (trip.barred, trip.departed) == (Barred(Why.ADDRESS, "127.0.0.1"), False)
            assert server.connections == 0

    async def test_rebinding_name_is_judged_each_time(self) -> None:
        """A name that was good a moment ago is judged again: no verdict and no answer is kept."""
        seen: list[str] = []

        async def resolve(host: str) -> Sequence[str]:
            seen.append(host)
            return ["127.0.0.1"] if len(seen) == 1 else ["169.254.169.254"]

        async with RawServer(says(OK)) as server:
            allowed = Allowed(sockets=frozenset({(HOST, server.port)}))
            outbound = Outbound({}, allowed, resolve=resolve)
            request = WireRequest("GET", f"http://{HOST}:{server.port}/a.png")
            first, second = await outbound.send(request), await outbound.send(request)
            await outbound.close()
        assert isinstance(first, WireResponse)
        assert second == WireFailure(Cut.JUDGED, "address")

    async def test_allowed_literal_is_dialed(self) -> None:
        """A literal in the operator's list is dialed without asking a resolver."""
        async with RawServer(says(OK)) as server:
            allowed = Allowed(sockets=frozenset({("127.0.0.1", server.port)}))
            outbound = Outbound({}, allowed, resolve=answers())
            answer = await outbound.send(WireRequest("GET", f"http://127.0.0.1:{server.port}/"))
            await outbound.close()
        assert isinstance(answer, WireResponse)

    @pytest.mark.parametrize(
        "url", ["http://localhost/", "https://[::1]/", "unix:///run/docker.sock", "https://a b/"]
    )
    async def test_text_is_judged_first(self, url: str) -> None:
        """A URL that is barred by its text reaches no resolver."""
        outbound = Outbound({}, resolve=answers())
        answer = await outbound.send(WireRequest("GET", url))
        assert isinstance(answer, WireFailure)
        assert (answer.cut, answer.sent) == (Cut.JUDGED, False)


class TestTls:
    """Certificates, on real handshakes."""

    async def test_right_name_passes(self, tmp_path: Path) -> None:
        """The name of the URL, not the dialed address, is what the certificate must show."""
        inside, outside = make_tls(tmp_path, HOST)
        async with RawServer(says(OK), tls=inside) as server:
            outbound = Outbound(entry(server.port, "https"), resolve=LOOPBACK, tls=outside)
            answer = await outbound.send(
                WireRequest("POST", f"https://{HOST}:{server.port}/v1", credential="main")
            )
            await outbound.close()
        assert isinstance(answer, WireResponse)

    @pytest.mark.parametrize("name", ["other.example.com", HOST])
    async def test_wrong_certificate_is_unreachable(self, tmp_path: Path, name: str) -> None:
        """A wrong name or an unknown issuer fails in the handshake: the request never left."""
        inside, outside = make_tls(tmp_path, name)
        trusted = outside if name != HOST else None
        async with RawServer(says(OK), tls=inside) as server:
            outbound = Outbound(entry(server.port, "https"), resolve=LOOPBACK, tls=trusted)
            answer = await outbound.send(
                WireRequest("POST", f"https://{HOST}:{server.port}/v1", credential="main")
            )
            await outbound.close()
            assert answer == WireFailure(Cut.UNREACHABLE, "SSLCertVerificationError")
            assert server.requests == []

    async def test_plain_server_is_unreachable(self) -> None:
        """A server that speaks no TLS is not reached: what failed is the handshake."""

        async def plain(talk: Talk) -> None:
            await talk.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await talk.gone()

        async with RawServer(plain) as server:
            outbound = Outbound(entry(server.port, "https"), resolve=LOOPBACK)
            answer = await outbound.send(
                WireRequest("POST", f"https://{HOST}:{server.port}/v1", credential="main")
            )
            await outbound.close()
        assert answer == WireFailure(Cut.UNREACHABLE, "SSLError")

    async def test_cut_after_handshake_is_unknown(self, tmp_path: Path) -> None:
        """A connection lost after the handshake may have carried the request."""
        inside, outside = make_tls(tmp_path, HOST)
        async with RawServer(says(b""), tls=inside) as server:
            outbound = Outbound(entry(server.port, "https"), resolve=LOOPBACK, tls=outside)
            answer = await outbound.send(
                WireRequest("POST", f"https://{HOST}:{server.port}/v1", credential="main")
            )
            await outbound.close()
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.RESET


async def dial(transport: AiohttpTransport, url: str, allowed: Allowed) -> Trip:
    """Send by the connector alone, past every other judge, and return how far it got."""
    trip = Trip(url, Place("http", "nobody.example.com", 80), allowed)
    mark = TRIP.set(trip)
    with pytest.raises(httpx.TransportError):
        await transport.handle_async_request(httpx.Request("GET", url))
    TRIP.reset(mark)
    await transport.aclose()
    return trip


def make_tls(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context for a self-signed name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(secret + pem)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(folder / "both.pem")
    return inside, ssl.create_default_context(cadata=pem.decode())
