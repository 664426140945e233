"""The policy documents: plans, tenants, prices, prompt rules, styles, models, routes.

Shapes first, then what must hold between them. A bundle is read whole and swapped whole; `gateway`
turns files into plain values and places, this file says what they mean and lists every mistake.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from policies import lookalikes, patterns, pricing
from policies.model import (
    Alias,
    Background,
    Credits,
    Dialect,
    Format,
    Operation,
    Priority,
    Quality,
    Ratio,
    Size,
    Slug,
)

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Pattern = Annotated[str, Meta(pattern=r"^[a-z0-9*][a-z0-9._*-]{0,63}$")]
"""What another API calls a model; a `*` stands for any characters."""


class PerLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit for one user, and for all users of the tenant together."""

    user: Count
    tenant: Count


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan buys. `prompt` is in code points; `queue_weight` is a share of each turn.

    Jobs of the `priority` batch come after everybody's interactive ones; `order` says how far. `styles` None
    means every style of the bundle, and any other slug as words. `inputs` is the most images of an edit,
    `webhooks` the most endpoints of a subject, `keys` the most live service keys of one maker. `links` None
    leaves to each client API what it promises: minutes in ours, as long as the job lives in the others.
    `attach_unmarked` takes an OpenAI client's same request within ten minutes for a repeat, though nothing in
    it says so.
    """

    credits_per_month: Credits
    monthly_cap: Credits
    submit_per_hour: PerLevel
    in_flight: PerLevel
    streams: Count
    count: Annotated[int, Meta(ge=1, le=10)]
    prompt: Annotated[int, Meta(ge=1, le=32_000)]
    models: Annotated[tuple[Alias, ...], Meta(min_length=1)]
    styles: tuple[Slug, ...] | None = None
    inputs: Annotated[int, Meta(ge=0, le=16)] = 4
    queue_weight: Annotated[int, Meta(ge=1, le=100)] = 1
    priority: Priority = "interactive"
    links: Literal["signed", "durable"] | None = None
    final_prompt: bool = False
    dialects: tuple[Dialect, ...] = ("native",)
    webhooks: Annotated[int, Meta(ge=0, le=100)] = 10
    keys: Annotated[int, Meta(ge=0, le=1000)] = 100
    attach_unmarked: bool = False


class TenantRow(Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of a tenant; `*` stands for every tenant not named."""

    plan: Name
    suspended: bool = False


class SizeRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One size a model has, its ratio, and its class."""

    size: Size
    ratio: Ratio
    tier: Literal["1K", "2K"]


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """One place a model may be made: an entry of the settings, or `kind:` and a provider kind."""

    entry: Annotated[str, Meta(pattern=r"^(kind:)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: Annotated[str, Meta(min_length=1, max_length=128)]


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """An alias callers may ask for. The first size is the default; `route` is tried in order."""

    sizes: Annotated[tuple[SizeRow, ...], Meta(min_length=1)]
    route: Annotated[tuple[Target, ...], Meta(min_length=1)]
    created: Annotated[int, Meta(ge=0, le=2**40)] = 0
    operations: tuple[Operation, ...] = ("generate",)
    qualities: tuple[Quality, ...] = ("low", "medium", "high")
    formats: tuple[Format, ...] = ("png", "jpeg", "webp")
    backgrounds: tuple[Background, ...] = ("auto", "opaque", "transparent")


class PriceRow(Struct, frozen=True, forbid_unknown_fields=True):
    """Credits an image by quality, for images of at most `max_pixels`. An absent quality has no price."""

    max_pixels: Annotated[int, Meta(ge=1, le=2**40)]
    low: Credits | None = None
    medium: Credits | None = None
    high: Credits | None = None


Word = Annotated[str, Meta(min_length=1, max_length=200)]


class Near(Struct, frozen=True, forbid_unknown_fields=True):
    """Two lists of single words that block when one of each stands `within` so many words of the other."""

    one: Annotated[tuple[Word, ...], Meta(min_length=1)]
    other: Annotated[tuple[Word, ...], Meta(min_length=1)]
    within: Annotated[int, Meta(ge=1, le=50)] = 6


class PromptRule(Struct, frozen=True, forbid_unknown_fields=True):
    """What blocks a prompt: words, words near each other, patterns.

    `id` is public; what it looks for is not.
    """

    id: Name
    words: tuple[Word, ...] = ()
    near: tuple[Near, ...] = ()
    patterns: tuple[Annotated[str, Meta(min_length=1, max_length=500)], ...] = ()


class Style(Struct, frozen=True, forbid_unknown_fields=True):
    """What a style slug adds to a prompt where the provider has no such style itself."""

    words: Annotated[str, Meta(min_length=1, max_length=1000)]


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """All policy documents together, decoded and cross-checked.

    `aliases` are models by the names that clients of other APIs ask for.
    """

    plans: Annotated[dict[Name, Plan], Meta(min_length=1)]
    tenants: dict[str, TenantRow]
    models: Annotated[dict[Alias, Model], Meta(min_length=1)]
    prices: Annotated[tuple[PriceRow, ...], Meta(min_length=1)]
    prompt_rules: tuple[PromptRule, ...] = ()
    styles: dict[Slug, Style] = {}
    aliases: dict[Pattern, Alias] = {}

    def version(self) -> str:
        """Return the name of exactly these documents: `p1_` and 16 hex digits of their SHA-256."""
        text = msgspec.json.encode(self, order="sorted")
        return "p1_" + hashlib.sha256(text).hexdigest()[:16]

    def tenant(self, tenant: str) -> TenantRow | None:
        """Return what is said of a tenant, by name or by `*`; None where nothing is."""
        return self.tenants.get(tenant) or self.tenants.get("*")


class Mistake(Struct, frozen=True, order=True):
    """What does not hold between the documents: where (a JSON pointer into the bundle) and what."""

    pointer: str
    sentence: str


KIND: Final = "kind:"
"""What a target begins with that means every entry of a kind."""

NEAR: Final = 0.05
"""How far a size may be from the ratio it is listed under."""


def mistakes(bundle: Bundle, entries: Mapping[str, str], kinds: Iterable[str] | None = None) -> list[Mistake]:
    """List all that does not hold between the documents, and between them and the configured entries.

    `entries` maps the names of the configured provider entries to
    their kinds. `kinds` are the kinds there are; None leaves them unchecked. A kind without an entry is
    no mistake: it is no route.
    """
    found = [*_plan_mistakes(bundle), *_price_mistakes(bundle), *_rule_mistakes(bundle)]
    known = None if kinds is None else {KIND + kind for kind in kinds}
    for alias, model in bundle.models.items():
        at = _at("models", alias)
        found += _size_mistakes(at, model)
        for i, target in enumerate(model.route):
            place = f"{at}/route/{i}/entry"
            if not target.entry.startswith(KIND):
                found += _unknown(place, "provider entry", target.entry, entries)
            elif known is not None:
                found += _unknown(place, "provider kind", target.entry, known)
    return found


def _at(*names: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of names."""
    return "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def _unknown(pointer: str, noun: str, name: str, known: Iterable[str]) -> Iterator[Mistake]:
    """Yield the mistake of a name that nothing has."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names) or 'none'}"
    yield Mistake(pointer, f'unknown {noun} "{name}", {hint}')


def _plan_mistakes(bundle: Bundle) -> Iterator[Mistake]:
    """Yield names of plans, models and styles that nothing has, and aliases that nobody can ask by."""
    for tenant, row in bundle.tenants.items():
        yield from _unknown(_at("tenants", tenant, "plan"), "plan", row.plan, bundle.plans)
    for name, plan in bundle.plans.items():
        for i, alias in enumerate(plan.models):
            yield from _unknown(_at("plans", name, "models", i), "model", alias, bundle.models)
        for i, style in enumerate(plan.styles or ()):
            yield from _unknown(_at("plans", name, "styles", i), "style", style, bundle.styles)
    for name, alias in bundle.aliases.items():
        yield from _unknown(_at("aliases", name), "model", alias, bundle.models)
        if name in bundle.models:
            yield Mistake(_at("aliases", name), "is never read: a model of ours has this name")


def _price_mistakes(bundle: Bundle) -> Iterator[Mistake]:
    """Yield rows that are never read, and what models may make that no row has a price for."""
    rows = bundle.prices
    for i in range(1, len(rows)):
        if rows[i].max_pixels <= rows[i - 1].max_pixels:
            yield Mistake(_at("prices", i, "max_pixels"), "rows go from small to large, or are never read")
    seen: set[str] = set()
    for alias, model in bundle.models.items():
        for size in model.sizes:
            for quality in model.qualities:
                found = _unpriced(rows, alias, size.size, quality)
                if found is not None and found.pointer not in seen:
                    seen.add(found.pointer)
                    yield found


def _unpriced(rows: tuple[PriceRow, ...], alias: str, size: str, quality: Quality) -> Mistake | None:
    """Return the missing price of a combination, at the row that should have it."""
    row = pricing.row(rows, size)
    if row is None:
        return Mistake("/prices", f'no row reaches {pricing.pixels(size)} pixels, {size} of model "{alias}"')
    if getattr(row, quality) is None:
        place = _at("prices", rows.index(row))
        return Mistake(
            f"{place}/{quality}", f'no price for {quality}, which model "{alias}" offers at {size}'
        )
    return None


def _size_mistakes(at: str, model: Model) -> Iterator[Mistake]:
    """Yield sizes that are listed twice, or under a ratio that is not theirs."""
    seen: set[str] = set()
    for i, row in enumerate(model.sizes):
        if row.size in seen:
            yield Mistake(f"{at}/sizes/{i}/size", f"size {row.size} is listed twice")
        seen.add(row.size)
        width, height = map(int, row.size.split("x"))
        across, down = map(int, row.ratio.split(":"))
        if abs(width * down / (height * across) - 1) > NEAR:
            yield Mistake(f"{at}/sizes/{i}/ratio", f"{row.size} is not {row.ratio}")


def _rule_mistakes(bundle: Bundle) -> Iterator[Mistake]:
    """Yield prompt rules that block nothing, share an id, or hold a pattern that may not be run."""
    ids: set[str] = set()
    for i, rule in enumerate(bundle.prompt_rules):
        at = _at("prompt_rules", i)
        if rule.id in ids:
            yield Mistake(f"{at}/id", f'rule "{rule.id}" stands twice')
        ids.add(rule.id)
        if not (rule.words or rule.near or rule.patterns):
            yield Mistake(at, f'rule "{rule.id}" has no words, no near and no patterns')
        yield from _word_mistakes(at, rule)
        for j, pattern in enumerate(rule.patterns):
            reason = patterns.unsafe(pattern)
            if reason is not None:
                yield Mistake(f"{at}/patterns/{j}", f"unsafe pattern: it {reason}")


def _word_mistakes(at: str, rule: PromptRule) -> Iterator[Mistake]:
    """Yield words that cannot be found in any text."""
    for j, word in enumerate(rule.words):
        if not lookalikes.tokens(word):
            yield Mistake(f"{at}/words/{j}", "has no letter and no digit, and blocks nothing")
    for j, near in enumerate(rule.near):
        for side, words in (("one", near.one), ("other", near.other)):
            for k, word in enumerate(words):
                if len(lookalikes.tokens(word)) != 1:
                    yield Mistake(f"{at}/near/{j}/{side}/{k}", "is not a single word")
