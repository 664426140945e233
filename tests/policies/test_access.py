"""Who the claims speak of, what they may do, and which plans measure them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import access
from policies.access import (
    KEY_ISSUER,
    Action,
    ClaimNames,
    KeyRequest,
    Mandate,
    Plans,
    mandate,
    may,
    may_add_key,
    may_keep_keys,
    may_see,
    may_speak,
    plans_of,
)
from policies.bundle import Bundle, Plan, TenantRow
from policies.model import ALLOW, Deny, Dialect, Flaw, Principal, Reason, Role, ServiceKey

GOOD: dict[str, Any] = {"tenant": "acme", "sub": "ann"}
ANN = Principal(tenant="acme", subject="ann")


def read(claims: dict[str, Any], **names: Any) -> Principal | Flaw:
    """Read claims as the policy does for one issuer."""
    return access.principal(claims, ClaimNames(**names), issuer="https://login.example.com", expires_at=9)


def plan(**changes: Any) -> Plan:
    """Make a small plan, changed in some fields."""
    shape: dict[str, Any] = {
        "credits_per_month": 100,
        "monthly_cap": 100,
        "submit_per_hour": {"user": 60, "tenant": 600},
        "in_flight": {"user": 1, "tenant": 10},
        "streams": 2,
        "count": 1,
        "prompt": 1000,
        "models": ["standard"],
    }
    return msgspec.convert(shape | changes, Plan)


FREE, PRO = plan(), plan(count=4, dialects=["native", "openai"])


def bundle(**tenants: TenantRow) -> Bundle:
    """Make documents with these tenant rows."""
    return Bundle(plans={"free": FREE, "pro": PRO}, tenants=tenants, models={}, prices=())


def test_claims_become_a_principal() -> None:
    """Tenant and subject make a plain user without plan or scopes, of this issuer, until this time."""
    assert read(GOOD) == Principal(
        tenant="acme",
        subject="ann",
        roles=frozenset({Role.USER}),
        issuer="https://login.example.com",
        expires_at=9,
    )


@pytest.mark.parametrize(
    ("claims", "names", "field", "value"),
    [
        ({"org": "b"}, {"tenant": "org"}, "tenant", "b"),
        ({"a": {"b": {"c": "d"}}}, {"tenant": "a.b.c"}, "tenant", "d"),
        ({"https://x.io/org": "b"}, {"tenant": "https://x.io/org"}, "tenant", "b"),
        ({"a.b": "whole", "a": {"b": "path"}}, {"tenant": "a.b"}, "tenant", "whole"),
        ({"uid": "u"}, {"subject": "uid"}, "subject", "u"),
        ({"plan": "pro"}, {}, "plan", "pro"),
        ({"plan": None}, {}, "plan", None),
        ({"roles": "tenant_admin"}, {}, "roles", {Role.USER, Role.TENANT_ADMIN}),
        ({"roles": ["platform_admin"]}, {}, "roles", {Role.USER, Role.PLATFORM_ADMIN}),
        ({"roles": ["editor", "TENANT_ADMIN"]}, {}, "roles", {Role.USER}),
        ({"roles": []}, {}, "roles", {Role.USER}),
        (
            {"realm": {"roles": ["tenant_admin"]}},
            {"roles": "realm.roles"},
            "roles",
            {Role.USER, Role.TENANT_ADMIN},
        ),
        ({"realm": ["tenant_admin"]}, {"roles": "realm.roles"}, "roles", {Role.USER}),
        ({"scope": "openid images:read"}, {}, "scopes", {"openid", "images:read"}),
        ({"scope": ""}, {}, "scopes", frozenset()),
        ({"scp": ["audit"]}, {}, "scopes", {"audit"}),
        ({"scope": ["audit"], "scp": "webhooks"}, {}, "scopes", {"audit"}),
        ({"scope": "openid"}, {"scopes": ()}, "scopes", None),
    ],
)
def test_claims_are_found_by_name(
    claims: dict[str, Any], names: dict[str, Any], field: str, value: object
) -> None:
    """A claim is found by its whole name, else along its dots, and read in each form issuers write."""
    who = read(GOOD | claims, **names)
    assert isinstance(who, Principal)
    assert getattr(who, field) == value


@pytest.mark.parametrize(
    "subject",
    [
        "auth0|123",
        "ann@example.com",
        "a+b@x.io",
        "0b7e6a2c-1f0e-7c4f-8a63-0d4f0a6f6f9e",
        "_f3",
        "-x_",
        "https://id.example.com/users/7?v=1#me",
        "system:serviceaccount:ns:name",
        "x" * 128,
    ],
)
def test_usual_subjects_are_accepted(subject: str) -> None:
    """The forms of subject that identity providers issue pass unchanged."""
    who = read(GOOD | {"sub": subject})
    assert isinstance(who, Principal)
    assert who.subject == subject


VALUES = st.text("aZ09_.@|/ \n\0\x7f\u00e9\ud800'\"{}", max_size=5) | st.integers()
WRONG = [
    "",
    " ",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "é",
    "e\u0301",
    "\ud800",
    "\u202e",
    "\uff41",
    "a{b}",
    'a"',
    "x" * 129,
]
WRONG_TYPES = [None, 7, True, 1.5, [], ["acme"], {}, {"x": 1}]


@pytest.mark.parametrize("value", [*WRONG, *WRONG_TYPES])
@pytest.mark.parametrize("name", ["tenant", "sub"])
def test_unsafe_names_are_refused(name: str, value: object) -> None:
    """A tenant or subject outside the safe alphabet, or no text at all, is a flaw of that claim."""
    flaw = read(GOOD | {name: value})
    assert isinstance(flaw, Flaw)
    assert flaw.pointer == name


@pytest.mark.parametrize("tenant", ["_", "*", "-a", ".", "@x", "a/b", "a'b"])
def test_tenants_begin_with_letters(tenant: str) -> None:
    """A tenant begins with a letter or digit and holds no slash: `_` and `*` can never be one."""
    assert isinstance(read(GOOD | {"tenant": tenant}), Flaw)


@pytest.mark.parametrize(
    ("name", "value"),
    [("roles", value) for value in (7, True, {"a": 1}, [1], ["user", None], [["user"]])]
    + [("plan", value) for value in (7, True, "", "a b", "-x", ["pro"], "p" * 65, "pro\n")]
    + [("scope", value) for value in (7, False, {"a": 1}, [1], ["audit", None])],
)
def test_malformed_claims_are_refused(name: str, value: object) -> None:
    """Roles, plan or scopes of a wrong form refuse the token: nothing is guessed."""
    flaw = read(GOOD | {name: value})
    assert isinstance(flaw, Flaw)
    assert name in flaw.pointer


@given(st.dictionaries(st.sampled_from(["tenant", "sub", "roles", "plan", "scope"]), VALUES))
def test_any_claims_are_judged(claims: dict[str, Any]) -> None:
    """Whatever the claims hold, the answer is a flaw or a principal whose names are safe ASCII."""
    who = read(claims)
    if isinstance(who, Principal):
        assert who.tenant.isascii()
        assert who.tenant.isprintable()
        assert " " not in who.tenant + who.subject


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(
    ("roles", "scopes", "allowed"),
    [
        ({Role.USER}, None, {"images:read", "images:write", "webhooks"}),
        ({Role.USER, Role.TENANT_ADMIN}, None, {"images:read", "images:write", "webhooks", "audit"}),
        ({Role.USER, Role.PLATFORM_ADMIN}, None, {"images:read", "images:write", "webhooks"}),
        ({Role.USER}, {"images:read"}, {"images:read"}),
        ({Role.USER}, {"audit"}, set()),
        ({Role.USER, Role.TENANT_ADMIN}, {"audit"}, {"audit"}),
        ({Role.USER, Role.TENANT_ADMIN}, {"openid", "profile"}, set()),
        ({Role.USER}, {"images:*", "IMAGES:READ"}, set()),
        ({Role.USER}, set(), set()),
    ],
)
def test_scopes_and_roles_both_bind(
    action: Action, roles: set[Role], scopes: set[str] | None, allowed: set[str]
) -> None:
    """An action needs its role always, and its exact scope where the token has scopes."""
    who = Principal("acme", "ann", frozenset(roles), None, None if scopes is None else frozenset(scopes))
    verdict = may(who, action)
    assert (verdict == ALLOW) is (action in allowed)
    assert verdict == ALLOW or (isinstance(verdict, Deny) and verdict.reason is Reason.FORBIDDEN)


@pytest.mark.parametrize(
    ("roles", "tenant", "subject", "seen"),
    [
        ({Role.USER}, "acme", "ann", True),
        ({Role.USER}, "acme", "bob", False),
        ({Role.USER}, "other", "ann", False),
        ({Role.USER, Role.TENANT_ADMIN}, "acme", "bob", True),
        ({Role.USER, Role.TENANT_ADMIN}, "other", "ann", False),
        ({Role.USER, Role.PLATFORM_ADMIN}, "acme", "bob", False),
        ({Role.USER, Role.PLATFORM_ADMIN}, "other", "ann", False),
    ],
)
def test_sight_ends_at_the_tenant(roles: set[Role], tenant: str, subject: str, *, seen: bool) -> None:
    """A user sees their own, a tenant's admin the tenant's, and nobody another tenant's."""
    verdict = may_see(Principal("acme", "ann", frozenset(roles)), tenant, subject)
    assert verdict == (ALLOW if seen else Deny(Reason.NOT_FOUND, ""))


