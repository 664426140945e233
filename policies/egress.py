"""May we call this address? First the text of a URL, then each IP its name turned out to mean.

Pure text and numbers: who resolves and dials is `gateway/outbound`, which asks here twice and keeps no
verdict. Provider URLs, reference images and webhook targets meet the same judge. `ipaddress.is_global`
is not used: it lets NAT64, 6to4, mapped and some cloud addresses through. IPv4 has a deny list of its
own, IPv6 an allow list (2000::/3) with exceptions: IANA special-purpose registries, RFC 6890, RFC 6761.
The caller is told `PUBLIC`, whatever the reason; the reason is for the operator's log.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from msgspec import Struct, structs

from policies.model import ALLOW, Allow, Flaw

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC: Final = "This address may not be called from here."
MAX_URL: Final = 2048

SPECIAL_NAMES: Final = frozenset(
    # RFC 6761, 6762, 7686, 8375, 9476; .internal (ICANN 2024); names home and company networks use
    {"alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local"}
    | {"localdomain", "localhost", "mail", "onion", "private", "test"}
)
METADATA_NAMES: Final = frozenset(
    {"metadata.goog", "metadata.packet.net", "metadata.platformequinix.com", "metadata.tencentyun.com"}
)

DENIED_V4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent, public by number
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
GLOBAL_V6: Final = IPv6Network("2000::/3")
DENIED_V6: Final = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, handed back
        "3fff::/20",  # documentation
    )
)
# A host that the operator named may be private. These only an address in the list itself may open.
UNNAMEABLE: Final[tuple[Network, ...]] = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "fe80::/10",
        "ff00::/8",
    )
)
_LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?:[/?#].*)?", re.ASCII | re.IGNORECASE)
_VISIBLE = re.compile(r"[!-\[\]-~]*")  # ASCII without blanks, controls and the backslash
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


class Why(enum.StrEnum):
    """What is wrong with an address: for the operator, never for the caller."""

    LENGTH = "length"
    CHARACTER = "character"
    FORM = "form"
    SCHEME = "scheme"
    USERINFO = "userinfo"
    PORT = "port"
    LITERAL = "literal"
    HOST = "host"
    SPECIAL = "special"
    ADDRESS = "address"


class Place(Struct, frozen=True):
    """Where a request goes. `host` is lower case, an IPv6 address without brackets; the port is explicit."""

    scheme: str
    host: str
    port: int


class Barred(Struct, frozen=True):
    """No, and why. `what` is the host or the address, never a path or a query."""

    why: Why
    what: str = ""


class Allowed(Struct, frozen=True):
    """What the operator lets pass although the judge would not.

    `hosts` pass as https at 443, `sockets` (host and port) also as http and at that port, `networks`
    as the answer of a name or as a literal. `loopback` opens this machine, for `dev`.
    """

    hosts: frozenset[str] = frozenset()
    sockets: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[Network, ...] = ()
    loopback: bool = False

    def trusting(self, place: Place) -> Allowed:
        """Return the same with one more place: a provider's own base URL, for its own requests."""
        return structs.replace(self, sockets=self.sockets | {(place.host, place.port)})

    def names(self, place: Place) -> bool:
        """Whether the list names this very host, or this host and port."""
        return (place.host, place.port) in self.sockets or (
            place.host in self.hosts and place.scheme == "https" and place.port == 443
        )

    def holds(self, address: Address) -> bool:
        """Whether the list holds this very address."""
        networks = self.networks + _LOOPBACK if self.loopback else self.networks
        return any(address in network for network in networks)


NOTHING: Final = Allowed()


def judge_url(url: str, allow: Allowed = NOTHING) -> Place | Barred:
    """Say where a URL leads, or why it is not called. Looks at its text alone.

    https at 443 to a public name of at least two labels, unless the list names the place. An address
    in a literal never passes by itself.
    """
    place = read_place(url)
    if isinstance(place, Barred) or allow.names(place):
        return place
    literal = _address(place.host)
    local = allow.loopback and (place.host == "localhost" or _is_loopback(literal))
    if local:
        return place
    if place.scheme != "https":
        return Barred(Why.SCHEME, place.host)
    if place.port != 443:
        return Barred(Why.PORT, place.host)
    if literal is not None:
        return place if allow.holds(literal) else Barred(Why.LITERAL, place.host)
    labels = place.host.split(".")
    if len(labels) < 2:
        return Barred(Why.HOST, place.host)
    if labels[-1] in SPECIAL_NAMES or place.host in METADATA_NAMES:
        return Barred(Why.SPECIAL, place.host)
    return place


