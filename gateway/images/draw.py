"""The sandbox's picture: a landscape in the light its prompt asks for, with the prompt set beneath it.

A real image made here, from nothing but words and a seed: what a keyless gateway answers with, and it
says so in its caption. The dice are thrown from a hash of prompt and seed alone, so the same words and
seed compose the same scene at every size.
"""

from __future__ import annotations

import hashlib
import io
import random
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageDraw

from gateway.images.caption import caption
from gateway.images.palette import choose
from gateway.images.scene import landscape

if TYPE_CHECKING:
    from policies.model import Background, Format

# PNG at Pillow's own level takes 250 ms for 1024 squared; level 1 a tenth of it, a few percent larger.
SAVE: Final[dict[str, dict[str, Any]]] = {
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88, "method": 1},
    "jpeg": {"format": "JPEG", "quality": 90},
}


def draw(
    prompt: str, size: tuple[int, int], seed: int, background: Background = "auto", encoding: Format = "png"
) -> bytes:
    """Return an encoded picture of the prompt. JPEG has no transparency and is drawn opaque.

    Sides of 16 to 4096 pixels. 1024 by 1024 takes about 0.1 s of CPU: call it from a thread.
    """
    width, height = size
    dice = random.Random(hashlib.sha256(f"{seed}\0{prompt}".encode("utf-8", "replace")).digest())  # noqa: S311 - a picture is no secret
    picture = landscape(choose(prompt, dice), width, height, dice)
    caption(picture, prompt, f"{width} x {height}  ·  seed {seed}  ·  drawn by the Safelight sandbox")
    if background == "transparent" and encoding != "jpeg":
        picture.putalpha(_card(width, height))
    out = io.BytesIO()
    picture.save(out, **SAVE[encoding])
    return out.getvalue()


def _card(width: int, height: int) -> Image.Image:
    """Return the mask of a card with round corners; what lies outside it is see-through."""
    mask = Image.new("L", (width * 2, height * 2))
    inset, radius = min(width, height) // 25, min(width, height) // 7
    ImageDraw.Draw(mask).rounded_rectangle(
        (inset, inset, width * 2 - inset, height * 2 - inset), radius, fill=255
    )
    return mask.reduce(2)
