"""How a job is asked for, besides what is asked: values between those who ask and `jobs`.

A dialect says in a `Manner` what its own document promises; whoever keeps inputs says in `Pinned` what an
edit begins from. Nothing is done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

from msgspec import Struct

from policies.model import Deny, Dialect, Job, JobRequest, Source

if TYPE_CHECKING:
    from gateway.callers import Caller


class Manner(Struct, frozen=True):
    """How a job is asked for, besides what: in which dialect, and what that dialect promises of outputs.

    `tier` is the class of size it stands for, whatever size was named. `links` None is the plan's choice.
    `repeat` is what a dialect without idempotency keys goes by: a first send, or a retry that attaches to
    what was sent at most `within_ms` ago.
    `aliases`: models may be asked for by what other APIs call them.
    """

    dialect: Dialect = "native"
    tier: Literal["1K", "2K"] | None = None
    variants: tuple[Literal["webp"], ...] = ()
    links: Literal["signed", "durable"] | None = None
    repeat: Literal["attach", "renew"] | None = None
    within_ms: int = 3_600_000
    aliases: bool = False


NATIVE: Final = Manner()


class Pinned(Struct, frozen=True):
    """What an edit begins from, as it stood at submit."""

    sources: tuple[Source, ...] = ()
    mask: Source | None = None


class Pins(Protocol):
    """Looks at what a request brings."""

    async def pin(self, who: Caller, request: JobRequest) -> Pinned | Deny:
        """Return the inputs of an edit, judged; or which one cannot be used, and why."""
        ...

    async def look(self, who: Caller, request: JobRequest) -> Deny | None:
        """Return why `pin` would refuse, as far as that is seen without any bytes."""
        ...

    async def forget(self, job: Job) -> None:
        """Drop what a job was made from and no open one begins from."""
        ...
