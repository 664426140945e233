"""The corpus of bad tokens: each is refused, and by the rule it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import auth
from gateway.auth import Unauthenticated, Why
from gateway.jwks import SecretKeys
from tests.fakes import tokens
from tests.fakes.door import OTHER, SECRET, Gate
from tests.fakes.tokens import ABSENT, AUDIENCE, CLAIMS, ISSUER, NOW, b64, signer, token

EXP = CLAIMS["exp"]
SECONDS = NOW // 1000


def nested(levels: int) -> Any:
    """Make a value nested so deep."""
    return [nested(levels - 1)] if levels else 0


TEXT = json.dumps(dict(CLAIMS))
HEAD = '{"typ":"at+jwt","alg":"EdDSA","kid":"k1"}'

DATES: tuple[Any, ...] = (str(EXP), True, None, [EXP], {}, -1, -0.5, 253_402_300_800, 2**53 - 1, 1e300)
BAD_CLAIMS: list[tuple[dict[str, Any], Why]] = [
    *(({name: ABSENT}, Why.BAD_CLAIM) for name in ("iss", "exp", "sub", "tenant")),
    *(({"iss": iss}, Why.BAD_CLAIM) for iss in ("", 7, None, [ISSUER], {"a": 1})),
    *(({"iss": ISSUER + tail}, Why.UNKNOWN_ISSUER) for tail in ("/", " ", "\0", "\n", ".", "?", "#")),
    ({"iss": ISSUER[:-1]}, Why.UNKNOWN_ISSUER),
    ({"iss": ISSUER.upper()}, Why.UNKNOWN_ISSUER),
    ({"iss": ISSUER.replace("login", "l\u043egin")}, Why.UNKNOWN_ISSUER),
    ({"iss": OTHER}, Why.BAD_SIGNATURE),
    ({"iss": auth.DEV_ISSUER}, Why.UNKNOWN_KEY),
    ({"aud": ABSENT}, Why.WRONG_AUDIENCE),
    *(({"aud": aud}, Why.WRONG_AUDIENCE) for aud in ("", "image", AUDIENCE + "/", "Images", None, 7, True)),
    *(({"aud": aud}, Why.WRONG_AUDIENCE) for aud in ([], [7], [AUDIENCE, 7], [[AUDIENCE]], {AUDIENCE: 1})),
    *(({"exp": exp}, Why.BAD_CLAIM) for exp in DATES),
    ({"exp": 0}, Why.EXPIRED),
    ({"exp": SECONDS - 30}, Why.EXPIRED),
    ({"exp": SECONDS - 31}, Why.EXPIRED),
    ({"exp": SECONDS - 86_400}, Why.EXPIRED),
    *(({name: SECONDS + 31}, Why.TOO_EARLY) for name in ("nbf", "iat")),
    *(({name: "0"}, Why.BAD_CLAIM) for name in ("nbf", "iat")),
    *(({name: None}, Why.BAD_CLAIM) for name in ("nbf", "iat")),
    *(({name: False}, Why.BAD_CLAIM) for name in ("nbf", "iat")),
    *(({name: -1}, Why.BAD_CLAIM) for name in ("nbf", "iat")),
    *(
        ({"sub": sub}, Why.BAD_CLAIM)
        for sub in ("", 7, None, ["a"], "a b", "a\n", "\0", "x" * 200, "\u00e9", "\u202ea")
    ),
    *(
        ({"tenant": name}, Why.BAD_CLAIM)
        for name in ("", 7, None, ["a"], "a b", "a\n", "\0", "x" * 200, "_", "*", "e\u0301")
    ),
    *(
        ({"roles": roles}, Why.BAD_CLAIM)
        for roles in (7, True, {"admin": True}, [1], ["user", None], [["user"]])
    ),
    *(({"plan": plan}, Why.BAD_CLAIM) for plan in (7, "", ["pro"], "a b")),
    *(({"scope": scope}, Why.BAD_CLAIM) for scope in (7, {"a": 1}, [1])),
    ({"cnf": {"jkt": "x"}}, Why.UNSUPPORTED),
    ({"cnf": None}, Why.UNSUPPORTED),
    ({"deep": nested(16)}, Why.MALFORMED),
    ({"a": "\ud800"}, Why.MALFORMED),
    ({"\udfff": "a"}, Why.MALFORMED),
    ({"tenant": "acme\ud800"}, Why.MALFORMED),
    ({"a": 2**64}, Why.MALFORMED),
    ({"pad": "x" * 6000}, Why.MALFORMED),
]
BAD_HEADS: list[tuple[dict[str, Any], Why]] = [
    *(
        ({"alg": alg}, Why.WRONG_ALGORITHM)
        for alg in ("none", "None", "", "HS256", "RS256", "ES256", "eddsa", "EdDSA ")
    ),
    *(({"alg": alg}, Why.WRONG_ALGORITHM) for alg in (ABSENT, None, 7, ["EdDSA"], {"EdDSA": 1})),
    *(({"kid": kid}, Why.WRONG_ALGORITHM) for kid in ("rsa", "ec", "pss")),
    *(({"kid": kid}, Why.UNKNOWN_KEY) for kid in (ABSENT, "", "K1", "k1 ", "k", "../k1", "k1\0", "' or 1=1")),
    *(({"kid": kid}, Why.UNKNOWN_KEY) for kid in (None, 7, True, ["k1"], {"k1": 1})),
    *(
        ({"typ": typ}, Why.WRONG_TYPE)
        for typ in (ABSENT, "", "JWT", "jwt", "id+jwt", "logout+jwt", "at+jwt ", "text/at+jwt")
    ),
    *(({"typ": typ}, Why.WRONG_TYPE) for typ in (None, 7, ["at+jwt"], "application/application/at+jwt")),
    *(
        ({name: value}, Why.UNSUPPORTED)
        for name in ("crit", "b64", "zip", "enc", "cnf")
        for value in (None, ["exp"])
    ),
    ({"crit": ["b64"], "b64": False}, Why.UNSUPPORTED),
    ({"crit": []}, Why.UNSUPPORTED),
    ({"b64": True}, Why.UNSUPPORTED),
    ({"zip": "DEF"}, Why.UNSUPPORTED),
    ({"x": nested(16)}, Why.MALFORMED),
    ({"x": "\ud800"}, Why.MALFORMED),
]
BAD_TEXTS: list[bytes] = [
    b"",
    b" ",
    b"null",
    b"[]",
    b'"text"',
    b"7",
    b"{",
    b"{}{}",
    b"{'a': 1}",
    b"{,}",
    b'{"a":1,}',
    b"\xef\xbb\xbf{}",
    b"{}\0",
    b'{"a":"\0"}',
    b'{"a":"\n"}',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\xaf"}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":1.}',
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":{"b":1,"b":2}}',
    b'{"a":1,"\\u0061":2}',
    b"[" * 6000,
    b'{"a":' * 1000 + b"1" + b"}" * 1000,
    b'"' * 3000,
    b'{"' + b'\\"' * 2500,
    "{}".encode("utf-16"),
    "{}".encode("utf-32-le"),
]


@pytest.mark.parametrize(("claims", "why"), BAD_CLAIMS)
async def test_bad_claims_are_refused(claims: dict[str, Any], why: Why) -> None:
    """A well-signed token whose claims break a rule is refused by that rule."""
    assert await Gate().why(token(signer(), claims)) is why


@pytest.mark.parametrize(("head", "why"), BAD_HEADS)
async def test_bad_heads_are_refused(head: dict[str, Any], why: Why) -> None:
    """A well-signed token whose header breaks a rule is refused by that rule."""
    assert await Gate().why(token(signer(), {}, head)) is why


@pytest.mark.parametrize("text", BAD_TEXTS, ids=range(len(BAD_TEXTS)))
async def test_unstrict_json_is_refused(text: bytes) -> None:
    """Header and claims that are not strict JSON objects are malformed, however well they are signed."""
    gate = Gate()
    assert await gate.why(token(signer(), text)) is Why.MALFORMED
    assert await gate.why(token(signer(), {}, text)) is Why.MALFORMED
    assert gate.keys.sought == 0


@pytest.mark.parametrize("name", CLAIMS)
async def test_doubled_claims_are_refused(name: str) -> None:
    """A claim that stands twice is malformed, even where both say the same."""
    again = f'{TEXT[:-1]},"{name}":{json.dumps(CLAIMS[name])}}}'
    assert await Gate().why(token(signer(), again.encode())) is Why.MALFORMED


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
async def test_doubled_heads_are_refused(name: str) -> None:
    """A header member that stands twice is malformed."""
    again = f'{{"{name}":"x",{HEAD[1:]}'
    assert await Gate().why(token(signer(), {}, again.encode())) is Why.MALFORMED


def uncanonical(segment: bytes) -> bytes:
    """Spell the same bytes another way: with a set bit that decoders drop."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(segment) % 4 in {2, 3}
    return segment[:-1] + letters[letters.index(segment[-1]) ^ 1 :][:1]


