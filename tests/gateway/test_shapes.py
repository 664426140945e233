"""Plain values held against types: one row a kind of mistake."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from gateway.shapes import MOST, below, listed, mistakes, nearest
from policies.bundle import Bundle
from policies.model import JobRequest


class Color(enum.StrEnum):
    """An enumeration to be held against."""

    RED = "red"
    GREEN = "green"


class Stars:
    """A type of our own that a text stands for."""


def _even(text: str) -> str | None:
    return None if len(text) % 2 == 0 else "must be even"


class Inner(Struct, forbid_unknown_fields=True):
    """A struct within a struct."""

    name: Annotated[str, Meta(min_length=2, max_length=4)]
    even: Annotated[str, Meta(extra={"check": _even}, description="an even text")] | None = None


class Outer(Struct, rename="camel"):
    """One field for each kind of type that settings and requests use."""

    some_inner: Inner | None = None
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    least: Annotated[int, Meta(ge=3)] = 3
    most: Annotated[int, Meta(le=3)] = 3
    color: Color = Color.RED
    word: Literal["on", 1] = "on"
    flag: bool = False
    stars: Stars | None = None
    many: Annotated[list[int], Meta(min_length=1, max_length=2)] = []
    pairs: Annotated[dict[str, Any], Meta(max_length=1)] = {}
    three: Annotated[frozenset[str], Meta(min_length=2)] = frozenset()
    either: list[int] | str = ""


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        ({"some_inner": {}}, None, ""),
        ({"someInner": {}}, "/someInner/name", "is required"),
        ({"someInner": None}, None, ""),
        ({"someInner": 3}, "/someInner", "must be an object or null, not a whole number"),
        ({"someInner": {"name": "a"}}, "/someInner/name", "must have at least 2 characters"),
        ({"someInner": {"name": "abcde"}}, "/someInner/name", "must have at most 4 characters"),
        ({"someInner": {"name": "ab", "even": "abc"}}, "/someInner/even", "must be even"),
        (
            {"someInner": {"name": "ab", "even": 3}},
            "/someInner/even",
            "must be text or null, not a whole number",
        ),
        ({"someInner": {"name": "ab", "evn": 3}}, "/someInner/evn", 'unknown key, did you mean "even"?'),
        ({"someInner": {"name": "ab", "a/b~": 3}}, "/someInner/a~1b~0", "unknown key"),
        ({"ratio": 2}, "/ratio", "must be between 0 and 1"),
        ({"ratio": 1}, None, ""),
        ({"ratio": True}, "/ratio", "must be a number, not true or false"),
        ({"ratio": "1"}, "/ratio", "must be a number, not text"),
        ({"least": 2}, "/least", "must be at least 3"),
        ({"most": 4}, "/most", "must be at most 3"),
        ({"color": "rad"}, "/color", 'must be one of "red", "green", did you mean "red"?'),
        ({"color": []}, "/color", 'must be one of "red", "green", not a list'),
        ({"word": 2}, "/word", 'must be one of 1, "on"'),
        ({"word": True}, "/word", 'must be one of 1, "on", not true or false'),
        ({"flag": "yes"}, "/flag", "must be true or false, not text"),
        ({"flag": 1}, "/flag", "must be true or false, not a whole number"),
        ({"stars": "x"}, "/stars", "must be even"),
        ({"stars": 1}, "/stars", "must be text or null, not a whole number"),
        ({"many": []}, "/many", "must not be empty"),
        ({"many": [1, 2, 3]}, "/many", "must have at most 2 items"),
        ({"many": [1, "2"]}, "/many/1", "must be a whole number, not text"),
        ({"many": {}}, "/many", "must be a list, not an object"),
        ({"pairs": {"a": 1, "b": 2}}, "/pairs", "must have at most 1 entry"),
        ({"pairs": []}, "/pairs", "must be an object, not a list"),
        ({"three": ["a"]}, "/three", "must have at least 2 items"),
        ({"either": ["a"]}, "/either/0", "must be a whole number, not text"),
        ({"either": 1}, "/either", "must be a list or text, not a whole number"),
        ({"unknown": 1}, None, ""),
        ([], "", "must be an object, not a list"),
    ],
)
def test_each_mistake_has_its_sentence(value: object, pointer: str | None, detail: str) -> None:
    """Each kind of mistake is told once, at its place, in plain words; what fits is not told."""
    found = [(flaw.pointer, flaw.detail) for flaw in mistakes(value, Outer, {Stars: _even})]
    assert found == ([] if pointer is None else [(pointer, detail)])


def test_kinds_without_plain_form_are_bugs() -> None:
    """A type that nobody taught the walker is refused at once, not passed over."""
    with pytest.raises(TypeError, match="DateTimeType"):
        mistakes("2026-01-01", datetime)


def test_list_of_flaws_is_bounded() -> None:
    """However much is wrong, no more than the cap is told."""
    assert len(mistakes([{}] * 5000, list[JobRequest])) == MOST


@pytest.mark.parametrize(
    ("word", "hint"), [("kidn", ', did you mean "kind"?'), ("zebra", ""), ("", ""), ("k" * 9999, "")]
)
def test_nearest_word_is_suggested(word: str, hint: str) -> None:
    """A word is suggested only where one is near."""
    assert nearest(word, ["kind", "key", "base_url"]) == hint


def test_pointers_are_short_and_printable() -> None:
    """A member's pointer escapes what RFC 6901 and UTF-8 ask for, and cuts what is overlong."""
    assert below("/a", "b/c~d") == "/a/b~1c~0d"
    assert below("", 3) == "/3"
    assert below("", "\ud800") == "/\\ud800"
    assert below("", "x" * 100) == "/" + "x" * 64 + "…"
    assert listed(["a", 1]) == '"a", 1'


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 50_000)
    | st.sampled_from(["", "free", "standard", "1:1", "png"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*JobRequest.__struct_fields__, *Bundle.__struct_fields__]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", [JobRequest, Bundle])
@given(value=st.dictionaries(st.sampled_from([*JobRequest.__struct_fields__, "plans", "odd"]), _PLAIN))
def test_walker_and_msgspec_agree(kind: type, value: dict[str, object]) -> None:
    """The walker finds a mistake exactly where msgspec refuses the value."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        assert mistakes(value, kind)
    else:
        assert mistakes(value, kind) == []