@pytest.mark.parametrize(
    ("claimed", "plans"),
    [(None, Plans(tenant=PRO, user=PRO)), ("free", Plans(tenant=PRO, user=FREE))],
)
def test_claimed_plan_is_the_users(claimed: str | None, plans: Plans) -> None:
    """The tenant's plan measures the tenant whatever the token claims; the claim measures its user."""
    who = msgspec.structs.replace(ANN, plan=claimed)
    assert plans_of(who, bundle(acme=TenantRow("pro"))) == plans


def test_star_stands_for_others() -> None:
    """A tenant that is not named is measured by the row `*`."""
    assert plans_of(ANN, bundle(**{"*": TenantRow("free")})) == Plans(tenant=FREE, user=FREE)


@pytest.mark.parametrize(
    ("claimed", "rows", "reason"),
    [
        (None, {}, Reason.FORBIDDEN),
        (None, {"other": TenantRow("pro")}, Reason.FORBIDDEN),
        ("gold", {"acme": TenantRow("pro")}, Reason.FORBIDDEN),
        ("pro", {"acme": TenantRow("gone")}, Reason.FORBIDDEN),
        ("pro", {"acme": TenantRow("pro", suspended=True)}, Reason.TENANT_SUSPENDED),
        (None, {"acme": TenantRow("pro", suspended=True), "*": TenantRow("pro")}, Reason.TENANT_SUSPENDED),
    ],
)
def test_plans_are_never_guessed(claimed: str | None, rows: dict[str, TenantRow], reason: Reason) -> None:
    """No row, a suspended row or a plan that does not exist denies; nothing falls back to another plan."""
    verdict = plans_of(msgspec.structs.replace(ANN, plan=claimed), bundle(**rows))
    assert isinstance(verdict, Deny)
    assert verdict.reason is reason


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [("native", None), ("openai", None), ("gptimage2_plus", Reason.PLAN_REQUIRED)],
)
def test_plan_gates_the_dialects(dialect: Dialect, reason: Reason | None) -> None:
    """The caller's own plan says which client APIs are open to them."""
    verdict = may_speak(Plans(tenant=FREE, user=PRO), dialect)
    assert (verdict.reason if isinstance(verdict, Deny) else None) is reason


