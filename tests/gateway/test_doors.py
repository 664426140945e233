"""The links uploads are put by: one upload each, for minutes, whatever secret is the first since."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.blobs import Arrival, Doors
from gateway.secrets import Keyring, Secret

NOON = 1_795_176_000_000
KEY = "0123456789abcdef/01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0/0.webp"
OLD, NEW = (Secret(letter * 32) for letter in "on")


def doors(*secrets: Secret) -> Doors:
    """Return doors of an installation with these secrets."""
    return Doors(Keyring(secrets or (NEW,)), lambda: "https://images.example.com/")


def parts(link: str) -> tuple[str, dict[str, str]]:
    """Return a link's key and parameters."""
    split = urllib.parse.urlsplit(link)
    return split.path.removeprefix("/uploads/"), dict(urllib.parse.parse_qsl(split.query))


@given(
    tenant=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._@:|+=~-]{0,127}\Z"),
    size=st.integers(1, 10_485_760),
)
def test_door_lets_in_what_it_names(tenant: str, size: int) -> None:
    """What a door was made for is what it says, for every tenant's name."""
    arrival = Arrival(tenant, KEY, size)
    link = doors().make(arrival, NOON)
    assert link.startswith("https://images.example.com/uploads/")
    key, query = parts(link)
    assert doors().check(key, query, NOON - 1) == arrival
    assert doors().check(key, query, NOON) == "expired"


def test_door_outlives_a_rotation() -> None:
    """A link that an older secret signed is good while that one is listed, and no longer."""
    key, query = parts(doors(OLD).make(Arrival("acme", KEY, 9), NOON))
    assert doors(NEW, OLD).check(key, query, 0) == Arrival("acme", KEY, 9)
    assert doors(NEW).check(key, query, 0) == "invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"exp": "1795176001"},
        {"exp": "01795176000"},
        {"size": "10"},
        {"size": "09"},
        {"size": "-9"},
        {"of": "61636d66"},
        {"of": "61636D65"},
        {"of": "ff"},
        {"of": ""},
        {"sig": "0" * 64},
        {"sig": ""},
        {"more": "1"},
    ],
)
def test_other_parts_are_invalid(change: dict[str, str]) -> None:
    """Another value, another spelling of one, or a part too many opens nothing."""
    key, query = parts(doors().make(Arrival("acme", KEY, 9), NOON))
    assert doors().check(key, query | change, 0) == "invalid"
    for name in query:
        assert doors().check(key, {n: v for n, v in query.items() if n != name}, 0) == "invalid"


@pytest.mark.parametrize(
    "key", [KEY.replace("webp", "png"), KEY.replace("/0.", "/1."), "", "../a.png", KEY + "x"]
)
def test_other_keys_are_invalid(key: str) -> None:
    """A door leads to one key, of one type."""
    _, query = parts(doors().make(Arrival("acme", KEY, 9), NOON))
    assert doors().check(key, query, 0) == "invalid"
