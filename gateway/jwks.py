"""Key sets: read from a file or fetched from a URL, filtered, kept, and renewed.

A key enters only when it can do one thing: verify, with one asymmetric algorithm the issuer allows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from jwt import PyJWK
from msgspec import Struct

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
Fetch = Callable[[str], Awaitable[bytes | None]]


class Key(Struct, frozen=True):
    """A key that verifies, and the name of exactly this key: the SHA-256 of what it is made of."""

    jwk: PyJWK
    kid: str | None
    algorithm: str
    thumbprint: bytes


class KeySource(Protocol):
    """Where an issuer's keys are."""

    def holds(self, thumbprint: bytes) -> bool:
        """Whether this very key is in the set now, and the set is fresh enough to say so."""
        ...

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that exact `kid`; without a `kid`, the only key of a set of one."""
        ...

    async def close(self) -> None:
        """Stop a fetch under way."""
        ...


def file_keys(path: str, algorithms: Sequence[Algorithm], *, now: Callable[[], int]) -> KeySource:
    """Return the keys of a file, read now and again when it changes; raises `Refusal`."""
    raise NotImplementedError


def url_keys(url: str, algorithms: Sequence[Algorithm], *, fetch: Fetch, now: Callable[[], int]) -> KeySource:
    """Return the keys behind a URL, fetched when first needed."""
    raise NotImplementedError
