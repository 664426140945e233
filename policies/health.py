"""Is this upstream to be asked now? The breaker's rule: a window of outcomes in, an answer out.

Closed while most calls get an answer; open for a while after too many did not; then one call at a time
is let through, and what becomes of it decides. Whose outcome counts is the caller's to say: trouble of
the upstream, not a refusal of ours. Held per provider entry by the process, never stored.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, structs

from policies.model import Millis

WINDOW: Final = 20
"""Outcomes remembered."""
WINDOW_MS: Final = 60_000
"""How long an outcome counts."""
ENOUGH: Final = 5
"""Outcomes below which nothing is concluded."""
COOL_MS: Final = 10_000
"""First pause; doubled by each probe that fails."""
MAX_COOL_MS: Final = 120_000


class Health(Struct, frozen=True):
    """What is known of one upstream. `recent` holds (instant, ok), oldest first.

    `cool_ms` above 0 means open: nothing is asked before `ask_at`, and then one probe a pause. A probe
    that never reports is followed by another after the next pause.
    """

    recent: tuple[tuple[Millis, bool], ...] = ()
    cool_ms: int = 0
    ask_at: Millis = 0
    probing: bool = False


def may_ask(health: Health, now: Millis) -> bool:
    """Whether to send another request now."""
    return health.cool_ms == 0 or now >= health.ask_at


def asked(health: Health, now: Millis) -> Health:
    """Note that a request goes out. While open it is the probe: the next waits for another pause."""
    if health.cool_ms == 0:
        return health
    return structs.replace(health, ask_at=now + health.cool_ms, probing=True)


def observe(health: Health, ok: bool, now: Millis) -> Health:  # noqa: FBT001 - the outcome is the question
    """Take one outcome in: open when half or more of enough recent calls failed.

    While open, a success closes and the past is forgotten; a failed probe doubles the pause. Failures of
    calls that were under way when it opened change nothing more.
    """
    if health.cool_ms:
        return Health() if ok else _fail_probe(health, now)
    since = now - WINDOW_MS
    recent = (*(seen for seen in health.recent if seen[0] > since), (now, ok))[-WINDOW:]
    failed = sum(1 for _, good in recent if not good)
    if len(recent) >= ENOUGH and failed * 2 >= len(recent):
        return Health(cool_ms=COOL_MS, ask_at=now + COOL_MS)
    return Health(recent)


def _fail_probe(health: Health, now: Millis) -> Health:
    """Lengthen the pause, once a probe."""
    if not health.probing:
        return health
    cool = min(health.cool_ms * 2, MAX_COOL_MS)
    return Health(cool_ms=cool, ask_at=now + cool)
