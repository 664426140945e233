"""YAML text to plain values, each with its place: the only room that knows PyYAML.

The dialect is small on purpose: one document, no anchors, aliases, merge keys or tags (they make a
short file huge, and a reader search), names are text and stand once. Plain words mean what YAML 1.2's
JSON-like core says and nothing more: `true`, `false`, `null`, decimal numbers; `yes`, `012`, `12:30`
and dates are texts. Built from parser events, so that nothing is constructed before it is judged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import yaml
from msgspec import Struct

from gateway.shapes import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.model import Flaw

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32


class Place(Struct, frozen=True, order=True):
    """Where something stands. Lines and columns count from 1; 0 means the source has none."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Mistake(Struct, frozen=True, order=True):
    """One mistake of the operator: where, which setting (dotted, may be empty), and what is wrong."""

    place: Place
    name: str
    sentence: str

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.name}: {self.sentence}" if self.name else f"{self.place}: {self.sentence}"
        )


class Document(Struct, frozen=True):
    """One file's value, the places of all its members by JSON pointer, and what could not be read.

    A member's place is that of its name, an item's that of the item. The value of a document with
    mistakes is what could be read; after a syntax error it is None.
    """

    source: str
    value: object
    places: dict[str, Place]
    mistakes: tuple[Mistake, ...] = ()

    def place(self, pointer: str) -> Place:
        """Return the place of a member, or of the nearest thing around it that stands in the file."""
        return place_in(self.places, pointer) or Place(self.source)

    def mistake(self, flaw: Flaw) -> Mistake:
        """Return a flaw of the value as a mistake of the file."""
        return Mistake(self.place(flaw.pointer), dotted(flaw.pointer), flaw.detail)


def place_in(places: Mapping[str, Place], pointer: str) -> Place | None:
    """Return the place of the longest known beginning of a pointer."""
    while pointer not in places and pointer:
        pointer = pointer.rpartition("/")[0]
    return places.get(pointer)


def dotted(pointer: str) -> str:
    """Return a JSON pointer as people write it: `auth.issuers[0].audience`."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    return "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps).lstrip(".")


def why(error: OSError) -> str:
    """Return the reason a file cannot be used, in the system's words."""
    return (error.strerror or type(error).__name__).lower()


def read(data: bytes, source: str) -> Document:
    """Return what YAML bytes say. Never raises; an empty file is an empty object."""
    if len(data) > MAX_BYTES:
        return _unreadable(Place(source), f"is larger than {MAX_BYTES // 1024} kB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unreadable(Place(source, data.count(b"\n", 0, error.start) + 1, 1), "is not UTF-8")
    try:
        reader = _Reader(yaml.parse(text, Loader=yaml.SafeLoader), source)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return _unreadable(place, "a character that may not stand in YAML")
    try:
        value = reader.document()
    except yaml.MarkedYAMLError as error:
        place, sentence = _syntax(error, text, source)
        return Document(source, None, {}, (*reader.mistakes, Mistake(place, "", sentence)))
    except _TooDeep:
        return Document(source, None, {}, tuple(reader.mistakes))
    return Document(source, value, reader.places, tuple(reader.mistakes))


def plain(text: str) -> object:
    """Return what an unquoted word means: a number, a truth value, null, or itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


_WORDS: Final[dict[str, object]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][-+]?[0-9]{1,2})?")


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class _TooDeep(Exception):  # noqa: N818 - says where reading stops; the mistake is already noted
    """Reading stops here."""


class _Reader:
    """Turns events into one value, its places, and the mistakes met on the way."""

    def __init__(self, events: Iterator[yaml.Event], source: str) -> None:
        self.places: dict[str, Place] = {}
        self.mistakes: list[Mistake] = []
        self._source = source
        self._events = events
        next(events)  # the stream's start; the first bytes are decoded and judged here

    def document(self) -> object:
        """Return the one document of the stream."""
        value: object = {}
        while not isinstance(event := next(self._events), yaml.StreamEndEvent):
            if isinstance(event, yaml.NodeEvent):
                value = self._node(event, "", 0)
            elif isinstance(event, yaml.DocumentStartEvent) and self.places:
                self._say(event, "", "a second document: one file holds one")
                break
        return {} if value is None else value

    def _say(self, event: yaml.Event, pointer: str, sentence: str) -> None:
        self.mistakes.append(Mistake(self._at(event), dotted(pointer.removesuffix("/?")), sentence))

    def _at(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._source, mark.line + 1, mark.column + 1) if mark else Place(self._source)

    def _node(self, event: yaml.Event, pointer: str, depth: int) -> object:
        """Return the value that begins with an event. The first thing at a pointer gives its place."""
        self.places.setdefault(pointer, self._at(event))
        if depth > MAX_DEPTH:
            self._say(event, "", f"is nested deeper than {MAX_DEPTH} levels")
            raise _TooDeep
        if getattr(event, "anchor", None) is not None:
            self._say(event, pointer, "anchors and aliases are not read: write the value out")
        if getattr(event, "tag", None) is not None:
            self._say(event, pointer, "tags are not read: write the value plainly")
        match event:
            case yaml.MappingStartEvent():
                return self._object(pointer, depth)
            case yaml.SequenceStartEvent():
                return self._list(pointer, depth)
            case yaml.ScalarEvent():
                return self._scalar(event, pointer)
        return None

    def _scalar(self, event: yaml.ScalarEvent, pointer: str) -> object:
        text = event.value
        if _SURROGATE.search(text):  # as JSON writes what lies beyond U+FFFF; PyYAML leaves the pair in two
            try:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._say(event, pointer, "holds half a surrogate pair")
                text = ""
        return plain(text) if event.implicit[0] else text

    def _list(self, pointer: str, depth: int) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, below(pointer, len(items)), depth + 1))
        return items

    def _object(self, pointer: str, depth: int) -> dict[str, object]:
        members: dict[str, object] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = self._at(event).line
            written = self._node(event, below(pointer, "?"), depth + 1)
            name = self._name(event, written, pointer, lines)
            where = below(pointer, "?" if name is None else name)
            self.places.setdefault(where, self._at(event))
            value = self._node(next(self._events), where, depth + 1)
            if name is not None:
                members[name] = value
                lines[name] = line
        return members

    def _name(self, event: yaml.Event, written: object, pointer: str, lines: Mapping[str, int]) -> str | None:
        """Return an object's next name, or None for one that cannot stand."""
        if not isinstance(written, str):
            raw = getattr(event, "value", None)
            cure = f': write "{raw}" in quotes' if raw else ""
            self._say(event, pointer, f"a name must be text{cure}")
        elif written == "<<":
            self._say(event, pointer, "merge keys are not read: write the values out")
        elif written in lines:
            self._say(event, below(pointer, written), f"stands twice, first in line {lines[written]}")
        else:
            return written
        return None


def _unreadable(place: Place, sentence: str) -> Document:
    return Document(place.source, None, {}, (Mistake(place, "", sentence),))


def _syntax(error: yaml.MarkedYAMLError, text: str, source: str) -> tuple[Place, str]:
    """Return where YAML stops to make sense, and why; a tab is named wherever it is the likely cause."""
    last = error.problem_mark or error.context_mark
    if last is None:
        return Place(source), "is not YAML"
    first = error.context_mark or last
    lines = re.split("\r\n|\r|\n", text)
    for number in range(first.line, min(last.line + 1, len(lines))):
        if found := re.match(" *\t", lines[number]):
            return Place(source, number + 1, found.end()), "a tab in the indentation: YAML indents by spaces"
    return Place(source, last.line + 1, last.column + 1), f"is not YAML: {error.problem or error.context}"
