"""Which regular expressions may run on what strangers write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.patterns import unsafe

EXPONENTIAL = "can be read in more than one way"
OVERLAP = "take the same text"
WORDS = "|".join(f"{a}{b}cd{a}" for a in "abcdef" for b in "abcdef")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a+)+$", EXPONENTIAL),
        (r"(a|aa)+$", EXPONENTIAL),
        (r"(\w+\s?)+$", EXPONENTIAL),
        (r"^(a+)*b", EXPONENTIAL),
        (r"(a|b|ab)*c", EXPONENTIAL),
        (r"(aa?)+$", EXPONENTIAL),
        (r"(x+x+)+y", EXPONENTIAL),
        (r"(.+)+", EXPONENTIAL),
        (r"(a{1,3}){1,10}x", EXPONENTIAL),
        (r"^(([a-z])+.)+[A-Z]([a-z])+$", EXPONENTIAL),
        (r"(?:(?:[a-z]+-?)+\.)+com", EXPONENTIAL),
        (r"(.*a){12}", OVERLAP),
        (r"(.{0,40}a){12}", OVERLAP),
        (r".*.*.*x", OVERLAP),
        (r"\s*,?\s*x", OVERLAP),
        (r".{0,200}.{0,200}x", OVERLAP),
        (r".*foo.*bar", OVERLAP),
        (r"(?:ab)+(?:ab)+c", OVERLAP),
        (r"[a-z]+(?:z|[a-z]+x)", OVERLAP),
        (r"([a-z]+)*$", "matches the empty text"),
        (r"x*", "matches the empty text"),
        (r"(a*)*b", "may be empty"),
        (r"(a?){30}a{30}", "may be empty"),
        (r"(a|a)*b", "alternatives that are the same"),
        (r"(a)\1", "refers back"),
        (r"(a)?(?(1)b|c)d", "refers back"),
        (r"(?=.*x)y", "looks around itself"),
        (r"(?<!x)(?!.+z)q", "looks around itself"),
        (r"(?P<kid>x)", "names a group"),
        (r"(", "does not compile"),
        (r"(?i)x", "does not compile"),
        (r"a{99999999999}", "does not compile"),
        ("(" * 5000 + "a" + ")" * 5000, "nested too deeply"),
        ("abc" * 201, "written out"),
        (f"(?:{WORDS})+x(?:{WORDS})+y", "too intricate"),
    ],
)
def test_dangerous_patterns_are_refused(pattern: str, why: str) -> None:
    """The classic slow patterns are refused, each with its reason."""
    assert why in (unsafe(pattern) or "")


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bkid\b",
        r"kid.*nude",
        r"kid.{0,40}nude.{0,40}x",
        r"\b(?:kid|child)\W+(?:\w+\W+){0,5}nude\b",
        r"\d{4}-\d{2}",
        r"\w+@\w+\.\w+",
        r"(?:foo|bar|baz){1,3}",
        r"(?:\w{1,20}\s){0,5}x",
        r"https?://[\w.-]+",
        r"(?:a{0,3}b)+",
        r"colou?r",
        r"(?<!un)dressed(?=\s)",
        r"(?:ab?)+c",
        r"x(?>a+)b",
        r"xa{0}b",
        r"xa*+b",
        r"a{4,}?b",
        r"(?:word|ward|work|wombat|wink)+x",
        r"[^\W_]+x",
        r"(?i:Nude)s?",
        r"(?:(?:a{2}b){2})+c",
        r"^\s*system",
        r"[一-鿿]+裸",
    ],
)
def test_ordinary_patterns_pass(pattern: str) -> None:
    """Words, choices, classes and one gap at a time are fine."""
    assert unsafe(pattern) is None


PIECES = st.recursive(
    st.sampled_from(["a", "b", "[ab]", ".", "ab"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["+", "*", "?", "{1,5}", "{2}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@given(PIECES, st.text("ab", min_size=1, max_size=40))
def test_passed_patterns_stay_fast(piece: str, text: str) -> None:
    """What passes ends on any text: an exponential pattern would not come back from forty letters."""
    pattern = f"(?:{piece})c"
    if unsafe(pattern) is None:
        assert re.search(pattern, text * 2) is None
