"""Tries operators' patterns on hostile texts, to find those that would stop the process.

`policies/patterns.py` refuses what can be seen to be slow; what is slow only on the right text is found by
running it. A pattern cannot be interrupted, not even in a thread, so it runs in a process of its own
under a timer of processor time that ends this process: a busy machine makes no pattern slow. A bad
pattern costs the trial `LIMIT_SECONDS`. This module is that process too: `python -m gateway.trials`.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

LONGEST: Final = 32_000
"""The most characters a plan may let a prompt have."""
LIMIT_SECONDS: Final = 0.05
"""How long any one search may take."""
WORDS: Final = 3
"""Words of a pattern that texts are made of."""

_COMMON: Final = (
    "a", "Z", "0", " ", "\n", ".", "-", "\u00e9", "\u4e2d", "a ", "a1", "a.", "0.", "a\n", "photo of a cat ",
)  # fmt: skip


def corpus(pattern: str) -> Iterator[str]:
    """Yield about twenty texts of full length: common runs, and runs of the pattern's own words.

    A text of a pattern's beginnings without its end is what makes a search look far, again and again.
    """
    words = re.findall(r"[^\W_]+", re.sub(r"\\.", " ", pattern))[:WORDS]
    pairs = [f"{word} " for word in words]
    for piece in dict.fromkeys((*_COMMON, *words, *pairs, "".join(words[:-1]), " ".join(words[:-1]) + " ")):
        if piece:
            yield (piece * (LONGEST // len(piece) + 1))[:LONGEST]


def slow(patterns: Sequence[str]) -> list[bool]:
    """Say of each pattern whether a search by it takes too long on any hostile text."""
    found: list[bool] = []
    while len(found) < len(patterns):
        passed = _passed(patterns[len(found) :])
        found += [False] * passed
        if len(found) < len(patterns):
            found.append(True)  # the one the process ended at
    return found


def _passed(patterns: Sequence[str]) -> int:
    """Return how many patterns a process of their own got through."""
    child = subprocess.run(  # noqa: S603 - this interpreter, this module
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(patterns).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if child.returncode not in (0, -signal.SIGVTALRM):
        raise RuntimeError(f"the trial of patterns ended with {child.returncode}")
    return len(child.stdout)


def run(patterns: Sequence[str], passed: Callable[[], object]) -> None:
    """Try patterns in order, and tell of each that got through. The first slow one ends the process."""
    for pattern in patterns:
        search = re.compile(pattern, re.IGNORECASE).search
        for text in corpus(pattern):
            signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
            search(text)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        passed()


def main() -> None:
    """Be the process that tries: patterns come as JSON, and a dot goes out for each that got through."""
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    run(json.load(sys.stdin), lambda: (sys.stdout.write("."), sys.stdout.flush()))


if __name__ == "__main__":
    main()
