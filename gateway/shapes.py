"""Plain values held against a type: every mistake at once, each with its place.

msgspec stops at the first mistake it meets, which is right for speed and wrong for people. This file
is asked only after msgspec has refused, or where a person wrote the values (settings, policies), so it
may be slow. It reads the same types (`msgspec.inspect`) and lists what does not fit, with a JSON
pointer (RFC 6901) and a sentence. It decodes nothing, and no sentence repeats a value: it may be secret.
"""

from __future__ import annotations

import builtins
import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

from policies.model import Flaw

if TYPE_CHECKING:
    from collections.abc import Iterable

Check = Callable[[str], str | None]
"""Says what is wrong with a text, or None. A type carries one in `Meta(extra={"check": check})`."""

MOST: Final = 100
"""As many mistakes are listed; a list nobody reads to its end helps nobody."""
LONGEST_NAME: Final = 64
UNKNOWN: Final = "unknown key"

_Texts = inspect.StrType
_Lists = inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType


def mistakes(value: object, kind: object, custom: Mapping[type, Check] | None = None) -> list[Flaw]:
    """Return what keeps a plain value (dict, list, str, int, float, bool, None) from being a `kind`.

    Empty when it fits. At most `MOST`. `custom` judges the texts that stand for types of our own, which
    msgspec builds through a hook. Raises `TypeError` for a type that has no plain form known here.
    """
    walk = _Walk(custom or {})
    walk.visit(value, shape_of(kind), "")
    return walk.flaws[:MOST]


@functools.lru_cache(256)
def shape_of(kind: Any) -> inspect.Type:
    """Return msgspec's description of a type."""
    return inspect.type_info(kind)


