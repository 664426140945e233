"""What a trail record holds, how it is written down, and how the links of the chain are made.

A record says who (a random reference, never the subject), when, what, by which rule, at what cost. The
prompt stands in it only as a keyed hash. Records are encoded once, canonically: JSON, sorted keys, no
floats, UTF-8, a format number. Each commit of a tenant seals its records with one link,
HMAC-SHA256(audit key, previous link + SHA-256(records)); the key lives outside the store. The first link
continues the tenant's name. None of this can be changed later: `tests/gateway/golden/audit.json` holds it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT: Final = 1

_encoder = msgspec.json.Encoder(order="sorted")


class Record(Struct, frozen=True, omit_defaults=True):
    """One line of the trail. `at` and `ref` are filled by the store; `count` folds equal denials.

    What has its default is left out when it is written, but the format number never is.
    """

    action: str
    decision: Literal["allow", "deny"] = "allow"
    f: int = msgspec.field(default_factory=lambda: FORMAT)
    at: int = 0
    ref: str = ""
    job: str | None = None
    code: str | None = None
    rule: str | None = None
    model: str | None = None
    credits: int = 0
    count: int = 1
    prompt: str | None = None
    policy: str | None = None
    role: str | None = None
    tenant: str | None = None


_decoder = msgspec.json.Decoder(tuple[Record, ...])


def encode(records: Sequence[Record]) -> bytes:
    """Return the canonical bytes of a commit's records."""
    return _encoder.encode(records)


def decode(data: bytes) -> tuple[Record, ...]:
    """Return the records that `encode` wrote."""
    return _decoder.decode(data)


def genesis(tenant: str) -> str:
    """Return what a tenant's first link continues: its name, so that no trail passes for another's."""
    return f"genesis.{tenant}"


class Chain:
    """The audit keys, newest first: the first seals, all verify."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self._first = next(iter(self._keys))

    def link(self, prev: str, rows: bytes) -> str:
        """Return the head after `rows`, as `key id.hex digest`."""
        return self._seal(self._first, prev, rows)

    def holds(self, prev: str, rows: bytes, head: str) -> bool:
        """Return whether `head` is what one of the keys made of `prev` and `rows`."""
        key_id = head.partition(".")[0]
        if key_id not in self._keys:
            return False
        return hmac.compare_digest(self._seal(key_id, prev, rows).encode(), head.encode())

    def _seal(self, key_id: str, prev: str, rows: bytes) -> str:
        text = prev.encode() + hashlib.sha256(rows).digest()
        return f"{key_id}.{hmac.digest(self._keys[key_id], text, 'sha256').hex()}"
