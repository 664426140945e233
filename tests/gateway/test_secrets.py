"""Secrets: stars outside, subkeys inside, rotation by order."""

from __future__ import annotations

import copy
import hmac
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.secrets import PURPOSES, Keyring, Purpose, Secret, load_or_create

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Secret("o" * 32)
NEW = Secret("n" * 32)


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r}".format, lambda s: f"{[s]}", lambda s: f"{s!s:>40}"]
)
def test_secret_shows_as_stars(show: Callable[[Secret], str]) -> None:
    """However a secret is printed, its text does not appear."""
    shown = show(Secret("hush-hush"))
    assert "hush" not in shown
    assert "****" in shown


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, json.dumps])
def test_secret_leaves_no_copy(leak: Callable[[Secret], object]) -> None:
    """A secret is not pickled, copied or serialized by accident."""
    with pytest.raises(TypeError, match=r"^(?!.*hush)"):
        leak(Secret("hush-hush"))


def test_equal_texts_are_equal_secrets() -> None:
    """Secrets compare and hash by their text, and never equal a plain text."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"


@given(data=st.binary(max_size=200), purpose=st.sampled_from(PURPOSES))
def test_signed_data_verifies(data: bytes, purpose: Purpose) -> None:
    """What a purpose signed that purpose verifies, and no other data or purpose."""
    ring = Keyring([NEW])
    mac = ring.sign(purpose, data)
    assert len(mac) == 32
    assert [p for p in PURPOSES if ring.verify(p, data, mac)] == [purpose]
    assert not ring.verify(purpose, data + b"x", mac)
    assert not ring.verify(purpose, data, mac[:31])


def test_first_secret_signs_all_verify() -> None:
    """A rotated ring signs with its first secret and still verifies what the older one signed."""
    old, both, new = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([NEW])
    assert both.sign("links", b"x") == new.sign("links", b"x")
    assert both.verify("links", b"x", old.sign("links", b"x"))
    assert not new.verify("links", b"x", old.sign("links", b"x"))


def test_key_ids_name_signing_keys() -> None:
    """A key id follows the signing secret and the purpose, and is not made of the key's own bytes."""
    ids = {Keyring([secret]).key_id(p) for p in PURPOSES for secret in (OLD, NEW)}
    assert len(ids) == 2 * len(PURPOSES)
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)
    assert Keyring([NEW, OLD]).key_id("audit") == Keyring([NEW]).key_id("audit")


def test_subkeys_follow_the_rfc() -> None:
    """A subkey is HKDF-SHA256 (RFC 5869) of the secret, without salt, the purpose in its label."""
    extracted = hmac.digest(bytes(32), b"n" * 32, "sha256")
    subkey = hmac.digest(extracted, b"safelight/1/links/key\x01", "sha256")
    assert Keyring([NEW]).sign("links", b"x") == hmac.digest(subkey, b"x", "sha256")


def test_stored_signatures_stay_verifiable() -> None:
    """The subkeys' labels are in stored data: this value was written down once and never changes."""
    ring = Keyring([Secret("0123456789abcdef0123456789abcdef")])
    assert (
        ring.sign("audit", b"row").hex() == "c20e77cfc4533af7a1616c96708bf5d3fa14e4d4887254608ac30fe4f7b10041"
    )
    assert ring.key_id("audit") == "9ea0581d2ae9796e"


@given(data=st.binary(max_size=200), about=st.binary(max_size=20))
def test_sealed_data_opens_again(data: bytes, about: bytes) -> None:
    """What a ring seals it opens, for the thing it was sealed for and for no other."""
    ring = Keyring([NEW])
    sealed = ring.seal("webhooks", data, about)
    assert ring.open("webhooks", sealed, about) == data
    assert ring.open("webhooks", sealed, about + b"x") is None


def test_first_secret_seals_all_open() -> None:
    """A rotated ring seals with its first secret and still opens what the older one sealed."""
    old, both, new = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([NEW])
    assert both.open("webhooks", old.seal("webhooks", b"x")) == b"x"
    assert new.open("webhooks", both.seal("webhooks", b"x")) == b"x"
    assert new.open("webhooks", old.seal("webhooks", b"x")) is None


def test_seals_are_never_alike() -> None:
    """The same data sealed twice is two texts, neither of which holds it."""
    ring = Keyring([NEW])
    one, other = ring.seal("webhooks", b"hush-hush"), ring.seal("webhooks", b"hush-hush")
    assert one != other
    assert "hush" not in one + other


STORED = "s1.03245fdd6d683c66.AAAAAAAAAAAAAAAAvNDfNj4CQtM33N9HYyVOdXJTQD81"


def test_stored_seals_stay_readable() -> None:
    """The form of a seal is in stored data: this one was written down once and opens for ever."""
    ring = Keyring([NEW], bytes)
    assert ring.seal("webhooks", b"hello", b"e1") == STORED
    assert Keyring([NEW]).open("webhooks", STORED, b"e1") == b"hello"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s1",
        STORED.replace("s1", "s2", 1),
        STORED[:-4],
        STORED[:-1],
        STORED + "*",
        STORED[:20] + ".",
        STORED.replace("03245fdd", "03245fde"),
        STORED.rpartition(".")[0] + ".",
        STORED.replace("vND", "vNE"),
    ],
)
def test_altered_seals_do_not_open(text: str) -> None:
    """A text that no live secret sealed, or one that was touched since, opens to nothing."""
    assert Keyring([NEW]).open("webhooks", text, b"e1") is None


@pytest.mark.parametrize("live", [[], [Secret("hush-hush")], [NEW, Secret("x" * 31)], [Secret("ä" * 15)]])
def test_guessable_secrets_are_refused(live: list[Secret]) -> None:
    """No secret, or one below 32 bytes anywhere in the list, refuses the start without showing it."""
    with pytest.raises(Refusal) as refusal:
        Keyring(live)
    assert not any(secret.reveal() in str(refusal.value) for secret in live)


def test_keyring_shows_no_key() -> None:
    """A keyring printed shows nothing of what it holds."""
    assert repr(Keyring([NEW])) == "Keyring(********)"


def test_odd_bytes_still_make_keys() -> None:
    """A secret that is not valid Unicode, as an environment may hold it, signs all the same."""
    assert Keyring([Secret("\udc80" * 32)]).sign("links", b"x") != Keyring([NEW]).sign("links", b"x")


def test_first_start_creates_private_file(tmp_path: Path) -> None:
    """The first start makes 32 random bytes, readable by their owner alone; later starts read them."""
    path = tmp_path / "new" / "secret"
    made = load_or_create(path)
    assert len(bytes.fromhex(made.reveal())) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path) == made
    assert [p.name for p in path.parent.iterdir()] == ["secret"]
    assert load_or_create(tmp_path / "other") != made


def test_second_creator_takes_the_first(tmp_path: Path) -> None:
    """A process that lost the race to create returns the winner's secret and leaves nothing behind."""
    path = tmp_path / "secret"

    def slow_coin(size: int) -> bytes:
        load_or_create(path, lambda _: b"w" * 32)
        return b"l" * size

    assert load_or_create(path, slow_coin).reveal() == (b"w" * 32).hex()
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda p: p.write_bytes(b"\xff\xfe")])
def test_unreadable_file_refuses_the_start(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """A secret that is there and cannot be read refuses the start; it is not replaced."""
    path = tmp_path / "secret"
    spoil(path)
    with pytest.raises(Refusal, match="cannot be used"):
        load_or_create(path)
    assert path.exists()
