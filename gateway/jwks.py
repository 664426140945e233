"""Key sets: read from a file or fetched from a URL, filtered, kept, and renewed.

A key enters only when it can do one thing: verify, with one asymmetric algorithm the issuer allows
(RFC 7517, 7518, 8037). Everything else in a set is dropped, and a kid that stands for two keys stands
for none. A set that was good stays in use while its source is broken, for a day. What is fetched when
is decided here; the fetch itself, with its judge and byte cap, is `outbound`'s. No claims here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import jwt
import msgspec
from msgspec import Struct

from gateway.errors import Refusal
from gateway.strict import read_object

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
Fetch = Callable[[str], Awaitable[bytes | None]]

MAX_BYTES: Final = 256_000
MAX_KEYS: Final = 100
MAX_DEPTH: Final = 16
RSA_BITS: Final = range(2048, 8192 + 1)

LOOK_MS: Final = 1_000  # a file's date is read at most this often
FRESH_MS: Final = 10 * 60_000  # an older set is fetched again, and used meanwhile
HARD_MS: Final = 24 * 3_600_000  # an older set is not used
COOL_DOWN_MS: Final = 30_000  # between two fetches of a set
FIRST_MS: Final = 5_000  # the same, while no set is usable

_KINDS: Final[dict[str, tuple[str, str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
}
_PARTS: Final[dict[str, dict[str, int]]] = {  # members that make the public key, and their longest text
    "RSA": {"n": 1366, "e": 8},
    "EC": {"x": 64, "y": 64},
    "OKP": {"x": 64},
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class Key(Struct, frozen=True):
    """A key that verifies, and the name of exactly this key: the SHA-256 of what it is made of."""

    jwk: jwt.PyJWK
    kid: str | None
    algorithm: str
    thumbprint: bytes


class KeySet:
    """The usable keys of one document. `dropped` says, for the operator, why others are not among them."""

    __slots__ = ("_by_kid", "_only", "dropped", "thumbprints")

    def __init__(self, keys: Sequence[Key] = (), dropped: tuple[str, ...] = ()) -> None:
        self._by_kid = {key.kid: key for key in keys if key.kid is not None}
        self._only = keys[0] if len(keys) == 1 else None
        self.thumbprints = frozenset(key.thumbprint for key in keys)
        self.dropped = dropped

    def find(self, kid: str | None) -> Key | None:
        """Return the key of that exact kid; without a kid, the only key of a set of one."""
        return self._only if kid is None else self._by_kid.get(kid)


class KeySource(Protocol):
    """Where an issuer's keys are."""

    def holds(self, thumbprint: bytes) -> bool:
        """Whether this very key is in the set now. False also where it is time to ask `find` again."""
        ...

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that exact `kid`; without a `kid`, the only key of a set of one."""
        ...

    async def close(self) -> None:
        """Stop a fetch under way."""
        ...


def parse(data: bytes, algorithms: Sequence[Algorithm]) -> KeySet | str:
    """Return the usable keys of a JWK Set, or what is wrong with the document as a whole.

    A key without `alg` counts for the first of `algorithms` that its kind can do.
    """
    if len(data) > MAX_BYTES:
        return f"the key set is larger than {MAX_BYTES // 1000} kB"
    document = read_object(data, MAX_DEPTH)
    entries = document.get("keys") if document else None
    if not isinstance(entries, list):
        return "this is not a JWK Set"
    if len(entries) > MAX_KEYS:
        return f"the key set has more than {MAX_KEYS} keys"
    read = [_key(entry, algorithms) for entry in entries]
    keys = [key for key in read if isinstance(key, Key)]
    kids = Counter(key.kid for key in keys)
    single = [key for key in keys if kids[key.kid] == 1]
    dropped = [f"key {place} {why}" for place, why in enumerate(read) if isinstance(why, str)]
    dropped += [f"the kid {kid!r} stands for {count} keys" for kid, count in kids.items() if count > 1]
    return KeySet(single, tuple(dropped))


def _key(entry: Any, algorithms: Sequence[Algorithm]) -> Key | str:
    """Return the key an entry of a set describes, or why it is not used."""
    if not isinstance(entry, dict):
        return "is not an object"
    if entry.get("use", "sig") != "sig" or not _may_verify(entry.get("key_ops")):
        return "is not for signatures"
    if not _PRIVATE.isdisjoint(entry):
        return "is secret: publish only public keys"
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= 256):
        return "has a kid that is not a short text"
    algorithm = _algorithm(entry, algorithms)
    if algorithm is None:
        return "is of no kind or algorithm this issuer may use"
    kty, crv = _KINDS[algorithm]
    parts = {name: entry.get(name) for name in _PARTS[kty]}
    if not all(isinstance(part, str) and len(part) <= _PARTS[kty][name] for name, part in parts.items()):
        return "lacks a part, or has one that is too long"
    return _built({"kty": kty, "crv": crv, **parts} if crv else {"kty": kty, **parts}, algorithm, kid)


def _may_verify(operations: Any) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _algorithm(entry: dict[str, Any], algorithms: Iterable[Algorithm]) -> Algorithm | None:
    """Return the one algorithm this key counts for: its own, else the first its kind can do."""
    kty = entry.get("kty")
    kind = (kty, None if kty == "RSA" else entry.get("crv"))
    named = entry.get("alg")
    return next((a for a in algorithms if _KINDS[a] == kind and named in (None, a)), None)


def _built(public: dict[str, Any], algorithm: str, kid: str | None) -> Key | str:
    try:
        jwk = jwt.PyJWK(public, algorithm)
    except jwt.PyJWTError:
        return "is not a valid key"
    if public["kty"] == "RSA" and jwk.key.key_size not in RSA_BITS:
        return f"has {jwk.key.key_size} bits; 2048 to 8192 are accepted"
    return Key(jwk, kid, algorithm, _thumbprint(public, algorithm))


def _thumbprint(parts: dict[str, Any], algorithm: str) -> bytes:
    return hashlib.sha256(msgspec.json.encode({**parts, "alg": algorithm}, order="sorted")).digest()


class SecretKeys:
    """HMAC keys made here, for tokens made here: the dev issuer's alone. The first is `first`."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [_hmac_key(secret) for secret in secrets]
        self.first = keys[0]
        self._set = KeySet(keys)

    def holds(self, thumbprint: bytes) -> bool:
        """Whether this is one of them."""
        return thumbprint in self._set.thumbprints

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that kid."""
        return self._set.find(kid)

    async def close(self) -> None:
        """Nothing is under way."""


def _hmac_key(secret: bytes) -> Key:
    jwk = jwt.PyJWK(jwt.algorithms.HMACAlgorithm.to_jwk(secret, as_dict=True), "HS256")
    thumbprint = hashlib.sha256(b"HS256" + secret).digest()
    return Key(jwk, thumbprint[:8].hex(), "HS256", thumbprint)


class FileKeys:
    """The keys of a file, read at once and again when the file changes.

    A file that cannot be used at the start is a `Refusal`. Later the keys read last stay in use, and
    `trouble` says what is wrong.
    """

    def __init__(self, path: Path, algorithms: Sequence[Algorithm], *, now: Callable[[], int]) -> None:
        self._path = path
        self._algorithms = algorithms
        self._now = now
        self._looked_at = now()
        self._stamp = self._stamped()
        self.trouble = ""
        found = self._read()
        if isinstance(found, str):
            raise Refusal(f"{path}: {found}")
        if not found.thumbprints:
            raise Refusal(f"{path}: no key can be used: {'; '.join(found.dropped) or 'the set is empty'}")
        self._set = found

    def holds(self, thumbprint: bytes) -> bool:
        """Whether this very key is in the file."""
        return thumbprint in self._current().thumbprints

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that exact kid."""
        return self._current().find(kid)

    async def close(self) -> None:
        """Nothing is under way."""

    def _current(self) -> KeySet:
        """Return the set, read anew if the file changed since the last look, a second ago or more."""
        now = self._now()
        if 0 <= now - self._looked_at < LOOK_MS:
            return self._set
        self._looked_at = now
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            found = self._read()
            self.trouble = found if isinstance(found, str) else ""
            self._set = self._set if isinstance(found, str) else found
        return self._set

    def _stamped(self) -> tuple[int, ...]:
        with contextlib.suppress(OSError):
            seen = self._path.stat()
            return (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        return ()

    def _read(self) -> KeySet | str:
        try:
            with self._path.open("rb") as file:
                return parse(file.read(MAX_BYTES + 1), self._algorithms)
        except OSError as error:
            return f"the key set cannot be read: {error.strerror}"


class UrlKeys:
    """The keys behind a URL, fetched when first needed and renewed in the background on use.

    `fetch` returns the body of a 200, or None. One fetch at a time, and never two within the cool-down:
    a flood of unknown kids costs the issuer one request in 30 s. `trouble` says what went wrong last.
    """

    def __init__(
        self, url: str, algorithms: Sequence[Algorithm], *, fetch: Fetch, now: Callable[[], int]
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._fetch = fetch
        self._now = now
        self._set = KeySet()
        self._made_at: int | None = None
        self._asked_at: int | None = None
        self._flight: asyncio.Task[None] | None = None
        self.trouble = ""

    def holds(self, thumbprint: bytes) -> bool:
        """Whether this very key is in the set. False once when the set should be renewed: ask `find`."""
        due = self._age() >= FRESH_MS and self._may_ask()
        return not due and thumbprint in self._usable().thumbprints

    async def find(self, kid: str | None) -> Key | None:
        """Return the key of that exact kid. Waits for a fetch where the kid is unknown or all is too old."""
        if self._age() >= HARD_MS:
            await self._renewed()
        elif self._age() >= FRESH_MS:
            self._begin()
        key = self._usable().find(kid)
        if key is None and kid is not None:
            await self._renewed()
            key = self._usable().find(kid)
        return key

    async def close(self) -> None:
        """Stop a fetch under way."""
        if self._flight is not None and self._flight.cancel():
            await asyncio.wait([self._flight])

    def _age(self) -> float:
        return math.inf if self._made_at is None else self._now() - self._made_at

    def _usable(self) -> KeySet:
        return self._set if self._age() < HARD_MS else KeySet()

    def _may_ask(self) -> bool:
        cool_down = COOL_DOWN_MS if self._age() < HARD_MS else FIRST_MS
        return self._asked_at is None or not 0 <= self._now() - self._asked_at < cool_down

    def _begin(self) -> asyncio.Task[None] | None:
        """Return the fetch under way, begun now if there is none; None within the cool-down."""
        if self._flight is not None and not self._flight.done():
            return self._flight
        if not self._may_ask():
            return None
        self._asked_at = self._now()
        self._flight = asyncio.create_task(self._renew(self._asked_at))
        return self._flight

    async def _renewed(self) -> None:
        """Wait for a fetch, if one may be made. A caller that leaves does not stop it for the others."""
        if (flight := self._begin()) is not None:
            await asyncio.shield(flight)

    async def _renew(self, asked_at: int) -> None:
        body = await self._fetch(self._url)
        found = "the key set was not answered" if body is None else parse(body, self._algorithms)
        self.trouble = found if isinstance(found, str) else ""
        if not isinstance(found, str):
            self._set, self._made_at = found, asked_at
