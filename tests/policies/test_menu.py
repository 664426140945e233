"""What a plan may ask for, out of the preset and what is configured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.policy import read_bundle
from gateway.providers import KINDS, open_adapter
from policies import menu
from policies.bundle import Bundle
from policies.routing import Offer, Router


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The preset."""
    found = read_bundle(None, {}, KINDS)
    assert isinstance(found, Bundle)
    return found


def offered(bundle: Bundle, plan: str, *kinds: str) -> dict[str, menu.ModelOffer]:
    """Return the menu of a plan where these kinds are configured, by model."""
    offers = [Offer(kind, kind, open_adapter(kind).capabilities) for kind in kinds]
    rows = menu.offered(bundle, Router(bundle, offers), bundle.plans[plan])
    return {row.id: row for row in rows}


def test_menu_follows_the_plan(bundle: Bundle) -> None:
    """A plan's models come in the plan's order; what only a dearer plan has is not there."""
    assert list(offered(bundle, "pro", "openai")) == ["standard", "quick"]
    assert list(offered(bundle, "max", "openai")) == ["standard", "quick", "fine"]


def test_unmade_models_are_left_out(bundle: Bundle) -> None:
    """A model nobody configured can make is not offered; with nobody, nothing is."""
    assert list(offered(bundle, "max", "gptimage2_plus")) == ["standard"]
    assert offered(bundle, "max") == {}


@pytest.mark.parametrize(
    ("kinds", "inputs", "mask"),
    [
        (["openai"], 4, True),
        (["gptimage2_plus"], 4, False),
        (["gptimage2_plus", "gptimage2_ai"], 4, False),
        (["gptimage2_ai", "openai"], 4, True),
        (["sandbox"], 4, True),
    ],
)
def test_menu_tells_of_edits(bundle: Bundle, kinds: list[str], inputs: int, mask: bool) -> None:  # noqa: FBT001 - a column
    """Every kind makes edits; how many images is the plan's bound, and a mask some provider's to take."""
    model = offered(bundle, "pro", *kinds)["standard"]
    assert model.operations == ("generate", "edit")
    assert (model.limits.inputs, model.limits.mask) == (inputs, mask)


def test_menu_without_edits(bundle: Bundle) -> None:
    """A plan without inputs, or a model that offers none, has no edits on its menu."""
    offers = [Offer("only", "openai", open_adapter("openai").capabilities)]
    plan = replace(bundle.plans["max"], inputs=0)
    models = {
        name: replace(model, operations=("generate",)) if name == "quick" else model
        for name, model in bundle.models.items()
    }
    rows = menu.offered(bundle, Router(bundle, offers), plan)
    assert {(row.operations, row.limits.inputs, row.limits.mask) for row in rows} == {
        (("generate",), 0, False)
    }
    closed = replace(bundle, models=models)
    few = {row.id: row for row in menu.offered(closed, Router(closed, offers), bundle.plans["max"])}
    assert {name: (row.operations[-1], row.limits.inputs) for name, row in few.items()} == {
        "standard": ("edit", 4),
        "quick": ("generate", 0),
        "fine": ("edit", 4),
    }


def test_menu_has_what_providers_can(bundle: Bundle) -> None:
    """Sizes, qualities and formats are those some configured provider makes."""
    plus = offered(bundle, "pro", "gptimage2_plus")["standard"]
    assert [row.size for row in plus.sizes] == ["1024x1024", "1536x1024", "1024x1536"]
    ratios = offered(bundle, "pro", "gptimage2_ai")["standard"]
    assert ratios.qualities == ("medium",)
    assert {row.tier for row in ratios.sizes} == {"1K"}


def test_prices_are_the_preset_ones(bundle: Bundle) -> None:
    """Low 1, medium 10, high 40 up to 1.6 megapixels; above it low 2, medium 20, high 40."""
    model = offered(bundle, "pro", "openai")["standard"]
    assert model.prices == model.sizes[0].prices == {"low": 1, "medium": 10, "high": 40}
    large = next(row for row in model.sizes if row.tier == "2K")
    assert large.prices == {"low": 2, "medium": 20, "high": 40}
    assert (model.limits.count, model.limits.prompt) == (4, 4000)
