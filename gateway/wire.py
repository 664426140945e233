"""HTTP as data: what adapters build and read, and `outbound` sends.

No sockets, no library. A `WireRequest` names *which* credential it needs, never the secret; `outbound`
attaches it after checking the host. Both directions can be stored: a poll that was not sent before a
crash is sent after it.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec
from msgspec import Struct


class WireRequest(Struct, frozen=True, omit_defaults=True):
    """One request to an upstream. `credential` is a provider entry's name; `seconds` bounds all of it."""

    method: Literal["GET", "POST", "PUT", "OPTIONS"]
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    credential: str | None = None
    seconds: float = 120.0
    max_bytes: int = 128 * 2**20


class WireResponse(Struct, frozen=True):
    """A whole answer: every byte of the body arrived. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Cut(enum.StrEnum):
    """How a request failed to become an answer, in the order of how far it got."""

    JUDGED = "judged"  # the address is not one we call
    UNREACHABLE = "unreachable"  # refused, no such name, TLS failed: no byte of the request was sent
    RESET = "reset"  # cut after bytes were sent, before a byte of the answer
    TIMEOUT = "timeout"  # no whole answer in time, bytes were sent
    HALF = "half"  # the answer began and did not end
    TOO_LARGE = "too_large"  # the answer passed `max_bytes`


class WireFailure(Struct, frozen=True):
    """No whole answer. `detail` is for the operator's log and never holds upstream text.

    `status` is that of an answer whose body was larger than was asked for.
    """

    cut: Cut
    detail: str = ""
    status: int | None = None

    @property
    def sent(self) -> bool:
        """Whether the upstream may have seen the request."""
        return self.cut not in (Cut.JUDGED, Cut.UNREACHABLE)


Wire = WireResponse | WireFailure

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WireRequest)


def dump(request: WireRequest) -> bytes:
    """Return the form in which an attempt keeps its next request."""
    return _encoder.encode(request)


def load(data: bytes) -> WireRequest:
    """Return the request that `dump` wrote."""
    return _decoder.decode(data)
