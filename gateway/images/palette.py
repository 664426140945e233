"""The moods a sandbox picture can have: light, land and what the prompt's words call for.

Tables and the choice among them; nothing is drawn here. A mood is a sky from top to horizon, the land
from far to near, and what hangs in the air. Words of the prompt pick a mood or a shape of land where
they name one; the dice pick the rest, so the same prompt and seed always find the same light.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

Color = tuple[int, int, int]


class Mood(NamedTuple):
    """One light. `sky` runs from top to horizon; `body` is the sun's or moon's own color.

    Of `words`, those before the bar name the light itself and win over those after it.
    """

    words: str
    sky: tuple[str, str, str, str]
    body: str
    far: str
    near: str
    cloud: str
    stars: int = 0
    moon: bool = False
    aurora: bool = False
    snow: bool = False


MOODS: Final[tuple[Mood, ...]] = (
    Mood(
        "dawn sunrise morning | breakfast spring coffee",
        ("#2f3e6e", "#7a6596", "#e0928c", "#fbdcab"),
        "#fff3d6",
        "#a58aa9",
        "#24233f",
        "#f6b9a0",
    ),
    Mood(
        "golden autumn harvest | honey amber warm lion",
        ("#3d5c80", "#8c9aa3", "#f2b56b", "#ffe3ab"),
        "#fff4d2",
        "#c08f6c",
        "#2c2029",
        "#ffd9a0",
    ),
    Mood(
        "noon day summer sunny | sky bright bicycle city street",
        ("#2a77b8", "#63a9db", "#b5dcf0", "#f2f8f4"),
        "#ffffff",
        "#8db6c6",
        "#1d4240",
        "#ffffff",
    ),
    Mood(
        "dusk sunset evening twilight | neon purple violet",
        ("#1a1440", "#4d2b6e", "#b5477c", "#ffa07a"),
        "#ffe1b8",
        "#7d3f78",
        "#170e2b",
        "#e0688a",
        stars=40,
    ),
    Mood(
        "night moon midnight moonlight | dark owl dream sleep",
        ("#060a1c", "#0d1b3d", "#1e3b68", "#44709a"),
        "#f7f1dc",
        "#2b4b75",
        "#050916",
        "#2f4f7d",
        stars=260,
        moon=True,
    ),
    Mood(
        "galaxy space aurora stars | star astronaut planet cosmos rocket robot",
        ("#040818", "#0a1c34", "#12414f", "#2f7a70"),
        "#eef7ee",
        "#1f5560",
        "#03090f",
        "#1b4a55",
        stars=320,
        moon=True,
        aurora=True,
    ),
    Mood(
        "mist fog rain cloudy misty foggy | quiet grey gray zen tea",
        ("#8397a3", "#adbcc2", "#d3d9d6", "#f1eee4"),
        "#fffdf4",
        "#b6c2c2",
        "#30444a",
        "#eef1ee",
    ),
    Mood(
        "| desert dune dunes sand camel egypt mars canyon",
        ("#3a6ca5", "#9bbace", "#f4d2a4", "#faeacb"),
        "#fffaf0",
        "#dcae80",
        "#73351f",
        "#ffefd6",
    ),
    Mood(
        "winter snow snowy ice frost | christmas polar penguin cold",
        ("#4f79ab", "#98b8d6", "#d5e3ee", "#f9f4ef"),
        "#fffdf8",
        "#bccddd",
        "#4a6485",
        "#ffffff",
        snow=True,
    ),
    Mood(
        "tropical | beach island palm sea ocean whale fish surf",
        ("#0d5a8a", "#21a0b6", "#8edccb", "#fdf1c6"),
        "#fffdec",
        "#54a7a3",
        "#0b3742",
        "#ffffff",
    ),
    Mood(
        "blossom cherry | rose pink flower flowers love wedding",
        ("#50376a", "#a85c86", "#f2938f", "#ffdfc2"),
        "#fff3e2",
        "#a9678c",
        "#2d1b38",
        "#ffc0b8",
    ),
    Mood(
        "fire lava volcano | ember dragon",
        ("#1d1830", "#5d2436", "#c4482f", "#ffba52"),
        "#fff0b8",
        "#8a3a3a",
        "#150c14",
        "#e0603a",
        stars=20,
    ),
)

LANDS: Final = ("mountains", "hills", "forest", "dunes")
_LAND_WORDS: Final = {
    "mountains": "mountain mountains peak alps cliff castle dragon eagle winter snow",
    "hills": "hill hills meadow field farm sheep village house green garden",
    "forest": "forest tree trees wood woods pine fox bear deer cabin wolf owl",
    "dunes": "desert dune dunes sand beach camel mars planet island",
}
_WATER_WORDS: Final = "sea ocean lake river water boat ship sailboat lighthouse island beach fish whale"


class Setting(NamedTuple):
    """What a picture shows: its mood, the shape of its land, and whether water lies before it."""

    mood: Mood
    land: str
    water: bool


def choose(prompt: str, dice: Random) -> Setting:
    """Return the setting the prompt's words name, and what the dice say where they name none."""
    words = re.findall(r"[a-z]+", prompt.lower())
    light, things = ({m.words: m.words.split("|")[part] for m in MOODS} for part in (0, 1))
    called = _named(words, light) or _named(words, things)
    mood = next((m for m in MOODS if m.words == called), None) or dice.choice(MOODS)
    land = _named(words, _LAND_WORDS) or dice.choice(LANDS)
    wet = dice.random() < (0.15 if land == "dunes" else 0.5)
    return Setting(mood, land, wet or _named(words, {"water": _WATER_WORDS}) is not None)


def _named(words: list[str], table: Mapping[str, str]) -> str | None:
    sets = {key: set(text.split()) for key, text in table.items()}
    return next((key for word in words for key, named in sets.items() if word in named), None)


def rgb(text: str) -> Color:
    """Return the color that `#rrggbb` writes."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def mix(a: Color, b: Color, share: float) -> Color:
    """Return the color `share` of the way from `a` to `b`."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue
