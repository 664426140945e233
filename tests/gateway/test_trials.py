"""Patterns on hostile texts: the slow are found, the quick pass, and nothing hangs."""

from __future__ import annotations

import re

import pytest

from gateway import trials
from gateway.policy import read_bundle
from gateway.providers import KINDS
from policies.bundle import Bundle
from policies.patterns import unsafe

QUICK = (r"forbidden[ ]word", r"\bkid\b.{0,40}\bnude\b", r"(?:red|blue)\W{1,3}fish", "é{2}")
SLOW = (r"kid.*nude", r"\d+x", r".*nude")


@pytest.mark.parametrize("pattern", SLOW)
def test_slow_patterns_look_safe(pattern: str) -> None:
    """What the trial finds is what no reading refuses."""
    assert unsafe(pattern) is None
    assert trials.slow([pattern]) == [True]


def test_each_pattern_is_judged_alone() -> None:
    """A slow pattern is told at its place, wherever it stands, and spoils none beside it."""
    mixed = [QUICK[0], SLOW[0], SLOW[1], QUICK[1], QUICK[2], SLOW[2], QUICK[3]]
    assert trials.slow(mixed) == [pattern in SLOW for pattern in mixed]
    assert trials.slow([]) == []


def test_endless_pattern_is_cut() -> None:
    """A pattern that would run for years costs the trial its limit and no more."""
    assert trials.slow(["(a+)+z", QUICK[0]]) == [True, False]


def test_presets_pass_their_trial() -> None:
    """The patterns that ship are quick on every hostile text."""
    bundle = read_bundle(None, {}, KINDS)
    assert isinstance(bundle, Bundle)
    patterns = [pattern for rule in bundle.prompt_rules for pattern in rule.patterns]
    assert patterns
    assert not any(trials.slow(patterns))


def test_broken_trial_is_told() -> None:
    """A process that ends for another reason than its time is no verdict."""
    with pytest.raises(RuntimeError, match="ended with 1"):
        trials.slow(["("])


def test_corpus_fits_its_pattern() -> None:
    """Texts are as long as a prompt may be, and made of common runs and of the pattern's own words."""
    texts = list(trials.corpus(r"\bkid\w*.*(?:nude|bare)"))
    assert {len(text) for text in texts} == {trials.LONGEST}
    assert 15 <= len(texts) == len(set(texts)) <= 25
    assert any(re.fullmatch("(kid)+k?i?", text) for text in texts)


def test_trial_tells_of_each_pass() -> None:
    """Patterns are tried in order, and each that got through is told before the next begins."""
    passed: list[int] = []
    trials.run(("forbidden", "words"), lambda: passed.append(1))
    assert passed == [1, 1]
