"""A landscape out of dice: a sky, land in layers of haze before it, or water that mirrors it.

Knows Pillow and geometry, not prompts or type. No loop here visits pixels; a loop visits shapes, and a
megapixel takes well under a tenth of a second.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageOps

from gateway.images import sky
from gateway.images.palette import Color, Mood, Setting, mix, rgb

if TYPE_CHECKING:
    from random import Random

_BICUBIC: Final = Image.Resampling.BICUBIC
_FINE: Final = 2  # masks are drawn this many times too large, then reduced


def landscape(setting: Setting, width: int, height: int, dice: Random) -> Image.Image:
    """Return an RGB picture of the setting; the same dice draw the same picture."""
    mood = setting.mood
    picture = sky.column([rgb(color) for color in mood.sky], width, height, squeeze=0.66)
    horizon = round(height * (dice.uniform(0.56, 0.62) if setting.water else dice.uniform(0.6, 0.68)))
    if mood.stars:
        sky.stars(picture, mood.stars, horizon, dice)
    if mood.aurora:
        sky.aurora(picture, horizon, dice)
    place = sky.body(picture, mood, horizon, dice)
    sky.clouds(picture, rgb(mood.cloud), horizon, dice)
    sky.birds(picture, mood, horizon, dice)
    if setting.water:
        _land(picture, setting, (horizon, horizon), 3, dice)
        _water(picture, mood, horizon, place[0], dice)
        _boat(picture, mood, horizon, dice)
    else:
        _land(picture, setting, (horizon, height), 5, dice)
    if mood.snow:
        sky.snow(picture, dice)
    return picture


def _ridge(land: str, points: int, dice: Random) -> list[float]:
    """Return heights between 0 and 1 along a ridge: broken for mountains, round for the others."""
    if land == "mountains":
        heights = _fractal(points, 0.54, dice)
    elif land == "dunes":
        crests = [(dice.uniform(-0.1, 1.1), dice.uniform(0.3, 0.6), dice.uniform(0.5, 1)) for _ in range(3)]
        swell = dice.uniform(0, math.tau)
        heights = [
            max(_dune(i / points - x, wide) * tall for x, wide, tall in crests)
            + 0.14 * math.sin(i / points * 5 + swell)
            for i in range(points)
        ]
    else:
        waves = [(dice.uniform(0.5, 1.1) * 2**k, dice.uniform(0, math.tau), 0.4**k) for k in range(4)]
        heights = [
            sum(a * math.sin(f * math.tau * i / points + p) for f, p, a in waves) for i in range(points)
        ]
    low, high = min(heights), max(heights)
    return [(h - low) / max(high - low, 0.2) for h in heights]


def _dune(away: float, wide: float) -> float:
    """Return a dune's height at a distance from its crest: a long slope before it, a short one after."""
    reach = wide if away < 0 else wide * 0.45
    near = max(1 - abs(away) / reach, 0)
    return near * near * (3 - 2 * near) if away < 0 else near**1.6


def _fractal(points: int, rough: float, dice: Random) -> list[float]:
    heights, swing = [dice.random(), dice.random()], 1.0
    while len(heights) < points:
        between = [(a + b) / 2 + dice.uniform(-swing, swing) for a, b in itertools.pairwise(heights)]
        heights = [h for pair in zip(heights, between, strict=False) for h in pair] + heights[-1:]
        swing *= rough
    return heights


def _land(picture: Image.Image, setting: Setting, span: tuple[int, int], layers: int, dice: Random) -> None:
    """Lay ridges from far to near between two heights, each nearer one darker and clearer."""
    width, height = picture.size
    mood, (far_y, near_y) = setting.mood, span
    far, near, haze = rgb(mood.far), rgb(mood.near), rgb(mood.sky[3])
    rise = (
        min(width, height) * {"mountains": 0.26, "hills": 0.12, "forest": 0.13, "dunes": 0.15}[setting.land]
    )
    for layer in range(layers):
        depth = (layer + 1) / layers
        foot = round(far_y + (near_y - far_y) * (layer / layers) ** 1.15 + height * 0.02)
        tall = rise * (1 - 0.45 * layer / layers) * dice.uniform(0.8, 1.1)
        ridge = [foot - tall * h for h in _ridge(setting.land, 129, dice)]
        color = mix(far, near, depth**1.4)
        tree = min(width, height) * 0.05 * (0.35 + depth) if setting.land == "forest" and depth > 0.3 else 0
        _layer(picture, ridge, (color, mix(color, haze, 0.5 * (1 - depth) + 0.06)), tree, dice)


