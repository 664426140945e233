"""The links images are read by: capabilities, for a few minutes or as long as a job.

A signed link holds a key, an expiry and an HMAC over both and the method; a durable one a key and an HMAC
over it. Nothing of a link is kept. The first secret signs, all verify. Links say nothing of who reads.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final, Literal

from gateway.blobs.keys import is_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.secrets import Keyring

STEP_MS: Final = 5 * 60_000  # links of one step are alike, so that a poll does not change a picture's URL
LEAST_MS: Final = 10 * 60_000

_EXPIRY: Final = re.compile(r"[1-9][0-9]{9,11}", re.ASCII)
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)

Verdict = Literal["ok", "invalid", "expired"]


class Links:
    """Makes and checks signed links. `public_url` is asked each time, for dev learns its port late."""

    def __init__(self, ring: Keyring, public_url: Callable[[], str]) -> None:
        self._ring = ring
        self._public_url = public_url

    def make(self, key: str, now_ms: int) -> str:
        """Return an absolute link to a blob, the same one for all calls within a five-minute step."""
        expiry = str(self.expires_at(now_ms) // 1000)
        signature = _spell(self._ring.sign("links", _signed(key, expiry)))
        return f"{self._public_url().rstrip('/')}/files/{key}?exp={expiry}&sig={signature}"

    def durable(self, key: str) -> str:
        """Return an absolute link to a blob that is good for as long as the blob is there.

        Its token is 256 bits that nobody else can make and that are kept nowhere.
        """
        token = _spell(self._ring.sign("links", _lasting(key)))
        return f"{self._public_url().rstrip('/')}/files/{key}/{token}.{key.rpartition('.')[2]}"

    def lasting(self, path: str) -> str | None:
        """Return the key that a durable link's path names; None where we made no such link."""
        key, _, name = path.rpartition("/")
        token, _, ending = name.partition(".")
        mac = _read(token)
        if mac is None or not is_key(key) or ending != key.rpartition(".")[2]:
            return None
        return key if self._ring.verify("links", _lasting(key), mac) else None

    @staticmethod
    def expires_at(now_ms: int) -> int:
        """Return when a link made now runs out: the first five-minute mark at or after now + 10 min."""
        return -(-(now_ms + LEAST_MS) // STEP_MS) * STEP_MS

    def check(self, key: str, expiry: str, signature: str, now_ms: int) -> Verdict:
        """Judge the three parts of a link as they came. `expired` is said of a link we made, only."""
        mac = _read(signature)
        if mac is None or not (is_key(key) and _EXPIRY.fullmatch(expiry)):
            return "invalid"
        if not self._ring.verify("links", _signed(key, expiry), mac):
            return "invalid"
        return "ok" if now_ms < int(expiry) * 1000 else "expired"


def _signed(key: str, expiry: str) -> bytes:
    """Return what a link's signature covers; `read` stands for GET and HEAD."""
    return f"read\n{key}\n{expiry}".encode()


def _lasting(key: str) -> bytes:
    """Return what a durable link's token covers."""
    return f"durable\n{key}".encode()


def _spell(mac: bytes) -> str:
    """Return the 43 letters of a signature."""
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _read(letters: str) -> bytes | None:
    """Return the signature that 43 letters spell, in the one way it is spelled; None for any other text."""
    if not _SIGNATURE.fullmatch(letters):
        return None
    mac = base64.urlsafe_b64decode(letters + "=")
    return mac if _spell(mac) == letters else None  # the last letter has two bits to spare
