"""The route: which provider and model, in which order.

Adapters declare what they can do (`Capabilities`); the bundle says what a model alias means; a request
says what is wanted. Here they meet. A size becomes a ratio, or a ratio a size, in `resolve_size` and
nowhere else. A real provider never falls back to the sandbox: a drawing is not what was paid for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec import Struct, structs

from policies import prompts
from policies.bundle import KIND
from policies.model import (
    Background,
    Deny,
    Flaw,
    Format,
    JobRequest,
    Operation,
    Quality,
    Reason,
    Shaping,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.bundle import Bundle, Model, Plan, SizeRow

SANDBOX: Final = "sandbox"


class Capabilities(Struct, frozen=True):
    """What an adapter can do, as data.

    `sizes` or `ratios` None means any. `native` holds the fields it takes itself (`style lighting camera
    negative seed`); the words among the others are appended to the prompt. Where `style` is among them,
    `styles` are the slugs it knows; None means any. `max_count` is the most images one call makes.
    `idempotent`: a paid request may be sent again under the same key. `inputs` says in which form it takes
    an edit's images, at most `max_inputs`; `mask` which pixels of a mask it takes for those to change.
    """

    operations: frozenset[Operation] = frozenset({"generate"})
    sizes: frozenset[str] | None = None
    ratios: frozenset[str] | None = None
    qualities: frozenset[Quality] = frozenset({"low", "medium", "high"})
    formats: frozenset[Format] = frozenset({"png"})
    backgrounds: frozenset[Background] = frozenset({"auto"})
    native: frozenset[str] = frozenset()
    styles: frozenset[str] | None = None
    max_count: int = 1
    max_prompt: int = 32_000
    asynchronous: bool = False
    idempotent: bool = False
    inputs: Literal["none", "bytes", "url", "upload"] = "none"
    max_inputs: int = 0
    mask: Literal["clear", "white"] | None = None

    def takes(self, style: str | None) -> frozenset[str]:
        """Return the fields it takes itself in a request of this style."""
        return self.native if self.styles is None or style in self.styles else self.native - {"style"}


class Offer(Struct, frozen=True):
    """One configured provider entry and what its adapter can do."""

    entry: str
    kind: str
    capabilities: Capabilities


class Resolved(Struct, frozen=True):
    """Where and how a request is made. `request` lacks what was dropped, which `adjustments` tell.

    `slots` says how many images each upstream call makes; every step can make every slot.
    """

    model: str
    size: str
    ratio: str
    quality: Quality
    steps: tuple[Step, ...]
    slots: tuple[int, ...]
    request: JobRequest
    adjustments: tuple[str, ...] = ()


class Way(Struct, frozen=True):
    """A step of a model's route, and what its adapter can do."""

    step: Step
    can: Capabilities

    def draws(self, row: SizeRow) -> bool:
        """Whether it makes this size.

        An upstream that takes only a ratio chooses the pixels itself, so it is not asked for the large
        class: the price of 2K would be taken for what may be 1K.
        """
        if self.can.sizes is not None:
            return row.size in self.can.sizes
        return self.can.ratios is None or (row.ratio in self.can.ratios and row.tier == "1K")

    def holds(self, words: Shaping) -> bool:
        """Whether the prompt, with all that is appended to it here, is short enough for it."""
        return len(prompts.shape(words, self.can.takes(words.style))) <= self.can.max_prompt


def resolve_size(
    model: Model,
    size: str | None = None,
    ratio: str | None = None,
    tier: Literal["1K", "2K"] | None = None,
) -> SizeRow | None:
    """Return the row of a model's table that is meant; None where it has none.

    A size means its row, a ratio the first row that has it, neither the first row. With a `tier`, it is
    the first row of that class and of the same ratio.
    """
    rows: Iterable[SizeRow] = model.sizes
    if size is not None:
        rows = (row for row in rows if row.size == size)
    if ratio is not None:
        rows = (row for row in rows if row.ratio == ratio)
    found = next(iter(rows), None)
    if found is None or tier is None or found.tier == tier:
        return found
    return next((row for row in model.sizes if row.ratio == found.ratio and row.tier == tier), None)


