"""Mistakes of a body as Zod words them: gptimage2.plus promises "a Zod validation message" with its 400.

Checks over plain JSON values that append an `Issue` and go on, so that a caller is told all of them. The
sentences are Zod 3's, which the seed's clients were written against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct

Path = tuple[str | int, ...]
Code = Literal["invalid_type", "too_small", "too_big", "invalid_enum_value", "invalid_string", "custom"]


class Issue(Struct, frozen=True):
    """One mistake: where, and what."""

    path: Path
    message: str
    code: Code


_TYPES: Final = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def sentence(issues: Sequence[Issue]) -> str:
    """Return all issues as one text."""
    return "Invalid body: " + "; ".join(
        f"{'.'.join(map(str, issue.path))}: {issue.message}" if issue.path else issue.message
        for issue in issues
    )


class Body:
    """A JSON object on its way to values. `issues` gathers what is wrong with it."""

    def __init__(self, value: dict[str, object]) -> None:
        self._value = value
        self.issues: list[Issue] = []

    def others(self, *known: str) -> list[str]:
        """Return the names that were not asked for."""
        return [name for name in self._value if name not in known]

    def issue(self, name: str, message: str, code: Code = "custom") -> None:
        """Note a mistake at a field."""
        self.issues.append(Issue((name,), message, code))

    def text(
        self, name: str, most: int, *, default: str | None = None, size: Callable[[str], int] = len
    ) -> str:
        """Return a text of 1 to `most` code points, as `size` counts; required unless there is a default."""
        value = self._typed(name, "string", required=default is None)
        if not isinstance(value, str):
            return default or ""
        if not value.strip() and default is None:
            self.issue(name, "String must contain at least 1 character(s)", "too_small")
        elif size(value) > most:
            self.issue(name, f"String must contain at most {most} character(s)", "too_big")
        return value

    def choice(self, name: str, values: Sequence[str], default: str | None = None) -> str:
        """Return one of a few words; required unless there is a default."""
        value = self._typed(name, "string", required=default is None)
        if not isinstance(value, str):
            return default or values[0]
        if value not in values:
            expected = " | ".join(f"'{word}'" for word in values)
            self.issue(
                name,
                f"Invalid enum value. Expected {expected}, received '{value[:64]}'",
                "invalid_enum_value",
            )
            return values[0]
        return value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number within bounds; required unless there is a default."""
        value = self._typed(name, "number", required=default is None)
        if not isinstance(value, (int, float)):
            return default if default is not None else least
        if not float(value).is_integer():
            self.issue(name, "Expected integer, received float", "invalid_type")
            return least
        if value < least:
            self.issue(name, f"Number must be greater than or equal to {least}", "too_small")
        elif value > most:
            self.issue(name, f"Number must be less than or equal to {most}", "too_big")
        return int(value)

    def flag(self, name: str) -> bool | None:
        """Return a boolean, None where it is absent."""
        value = self._typed(name, "boolean", required=False)
        return value if isinstance(value, bool) else None

    def has(self, name: str) -> bool:
        """Say whether a field was sent."""
        return name in self._value

    def texts(self, name: str, most: int, longest: int) -> tuple[str, ...]:
        """Return a list of at most so many texts; an absent one is empty."""
        value = self._typed(name, "array", required=False)
        if not isinstance(value, list):
            return ()
        if len(value) > most:
            self.issue(name, f"Array must contain at most {most} element(s)", "too_big")
        found = []
        for at, each in enumerate(value[:most]):
            if not isinstance(each, str):
                kind = _TYPES.get(type(each), "unknown")
                self.issues.append(Issue((name, at), f"Expected string, received {kind}", "invalid_type"))
            elif not 0 < len(each) <= longest:
                self.issues.append(
                    Issue((name, at), f"String must contain 1 to {longest} character(s)", "invalid_string")
                )
            else:
                found.append(each)
        return tuple(found)

    def _typed(self, name: str, kind: str, *, required: bool) -> object:
        """Return a field of a type; None, with an issue where one is due, for anything else."""
        if name not in self._value:
            if required:
                self.issue(name, "Required", "invalid_type")
            return None
        value = self._value[name]
        received = _TYPES.get(type(value), "unknown")
        if received != kind:
            self.issue(name, f"Expected {kind}, received {received}", "invalid_type")
            return None
        return value
