"""The use cases of service keys: make one, list them, revoke one.

What a key may speak for is asked of `policies/access.py`; what is kept of it is its hash, and its text is
returned once, to whoever asked for it. That a bearer is a key's, and whose, is `auth.py`: nothing here is
remembered between two calls. Foreign and unknown keys are the same 404.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.audit import Record
from gateway.auth import key_digest
from gateway.errors import Problem
from gateway.store.contract import Absent, Denied
from policies import access, quota
from policies.access import KeyRequest
from policies.model import Deny, Reason, ServiceKey
from policies.quota import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    from gateway.callers import Caller
    from gateway.store.contract import Count, Store
    from policies.model import Principal

    TurnedAway = Callable[[Principal, str, str], Awaitable[None]]
    """Tells the trail of a caller who may not do what they asked: who, the code, what for."""

KEY_BYTES: Final = 32
SHOWN_LETTERS: Final = 4
"""Letters of a key's end that people may know it by; the others are 234 bits and more."""


class Made(Struct, frozen=True):
    """A new key, and its text: nobody can be told that again."""

    key: ServiceKey
    text: str


class Keys:
    """The use cases. `plans` returns the plans in force by name, `mint` a new id, `coin` random bytes."""

    def __init__(
        self,
        store: Store,
        plans: Callable[[], Collection[str]],
        turned_away: TurnedAway,
        mint: Callable[[], str],
        coin: Callable[[int], bytes],
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._plans = plans
        self._turned_away = turned_away
        self._mint = mint
        self._coin = coin
        self._now = now

    async def create(self, who: Caller, asked: KeyRequest) -> Made:
        """Make a key that speaks for what was asked; raises `Problem` where that is more than may be.

        One key too many is refused, and told to the trail.
        """
        principal = who.principal
        mandate = access.mandate(principal, asked, self._plans())
        if isinstance(mandate, Deny):
            raise await self._refused(principal, mandate, "key.create")
        text = f"{asked.prefix}_{base64.urlsafe_b64encode(self._coin(KEY_BYTES)).rstrip(b'=').decode()}"
        now = self._now()
        key = ServiceKey(
            id=self._mint(),
            tenant=principal.tenant,
            subject=mandate.subject,
            hash=key_digest(text.encode()),
            hint=f"{asked.prefix}_…{text[-SHOWN_LETTERS:]}",
            label=asked.label,
            roles=mandate.roles,
            plan=mandate.plan,
            scopes=mandate.scopes,
            created_by=principal.subject,
            created_at=now,
            expires_at=now + asked.expires_in_days * DAY_MS,
        )
        record = Record(action="key.create", role=str(mandate.roles[-1]))
        kept = await self._store.put_key(key, await self._count(who, now), record, by=principal.subject)
        if isinstance(kept, Denied):
            raise Problem.of(kept.deny)
        return Made(key, text)

    async def _count(self, who: Caller, now: int) -> Count:
        """Return the rule a new key is counted by: the maker's other keys first, then the write.

        Keys are looked at before the commit, so of those made at once some may be too many.
        """
        there = await self._store.list_keys(who.principal.tenant)
        allowed = access.may_add_key(who.principal, there, who.user_plan.keys, now)
        if isinstance(allowed, Deny):
            return lambda _usage, _now: allowed
        return quota.write(who.terms)

    async def find(self, digest: str) -> ServiceKey | None:
        """Return the key of a hash, as it is at this moment, revoked and expired ones too."""
        return await self._store.find_key(digest)

    async def list(self, who: Caller) -> tuple[ServiceKey, ...]:
        """Return the keys that speak for the caller, or the tenant's for its admins, newest first."""
        principal = who.principal
        keys = await self._store.list_keys(principal.tenant)
        return tuple(
            key for key in keys if not isinstance(access.may_see(principal, key.tenant, key.subject), Deny)
        )

    async def revoke(self, who: Caller, key_id: str) -> None:
        """Revoke a key, for ever: the next request that comes with it is refused. May be repeated."""
        principal = who.principal
        allowed = access.may_keep_keys(principal)
        if isinstance(allowed, Deny):
            raise await self._refused(principal, allowed, "key.revoke")
        key = next((key for key in await self.list(who) if key.id == key_id), None)
        if key is None:
            raise Problem("not_found")
        record = Record(action="key.revoke", role=str(key.roles[-1]))
        answer = await self._store.revoke_key(
            principal.tenant, key_id, quota.write(who.terms), record, by=principal.subject
        )
        match answer:
            case Absent():
                raise Problem("not_found")
            case Denied(deny, _):
                raise Problem.of(deny)

    async def _refused(self, principal: Principal, deny: Deny, action: str) -> Problem:
        """Return the problem to raise, once the trail knows of what was more than a mistake."""
        if deny.reason is Reason.FORBIDDEN:
            await self._turned_away(principal, str(deny.reason), action)
        return Problem.of(deny)
