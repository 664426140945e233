"""What a text is to the eye, however it is spelled underneath."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies import lookalikes

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@pytest.mark.parametrize(
    "written",
    [
        "block",
        "BLOCK",
        "bӏосk",  # Cyrillic palochka, o, s
        "βlοcκ",  # Greek
        "ｂｌｏｃｋ",
        "𝐛𝐥𝐨𝐜𝐤",
        "ⓑⓛⓞⓒⓚ",
        "ʙʟᴏᴄᴋ",
        "ᏴᏞoᏟᏦ",
        "blöćk",
        "b\u0336l\u0336ock",
        "b\u200blo\u00adc\u2060k",
        "bl\U000e0041ock",
        "bl\ufe0fock",
    ],
)
def test_lookalikes_become_plain_letters(written: str) -> None:
    """Case, scripts, widths, styles, accents and invisible characters fall away."""
    assert lookalikes.plain(written) == "block"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a b1ock b", "block"),
        ("a b.l.o.c.k b", "block"),
        ("a bl-ock, b", "block"),
        ("a block! b", "block"),
        ("a 'block' b", "block"),
        ("bloc—k", "block"),
        ("$nake", "snake"),
        ("sn@ke", "snake"),
        ("sn@ke.x", "snake"),
        ("@snake", "snake"),
        ("snake$", "snake"),
        ("5n4k3", "snake"),
        ("1488", "1488"),
        ("Schlüssel", "schlussel"),
    ],
)
def test_hidden_words_are_read(text: str, word: str) -> None:
    """Some reading of a text has the word that a person reads in it, and the quick look is not certain."""
    (token,) = lookalikes.tokens(word)
    assert any(token in way for way in _readings(text))
    assert not lookalikes.quick(lookalikes.plain(text), frozenset({lookalikes.key(token)}))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("455 meters", "ass"),
        ("unblocked", "block"),
        ("blocks", "block"),
        ("bl ock", "block"),
        ("35 mm", "ss"),
    ],
)
def test_other_words_are_not_read(text: str, word: str) -> None:
    """Numbers stay numbers, and a word within another or in two parts is another word."""
    assert not any(lookalikes.tokens(word)[0] in way for way in _readings(text))


def _readings(text: str) -> list[list[str]]:
    return lookalikes.readings(lookalikes.plain(text))


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("b l o c k", ["biock"]),
        ("say b-1-o-c-k now", ["biock"]),
        ("🅱 🅻 🅾 c k", ["biock"]),
        ("🇧🇱🇴 x", ["biox"]),
        ("1 4 8 8", ["1488"]),
        ("a cat and I", []),
        ("at f/8 a day", ["f8a"]),
    ],
)
def test_spelled_out_letters_join(text: str, runs: list[str]) -> None:
    """Three single letters or more in a row are read as the word they spell."""
    assert lookalikes.spelled(lookalikes.plain(text)) == runs


def test_faces_show_every_spelling() -> None:
    """A pattern sees a text as written, as it looks, and with digits as both letters they may be."""
    text = "K1d  о35 12"
    assert lookalikes.faces(text, lookalikes.plain(text)) == [
        "K1d о35 12",
        "k1d o35 12",
        "kid oes 12",
        "kld oes 12",
    ]
    assert lookalikes.faces("a  cat", "a  cat") == ["a cat"]


@example("0:0:@:00", [])
@given(ASCII, st.lists(st.text("abilo01$@", min_size=1, max_size=4), max_size=4))
def test_quick_look_misses_nothing(text: str, words: list[str]) -> None:
    """Where the quick look is certain, no reading has one of the words and nothing is spelled out."""
    firsts = {token for word in words for token in lookalikes.tokens(word)}
    face = lookalikes.plain(text)
    if lookalikes.quick(face, frozenset(map(lookalikes.key, firsts))):
        assert firsts.isdisjoint(word for way in lookalikes.readings(face) for word in way)
        assert not lookalikes.spelled(face)


def test_quick_look_leaves_other_scripts() -> None:
    """A text that still has other letters after folding is never settled at a glance."""
    assert not lookalikes.quick(lookalikes.plain("漢字"), frozenset())
    assert lookalikes.quick(lookalikes.plain("a “quiet” café — dusk"), frozenset({"biock"}))


@given(st.text(max_size=60))
def test_plain_is_stable(text: str) -> None:
    """Reading any text ends, and reading what was read finds the same words."""
    face = lookalikes.plain(text)
    assert lookalikes.tokens(face) == lookalikes.tokens(text)


@pytest.mark.parametrize(
    ("word", "is_unspaced"), [("裸体", True), ("ไทย", True), ("слово", False), ("cat", False)]
)
def test_unspaced_scripts_are_known(word: str, is_unspaced: bool) -> None:  # noqa: FBT001 - a table's column
    """Chinese, Japanese, Korean and Thai words are looked for without spaces around them."""
    assert lookalikes.is_unspaced(word) is is_unspaced


def test_no_letter_grows_a_text_much() -> None:
    """What a text looks like is at most eight times as long as the text, so that judging stays quick."""
    assert max(len(lookalikes.plain(chr(code) * 10)) for code in range(128, 0x110000)) <= 80
