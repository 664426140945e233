"""What a browser gets: a client for programs, and the playground. Files, and what is said with them.

Everything is served as it lies here; nothing is built, nothing comes from elsewhere. The page's policy
allows no inline script and no inline style, so a text that came to be markup would still do nothing.
Who may have the page's token is decided here too; the token itself is made elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
import html
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
    ".ts": "text/plain; charset=utf-8",
}
LIBRARY: Final = frozenset({"/client.js", "/client.d.ts"})
"""What programs of other origins load. All else is the playground's."""

SEALED: Final = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
    ("vary", "Accept-Encoding"),
)
"""Goes with every file. `no-cache` lets a browser keep a file and ask by its `ETag`."""
OPEN: Final = (("access-control-allow-origin", "*"), ("cross-origin-resource-policy", "cross-origin"))
OWN: Final = (
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)

_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_BLANKS: Final = 'data-token="typed" data-address=""'


class Asset(NamedTuple):
    """One file as it is served, and the same compressed. Their tags differ, as RFC 9110 (8.8.3.3) asks."""

    body: bytes
    media_type: str
    packed: bytes
    etag: str
    packed_etag: str


def assets() -> dict[str, Asset]:
    """Return every file by its path below the mount; the page itself is `/`."""
    found = (path for path in sorted(HERE.iterdir()) if path.suffix in TYPES)
    return {
        "/" if path.name == "page.html" else f"/{path.name}": asset(path.read_bytes(), TYPES[path.suffix])
        for path in found
    }


def asset(body: bytes, media_type: str) -> Asset:
    """Return a file's bytes as an asset."""
    tag = hashlib.sha256(body).hexdigest()[:16]
    return Asset(body, media_type, gzip.compress(body, mtime=0), f'"{tag}"', f'"{tag}-gzip"')


def page(template: Asset, address: str, *, dev: bool) -> Asset:
    """Return the page for an installation: where its links begin, and whether it is given its token."""
    filled = f'data-token="{"dev" if dev else "typed"}" data-address="{html.escape(address)}"'
    return asset(template.body.replace(_BLANKS.encode(), filled.encode()), template.media_type)


def policy(origins: tuple[str, ...] = ()) -> str:
    """Return the page's Content-Security-Policy; pictures may also be at `origins`."""
    stores = "".join(f" {origin}" for origin in origins)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:{stores}; "
        f"connect-src 'self'{stores}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


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
