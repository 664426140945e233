"""What may be called: every spelling of a forbidden place, and what the operator's list opens."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.egress import (
    NOTHING,
    Address,
    Allowed,
    Barred,
    Place,
    Why,
    judge_address,
    judge_url,
    read_allowed,
)
from policies.model import ALLOW, Flaw

GOOD_URLS = [
    ("https://example.com", "example.com"),
    ("https://example.com/", "example.com"),
    ("https://example.com:443/a?b=c#d", "example.com"),
    ("HTTPS://EXAMPLE.COM/Path", "example.com"),
    ("https://api.openai.com/v1/images/generations", "api.openai.com"),
    ("https://example.com?x=http://127.0.0.1/", "example.com"),
    ("https://example.com/@127.0.0.1/%00%2e%2e", "example.com"),
    (
        "https://my_bucket.s3.eu-west-1.amazonaws.com/k?X-Amz-Signature=a%2Fb",
        "my_bucket.s3.eu-west-1.amazonaws.com",
    ),
    ("https://xn--bcher-kva.example.com/", "xn--bcher-kva.example.com"),
    ("https://127.0.0.1.nip.io/", "127.0.0.1.nip.io"),
    ("https://a.b#@127.0.0.1", "a.b"),
    ("https://0xabc.example.com/", "0xabc.example.com"),
]

BAD_URLS = [
    ("", Why.FORM),
    ("example.com", Why.FORM),
    ("//example.com/", Why.FORM),
    ("https:/example.com/", Why.FORM),
    ("https:example.com", Why.FORM),
    ("https:///example.com/", Why.HOST),
    ("http://example.com/", Why.SCHEME),
    ("ftp://example.com/", Why.SCHEME),
    ("file:///etc/passwd", Why.SCHEME),
    ("gopher://example.com/", Why.SCHEME),
    ("data:image/png;base64,AAAA", Why.FORM),
    ("javascript:alert(1)", Why.FORM),
    ("http+unix://%2Fvar%2Frun%2Fdocker.sock/x", Why.SCHEME),
    ("https://user@example.com/", Why.USERINFO),
    ("https://user:pass@example.com/", Why.USERINFO),
    ("https://example.com@127.0.0.1/", Why.USERINFO),
    ("https://@example.com/", Why.USERINFO),
    ("https://example.com:80/", Why.PORT),
    ("https://example.com:8443/", Why.PORT),
    ("https://example.com:/", Why.PORT),
    ("https://example.com:0443/", Why.PORT),
    ("https://example.com:65979/", Why.PORT),
    ("https://example.com:443:443/", Why.PORT),
    ("https://example.com:+443/", Why.PORT),
    ("https://127.0.0.1/", Why.LITERAL),
    ("https://8.8.8.8/", Why.LITERAL),
    ("https://127.1/", Why.LITERAL),
    ("https://127.0.1/", Why.LITERAL),
    ("https://2130706433/", Why.LITERAL),
    ("https://0x7f000001/", Why.LITERAL),
    ("https://0x7F.0.0.1/", Why.LITERAL),
    ("https://0x/", Why.LITERAL),
    ("https://017700000001/", Why.LITERAL),
    ("https://0177.0.0.1/", Why.LITERAL),
    ("https://127.0.0.01/", Why.LITERAL),
    ("https://127.0.0.0x1/", Why.LITERAL),
    ("https://256.256.256.256/", Why.LITERAL),
    ("https://1.2.3.4.5/", Why.LITERAL),
    ("https://example.com.1/", Why.LITERAL),
    ("https://0/", Why.LITERAL),
    ("https://127.0.0.1./", Why.HOST),
    ("https://[::1]/", Why.LITERAL),
    ("https://[::]/", Why.LITERAL),
    ("https://[0:0:0:0:0:0:0:1]/", Why.LITERAL),
    ("https://[::ffff:127.0.0.1]/", Why.LITERAL),
    ("https://[::ffff:7f00:1]/", Why.LITERAL),
    ("https://[2606:4700::1111]/", Why.LITERAL),
    ("https://[fe80::1%25eth0]/", Why.LITERAL),
    ("https://[fe80::1%eth0]/", Why.LITERAL),
    ("https://[127.0.0.1]/", Why.LITERAL),
    ("https://[::1/", Why.LITERAL),
    ("https://[v1.x]/", Why.LITERAL),
    ("https://[]/", Why.LITERAL),
    ("https://[::1]x/", Why.PORT),
    ("https://::1/", Why.HOST),
    ("https://localhost/", Why.HOST),
    ("https://metadata/", Why.HOST),
    ("https://com/", Why.HOST),
    ("https://example.com./", Why.HOST),
    ("https://.example.com/", Why.HOST),
    ("https://a..b/", Why.HOST),
    ("https://-a.example.com/", Why.HOST),
    ("https://a-.example.com/", Why.HOST),
    ("https://ex%61mple.com/", Why.HOST),
    ("https://example.com%2f@evil.com/", Why.USERINFO),
    ("https://exa*mple.com/", Why.HOST),
    ("https://a,b.com/", Why.HOST),
    (f"https://{'a' * 64}.com/", Why.HOST),
    (f"https://{'a.' * 127}com/", Why.HOST),
    ("https://app.localhost/", Why.SPECIAL),
    ("https://printer.local/", Why.SPECIAL),
    ("https://db.prod.internal/", Why.SPECIAL),
    ("https://metadata.google.internal/", Why.SPECIAL),
    ("https://METADATA.GOOG/computeMetadata/v1/", Why.SPECIAL),
    ("https://kubernetes.default.svc.cluster.local/", Why.SPECIAL),
    ("https://a.test/", Why.SPECIAL),
    ("https://a.invalid/", Why.SPECIAL),
    ("https://a.example/", Why.SPECIAL),
    ("https://a.onion/", Why.SPECIAL),
    ("https://router.home.arpa/", Why.SPECIAL),
    ("https://1.0.0.127.in-addr.arpa/", Why.SPECIAL),
    ("https://nas.lan/", Why.SPECIAL),
    ("https://example.com\\@127.0.0.1/", Why.CHARACTER),
    ("https:\\\\example.com\\", Why.CHARACTER),
    ("https://example.com/a b", Why.CHARACTER),
    (" https://example.com/", Why.CHARACTER),
    ("https://example.com/\r\nX-Evil: 1", Why.CHARACTER),
    ("https://example.com\t/", Why.CHARACTER),
    ("https://example.com/\x00", Why.CHARACTER),
    ("https://example.com/\x7f", Why.CHARACTER),
    ("https://ex\u00e4mple.com/", Why.CHARACTER),
    ("https://\uff11\uff12\uff17.0.0.1/", Why.CHARACTER),
    ("https://127\u30020\u30020\u30021/", Why.CHARACTER),
    ("https://example\u2025com/", Why.CHARACTER),
    ("https://ⓔxample.com/", Why.CHARACTER),
    ("https://example.com/\ud800", Why.CHARACTER),
    ("https://example.com/" + "a" * 2029, Why.LENGTH),
]

BAD_ADDRESSES = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1
    127.255.255.254 168.63.129.16 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1
    192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.175.48.1 198.18.0.1
    198.19.255.255 198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 ::
    ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1
    64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378::1 2001:10::1 2001:20::1
    2001:1ff::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2620:4f:8000::1 3ffe::1 3fff::1
    3fff:fff::1 4000::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1
    ff0e::1
"""

