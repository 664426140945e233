"""What is secret, and what is made of it: the only room that knows `cryptography`.

An installation has one secret, written as a list: the first signs, all verify, so a secret is rotated
by putting a new one in front. No secret is used as it is. HKDF-SHA256 (RFC 5869) makes one subkey a
purpose, so that a link's signature is never one of the trail. Signatures are HMAC-SHA256 (RFC 2104).
What must be read again (a webhook's secret) is sealed by AES-256-GCM under a subkey of its own. The
labels below are in stored data (the trail's chain, the prompts' hashes, seals) and never change.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Purpose = Literal["links", "audit", "prompts", "cursors", "webhooks"]
PURPOSES: Final[tuple[Purpose, ...]] = ("links", "audit", "prompts", "cursors", "webhooks")
Sealed = Literal["webhooks"]
"""Purposes under which something is sealed."""
SEAL: Final = "s1"
"""The form of a seal: form, key id, then nonce and ciphertext in base64url."""
NONCE_BYTES: Final = 12
SHORTEST: Final = 32
STARS: Final = "********"


class Secret:
    """A text that shows as stars wherever it is printed, logged or formatted. `reveal` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Every call is a place to look at in review."""
        return self._text

    def __repr__(self) -> str:
        return STARS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(_bytes(self), _bytes(other))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


class Keyring:
    """The subkeys of one installation, by purpose. Safe to share between threads.

    Refuses an empty list, and a secret of fewer than 32 bytes: a short one can be guessed from a link.
    `coin` gives the random bytes of seals.
    """

    __slots__ = ("_coin", "_ids", "_keys", "_seals")

    def __init__(self, live: Sequence[Secret], coin: Callable[[int], bytes] = os.urandom) -> None:
        if not live:
            raise Refusal("no secret is set: give one of at least 32 characters")
        for place, secret in enumerate(live):
            if len(_bytes(secret)) < SHORTEST:
                raise Refusal(f"secret {place} is shorter than {SHORTEST} bytes: use `openssl rand -hex 32`")
        self._keys = {
            p: tuple(hmac.new(_derive(secret, p, "key", 32), digestmod="sha256") for secret in live)
            for p in PURPOSES
        }
        self._ids = {p: _derive(live[0], p, "id", 8).hex() for p in PURPOSES}
        self._seals = {
            _derive(secret, "webhooks", "id", 8).hex(): AESGCM(_derive(secret, "webhooks", "seal", 32))
            for secret in live
        }
        self._coin = coin

    def __repr__(self) -> str:
        return f"Keyring({STARS})"

    def sign(self, purpose: Purpose, data: bytes) -> bytes:
        """Return the 32 bytes of HMAC-SHA256 over `data` under the purpose's first key."""
        return _mac(self._keys[purpose][0], data)

    def signs(self, purpose: Purpose, data: bytes) -> tuple[bytes, ...]:
        """Return what each live key of the purpose makes of `data`, that of `sign` first."""
        return tuple(_mac(key, data) for key in self._keys[purpose])

    def verify(self, purpose: Purpose, data: bytes, mac: bytes) -> bool:
        """Say whether any live key of the purpose signed `data` so. Takes the same time for all answers."""
        good = [hmac.compare_digest(_mac(key, data), mac) for key in self._keys[purpose]]
        return any(good)

    def key_id(self, purpose: Purpose) -> str:
        """Return 16 hex digits that name the signing key and tell nothing of it."""
        return self._ids[purpose]

    def seal(self, purpose: Sealed, data: bytes, about: bytes = b"") -> str:
        """Return data so that only a ring with the first secret can read it, as text for the store.

        `about` names what the data belongs to: a seal that is moved to something else does not open.
        """
        nonce = self._coin(NONCE_BYTES)
        key_id = self._ids[purpose]
        text = nonce + self._seals[key_id].encrypt(nonce, data, _bound(purpose, about))
        return f"{SEAL}.{key_id}.{base64.urlsafe_b64encode(text).decode()}"

    def open(self, purpose: Sealed, sealed: str, about: bytes = b"") -> bytes | None:
        """Return what was sealed, by whichever live secret; None for whatever no live secret sealed so."""
        form, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        key = self._seals.get(key_id)
        if form != SEAL or key is None:
            return None
        try:
            data = base64.b64decode(text, altchars=b"-_", validate=True)
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound(purpose, about))
        except (InvalidTag, ValueError):
            return None


def _bound(purpose: Sealed, about: bytes) -> bytes:
    return purpose.encode() + b"\0" + about


def _mac(key: hmac.HMAC, data: bytes) -> bytes:
    """Return the MAC of `data`, from a copy of a keyed start: the library sets a key up slowly."""
    mac = key.copy()
    mac.update(data)
    return mac.digest()


def load_or_create(path: Path, coin: Callable[[int], bytes] = secrets.token_bytes) -> Secret:
    """Return the secret kept in a file; make the file, readable by its owner alone, where there is none.

    The file comes to be whole or not at all. Of two processes that create it at once one wins, and both
    return the winner's. Raises `Refusal` where the file can be neither read nor made.
    """
    try:
        if not path.exists():
            _create(path, coin(32).hex())
        return Secret(path.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"the secret in {path} cannot be used: {type(error).__name__}") from error


def _create(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(fresh)  # fails where the name is taken, unlike a rename
    except FileExistsError:
        pass  # another process was first: its secret is the one
    finally:
        fresh.unlink()


def _derive(secret: Secret, purpose: Purpose, use: str, length: int) -> bytes:
    label = f"safelight/1/{purpose}/{use}".encode()
    return HKDF(SHA256(), length, salt=None, info=label).derive(_bytes(secret))


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")