def route(model: Model, offers: Sequence[Offer]) -> tuple[Way, ...]:
    """Return the ways a model may be made with what is configured, first choice first.

    `kind:` stands for all entries of a kind, by name. The sandbox stays only where it is alone.
    """
    ways: dict[tuple[str, str], Way] = {}
    for target in model.route:
        for offer in sorted(offers, key=lambda offer: offer.entry):
            if target.entry in (offer.entry, KIND + offer.kind):
                step = Step(offer.entry, offer.kind, target.model)
                ways.setdefault((step.entry, step.model), Way(step, offer.capabilities))
    real = tuple(way for way in ways.values() if way.step.kind != SANDBOX)
    return real or tuple(ways.values())


def split(count: int, most: int) -> tuple[int, ...]:
    """Return how many images each call makes, when one makes at most so many."""
    whole, rest = divmod(count, most)
    return (most,) * whole + ((rest,) if rest else ())


class Ask(NamedTuple):
    """What a route is tried against."""

    request: JobRequest
    alias: str
    model: Model
    row: SizeRow
    words: Shaping


class Fit(NamedTuple):
    """The ways that can make a request, and what had to be left out of it."""

    ways: tuple[Way, ...]
    request: JobRequest
    adjustments: tuple[str, ...]


def _quality(way: Way, ask: Ask) -> bool:
    quality = ask.request.quality
    return quality in way.can.qualities and quality in ask.model.qualities


def _format(way: Way, ask: Ask) -> bool:
    wanted = ask.request.format
    return wanted in way.can.formats and wanted in ask.model.formats


def _background(way: Way, ask: Ask) -> bool:
    background = ask.request.background
    if background == "transparent" and ask.request.format == "jpeg":
        return False  # JPEG has no alpha channel
    return background in way.can.backgrounds and background in ask.model.backgrounds


def _seed(way: Way, ask: Ask) -> bool:
    return ask.request.seed is None or "seed" in way.can.native


def _operation(way: Way, ask: Ask) -> bool:
    operation = ask.request.operation
    return operation in way.can.operations and operation in ask.model.operations


def _inputs(way: Way, ask: Ask) -> bool:
    return len(ask.request.inputs) <= way.can.max_inputs


def _mask(way: Way, ask: Ask) -> bool:
    return ask.request.mask is None or way.can.mask is not None


# In the order in which a caller is told; what is droppable comes last, with what stands in its place. A
# mask never is: without it the whole picture would change, and be paid for.
_DEMANDS: Final[tuple[tuple[str, Callable[[Way, Ask], bool]], ...]] = (
    ("operation", _operation),
    ("inputs", _inputs),
    ("mask", _mask),
    ("size", lambda way, ask: way.draws(ask.row)),
    ("quality", _quality),
    ("prompt", lambda way, ask: way.holds(ask.words)),
    ("format", _format),
    ("background", _background),
    ("seed", _seed),
)
_DROPPED: Final[dict[str, str | None]] = {"format": "png", "background": "auto", "seed": None}


def fit(ways: tuple[Way, ...], ask: Ask) -> Fit | Deny:
    """Return the ways that can make it; where none can, drop what may be dropped or say what to change."""
    notes: tuple[str, ...] = ()
    for field, able in _DEMANDS:
        some = tuple([way for way in ways if able(way, ask)])
        if not some and field in _DROPPED and ask.request.on_unsupported == "drop":
            value = getattr(ask.request, field)
            ask = ask._replace(request=structs.replace(ask.request, **{field: _DROPPED[field]}))
            some = tuple([way for way in ways if able(way, ask)])
            notes += (f"{field}: {value} was dropped, no configured provider of {ask.alias} takes it",)
        if not some:
            return _unfit(field, able, ways, ask)
        ways = some
    return Fit(ways, ask.request, notes)