SPELLINGS = {  # of header, claims and signature; H, P and S are other spellings of the same bytes
    "nothing": "",
    "one dot": ".",
    "two dots": "..",
    "one segment": "{h}",
    "two segments": "{h}.{p}",
    "four segments": "{h}.{p}.{s}.{s}",
    "five segments": "{h}.{p}.{s}.{s}.{s}",
    "no signature": "{h}.{p}.",
    "no claims": "{h}..{s}",
    "no header": ".{p}.{s}",
    "final dot": "{h}.{p}.{s}.",
    "first dot": ".{h}.{p}.{s}",
    "padded header": "{h}=.{p}.{s}",
    "padded claims": "{h}.{p}==.{s}",
    "padded signature": "{h}.{p}.{s}==",
    "other header": "{H}.{p}.{s}",
    "other claims": "{h}.{P}.{s}",
    "other signature": "{h}.{p}.{S}",
    "letters too many": "{h}.{p}.{s}AAA",
    "plus and slash": "{h}.{p}.+/{s}",
    "first space": " {h}.{p}.{s}",
    "final space": "{h}.{p}.{s} ",
    "space inside": "{h}. {p}.{s}",
    "final line break": "{h}.{p}.{s}\n",
    "line break inside": "{h}.{p}\r\n.{s}",
    "tab": "{h}\t.{p}.{s}",
    "final null": "{h}.{p}.{s}\0",
    "null inside": "{h}.\0{p}.{s}",
    "high byte": "{h}.{p}.\xff{s}",
    "quotes": '"{h}.{p}.{s}"',
    "two tokens": "{h}.{p}.{s}, Bearer {h}.{p}.{s}",
    "percent": "{h}%2E{p}%2E{s}",
    "json form": '{{"protected":"{h}","payload":"{p}","signature":"{s}"}}',
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
async def test_only_one_spelling_counts(spelling: str) -> None:
    """Three segments of canonical, unpadded base64url are a token; every other spelling is malformed."""
    head, claims = (text + " " * (len(text) % 3 == 0) for text in (HEAD, TEXT))  # leaves bits to play with
    good = token(signer(), claims.encode(), head.encode())
    parts = good.split(b".")
    names = dict(zip("hpsHPS", (part.decode() for part in [*parts, *map(uncanonical, parts)]), strict=True))
    gate = Gate()
    assert await gate.why(spelling.format(**names).encode("latin-1")) is Why.MALFORMED
    assert await gate.why(good) is None


def sized(total: int) -> bytes:
    """Write a good token of exactly so many bytes."""
    for fill in range(3):
        for pad in range(5700, 6100):
            made = token(signer(), {"pad": "x" * pad}, {"z": "z" * fill})
            if len(made) == total:
                return made
    raise AssertionError(total)


async def test_tokens_end_at_8_kb() -> None:
    """A token of 8,192 bytes is read; one byte more is malformed without being read."""
    gate = Gate()
    assert await gate.why(sized(8192)) is None
    assert await gate.why(sized(8193)) is Why.MALFORMED


N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # order of P-256
L = 2**252 + 27742317777372353535851937790883648493  # order of Ed25519


def pair(r: int, s: int, size: int = 32) -> bytes:
    """Spell two numbers side by side."""
    return r.to_bytes(size) + s.to_bytes(size)


Forgery = bytes | Callable[[bytes], bytes]
EC_FORGERIES: dict[str, Forgery] = {
    "all zero": bytes(64),
    "r zero": lambda sig: bytes(32) + sig[32:],
    "s zero": lambda sig: sig[:32] + bytes(32),
    "r is n": lambda sig: N.to_bytes(32) + sig[32:],
    "s is n": lambda sig: sig[:32] + N.to_bytes(32),
    "both n": pair(N, N),
    "all ones": b"\xff" * 64,
    "swapped": lambda sig: sig[32:] + sig[:32],
    "s grown by n": lambda sig: pair(int.from_bytes(sig[:32]), int.from_bytes(sig[32:]) + N, 33),
    "wider": lambda sig: b"\0" + sig[:32] + b"\0" + sig[32:],
    "longer": lambda sig: sig + b"\0",
    "shorter": lambda sig: sig[:-1],
    "half": lambda sig: sig[:32],
    "one byte": b"\0",
    "twice": lambda sig: sig + sig,
    "der": lambda sig: b"\x30\x44\x02\x20" + sig[:32] + b"\x02\x20" + sig[32:],
}
ED_FORGERIES: dict[str, Forgery] = {
    "all zero": bytes(64),
    "s grown by the order": lambda sig: (
        sig[:32] + (int.from_bytes(sig[32:], "little") + L).to_bytes(32, "little")
    ),
    "identity": b"\x01" + bytes(63),
    "longer": lambda sig: sig + b"\0",
    "shorter": lambda sig: sig[:-1],
}
RSA_FORGERIES: dict[str, Forgery] = {
    "zero": bytes(256),
    "one": bytes(255) + b"\1",
    "longer": lambda sig: b"\0" + sig,
    "shorter": lambda sig: sig[1:],
    "one byte": b"\1",
    "huge": b"\xff" * 2048,
}


@pytest.mark.parametrize(
    ("algorithm", "kid", "forgery"),
    [
        *(pytest.param("ES256", "ec", forge, id=f"ec {name}") for name, forge in EC_FORGERIES.items()),
        *(pytest.param("EdDSA", "k1", forge, id=f"ed {name}") for name, forge in ED_FORGERIES.items()),
        *(pytest.param("RS256", "rsa", forge, id=f"rsa {name}") for name, forge in RSA_FORGERIES.items()),
        *(pytest.param("PS256", "pss", forge, id=f"pss {name}") for name, forge in RSA_FORGERIES.items()),
    ],
)
async def test_bent_signatures_are_refused(algorithm: str, kid: str, forgery: Forgery) -> None:
    """A signature bent into another form, or made without a key, proves nothing and breaks nothing."""
    text, signature = token(signer(algorithm, kid)).rsplit(b".", 1)
    bent = forgery if isinstance(forgery, bytes) else forgery(tokens.unb64(signature))
    assert await Gate().why(text + b"." + b64(bent)) is Why.BAD_SIGNATURE


async def test_signatures_cover_their_text() -> None:
    """A signature taken from one token does not carry another, nor a part of it."""
    mine, yours = token(signer()).split(b"."), token(signer(), {"tenant": "other"}, {"z": 1}).split(b".")
    gate = Gate()
    assert await gate.why(b".".join((mine[0], yours[1], mine[2]))) is Why.BAD_SIGNATURE
    assert await gate.why(b".".join((yours[0], mine[1], yours[2]))) is Why.BAD_SIGNATURE


@pytest.mark.parametrize("secret", ["pem", "pkcs1", "der", "jwk", "modulus", "empty", "kid"])
@pytest.mark.parametrize(("said", "why"), [("HS256", Why.WRONG_ALGORITHM), ("RS256", Why.BAD_SIGNATURE)])
async def test_public_keys_are_no_secrets(secret: str, said: str, why: Why) -> None:
    """An HMAC under an issuer's public key, in whatever spelling, proves nothing (RFC 8725, 2.1)."""
    public = tokens.public_texts(signer("RS256", "rsa"))[secret]
    forger = tokens.Signer("HS256", public, {"kid": "rsa"})
    assert await Gate().why(token(forger, {}, {"alg": said})) is why


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"jwk": signer(which=9).jwk},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AAAA"]},
        {"jwk": signer(which=9).jwk, "kid": ABSENT},
    ],
    ids=range(6),
)
async def test_tokens_bring_no_keys(head: dict[str, Any]) -> None:
    """A stranger's token is refused whatever keys or places of keys it brings along."""
    assert await Gate().why(token(signer(which=9), {}, head)) in {Why.BAD_SIGNATURE, Why.UNKNOWN_KEY}


