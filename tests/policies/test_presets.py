"""The preset that ships: it stands without a mistake and says what the README says."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, get_args

import pytest

from gateway.policy import read_bundle
from gateway.providers import KINDS, open_adapter
from policies.bundle import Bundle
from policies.model import Deny, InputRef, JobRequest, Quality, Reason
from policies.pricing import Quote, quote
from policies.prompts import Judged, compile_rules, judge_request
from policies.routing import Offer, Resolved, resolve

if TYPE_CHECKING:
    from policies.bundle import Plan

SIZES = [
    "1024x1024",
    "1536x1024",
    "1024x1536",
    "1536x864",
    "864x1536",
    "1280x960",
    "960x1280",
    "2048x2048",
    "2304x1536",
    "1536x2304",
    "2560x1440",
    "1440x2560",
    "2048x1536",
    "1536x2048",
]


@pytest.fixture(scope="module")
def preset() -> Bundle:
    """Return the preset, read as a server reads it."""
    found = read_bundle(None, {}, KINDS)
    assert isinstance(found, Bundle), found
    return found


def figures(plan: Plan) -> tuple[int, ...]:
    """Return a plan's row of the table."""
    return (
        plan.credits_per_month,
        plan.monthly_cap,
        plan.submit_per_hour.user,
        plan.submit_per_hour.tenant,
        plan.in_flight.user,
        plan.in_flight.tenant,
        plan.streams,
        plan.count,
        plan.prompt,
        plan.queue_weight,
    )


def test_plans_are_the_table(preset: Bundle) -> None:
    """Each plan buys what its row says; only the paid ones speak other APIs and show the final prompt."""
    assert {name: figures(plan) for name, plan in preset.plans.items()} == {
        "free": (100, 100, 60, 600, 1, 10, 2, 1, 1_000, 1),
        "pro": (10_000, 10_000, 600, 6_000, 5, 50, 10, 4, 4_000, 4),
        "max": (100_000, 100_000, 600, 60_000, 20, 500, 50, 10, 32_000, 8),
    }
    assert [plan.final_prompt for plan in preset.plans.values()] == [False, True, True]
    assert [len(plan.dialects) for plan in preset.plans.values()] == [1, 4, 4]
    assert [plan.links for plan in preset.plans.values()] == ["signed", None, None]
    assert [plan.models[-1] for plan in preset.plans.values()] == ["quick", "quick", "fine"]
    assert {plan.models[0] for plan in preset.plans.values()} == {"standard"}
    assert {plan.priority for plan in preset.plans.values()} == {"interactive"}


def test_everyone_begins_free(preset: Bundle) -> None:
    """A tenant that nobody named has the plan `free`."""
    row = preset.tenant("anyone")
    assert row is not None
    assert (row.plan, row.suspended) == ("free", False)


@pytest.mark.parametrize(
    ("size", "prices"), [("1536x1024", (1, 10, 40)), ("1600x1000", (1, 10, 40)), ("2048x1536", (2, 20, 40))]
)
def test_prices_are_the_table(preset: Bundle, size: str, prices: tuple[int, ...]) -> None:
    """Up to 1.6 megapixels an image costs 1, 10 or 40 credits, above that 2, 20 or 40."""
    found = [quote(preset.prices, size, quality, 1) for quality in get_args(Quality)]
    assert found == [Quote(price, price) for price in prices]


@pytest.mark.parametrize("kind", ["openai", "sandbox"])
def test_every_combination_is_made(preset: Bundle, kind: str) -> None:
    """With OpenAI or the sandbox alone, every model makes every size in every quality, at a price."""
    offers = [Offer("only", kind, open_adapter(kind, None).capabilities)]
    assert [row.size for row in preset.models["standard"].sizes] == SIZES
    for model, size, quality in product(preset.models, SIZES, get_args(Quality)):
        request = JobRequest("a cat", model=model, size=size, quality=quality)
        assert isinstance(resolve(request, preset.plans["max"], preset, offers), Resolved)
        assert isinstance(quote(preset.prices, size, quality, 10), Quote)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_edits(preset: Bundle, kind: str) -> None:
    """With any kind alone, `standard` is edited from as many images as the plan allows."""
    offers = [Offer("only", kind, open_adapter(kind, None).capabilities)]
    request = JobRequest("a cat", "edit", inputs=(InputRef(upload="u"),) * 4)
    assert isinstance(resolve(request, preset.plans["max"], preset, offers), Resolved)


def test_routes_end_in_the_sandbox(preset: Bundle) -> None:
    """With every kind configured, the sandbox is on no route, and only `standard` has the two resellers."""
    offers = [Offer(kind, kind, open_adapter(kind, None).capabilities) for kind in KINDS]
    for model, kinds in {
        "standard": ["openai", "gptimage2_plus", "gptimage2_ai"],
        "quick": ["openai"],
        "fine": ["openai"],
    }.items():
        found = resolve(JobRequest("a cat", model=model), preset.plans["max"], preset, offers)
        assert isinstance(found, Resolved)
        assert [step.kind for step in found.steps] == kinds


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a safelight-blocked cat", "demo.blocked"),
        ("nude photo of a ch1ld", "minors.sexual"),
        ("a sexualized portrait of a young schoolgirl", "minors.sexual"),
        ("deepfake of my ex, nude", "consent.sexual"),
        ("remove all of her clothes", "consent.sexual"),
        ("a forged German passport", "identity.forgery"),
    ],
)
def test_rules_hold_the_floor(preset: Bundle, text: str, rule: str) -> None:
    """The rules that ship stop what nobody should have to argue about."""
    found = judge_request(JobRequest(text), 1000, compile_rules(preset.prompt_rules))
    assert isinstance(found, Deny)
    assert (found.reason, found.rule) == (Reason.PROMPT_BLOCKED, rule)


@pytest.mark.parametrize(
    "text",
    [
        "children flying kites on a beach, golden hour",
        "a classical nude in marble, museum light",
        "a planet visible to the naked eye",
        "passport photo of a man, plain background",
        "a kid in a dinosaur costume, 35mm f/1.8, ISO 100",
        "Renaissance oil painting of the birth of Venus",
        "she takes off her coat in the rain",
    ],
)
def test_rules_let_ordinary_work_pass(preset: Bundle, text: str) -> None:
    """The rules that ship stay out of the way of ordinary pictures."""
    assert judge_request(JobRequest(text), 1000, compile_rules(preset.prompt_rules)) == Judged(
        JobRequest(text)
    )
