"""The attack on the judge: every way known to make a gateway call inward, against the real sender.

Nothing is asserted of reasons here, only of what happened: no connection was dialed, counted below all
libraries, none arrived at a listener that waits for it, and the caller was told the one text.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from gateway.callers import Caller
from gateway.outbound import Outbound
from gateway.uploads import UploadParts, Uploads
from gateway.wire import Cut, WireFailure, WireRequest
from policies.egress import PUBLIC
from policies.model import Deny, InputRef, JobRequest
from tests.fakes.dials import Dials
from tests.fakes.raw_server import RawServer, says_and_stays

FAR: Final = "93.184.215.14"
TLS: Final = ssl.create_default_context()

THIS_MACHINE: Final = """
    127.0.0.1 127.1 127.0.1 127.0.0.2 127.255.255.254 127.0.0.1. 127.0.0.1.. 127.0.0.01 127.000.000.001
    127.0.0.1%00 127.0.0.1%20 127.0.0.1%2f 127.0.0.1%23 127.0.0.1; 127.0.0.1, 127.0.0.1'
    0 0. 0.0 0.0.0.0 00000000 0000:0000 00 0x0 0x 0x.0x.0x.0x
    2130706433 2130706433. 02130706433 4294967295 6425673729 340282366920938463463374607431768211457
    0x7f000001 0X7F000001 0x7F000001. 0x7f.1 0x7f.0.1 0x7f.0.0.1 0x7f.0x0.0x0.0x1 0x00000000007f000001
    0177.1 0177.0.1 0177.0.0.1 0177.0.0.0x1 017700000001 0000000177.0.0.1 127.0x0.00.1
    %31%32%37.0.0.1 %6c%6f%63alhost 127%2e0%2e0%2e1 127%E3%80%820%E3%80%820%E3%80%821
    １２７.０.０.１ 127。0。0。1 127．0．0．1 127｡0｡0｡1 ①②⑦.⓪.⓪.① ١٢٧.٠.٠.١ 𝟏𝟐𝟕.𝟎.𝟎.𝟏 ⑫7.0.0.1 127.0.0.¹
    １27.1
    localhost LOCALHOST LocalHost localhost. localhost.localdomain a.localhost a.localhost. ip6-localhost
    ip6-loopback ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ｌｏｃａｌｈｏｓｔ loc\u00adalhost local\u200bhost lоcalhost ſocalhost
    localho\u017ft broadcasthost
    xn--localhost- xn--- xn--127-0 xn--a-0 localhost\u3002localdomain
    [::1] [::1]. [::01] [0::1] [::0:1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001]
    [::0.0.0.1]
    [::] [::0] [0:0:0:0:0:0:0:0] [::127.0.0.1] [::7f00:1] [::1%25lo] [::1%lo] [::1%251] [::1%25] [[::1]] ::1
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:0001] [0:0:0:0:0:ffff:127.0.0.1] [::ffff:0:127.0.0.1]
    [::ffff:0177.0.0.1] [::ffff:127.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1]
    [2002:7f00:1::] [2002:7f00:0001::1] [2001:0:7f00:1::1] [2001:0:4136:e378:8000:63bf:80ff:fffe]
    [fe80::1] [fe80::1%25eth0] [fe80::5efe:127.0.0.1] [fc00::1] [fd00::1] [ff02::1] [fec0::1] [v1.::1]
"""

METADATA: Final = """
    169.254.169.254 169.254.169.254. 169.254.43518 169.16689662 2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe
    0251.0376.0251.0376 0251.254.0xa9.254 025177524776 169.254.169.254%00 １６９.２５４.１６９.２５４
    169。254。169。254
    169.254.170.2 169.254.170.23 169.254.169.123 100.100.100.200 168.63.129.16 192.0.0.192 192.0.0.170
    [::ffff:a9fe:a9fe] [::ffff:169.254.169.254] [::a9fe:a9fe] [64:ff9b::a9fe:a9fe] [2002:a9fe:a9fe::1]
    [fd00:ec2::254] [fd00:ec2::253] [fd20:ce::254] [fe80::a9fe:a9fe] [fe80::a9fe:a9fe%25eth0]
    metadata metadata. metadata.google.internal metadata.google.internal. METADATA.GOOGLE.INTERNAL
    metadata.goog metadata.packet.net metadata.platformequinix.com metadata.tencentyun.com instance-data
    instance-data.ec2.internal rancher-metadata metadata.azure.internal
    kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local
    host.docker.internal gateway.docker.internal db.prod.internal vault.service.consul.local
    10.0.0.1 10.1 172.16.0.1 192.168.1.1 192.168.257 0xc0a80101 3232235777 100.64.0.1 198.18.0.1 224.0.0.1
    255.255.255.255 printer.local nas.lan router.home.arpa wpad.corp intranet.home a.private
    1.0.0.127.in-addr.arpa
    8.8.8.8 [2606:4700:4700::1111]
