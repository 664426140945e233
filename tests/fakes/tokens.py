"""An identity provider's pen: keys made at run time, and tokens as good or as bad as a test wants.

Nothing is checked here. A token is put together by hand from whatever header, claims and signature it
is given, because the tokens worth testing are those no library would write.
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://login.example.com"
AUDIENCE = "images"
NOW = 1_790_000_000_000
"""The time of these tests, in milliseconds."""

CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "auth0|ann",
    "tenant": "acme",
    "iat": NOW // 1000 - 60,
    "exp": NOW // 1000 + 3600,
}
ABSENT: Any = object()
"""Stands for a member that is taken out."""


class Signer(NamedTuple):
    """A private key, the algorithm it signs with, and what its issuer publishes of it."""

    algorithm: str
    key: Any
    jwk: dict[str, Any]

    def sign(self, data: bytes) -> bytes:
        """Return the signature as JWS spells it. A key of mere bytes makes an HMAC-SHA256, unchecked."""
        if isinstance(self.key, bytes):
            return hmac.digest(self.key, data, "sha256")
        return jwt.PyJWS().get_algorithm_by_name(self.algorithm).sign(data, self.key)


@functools.cache
def private_key(kind: str, which: int = 0) -> Any:
    """Make a private key, the same for the same arguments. Kinds: `RSA`, `RSA-1024`, `P-256`, `Ed25519`."""
    del which  # tells two keys of a kind apart
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("P-"):
        return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[kind])
    size = int(kind.partition("-")[2] or 2048)
    return rsa.generate_private_key(65537, size)  # the small ones are made to be refused


KINDS = {"ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519"}


def signer(algorithm: str = "EdDSA", kid: str | None = "k1", kind: str = "", which: int = 0) -> Signer:
    """Make a signer whose published key says `alg`, `use` and, unless None, `kid`."""
    key = private_key(kind or KINDS.get(algorithm, "RSA"), which)
    spell = jwt.PyJWS().get_algorithm_by_name(algorithm)
    jwk = spell.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    extra = {"alg": algorithm, "use": "sig"} | ({} if kid is None else {"kid": kid})
    return Signer(algorithm, key, {**jwk, **extra})


def jwks(*keys: Signer | Any) -> bytes:
    """Spell a key set of these signers' public keys, or of whatever else stands among them."""
    entries = [key.jwk if isinstance(key, Signer) else key for key in keys]
    return json.dumps({"keys": entries}).encode()


def b64(data: bytes) -> bytes:
    """Spell bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def unb64(text: bytes) -> bytes:
    """Read base64url without padding."""
    return base64.urlsafe_b64decode(text + b"==")


def public_texts(by: Signer) -> dict[str, bytes]:
    """Spell an RSA signer's public key in the ways a careless verifier might take for a secret."""
    public = by.key.public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return {
        "pem": public.public_bytes(serialization.Encoding.PEM, spki),
        "pkcs1": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        "der": public.public_bytes(serialization.Encoding.DER, spki),
        "jwk": json.dumps(by.jwk).encode(),
        "modulus": by.jwk["n"].encode(),
        "empty": b"",
        "kid": by.jwk["kid"].encode(),
    }


def changed(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return members with changes put in and `ABSENT` ones taken out."""
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


def token(
    by: Signer,
    claims: Mapping[str, Any] | bytes = {},
    head: Mapping[str, Any] | bytes = {},
) -> bytes:
    """Write and sign a token: changes to a good one's header and claims, or their very bytes."""
    if not isinstance(head, bytes):
        usual = {"typ": "at+jwt", "alg": by.algorithm, "kid": by.jwk.get("kid", ABSENT)}
        head = json.dumps(changed(usual, head)).encode()
    if not isinstance(claims, bytes):
        claims = json.dumps(changed(CLAIMS, claims)).encode()
    text = b64(head) + b"." + b64(claims)
    return text + b"." + b64(by.sign(text))
