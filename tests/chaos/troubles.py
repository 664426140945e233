"""How the upstreams misbehave: each way of the fault table, as what a fake is told to do.

A trouble of a call that is paid for waits for the order it belongs to, by its prompt; one of a poll or of a
picture falls on whoever comes next. What really happened is counted from the fakes' own logs.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.fakes.behavior import Behavior, Deed, Part

if TYPE_CHECKING:
    from tests.fakes.behavior import Call

TOO_LARGE: Final = 2 * 2**20
"""More than an answer about a job may be long."""
BUSY_SECONDS: Final = "6"
PAID: Final[tuple[tuple[Deed, int], ...]] = (
    *(("status", status) for status in (500, 503, 529, 429, 429, 402, 403, 502, 504, 524)),
    ("reset_before", 0), ("reset_after", 0), ("half", 0), ("hang", 0), ("refusal", 0), ("refusal", 0),
    ("malformed", 0), ("deep", 0), ("wrong_type", 0), ("not_json", 0),
)  # fmt: skip
SYNC: Final[tuple[tuple[Deed, int], ...]] = (("no_image", 0), ("truncated", 0), ("bomb", 0), ("fewer", 0))
"""What only an upstream can do that answers with the pictures themselves."""
POLLS: Final[tuple[tuple[Deed, int], ...]] = (
    *(("status", status) for status in (500, 503, 502, 429)),
    ("reset_after", 0), ("half", 0), ("hang", 0), ("refusal", 0), ("failed", 0), ("fewer", 0),
    ("malformed", 0), ("wrong_type", 0), ("huge", 0),
)  # fmt: skip
IMAGES: Final[tuple[tuple[Deed, int], ...]] = (
    *(("status", status) for status in (404, 410, 500, 503, 429)),
    ("reset_before", 0), ("reset_after", 0), ("half", 0), ("no_image", 0), ("truncated", 0), ("bomb", 0),
)  # fmt: skip

_GROUPS: Final = {
    "reset_before": "reset", "reset_after": "reset", "half": "half an answer", "hang": "no answer",
    "refused": "refusal", "error_422": "refusal", "blocked": "refusal", "failed": "failed there",
    "malformed": "nonsense", "deep": "nonsense", "wrong_type": "nonsense", "not_json": "nonsense",
    "huge": "nonsense", "no_image": "no image", "truncated": "no image", "bomb": "no image",
}  # fmt: skip
KINDS: Final = tuple(
    f"upstream: {name}"
    for name in (
        *("whole 5xx", "429", "denied", "gateway's 5xx", "link gone"),
        *dict.fromkeys(_GROUPS.values()),
    )
)
"""What there is to be seen of it in a run."""
_UNKNOWABLE: Final = frozenset(
    {"reset_before", "reset_after", "half", "hang", "status_502", "status_504", "status_524"}
)


def trouble(dice: random.Random, upstream: str, prompt: str) -> Behavior:
    """Return what goes wrong with an order at its upstream."""
    paid = PAID + (SYNC if upstream == "openai" else ())
    parts: list[tuple[Part, tuple[tuple[Deed, int], ...]]] = [("create", paid)]
    if upstream != "openai":
        parts += [("poll", POLLS), ("image", IMAGES)]
    on, ways = dice.choice(parts)
    do, status = dice.choice(ways)
    match = prompt.partition(":")[0] if on == "create" else ""
    left = int(on == "poll")  # an upstream that shows a job without a picture shows it so for ever
    return Behavior(do, on=on, match=match, status=status or 500, size=TOO_LARGE, count=left)


def busy(prompt: str) -> Behavior:
    """Return that an upstream has no time for an order when it is asked first, nor soon after."""
    later = {"retry-after": BUSY_SECONDS}
    return Behavior("status", match=prompt.partition(":")[0], status=429, headers=later)


def kind_of(call: Call) -> str | None:
    """Return what went wrong with a call by the upstream's doing; None where nothing did."""
    word, _, status = call.outcome.partition("_")
    if word == "status":
        return f"upstream: {_of_status(int(status), call.part)}"
    group = _GROUPS.get(call.outcome)
    return None if group is None else f"upstream: {group}"


def _of_status(status: int, part: str) -> str:
    if part == "image" and status in (404, 410):
        return "link gone"
    if status == 429:
        return "429"
    if status in (500, 503, 529):
        return "whole 5xx"
    return "gateway's 5xx" if status >= 500 else "denied"


def unknowable(call: Call) -> bool:
    """Whether an upstream left its caller without knowledge of what it did."""
    return call.part == "create" and call.outcome in _UNKNOWABLE