GOOD_ADDRESSES = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
    168.63.129.15 168.63.129.17 169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255
    198.17.255.255 198.20.0.0 223.255.255.255 2606:4700:4700::1111 2a00:1450::1 2001:200::1
    2001:4860:4860::8888 2003::1 2620:4f:8001::1 3fff:1000::1
"""


@pytest.mark.parametrize(("url", "host"), GOOD_URLS)
def test_public_https_names_pass(url: str, host: str) -> None:
    """An https URL at 443 of a public name leads to that name, whatever its path and query hold."""
    assert judge_url(url) == Place("https", host, 443)


@pytest.mark.parametrize(("url", "why"), BAD_URLS)
def test_url_tricks_are_barred(url: str, why: Why) -> None:
    """A URL that another reader might take for a private place is refused by its text, for one reason."""
    verdict = judge_url(url)
    assert isinstance(verdict, Barred)
    assert verdict.why is why


@pytest.mark.parametrize("address", BAD_ADDRESSES.split())
def test_special_addresses_are_barred(address: str) -> None:
    """No special-purpose address is dialed, in either family, nor one that carries another inside."""
    verdict = judge_address(address)
    assert isinstance(verdict, Barred)
    assert verdict.why is Why.ADDRESS


@pytest.mark.parametrize("address", GOOD_ADDRESSES.split())
def test_neighbors_of_blocks_pass(address: str) -> None:
    """The blocks end where they end: the public address next to one is dialed."""
    assert judge_address(address) == ALLOW


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f.0.0.1", "fe80::1%eth0", "1.2.3.4%x", "/run/x"]
)
def test_non_addresses_are_barred(text: str) -> None:
    """What is no address in standard spelling is not dialed."""
    assert judge_address(text) == Barred(Why.FORM)


@given(st.integers(0, 2**128 - 1))
def test_only_global_unicast_passes(number: int) -> None:
    """No IPv6 address outside 2000::/3 ever passes."""
    if number >> 125 != 1:
        assert judge_address(str(IPv6Address(number))) != ALLOW


@given(st.integers(0, 2**32 - 1))
def test_stdlib_private_never_passes(number: int) -> None:
    """The deny list is no weaker than the standard library's own word on private and multicast."""
    address = IPv4Address(number)
    if address.is_private or address.is_multicast or address.is_reserved:
        assert judge_address(str(address)) != ALLOW


