"""The OpenAPI document of a site that speaks all dialects, whose use cases nobody calls."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from gateway.dialects.gptimage2_ai import GptImage2Ai
from gateway.dialects.gptimage2_plus import GptImage2Plus
from gateway.dialects.openai import OpenAI

if TYPE_CHECKING:
    from gateway.dialects.speech import Speaker, SpeakerParts
    from tests.gateway.api.conftest import Site


def speakers() -> tuple[Speaker, ...]:
    """Return every dialect."""
    parts = cast("SpeakerParts", SimpleNamespace(jobs=None, webhooks=None))
    return (GptImage2Plus(parts), GptImage2Ai(parts), OpenAI(parts))


async def document_of(site: Site) -> dict[str, Any]:
    """Return the document as it is served."""
    found: dict[str, Any] = json.loads((await site.ask("GET", "/openapi.json")).body)
    return found
