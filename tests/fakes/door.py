"""An authenticator to knock at: two issuers, the dev issuer, keys that come and go, and a clock."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway import auth
from gateway.auth import Authenticator, Issuer, Trusted, Unauthenticated, Why
from gateway.jwks import Key, KeySet, parse
from gateway.secrets import Secret
from policies.model import Principal
from tests.fakes import tokens
from tests.fakes.tokens import AUDIENCE, ISSUER, NOW, signer

OTHER = "https://other.example.com"
SECRET = Secret("s" * 64)


class Held:
    """Keys that are there and can be taken away. Counts how often one was looked for."""

    def __init__(self, *keys: tokens.Signer) -> None:
        self.put(*keys)
        self.sought = 0
        self.closed = False

    def put(self, *keys: tokens.Signer) -> None:
        """Hold these keys and no others."""
        found = parse(tokens.jwks(*keys), ("RS256", "PS256", "ES256", "EdDSA"))
        assert isinstance(found, KeySet)
        self.set = found

    def holds(self, thumbprint: bytes) -> bool:
        """Whether the key is there now."""
        return thumbprint in self.set.thumbprints

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that kid."""
        self.sought += 1
        return self.set.find(kid)

    async def close(self) -> None:
        """Note that this was closed."""
        self.closed = True


class Gate:
    """An authenticator over two issuers and the dev issuer, and the clock and keys it works with."""

    def __init__(self, cache_size: int = 100, **issuer: Any) -> None:
        self.now = NOW
        self.keys = Held(
            signer("EdDSA"), signer("RS256", "rsa"), signer("ES256", "ec"), signer("PS256", "pss")
        )
        self.others = Held(signer("EdDSA", "k1", which=5))
        ours = {"issuer": ISSUER, "audience": AUDIENCE} | issuer
        trusted = [
            Trusted(msgspec.convert(ours, Issuer), self.keys),
            Trusted(Issuer(OTHER, AUDIENCE), self.others),
            auth.dev_issuer([SECRET]),
        ]
        self.door = Authenticator(trusted, now=lambda: self.now, cache_size=cache_size)

    async def ask(self, token: bytes) -> Principal:
        """Verify a token as a header."""
        return await self.door.verify(b"Bearer " + token)

    async def why(self, token: bytes) -> Why | None:
        """Say why a token is refused; None if it is not."""
        try:
            await self.ask(token)
        except Unauthenticated as problem:
            assert self.door.known(b"Bearer " + token) is None
            return problem.why
        return None

    def known(self, token: bytes) -> bool:
        """Say whether a token is remembered."""
        return self.door.known(b"Bearer " + token) is not None
