"""Patterns: which regular expressions may run on what strangers write.

Python's engine tries one reading of a text after another, so a pattern with many readings of the same
text can stop the process. A pattern is unrolled into its positions (Glushkov's automaton) and refused
where one text has many ways through them: exponentially many (a loop that can be gone around in two
ways, Weber and Seidl 1991, EDA) or more than `WAYS` (loops after each other that take the same text,
IDA). The parse tree is the standard library's own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import product
from typing import Any, Final

from msgspec import Struct

_parser: Any = re._parser  # type: ignore[attr-defined] # noqa: SLF001 - the only parser that reads what `re` does
_compiler: Any = re._compiler  # type: ignore[attr-defined] # noqa: SLF001

WAYS: Final = 10_000
"""The most readings of one text from one start; `.{0,80}x.{0,80}` has 6,561."""
UNBOUNDED: Final = 1_000
"""What a repeat without a bound counts for."""
UNROLLED: Final = 3
"""A repeat of at most so many rounds is written out; more are a loop."""
POSITIONS: Final = 600
STEPS: Final = 2_000_000
"""How far a pattern is looked into: about half a second."""

_COMPLEX: Final = (
    "can be read in more than one way each round, as `(a+)+` can: time doubles with every letter"
)
_OVERLAP: Final = "has repeats that take the same text, as `.*.*` has: bound them, as in `.{0,40}`"


class _Unsafe(Exception):  # noqa: N818 - ends the walk through a tree, and never leaves this file
    """Why, in words that follow "the pattern"."""


class _Part(Struct):
    """A piece of the automaton: where it begins and ends, and whether it may be nothing."""

    first: list[int]
    last: list[int]
    empty: bool


class _Automaton:
    """A pattern's positions: the letters each takes, as bits of an alphabet, and what may follow it."""

    def __init__(self, tree: Any, pattern: str) -> None:
        self.takes: list[int] = []
        self.follow: list[set[int]] = []
        self.weight: list[int] = []
        self._steps = STEPS
        self._state = tree.state
        self._masks: dict[str, int] = {}
        letters = {chr(i) for i in range(128)} | set(pattern) | set("é€ǆ中٣\u00a0\u2003😀\x85")
        self._alphabet = sorted(letters | {c.swapcase() for c in letters if len(c.swapcase()) == 1})
        self.whole = self.sequence(tree)

    def walk(self, *follows: set[int]) -> Iterator[tuple[int, ...]]:
        """Yield where walkers can go together, each in its own choice of places, by the same letter."""
        for after in product(*follows):
            self._steps -= 1
            if self._steps < 0:
                raise _Unsafe("is too intricate to be judged: split it")
            shared = self.takes[after[0]]
            for i in after[1:]:
                shared &= self.takes[i]
            if shared:
                yield after

    def sequence(self, nodes: Any) -> _Part:
        """Join pieces one after another."""
        part = _Part([], [], empty=True)
        for op, value in nodes:
            part = self.join(part, self.piece(str(op), value, (op, value)))
        return part

    def join(self, left: _Part, right: _Part) -> _Part:
        """Let `right` follow `left`."""
        for a in left.last:
            self.follow[a].update(right.first)
        return _Part(
            left.first + right.first if left.empty else left.first,
            left.last + right.last if right.empty else right.last,
            empty=left.empty and right.empty,
        )

    def piece(self, op: str, value: Any, node: Any) -> _Part:
        """Build one node of the tree."""
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self.position(node)
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self.repeat(*value)
        if op == "BRANCH":
            return self.branch([self.sequence(way) for way in value[1]])
        if op == "SUBPATTERN":
            return self.sequence(value[-1])
        if op == "ATOMIC_GROUP":
            return self.sequence(value)
        if op in ("ASSERT", "ASSERT_NOT"):
            return self.look(value[1])
        if op == "AT":
            return _Part([], [], empty=True)
        raise _Unsafe("refers back to a group, which can take exponential time")

    def position(self, node: Any) -> _Part:
        """Add one letter."""
        if len(self.takes) == POSITIONS:
            raise _Unsafe(f"is over {POSITIONS} letters once its repeats are written out")
        name = repr(node)
        if name not in self._masks:
            tree = _parser.SubPattern(self._state, [node])
            match = _compiler.compile(tree, re.IGNORECASE | re.DOTALL).match
            self._masks[name] = sum(1 << i for i, letter in enumerate(self._alphabet) if match(letter))
        self.takes.append(self._masks[name])
        self.follow.append(set())
        self.weight.append(1)
        return _Part([len(self.takes) - 1], [len(self.takes) - 1], empty=False)

    def branch(self, ways: list[_Part]) -> _Part:
        """Let any of several pieces stand."""
        if sum(way.empty for way in ways) > 1:
            raise _Unsafe("has alternatives that are the same")
        return _Part(
            [i for way in ways for i in way.first],
            [i for way in ways for i in way.last],
            empty=any(way.empty for way in ways),
        )

    def look(self, nodes: Any) -> _Part:
        """Pass by what is only looked at; it may not look without end."""
        before = len(self.takes)
        self.sequence(nodes)
        if max(self.weight[before:], default=1) >= UNBOUNDED:
            raise _Unsafe("looks around itself with a repeat that has no bound")
        del self.takes[before:], self.follow[before:], self.weight[before:]
        return _Part([], [], empty=True)

    def repeat(self, least: int, most: Any, nodes: Any) -> _Part:
        """Write out a short or exact repeat, and make any other a loop."""
        rounds = int(most)
        before = len(self.takes)
        body = self.sequence(nodes)
        if body.empty and rounds > 1:
            raise _Unsafe("repeats something that may be empty")
        size = len(self.takes) - before
        if rounds <= UNROLLED or (least == rounds and size * rounds <= POSITIONS // 3):
            return self.rounds(body, nodes, least, rounds)
        for a, b in product(body.last, body.first):
            if b in self.follow[a]:
                raise _Unsafe(_COMPLEX)
            self.follow[a].add(b)
        for i in range(before, len(self.takes)):
            self.weight[i] = min(self.weight[i] * min(rounds, UNBOUNDED), UNBOUNDED)
        return _Part(body.first, body.last, empty=least == 0)

    def rounds(self, body: _Part, nodes: Any, least: int, most: int) -> _Part:
        """Write a repeat out: each round follows the one before it, and all but `least` may be left out."""
        if most == 0:
            return _Part([], [], empty=True)
        whole, round_ = _Part(body.first, [], empty=least == 0 or body.empty), body
        for n in range(1, most + 1):
            if n >= least:
                whole.last = whole.last + round_.last
            if n < most:
                following = self.sequence(nodes)
                self.join(round_, following)
                round_ = following
        return whole


def _loops(follow: list[set[int]]) -> tuple[list[int], list[frozenset[int]]]:
    """Return where each position leads, as bits, and the groups of positions that lead to each other."""
    reach = [sum(1 << j for j in after) for after in follow]
    for k in range(len(reach)):
        for i, seen in enumerate(reach):
            if seen >> k & 1:
                reach[i] = seen | reach[k]
    found: dict[int, frozenset[int]] = {}
    for i, seen in enumerate(reach):
        if seen >> i & 1 and i not in found:
            loop = frozenset(j for j in range(len(reach)) if seen >> j & 1 and reach[j] >> i & 1)
            found |= dict.fromkeys(loop, loop)
    return reach, list(dict.fromkeys(found.values()))


def _is_exponential(auto: _Automaton, loop: frozenset[int]) -> bool:
    """Whether one text leads around a loop in two ways: two walkers part, and meet again."""
    todo: list[tuple[int, ...]] = [(i, i) for i in loop]
    seen = set(todo)
    while todo:
        a, b = todo.pop()
        for after in auto.walk(auto.follow[a] & loop, auto.follow[b] & loop):
            if a != b and after[0] == after[1]:
                return True
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return False


def _is_shared(auto: _Automaton, reach: list[int], one: frozenset[int], two: frozenset[int]) -> bool:
    """Whether one text leads around a loop, from it to a later one, and around that."""
    return any(_meets(auto, reach, p, q, one, two) for p, q in product(one, two) if reach[p] >> q & 1)


def _meets(
    auto: _Automaton, reach: list[int], p: int, q: int, one: frozenset[int], two: frozenset[int]
) -> bool:
    """Walk three at once, `p` to `p`, `p` to `q`, `q` to `q`, all by the same text."""
    todo: list[tuple[int, ...]] = [(p, p, q)]
    seen = set(todo)
    while todo:
        a, b, c = todo.pop()
        for after in auto.walk(auto.follow[a] & one, auto.follow[b], auto.follow[c] & two):
            if after == (p, q, q):
                return True
            if after not in seen and reach[after[1]] >> q & 1:
                seen.add(after)
                todo.append(after)
    return False


def _most_ways(auto: _Automaton, reach: list[int], loops: list[frozenset[int]]) -> int:
    """Return the most readings that a chain of loops sharing a text makes."""
    later = {one: [two for two in loops if two != one and _is_shared(auto, reach, one, two)] for one in loops}

    @functools.cache
    def ways(loop: frozenset[int]) -> int:
        here = max(auto.weight[i] for i in loop)
        return here * max((ways(other) for other in later[loop]), default=1)

    return max((ways(loop) for loop in loops if later[loop]), default=1)


def unsafe(pattern: str) -> str | None:
    """Say why a pattern may not be run on what strangers write; None where it may.

    The sentence's subject is the pattern: it goes on after "the pattern".
    """
    try:
        re.compile(f"(?:{pattern})", re.IGNORECASE)  # as a part of one expression with the others
        tree = _parser.parse(pattern, re.IGNORECASE)
        if tree.state.groupdict:
            return "names a group, which nothing asks for"
        if tree.getwidth()[0] == 0:
            return "matches the empty text, and so every prompt"
        return _judge(_Automaton(tree, pattern))
    except (re.error, OverflowError) as error:
        return f"does not compile: {error}"
    except RecursionError:
        return "is nested too deeply"
    except _Unsafe as reason:
        return str(reason)


def _judge(auto: _Automaton) -> str | None:
    """Say why one text has too many ways through; None where it has not."""
    reach, loops = _loops(auto.follow)
    if any(_is_exponential(auto, loop) for loop in loops):
        return _COMPLEX
    return _OVERLAP if _most_ways(auto, reach, loops) > WAYS else None
