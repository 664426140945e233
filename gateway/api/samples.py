"""A body for every call that takes one, by `operationId`: each works as it stands, but for names to fill in.

The OpenAPI document shows them as examples, and the Postman collection sends them. Names in double braces
are the collection's variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PROMPT: Final = "a lighthouse at dusk, long exposure, 35 mm"
PICTURE: Final = "RIFF\x18\0\0\0WEBPVP8L\x0b\0\0\0/?A=\0(OA\x0b\x10\x01\0"
"""A whole WebP of 320x246, one color, all ASCII: Postman sends a body as text, which this survives."""
PICTURE_URL: Final = "data:image/webp;base64,UklGRhgAAABXRUJQVlA4TAsAAAAvP0E9AChPQQsQAQA="
HOOK: Final = "https://example.com/hooks/images"

SAMPLES: Final[Mapping[str, Any]] = {
    "createJob": {"prompt": PROMPT, "size": "1536x1024", "quality": "low"},
    "quoteJob": {"prompt": PROMPT, "quality": "high", "count": 2},
    "createUpload": {"filename": "sample.webp", "content_type": "image/webp", "size": len(PICTURE)},
    "createKey": {"label": "nightly catalogue", "expires_in_days": 30},
    "createWebhook": {"url": HOOK, "events": ["job.succeeded", "job.failed"], "label": "shop"},
    "updateWebhook": {"label": "shop, spring"},
    "createPlusGeneration": {"prompt": PROMPT, "size": "1024x1024", "quality": "low", "n": 1},
    "createPlusUpload": {"filename": "sample.webp", "contentType": "image/webp", "size": len(PICTURE)},
    "createPlusWebhook": {"url": HOOK, "events": ["generation.succeeded"], "label": "shop"},
    "updatePlusWebhook": {"label": "shop, spring"},
    "createAiJob": {"prompt": PROMPT, "mode": "text-to-image", "ratio": "3:2", "count": 1},
    "createOpenAIImages": {"prompt": PROMPT, "quality": "low", "response_format": "url"},
    "editOpenAIImages": {
        "prompt": "the same, in winter",
        "images": [{"image_url": PICTURE_URL}],
        "response_format": "url",
    },
}
