"""Which tokens are proved, which are not and why, and how long a proof is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import auth
from gateway.auth import Authenticator, Issuer, Unauthenticated, Why
from gateway.errors import Refusal
from gateway.secrets import Secret
from policies.model import Principal, Role
from tests.fakes import tokens
from tests.fakes.door import SECRET, Gate
from tests.fakes.tokens import ABSENT, AUDIENCE, CLAIMS, ISSUER, NOW, signer, token

SECONDS = NOW // 1000


@pytest.mark.parametrize(
    ("algorithm", "kid"), [("EdDSA", "k1"), ("RS256", "rsa"), ("ES256", "ec"), ("PS256", "pss")]
)
async def test_good_tokens_name_callers(algorithm: str, kid: str) -> None:
    """A token of a trusted issuer, signed by its key of that kid, speaks for its tenant and subject."""
    who = await Gate().ask(token(signer(algorithm, kid), {"roles": ["tenant_admin"], "plan": "pro"}))
    assert who == Principal(
        tenant="acme",
        subject="auth0|ann",
        roles=frozenset({Role.USER, Role.TENANT_ADMIN}),
        plan="pro",
        issuer=ISSUER,
        expires_at=CLAIMS["exp"] * 1000,
    )


EXP = CLAIMS["exp"]


@pytest.mark.parametrize(
    ("claims", "head"),
    [
        ({"aud": [AUDIENCE]}, {}),
        ({"aud": ["a", AUDIENCE]}, {}),
        ({"exp": EXP + 0.5}, {}),
        ({"iat": ABSENT}, {}),
        ({"nbf": SECONDS + 30, "iat": SECONDS + 30}, {}),
        ({"exp": SECONDS - 29}, {}),
        ({"email": "a@x.io", "amr": ["pwd"], "ctx": {"a": [{}]}, "name": "Ann \U0001f600"}, {}),
        ({}, {"typ": "AT+JWT"}),
        ({}, {"typ": "application/at+jwt"}),
        ({}, {"typ": "Application/At+Jwt"}),
        ({}, {"jku": "https://evil.example", "x5u": "https://evil.example", "jwk": {}, "x5c": ["AA"]}),
    ],
)
async def test_lawful_variants_pass(claims: dict[str, Any], head: dict[str, Any]) -> None:
    """What the RFCs leave to the issuer is accepted; members that name keys are not looked at."""
    assert await Gate().why(token(signer(), claims, head)) is None


async def test_sole_key_needs_no_kid() -> None:
    """A token without a kid is proved where its issuer has one key only."""
    gate = Gate()
    gate.keys.put(signer())
    assert await gate.why(token(signer(), {}, {"kid": ABSENT})) is None


@pytest.mark.parametrize(
    "header",
    [None, "", b"", b"Bearer", b"bearer", b"Basic YTpi", b"BearerX", b"Token abc", "Digest a", b" Bearer a"],
)
async def test_missing_token_is_told(header: bytes | str | None) -> None:
    """A request without a bearer token is told to send one, and which scheme, but no error code."""
    gate = Gate()
    assert gate.door.known(header) is None
    with pytest.raises(Unauthenticated) as caught:
        await gate.door.verify(header)
    assert caught.value.code == "unauthenticated"
    assert caught.value.detail == "Send a bearer token: `Authorization: Bearer <token>`."
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        (b"{", "The bearer token is not a well-formed signed JWT."),
        ({"exp": SECONDS - 60}, "The bearer token has expired."),
        ({"nbf": SECONDS + 60}, "The bearer token is not accepted here."),
        ({"iss": "https://nobody.example"}, "The bearer token is not accepted here."),
        ({"aud": "others"}, "The bearer token is not accepted here."),
        ({"tenant": "wo\x1bh"}, "The bearer token is not accepted here."),
    ],
)
async def test_refusals_say_little(claims: dict[str, Any] | bytes, detail: str) -> None:
    """A refused token is answered in one of four sentences, none of which holds anything of it."""
    bad = token(signer(), claims)
    with pytest.raises(Unauthenticated) as caught:
        await Gate().ask(bad)
    assert caught.value.detail == detail
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert not any(part.decode() in caught.value.note for part in bad.split(b"."))


async def test_expiry_is_told_to_holders() -> None:
    """That a token has expired is told only of one that was good: a forged one is not accepted."""
    forged = token(signer(which=7), {"exp": 1})
    assert await Gate().why(forged) is Why.BAD_SIGNATURE


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", b"bEaReR "])
async def test_scheme_has_no_case(scheme: str | bytes) -> None:
    """The scheme is read in any case (RFC 9110, 11.1), from text as from bytes."""
    good = token(signer())
    header = scheme + good if isinstance(scheme, bytes) else scheme + good.decode()
    gate = Gate()
    assert await gate.door.verify(header) == gate.door.known(header)


@pytest.mark.parametrize(
    ("settings", "claims", "head", "why"),
    [
        ({"leeway_seconds": 0}, {"exp": SECONDS}, {}, Why.EXPIRED),
        ({"leeway_seconds": 0}, {"exp": SECONDS + 1, "nbf": SECONDS}, {}, None),
        ({"leeway_seconds": 60}, {"exp": SECONDS - 59}, {}, None),
        ({"token_types": ["JWT"]}, {}, {"typ": "jwt"}, None),
        ({"token_types": ["JWT"]}, {}, {}, Why.WRONG_TYPE),
        ({"token_types": ["JWT"]}, {}, {"typ": ABSENT}, Why.WRONG_TYPE),
        ({"token_types": ["application/at+jwt"]}, {}, {}, None),
        ({"tenants": ["acme"]}, {}, {}, None),
        ({"tenants": ["other"]}, {}, {}, Why.BAD_CLAIM),
        ({"tenants": []}, {}, {}, Why.BAD_CLAIM),
        ({"claims": {"tenant": "org.id"}}, {"org": {"id": "x"}}, {}, None),
        ({"claims": {"tenant": "org.id"}}, {}, {}, Why.BAD_CLAIM),
        ({"claims": {"subject": "uid"}}, {"uid": "u", "sub": ""}, {}, Why.BAD_CLAIM),
    ],
)
async def test_issuers_have_their_settings(
    settings: dict[str, Any], claims: dict[str, Any], head: dict[str, Any], why: Why | None
) -> None:
    """Leeway, types, tenants and claim names are those the operator gave for this issuer."""
    assert await Gate(**settings).why(token(signer(), claims, head)) is why


async def test_proved_tokens_are_remembered() -> None:
    """A token proved once is known without its key being looked for again; any other is not."""
    gate = Gate()
    good = token(signer())
    assert not gate.known(good)
    who = await gate.ask(good)
    assert gate.door.known(b"Bearer " + good) == who
    assert gate.keys.sought == 1
    assert not gate.known(good[:-1] + (b"A" if good[-1:] != b"A" else b"Q"))
    assert not gate.known(token(signer(), {"jti": "2"}))


async def test_memory_ends_with_the_token() -> None:
    """A token is not known from its expiry on, though the leeway lets it be proved a little longer."""
    gate = Gate()
    good = token(signer())
    await gate.ask(good)
    gate.now = CLAIMS["exp"] * 1000 - 1
    assert gate.known(good)
    gate.now += 1
    assert not gate.known(good)
    assert await gate.why(good) is None
    assert not gate.known(good)
    gate.now += 30_000
    assert await gate.why(good) is Why.EXPIRED


async def test_memory_ends_with_the_key() -> None:
    """A token is not known once its key has left the set, also where another key took over its kid."""
    gate = Gate()
    good = token(signer())
    await gate.ask(good)
    gate.keys.put(signer("RS256", "rsa"))
    assert not gate.known(good)
    assert await gate.why(good) is Why.UNKNOWN_KEY
    gate.keys.put(signer(which=3))
    assert await gate.why(good) is Why.BAD_SIGNATURE
    gate.keys.put(signer(), signer(kid="new", which=3))
    assert not gate.known(good)
    assert await gate.why(good) is None


async def test_memory_is_bounded() -> None:
    """When as many tokens are remembered as may be, the oldest goes; proving one again forgets none."""
    gate = Gate(cache_size=2)
    first, second, third = (token(signer(), {"jti": str(n)}) for n in range(3))
    for one in (first, second, second):
        await gate.ask(one)
    assert gate.known(first)
    await gate.ask(third)
    assert [gate.known(one) for one in (first, second, third)] == [False, True, True]


async def test_close_reaches_every_source() -> None:
    """Closing an authenticator closes the keys of every issuer."""
    gate = Gate()
    await gate.door.close()
    assert gate.keys.closed
    assert gate.others.closed


ANN = Principal("demo", "you", frozenset({Role.USER, Role.TENANT_ADMIN}), "max", frozenset({"audit"}))


async def test_dev_tokens_are_proved() -> None:
    """A minted token speaks for its caller, from its making until its time is over."""
    gate = Gate()
    minted = auth.mint_dev(SECRET, ANN, ttl_seconds=60, now_ms=NOW, jti="j1").encode()
    expected = msgspec.structs.replace(ANN, issuer="urn:safelight:dev", expires_at=(SECONDS + 60) * 1000)
    assert await gate.ask(minted) == expected
    gate.now += 90_000
    assert await gate.why(minted) is Why.EXPIRED


def test_dev_tokens_have_their_form() -> None:
    """A minted token is `at+jwt` and HS256, and holds the dev issuer's claims and no others."""
    who = Principal("demo", "you")
    minted = auth.mint_dev(SECRET, who, ttl_seconds=60, now_ms=NOW + 999, jti="j1").encode()
    head, claims = (json.loads(tokens.unb64(part)) for part in minted.split(b".")[:2])
    assert head == {"typ": "at+jwt", "alg": "HS256", "kid": head["kid"]}
    assert claims == {
        "iss": "urn:safelight:dev",
        "aud": "safelight",
        "tenant": "demo",
        "sub": "you",
        "roles": ["user"],
        "iat": SECONDS,
        "exp": SECONDS + 60,
        "jti": "j1",
    }


