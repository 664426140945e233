"""Decides whether this caller may do this, to this.

First who calls: `principal` reads the verified claims of a token by the names its issuer uses, and says
what is wrong with them rather than guess. Then what they may do: `may` asks roles and scopes, `may_see`
draws the line between tenants and between users, `plans_of` finds the two plans a caller is measured
by, `may_speak` asks the plan for a dialect. `mandate` bounds what a service key may be made to speak for:
never more than who makes it. Proving a token or a key is `gateway/auth.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from policies.bundle import Bundle, Plan
from policies.model import ALLOW, Allow, Deny, Dialect, Flaw, Principal, Reason, Role, ServiceKey

ClaimName = Annotated[str, Meta(min_length=1, max_length=256)]

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:|+=~-]{0,127}")
"""A tenant begins with a letter or digit, so that `_` and `*` never name one."""

SUBJECT: Final = re.compile(r"[A-Za-z0-9._@:|+/=~#%!?&*-]{1,128}")
"""`auth0|123`, e-mail addresses, UUIDs and URLs pass; quotes, brackets, spaces and controls do not.

ASCII alone, so every accepted name is NFC and equal names are equal bytes.
"""

PLAN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

KEY_ISSUER: Final = "urn:safelight:key"
"""The issuer of callers who come with a service key. No token has it."""

KEY_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{0,15}")


class ClaimNames(Struct, frozen=True, forbid_unknown_fields=True):
    """What an issuer calls the things we ask for.

    A name is looked up whole first, then as a path along its dots (`realm_access.roles`). `scopes` lists
    names of which the first present counts; an empty list says that this issuer's scopes are not ours.
    """

    tenant: ClaimName = "tenant"
    subject: ClaimName = "sub"
    roles: ClaimName = "roles"
    plan: ClaimName = "plan"
    scopes: tuple[ClaimName, ...] = ("scope", "scp")


class Action(enum.StrEnum):
    """What can be asked for, in the words of the scopes."""

    READ = "images:read"
    WRITE = "images:write"
    AUDIT = "audit"
    WEBHOOKS = "webhooks"


class KeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a new service key. Absent subject, plan and scopes are the caller's own."""

    label: Annotated[str, Meta(max_length=100, description="What people know it by.")] = ""
    subject: Annotated[str, Meta(max_length=128, description="Whom it speaks for.")] | None = None
    roles: Annotated[tuple[Role, ...], Meta(max_length=len(Role))] = (Role.USER,)
    plan: Annotated[str, Meta(max_length=64)] | None = None
    scopes: Annotated[tuple[Action, ...], Meta(min_length=1, max_length=len(Action))] | None = None
    prefix: Annotated[str, Meta(max_length=16, description="A letter, then letters and digits.")] = "sk"
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] = 365


class Mandate(Struct, frozen=True):
    """Whom a service key speaks for, and with what."""

    subject: str
    roles: tuple[Role, ...]
    plan: str | None
    scopes: tuple[Action, ...] | None


class Plans(Struct, frozen=True):
    """The plans a caller is measured by: `tenant` bounds what all share, `user` what this one may ask."""

    tenant: Plan
    user: Plan


def principal(
    claims: Mapping[str, Any], names: ClaimNames, *, issuer: str = "", expires_at: int
) -> Principal | Flaw:
    """Return who the verified claims speak of, or the first claim that cannot be used.

    Tenant and subject are required. Absent roles are a plain user's, roles we do not know are passed
    over, and every caller is a user. `expires_at` is in milliseconds.
    """
    tenant = _found(claims, names.tenant)
    subject = _found(claims, names.subject)
    roles = _words(_found(claims, names.roles), split=False)
    plan = _found(claims, names.plan)
    scopes = next((found for name in names.scopes if (found := _found(claims, name)) is not None), None)
    granted = _words(scopes, split=True)
    if not (isinstance(tenant, str) and TENANT.fullmatch(tenant)):
        return Flaw(names.tenant, "is not a tenant's name")
    if not (isinstance(subject, str) and SUBJECT.fullmatch(subject)):
        return Flaw(names.subject, "is not a subject's name")
    if roles is None:
        return Flaw(names.roles, "is not a list of words")
    if plan is not None and not (isinstance(plan, str) and PLAN.fullmatch(plan)):
        return Flaw(names.plan, "is not a plan's name")
    if granted is None:
        return Flaw("/".join(names.scopes), "is not a list of words")
    return Principal(
        tenant=tenant,
        subject=subject,
        roles=frozenset({Role.USER, *(role for role in Role if role in roles)}),
        plan=plan,
        scopes=None if scopes is None else granted,
        issuer=issuer,
        expires_at=expires_at,
    )


def _found(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim of that whole name, else the value along its dots; None where there is none."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def _words(value: Any, *, split: bool) -> frozenset[str] | None:
    """Return the words of a string or a list of strings, none for None; None for anything else."""
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split() if split else [value])
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return frozenset(value)
    return None


def may(who: Principal, action: Action) -> Allow | Deny:
    """Decide whether the caller may do this at all, wherever it is done.

    A token that has scopes must hold the action's; one without is bound by its roles alone. The trail
    is for the tenant's admins.
    """
    if who.scopes is not None and action not in who.scopes:
        return Deny(Reason.FORBIDDEN, f"The token lacks the scope `{action}`.")
    if action is Action.AUDIT and not who.is_admin:
        return Deny(Reason.FORBIDDEN, "The trail is for the tenant's admins.")
    return ALLOW


