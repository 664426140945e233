"""What an answer says of a caller's limits, and the two limits a process keeps in memory.

The `submit` counter is the store's and exact; here it is only written into headers, in the form of
draft-ietf-httpapi-ratelimit-headers-11 and in the older `X-RateLimit-*`. Reads and open streams are
counted by each process for itself, and a refusal says so. No clock here: instants are arguments.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from gateway.errors import Problem
from policies import quota
from policies.quota import HOUR_MS, Standing

if TYPE_CHECKING:
    from gateway.api.exchange import Headers
    from policies.model import Usage
    from policies.quota import Terms

READ_EVERY_MS: Final = 50
READ_BURST: Final = 60
MOST_READERS: Final = 50_000
STREAM_ESTIMATE_MS: Final = 5_000
"""When a stream may be free again: an estimate, and said to be one."""

_WINDOW: Final = HOUR_MS // 1000


def standing(usage: Usage, terms: Terms, now: int) -> Standing:
    """Return how `submit` stands at the level with fewer calls left; at a tie the user's."""
    user = quota.standing(usage.user, "submit", terms.user.submit, now)
    tenant = quota.standing(usage.tenant, "submit", terms.tenant.submit, now)
    return tenant if tenant.remaining < user.remaining else user


def rate_fields(usage: Usage, terms: Terms, now: int) -> Headers:
    """Return the five headers that tell of the `submit` counter.

    `t` counts whole seconds, rounded up, so that a caller who waits that long is not early; the older
    reset is the instant itself, in seconds since 1970.
    """
    stand = standing(usage, terms, now)
    limit, left = b"%d" % stand.limit, b"%d" % stand.remaining
    return (
        (b"ratelimit-policy", b'"submit";q=%s;w=%d' % (limit, _WINDOW)),
        (b"ratelimit", b'"submit";r=%s;t=%d' % (left, seconds_up(stand.reset_at - now))),
        (b"x-ratelimit-limit", limit),
        (b"x-ratelimit-remaining", left),
        (b"x-ratelimit-reset", b"%d" % seconds_up(stand.reset_at)),
    )


def credits_field(usage: Usage, terms: Terms, now: int) -> tuple[bytes, bytes]:
    """Return the header with the credits a caller may still hold: the smaller of both levels'."""
    current = quota.as_of(usage, now, terms)
    levels = [level.available for level in (current.user, current.tenant) if level.available is not None]
    return b"safelight-credits-available", b"%d" % min(levels, default=0)


def seconds_up(millis: int) -> int:
    """Return milliseconds as whole seconds, rounded up."""
    return -(-millis // 1000)


class ReadLimit:
    """Reads of one process: 20 a second and a burst of 60 for each subject (GCRA: one instant a key).

    A key whose instant has passed has its whole burst again, so forgetting it changes nothing.
    """

    def __init__(self, most: int = MOST_READERS) -> None:
        self._due: dict[tuple[str, str], int] = {}
        self._most = most

    def take(self, tenant: str, subject: str, now: int) -> None:
        """Count a read; raises `Problem` with the exact wait when there are too many."""
        key = (tenant, subject)
        due = max(self._due.get(key, 0), now)
        early = due - now - (READ_BURST - 1) * READ_EVERY_MS
        if early > 0:
            raise Problem(
                "rate_limited",
                "Too many reads: 20 a second and a burst of 60, counted by each server process for itself.",
                retry_after_ms=early,
                rule="limit.read",
            )
        if len(self._due) >= self._most and key not in self._due:
            self._forget(now)
        self._due[key] = due + READ_EVERY_MS

    def _forget(self, now: int) -> None:
        """Drop readers who have their whole burst; where there are none, those who came first."""
        self._due = {key: due for key, due in self._due.items() if due > now}
        while len(self._due) >= self._most:
            del self._due[next(iter(self._due))]


class StreamSlots:
    """Open event streams of one process, by tenant and subject."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def take(self, tenant: str, subject: str, most: int) -> None:
        """Count a stream; raises `Problem` when the plan has no more."""
        if self._open[tenant, subject] >= most:
            raise Problem(
                "too_many_streams",
                f"The plan allows {most} open streams, counted by each server process for itself.",
                retry_after_ms=STREAM_ESTIMATE_MS,
                rule="limit.streams",
            )
        self._open[tenant, subject] += 1

    def release(self, tenant: str, subject: str) -> None:
        """Give a stream back."""
        self._open[tenant, subject] -= 1
        if self._open[tenant, subject] <= 0:
            del self._open[tenant, subject]
