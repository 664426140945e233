"""Who is calling: bearer bytes to a `Principal`, or a 401 that says no more than it must.

Nothing in a token chooses a URL, a key source or an algorithm: its `iss` is looked up in a fixed table,
its key by exact `kid` in that issuer's own set, and the key says which algorithm counts. What PyJWT is
asked is one thing only, whether a signature fits; every other rule (RFC 7515, 7519, 8725, 9068) stands
here, because a bare library passes far more than we accept. This room and `jwks` alone know PyJWT.
A bearer of a service key's form is never read as a token: it is looked up by its hash at each request, and
nothing of it is remembered, so a revocation counts from the next request on.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import jwt
import msgspec
from msgspec import Meta, Struct

from gateway.errors import Problem, Refusal
from gateway.jwks import Algorithm, Fetch, FileKeys, Key, KeySource, SecretKeys, UrlKeys
from gateway.secrets import Secret
from gateway.strict import read_object
from policies import access
from policies.access import KEY_ISSUER, ClaimNames
from policies.model import Flaw, Principal, ServiceKey

DEV_ISSUER: Final = "urn:safelight:dev"
DEV_AUDIENCE: Final = "safelight"

MAX_TOKEN: Final = 8_192
MAX_DEPTH: Final = 16
LAST_DATE: Final = 253_402_300_799  # the end of the year 9999, in seconds

_KEY: Final = re.compile(rb"[a-z][a-z0-9]{0,15}_[A-Za-z0-9_-]{43}")
"""A service key: a prefix, and 32 bytes as base64url."""
_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}(/[A-Za-z0-9!#$&^_.+-]{1,64})?")
_UNSUPPORTED: Final = ("crit", "b64", "zip", "enc", "cnf")
_jws: Final = jwt.PyJWS()


class Why(enum.StrEnum):
    """Why a token was refused, for logs and metrics. Callers are told one of four sentences."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    UNKNOWN_ISSUER = "unknown_issuer"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_KEY = "unknown_key"
    WRONG_ALGORITHM = "wrong_algorithm"
    BAD_SIGNATURE = "bad_signature"
    BAD_CLAIM = "bad_claim"
    WRONG_AUDIENCE = "wrong_audience"
    EXPIRED = "expired"
    TOO_EARLY = "too_early"
    NO_SUCH_KEY = "no_such_key"
    REVOKED = "revoked"


_TOLD: Final = {
    Why.MISSING: "Send a bearer token: `Authorization: Bearer <token>`.",
    Why.MALFORMED: "The bearer token is not a well-formed signed JWT.",
    Why.EXPIRED: "The bearer token has expired.",
}
_NOT_ACCEPTED: Final = "The bearer token is not accepted here."


class Unauthenticated(Problem):
    """A caller who is not known. `why` and `note` are for the operator and hold nothing of the token."""

    def __init__(self, why: Why, note: str = "") -> None:
        # RFC 6750, 3.1: a request without a token is told the scheme and no error code
        scheme = "Bearer" if why is Why.MISSING else 'Bearer error="invalid_token"'
        super().__init__(
            "unauthenticated", _TOLD.get(why, _NOT_ACCEPTED), headers={"WWW-Authenticate": scheme}
        )
        self.why = why
        self.note = note


