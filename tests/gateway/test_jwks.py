"""Which keys of a set are used, and when a set is read or fetched again."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway import jwks
from gateway.errors import Refusal
from gateway.jwks import COOL_DOWN_MS, FIRST_MS, FRESH_MS, HARD_MS, Algorithm, FileKeys, KeySet, UrlKeys
from tests.fakes import tokens
from tests.fakes.tokens import signer

ALL: tuple[Algorithm, ...] = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "EdDSA"),
)
URL = "https://login.example.com/keys"


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = tokens.NOW

    def __call__(self) -> int:
        """Tell the time in milliseconds."""
        return self.now


class Endpoint:
    """A URL that answers what it is told, when its gate is open, and counts how often it was asked."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, url: str) -> bytes | None:
        """Answer once the gate is open."""
        assert url == URL
        self.asked += 1
        await self.gate.wait()
        return self.body


@pytest.fixture
def clock() -> Clock:
    """A clock at the time of the tokens."""
    return Clock()


def read(data: bytes, algorithms: tuple[Algorithm, ...] = ALL) -> KeySet:
    """Parse what must be a key set."""
    found = jwks.parse(data, algorithms)
    assert isinstance(found, KeySet)
    return found


def changed(**changes: Any) -> dict[str, Any]:
    """Publish a good Ed25519 key with changes."""
    return tokens.changed(signer().jwk, changes)


@pytest.mark.parametrize("algorithm", ALL)
def test_each_algorithm_has_keys(algorithm: str) -> None:
    """A public key of each accepted algorithm is found by its kid and bound to that algorithm."""
    key = read(tokens.jwks(signer(algorithm, "a"))).find("a")
    assert key is not None
    assert key.algorithm == key.jwk.algorithm_name == algorithm


@pytest.mark.parametrize(
    ("algorithm", "allowed", "bound"),
    [
        ("RS256", ("RS256", "PS256"), "RS256"),
        ("RS256", ("ES256", "PS512", "RS256"), "PS512"),
        ("ES384", ("ES256", "ES384"), "ES384"),
        ("EdDSA", ("EdDSA",), "EdDSA"),
    ],
)
def test_silent_keys_are_bound(algorithm: str, allowed: tuple[Algorithm, ...], bound: str) -> None:
    """A key that names no algorithm is bound to the first allowed one of its kind."""
    silent = tokens.changed(signer(algorithm, "a").jwk, {"alg": tokens.ABSENT})
    key = read(tokens.jwks(silent), allowed).find("a")
    assert key is not None
    assert key.algorithm == bound


UNUSED = [
    "text",
    changed(use="enc"),
    changed(use=None),
    changed(key_ops=["encrypt"]),
    changed(key_ops="verify"),
    changed(d="c2VjcmV0"),
    changed(kid=""),
    changed(kid=7),
    changed(kid="k" * 257),
    changed(alg="HS256"),
    changed(alg="none"),
    changed(alg="ES256"),
    changed(alg=7),
    changed(alg="RS384", kty="RSA", n="AQAB", e="AQAB"),
    changed(alg=tokens.ABSENT, kty="RSA", n="AQAB", e="AQAB"),
    changed(kty=tokens.ABSENT),
    changed(kty=["OKP"]),
    changed(crv="Ed448"),
    changed(crv="X25519"),
    changed(x=tokens.ABSENT),
    changed(x=7),
    changed(x="AAAA"),
    changed(x="A" * 65),
    {"kty": "oct", "k": "c2VjcmV0", "kid": "k1", "alg": "HS256"},
    {"kty": "oct", "kid": "k1"},
    {**signer("ES256").jwk, "y": signer("ES256").jwk["x"]},
    {**signer("ES256").jwk, "crv": "P-384"},
    {**signer("ES256").jwk, "crv": "secp256k1", "alg": "ES256K"},
    {**signer("RS256").jwk, "e": "A" * 9},
    {**signer("RS256").jwk, "e": "AA"},
    {**signer("RS256").jwk, "n": "A" * 1367},
]


@pytest.mark.parametrize("entry", UNUSED)
def test_unfit_keys_are_dropped(entry: Any) -> None:
    """A key that is secret, for something else, malformed or of no allowed algorithm is not used."""
    found = read(tokens.jwks(entry, signer(kid="other")))
    assert found.find("k1") is None
    assert found.find("other") is not None
    assert len(found.dropped) == 1
    assert found.dropped[0].startswith("key 0 ")


def test_small_rsa_keys_are_dropped() -> None:
    """An RSA key of fewer than 2048 bits is not used, and the operator is told its size."""
    found = read(tokens.jwks(signer("RS256", kind="RSA-1024")))
    assert found.find("k1") is None
    assert found.dropped == ("key 0 has 1024 bits; 2048 to 8192 are accepted",)


