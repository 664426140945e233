"""Lookalikes: what a text is to the eye, however it is spelled underneath.

Rules are about what a person reads, so a Cyrillic `а`, a fullwidth `ａ`, a `4` inside a word and an `a`
between dots are all one `a` here. Nothing of this is ever sent: `prompts` sends what was written. The
table follows Unicode's confusables (UTS 39) where they touch the Latin letters, with the usual digits
for letters; a number that stands alone stays a number.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
"""Characters that show nothing, as the inside of a regular expression's class."""

_GONE: Final = re.compile(f"[{INVISIBLE}]")
_PHRASES: Final = {0xFDFA: ".", 0xFDFB: "."}
"""Letters that are whole sentences: unfolded, a text of them is eighteen times as long."""
_ODD_SIGN: Final = re.compile(r"[^\w\x00-\x7f]")
# Scripts written without spaces, or with endings joined on: a word is looked for anywhere in them.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
)

# After case folding, so Cherokee stands here in its capitals and all else in its small letters.
_LIKE: Final = {
    "a": "аαɑᴀᎪɐ", "b": "вьβʙᏴƅ", "c": "сᴄϲᏟɔ", "d": "ԁᴅᎠđɖɗ", "e": "еєεᴇᎬҽɛ", "f": "ғꜰƒϝ",
    "g": "ցɡɢᏀԍ", "h": "нһհʜᎻħη", "i": "іιıɪɩᎥ", "j": "јʝᴊᎫϳȷ", "k": "кκᴋᏦқƙ", "l": "ӏǀłʟᏞɭ",
    "m": "мᴍᎷ", "n": "пոɴռɲŋ", "o": "оοօᴏøσөɵ", "p": "рρᴘᏢ", "q": "ԛզգ", "r": "гʀᎡ", "s": "ѕꜱᏚʂƽ",
    "t": "тτᴛᎢŧ", "u": "սυᴜʋ", "v": "ѵνᴠᏙ", "w": "ԝωᴡᎳш", "x": "хχ×", "y": "уүγʏ", "z": "ᴢᏃƶʐ",
}  # fmt: skip
_CONFUSABLE: Final = {ord(odd): letter for letter, odds in _LIKE.items() for odd in odds} | {
    # Letters in circles, boxes and flags stand alone, so they are read as letters spelled out.
    first + i: f" {chr(ord('a') + i)} "
    for first in (0x1F150, 0x1F170, 0x1F1E6)
    for i in range(26)
}

_SWAPS: Final = {ord(odd): letter for odd, letter in zip("013457l", "oieasti", strict=True)}
"""Digits for letters; and `l` for `i`, because `1` stands for both."""

_DIGIT: Final = re.compile("[013457@$]")
_LEET: Final = [
    {ord(odd): letter for odd, letter in zip("013457@$", f"o{one}eastas", strict=True)} for one in "il"
]

Table = dict[int, str | None]


def _table(gap: str | None, signs: str = "") -> Table:
    """Return what becomes of ASCII: letters small, digits kept, `signs` letters, all else `gap`."""
    table: Table = {i: chr(i).lower() if chr(i).isalnum() else gap for i in range(128)}
    return table | {ord(c): " " for c in "\t\n\v\f\r "} | {ord(c): {"@": "a", "$": "s"}[c] for c in signs}


_SPACED: Final = _table(" ")
_SIGNED: Final = _table(" ", "@$")
_SQUEEZED: Final = _table(None, "@$")
_QUICK_SPACED, _QUICK_SIGNED, _QUICK_SQUEEZED = (
    {code: c and c.translate(_SWAPS) for code, c in table.items()} for table in (_SPACED, _SIGNED, _SQUEEZED)
)


def plain(text: str) -> str:
    """Return a text in small letters: no accents, nothing invisible, lookalikes as what they look like.

    What it returns is what all other functions here take for `face`. Signs beyond ASCII are dots in it.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _GONE.sub("", text).translate(_PHRASES)).casefold()
    text = "".join([c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)])
    return _ODD_SIGN.sub(".", unicodedata.normalize("NFC", text).translate(_CONFUSABLE))


def _compared(text: str) -> list[str]:
    """Return the words of a parted text with digits read as letters; a number stays a number."""
    words, swapped = text.split(), text.translate(_SWAPS).split()
    return [word if word.isdigit() else other for word, other in zip(words, swapped, strict=True)]


def tokens(text: str) -> tuple[str, ...]:
    """Return a rule's words in the spelling in which `readings` has them."""
    return tuple(_compared(plain(text).translate(_SPACED)))


def readings(face: str) -> list[list[str]]:
    """Return the ways a text can be read, each as its words.

    A sign parts words (`a.cat`), or is put between letters to hide one (`c.a.t`), or is a letter (`c@t`).
    """
    tables = (_SPACED, _SQUEEZED, _SIGNED) if "@" in face or "$" in face else (_SPACED, _SQUEEZED)
    return [_compared(face.translate(table)) for table in tables]


def spelled(face: str) -> list[str]:
    """Return what runs of three single letters or more spell: `d o g` says `dog`."""
    words = face.translate(_SIGNED).split()
    marks = "".join([word if len(word) == 1 else " " for word in words])
    return [run for run in _compared(marks) if len(run) > 2]


def faces(text: str, face: str) -> list[str]:
    """Return the spellings a pattern is tried on: as written, as it looks, with digits as letters."""
    found = [" ".join(text.split())]
    words = face.split()
    if not text.isascii():
        found.append(" ".join(words))
    if _DIGIT.search(face):
        for table in _LEET:
            others = face.translate(table).split()
            # A number stays a number: only what has a letter may have another in disguise.
            pairs = zip(words, others, strict=True)
            found.append(" ".join([other if word.islower() else word for word, other in pairs]))
    return found


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script in which words are not parted by spaces."""
    return _UNSPACED.search(word) is not None


def quick(face: str, words: frozenset[str]) -> bool:
    """Whether a text certainly has none of these words in any reading, and spells out none.

    `words` are keys as `key` makes them. True is certain; False means that `readings` and `spelled` must
    be asked.
    """
    if not face.isascii():
        return False
    spaced = face.translate(_QUICK_SPACED).split()
    if not words.isdisjoint(spaced) or not words.isdisjoint(face.translate(_QUICK_SQUEEZED).split()):
        return False
    if "@" in face or "$" in face:
        spaced = face.translate(_QUICK_SIGNED).split()  # as `spelled` parts it, too
        if not words.isdisjoint(spaced):
            return False
    sizes = [*map(len, spaced)]
    return sizes.count(1) < 3 or "\1\1\1" not in "".join(map(chr, sizes))


def key(word: str) -> str:
    """Return the form in which `quick` knows a word."""
    return word.translate(_SWAPS)