BOSS = Principal("acme", "boss", frozenset({Role.USER, Role.TENANT_ADMIN}))
ROOT = Principal("acme", "root", frozenset({Role.USER, Role.PLATFORM_ADMIN}))
OPERATOR = Principal("acme", "operator", frozenset(Role))
LENT = Principal("acme", "ann", plan="pro", scopes=frozenset({"openid", "images:read", "images:write"}))
USER = (Role.USER,)
ADMIN = (Role.USER, Role.TENANT_ADMIN)


def asked(who: Principal, **fields: Any) -> Mandate | Deny:
    """Ask for a key where the plans are `free` and `pro`."""
    return mandate(who, msgspec.convert(fields, KeyRequest), {"free", "pro"})


@pytest.mark.parametrize(
    ("who", "fields", "expected"),
    [
        (ANN, {}, Mandate("ann", USER, None, None)),
        (ANN, {"subject": "ann", "roles": []}, Mandate("ann", USER, None, None)),
        (ANN, {"scopes": ["audit", "images:read"]}, Mandate("ann", USER, None, (Action.READ, Action.AUDIT))),
        (LENT, {}, Mandate("ann", USER, "pro", (Action.READ, Action.WRITE))),
        (LENT, {"plan": "pro", "scopes": ["images:read"]}, Mandate("ann", USER, "pro", (Action.READ,))),
        (BOSS, {}, Mandate("boss", USER, None, None)),
        (BOSS, {"roles": ["tenant_admin"]}, Mandate("boss", ADMIN, None, None)),
        (OPERATOR, {"subject": "bob", "plan": "free"}, Mandate("bob", USER, "free", None)),
        (
            msgspec.structs.replace(BOSS, plan="pro"),
            {"subject": "bob"},
            Mandate("bob", USER, None, None),
        ),
        (ROOT, {}, Mandate("root", USER, None, None)),
    ],
)
def test_keys_speak_for_their_makers(who: Principal, fields: dict[str, Any], expected: Mandate) -> None:
    """What is not asked for is the maker's own; another subject's key has the tenant's plan."""
    assert asked(who, **fields) == expected


def key(**fields: Any) -> ServiceKey:
    """Make a key of Ann's that is good until the instant 100, changed in some fields."""
    made: dict[str, Any] = {"id": "k", "tenant": "acme", "subject": "ann", "hash": "", "hint": ""}
    return ServiceKey(**{**made, "created_by": "ann", "expires_at": 100, **fields})


@pytest.mark.parametrize(
    ("there", "now", "allowed"),
    [
        ([], 0, True),
        ([key()], 0, True),
        ([key(), key()], 0, False),
        ([key(), key()], 99, False),
        ([key(), key()], 100, True),
        ([key(), key(revoked_at=0)], 0, True),
        ([key(), key(created_by="boss")], 0, True),
        ([key(), key(subject="bob")], 0, False),
    ],
)
def test_live_keys_of_a_maker_count(there: list[ServiceKey], now: int, *, allowed: bool) -> None:
    """Of a maker's keys, whomever they speak for, those count that are neither revoked nor expired."""
    answer = may_add_key(ANN, there, 2, now)
    assert answer == ALLOW if allowed else isinstance(answer, Deny)
    if isinstance(answer, Deny):
        assert (answer.reason, answer.rule) == (Reason.KEY_LIMIT, "limit.keys")


@pytest.mark.parametrize(
    ("who", "fields", "words"),
    [
        (ANN, {"subject": "bob"}, "other subjects"),
        (ANN, {"roles": ["tenant_admin"]}, "role above"),
        (ANN, {"plan": "free"}, "Another plan"),
        (ANN, {"plan": "no such plan"}, "Another plan"),
        (LENT, {"plan": "free"}, "Another plan"),
        (BOSS, {"subject": "bob", "plan": "pro"}, "Another plan"),
        (LENT, {"scopes": ["images:read", "audit"]}, "no scope"),
        (BOSS, {"roles": ["platform_admin"]}, "platform admin's"),
        (ROOT, {"roles": ["platform_admin"]}, "platform admin's"),
        (ROOT, {"roles": ["tenant_admin"]}, "role above"),
        (ROOT, {"subject": "bob"}, "other subjects"),
        (msgspec.structs.replace(BOSS, issuer=KEY_ISSUER), {}, "makes and revokes no keys"),
    ],
)
def test_keys_exceed_nobody(who: Principal, fields: dict[str, Any], words: str) -> None:
    """Whoever asks for more than they have is refused, and told which of it."""
    denied = asked(who, **fields)
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.FORBIDDEN
    assert words in denied.detail


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"label": "a\nb"}, ["/label"]),
        ({"label": "a\u202eb"}, ["/label"]),
        ({"subject": "a b"}, ["/subject"]),
        ({"subject": ""}, ["/subject"]),
        ({"prefix": ""}, ["/prefix"]),
        ({"prefix": "sk_"}, ["/prefix"]),
        ({"prefix": "Sk"}, ["/prefix"]),
        ({"prefix": "1k"}, ["/prefix"]),
        ({"prefix": "sk\n"}, ["/prefix"]),
        ({"plan": "max"}, ["/plan"]),
        ({"label": "\x00", "subject": "\x00", "prefix": "é"}, ["/label", "/subject", "/prefix"]),
    ],
)
def test_key_mistakes_have_places(fields: dict[str, Any], places: list[str]) -> None:
    """What no key can be is told with its place, all of it at once, even to the operator."""
    denied = asked(OPERATOR, **fields)
    assert isinstance(denied, Deny)
    assert denied.reason is Reason.INVALID_REQUEST
    assert [flaw.pointer for flaw in denied.flaws] == places