def _unfit(field: str, able: Callable[[Way, Ask], bool], ways: tuple[Way, ...], ask: Ask) -> Deny:
    """Return the refusal that names a field and the values that would do."""
    if field == "prompt":
        most = max(way.can.max_prompt for way in ways)
        return _unsupported("prompt", f"The prompt with its hints is over the {most} characters that fit.")
    if field == "seed":
        return _unsupported("seed", f"No configured provider of {ask.alias} takes a seed. Leave it out.")
    if field == "inputs":
        most = max(way.can.max_inputs for way in ways)
        return _unsupported("inputs", f"No configured provider of {ask.alias} takes over {most} images here.")
    if field == "mask":
        told = "Leave it out, and say in the prompt what is to change."
        return _unsupported("mask", f"No configured provider of {ask.alias} takes a mask. {told}")
    choice: Iterable[str]
    if field == "size":
        rows = [row for row in ask.model.sizes if any(way.draws(row) for way in ways)]
        field, value, choice = "size", ask.row.size, [row.size for row in rows]
        if ask.request.aspect_ratio is not None:
            field, value, choice = "aspect_ratio", ask.row.ratio, dict.fromkeys(row.ratio for row in rows)
    else:
        value = getattr(ask.request, field)
        choice = [
            other
            for other in getattr(ask.model, _LISTS[field])
            if any(
                able(way, ask._replace(request=structs.replace(ask.request, **{field: other})))
                for way in ways
            )
        ]
    return _unsupported(
        field, f"No configured provider makes {ask.alias} with {field} {value} here.{_offer(choice)}"
    )


_LISTS: Final = {
    "operation": "operations",
    "quality": "qualities",
    "format": "formats",
    "background": "backgrounds",
}


def _offer(choice: Iterable[str]) -> str:
    text = ", ".join(choice)
    return f" Choose from: {text}." if text else ""


def _unsupported(field: str, detail: str) -> Deny:
    return Deny(Reason.UNSUPPORTED_OPTION, detail, flaws=(Flaw(f"/{field}", detail),))


def may_ask(request: JobRequest, plan: Plan, alias: str, bundle: Bundle) -> Deny | None:
    """Return why a request is refused before any provider is looked at; None where it is not."""
    flaws = _flaws(request, plan)
    if flaws:
        return Deny(Reason.INVALID_REQUEST, flaws[0].detail, flaws=flaws)
    if alias not in bundle.models:
        near = difflib.get_close_matches(alias, plan.models, 1)
        hint = f" Did you mean {near[0]}?" if near else _offer(plan.models)
        return _unsupported("model", f"There is no model {alias}.{hint}")
    if alias not in plan.models:
        return Deny(Reason.PLAN_REQUIRED, f"The plan does not include the model {alias}.")
    if request.count > plan.count:
        told = f"The plan allows {plan.count} images a job."
        return Deny(Reason.PLAN_REQUIRED, told, flaws=(Flaw("/count", told),))
    if plan.styles is not None and request.style is not None and request.style not in plan.styles:
        return Deny(Reason.PLAN_REQUIRED, f"The plan does not include the style {request.style}.")
    if len(request.inputs) > plan.inputs:
        allowed = f"{plan.inputs} images an edit" if plan.inputs else "no edits"
        return Deny(Reason.PLAN_REQUIRED, f"The plan allows {allowed}.")
    return None


