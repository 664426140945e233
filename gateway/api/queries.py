"""Query parameters, read strictly: every mistake is listed, unknown names with the likeliest one meant.

A `Query` collects flaws as its values are asked for; `close` raises them all together. Cursors are
sealed: a client can neither make one nor move one to another list or tenant. No route is known here.
"""

from __future__ import annotations

import base64
import datetime
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from gateway.errors import Problem
from gateway.shapes import listed, nearest
from policies.model import EXACT, Flaw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.secrets import Keyring

LIMIT: Final = 20
MOST: Final = 100
MOST_FIELDS: Final = 200
LONGEST_WAIT: Final = 86_400
METADATA: Final = "metadata."

_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_WHOLE: Final = re.compile(r"[0-9]{1,16}")
_SECONDS: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLI: Final = datetime.timedelta(milliseconds=1)
_NUMBER: Final = 10
"""Bytes of a place: with the 32 of the seal they fill 56 characters, and no bit is left to spell twice."""
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{56}")


class Query:
    """The parameters of one request. Asking for a value returns it, or None and notes why."""

    def __init__(self, scope: Any, names: Sequence[str] = (), *, metadata: bool = False) -> None:
        self.flaws: list[Flaw] = []
        self._values: dict[str, list[str]] = {}
        raw: bytes = scope["query_string"]
        if not raw:
            return
        try:
            pairs = parse_qsl(
                raw.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
            )
        except ValueError:
            self.flaws.append(Flaw("/query", f"is not UTF-8, or has more than {MOST_FIELDS} parameters"))
            return
        for name, value in pairs:
            if name in names or (metadata and name.startswith(METADATA) and len(name) > len(METADATA)):
                self._values.setdefault(name, []).append(value)
            else:
                self.refuse(name, f"unknown parameter{nearest(name, names)}")

    def refuse(self, name: str, detail: str) -> None:
        """Note a mistake of one parameter."""
        flaw = Flaw(f"/query/{_pointed(name)}", detail)
        if flaw not in self.flaws:
            self.flaws.append(flaw)

    def close(self) -> None:
        """Raise `Problem` with every mistake that was noted."""
        if self.flaws:
            raise Problem("invalid_request", flaws=tuple(self.flaws[:MOST]))

    def many(self, name: str) -> tuple[str, ...]:
        """Return all values of a parameter that may stand more than once."""
        return tuple(self._values.get(name, ()))

    def one(self, name: str) -> str | None:
        """Return the value of a parameter that stands once."""
        values = self._values.get(name)
        if values is not None and len(values) > 1:
            self.refuse(name, "stands more than once")
        return values[0] if values else None

    def among(self, name: str, words: Iterable[str]) -> frozenset[str]:
        """Return the values of a repeatable parameter, each one of these words."""
        known = tuple(words)
        for value in self.many(name):
            if value not in known:
                self.refuse(name, f"must be one of {listed(known)}{nearest(value, known)}")
        return frozenset(self.many(name))

    def word(self, name: str, words: Iterable[str]) -> str | None:
        """Return the value of a parameter that is one of these words."""
        self.among(name, words)
        return self.one(name)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number within bounds."""
        text = self.one(name)
        if text is None:
            return None
        number = int(text) if _WHOLE.fullmatch(text) else -1
        if not low <= number <= high:
            self.refuse(name, f"must be a whole number between {low} and {high}")
            return None
        return number

    def seconds(self, name: str) -> float | None:
        """Return a length of time in seconds, with at most three decimals."""
        text = self.one(name)
        if text is None:
            return None
        if not _SECONDS.fullmatch(text) or float(text) > LONGEST_WAIT:
            self.refuse(name, f"must be a number of seconds between 0 and {LONGEST_WAIT}")
            return None
        return float(text)

    def instant(self, name: str) -> int | None:
        """Return a time (RFC 3339) in milliseconds since 1970."""
        text = self.one(name)
        if text is None:
            return None
        millis = instant_of(text)
        if millis is None:
            self.refuse(name, "must be a time such as 2026-11-20T09:30:00Z (a `+` is sent as %2B)")
        return millis

    def metadata(self) -> dict[str, str]:
        """Return the `metadata.KEY` parameters by their keys."""
        found = {name[len(METADATA) :]: self.one(name) for name in self._values if name.startswith(METADATA)}
        return {key: value for key, value in found.items() if value is not None}

    def page(self, cursors: Cursors, *scope: str) -> tuple[int | None, int]:
        """Return where a list goes on (None: at its begin) and how many it may have."""
        limit = self.whole("limit", 1, MOST)
        text = self.one("cursor")
        before = None if text is None else cursors.open(text, *scope)
        if text is not None and before is None:
            self.refuse("cursor", "is not a cursor of this list")
        return before, limit if limit is not None else LIMIT


def _pointed(name: str) -> str:
    text = name[:64].encode("ascii", "backslashreplace").decode()
    return text.replace("~", "~0").replace("/", "~1")


def instant_of(text: str) -> int | None:
    """Return a time of RFC 3339 in milliseconds since 1970, or None where it is none."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        millis = (datetime.datetime.fromisoformat(text) - _EPOCH) // _MILLI
    except (ValueError, OverflowError):
        return None
    return millis if 0 <= millis <= EXACT else None


class Cursors:
    """Makes and opens the opaque places at which lists go on: a number under a seal.

    The seal covers which list it is and whose, so a cursor opens nothing but where it was made.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def make(self, before: int, *scope: str) -> str:
        """Return the cursor of a place in a list."""
        number = before.to_bytes(_NUMBER)
        return base64.urlsafe_b64encode(
            number + self._keyring.sign("cursors", _sealed(number, scope))
        ).decode()

    def open(self, text: str, *scope: str) -> int | None:
        """Return the place a cursor names, or None for whatever was not made for this list."""
        if not _CURSOR.fullmatch(text):
            return None
        data = base64.urlsafe_b64decode(text)
        number, seal = data[:_NUMBER], data[_NUMBER:]
        if not self._keyring.verify("cursors", _sealed(number, scope), seal):
            return None
        return int.from_bytes(number)


def _sealed(number: bytes, scope: Sequence[str]) -> bytes:
    return number + "\0".join(scope).encode()
