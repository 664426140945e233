"""Bytes from outside to a value of a type, or every mistake: the one way JSON comes in.

Strict means: UTF-8 without a mark, at most 32 levels, no name twice in an object, no half surrogate
pairs, no NaN, no integer beyond what SQLite, Lua and JavaScript hold exactly, no unknown fields where
the type forbids them. The byte cap is the caller's, who reads the bytes.

A good body is read twice by C code (msgspec for the value, the standard library for doubled names) and
costs some microseconds. Only a bad one is walked in Python, to say all that is wrong with it.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from gateway.shapes import MOST, below, mistakes
from policies.model import EXACT, Flaw

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
DEPTH: Final = 32
EXPLAINED: Final = 5_000
"""Commas and brackets of the largest body whose mistakes are listed. Listing is a thousand times slower
than refusing, and takes the time of every other caller."""
MOST_PARTS: Final = 50_000
"""Commas and brackets of the largest body that is read at all: a prompt may have 32,000 of its own. Those
of a body full of images would take half a minute, in which nobody else is served."""


class Flawed(Struct, frozen=True):
    """What is wrong with a body: at least one flaw, at most a hundred."""

    flaws: tuple[Flaw, ...]


def decode_json(data: bytes, kind: type[T], depth: int = DEPTH) -> T | Flawed:
    """Return the value of a type that JSON bytes spell, or all that keeps them from being one."""
    if len(data) > MOST_PARTS and _parts(data) > MOST_PARTS:
        return Flawed((Flaw("", f"has more than {MOST_PARTS} commas and brackets"),))
    if too_deep(data, depth):
        return Flawed((Flaw("", f"is nested deeper than {depth} levels"),))
    try:
        value: T = _decoder(kind).decode(data)  # type: ignore[arg-type] # a class is hashable
        _FAST.decode(data.decode())
    except (msgspec.DecodeError, ValueError) as error:
        return Flawed(tuple(_explain(data, kind, error)))
    # a pattern's `$` lets a final line break pass
    if b'\\n"' in data or b'\\u000a"' in data or b'\\u000A"' in data:
        flaws = mistakes(json.loads(data), kind)
        return Flawed(tuple(flaws)) if flaws else value
    return value


def read_object(data: bytes, depth: int = DEPTH) -> dict[str, object] | None:
    """Return the object that JSON bytes spell, held to the same rules; None without an explanation.

    For tokens and the like, whose sender is told nothing: listing mistakes costs a hundred times more.
    """
    if too_deep(data, depth):
        return None
    try:
        value = _decoder(object).decode(data)
        _FAST.decode(data.decode())
    except (msgspec.DecodeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


_TEXTS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_OPENS: Final = bytes.maketrans(b"[{]}", b"\1\1\0\0")
_OTHERS: Final = bytes(set(range(256)) - set(b"[{]}"))


def too_deep(data: bytes, depth: int = DEPTH) -> bool:
    """Say whether brackets outside of strings nest deeper than `depth`. Linear, whatever the bytes."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    level = 0
    for opens in _TEXTS.sub(b"", data).translate(_OPENS, _OTHERS):
        level += 1 if opens else -1
        if level > depth:
            return True
    return False


def _parts(data: bytes) -> int:
    """Return how many values bytes may spell at most, by the marks before each."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


@functools.lru_cache(256)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _exact(digits: str) -> int:
    if len(digits) > 17 or not -EXACT <= (number := int(digits)) <= EXACT:
        raise ValueError
    return number


_FAST: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=_exact)


class _Twice(dict[str, object]):
    """An object in which names stand twice; the last one counts, the names are kept."""

    names: tuple[str, ...] = ()


class _Huge(int):
    """A number too large to be exact, cut to where a range check still refuses it."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = _Twice(pairs)
    if len(found) == len(pairs):
        return dict(found)
    counts = Counter(name for name, _ in pairs)
    found.names = tuple(name for name, count in counts.items() if count > 1)
    return found


def _whole(digits: str) -> int:
    try:
        return _exact(digits)
    except ValueError:
        return _Huge(-EXACT - 1 if digits.startswith("-") else EXACT + 1)


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


_SLOW: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_whole, parse_constant=_constant)


def _explain(data: bytes, kind: type[Any], error: Exception) -> list[Flaw]:
    """Return all mistakes of a body that was refused: at least one, places unique."""
    if _parts(data) > EXPLAINED:
        return [Flaw("", f"has too many parts to list its mistakes; the first: {_first_line(error)}")]
    try:
        value = _SLOW.decode(data.decode())
    except UnicodeDecodeError as fault:
        return [Flaw("", f"is not UTF-8 (byte {fault.start})")]
    except json.JSONDecodeError as fault:
        what = "is empty" if not data.strip() else f"is not JSON: {fault.msg}"
        return [Flaw("", f"{what} (line {fault.lineno}, column {fault.colno})")]
    except ValueError as fault:
        return [Flaw("", f"is not JSON: {fault}")]
    found = {flaw.pointer: flaw for flaw in _unsound(value, "")}
    found |= {flaw.pointer: flaw for flaw in mistakes(value, kind)}
    return list(found.values())[:MOST] or [Flaw("", f"cannot be read: {_first_line(error)}")]


def _unsound(value: object, at: str) -> Iterator[Flaw]:
    """Yield what JSON allows and we do not, wherever it stands."""
    if isinstance(value, _Twice):
        for name in value.names:
            yield Flaw(below(at, name), "stands twice")
    if isinstance(value, dict):
        for name, member in value.items():
            if _half(name):
                yield Flaw(below(at, name), "holds half a surrogate pair")
            yield from _unsound(member, below(at, name))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            yield from _unsound(member, below(at, place))
    elif isinstance(value, str) and _half(value):
        yield Flaw(at, "holds half a surrogate pair")
    elif isinstance(value, _Huge) or value in (float("inf"), float("-inf")):
        yield Flaw(at, f"must be between -{EXACT} and {EXACT}")


def _half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
