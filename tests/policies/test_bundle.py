"""The policy documents: their version, their tenants, and every mistake between them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import Bundle, Mistake, TenantRow, mistakes

PLAN = {
    "credits_per_month": 1,
    "monthly_cap": 1,
    "submit_per_hour": {"user": 1, "tenant": 1},
    "in_flight": {"user": 1, "tenant": 1},
    "streams": 1,
    "count": 1,
    "prompt": 1000,
    "models": ["standard"],
    "styles": ["grain"],
}
MODEL = {
    "sizes": [
        {"size": "1024x1024", "ratio": "1:1", "tier": "1K"},
        {"size": "2048x2048", "ratio": "1:1", "tier": "2K"},
    ],
    "route": [{"entry": "kind:openai", "model": "gpt"}, {"entry": "main", "model": "gpt"}],
}
WHOLE: dict[str, Any] = {
    "plans": {"free": PLAN},
    "tenants": {"*": {"plan": "free"}, "acme": {"plan": "free", "suspended": True}},
    "models": {"standard": MODEL},
    "prices": [
        {"max_pixels": 2_000_000, "low": 1, "medium": 10, "high": 40},
        {"max_pixels": 5_000_000, "low": 2, "medium": 20, "high": 40},
    ],
    "prompt_rules": [
        {"id": "words", "words": ["bad word"]},
        {"id": "near", "near": [{"one": ["child"], "other": ["gun"]}]},
        {"id": "shape", "patterns": ["bad.{0,9}idea"]},
    ],
    "styles": {"grain": {"words": "film grain"}},
}
ENTRIES = {"main": "openai", "spare": "openai"}


def changed(**parts: Any) -> Bundle:
    """Return the good bundle with some documents replaced."""
    return msgspec.convert(WHOLE | parts, Bundle)


def plan(**fields: Any) -> dict[str, Any]:
    """Return plans with fields changed."""
    return {"plans": {"free": PLAN | fields}}


def model(**fields: Any) -> dict[str, Any]:
    """Return models with fields changed."""
    return {"models": {"standard": MODEL | fields}}


def sizes(*rows: tuple[str, str]) -> dict[str, Any]:
    """Return models with these sizes and ratios."""
    return model(sizes=[{"size": size, "ratio": ratio, "tier": "1K"} for size, ratio in rows])


def rule(**fields: Any) -> dict[str, Any]:
    """Return prompt rules with one of these fields."""
    return {"prompt_rules": [{"id": "r"} | fields]}


def test_good_documents_have_no_mistakes() -> None:
    """What refers only to what there is has no mistakes, whether or not kinds are known."""
    assert mistakes(changed(), ENTRIES) == []
    assert mistakes(changed(), ENTRIES, {"openai", "sandbox"}) == []
    assert mistakes(changed(tenants={}), ENTRIES) == []


@pytest.mark.parametrize(
    ("parts", "pointer", "sentence"),
    [
        (
            {"tenants": {"a/b~c": {"plan": "fre"}}},
            "/tenants/a~1b~0c/plan",
            'unknown plan "fre", did you mean "free"?',
        ),
        ({"tenants": {"*": {"plan": "gold"}}}, "/tenants/*/plan", 'unknown plan "gold", known: free'),
        (
            plan(models=["standard", "standart"]),
            "/plans/free/models/1",
            'unknown model "standart", did you mean "standard"?',
        ),
        (plan(styles=["grian"]), "/plans/free/styles/0", 'unknown style "grian", did you mean "grain"?'),
        ({"styles": {}}, "/plans/free/styles/0", 'unknown style "grain", known: none'),
        (
            model(route=[{"entry": "mian", "model": "gpt"}]),
            "/models/standard/route/0/entry",
            'unknown provider entry "mian", did you mean "main"?',
        ),
        (
            model(route=[{"entry": "kind:opnai", "model": "gpt"}]),
            "/models/standard/route/0/entry",
            'unknown provider kind "kind:opnai", did you mean "kind:openai"?',
        ),
        (
            {"prices": [{"max_pixels": 2_000_000, "low": 1, "medium": 1, "high": 1}]},
            "/prices",
            'no row reaches 4194304 pixels, 2048x2048 of model "standard"',
        ),
        (
            {"prices": [{"max_pixels": 5_000_000, "low": 1, "high": 1}]},
            "/prices/0/medium",
            'no price for medium, which model "standard" offers at 1024x1024',
        ),
        (
            {"prices": [WHOLE["prices"][1], WHOLE["prices"][0]]},
            "/prices/1/max_pixels",
            "rows go from small to large, or are never read",
        ),
        (
            sizes(("1024x1024", "1:1"), ("1024x1024", "1:1")),
            "/models/standard/sizes/1/size",
            "size 1024x1024 is listed twice",
        ),
        (sizes(("1024x1024", "3:2")), "/models/standard/sizes/0/ratio", "1024x1024 is not 3:2"),
        (
            {"prompt_rules": [{"id": "r", "words": ["x"]}, {"id": "r", "words": ["y"]}]},
            "/prompt_rules/1/id",
            'rule "r" stands twice',
        ),
        (rule(), "/prompt_rules/0", 'rule "r" has no words, no near and no patterns'),
        (
            rule(words=["x", "!?"]),
            "/prompt_rules/0/words/1",
            "has no letter and no digit, and blocks nothing",
        ),
        (
            rule(near=[{"one": ["child", "two words"], "other": ["gun"]}]),
            "/prompt_rules/0/near/0/one/1",
            "is not a single word",
        ),
        (
            rule(near=[{"one": ["a"], "other": ["?"]}]),
            "/prompt_rules/0/near/0/other/0",
            "is not a single word",
        ),
        (
            rule(patterns=["x", "("]),
            "/prompt_rules/0/patterns/1",
            "unsafe pattern: it does not compile: missing",
        ),
        (
            rule(patterns=["(a+)+$"]),
            "/prompt_rules/0/patterns/0",
            "unsafe pattern: it can be read in more than one",
        ),
    ],
)
def test_each_mistake_has_its_place(parts: dict[str, Any], pointer: str, sentence: str) -> None:
    """A mistake is one sentence at the pointer where it is mended, with the nearest name there is."""
    (found,) = mistakes(changed(**parts), ENTRIES, {"openai", "sandbox"})
    assert found.pointer == pointer
    assert found.sentence.startswith(sentence)


def test_kinds_go_unchecked_without_list() -> None:
    """A kind without an entry is no route, and no mistake."""
    assert mistakes(changed(**model(route=[{"entry": "kind:new", "model": "gpt"}])), {}) == []


def test_all_mistakes_come_at_once() -> None:
    """Nothing hides behind the first mistake, and a price is missed once for all who need it."""
    bundle = changed(
        tenants={"*": {"plan": "gold"}},
        prices=[{"max_pixels": 100, "low": 1}],
        prompt_rules=[{"id": "r"}, {"id": "r", "patterns": ["("]}],
    )
    found = mistakes(bundle, {})
    assert [mistake.pointer for mistake in found] == [
        "/tenants/*/plan",
        "/prices",
        "/prompt_rules/0",
        "/prompt_rules/1/id",
        "/prompt_rules/1/patterns/0",
        "/models/standard/route/1/entry",
    ]
    assert Mistake("/a", "z") < Mistake("/b", "a")


def test_near_ratios_are_true() -> None:
    """A size may be off its ratio by the rounding that upstreams do."""
    assert mistakes(changed(**sizes(("1344x768", "16:9"))), ENTRIES) == []


def test_tenants_fall_back_to_star() -> None:
    """A named tenant has its own row, another one the row of `*`, and without that none."""
    bundle = changed()
    assert bundle.tenant("acme") == TenantRow("free", suspended=True)
    assert bundle.tenant("other") == TenantRow("free")
    assert changed(tenants={}).tenant("other") is None


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_version_names_the_content(one: int, other: int) -> None:
    """Two bundles have one version exactly where they say the same, in whatever order."""
    first, second = (changed(**plan(monthly_cap=cap)) for cap in (one, other))
    assert (first.version() == second.version()) == (one == other)
    assert changed(styles={"b": {"words": "b"}, "a": {"words": "a"}}).version() == (
        changed(styles={"a": {"words": "a"}, "b": {"words": "b"}}).version()
    )
    assert len(first.version()) == len("p1_") + 16
