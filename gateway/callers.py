"""Who calls: a principal with the plans and limits they are measured by, and those who are turned away.

What is in force is asked each time and kept by its version, so that a bundle that changes holds from the
next call on. What a caller may do is for `policies/access.py` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.audit import Record
from gateway.errors import Problem
from policies import access, prompts, quota
from policies.bundle import Bundle, Plan
from policies.model import Deny, Principal
from policies.routing import Offer, Router

if TYPE_CHECKING:
    from gateway.store.contract import Store

CALLERS_KEPT: Final = 10_000
MINUTE_MS: Final = 60_000


class Rulebook(Struct, frozen=True):
    """The bundle in force, made ready to be asked: swapped whole."""

    bundle: Bundle
    version: str
    rules: prompts.CompiledRules
    router: Router

    @classmethod
    def of(cls, bundle: Bundle, offers: tuple[Offer, ...]) -> Rulebook:
        """Join a bundle with what is configured."""
        rules = prompts.compile_rules(bundle.prompt_rules)
        return cls(bundle, bundle.version(), rules, Router(bundle, offers))


class Caller(Struct, frozen=True):
    """Who calls, and the plans and limits they are measured by."""

    principal: Principal
    tenant_plan: Plan
    user_plan: Plan
    terms: quota.Terms


class Callers:
    """Those who call. `rulebook` returns the bundle in force, `now` the instant in milliseconds."""

    def __init__(self, store: Store, rulebook: Callable[[], Rulebook], now: Callable[[], int]) -> None:
        self._store = store
        self._rulebook = rulebook
        self._now = now
        self._callers: dict[Principal, tuple[str, Caller]] = {}
        self._away: dict[tuple[str, str, str, str], tuple[int, int]] = {}

    def admit_caller(self, principal: Principal) -> Caller:
        """Return the caller with plans and limits; raises `Problem` for one without access."""
        book = self._rulebook()
        kept = self._callers.get(principal)
        if kept is not None and kept[0] == book.version:
            return kept[1]
        plans = access.plans_of(principal, book.bundle)
        if isinstance(plans, Deny):
            raise Problem.of(plans)
        caller = Caller(principal, plans.tenant, plans.user, quota.terms(plans.tenant, plans.user))
        if len(self._callers) >= CALLERS_KEPT:
            del self._callers[next(iter(self._callers))]
        self._callers[principal] = (book.version, caller)
        return caller

    async def turned_away(self, who: Principal, code: str, rule: str) -> None:
        """Tell the trail of a caller who may not do what they asked; a tenant without access has none.

        Equal refusals of a minute are one line; those in between are counted in the next.
        """
        if self._rulebook().bundle.tenant(who.tenant) is None:
            return
        now = self._now()
        name = (who.tenant, who.subject, code, rule)
        told_at, more = self._away.get(name, (now - MINUTE_MS, 0))
        if now - told_at < MINUTE_MS:
            self._away[name] = (told_at, more + 1)
            return
        if len(self._away) >= CALLERS_KEPT:
            self._away.clear()
        self._away[name] = (now, 0)
        record = Record(action="access", decision="deny", code=code, rule=rule, count=more + 1)
        await self._store.append_audit(who.tenant, who.subject, record)
