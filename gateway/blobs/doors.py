"""The links uploads are put by, where the house takes their bytes itself: each lets one blob in, for minutes.

A door holds the blob's key, its size and its tenant, and an HMAC over them, the type, the expiry and the
method. It says nothing of who puts. What arrives is looked at when it is used, not here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from gateway.blobs.keys import is_key, media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.secrets import Keyring

PARTS: Final = frozenset({"exp", "size", "of", "sig"})
"""The parameters of a door, each of which stands once."""

_SHAPES: Final = {
    "exp": re.compile(r"[1-9][0-9]{9,11}", re.ASCII),
    "size": re.compile(r"[1-9][0-9]{0,9}", re.ASCII),
    "of": re.compile(r"(?:[0-7][0-9a-f]){1,128}", re.ASCII),
    "sig": re.compile(r"[0-9a-f]{64}", re.ASCII),
}


class Arrival(Struct, frozen=True):
    """What a door lets in: a tenant's blob of so many bytes, under this key and of its type."""

    tenant: str
    key: str
    size: int


class Doors:
    """Makes and checks the links. `public_url` is asked each time, for dev learns its port late."""

    def __init__(self, ring: Keyring, public_url: Callable[[], str]) -> None:
        self._ring = ring
        self._public_url = public_url

    def make(self, arrival: Arrival, expires_at: int) -> str:
        """Return an absolute link that is good until an instant, in whole seconds."""
        expiry = str(expires_at // 1000)
        query = f"exp={expiry}&size={arrival.size}&of={arrival.tenant.encode().hex()}"
        signature = self._ring.sign("links", _signed(arrival, expiry)).hex()
        return f"{self._public_url().rstrip('/')}/uploads/{arrival.key}?{query}&sig={signature}"

    def check(
        self, key: str, parts: Mapping[str, str], now_ms: int
    ) -> Arrival | Literal["invalid", "expired"]:
        """Return what a link as it came lets in. `expired` is said of a link we made, only."""
        if not is_key(key) or parts.keys() != PARTS:
            return "invalid"
        if not all(_SHAPES[name].fullmatch(value) for name, value in parts.items()):
            return "invalid"
        arrival = Arrival(bytes.fromhex(parts["of"]).decode(), key, int(parts["size"]))
        if not self._ring.verify("links", _signed(arrival, parts["exp"]), bytes.fromhex(parts["sig"])):
            return "invalid"
        return arrival if now_ms < int(parts["exp"]) * 1000 else "expired"


def _signed(arrival: Arrival, expiry: str) -> bytes:
    kind = media_type(arrival.key)
    return f"put\n{arrival.key}\n{expiry}\n{arrival.size}\n{kind}\n{arrival.tenant}".encode()
