"""Which of our models is meant by a name that another API gave it?

Clients of OpenAI's API name its models, and some never had a say in the name. The bundle maps such names
to ours; a `*` stands for any characters, since models get dates and minor numbers behind their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from policies.bundle import Bundle

ANY: Final = "*"


def meant(name: str, bundle: Bundle) -> str:
    """Return the model a name stands for; the name itself where it is ours or nobody's.

    Our own names come first, then names written out, then patterns: the one with the most characters
    beside its stars, of equals the first by the alphabet.
    """
    if name in bundle.models:
        return name
    if name in bundle.aliases:
        return bundle.aliases[name]
    fits = [pattern for pattern in bundle.aliases if ANY in pattern and _fits(pattern, name)]
    if not fits:
        return name
    return bundle.aliases[min(fits, key=lambda pattern: (pattern.count(ANY) - len(pattern), pattern))]


def _fits(pattern: str, name: str) -> bool:
    """Say whether a name is written as a pattern; each part is taken where it first stands."""
    first, *parts, last = pattern.split(ANY)
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for part in parts:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
