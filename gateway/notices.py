"""What an endpoint is sent and what its answer means: webhooks as an adapter spells an upstream.

Two forms. Our own is Standard Webhooks 1.0: an id that stays through all tries, the instant of the try, and
a signature by every live secret. gptimage2.plus signs the body alone, with the secret's text as it was
shown; through a rotation its one signature stays on the old secret and a second header has the new one.
Secrets come sealed and are opened here for one request. Nothing is sent, kept or decided.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from gateway.providers.adapter import retry_after_ms
from gateway.wire import Cut, Wire, WireFailure, WireRequest
from policies import ids, webhooks
from policies.webhooks import Answered, Try

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.secrets import Keyring
    from gateway.store.contract import Notice
    from policies.webhooks import Endpoint

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
ANSWER_BYTES: Final = 64 * 1024
"""The most that is read of an answer, of which the status alone is of interest."""

Header = tuple[str, str]


def new_secret(coin: Callable[[int], bytes]) -> str:
    """Return a secret as its owner is shown it: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(coin(SECRET_BYTES)).decode()


def seal(ring: Keyring, tenant: str, endpoint: str, secret: str) -> str:
    """Return a secret as the store keeps it, bound to its endpoint."""
    return ring.seal("webhooks", secret.encode(), _about(tenant, endpoint))


def unseal(ring: Keyring, endpoint: Endpoint, now: int) -> tuple[str, ...]:
    """Return the secrets that sign now, newest first, without those that no live key opens."""
    about = _about(endpoint.tenant, endpoint.id)
    opened = [ring.open("webhooks", sealed, about) for sealed in webhooks.live(endpoint, now)]
    return tuple(secret.decode() for secret in opened if secret is not None)


def _about(tenant: str, endpoint: str) -> bytes:
    return f"{tenant}\0{endpoint}".encode()


def build(notice: Notice, secrets: Sequence[str], body: bytes, now: int, attempt_seconds: int) -> WireRequest:
    """Return the request of one try, signed by the secrets given, newest first, at least one."""
    to = notice.endpoint
    signed = _native(notice, secrets, body, now) if to.form == "native" else _plus(notice, secrets, body)
    return WireRequest(
        "POST",
        to.url,
        headers=(("content-type", "application/json"), *signed),
        body=body,
        seconds=webhooks.seconds_of(to.form, attempt_seconds),
        max_bytes=ANSWER_BYTES,
    )


def _native(notice: Notice, secrets: Sequence[str], body: bytes, now: int) -> tuple[Header, ...]:
    """Sign as Standard Webhooks does: HMAC-SHA256 of `id.timestamp.body`, a signature a secret."""
    name, instant = ids.shown(notice.delivery.id, ids.DELIVERY), str(now // 1000)
    content = f"{name}.{instant}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix(PREFIX)) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return (
        ("webhook-id", name),
        ("webhook-timestamp", instant),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    )


def _plus(notice: Notice, secrets: Sequence[str], body: bytes) -> tuple[Header, ...]:
    """Sign as gptimage2.plus does: the oldest live secret first, so that a receiver may change in peace."""
    newest, *older = [hmac.digest(secret.encode(), body, hashlib.sha256).hex() for secret in secrets]
    headers: tuple[Header, ...] = (
        ("x-gptimg-event", notice.delivery.event),
        ("x-gptimg-delivery", notice.delivery.id),
        ("x-gptimg-signature", older[-1] if older else newest),
    )
    return (*headers, ("x-gptimg-signature-next", newest)) if older else headers


def read(wire: Wire, at: int, now: int) -> Answered:
    """Return what came of a try that began `at`.

    An answer that is cut off for its size counts by its status. Why an address may not be called is told
    to nobody: it looks like one that cannot be reached.
    """
    millis = max(0, now - at)
    if isinstance(wire, WireFailure):
        if wire.cut is Cut.TOO_LARGE and wire.status is not None:
            return Answered(Try(at, wire.status, millis=millis))
        cut = Cut.UNREACHABLE if wire.cut is Cut.JUDGED else wire.cut
        return Answered(Try(at, cut=str(cut), millis=millis))
    asked = retry_after_ms(wire)
    if asked is None:
        asked = _until(wire.headers.get("retry-after", ""), now)
    return Answered(Try(at, wire.status, millis=millis), asked)


def _until(date: str, now: int) -> int | None:
    """Return how long it is to an instant as HTTP writes one (RFC 9110, 5.6.7); None where it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
        return max(0, int(moment.timestamp() * 1000) - now)
    except (ValueError, TypeError, OverflowError):
        return None
