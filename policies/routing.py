"""Which provider and model, in which order?

Adapters declare what they can do (`Capabilities`); the bundle says what a model alias means; a request
says what is wanted. Here they meet. A size becomes a ratio, or a ratio a size, in `resolve_size` and
nowhere else.
"""

from __future__ import annotations

from msgspec import Struct

from policies.model import Background, Format, Operation, Quality


class Capabilities(Struct, frozen=True):
    """What an adapter can do, as data.

    `sizes` or `ratios` None means any. `native` holds the fields it takes itself (`style lighting camera
    negative seed`); the words among the others are appended to the prompt. Where `style` is among them,
    `styles` are the slugs it knows; None means any. `max_count` is the most images one call makes.
    `idempotent`: a paid request may be sent again under the same key.
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

    def takes(self, style: str | None) -> frozenset[str]:
        """Return the fields it takes itself in a request of this style."""
        return self.native if self.styles is None or style in self.styles else self.native - {"style"}


class Offer(Struct, frozen=True):
    """One configured provider entry and what its adapter can do."""

    entry: str
    kind: str
    capabilities: Capabilities