ROLES = st.lists(st.sampled_from(Role), max_size=3)
SCOPES = st.lists(st.sampled_from(Action), min_size=1, max_size=4) | st.none()


@given(ROLES, SCOPES, ROLES, SCOPES, st.sampled_from([None, "free", "pro"]), st.sampled_from(["ann", "bob"]))
def test_no_key_gains_power(
    own: list[Role],
    held: list[Action] | None,
    roles: list[Role],
    scopes: list[Action] | None,
    plan: str | None,
    subject: str,
) -> None:
    """Whatever is asked by whom, a key may do nothing that its maker may not, and makes no other key."""
    who = Principal("acme", "ann", frozenset(own), "pro", None if held is None else frozenset(held))
    wanted = None if scopes is None else tuple(scopes)
    found = mandate(who, KeyRequest("", subject, tuple(roles), plan, wanted), {"free", "pro"})
    if isinstance(found, Deny):
        return
    key = ServiceKey("1", "acme", found.subject, "", "", "", found.roles, found.plan, found.scopes)
    holder = access.bearer(key)
    assert holder.roles - who.roles <= {Role.USER}
    assert Role.PLATFORM_ADMIN not in holder.roles
    assert all(may(who, action) == ALLOW for action in Action if may(holder, action) == ALLOW)
    assert who.is_admin or holder.subject == who.subject
    assert holder.plan in (None, who.plan) or Role.PLATFORM_ADMIN in who.roles
    assert isinstance(may_keep_keys(holder), Deny)
    assert may_keep_keys(who) == ALLOW


def test_bearer_is_what_key_says() -> None:
    """Who comes with a key is its subject, with its roles, plan, scopes and expiry, and no issuer's token."""
    key = ServiceKey("1", "acme", "ann", "", "", "", ADMIN, "pro", ("audit",), expires_at=7)
    assert access.bearer(key) == Principal(
        "acme", "ann", frozenset(ADMIN), "pro", frozenset({"audit"}), "urn:safelight:key", 7
    )
    assert access.bearer(msgspec.structs.replace(key, roles=(), scopes=None)).scopes is None
    assert access.bearer(msgspec.structs.replace(key, roles=())).roles == {Role.USER}