def _layer(
    picture: Image.Image, ridge: list[float], colors: tuple[Color, Color], tree: float, dice: Random
) -> None:
    """Fill what lies under a ridge from one color down to another; with firs where `tree` has a height."""
    width, height = picture.size
    start = min(max(int(min(ridge) - tree * 1.5), 0), height - 1)
    size = (width, height - start)
    mask = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
    pen = ImageDraw.Draw(mask)
    step = width * _FINE / (len(ridge) - 1)
    line = [(i * step, (y - start) * _FINE) for i, y in enumerate(ridge)]
    pen.polygon([*line, (mask.width, mask.height), (0, mask.height)], fill=255)
    if tree:
        _trees(pen, line, tree * _FINE, dice)
    picture.paste(sky.column([colors[0], colors[1], colors[1]], *size), (0, start), mask.reduce(_FINE))


def _trees(pen: ImageDraw.ImageDraw, line: list[tuple[float, float]], tall: float, dice: Random) -> None:
    """Stand firs along a ridge, in groups."""
    x, end, step = 0.0, line[-1][0], line[1][0]
    while x < end:
        y = line[min(int(x / step), len(line) - 1)][1] + tall * 0.15
        size = tall * dice.uniform(0.45, 1.0)
        half = size * dice.uniform(0.16, 0.22)
        for tier in range(4):
            top, low = y - size * (1 - tier * 0.2), y - size * (1 - tier * 0.2) + size * 0.42
            reach = half * (0.4 + tier * 0.22)
            pen.polygon([(x, top), (x + reach, low), (x - reach, low)], fill=255)
        x += tall * (dice.uniform(0.12, 0.4) if dice.random() < 0.8 else dice.uniform(0.6, 2.2))


def _water(picture: Image.Image, mood: Mood, line: int, light_x: int, dice: Random) -> None:
    """Mirror what stands above the line into what lies below it, rippled, with a path of light."""
    width, height = picture.size
    deep = height - line
    mirror = ImageOps.flip(picture.crop((0, max(line - round(deep * 1.25), 0), width, line)))
    soft = mirror.resize((max(width // 6, 2), deep), _BICUBIC).resize((width, deep), _BICUBIC)
    mirror = Image.blend(mirror.resize((width, deep), _BICUBIC), soft, 0.75)
    tint = sky.column(
        [mix(rgb(mood.sky[2]), rgb(mood.near), 0.25), mix(rgb(mood.sky[0]), rgb(mood.near), 0.55)],
        width,
        deep,
    )
    mirror = Image.blend(mirror, tint, 0.38)
    mirror.paste(rgb(mood.body), (0, 0), _ripples(width, deep, light_x, dice))
    picture.paste(mirror, (0, line))


def _ripples(width: int, deep: int, light_x: int, dice: Random) -> Image.Image:
    """Return a mask of flat lights on water, gathered in a path below the light."""
    mask = Image.new("L", (width * _FINE, deep * _FINE))
    pen = ImageDraw.Draw(mask)
    for _ in range(240):
        depth = dice.random() ** 1.6
        half = mask.width * dice.uniform(0.01, 0.05) * (0.3 + depth)
        thick = mask.height * 0.004 * (0.3 + 2 * depth)
        if dice.random() < 0.55:
            x, light = dice.gauss(light_x * _FINE, mask.width * (0.02 + 0.07 * depth)), dice.randint(70, 200)
        else:
            x, light = dice.uniform(0, mask.width), dice.randint(12, 46)
        y = depth * mask.height
        pen.ellipse((x - half, y - thick, x + half, y + thick), fill=light)
    return mask.reduce(_FINE)


def _boat(picture: Image.Image, mood: Mood, line: int, dice: Random) -> None:
    """Set a small sail on the water, with its reflection."""
    if dice.random() < 0.4:
        return
    width, height = picture.size
    size = min(width, height) * dice.uniform(0.035, 0.06)
    x, y = width * dice.uniform(0.2, 0.8), line + (height - line) * dice.uniform(0.1, 0.22)
    box = (round(x - size), round(y - size * 2), round(x + size), round(y + size))
    n = _FINE * 2
    shape = Image.new("L", ((box[2] - box[0]) * n, (box[3] - box[1]) * n))
    pen, unit = ImageDraw.Draw(shape), size * n
    pen.polygon(
        [(unit * a, unit * b) for a, b in ((1.0, 0.35), (1.05, 1.72), (1.72, 1.72), (1.35, 1.0))], fill=255
    )
    pen.polygon(
        [(unit * a, unit * b) for a, b in ((0.96, 0.6), (0.96, 1.72), (0.45, 1.72), (0.75, 1.2))], fill=225
    )
    pen.polygon(
        [(unit * a, unit * b) for a, b in ((0.3, 1.8), (1.8, 1.8), (1.55, 2.0), (0.5, 2.0))], fill=255
    )
    for k in range(7):
        half, low = 0.62 - 0.07 * k, 2.06 + k * 0.12
        pen.ellipse([unit * v for v in (1.05 - half, low, 1.05 + half, low + 0.05)], fill=150 - 18 * k)
    picture.paste(
        mix(rgb(mood.near), rgb(mood.body), 0.06 if not mood.moon else 0.3), box[:2], shape.reduce(n)
    )
