"""YAML as we read it: what words mean, what is refused, and where things are said to stand."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.documents import MAX_BYTES, Mistake, Place, dotted, plain, read
from policies.model import Flaw


def told(text: str | bytes) -> list[str]:
    """Return a document's mistakes as lines."""
    data = text.encode() if isinstance(text, str) else text
    return [str(mistake) for mistake in read(data, "s.yaml").mistakes]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("True", "True"),
        ("0", 0),
        ("-12", -12),
        ("012", "012"),
        ("0o17", "0o17"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1.5", 1.5),
        ("-1.5e3", -1500.0),
        ("1.", "1."),
        (".inf", ".inf"),
        ("9" * 30, "9" * 30),
    ],
)
def test_plain_words_mean_little(word: str, value: object) -> None:
    """Only decimal numbers, true, false and null are more than text."""
    assert plain(word) == value
    assert type(plain(word)) is type(value)
    assert read(f"a: {word}".encode(), "s.yaml").value == {"a": value}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a:\n\tb: 1", ["s.yaml:2:1: a tab in the indentation: YAML indents by spaces"]),
        ("a: 1\n \tb: 2\nc: 3", ["s.yaml:2:2: a tab in the indentation: YAML indents by spaces"]),
        ("a: 1\na: 2", ["s.yaml:2:1: a: stands twice, first in line 1"]),
        ("b: {c: 1, c: 2, c: 3}", [f"s.yaml:1:{n}: b.c: stands twice, first in line 1" for n in (11, 17)]),
        ("x: &a [1]", ["s.yaml:1:4: x: anchors and aliases are not read: write the value out"]),
        ("x: *a", ["s.yaml:1:4: x: anchors and aliases are not read: write the value out"]),
        ("<<: {a: 1}", ["s.yaml:1:1: merge keys are not read: write the values out"]),
        ("x: !!python/name:os.system ''", ["s.yaml:1:4: x: tags are not read: write the value plainly"]),
        ("x: !env [A]", ["s.yaml:1:4: x: tags are not read: write the value plainly"]),
        ("a: 1\n---\nb: 2", ["s.yaml:2:1: a second document: one file holds one"]),
        ("x:\n  1: a", ['s.yaml:2:3: x: a name must be text: write "1" in quotes']),
        ("true: a", ['s.yaml:1:1: a name must be text: write "true" in quotes']),
        ("? [a]\n: b", ["s.yaml:1:3: a name must be text"]),
        ('a: "\\ud800"', ["s.yaml:1:4: a: holds half a surrogate pair"]),
        ('"\\ud800": 1', ["s.yaml:1:1: holds half a surrogate pair"]),
        ("a: \x01", ["s.yaml:1:4: a character that may not stand in YAML"]),
        ("a: 1\nb: [1, 2", ["s.yaml:2:9: is not YAML: expected ',' or ']', but got '<stream end>'"]),
        ("a: b: c", ["s.yaml:1:5: is not YAML: mapping values are not allowed here"]),
        ("a: @b", ["s.yaml:1:4: is not YAML: found character '@' that cannot start any token"]),
        (b"a: 1\nb: \xff", ["s.yaml:2:1: is not UTF-8"]),
        ("[" * 100_000, ["s.yaml:1:34: is nested deeper than 32 levels"]),
        ("a: " + "x" * MAX_BYTES, ["s.yaml: is larger than 1024 kB"]),
    ],
)
def test_what_is_refused_says_where(text: str | bytes, lines: list[str]) -> None:
    """Each construct that is not read is named with its line and column."""
    assert told(text) == lines


def test_mistakes_are_gathered_until_syntax_ends() -> None:
    """All mistakes before a syntax error are told with it."""
    assert len(told("a: 1\na: 2\nb: !x 1\nc: [")) == 3


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n...\n", "null"])
def test_empty_file_is_an_empty_object(text: str) -> None:
    """A file that says nothing sets nothing."""
    assert read(text.encode(), "s.yaml").value == {}
    assert told(text) == []


def test_block_texts_may_hold_tabs() -> None:
    """A tab is a mistake only where it breaks the structure."""
    assert read(b"a: |\n  x\n  \ty\nb: 1\n", "s.yaml").value == {"a": "x\n\ty\n", "b": 1}


def test_first_of_twins_counts() -> None:
    """Of two members of one name the first keeps its value and its place."""
    document = read(b"a: 1\na: {b: 2}\n", "s.yaml")
    assert document.value == {"a": 1}
    assert document.place("/a") == Place("s.yaml", 1, 1)


def test_places_name_lines_and_columns() -> None:
    """A member stands where its name does, an item where it begins, counted from one."""
    document = read("\ufeffa: 1\r\nb:\n  - x\n  - ü: {d: 1}\n".encode(), "s.yaml")
    assert document.place("/a") == Place("s.yaml", 1, 1)
    assert document.place("/b/0") == Place("s.yaml", 3, 5)
    assert document.place("/b/1/ü/d") == Place("s.yaml", 4, 9)
    assert document.place("/b/1/missing/deeper") == document.place("/b/1") == Place("s.yaml", 4, 5)


def test_mistakes_read_like_a_compiler() -> None:
    """A mistake is one line: file, line, column, dotted name, sentence."""
    document = read(b"providers:\n  main: {kidn: openai}\n", "safelight.yaml")
    mistake = document.mistake(Flaw("/providers/main/kidn", "unknown key"))
    assert str(mistake) == "safelight.yaml:2:10: providers.main.kidn: unknown key"
    assert str(Mistake(Place("NAME"), "server.port", "is wrong")) == "NAME: server.port: is wrong"
    assert dotted("/auth/issuers/0/a~1b~0c") == "auth.issuers[0].a/b~c"


def test_mistakes_sort_by_place() -> None:
    """Line 9 comes before line 10."""
    late, early = (Mistake(Place("s", line), "", "x") for line in (10, 9))
    assert sorted([late, early]) == [early, late]


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x7f\x85\u2028\u2029\ufeff"), max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(value=st.dictionaries(_NAMES.filter(lambda name: name != "<<"), _VALUES))
def test_json_is_read_as_it_is(value: dict[str, object]) -> None:
    """JSON text means the same here as anywhere."""
    document = read(json.dumps(value).encode(), "s.json")
    if not any("merge keys" in mistake.sentence for mistake in document.mistakes):
        assert (document.value, document.mistakes) == (value, ())


@given(text=st.text(max_size=80) | st.text("a:-[]{}#&*!|>'\"%@`?,\t\n 1", max_size=40))
def test_any_text_gives_a_document(text: str) -> None:
    """Whatever a file holds, reading it raises nothing, and no value comes without a mistake or a meaning."""
    document = read(text.encode("utf-8", "replace"), "s.yaml")
    assert document.value is not None or document.mistakes


@given(data=st.binary(max_size=60))
def test_any_bytes_give_a_document(data: bytes) -> None:
    """Bytes that are no text are told, not raised."""
    document = read(data, "s.yaml")
    assert document.value is not None or document.mistakes


def test_no_object_is_ever_constructed() -> None:
    """What PyYAML's full loader would run is a tag like any other."""
    text = "a: !!python/object/apply:os.getcwd []"
    assert yaml.load(text, yaml.UnsafeLoader)["a"]
    assert read(text.encode(), "s.yaml").value == {"a": []}
