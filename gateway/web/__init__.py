"""What a browser gets under `dev`: one page, its style, its scripts. Files, and what is said with them.

Everything is served as it lies here; nothing is built, nothing comes from elsewhere. The page's policy
allows no inline script and no inline style, so a text that came to be markup would still do nothing.
Who may have the page's token is decided here too; routes, and the token itself, are made elsewhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-cache"),
)
"""Goes with every file. `no-cache` lets a browser keep a file and ask by its `ETag`."""

_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


class Asset(NamedTuple):
    """One file as it is served."""

    body: bytes
    media_type: str
    etag: str


def assets() -> dict[str, Asset]:
    """Return every file by its path below the mount; the page itself is `/`."""
    found = (path for path in sorted(HERE.iterdir()) if path.suffix in TYPES)
    return {"/" if path.name == "page.html" else f"/{path.name}": _asset(path) for path in found}


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')


def may_have_token(host: str, site: str | None, peer: str) -> bool:
    """Say whether `GET /dev/token` comes from the page itself, on this machine.

    `host` is the Host header: a name that was made to point here is not loopback's own. `site` is
    `Sec-Fetch-Site`, which a browser sets and no page can: another origin's request says otherwise. Both
    are whatever another machine cares to write; `peer`, the address that called, is not.
    """
    return site == "same-origin" and _LOOPBACK.fullmatch(host) is not None and _is_here(peer)


def _is_here(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
