"""The policy documents: plans, tenants, prices, prompt rules, styles, models, routes.

Shapes first, then what must hold between them. A bundle is read whole and swapped whole; `gateway`
turns files into plain values and places, this file says what they mean and lists every mistake.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from policies.model import Alias, Background, Credits, Format, Operation, Quality, Ratio, Size, Slug

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class PerLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit for one user, and for all users of the tenant together."""

    user: Count
    tenant: Count


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan buys. `prompt` is in code points; `queue_weight` is a share of each turn.

    `styles` None means every style of the bundle, and any other slug as words.
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
    links: Literal["signed", "durable"] = "signed"
    final_prompt: bool = False
    dialects: tuple[Literal["native", "openai", "gptimage2_plus", "gptimage2_ai"], ...] = ("native",)


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


class PromptRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Words or patterns that block a prompt. `id` is public; what it looks for is not."""

    id: Name
    words: tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...] = ()
    patterns: tuple[Annotated[str, Meta(min_length=1, max_length=500)], ...] = ()


class Style(Struct, frozen=True, forbid_unknown_fields=True):
    """What a style slug adds to a prompt where the provider has no such style itself."""

    words: Annotated[str, Meta(min_length=1, max_length=1000)]


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """All policy documents together, decoded and cross-checked."""

    plans: Annotated[dict[Name, Plan], Meta(min_length=1)]
    tenants: dict[str, TenantRow]
    models: Annotated[dict[Alias, Model], Meta(min_length=1)]
    prices: Annotated[tuple[PriceRow, ...], Meta(min_length=1)]
    prompt_rules: tuple[PromptRule, ...] = ()
    styles: dict[Slug, Style] = {}

    def version(self) -> str:
        """Return the name of exactly these documents: `p1_` and 16 hex digits of their SHA-256."""
        text = msgspec.json.encode(self, order="sorted")
        return "p1_" + hashlib.sha256(text).hexdigest()[:16]

    def tenant(self, tenant: str) -> TenantRow | None:
        """Return what is said of a tenant, by name or by `*`; None where nothing is."""
        return self.tenants.get(tenant) or self.tenants.get("*")