@given(st.text(max_size=80).map("https://".__add__))
def test_any_text_gets_an_answer(url: str) -> None:
    """Whatever text comes, the judge answers, and what it lets through is ASCII with a dot in its host."""
    verdict = judge_url(url)
    if isinstance(verdict, Place):
        assert url.isascii()
        assert "." in verdict.host
        assert verdict.host in url.lower()


LIST = [
    "images.corp.internal",
    "ComfyUI:8188",
    "10.1.2.3",
    "10.9.9.9:9000",
    "192.168.0.0/24",
    "[fd00::5]:8080",
]


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://images.corp.internal/x", True),
        ("https://images.corp.internal:443/x", True),
        ("http://images.corp.internal/x", False),
        ("https://images.corp.internal:8443/x", False),
        ("https://other.corp.internal/x", False),
        ("https://x.images.corp.internal/x", False),
        ("http://comfyui:8188/x", True),
        ("https://comfyui:8188/x", True),
        ("http://comfyui/x", False),
        ("https://comfyui/x", False),
        ("https://10.1.2.3/x", True),
        ("http://10.1.2.3/x", False),
        ("https://10.1.2.4/x", False),
        ("http://10.9.9.9:9000/x", True),
        ("http://10.9.9.9:9001/x", False),
        ("https://192.168.0.77/x", True),
        ("https://192.168.1.77/x", False),
        ("http://[fd00:0::5]:8080/x", True),
        ("http://[fd00::6]:8080/x", False),
        ("http://u@comfyui:8188/x", False),
        ("http://localhost:8188/x", False),
    ],
)
def test_list_opens_exactly_its_entries(url: str, *, passes: bool) -> None:
    """Each entry of the operator's list lets that host, socket or network pass, and no neighbor of it."""
    allow = read_allowed(LIST)
    assert isinstance(allow, Allowed)
    assert isinstance(judge_url(url, allow), Place) is passes