def test_doubled_kids_stand_for_none() -> None:
    """A kid that two usable keys share finds neither; an unusable namesake does not count."""
    twice = read(tokens.jwks(signer(), signer("ES256"), signer(kid="b")))
    assert twice.find("k1") is None
    assert twice.find("b") is not None
    assert read(tokens.jwks(signer(), changed(use="enc"))).find("k1") is not None


def test_missing_kid_finds_one() -> None:
    """Without a kid only the key of a set of one is found, whether it has a kid or not."""
    assert read(tokens.jwks(signer(kid=None))).find(None) is not None
    assert read(tokens.jwks(signer())).find(None) is not None
    assert read(tokens.jwks(signer(), signer(kid="b"))).find(None) is None
    assert read(tokens.jwks(signer(kid=None), signer(kid="b"))).find(None) is None
    assert read(tokens.jwks()).find(None) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"<html>",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [NaN]}',
        b'{"keys": ["\xff"]}',
        b'{"keys": [' + b"[" * 15 + b"]" * 15 + b"]}",
        b"[" * 90_000,
        b"\xef\xbb\xbf" + tokens.jwks(),
        tokens.jwks(*range(101)),
        tokens.jwks("x" * 256_000),
    ],
    ids=lambda data: f"{len(data)}-bytes",
)
def test_broken_documents_are_refused(data: bytes) -> None:
    """What is not strict JSON of a key set, or is too large, is refused as a whole with a sentence."""
    assert isinstance(jwks.parse(data, ALL), str)


def test_thumbprints_tell_keys_apart() -> None:
    """Another key, or the same key for another algorithm, has another thumbprint; a new kid has not."""
    prints = {
        next(iter(read(tokens.jwks(key)).thumbprints))
        for key in (signer(), signer(kid="b"), signer(which=1), signer("RS256"), signer("PS256"))
    }
    assert len(prints) == 4


async def test_secret_keys_are_hmac() -> None:
    """Keys made of secrets are HS256, found by a kid that tells nothing, the first first."""
    keys = jwks.SecretKeys([b"a" * 32, b"b" * 32])
    found = await keys.find(keys.first.kid)
    assert found == keys.first
    assert keys.first.algorithm == "HS256"
    assert keys.holds(keys.first.thumbprint)
    assert not keys.holds(b"")
    assert await keys.find(None) is None
    await keys.close()


def write(path: Path, data: bytes, at: int) -> None:
    """Write a file as if at that second."""
    path.write_bytes(data)
    os.utime(path, (at, at))


async def test_file_is_read_again(tmp_path: Path, clock: Clock) -> None:
    """A changed file counts from the next look on, a second after the last; an unchanged one is kept."""
    path = tmp_path / "keys.json"
    write(path, tokens.jwks(signer()), 1)
    keys = FileKeys(path, ALL, now=clock)
    old = await keys.find("k1")
    assert old is not None
    write(path, tokens.jwks(signer(which=1), signer(kid="k2", which=2)), 2)
    clock.now += 999
    assert keys.holds(old.thumbprint)
    clock.now += 1
    assert not keys.holds(old.thumbprint)
    assert await keys.find("k2") is not None
    clock.now += 1000
    assert await keys.find("k2") is not None
    await keys.close()


@pytest.mark.parametrize("breakage", ["gone", "garbage"])
async def test_broken_file_keeps_keys(tmp_path: Path, clock: Clock, breakage: str) -> None:
    """A file that went away or became unreadable leaves the last good keys in use and says so."""
    path = tmp_path / "keys.json"
    write(path, tokens.jwks(signer()), 1)
    keys = FileKeys(path, ALL, now=clock)
    if breakage == "gone":
        path.unlink()
    else:
        write(path, b"garbage", 2)
    clock.now += 1000
    assert await keys.find("k1") is not None
    assert keys.trouble
    write(path, tokens.jwks(signer(kid="k2")), 3)
    clock.now += 1000
    assert await keys.find("k1") is None
    assert not keys.trouble


@pytest.mark.parametrize("data", [None, b"garbage", tokens.jwks(), tokens.jwks(changed(use="enc"))])
def test_useless_file_is_refused(tmp_path: Path, clock: Clock, data: bytes | None) -> None:
    """A process does not start with a key file that is missing, broken or without a usable key."""
    path = tmp_path / "keys.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Refusal, match=r"keys\.json"):
        FileKeys(path, ALL, now=clock)


