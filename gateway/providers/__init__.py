"""The catalogue: every kind of provider that a settings entry can name.

An adapter spells and reads; it never sends. What a kind needs beside its key is its base URL, and None
stands for the vendor's own. A new upstream is one file beside this one and one line below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.providers.gptimage2_ai import GptImage2Ai
from gateway.providers.gptimage2_plus import GptImage2Plus
from gateway.providers.openai import OpenAI
from gateway.providers.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.providers.adapter import Adapter

KINDS: Final[Mapping[str, Callable[[str | None], Adapter]]] = {
    "openai": OpenAI,
    "gptimage2_plus": GptImage2Plus,
    "gptimage2_ai": GptImage2Ai,
    "sandbox": Sandbox,
}


def open_adapter(kind: str, base_url: str | None = None) -> Adapter:
    """Return the adapter of a kind that `KINDS` holds."""
    return KINDS[kind](base_url)