@pytest.mark.parametrize(
    ("address", "place", "passes"),
    [
        ("10.0.0.7", Place("https", "images.corp.internal", 443), True),
        ("fd12::7", Place("https", "images.corp.internal", 443), True),
        ("127.0.0.1", Place("http", "comfyui", 8188), True),
        ("10.0.0.7", Place("https", "example.com", 443), False),
        ("169.254.169.254", Place("https", "images.corp.internal", 443), False),
        ("100.100.100.200", Place("http", "comfyui", 8188), False),
        ("fd00:ec2::254", Place("http", "comfyui", 8188), False),
        ("::ffff:169.254.169.254", Place("http", "comfyui", 8188), False),
        ("0.0.0.0", Place("http", "comfyui", 8188), False),
        ("10.1.2.3", Place("https", "example.com", 443), True),
        ("10.1.2.3", None, True),
        ("10.1.2.4", None, False),
        ("192.168.0.9", Place("https", "example.com", 443), True),
        ("10.9.9.9", Place("http", "10.9.9.9", 9000), True),
        ("10.9.9.9", Place("https", "example.com", 443), False),
    ],
)
def test_named_host_may_be_private(address: str, place: Place | None, *, passes: bool) -> None:
    """A named host may answer with a private address, and never with a metadata address by its name alone."""
    allow = read_allowed(LIST)
    assert isinstance(allow, Allowed)
    assert (judge_address(address, allow, place) == ALLOW) is passes


def test_metadata_opens_by_its_address_alone() -> None:
    """An operator who writes a link-local address itself gets exactly that."""
    allow = read_allowed(["169.254.10.1:80"])
    assert isinstance(allow, Allowed)
    place = judge_url("http://169.254.10.1/x", allow)
    assert isinstance(place, Place)
    assert judge_address("169.254.10.1", allow, place) == ALLOW
    assert judge_address("169.254.10.2", allow, place) != ALLOW


@pytest.mark.parametrize(
    "url", ["http://localhost:8080/", "http://127.0.0.1:9/", "https://[::1]/", "http://127.9.9.9/"]
)
def test_loopback_opens_in_dev_only(url: str) -> None:
    """Loopback is called where it is opened, at any port, and nowhere else."""
    assert isinstance(judge_url(url, Allowed(loopback=True)), Place)
    assert isinstance(judge_url(url, NOTHING), Barred)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1"])
def test_loopback_opens_no_network(address: str) -> None:
    """Opening loopback opens this machine's own addresses and no private network."""
    assert (judge_address(address, Allowed(loopback=True)) == ALLOW) is (address != "10.0.0.1")


def test_trust_names_one_socket() -> None:
    """Trusting a provider's base URL adds its host and port to a copy of the list."""
    allow = NOTHING.trusting(Place("http", "comfyui", 8188))
    assert judge_url("http://comfyui:8188/prompt", allow) == Place("http", "comfyui", 8188)
    assert isinstance(judge_url("http://comfyui:8189/prompt", allow), Barred)
    assert NOTHING.sockets == frozenset()


@pytest.mark.parametrize(
    "entry",
    ["", "http://a.b", "a b", "a.b:0", "a.b:99999", "10.0.0.1/8", "1.2.3", "*.a.b", "[::1", "fe80::1%eth0"],
)
def test_list_names_every_flaw(entry: str) -> None:
    """An entry that is no host, socket, address or network is a flaw with its place in the list."""
    flaw = "is no host, host:port, address or network"
    assert read_allowed(["ok.example.com", entry, entry]) == (Flaw("/1", flaw), Flaw("/2", flaw))


def test_address_type_covers_both_families() -> None:
    """A network in the list matches addresses of its own family and no other."""
    allow = read_allowed(["10.0.0.0/8", "fd00::/8"])
    assert isinstance(allow, Allowed)
    table: list[tuple[Address, bool]] = [
        (IPv4Address("10.1.1.1"), True),
        (IPv6Address("fd00::1"), True),
        (IPv6Address("::ffff:10.1.1.1"), False),
    ]
    assert [allow.holds(address) for address, _ in table] == [held for _, held in table]