def below(pointer: str, key: str | int) -> str:
    """Return the pointer of a member. An overlong key is cut, an unprintable one escaped."""
    text = str(key)
    if len(text) > LONGEST_NAME:
        text = text[:LONGEST_NAME] + "…"
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `, did you mean "…"?` for the word most alike, or nothing where none is."""
    found = difflib.get_close_matches(word[:LONGEST_NAME], list(words), 1, 0.6)
    return f', did you mean "{found[0]}"?' if found else ""


def listed(words: Iterable[object]) -> str:
    """Return words quoted and separated by commas."""
    return ", ".join(f'"{word}"' if isinstance(word, str) else str(word) for word in words)


class _Walk:
    """One pass over one value. Stops looking once `MOST` mistakes are known."""

    def __init__(self, custom: Mapping[type, Check]) -> None:
        self.flaws: list[Flaw] = []
        self._custom = custom

    def say(self, at: str, sentence: str | None) -> None:
        if sentence is not None and len(self.flaws) < MOST:
            self.flaws.append(Flaw(at, sentence))

    def visit(self, value: object, shape: inspect.Type, at: str) -> None:
        match shape:
            case inspect.Metadata():
                self._checked(value, shape, at)
            case inspect.UnionType():
                self._union(value, shape, at)
            case inspect.StructType() if not _fits(value, shape):
                self.say(at, _not(shape, value))
            case inspect.StructType():
                self._struct(_mapping(value), shape, at)
            case inspect.DictType() if _fits(value, shape):
                self._dict(_mapping(value), shape, at)
            case (
                inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType()
            ) if isinstance(value, list | tuple):
                self._list(value, shape, at)
            case inspect.CustomType() if isinstance(value, str) and shape.cls in self._custom:
                self.say(at, self._custom[shape.cls](value))
            case _:
                self.say(at, _leaf(value, shape))

    def _checked(self, value: object, shape: inspect.Metadata, at: str) -> None:
        known = len(self.flaws)
        self.visit(value, shape.type, at)
        check: Check | None = (shape.extra or {}).get("check")
        if check is not None and isinstance(value, str) and len(self.flaws) == known:
            self.say(at, check(value))

    def _union(self, value: object, shape: inspect.UnionType, at: str) -> None:
        for member in shape.types:
            if _fits(value, member):
                self.visit(value, member, at)
                return
        self.say(at, _not(shape, value))

    def _struct(self, value: Mapping[str, object], shape: inspect.StructType, at: str) -> None:
        fields = {field.encode_name: field for field in shape.fields}
        free = [name for name in fields if name not in value]
        for key in value:
            if len(self.flaws) >= MOST:
                return
            if key in fields:
                self.visit(value[key], fields[key].type, below(at, key))
            elif shape.forbid_unknown_fields:
                self.say(below(at, key), UNKNOWN + nearest(key, free))
        for name, field in fields.items():
            if field.required and name not in value:
                self.say(below(at, name), "is required")

    def _dict(self, value: Mapping[str, object], shape: inspect.DictType, at: str) -> None:
        self.say(at, _size(len(value), shape.min_length, shape.max_length, "entry", "entries"))
        for key, member in value.items():
            wrong = _leaf(key, shape.key_type)
            self.say(below(at, key), wrong and f"as a name {wrong}")
            self.visit(member, shape.value_type, below(at, key))

    def _list(self, value: Sequence[object], shape: _Lists, at: str) -> None:
        self.say(at, _size(len(value), shape.min_length, shape.max_length, "item", "items"))
        for place, member in enumerate(value):
            self.visit(member, shape.item_type, below(at, place))


def _leaf(value: object, shape: inspect.Type) -> str | None:
    if not _fits(value, shape):
        return _not(shape, value)
    match shape:
        case inspect.StrType():
            return _text(str(value), shape)
        case inspect.IntType() | inspect.FloatType() if isinstance(value, int | float):
            return _number(value, shape)
        case inspect.LiteralType() if value not in shape.values:
            return _choice(value, shape.values)
        case inspect.EnumType() if value not in (values := [member.value for member in shape.cls]):
            return _choice(value, values)
        case inspect.Metadata():
            return _leaf(value, shape.type)
    return None


def _text(value: str, shape: _Texts) -> str | None:
    if wrong := _size(len(value), shape.min_length, shape.max_length, "character", "characters"):
        return wrong
    if shape.pattern is None:
        return None
    # `$` alone lets a final line break pass.
    good = re.search(shape.pattern, value) is not None and not value.endswith("\n")
    return None if good else f"must have the form {shape.pattern}"


def _number(value: float, shape: inspect.IntType | inspect.FloatType) -> str | None:
    low, high = shape.ge, shape.le
    if low is not None and high is not None and not low <= value <= high:
        return f"must be between {low} and {high}"
    if low is not None and value < low:
        return f"must be at least {low}"
    if high is not None and value > high:
        return f"must be at most {high}"
    return None


def _choice(value: object, values: Sequence[object]) -> str:
    near = nearest(value, [v for v in values if isinstance(v, str)]) if isinstance(value, str) else ""
    return f"must be one of {listed(values)}{near}"


def _size(size: int, least: int | None, most: int | None, one: str, many: str) -> str | None:
    if least is not None and size < least:
        return "must not be empty" if least == 1 else f"must have at least {least} {many}"
    if most is not None and size > most:
        return f"must have at most {most} {one if most == 1 else many}"
    return None


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)  # noqa: S101 - `_fits` said so, for mypy
    return value


_FORMS: Final[tuple[tuple[tuple[type, ...], tuple[type, ...], str], ...]] = (
    ((inspect.StrType, inspect.CustomType), (str,), "text"),
    ((inspect.BoolType,), (bool,), "true or false"),
    ((inspect.IntType,), (int,), "a whole number"),
    ((inspect.FloatType,), (float, int), "a number"),
    ((inspect.NoneType,), (type(None),), "null"),
    (
        (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType),
        (list, tuple),
        "a list",
    ),
    ((inspect.StructType, inspect.DictType), (dict,), "an object"),
)


def _form(shape: inspect.Type) -> tuple[tuple[type, ...], str]:
    """Return the plain types a shape is written in, and their word."""
    match shape:
        case inspect.Metadata():
            return _form(shape.type)
        case inspect.AnyType() | inspect.CustomType(cls=builtins.object):
            return (object,), "anything"
        case inspect.LiteralType():
            return tuple({type(value) for value in shape.values}), f"one of {listed(shape.values)}"
        case inspect.EnumType():
            return (str, int), f"one of {listed(member.value for member in shape.cls)}"
        case inspect.UnionType():
            forms = [_form(member) for member in shape.types]
            return tuple(t for types, _ in forms for t in types), " or ".join(word for _, word in forms)
    for kinds, types, word in _FORMS:
        if isinstance(shape, kinds):
            return types, word
    raise TypeError(f"no plain form of {type(shape).__name__} is known")


def _fits(value: object, shape: inspect.Type) -> bool:
    types, _ = _form(shape)
    if isinstance(value, bool):  # Python's bool is an int, JSON's and YAML's are not
        return bool in types or object in types
    return isinstance(value, types)


def _not(shape: inspect.Type, value: object) -> str:
    return f"must be {_form(shape)[1]}, not {_word(value)}"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float):
        return "a decimal number"
    for _, types, word in _FORMS:
        if isinstance(value, types):
            return word
    return "that"