async def test_issuers_keys_are_apart() -> None:
    """A key of one issuer proves nothing for another, though both use its kid."""
    gate = Gate()
    assert await gate.why(token(signer(which=5))) is Why.BAD_SIGNATURE
    assert await gate.why(token(signer(), {"iss": OTHER})) is Why.BAD_SIGNATURE
    assert await gate.why(token(signer(which=5), {"iss": OTHER})) is None


@pytest.mark.parametrize(
    ("algorithm", "said", "kid", "why"),
    [
        ("PS256", "PS256", "rsa", Why.WRONG_ALGORITHM),
        ("RS256", "RS256", "pss", Why.WRONG_ALGORITHM),
        ("PS256", "RS256", "rsa", Why.BAD_SIGNATURE),
        ("RS256", "PS256", "pss", Why.BAD_SIGNATURE),
        ("RS384", "RS384", "rsa", Why.WRONG_ALGORITHM),
        ("RS384", "RS256", "rsa", Why.BAD_SIGNATURE),
        ("ES384", "ES384", "ec", Why.WRONG_ALGORITHM),
        ("ES384", "ES256", "ec", Why.BAD_SIGNATURE),
        ("EdDSA", "ES256", "ec", Why.BAD_SIGNATURE),
    ],
)
async def test_keys_choose_the_algorithm(algorithm: str, said: str, kid: str, why: Why) -> None:
    """A token's algorithm is its key's: another is refused, and a false name of one does not verify."""
    assert await Gate().why(token(signer(algorithm, kid), {}, {"alg": said})) is why


