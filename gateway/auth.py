"""Who is calling: bearer bytes to a `Principal`, or a 401 that says no more than it must.

Nothing in a token chooses a URL, a key source or an algorithm: its `iss` is looked up in a fixed table,
its key by exact `kid` in that issuer's own set, and the key says which algorithm counts. What PyJWT is
asked is one thing only, whether a signature fits; every other rule (RFC 7515, 7519, 8725, 9068) stands
here, because a bare library passes far more than we accept. This room and `jwks` alone know PyJWT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from gateway.jwks import Algorithm, KeySource
from gateway.secrets import Secret
from policies.access import ClaimNames
from policies.model import Flaw, Principal

DEV_ISSUER: Final = "urn:safelight:dev"
DEV_AUDIENCE: Final = "safelight"


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
        raise NotImplementedError


class Trusted(Struct, frozen=True):
    """An issuer and where its keys are."""

    issuer: Issuer
    keys: KeySource


class Authenticator:
    """Proves tokens and remembers those it proved. `now` returns milliseconds."""

    def __init__(
        self, trusted: Sequence[Trusted], *, now: Callable[[], int], cache_size: int = 10_000
    ) -> None:
        raise NotImplementedError

    def known(self, header: bytes | str | None) -> Principal | None:
        """Return the caller of a token proved before and still good; None asks for `verify`."""
        raise NotImplementedError

    async def verify(self, header: bytes | str | None) -> Principal:
        """Return the caller an `Authorization` value speaks for; raises `Unauthenticated` (a `Problem`)."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop whatever key sets are being fetched."""
        raise NotImplementedError


def dev_issuer(live: Sequence[Secret]) -> Trusted:
    """Return the built-in issuer of `safelight dev`: HMAC under a key made of the installation's secret."""
    raise NotImplementedError


def mint_dev(secret: Secret, who: Principal, *, ttl_seconds: int, now_ms: int, jti: str) -> str:
    """Return a token of the dev issuer for this caller. `jti` is the caller's to choose, unique."""
    raise NotImplementedError