def _flaws(request: JobRequest, plan: Plan) -> tuple[Flaw, ...]:
    """Return what contradicts itself in a request, whatever is configured."""
    flaws = []
    if request.size is not None and request.aspect_ratio is not None:
        flaws.append(Flaw("/aspect_ratio", "Send size or aspect_ratio, not both."))
    if request.operation == "edit" and not request.inputs:
        most = max(plan.inputs, 1)
        images = "one image" if most == 1 else f"one to {most} images"
        told = "upload them at POST /v1/uploads or give their https URLs"
        flaws.append(Flaw("/inputs", f"An edit needs {images}: {told}."))
    if request.operation == "generate" and request.inputs:
        flaws.append(Flaw("/inputs", "Only an edit takes images. Send operation edit, or leave them out."))
    if request.operation == "generate" and request.mask is not None:
        flaws.append(Flaw("/mask", "Only an edit takes a mask. Send operation edit, or leave it out."))
    for at, given in enumerate(request.inputs):
        if (given.upload is None) == (given.url is None):
            flaws.append(Flaw(f"/inputs/{at}", "Send upload or url, one of them."))
    if request.mask is not None and (request.mask.upload is None or request.mask.url is not None):
        flaws.append(Flaw("/mask", "Send the upload of a mask: upload it at POST /v1/uploads."))
    return tuple(flaws)


class Router:
    """A bundle and the configured offers, joined once; asked for every request."""

    def __init__(self, bundle: Bundle, offers: Sequence[Offer]) -> None:
        self._bundle = bundle
        self._routes = {alias: route(model, offers) for alias, model in bundle.models.items()}

    def ways(self, alias: str) -> tuple[Way, ...]:
        """Return the ways a model may be made with what is configured; empty where there is none."""
        return self._routes.get(alias, ())

    def resolve(
        self, request: JobRequest, plan: Plan, tier: Literal["1K", "2K"] | None = None
    ) -> Resolved | Deny:
        """Say where and how a judged request of this plan is made, or what to change in it.

        With a `tier` it is made in that class's size of the same ratio, where there is one that can be.
        """
        alias = request.model or plan.models[0]
        denied = may_ask(request, plan, alias, self._bundle)
        if denied is not None:
            return denied
        if not self._routes[alias]:
            return Deny(Reason.NO_PROVIDER_AVAILABLE, f"No configured provider makes {alias}.")
        model = self._bundle.models[alias]
        row = resolve_size(model, request.size, request.aspect_ratio)
        if row is None:
            return _no_size(alias, model, request)
        words = prompts.shaping(request, self._bundle.styles)
        better = resolve_size(model, row.size, tier=tier) if tier is not None else None
        if better is not None and better is not row:
            found = fit(self._routes[alias], Ask(request, alias, model, better, words))
            if isinstance(found, Fit):
                return self._resolved(alias, better, request, found)
        found = fit(self._routes[alias], Ask(request, alias, model, row, words))
        return found if isinstance(found, Deny) else self._resolved(alias, row, request, found)

    def _resolved(self, alias: str, row: SizeRow, request: JobRequest, found: Fit) -> Resolved:
        return Resolved(
            alias,
            row.size,
            row.ratio,
            request.quality,
            tuple([way.step for way in found.ways]),
            split(request.count, min([way.can.max_count for way in found.ways])),
            found.request,
            self._style_notes(request.style) + found.adjustments,
        )

    def _style_notes(self, style: str | None) -> tuple[str, ...]:
        """Return what a caller is told of a style that nobody wrote words for."""
        if style is None or style in self._bundle.styles:
            return ()
        return (f"style: {style} is not one of ours, its name was sent as words",)


def _no_size(alias: str, model: Model, request: JobRequest) -> Deny:
    """Return the refusal of a size or ratio that a model's table lacks."""
    if request.size is not None:
        sizes = _offer(row.size for row in model.sizes)
        return _unsupported("size", f"The model {alias} has no size {request.size}.{sizes}")
    ratios = _offer(dict.fromkeys(row.ratio for row in model.sizes))
    return _unsupported("aspect_ratio", f"The model {alias} has no ratio {request.aspect_ratio}.{ratios}")


def resolve(request: JobRequest, plan: Plan, bundle: Bundle, offers: Sequence[Offer]) -> Resolved | Deny:
    """Answer one request without keeping a `Router`."""
    return Router(bundle, offers).resolve(request, plan)
