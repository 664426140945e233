"""What is above the horizon: the gradient, sun or moon and their glow, stars, clouds, birds, snow.

Knows Pillow and geometry, not prompts or type. Each function works on the whole picture in place, by a
few operations over all of it: a gradient is a column of colors stretched, a cloud a handful of random
pixels stretched, an edge is smooth because its mask was drawn at twice the size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from gateway.images.palette import Color, Mood, mix, rgb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_BICUBIC: Final = Image.Resampling.BICUBIC
_FINE: Final = 2  # masks are drawn this many times too large, then reduced


def column(colors: Sequence[Color], width: int, height: int, squeeze: float = 1.0) -> Image.Image:
    """Return a vertical gradient through the colors, the last reached at `squeeze` of the height."""
    steps = 64
    strip = Image.new("RGB", (1, steps))
    last = len(colors) - 1
    for y in range(steps):
        place = min(y / (steps - 1) / squeeze, 1.0) * last
        low = min(int(place), last - 1)
        strip.putpixel((0, y), mix(colors[low], colors[low + 1], place - low))
    return strip.resize((width, height), _BICUBIC)


def _glow(picture: Image.Image, center: tuple[int, int], radius: int, color: Color, strength: float) -> None:
    """Brighten a round region, most at its center."""
    box = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
    edge = 176  # what Pillow's gradient says where its circle meets the square's side
    fall = Image.radial_gradient("L").point(
        [round(max(1 - v / edge, 0) ** 2 * 255 * strength) for v in range(256)]
    )
    light = ImageOps.colorize(fall, (0, 0, 0), color).resize((radius * 2, radius * 2), _BICUBIC)
    picture.paste(ImageChops.screen(picture.crop(box), light), box)


def body(picture: Image.Image, mood: Mood, horizon: int, dice: Random) -> tuple[int, int]:
    """Hang the sun or moon in its glow, and return where."""
    width, height = picture.size
    short = min(width, height)
    x = round(width * dice.choice((dice.uniform(0.22, 0.4), dice.uniform(0.6, 0.78))))
    y = round(horizon * (dice.uniform(0.24, 0.4) if mood.moon else dice.uniform(0.48, 0.74)))
    color, radius = rgb(mood.body), max(round(short * dice.uniform(0.045, 0.085)), 1)
    if not mood.moon:
        _glow(picture, (x, y), radius * 9, mix(color, rgb(mood.sky[3]), 0.75), 0.55)
    _glow(picture, (x, y), radius * 4, color, 0.5)
    disc = Image.new("L", (radius * 8, radius * 8))
    pen = ImageDraw.Draw(disc)
    pen.ellipse((radius * 2, radius * 2, radius * 6, radius * 6), fill=255)
    if mood.moon and dice.random() < 0.6:
        shift = round(radius * dice.uniform(0.9, 1.5))
        pen.ellipse(
            (radius * 2 - shift, radius * 2 - shift // 2, radius * 6 - shift, radius * 6 - shift // 2), fill=0
        )
    disc = disc.resize((radius * 4, radius * 4), Image.Resampling.LANCZOS)
    picture.paste(color, (x - radius * 2, y - radius * 2), disc)
    return x, y


def stars(picture: Image.Image, count: int, horizon: int, dice: Random) -> None:
    """Scatter stars, fewer and fainter toward the horizon."""
    width, height = picture.size
    sky = Image.new("L", (width * _FINE, horizon * _FINE))
    pen = ImageDraw.Draw(sky)
    unit = min(width, height) / 1024 * _FINE
    for _ in range(count):
        x, y = dice.uniform(0, sky.width), sky.height * 0.95 * dice.random() ** 1.3
        light = (1 - y / sky.height) * dice.uniform(0.3, 1.0)
        size = unit * (1.7 if dice.random() < 0.06 else dice.uniform(0.5, 1.0))
        pen.ellipse((x - size, y - size, x + size, y + size), fill=round(255 * light))
    picture.paste((255, 250, 235), (0, 0), sky.reduce(_FINE))


def clouds(picture: Image.Image, color: Color, horizon: int, dice: Random) -> None:
    """Draw long thin clouds across the upper sky."""
    width, _ = picture.size
    small = (max(width // 3, 8), max(horizon // 3, 8))
    shape = _noise(small, (3, 9), dice)
    floor, strength = dice.randint(120, 150), dice.uniform(0.35, 0.7)
    shape = shape.point([round(min(max(v - floor, 0) * 3.2, 255) * strength) for v in range(256)])
    fade = column([(40,) * 3, (255,) * 3, (200,) * 3, (0,) * 3], *small).convert("L")
    mask = ImageChops.multiply(shape, fade).resize((width, horizon), _BICUBIC)
    picture.paste(color, (0, 0), mask)


def aurora(picture: Image.Image, horizon: int, dice: Random) -> None:
    """Hang two curtains of light, green and blue, leaning with the dice."""
    width, _ = picture.size
    small = (max(width // 4, 8), max(horizon // 4, 8))
    for color in ((90, 255, 170), (110, 140, 255)):
        curtain = _noise((small[0], 1), (5, 1), dice).resize(small, _BICUBIC)
        curtain = curtain.point([max(v - 110, 0) * 2 if v < 200 else 180 for v in range(256)])
        fade = column([(0,) * 3, (120,) * 3, (255,) * 3, (30,) * 3, (0,) * 3], *small).convert("L")
        mask = ImageChops.multiply(curtain, fade)
        rows = dice.uniform(0.1, 0.3)
        mask = mask.transform(
            small, Image.Transform.AFFINE, (1, rows, -rows * small[1] / 2, 0, 1, 0), _BICUBIC
        )
        mask = mask.filter(ImageFilter.GaussianBlur(2)).resize((width, horizon), _BICUBIC)
        light = ImageOps.colorize(mask.point([round(v * 0.7) for v in range(256)]), (0, 0, 0), color)
        box = (0, 0, width, horizon)
        picture.paste(ImageChops.screen(picture.crop(box), light), box)


def birds(picture: Image.Image, mood: Mood, horizon: int, dice: Random) -> None:
    """Send a few birds across a day's sky, or none."""
    if mood.moon or dice.random() < 0.4:
        return
    width, height = picture.size
    unit = min(width, height)
    left, top = width * dice.uniform(0.15, 0.7), horizon * dice.uniform(0.2, 0.45)
    reach = max(round(unit * 0.16), 1)
    flock = Image.new("L", (reach * _FINE, reach * _FINE))
    pen = ImageDraw.Draw(flock)
    for _ in range(dice.randint(3, 6)):
        x, y = dice.uniform(0.2, 0.8) * reach * _FINE, dice.uniform(0.2, 0.8) * reach * _FINE
        wing = unit * dice.uniform(0.006, 0.012) * _FINE
        for side in (-1, 1):
            bow = [(t, math.sin(t * 2.2) * 0.42 * wing) for t in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)]
            upper = [(x + side * wing * t, y - lift) for t, lift in bow]
            lower = [
                (x + side * wing * t, y - lift + wing * 0.2 * (1 - t / 1.5)) for t, lift in reversed(bow)
            ]
            pen.polygon(upper + lower, fill=225)
    picture.paste(rgb(mood.near), (round(left), round(top)), flock.reduce(_FINE))