"""

WHOLE: Final = [
    # userinfo, and what another reader may take for it
    "https://good.example.com@127.0.0.1/",
    "https://127.0.0.1@good.example.com/",
    "https://user:word@good.example.com/",
    "https://@good.example.com/",
    "https://:@good.example.com/",
    "https://good.example.com:443@127.0.0.1/",
    "https://good.example.com%40127.0.0.1/",
    "https://good.example.com%00@127.0.0.1/",
    "https://good.example.com\\@127.0.0.1/",
    "https://127.0.0.1\\@good.example.com/",
    "https://127.0.0.1\\.good.example.com/",
    "https://good.example.com&@127.0.0.1#@good.example.com/",
    "https://127.0.0.1#@good.example.com/",
    "https://127.0.0.1?@good.example.com/",
    "https://127.0.0.1;good.example.com/",
    # ports
    "https://good.example.com:80/",
    "https://good.example.com:22/",
    "https://good.example.com:6379/",
    "https://good.example.com:0/",
    "https://good.example.com:-443/",
    "https://good.example.com:+443/",
    "https://good.example.com:0443/",
    "https://good.example.com:443 /",
    "https://good.example.com:443:443/",
    "https://good.example.com:443a/",
    "https://good.example.com:65979/",
    "https://good.example.com:/",
    "https://good.example.com:４４３/",
    "https://good.example.com:0x1bb/",
    # schemes and shapes
    "http://good.example.com/",
    "http://127.0.0.1/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "file://good.example.com/etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/stats",
    "ftp://good.example.com/a.png",
    "sftp://good.example.com/a.png",
    "tftp://good.example.com/a.png",
    "ldap://127.0.0.1/",
    "jar:https://good.example.com/a.jar!/b.png",
    "netdoc:///etc/passwd",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "ws://good.example.com/",
    "wss://good.example.com/",
    "data:image/png;base64,iVBORw0KGgo=",
    "javascript:fetch('/')",
    "blob:https://good.example.com/1",
    "view-source:https://good.example.com/",
    "about:blank",
    "s3://bucket/key",
    "//127.0.0.1/",
    "\\\\127.0.0.1\\share\\a.png",
    "///127.0.0.1/",
    "https:/127.0.0.1/",
    "https:127.0.0.1/",
    "https:\\\\127.0.0.1\\",
    "https:///127.0.0.1/",
    "https:////127.0.0.1/",
    "https://",
    "https://:443/",
    "https:// /",
    "https://./",
    "https://../",
    "https://good..example.com/",
    "https://.good.example.com/",
    "https://good.example.com./",
    "https://com/",
    "",
    " ",
    "127.0.0.1",
    "good.example.com/a.png",
    # characters that readers drop, fold or split at
    " https://good.example.com/",
    "\thttps://good.example.com/",
    "\x00https://good.example.com/",
    "\ufeffhttps://good.example.com/",
    "ht\ttps://good.example.com/",
    "https://good.exam\tple.com/",
    "https://good.exam\nple.com/",
    "https://good.example.com/\r\nHost: 127.0.0.1",
    "https://good.example.com\r\n.evil.example.com/",
    "https://good.example.com/\x00",
    "https://good.example.com/\x7f",
    "https://good.example.com/a b",
    "https://good.example.com /",
    "https://good.example.com/\u202egnp.a",
    "https://good.example。com/",
    "https://good.exämple.com/",
    "https://good.example.com℀.evil.example.com/",
    "https://evil.c℀.good.example.com/",
    "https://good%2eexample.com/",
    "https://good.example.com/" + "a" * 2048,
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 130}example.com/",
]

ATTACKS: Final = [
    *(f"https://{host}/a.png" for host in (*THIS_MACHINE.split(), *METADATA.split())),
    *(
        f"https://{host}:PORT/a.png"
        for host in ("127.0.0.1", "localhost", "[::1]", "good.example.com", "2130706433")
    ),
    *(
        f"http://{host}:PORT/a.png"
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.0.0.1.nip.io")
    ),
    *WHOLE,
]

BAD_ANSWERS: Final = """
    127.0.0.1 127.0.0.53 0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 168.63.129.16 169.254.169.254
    169.254.170.2
    172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1
    203.0.113.1
    224.0.0.1 240.0.0.1 255.255.255.255 ::1 :: ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1 64:ff9b::7f00:1
    64:ff9b:1::1 2002:7f00:1::1 2001::1 fe80::1 fe80::1%eth0 fe80::1%lo fc00::1 fd00:ec2::254 fec0::1
    ff02::1
    127.1 2130706433 0x7f000001 0177.0.0.1 localhost metadata ::1%lo 127.0.0.1%eth0 /var/run/docker.sock
