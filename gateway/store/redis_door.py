"""How a connection to a Redis is sealed by TLS, and in an operator's words why one could not be made.

All connections of a process share what they trust: to read an issuers' file takes longer than a handshake.
A name that is not in the certificate is refused like an issuer nobody knows, and there is no way round it.
What is said names files and settings, never a user's password.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import SSLConnection
from redis.exceptions import AuthenticationError, NoPermissionError

from gateway.errors import Refusal

if TYPE_CHECKING:
    from gateway.store.opening import Place

NAMES: Final = (62, 64)
"""What OpenSSL calls a certificate of another host, and of another address."""


class Sealed(SSLConnection):
    """A connection over TLS by a context that is shared; the library would make one for each."""

    def __init__(self, *, seal: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = seal


def sealed(place: Place) -> dict[str, Any]:
    """Return what the library is told so that connections are sealed as a place wants it.

    Raises `Refusal` where a file it names is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=place.ca_file)
    except OSError as error:
        raise _unread("ca_file", place.ca_file, error) from error
    if place.cert_file is not None:
        try:
            context.load_cert_chain(place.cert_file, place.key_file, password=str)
        except OSError as error:
            raise _unread("cert_file or key_file", place.cert_file, error) from error
    return {"connection_class": Sealed, "seal": context}


def _unread(setting: str, path: str | None, error: OSError) -> Refusal:
    bad = isinstance(error, ssl.SSLError)
    why = (
        "is not what it should be, in PEM and without a password"
        if bad
        else f"cannot be read: {error.strerror}"
    )
    return Refusal(f"store.{setting}: {path} {why}.")


def unmet(error: BaseException) -> str:
    """Return why a connection could not be made."""
    if any(isinstance(each, ConnectionResetError) for each in _chain(error)):
        return (
            "it hangs up at once, as one that wants TLS (`rediss://`) or our certificate (`store.cert_file`)"
        )
    return reason(error)


def reason(error: BaseException) -> str:
    """Return what went wrong with a connection."""
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            cure = "" if each.verify_code in NAMES else ": `store.ca_file` names who may issue one"
            return f"its certificate is not trusted ({each.verify_message.rstrip('.')}){cure}"
        if isinstance(each, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (each.reason or ""):
            return "it wants our certificate (`store.cert_file`)"
        if isinstance(each, ssl.SSLError):
            return f"TLS could not be agreed on ({(each.reason or '').lower().replace('_', ' ')})"
    if isinstance(error, AuthenticationError):
        return "it does not take this user and password"
    if isinstance(error, NoPermissionError):
        return f"NOPERM {error}"
    return type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
