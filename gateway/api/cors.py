"""Which pages may read our answers: exact origins, never `null`, never with credentials.

A token is sent by script, not by the browser, so no cookie is ever believed and no origin is trusted
with more than its own token. In development every port of this machine is an origin. Whatever is
answered varies by Origin, and says so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.api.exchange import Headers

ALLOWED: Final = b"authorization, content-type, idempotency-key, if-none-match, last-event-id"
METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED: Final = (
    b"Location, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, "
    b"X-RateLimit-Reset, X-Request-Id, ETag, Idempotent-Replayed, Content-Disposition, Safelight-Version, "
    b"Safelight-Credits-Available"
)
MAX_AGE: Final = b"7200"

_LOCAL: Final = re.compile(rb"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


class Cors:
    """The origins of one installation."""

    def __init__(self, origins: Iterable[str], *, dev: bool) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._dev = dev

    def admits(self, origin: bytes) -> bool:
        """Say whether a page of this origin may read our answers."""
        return origin in self._origins or (self._dev and _LOCAL.fullmatch(origin) is not None)

    def fields(self, origin: bytes | None) -> Headers:
        """Return the headers an answer to this origin gets: none where it may not read it."""
        if origin is None or not self.admits(origin):
            return ()
        return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED))

    def preflight(self, origin: bytes) -> Headers:
        """Return the headers that answer whether this origin may send a request at all."""
        if not self.admits(origin):
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ALLOWED),
            (b"access-control-max-age", MAX_AGE),
        )


def is_preflight(method: str, fields: dict[bytes, bytes]) -> bool:
    """Say whether a request asks what another one may do."""
    return method == "OPTIONS" and b"origin" in fields and b"access-control-request-method" in fields
