"""Which model a foreign name means: ours first, then names written out, then the pattern that says most."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import bundle as documents
from policies.aliases import meant
from tests.journeys.stage import preset

if TYPE_CHECKING:
    from policies.bundle import Bundle

NAMES = st.text("ab-", max_size=8)
PATTERNS = st.text("ab*", min_size=1, max_size=6)


def named(**aliases: str) -> Bundle:
    """Return the presets with other aliases; `_` stands for a star."""
    return replace(preset(), aliases={name.replace("_", "*"): model for name, model in aliases.items()})


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("standard", "standard"),
        ("fine", "fine"),
        ("gpt-image-1", "standard"),
        ("gpt-image-2-2026-04-21", "standard"),
        ("gpt-image-2.6-sunburst", "standard"),
        ("gpt-image-2.6-flare", "quick"),
        ("gpt-image-2.5-flare-2026-09-08", "quick"),
        ("chatgpt-image-latest", "standard"),
        ("dall-e-3", "standard"),
        ("gpt-4o", "gpt-4o"),
        ("my-gpt-image-2", "my-gpt-image-2"),
    ],
)
def test_presets_know_openais_models(name: str, model: str) -> None:
    """Every image model that OpenAI's SDK names is one of ours; what is no such name stays itself."""
    assert meant(name, preset()) == model


@pytest.mark.parametrize(
    ("aliases", "model"),
    [
        ({"_": "quick", "ab": "fine"}, "fine"),
        ({"_": "quick", "a_": "fine"}, "fine"),
        ({"a_": "quick", "ab_": "fine", "a_b": "standard"}, "standard"),
        ({"_b": "quick", "a_": "fine"}, "quick"),
        ({"a__": "quick", "_a_": "fine"}, "fine"),
        ({"b_": "quick"}, "ab"),
        ({}, "ab"),
    ],
)
def test_closest_alias_is_meant(aliases: dict[str, str], model: str) -> None:
    """A name written out wins over patterns, of these the longest, and of equals the alphabet's first."""
    assert meant("ab", named(**aliases)) == model


def test_own_names_are_kept() -> None:
    """A name of ours means its model, whatever pattern fits it too."""
    assert meant("standard", named(_="quick")) == "standard"


@given(PATTERNS, NAMES)
def test_stars_stand_for_anything(pattern: str, name: str) -> None:
    """A pattern fits as the regular expression does that has any characters for each star."""
    fits = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert meant(name, named(**{pattern.replace("*", "_"): "quick"})) == ("quick" if fits else name)


def test_useless_aliases_are_mistakes() -> None:
    """An alias of no model is a mistake with a suggestion, and so is one that hides behind our own name."""
    bundle = replace(preset(), aliases={"dall-e-3": "standart", "quick": "fine"})
    found = {mistake.pointer: mistake.sentence for mistake in documents.mistakes(bundle, {})}
    assert found == {
        "/aliases/dall-e-3": 'unknown model "standart", did you mean "standard"?',
        "/aliases/quick": "is never read: a model of ours has this name",
    }
