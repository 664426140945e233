"""Which service keys let somebody in, and what the others are told."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.auth import Authenticator, Issuer, Unauthenticated, Why, dev_issuer, key_digest
from gateway.secrets import Secret
from policies.access import KEY_ISSUER
from policies.model import Principal, Role, ServiceKey

NOW = 1_795_176_000_000
TEXT = "gimg_" + base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
KEY = ServiceKey(
    id="1",
    tenant="acme",
    subject="ann",
    hash=hashlib.sha256(TEXT.encode()).hexdigest(),
    hint="gimg_…",
    roles=(Role.USER, Role.TENANT_ADMIN),
    plan="pro",
    scopes=("images:read",),
    expires_at=NOW + 1000,
)


class Shelf:
    """One key, which may be found under whatever hash it is sought by."""

    def __init__(self, key: ServiceKey | None = KEY, *, careless: bool = False) -> None:
        self.key = key
        self.sought: list[str] = []
        self.now = NOW
        self._careless = careless
        issuer = dev_issuer([Secret("s" * 64)])
        self.door = Authenticator([issuer], now=lambda: self.now, find_key=self.find)

    async def find(self, digest: str) -> ServiceKey | None:
        """Return the key of a hash; a careless shelf returns what it has."""
        self.sought.append(digest)
        fits = self.key is not None and (self._careless or self.key.hash == digest)
        return self.key if fits else None

    async def why(self, text: str) -> Why | None:
        """Say why a bearer is refused; None if it is not."""
        try:
            await self.door.verify(f"Bearer {text}")
        except Unauthenticated as problem:
            return problem.why
        return None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_good_key_names_caller(scheme: str) -> None:
    """A key speaks for its subject, with the roles, plan, scopes and expiry it was made with."""
    shelf = Shelf()
    assert await shelf.door.verify(f"{scheme} {TEXT}") == Principal(
        tenant="acme",
        subject="ann",
        roles=frozenset({Role.USER, Role.TENANT_ADMIN}),
        plan="pro",
        scopes=frozenset({"images:read"}),
        issuer="urn:safelight:key",
        expires_at=NOW + 1000,
    )
    assert shelf.sought == [KEY.hash]


async def test_nothing_of_keys_is_remembered() -> None:
    """A key is looked up at each request: revoked, it is refused at the very next."""
    shelf = Shelf()
    header = f"Bearer {TEXT}"
    who = await shelf.door.verify(header)
    assert shelf.door.known(header) is None
    assert await shelf.door.stands(header, who)
    shelf.key = replace(KEY, revoked_at=NOW)
    assert await shelf.why(TEXT) is Why.REVOKED
    assert not await shelf.door.stands(header, who)
    assert len(shelf.sought) == 4


async def test_tokens_stand_unasked() -> None:
    """Whoever came with a token is not asked again: its expiry is known, and it cannot be revoked."""
    shelf = Shelf()
    assert await shelf.door.stands(None, Principal("acme", "ann"))
    assert shelf.sought == []


@pytest.mark.parametrize(
    ("key", "why", "detail"),
    [
        (None, Why.NO_SUCH_KEY, "The bearer token is not accepted here."),
        (replace(KEY, revoked_at=NOW - 1), Why.REVOKED, "The bearer token is not accepted here."),
        (replace(KEY, expires_at=NOW), Why.EXPIRED, "The bearer token has expired."),
        (
            replace(KEY, expires_at=NOW, revoked_at=NOW),
            Why.REVOKED,
            "The bearer token is not accepted here.",
        ),
    ],
)
async def test_bad_keys_learn_little(key: ServiceKey | None, why: Why, detail: str) -> None:
    """An unknown key and a revoked one are answered alike, as tokens are; a holder is told of expiry."""
    shelf = Shelf(key)
    assert await shelf.why(TEXT) is why
    with pytest.raises(Unauthenticated) as caught:
        await shelf.door.verify(f"Bearer {TEXT}")
    assert (caught.value.detail, caught.value.note) == (detail, "")
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}


async def test_expiry_counts_to_the_millisecond() -> None:
    """A key is good until the millisecond before it expires."""
    shelf = Shelf()
    shelf.now = KEY.expires_at - 1
    assert await shelf.why(TEXT) is None
    shelf.now += 1
    assert await shelf.why(TEXT) is Why.EXPIRED


@pytest.mark.parametrize("digest", ["", KEY.hash[:-1], KEY.hash.upper(), "é"])
async def test_hash_is_compared_whole(digest: str) -> None:
    """Whatever a store returns, only the key of just this hash is accepted."""
    assert await Shelf(replace(KEY, hash=digest), careless=True).why(TEXT) is Why.NO_SUCH_KEY


@pytest.mark.parametrize(
    "text",
    [
        KEY.hash,
        f"sk_{KEY.hash}",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "=",
        TEXT + " ",
        TEXT + "\n",
        " " + TEXT,
        TEXT.upper(),
        TEXT[1:].capitalize(),
        TEXT.replace("_", ".", 1),
        TEXT.replace("gimg_", "_"),
        TEXT.replace("gimg_", "9k_"),
        TEXT.replace("gimg_", "a" * 17 + "_"),
        TEXT.replace("gimg", "gïmg"),
        TEXT[:-1] + "+",
        TEXT[:-1] + "é",
    ],
)
async def test_other_forms_are_no_keys(text: str) -> None:
    """What is not a key to the letter, its hash least of all, is read as a token and never looked up."""
    shelf = Shelf()
    assert await shelf.why(text) is Why.MALFORMED
    assert shelf.sought == []


@pytest.mark.parametrize("text", [TEXT.replace("gimg_", "sk_"), "a_" + "A" * 43, "a" * 16 + "_" + "-" * 43])
async def test_prefix_belongs_to_key(text: str) -> None:
    """The hash covers prefix and all: the same letters under another prefix are another key, and not one."""
    shelf = Shelf()
    assert await shelf.why(text) is Why.NO_SUCH_KEY
    assert len(shelf.sought) == 1


@given(st.from_regex(r"[a-z][a-z0-9]{0,15}_[A-Za-z0-9_-]{43}", fullmatch=True))
def test_digest_is_plain_sha256(text: str) -> None:
    """What is kept of a key is the hex SHA-256 of all its letters, which holds none of them."""
    digest = key_digest(text.encode())
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert len(digest) == 64
    assert text not in digest


async def test_no_shelf_has_no_keys() -> None:
    """Where nobody keeps service keys, none is accepted."""
    door = Authenticator([], now=lambda: NOW)
    with pytest.raises(Unauthenticated) as caught:
        await door.verify(f"Bearer {TEXT}")
    assert caught.value.why is Why.NO_SUCH_KEY


def test_no_issuer_signs_for_keys() -> None:
    """Settings cannot name an issuer whose tokens would pass for service keys."""
    flaws = Issuer(KEY_ISSUER, "images", jwks_file="x").flaws()
    assert [(flaw.pointer, "service keys" in flaw.detail) for flaw in flaws] == [("/issuer", True)]
