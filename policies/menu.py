"""What may this plan ask for, and at what price?

The answer to `GET /v1/models`: of the plan's models, what the configured providers can make. Prices are
credits an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from policies import pricing
from policies.model import Background, Deny, Format, Operation, Quality, Ratio, Size

if TYPE_CHECKING:
    from policies.bundle import Bundle, Model, Plan, SizeRow
    from policies.routing import Router, Way


class SizeOffer(Struct, frozen=True):
    """One size, and what an image of it costs by quality."""

    size: Size
    ratio: Ratio
    tier: str
    prices: dict[Quality, int]


class LimitsOffer(Struct, frozen=True):
    """The bounds on one request. `inputs` are an edit's images; without edits 0, and no mask."""

    count: int
    prompt: int
    inputs: int = 0
    mask: bool = False


class ModelOffer(Struct, frozen=True):
    """One model. `prices` are those of its first size, the default."""

    id: str
    created: int
    operations: tuple[Operation, ...]
    sizes: tuple[SizeOffer, ...]
    qualities: tuple[Quality, ...]
    formats: tuple[Format, ...]
    backgrounds: tuple[Background, ...]
    prices: dict[Quality, int]
    limits: LimitsOffer


def offered(bundle: Bundle, router: Router, plan: Plan) -> tuple[ModelOffer, ...]:
    """Return the plan's models in the plan's order, without those nobody configured can make."""
    rows = (_model(bundle, alias, router.ways(alias), plan) for alias in plan.models)
    return tuple(row for row in rows if row is not None)


def _model(bundle: Bundle, alias: str, ways: tuple[Way, ...], plan: Plan) -> ModelOffer | None:
    model = bundle.models[alias]
    qualities = tuple(q for q in model.qualities if any(q in way.can.qualities for way in ways))
    sizes = tuple(_size(bundle, row, qualities) for row in model.sizes if any(w.draws(row) for w in ways))
    if not sizes:
        return None
    operations = _operations(model, ways, plan)
    return ModelOffer(
        id=alias,
        created=model.created,
        operations=operations,
        sizes=sizes,
        qualities=qualities,
        formats=tuple(f for f in model.formats if any(f in way.can.formats for way in ways)),
        backgrounds=tuple(b for b in model.backgrounds if any(b in way.can.backgrounds for way in ways)),
        prices=sizes[0].prices,
        limits=_limits(plan, ways if "edit" in operations else ()),
    )


def _operations(model: Model, ways: tuple[Way, ...], plan: Plan) -> tuple[Operation, ...]:
    able = (o for o in model.operations if any(o in way.can.operations for way in ways))
    return tuple(o for o in able if o != "edit" or plan.inputs)


def _limits(plan: Plan, editors: tuple[Way, ...]) -> LimitsOffer:
    most = max((way.can.max_inputs for way in editors), default=0)
    masks = any(way.can.mask is not None for way in editors)
    return LimitsOffer(plan.count, plan.prompt, min(plan.inputs, most), masks)


def _size(bundle: Bundle, row: SizeRow, qualities: tuple[Quality, ...]) -> SizeOffer:
    quotes = {quality: pricing.quote(bundle.prices, row.size, quality, 1) for quality in qualities}
    prices = {quality: quote.each for quality, quote in quotes.items() if not isinstance(quote, Deny)}
    return SizeOffer(row.size, row.ratio, row.tier, prices)