def may_see(who: Principal, tenant: str, subject: str) -> Allow | Deny:
    """Decide whether the caller sees what belongs to this tenant and subject; a refusal is a 404."""
    if who.tenant == tenant and (who.is_admin or who.subject == subject):
        return ALLOW
    return Deny(Reason.NOT_FOUND, "")


def plans_of(who: Principal, bundle: Bundle) -> Plans | Deny:
    """Return the tenant's plan and the caller's own, or why the caller has none.

    The tenant's plan bounds what its users share: credits, caps, the tenant's limits. A token's plan
    claim replaces it for this one caller: their limits, models, dialects. A claimed plan that does not
    exist is refused: to fall back could give more than the issuer meant.
    """
    row = bundle.tenant(who.tenant)
    if row is None:
        return Deny(Reason.FORBIDDEN, "The tenant has no access here.")
    if row.suspended:
        return Deny(Reason.TENANT_SUSPENDED, "")
    own = bundle.plans.get(who.plan or row.plan)
    shared = bundle.plans.get(row.plan)
    if own is None or shared is None:
        return Deny(Reason.FORBIDDEN, "The token names a plan that does not exist here.")
    return Plans(tenant=shared, user=own)


def may_speak(plans: Plans, dialect: Dialect) -> Allow | Deny:
    """Decide whether the caller's plan includes this client API."""
    if dialect in plans.user.dialects:
        return ALLOW
    return Deny(Reason.PLAN_REQUIRED, f"The plan does not include the `{dialect}` API.")


def may_keep_keys(who: Principal) -> Allow | Deny:
    """Decide whether the caller may make and revoke service keys at all.

    A key may not: whoever finds one could make themself others, and revoking the first would not help.
    """
    if who.issuer == KEY_ISSUER:
        return Deny(Reason.FORBIDDEN, "A service key makes and revokes no keys: use a token.")
    return ALLOW


def may_add_key(who: Principal, there: Collection[ServiceKey], most: int, now: int) -> Allow | Deny:
    """Decide whether the caller may make one more key than they have made; only live ones count."""
    mine = (key for key in there if key.created_by == who.subject)
    if sum(key.revoked_at is None and key.expires_at > now for key in mine) < most:
        return ALLOW
    told = f"The plan allows {most} service keys of one maker: revoke one that is not used."
    return Deny(Reason.KEY_LIMIT, told, rule="limit.keys")


def mandate(who: Principal, asked: KeyRequest, plans: Collection[str]) -> Mandate | Deny:
    """Decide whom a key the caller asks for speaks for, and with what. `plans` are those that exist.

    Nobody gives away what they do not have: roles, scopes and plan are the caller's own or fewer. The
    tenant's admins make keys for any of its subjects, a platform admin on any plan. No key is one's.
    """
    allowed = may_keep_keys(who)
    if isinstance(allowed, Deny):
        return allowed
    flaws = _key_flaws(asked)
    if flaws:
        return Deny(Reason.INVALID_REQUEST, "", flaws=flaws)
    subject = who.subject if asked.subject is None else asked.subject
    beyond = _beyond(who, asked, subject)
    if beyond is not None:
        return Deny(Reason.FORBIDDEN, beyond)
    if asked.plan is not None and asked.plan not in plans:
        return Deny(Reason.INVALID_REQUEST, "", flaws=(Flaw("/plan", "is not a plan here"),))
    own = who.plan if subject == who.subject else None
    granted = asked.scopes if asked.scopes is not None else who.scopes
    return Mandate(
        subject=subject,
        roles=tuple(role for role in Role if role is Role.USER or role in asked.roles),
        plan=own if asked.plan is None else asked.plan,
        scopes=None if granted is None else tuple(scope for scope in Action if scope in granted),
    )


def _key_flaws(asked: KeyRequest) -> tuple[Flaw, ...]:
    """Return what the fields' own bounds cannot say."""
    found = []
    if not asked.label.isprintable():
        found.append(Flaw("/label", "has letters that cannot be shown"))
    if asked.subject is not None and not SUBJECT.fullmatch(asked.subject):
        found.append(Flaw("/subject", "is not a subject's name"))
    if not KEY_PREFIX.fullmatch(asked.prefix):
        found.append(Flaw("/prefix", "must be a small letter, then at most 15 small letters and digits"))
    return tuple(found)


def _beyond(who: Principal, asked: KeyRequest, subject: str) -> str | None:
    """Return why what is asked is more than the caller may give; None where it is not."""
    if Role.PLATFORM_ADMIN in asked.roles:
        return "No service key is a platform admin's."
    if subject != who.subject and not who.is_admin:
        return "Keys of other subjects are made by the tenant's admins."
    if not {Role.USER, *who.roles} >= set(asked.roles):
        return "A service key has no role above its maker's."
    if asked.plan not in (None, who.plan) and Role.PLATFORM_ADMIN not in who.roles:
        return "Another plan than one's own is the operator's to give: plans are what tenants buy."
    if who.scopes is not None and not who.scopes >= set(asked.scopes or ()):
        return "A service key has no scope its maker lacks."
    return None


def bearer(key: ServiceKey) -> Principal:
    """Return who calls with a service key. Limits are its subject's, as if they came with a token."""
    return Principal(
        tenant=key.tenant,
        subject=key.subject,
        roles=frozenset({Role.USER, *key.roles}),
        plan=key.plan,
        scopes=None if key.scopes is None else frozenset(key.scopes),
        issuer=KEY_ISSUER,
        expires_at=key.expires_at,
    )