def judge_address(address: str, allow: Allowed = NOTHING, place: Place | None = None) -> Allow | Barred:
    """Say whether one resolved IP may be dialed. `place` is what it was resolved for.

    A place the operator named may be private; it still does not lead to link-local, metadata or
    multicast addresses, so that a foreign name server gains nothing. A name with one bad answer among
    good ones is refused whole: that is the caller's loop.
    """
    ip = _address(address)
    if ip is None:
        return Barred(Why.FORM)
    if allow.holds(ip):
        return ALLOW
    if place is not None and allow.names(place):
        exact = place.host == str(ip)
        passes = exact or not any(ip in network for network in UNNAMEABLE)
    elif isinstance(ip, IPv4Address):
        passes = not any(ip in network for network in DENIED_V4)
    else:
        passes = ip in GLOBAL_V6 and not any(ip in network for network in DENIED_V6)
    return ALLOW if passes else Barred(Why.ADDRESS, str(ip))


def read_place(url: str) -> Place | Barred:
    """Return where a URL leads, read so strictly that no other reader can disagree."""
    if len(url) > MAX_URL:
        return Barred(Why.LENGTH)
    if _VISIBLE.fullmatch(url) is None:
        return Barred(Why.CHARACTER)
    parts = _URL.fullmatch(url)
    if parts is None:
        return Barred(Why.SCHEME if "://" in url else Why.FORM)
    scheme, authority = parts["scheme"].lower(), parts["authority"].lower()
    if "@" in authority:
        return Barred(Why.USERINFO)
    split = _split(authority)
    if isinstance(split, Barred):
        return split
    host, port = split
    return Place(scheme, host, port or (443 if scheme == "https" else 80))


def read_allowed(entries: Iterable[str], *, loopback: bool = False) -> Allowed | tuple[Flaw, ...]:
    """Return the operator's list: names, `name:port`, addresses, `address:port` and networks in CIDR.

    Every entry that is none of these is a flaw, with its index as the pointer.
    """
    hosts: set[str] = set()
    sockets: set[tuple[str, int]] = set()
    networks: list[Network] = []
    flaws: list[Flaw] = []
    for index, entry in enumerate(entries):
        network = _network(entry)
        split = _split(entry.lower())
        if network is not None:
            networks.append(network)
        elif isinstance(split, Barred):
            flaws.append(Flaw(f"/{index}", "is no host, host:port, address or network"))
        elif split[1] is None:
            hosts.add(split[0])
        else:
            sockets.add((split[0], split[1]))
    if flaws:
        return tuple(flaws)
    return Allowed(frozenset(hosts), frozenset(sockets), tuple(networks), loopback)


def _split(authority: str) -> tuple[str, int | None] | Barred:
    """Take an authority apart into a host in its one spelling and a port."""
    if authority.startswith("["):
        inner, closed, tail = authority[1:].partition("]")
        literal = _address(inner)
        if not closed or not isinstance(literal, IPv6Address):
            return Barred(Why.LITERAL)
        host = str(literal)
    else:
        host, colon, tail = authority.partition(":")
        tail = colon + tail
        wrong = _judge_host(host)
        if wrong is not None:
            return Barred(wrong)
    if not tail:
        return host, None
    if tail[0] != ":" or _PORT.fullmatch(tail, 1) is None or int(tail[1:]) > 65535:
        return Barred(Why.PORT)
    return host, int(tail[1:])


def _judge_host(host: str) -> Why | None:
    """Say what is wrong with a host's spelling; a name ending in a number is an address (WHATWG URL)."""
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return Why.HOST
    if _NUMERIC.fullmatch(labels[-1]) and _address(host) is None:
        return Why.LITERAL
    return None


def _address(text: str) -> Address | None:
    """Return an address in standard spelling, without a zone."""
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    """Return an address or a network; None for anything else, and for a network with host bits."""
    try:
        return ip_network(text) if "%" not in text else None
    except ValueError:
        return None


def _is_loopback(address: Address | None) -> bool:
    """Whether a literal means this machine."""
    return address is not None and any(address in network for network in _LOOPBACK)