"""
"""What a foreign name server may answer, and what a resolver may make of it."""


async def to_this_machine(_host: str) -> Sequence[str]:
    """Resolve every name there is to this machine."""
    return ["127.0.0.1"]


@pytest.fixture
def dials() -> Iterator[Dials]:
    """All that is dialed in one test."""
    with Dials() as watching:
        yield watching


@pytest.fixture
async def bait() -> AsyncIterator[RawServer]:
    """A listener inside, which nobody may reach."""
    async with RawServer(says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")) as server:
        yield server


async def told(outbound: Outbound, url: str) -> str:
    """Return what a caller is told who names this URL as a job's input."""
    parts = cast("UploadParts", SimpleNamespace(judge=outbound.judge, store=None, blobs=None))
    asked = JobRequest("a fox", inputs=(InputRef(url=url),))
    verdict = await Uploads(parts).pin(cast("Caller", None), asked)
    assert isinstance(verdict, Deny)
    return f"{verdict.reason} {verdict.detail} {[(flaw.pointer, flaw.detail) for flaw in verdict.flaws]}"


ONE_TEXT: Final = f"reference_rejected {PUBLIC} [('/inputs/0/url', '{PUBLIC}')]"


def test_attack_has_breadth() -> None:
    """The attack is one hundred and fifty different URLs at least, before names and redirects."""
    assert len(set(ATTACKS)) == len(ATTACKS) >= 150


@pytest.mark.parametrize("url", ATTACKS, ids=ascii)
async def test_no_url_leads_inward(dials: Dials, bait: RawServer, url: str) -> None:
    """However a forbidden place is spelled, nothing is dialed for it, and all callers read one text."""
    target = url.replace("PORT", str(bait.port))
    outbound = Outbound({}, resolve=to_this_machine, tls=TLS)
    for send in (outbound.fetch, outbound.send):
        answer = await send(WireRequest("GET", target, seconds=5.0))
        assert isinstance(answer, WireFailure)
        assert (answer.cut, answer.sent) == (Cut.JUDGED, False)
    assert await told(outbound, target) == ONE_TEXT
    await outbound.close()
    assert (dials.dialed, dials.names, bait.connections) == ([], [], 0)


@pytest.mark.parametrize("bad", BAD_ANSWERS.split())
async def test_no_name_leads_inward(dials: Dials, bad: str) -> None:
    """A public name is refused whole if any answer for it is bad, wherever that stands among good ones."""
    for answers in ([bad], [FAR, bad], [bad, FAR], [FAR, FAR, bad, FAR]):

        async def resolve(_host: str, answers: Sequence[str] = tuple(answers)) -> Sequence[str]:
            return answers

        outbound = Outbound({}, resolve=resolve, tls=TLS)
        answer = await outbound.fetch(WireRequest("GET", "https://good.example.com/a.png", seconds=5.0))
        assert isinstance(answer, WireFailure)
        assert answer.cut is Cut.JUDGED
        assert await told(outbound, "https://good.example.com/a.png") == ONE_TEXT
        await outbound.close()
    assert dials.dialed == []


async def test_public_name_is_dialed(dials: Dials) -> None:
    """The same sender does dial a public address, that one alone: the attack's silence is the judge's."""

    async def resolve(_host: str) -> Sequence[str]:
        return [FAR]

    outbound = Outbound({}, resolve=resolve, tls=TLS)
    answer = await outbound.fetch(WireRequest("GET", "https://good.example.com/a.png", seconds=5.0))
    await outbound.close()
    assert answer == WireFailure(Cut.UNREACHABLE, "ConnectionRefusedError")
    assert dials.dialed == [(FAR, 443)]


class Rebinding:
    """A name server that gives a good answer first and bad ones from then on, or turn by turn."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = cycle(answers)
        self.asked = 0

    async def __call__(self, _host: str) -> Sequence[str]:
        """Answer once more."""
        self.asked += 1
        return next(self._answers)


@pytest.mark.parametrize("inner", ["127.0.0.1", "169.254.169.254", "10.0.0.7", "::1", "::ffff:7f00:1"])
async def test_rebinding_gains_nothing(dials: Dials, inner: str) -> None:
    """A name judged good when it was named is judged again when it is dialed, and no verdict is kept."""
    resolve = Rebinding([FAR], [inner])
    outbound = Outbound({}, resolve=resolve, tls=TLS)
    for _ in range(5):
        assert await outbound.judge("https://good.example.com/a.png")
        answer = await outbound.fetch(WireRequest("GET", "https://good.example.com/a.png", seconds=5.0))
        assert answer == WireFailure(Cut.JUDGED, "address" if "%" not in inner else "form")
    await outbound.close()
    assert (dials.dialed, resolve.asked) == ([], 10)


async def test_parallel_rebinding_gains_nothing(dials: Dials) -> None:
    """Of many fetches at once, with answers that alternate, only the good answers are ever dialed."""
    outbound = Outbound({}, resolve=Rebinding([FAR], ["127.0.0.1"], [FAR, "127.0.0.1"]), tls=TLS)
    request = WireRequest("GET", "https://good.example.com/a.png", seconds=5.0)
    answers = await asyncio.gather(*(outbound.fetch(request) for _ in range(30)))
    await outbound.close()
    cuts = [cast("Any", answer).cut for answer in answers]
    assert (cuts.count(Cut.JUDGED), cuts.count(Cut.UNREACHABLE)) == (20, 10)
    assert set(dials.dialed) == {(FAR, 443)}