async def test_old_secrets_verify() -> None:
    """After a rotation tokens of the old secret are still proved, and those of a strange one are not."""
    minted = [auth.mint_dev(Secret(c * 64), ANN, ttl_seconds=60, now_ms=NOW, jti="j") for c in "abc"]
    issuer = auth.dev_issuer([Secret("a" * 64), Secret("b" * 64)])
    door = Authenticator([issuer], now=lambda: NOW)
    assert (await door.verify(f"Bearer {minted[0]}")).tenant == "demo"
    assert (await door.verify(f"Bearer {minted[1]}")).tenant == "demo"
    with pytest.raises(Unauthenticated) as caught:
        await door.verify(f"Bearer {minted[2]}")
    assert caught.value.why is Why.UNKNOWN_KEY


@pytest.mark.parametrize("who", [Principal("", "you"), Principal("_", "you"), Principal("demo", "a b")])
def test_unusable_callers_get_none(who: Principal) -> None:
    """No token is minted for a name that no token may hold."""
    with pytest.raises(Refusal):
        auth.mint_dev(SECRET, who, ttl_seconds=60, now_ms=NOW, jti="j1")


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"jwks_file": "k.json"}, []),
        ({"jwks_url": "https://login.example.com/keys"}, []),
        ({}, [""]),
        ({"jwks_file": "k.json", "jwks_url": "https://a.example/k"}, ["/jwks_url"]),
        ({"jwks_url": "http://a.example/k"}, ["/jwks_url"]),
        ({"jwks_url": "https://a.example/ k"}, ["/jwks_url"]),
        ({"jwks_file": "k", "issuer": "urn:safelight:dev"}, ["/issuer"]),
        ({"jwks_file": "k", "token_types": ["JWT", "", "a b"]}, ["/token_types/1", "/token_types/2"]),
        ({"jwks_file": "k", "tenants": ["acme", "_"]}, ["/tenants/1"]),
    ],
)
def test_issuer_flaws_are_listed(fields: dict[str, Any], pointers: list[str]) -> None:
    """Every mistake between an issuer's fields is listed with its place."""
    issuer = msgspec.convert({"issuer": ISSUER, "audience": AUDIENCE} | fields, Issuer)
    assert [flaw.pointer for flaw in issuer.flaws()] == pointers