async def test_url_is_fetched_once(clock: Clock) -> None:
    """Callers that come while a set is fetched share one fetch; those that come later need none."""
    endpoint = Endpoint(tokens.jwks(signer()))
    endpoint.gate.clear()
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    callers = [asyncio.create_task(keys.find("k1")) for _ in range(8)]
    await asyncio.sleep(0)
    endpoint.gate.set()
    found = await asyncio.gather(*callers)
    assert all(found)
    assert await keys.find("k1") is not None
    assert endpoint.asked == 1
    await keys.close()


async def test_leaving_caller_stops_nothing(clock: Clock) -> None:
    """A caller that is canceled while it waits does not stop the fetch for the others."""
    endpoint = Endpoint(tokens.jwks(signer()))
    endpoint.gate.clear()
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    first, second = (asyncio.create_task(keys.find("k1")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    endpoint.gate.set()
    assert await second is not None
    assert endpoint.asked == 1


async def test_unknown_kid_asks_once(clock: Clock) -> None:
    """An unknown kid causes one fetch, and no other before the cool-down is over."""
    endpoint = Endpoint(tokens.jwks(signer()))
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    assert await keys.find("k1") is not None
    endpoint.body = tokens.jwks(signer(), signer(kid="k2"))
    clock.now += COOL_DOWN_MS - 1
    assert await keys.find("k2") is None
    assert endpoint.asked == 1
    clock.now += 1
    assert await keys.find("k2") is not None
    assert await keys.find("k3") is None
    assert endpoint.asked == 2


async def test_missing_kid_asks_nothing(clock: Clock) -> None:
    """A token without a kid causes no fetch of a set that is there: there is no key it lacks."""
    endpoint = Endpoint(tokens.jwks(signer(), signer(kid="k2")))
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    assert await keys.find(None) is None
    clock.now += COOL_DOWN_MS
    assert await keys.find(None) is None
    assert endpoint.asked == 1


async def test_aging_set_renews_itself(clock: Clock) -> None:
    """A set past its fresh time is used without waiting while it is fetched; a gone key then is gone."""
    endpoint = Endpoint(tokens.jwks(signer(), signer(kid="k2")))
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    old = await keys.find("k1")
    assert old is not None
    clock.now += FRESH_MS - 1
    assert keys.holds(old.thumbprint)
    clock.now += 1
    assert not keys.holds(old.thumbprint)
    endpoint.body = tokens.jwks(signer(kid="k2", which=1))
    endpoint.gate.clear()
    assert await keys.find("k1") == old
    assert keys.holds(old.thumbprint)
    endpoint.gate.set()
    assert await keys.find("k3") is None
    assert not keys.holds(old.thumbprint)
    assert endpoint.asked == 2


@pytest.mark.parametrize("answer", [None, b"garbage"])
async def test_stale_set_outlives_trouble(clock: Clock, answer: bytes | None) -> None:
    """While its source fails a set stays in use for a day, asked for each cool-down, and no longer."""
    endpoint = Endpoint(tokens.jwks(signer()))
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    old = await keys.find("k1")
    assert old is not None
    endpoint.body = answer
    clock.now += HARD_MS - 1
    assert await keys.find("k1") == old
    assert await keys.find("k2") is None
    assert keys.holds(old.thumbprint)
    assert keys.trouble
    assert endpoint.asked == 2
    clock.now += 1
    assert not keys.holds(old.thumbprint)
    assert await keys.find("k1") is None


async def test_first_fetch_is_tried_sooner(clock: Clock) -> None:
    """While there is no usable set at all, its source is asked again after a shorter pause."""
    endpoint = Endpoint(None)
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    assert await keys.find("k1") is None
    clock.now += FIRST_MS - 1
    assert await keys.find("k1") is None
    assert endpoint.asked == 1
    endpoint.body = tokens.jwks(signer())
    clock.now += 1
    assert await keys.find("k1") is not None
    assert not keys.trouble


async def test_clock_set_back_asks(clock: Clock) -> None:
    """A clock that was set back does not lengthen the cool-down."""
    endpoint = Endpoint(tokens.jwks(signer()))
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    assert await keys.find("k1") is not None
    clock.now -= 3_600_000
    assert await keys.find("k2") is None
    assert endpoint.asked == 2


async def test_close_stops_the_fetch(clock: Clock) -> None:
    """Closing stops a fetch under way and may be done twice."""
    endpoint = Endpoint(tokens.jwks(signer()))
    endpoint.gate.clear()
    keys = UrlKeys(URL, ALL, fetch=endpoint, now=clock)
    await keys.close()
    caller = asyncio.create_task(keys.find("k1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await keys.close()
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await caller


def test_empty_document_has_keys() -> None:
    """A set without keys is an answer, not a failure: its issuer has withdrawn every key."""
    assert read(json.dumps({"keys": []}).encode()).thumbprints == frozenset()