async def test_dev_secret_stays_in_dev() -> None:
    """The dev issuer's HMAC key proves no other issuer's token, and no other key proves the dev issuer's."""
    gate = Gate()
    dev = auth.dev_issuer([SECRET]).keys
    assert isinstance(dev, SecretKeys)
    kid = dev.first.kid
    claims = {"iss": auth.DEV_ISSUER, "aud": auth.DEV_AUDIENCE}
    ours = tokens.Signer("HS256", dev.first.jwk.key, {"kid": kid})
    assert await gate.why(token(ours, claims)) is None
    assert await gate.why(token(ours)) is Why.UNKNOWN_KEY
    assert await gate.why(token(ours, claims, {"alg": "HS384"})) is Why.WRONG_ALGORITHM
    assert await gate.why(token(ours, claims, {"alg": "none"})) is Why.WRONG_ALGORITHM
    assert await gate.why(token(signer(), claims, {"kid": kid})) is Why.WRONG_ALGORITHM
    assert await gate.why(token(tokens.Signer("HS256", SECRET.reveal().encode(), {"kid": kid}), claims)) is (
        Why.BAD_SIGNATURE
    )


GOOD = token(signer())


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
async def test_any_changed_byte_is_refused(place: int, byte: int) -> None:
    """A good token in which one byte, whichever, is another one is never accepted."""
    bent = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    assert (await Gate().why(bent) is None) is (bent == GOOD)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD)), st.binary(max_size=3), st.integers(0, 3))
async def test_any_cut_or_graft_is_refused(place: int, graft: bytes, cut: int) -> None:
    """A good token from which bytes are cut, or into which bytes are put, is never accepted."""
    bent = GOOD[:place] + graft + GOOD[place + cut :]
    assert (await Gate().why(bent) is None) is (bent == GOOD)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats()
    | st.text("a.@ \0\u00e9\ud800", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "kid", "jku"]), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["sub", "tenant", "aud", "exp", "nbf", "iat", "roles", "scope", "plan"]), ANYTHING
    ),
    st.dictionaries(st.sampled_from(["typ", "alg", "kid", "crit", "jwk", "x5c"]), ANYTHING),
)
async def test_whatever_is_signed_is_judged(claims: dict[str, Any], head: dict[str, Any]) -> None:
    """Whatever an issuer signs, the answer is a caller or a refusal, never another exception."""
    assert await Gate().why(token(signer(), claims, head)) in {None, *Why}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text("Be ar.\ud800", max_size=20))
async def test_any_header_is_judged(header: bytes | str) -> None:
    """Whatever stands in the header, the answer is a refusal."""
    gate = Gate()
    assert gate.door.known(header) is None
    with pytest.raises(Unauthenticated):
        await gate.door.verify(header)
