"""When again, or never? One table for every way an upstream can fail.

The rule behind it: paid work is asked for again only when nothing was sent, or the upstream answered
completely that it did nothing, or it takes an idempotency key. Whatever may have been done is not
known, and stays so. Time and chance come in as arguments; nothing waits here.
"""

from __future__ import annotations

import enum
from typing import Final

from msgspec import Struct


class Phase(enum.StrEnum):
    """Which request an answer belongs to."""

    SYNC = "sync"  # the call that makes the image and answers with it
    SUBMIT = "submit"  # the call that starts a job upstream
    POLL = "poll"  # asking how far it is
    FETCH = "fetch"  # getting an image it made


class Failure(enum.StrEnum):
    """What an upstream's trouble means."""

    UNREACHABLE = "unreachable"  # nothing was sent
    RATE_LIMITED = "rate_limited"
    DENIED = "denied"  # our key, our quota or our bill: the operator's to mend
    INVALID = "invalid"  # a complete refusal to do what was asked, for its form
    OVERLOADED = "overloaded"  # a whole 500, 503 or 529: nothing was made
    UNKNOWN = "unknown"  # it may have been done
    MALFORMED = "malformed"  # a whole answer that makes no sense
    LOST = "lost"  # the upstream says its job failed, and keeps nothing
    EXPIRED = "expired"  # the link to an image has run out


class Again(Struct, frozen=True):
    """The same entry, after a wait. `resend`: the same attempt, under the same key."""

    after_ms: int
    resend: bool = False


class Next(Struct, frozen=True):
    """The route's next entry, at once."""


class Stop(Struct, frozen=True):
    """No more. `flag` is for the operator: money may be gone for nothing."""

    code: str
    flag: str | None = None


Verdict = Again | Next | Stop

TRIES: Final = {Failure.UNREACHABLE: 2, Failure.OVERLOADED: 3}
"""Sends to one entry before the next is asked."""
FETCH_TRIES: Final = 4
RESEND_TRIES: Final = 6
LONGEST_WAIT_MS: Final = 60_000
_OF_THIS_SEND: Final = frozenset(
    {Failure.UNREACHABLE, Failure.RATE_LIMITED, Failure.DENIED, Failure.INVALID, Failure.OVERLOADED}
)
"""What tells that this send came to nothing, and nothing of an earlier one."""
SHORTEST_WAIT_MS: Final = 500


class Trouble(Struct, frozen=True):
    """One failure and where it leaves the work.

    `tries` counts what was sent to this entry in this phase, this one included; `more` says whether the
    route has another entry; `left_ms` is the time to the job's deadline; `chance` in [0, 1) spreads waits.
    `doubt`: an earlier send of this very work may have been taken, and what came now is not about that one.
    """

    phase: Phase
    kind: Failure
    tries: int
    more: bool
    left_ms: int
    idempotent: bool = False
    doubt: bool = False
    retry_after_ms: int | None = None
    chance: float = 0.5


def backoff_ms(tries: int, chance: float) -> int:
    """Return the wait after so many tries: doubling from half a second, at most 8 s, spread by half."""
    return int(min(8_000, SHORTEST_WAIT_MS * 2 ** min(tries - 1, 10)) * (0.75 + chance / 2))


def after(trouble: Trouble) -> Verdict:
    """Say what to do about a failure."""
    match trouble.phase:
        case Phase.POLL:
            return _after_poll(trouble)
        case Phase.FETCH:
            return _after_fetch(trouble)
        case _:
            return _after_paid(trouble)


def _after_paid(trouble: Trouble) -> Verdict:
    wait = backoff_ms(trouble.tries, trouble.chance)
    match trouble.kind:
        case kind if kind is Failure.UNKNOWN or (trouble.doubt and kind in _OF_THIS_SEND):
            wait = max(wait, min(trouble.retry_after_ms or 0, LONGEST_WAIT_MS))
            if trouble.idempotent and trouble.tries < RESEND_TRIES and wait < trouble.left_ms:
                return Again(wait, resend=True)
            return Stop("outcome_unknown", flag="outcome_unknown")
        case Failure.MALFORMED:
            return Stop("upstream_failed", flag="paid_and_unusable")
        case Failure.UNREACHABLE | Failure.OVERLOADED if trouble.tries < TRIES[trouble.kind]:
            return _if_time(trouble, max(wait, min(trouble.retry_after_ms or 0, LONGEST_WAIT_MS)))
        case Failure.RATE_LIMITED if not trouble.more:
            asked = trouble.retry_after_ms if trouble.retry_after_ms is not None else wait
            return _if_time(trouble, min(max(asked, SHORTEST_WAIT_MS), LONGEST_WAIT_MS))
        case Failure.LOST | Failure.EXPIRED:
            return Stop("upstream_failed")
        case _:
            return Next() if trouble.more else Stop("upstream_failed")


def _after_poll(trouble: Trouble) -> Verdict:
    """Polling costs nothing: it goes on until the deadline, slower where it is asked to."""
    if trouble.kind is Failure.LOST:
        return Stop("upstream_failed")
    wait = max(backoff_ms(trouble.tries, trouble.chance), trouble.retry_after_ms or 0)
    if wait < trouble.left_ms:
        return Again(wait)
    if trouble.kind is Failure.MALFORMED:
        return Stop("upstream_failed", flag="paid_and_unusable")
    return Stop("upstream_timeout", flag="paid_and_late")


def _after_fetch(trouble: Trouble) -> Verdict:
    """Fetching costs nothing either, but a link that is refused stays refused."""
    wait = max(backoff_ms(trouble.tries, trouble.chance), trouble.retry_after_ms or 0)
    hopeless = trouble.kind in (Failure.DENIED, Failure.INVALID, Failure.MALFORMED, Failure.EXPIRED)
    if hopeless or trouble.tries >= FETCH_TRIES or wait >= trouble.left_ms:
        return Stop("output_rejected", flag="paid_and_unusable")
    return Again(wait)


def _if_time(trouble: Trouble, wait: int) -> Verdict:
    if wait < trouble.left_ms:
        return Again(wait)
    return Next() if trouble.more else Stop("upstream_failed")