def snow(picture: Image.Image, dice: Random) -> None:
    """Let snow fall over all of the picture, most of it far away."""
    width, height = picture.size
    flakes = Image.new("L", picture.size)
    pen = ImageDraw.Draw(flakes)
    for _ in range(170):
        near = dice.random() ** 3
        x, y, size = (
            dice.uniform(0, width),
            dice.uniform(0, height),
            min(width, height) * (0.0012 + 0.0045 * near),
        )
        pen.ellipse((x - size, y - size, x + size, y + size), fill=round(220 - 130 * near))
    picture.paste((255, 255, 255), (0, 0), flakes.filter(ImageFilter.BoxBlur(0.7)))


def _noise(size: tuple[int, int], cells: tuple[int, int], dice: Random) -> Image.Image:
    """Return smooth gray clouds: random pixels stretched, three times finer each."""
    whole = _stretched(size, cells, dice)
    for octave in (1, 2):
        finer = _stretched(size, (cells[0] * 2**octave, cells[1] * 2**octave), dice)
        whole = Image.blend(whole, finer, 0.5 / (octave + 0.6))
    return whole


def _stretched(size: tuple[int, int], cells: tuple[int, int], dice: Random) -> Image.Image:
    grid = (cells[0] + 1, cells[1] + 1)
    return Image.frombytes("L", grid, dice.randbytes(grid[0] * grid[1])).resize(size, _BICUBIC)
