"""Notices: what is sent verifies by others' code, and what comes back is read without trust."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
import standardwebhooks
import svix

from gateway import notices
from gateway.secrets import Keyring, Secret
from gateway.store.contract import Notice
from gateway.wire import Cut, Wire, WireFailure, WireResponse
from policies import ids, webhooks
from policies.webhooks import EVENTS, ROTATION_MS, Delivery, Endpoint, Form

if TYPE_CHECKING:
    from gateway.wire import WireRequest

RING: Final = Keyring([Secret("n" * 32)])
BODY: Final = b'{"type":"job.succeeded","data":{"prompt":"\xc3\xa9"}}'
NAME: Final = "01932c07-0000-7000-8000-000000000001"


def instant() -> int:
    """Return the time of day: the libraries that verify look at it themselves."""
    return int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)


def notice(form: Form = "native", secret: str = "", **fields: Any) -> Notice:
    """Return a delivery to an endpoint with this secret."""
    sealed = notices.seal(RING, "acme", "e1", secret or notices.new_secret(bytes))
    to = Endpoint("e1", "acme", "ann", "https://a.example.org/h", sealed, form, EVENTS[form], **fields)
    return Notice(Delivery(NAME, "acme", "e1", EVENTS[form][0], "j1"), to, None, 1)


def signed(told: Notice, now: int) -> WireRequest:
    """Return the request of a try."""
    secrets = notices.unseal(RING, told.endpoint, now)
    return notices.build(told, secrets, BODY, now, 15)


def by_standard(secret: str, headers: dict[str, str], body: bytes) -> None:
    """Verify as the package of the standard does: it raises where it does not."""
    standardwebhooks.Webhook(secret).verify(body, headers)


def by_svix(secret: str, headers: dict[str, str], body: bytes) -> None:
    """Verify as Svix's package does."""
    svix.Webhook(secret).verify(body, headers)


VERIFIERS: Final = pytest.mark.parametrize("verify", [by_standard, by_svix])
Verify = Callable[[str, dict[str, str], bytes], None]


