"""The time of day as tests own it: it runs by itself, and is moved on at will."""

from __future__ import annotations

import time


class Clock:
    """Real milliseconds and what was added to them."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        """Return the time."""
        return time.time_ns() // 1_000_000 + self.ahead
