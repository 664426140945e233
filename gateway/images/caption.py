"""The prompt set in type on a pane of frosted glass, with the picture's size and seed beneath it.

The font is the one Pillow carries, so nothing is fetched and every machine sets the same line. It has
the letters of English only: accents are taken off, and what it lacks is shown as an ellipsis, never
as empty boxes.
"""

from __future__ import annotations

import bisect
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST: Final = 160  # below this short side there is no room for type
_LINES: Final = 5
_FOLDED: Final = str.maketrans(
    dict(zip("øØłŁđð\u0131\u00d7\u2013\u2014\u2022", "oOlLddix--·", strict=True))
    | {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th"}
)
_KNOWN: Final = r" -~…«»·\u2018\u2019\u201c\u201d"
_BEYOND: Final = re.compile(rf" ?[^{_KNOWN}]+(?: [^{_KNOWN}]+)*")


def printable(text: str) -> str:
    """Return the text in letters the font has; what it lacks becomes an ellipsis."""
    bare = unicodedata.normalize("NFKD", text.translate(_FOLDED))
    bare = "".join(c for c in bare if not unicodedata.combining(c))
    shown = " ".join(_BEYOND.sub(" …", " ".join(bare.split())).split())
    return shown if re.search(r"\w", shown) else f"a prompt of {len(text)} characters"


def caption(picture: Image.Image, prompt: str, note: str) -> None:
    """Set the prompt and a small note into the lower part of the picture, in place."""
    width, height = picture.size
    short = min(width, height)
    if short < SMALLEST:
        return
    margin, pad = round(short * 0.045), round(short * 0.036)
    room = min(width - 2 * margin - 2 * pad, round(short * 1.25))
    font, lines = _fit(printable(prompt), room, round(short * 0.046), round(short * 0.026))
    small = _font(max(round(short * 0.0205), 9))
    leading, gap = round(font.size * 1.34), round(short * 0.016)
    inner = max(*(font.getlength(line) for line in lines), small.getlength(note))
    tall = leading * len(lines) + gap + round(small.size * 1.2)
    box = (margin, height - margin - tall - 2 * pad, margin + round(inner) + 2 * pad, height - margin)
    _glass(picture, box, round(short * 0.024))
    pen = ImageDraw.Draw(picture)
    x, y = box[0] + pad, box[1] + pad
    for line in lines:
        pen.text((x, y), line, font=font, fill=(255, 255, 255))
        y += leading
    pen.text((x, y + gap), note, font=small, fill=(214, 219, 226))


def _fit(text: str, room: int, largest: int, smallest: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """Return the largest font that sets the text in few lines, else the smallest and what fits of it."""
    size = largest
    while True:
        font = _font(size)
        lines = _wrap(text, room, font.getlength)
        if len(lines) <= _LINES - 2 or size <= smallest:
            break
        size = max(size - max(size // 10, 1), smallest)
    if len(lines) > _LINES:
        lines = lines[:_LINES]
        lines[-1] = lines[-1][: max(len(lines[-1]) - 2, 0)].rstrip(" ,.;:-") + "…"
    return font, lines


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(max(size, 8))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font


def _wrap(text: str, room: int, measure: Callable[[str], float]) -> list[str]:
    """Return the text in lines no wider than `room`; a word that is wider is cut."""
    lines = [""]
    for word in text[:1200].split(" "):
        rest = word
        while rest:
            joined = f"{lines[-1]} {rest}".strip()
            if measure(joined) <= room:
                lines[-1], rest = joined, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = max(
                    bisect.bisect_right(
                        range(1, len(rest)), room, key=lambda n: math.ceil(measure(rest[:n]))
                    ),
                    1,
                )
                lines[-1], rest = rest[:fits], rest[fits:]
    return lines


def _glass(picture: Image.Image, box: tuple[int, int, int, int], radius: int) -> None:
    """Blur and darken a rounded box of the picture."""
    size = (box[2] - box[0], box[3] - box[1])
    pane = picture.crop(box)
    coarse = (max(size[0] // 12, 1), max(size[1] // 12, 1))
    pane = (
        pane.resize(coarse, Image.Resampling.BOX)
        .filter(ImageFilter.GaussianBlur(1))
        .resize(size, Image.Resampling.BICUBIC)
    )
    pane = Image.blend(pane, Image.new("RGB", size, (12, 15, 22)), 0.56)
    mask = Image.new("L", (size[0] * 2, size[1] * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] * 2 - 1, size[1] * 2 - 1), radius * 2, fill=255)
    picture.paste(pane, box, mask.reduce(2))