@VERIFIERS
def test_others_verify_our_signature(verify: Verify) -> None:
    """What is sent verifies with the standard's own packages, and with no other secret, body or id."""
    now, secret = instant(), notices.new_secret(lambda n: b"s" * n)
    headers = dict(signed(notice(secret=secret), now).headers)
    verify(secret, headers, BODY)
    for wrong in (
        (notices.new_secret(bytes), headers, BODY),
        (secret, headers, BODY + b" "),
        (secret, headers | {"webhook-id": "dl_1"}, BODY),
        (secret, headers | {"webhook-timestamp": str(now // 1000 + 1)}, BODY),
    ):
        with pytest.raises(Exception, match="signature"):
            verify(*wrong)


@VERIFIERS
def test_rotation_verifies_with_either(verify: Verify) -> None:
    """Through a rotation what is sent verifies with the old secret and the new, a day later the new alone."""
    old, new = (notices.new_secret(lambda n, c=c: c * n) for c in (b"o", b"n"))  # type: ignore[misc]
    told = notice(secret=old)
    now = instant()
    sealed = notices.seal(RING, "acme", "e1", new)
    rotated = webhooks.rotated(told.endpoint, sealed, now)
    headers = dict(signed(Notice(told.delivery, rotated, None, 1), now).headers)
    verify(old, headers, BODY)
    verify(new, headers, BODY)
    over = webhooks.rotated(told.endpoint, sealed, now - ROTATION_MS)
    headers = dict(signed(Notice(told.delivery, over, None, 1), now).headers)
    verify(new, headers, BODY)
    with pytest.raises(Exception, match="signature"):
        verify(old, headers, BODY)


def test_id_stays_instant_moves() -> None:
    """Two tries of a delivery have one id and two instants, so a replay is known and an old one is too."""
    told = notice()
    first, second = (dict(signed(told, now).headers) for now in (1_000_000, 9_000_000))
    assert first["webhook-id"] == second["webhook-id"] == ids.shown(NAME, ids.DELIVERY)
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1000", "9000")
    assert first["webhook-signature"] != second["webhook-signature"]


def test_seed_form_signs_the_body() -> None:
    """The plus form has three headers: event, UUID, and a hex HMAC of the body under the secret as shown."""
    secret = "whsec_" + "A" * 43 + "="
    request = signed(notice("gptimage2_plus", secret), 1_000_000)
    assert dict(request.headers) == {
        "content-type": "application/json",
        "x-gptimg-event": "generation.succeeded",
        "x-gptimg-delivery": NAME,
        "x-gptimg-signature": "e18d9dca0f51813c410f9eb8f5ed35296ecf11aa80a87db822acf36ca70114a1",
    }


def test_seed_rotation_keeps_the_old() -> None:
    """For a day the one signature stays on the old secret and a second has the new; then it switches."""
    told = notice("gptimage2_plus", "whsec_old")
    rotated = webhooks.rotated(told.endpoint, notices.seal(RING, "acme", "e1", "whsec_new"), 0)
    during = dict(signed(Notice(told.delivery, rotated, None, 1), ROTATION_MS - 1).headers)
    after = dict(signed(Notice(told.delivery, rotated, None, 1), ROTATION_MS).headers)
    before = dict(signed(told, 0).headers)
    assert during["x-gptimg-signature"] == before["x-gptimg-signature"]
    assert during["x-gptimg-signature-next"] == after["x-gptimg-signature"]
    assert "x-gptimg-signature-next" not in before | after


@pytest.mark.parametrize(("form", "seconds"), [("native", 15), ("gptimage2_plus", 5)])
def test_tries_are_bounded(form: Form, seconds: int) -> None:
    """A try has its form's time, carries no credential, and little is read of its answer."""
    request = signed(notice(form), 0)
    assert (request.method, request.url, request.body) == ("POST", "https://a.example.org/h", BODY)
    assert (request.seconds, request.credential) == (seconds, None)
    assert request.max_bytes <= 64 * 1024


def test_secrets_are_bound_to_endpoints() -> None:
    """A sealed secret opens for its own endpoint alone, and one that nothing opens does not sign."""
    told = notice()
    moved = Endpoint("e2", "acme", "ann", "https://a.example.org", told.endpoint.secret)
    foreign = Endpoint("e1", "globex", "ann", "https://a.example.org", told.endpoint.secret)
    assert notices.unseal(RING, moved, 0) == notices.unseal(RING, foreign, 0) == ()
    rotated = webhooks.rotated(told.endpoint, "s1.lost", 0)
    assert notices.unseal(RING, rotated, 0) == notices.unseal(RING, told.endpoint, 0)


def test_secrets_are_random_and_formed() -> None:
    """A secret is `whsec_` and 32 bytes of the coin in base64."""
    assert notices.new_secret(bytes) == "whsec_" + "A" * 43 + "="


READINGS: list[tuple[Wire, tuple[int | None, str | None, int | None]]] = [
    (WireResponse(204, {}, b""), (204, None, None)),
    (WireResponse(302, {"location": "https://b.example.org"}, b""), (302, None, None)),
    (WireResponse(503, {"retry-after": "120"}, b""), (503, None, 120_000)),
    (WireResponse(503, {"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, b""), (503, None, 60_000)),
    (WireResponse(503, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, b""), (503, None, 0)),
    (WireResponse(503, {"retry-after": "soon"}, b""), (503, None, None)),
    (WireResponse(503, {"retry-after": "Thu, 99 Jan 1970 00:02:00 GMT"}, b""), (503, None, None)),
    (WireFailure(Cut.TOO_LARGE, status=200), (200, None, None)),
    (WireFailure(Cut.TOO_LARGE, status=500), (500, None, None)),
    (WireFailure(Cut.TIMEOUT), (None, "timeout", None)),
    (WireFailure(Cut.HALF), (None, "half", None)),
    (WireFailure(Cut.RESET), (None, "reset", None)),
    (WireFailure(Cut.UNREACHABLE, "ConnectionRefusedError"), (None, "unreachable", None)),
    (WireFailure(Cut.JUDGED, "address"), (None, "unreachable", None)),
]


@pytest.mark.parametrize(("wire", "found"), READINGS)
def test_answers_are_read(wire: Wire, found: tuple[int | None, str | None, int | None]) -> None:
    """A status counts also where its body was cut for its size; why an address is barred is not told."""
    answered = notices.read(wire, 48_000, 60_000)
    tried = answered.tried
    assert (tried.at, tried.millis) == (48_000, 12_000)
    assert (tried.status, tried.cut, answered.retry_after_ms) == found
