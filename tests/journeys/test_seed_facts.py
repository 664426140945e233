"""Every fact of the two documents is held by a test."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.seed_facts import AI, FACTS, PLUS

TESTS = Path(__file__).parent.parent


def held() -> Iterator[str]:
    """Yield the fact names of every `fact` marker of every test."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fact":
                yield from (str(ast.literal_eval(argument)) for argument in node.args)


def test_every_fact_has_a_test() -> None:
    """A fact without a test, or a marker that names no fact, is a mistake."""
    names = Counter(held())
    assert set(FACTS) - set(names) == set()
    assert set(names) - set(FACTS) == set()


def test_facts_are_numbered_whole() -> None:
    """The facts are P1 to P64 and A1 to A38, each in words of its own."""
    assert list(PLUS) == [f"P{n}" for n in range(1, 65)]
    assert list(AI) == [f"A{n}" for n in range(1, 39)]
    assert len(set(FACTS.values())) == len(FACTS)


@pytest.mark.fact("P1", "A38")
def test_some_facts_ask_nothing() -> None:
    """Offers, navigation and links to prices are facts of a page and ask nothing of an API."""
    assert all("asks nothing of the API" in FACTS[name] for name in ("P1", "A38"))