@pytest.mark.parametrize(
    "fields",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"leeway_seconds": 61},
        {"leeway_seconds": -1},
        {"issuer": ""},
        {"audience": ""},
        {"token_types": []},
        {"hmac_secret": "x"},
        {"claims": {"tenat": "x"}},
    ],
)
def test_unsafe_issuers_do_not_decode(fields: dict[str, Any]) -> None:
    """Settings cannot give an issuer a shared secret, a weak algorithm, a long leeway or an empty name."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"issuer": ISSUER, "audience": AUDIENCE} | fields, Issuer)


async def test_settings_choose_the_source(tmp_path: Path) -> None:
    """An issuer's keys come from its file or its URL; one without either is refused."""

    async def fetch(url: str) -> bytes | None:
        return tokens.jwks(signer()) if url == "https://a.example/k" else None

    (tmp_path / "k.json").write_bytes(tokens.jwks(signer()))
    for source in (
        Issuer(ISSUER, AUDIENCE, str(tmp_path / "k.json")),
        Issuer(ISSUER, AUDIENCE, None, "https://a.example/k"),
    ):
        door = Authenticator([auth.trust(source, fetch=fetch, now=lambda: NOW)], now=lambda: NOW)
        assert (await door.verify(b"Bearer " + token(signer()))).tenant == "acme"
        await door.close()
    with pytest.raises(Refusal, match="has no keys"):
        auth.trust(Issuer(ISSUER, AUDIENCE), fetch=fetch, now=lambda: NOW)