class Issuer(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are accepted, as the operator's settings say it.

    `issuer` and `audience` are compared byte for byte. Keys come from exactly one of `jwks_file` and
    `jwks_url`. `token_types` are the accepted `typ` headers (any case, with or without `application/`).
    `tenants` lists those this issuer may speak for; None means any.
    """

    issuer: Annotated[str, Meta(min_length=1, max_length=512)]
    audience: Annotated[str, Meta(min_length=1, max_length=512)]
    jwks_file: str | None = None
    jwks_url: Annotated[str, Meta(max_length=2048)] | None = None
    token_types: Annotated[tuple[str, ...], Meta(min_length=1)] = ("at+jwt",)
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    leeway_seconds: Annotated[int, Meta(ge=0, le=60)] = 30
    claims: ClaimNames = ClaimNames()
    tenants: tuple[str, ...] | None = None

    def flaws(self) -> tuple[Flaw, ...]:
        """Return what the fields' own bounds cannot say, each with a pointer below this issuer."""
        found = []
        if self.issuer == DEV_ISSUER:
            found.append(Flaw("/issuer", "is the dev issuer, which only `safelight dev` has"))
        if self.issuer == KEY_ISSUER:
            found.append(Flaw("/issuer", "stands for service keys, which no issuer signs"))
        if self.jwks_file is None and self.jwks_url is None:
            found.append(Flaw("", "has no keys: give `jwks_file` or `jwks_url`"))
        if self.jwks_file is not None and self.jwks_url is not None:
            found.append(Flaw("/jwks_url", "stands beside `jwks_file`: give one of them"))
        if self.jwks_url is not None and not re.fullmatch(r"https://[!-~]+", self.jwks_url):
            found.append(Flaw("/jwks_url", "is not an https:// URL"))
        for place, name in enumerate(self.token_types):
            if not _TYPE.fullmatch(name):
                found.append(Flaw(f"/token_types/{place}", "is not a media type such as `at+jwt`"))
        for place, name in enumerate(self.tenants or ()):
            if not access.TENANT.fullmatch(name):
                found.append(Flaw(f"/tenants/{place}", "is not a tenant's name"))
        return tuple(found)


class Trusted(Struct, frozen=True):
    """An issuer and where its keys are."""

    issuer: Issuer
    keys: KeySource


def trust(issuer: Issuer, *, fetch: Fetch, now: Callable[[], int]) -> Trusted:
    """Return an issuer of the settings with its keys; raises `Refusal` where a key file cannot be used.

    `fetch` gets a key set's URL and returns the body of a 200, or None; it judges, caps and times.
    """
    if issuer.jwks_file is not None:
        return Trusted(issuer, FileKeys(Path(issuer.jwks_file), issuer.algorithms, now=now))
    if issuer.jwks_url is not None:
        return Trusted(issuer, UrlKeys(issuer.jwks_url, issuer.algorithms, fetch=fetch, now=now))
    raise Refusal(f"issuer {issuer.issuer} has no keys")


FindKey = Callable[[str], Awaitable[ServiceKey | None]]
"""From a service key's hash (hex) to the key, revoked and expired ones too."""


async def no_keys(_digest: str) -> None:
    """Find no service key: for a place that has none."""


def key_digest(text: bytes) -> str:
    """Return what is kept of a service key: the hex SHA-256 of its whole text.

    No salt and no slow hash: the text has 256 random bits, and nobody guesses those.
    """
    return hashlib.sha256(text).hexdigest()


class _Seen(NamedTuple):
    """A token that was proved: whose it is, until when, and by which key."""

    who: Principal
    until: int
    keys: KeySource
    thumbprint: bytes


class Authenticator:
    """Proves tokens and remembers those it proved; looks up service keys. `now` returns milliseconds.

    What is remembered is found by the SHA-256 of the whole token, never past its `exp`, and only while
    the key that proved it is in its issuer's set. When `cache_size` (1 or more) is reached the oldest goes.
    """

    def __init__(
        self,
        trusted: Sequence[Trusted],
        *,
        now: Callable[[], int],
        find_key: FindKey = no_keys,
        cache_size: int = 10_000,
    ) -> None:
        self._trusted = {one.issuer.issuer: one for one in trusted}
        self._find_key = find_key
        self._now = now
        self._size = cache_size
        self._seen: dict[bytes, _Seen] = {}

    def known(self, header: bytes | str | None) -> Principal | None:
        """Return the caller of a token proved before and still good; None asks for `verify`."""
        token = _bearer(header)
        if token is None:
            return None
        name = hashlib.sha256(token).digest()
        seen = self._seen.get(name)
        if seen is None:
            return None
        if seen.until <= self._now() or not seen.keys.holds(seen.thumbprint):
            del self._seen[name]
            return None
        return seen.who

    async def verify(self, header: bytes | str | None) -> Principal:
        """Return the caller an `Authorization` value speaks for; raises `Unauthenticated` (a `Problem`).

        Waits only where a key set must be fetched first, or a service key looked up.
        """
        token = _bearer(header)
        if token is None:
            raise Unauthenticated(Why.MISSING)
        if _KEY.fullmatch(token):
            return await self._holder(token)
        head, claims = _opened(token)
        trusted = self._trusted.get(_text(claims, "iss"))
        if trusted is None:
            raise Unauthenticated(Why.UNKNOWN_ISSUER)
        _check_head(head, trusted.issuer)
        key = await trusted.keys.find(head.get("kid"))
        if key is None:
            raise Unauthenticated(Why.UNKNOWN_KEY)
        _check_signature(token, head, key)
        who = _caller(claims, trusted.issuer, self._now())
        if who.expires_at > self._now():
            self._remember(token, _Seen(who, who.expires_at, trusted.keys, key.thumbprint))
        return who

    async def stands(self, header: bytes | str | None, who: Principal) -> bool:
        """Say whether a caller who passed is still to be served; `expires_at` is for others to watch.

        A token stands until it expires; a service key may be revoked at any moment.
        """
        if who.issuer != KEY_ISSUER:
            return True
        try:
            await self.verify(header)
        except Unauthenticated:
            return False
        return True

    async def _holder(self, token: bytes) -> Principal:
        """Return who calls with a service key, as it is at this moment."""
        digest = key_digest(token)
        key = await self._find_key(digest)
        if key is None or not hmac.compare_digest(key.hash.encode(), digest.encode()):
            raise Unauthenticated(Why.NO_SUCH_KEY)
        if key.revoked_at is not None:
            raise Unauthenticated(Why.REVOKED)
        if key.expires_at <= self._now():
            raise Unauthenticated(Why.EXPIRED)
        return access.bearer(key)

    async def close(self) -> None:
        """Stop whatever key sets are being fetched."""
        for one in self._trusted.values():
            await one.keys.close()

    def _remember(self, token: bytes, seen: _Seen) -> None:
        name = hashlib.sha256(token).digest()
        if len(self._seen) >= self._size and name not in self._seen:
            del self._seen[next(iter(self._seen))]
        self._seen[name] = seen


def _bearer(header: bytes | str | None) -> bytes | None:
    """Return what follows the scheme (RFC 6750, 2.1); None where there is no bearer token."""
    if header is None:
        return None
    if isinstance(header, str):
        header = header.encode(errors="surrogatepass")
    return header[7:] if header[:7].lower() == b"bearer " else None


def _opened(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token in compact form, read strictly and proving nothing yet."""
    if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
        raise Unauthenticated(Why.MALFORMED, "not three segments of at most 8 kB")
    parts = [_decoded(part) for part in token.split(b".")]
    if None in parts:
        raise Unauthenticated(Why.MALFORMED, "not canonical base64url")
    head, claims = (read_object(part or b"", MAX_DEPTH) for part in parts[:2])
    if head is None or claims is None:
        raise Unauthenticated(Why.MALFORMED, "not strict JSON objects")
    return head, claims


def _decoded(segment: bytes) -> bytes | None:
    """Return the bytes a segment spells, None where it is not the one spelling of them (RFC 4648, 3.5)."""
    if len(segment) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    return data if base64.urlsafe_b64encode(data).rstrip(b"=") == segment else None


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Unauthenticated(Why.BAD_CLAIM, f"{name} is not a text")
    return value


def _check_head(head: dict[str, Any], issuer: Issuer) -> None:
    """Refuse what changes how a token is read, and a type the issuer's tokens do not have.

    `jku`, `x5u`, `x5c` and `jwk` are not looked at: where keys come from is not a token's to say.
    """
    if any(name in head for name in _UNSUPPORTED):  # RFC 7515, 4.1.11; RFC 7797; RFC 7516
        raise Unauthenticated(Why.UNSUPPORTED)
    typ = head.get("typ")
    if not isinstance(typ, str) or _type(typ) not in {_type(name) for name in issuer.token_types}:
        raise Unauthenticated(Why.WRONG_TYPE)  # RFC 8725, 3.11
    kid = head.get("kid")
    if "kid" in head and not (isinstance(kid, str) and kid):
        raise Unauthenticated(Why.UNKNOWN_KEY, "kid is not a text")


def _type(name: str) -> str:
    """Return a media type as it is compared (RFC 7515, 4.1.9)."""
    return name.lower().removeprefix("application/")


def _check_signature(token: bytes, head: dict[str, Any], key: Key) -> None:
    if head.get("alg") != key.algorithm:  # RFC 8725, 3.1
        raise Unauthenticated(Why.WRONG_ALGORITHM)
    try:
        _jws.decode_complete(token, key.jwk, algorithms=[key.algorithm])
    except jwt.PyJWTError:
        raise Unauthenticated(Why.BAD_SIGNATURE) from None


def _caller(claims: dict[str, Any], issuer: Issuer, now: int) -> Principal:
    """Return who the claims of a proved token speak of, at this time and for us."""
    if "cnf" in claims:  # RFC 7800: bound to a key, so a bearer proves nothing
        raise Unauthenticated(Why.UNSUPPORTED, "cnf")
    leeway = issuer.leeway_seconds * 1000
    exp, nbf, iat = _date(claims, "exp"), _date(claims, "nbf"), _date(claims, "iat")
    if exp is None:
        raise Unauthenticated(Why.BAD_CLAIM, "exp is missing")
    if now >= exp + leeway:
        raise Unauthenticated(Why.EXPIRED)
    if max(nbf or 0, iat or 0) > now + leeway:
        raise Unauthenticated(Why.TOO_EARLY)
    _check_audience(claims.get("aud"), issuer.audience)
    _text(claims, "sub")
    who = access.principal(claims, issuer.claims, issuer=issuer.issuer, expires_at=exp)
    if isinstance(who, Flaw):
        raise Unauthenticated(Why.BAD_CLAIM, f"{who.pointer} {who.detail}")
    if issuer.tenants is not None and who.tenant not in issuer.tenants:
        raise Unauthenticated(Why.BAD_CLAIM, "the tenant is not this issuer's")
    return who


def _date(claims: dict[str, Any], name: str) -> int | None:
    """Return a NumericDate (RFC 7519, 2) in milliseconds; None where the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_DATE:
        raise Unauthenticated(Why.BAD_CLAIM, f"{name} is not a date")
    return int(value * 1000)


def _check_audience(aud: Any, ours: str) -> None:
    """Refuse a token that is not for us. `aud` is a text or a list of texts (RFC 7519, 4.1.3)."""
    names = aud if isinstance(aud, list) else [aud]
    if not all(isinstance(name, str) for name in names) or ours not in names:
        raise Unauthenticated(Why.WRONG_AUDIENCE)


def dev_issuer(live: Sequence[Secret]) -> Trusted:
    """Return the built-in issuer of `safelight dev`: HMAC under keys made of the installation's secrets."""
    return Trusted(Issuer(issuer=DEV_ISSUER, audience=DEV_AUDIENCE), SecretKeys([_dev_key(s) for s in live]))


def mint_dev(secret: Secret, who: Principal, *, ttl_seconds: int, now_ms: int, jti: str) -> str:
    """Return a token of the dev issuer for this caller; raises `Refusal` for a name no token may hold.

    `who.issuer` and `who.expires_at` do not count. `jti` is the caller's to choose, unique.
    """
    issued = now_ms // 1000
    claims: dict[str, Any] = {
        "iss": DEV_ISSUER,
        "aud": DEV_AUDIENCE,
        "tenant": who.tenant,
        "sub": who.subject,
        "roles": sorted(who.roles),
        "iat": issued,
        "exp": issued + ttl_seconds,
        "jti": jti,
    }
    if who.plan is not None:
        claims["plan"] = who.plan
    if who.scopes is not None:
        claims["scope"] = " ".join(sorted(who.scopes))
    flaw = access.principal(claims, ClaimNames(), expires_at=0)
    if isinstance(flaw, Flaw):
        raise Refusal(f"{claims.get(flaw.pointer)!r} {flaw.detail}")
    key = SecretKeys([_dev_key(secret)]).first
    head = {"typ": "at+jwt", "kid": key.kid}
    return _jws.encode(msgspec.json.encode(claims), key.jwk, algorithm=key.algorithm, headers=head)


def _dev_key(secret: Secret) -> bytes:
    return hmac.digest(secret.reveal().encode(), b"safelight dev tokens 1", "sha256")
