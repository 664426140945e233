"""The use cases of service keys: what is kept, what is told, who may."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest

from gateway.audit import Record
from gateway.errors import Problem
from gateway.keys import Keys
from policies.access import KEY_ISSUER, KeyRequest
from policies.model import Account, Principal, Role, Usage, Window
from policies.quota import DAY_MS
from tests.fakes.jobs import NOON, PLAN, FakeJobs, uuid
from tests.fakes.keys import KeyShelf, desk

ANN = Principal("acme", "ann")
BOB = Principal("acme", "bob")
BOSS = Principal("acme", "boss", frozenset({Role.USER, Role.TENANT_ADMIN}))
CHIEF = Principal("other", "chief", BOSS.roles)
HOLDER = Principal("acme", "ann", issuer=KEY_ISSUER)


class Desk:
    """The use cases, their shelf, and whoever calls."""

    def __init__(self) -> None:
        self.jobs = FakeJobs()
        self.shelf = KeyShelf(self.jobs.now)
        self.keys: Keys = desk(self.shelf, self.jobs)

    async def make(self, who: Principal = ANN, **asked: Any) -> str:
        """Make a key and return its text."""
        return (await self.keys.create(self.jobs.admit_caller(who), KeyRequest(**asked))).text

    async def listed(self, who: Principal) -> list[str]:
        """Return the ids a caller is shown."""
        return [key.id for key in await self.keys.list(self.jobs.admit_caller(who))]

    async def revoke(self, who: Principal, key_id: str) -> None:
        """Revoke a key."""
        await self.keys.revoke(self.jobs.admit_caller(who), key_id)

    def exhaust(self) -> None:
        """Use up Ann's window of writes."""
        full = Account(granted=None, windows={"write": Window(NOON, 10_000)})
        self.shelf.usage = Usage(Account(), full)


@pytest.fixture
def place() -> Desk:
    """A desk with an empty shelf."""
    return Desk()


async def test_text_is_prefix_and_randomness(place: Desk) -> None:
    """A key is its prefix and 32 random bytes as base64url; what is kept is its hash and its last letters."""
    text = await place.make(prefix="gimg", label="ci", expires_in_days=30)
    (kept,) = place.shelf.keys
    prefix, _, letters = text.partition("_")
    assert (prefix, len(letters), len(base64.urlsafe_b64decode(letters + "="))) == ("gimg", 43, 32)
    assert kept.hash == hashlib.sha256(text.encode()).hexdigest()
    assert kept.hint == f"gimg_…{text[-4:]}"
    assert (kept.label, kept.created_by, kept.created_at) == ("ci", "ann", NOON)
    assert kept.expires_at == NOON + 30 * DAY_MS
    assert text not in repr(kept)


async def test_key_is_found_by_hash(place: Desk) -> None:
    """A key is found as it is at that moment, revoked ones too."""
    digest = hashlib.sha256((await place.make()).encode()).hexdigest()
    assert await place.keys.find(digest) == place.shelf.keys[0]
    await place.revoke(ANN, place.shelf.keys[0].id)
    found = await place.keys.find(digest)
    assert found is not None
    assert found.revoked_at == NOON
    assert await place.keys.find("0" * 64) is None


async def test_trail_tells_both_ends(place: Desk) -> None:
    """Making and revoking are told under whoever did it, with the key's highest role and none of its text."""
    await place.make(BOSS, subject="ann", roles=(Role.TENANT_ADMIN,))
    await place.revoke(BOSS, place.shelf.keys[0].id)
    assert place.shelf.told == [
        ("boss", Record("key.create", role="tenant_admin")),
        ("boss", Record("key.revoke", role="tenant_admin")),
    ]


@pytest.mark.parametrize(
    ("who", "asked", "code"),
    [
        (HOLDER, {}, "forbidden"),
        (ANN, {"subject": "bob"}, "forbidden"),
        (ANN, {"roles": (Role.TENANT_ADMIN,)}, "forbidden"),
        (BOSS, {"plan": "pro"}, "forbidden"),
        (msgspec.structs.replace(BOSS, roles=frozenset(Role)), {"plan": "none"}, "invalid_request"),
        (ANN, {"prefix": "no way"}, "invalid_request"),
    ],
)
async def test_refusals_keep_nothing(place: Desk, who: Principal, asked: dict[str, Any], code: str) -> None:
    """What may not be made is not; who asked for too much is on the trail, who misspelled is not."""
    with pytest.raises(Problem) as caught:
        await place.make(who, **asked)
    assert caught.value.code == code
    assert place.shelf.keys == []
    told = [("turned_away", (who.subject, "forbidden", "key.create"))]
    assert place.jobs.asked == (told if code == "forbidden" else [])


async def test_own_keys_are_listed(place: Desk) -> None:
    """A user sees the keys that speak for them, an admin the tenant's, newest first; never another's."""
    await place.make(ANN)
    await place.make(BOSS, subject="bob")
    await place.make(CHIEF)
    first, second, third = (key.id for key in place.shelf.keys)
    assert await place.listed(ANN) == [first]
    assert await place.listed(BOB) == [second]
    assert await place.listed(BOSS) == [second, first]
    assert await place.listed(CHIEF) == [third]
    assert await place.listed(HOLDER) == [first]


@pytest.mark.parametrize(
    ("who", "code"), [(BOB, "not_found"), (CHIEF, "not_found"), (HOLDER, "forbidden"), (ANN, ""), (BOSS, "")]
)
async def test_own_keys_are_revoked(place: Desk, who: Principal, code: str) -> None:
    """The subject and the tenant's admins revoke a key; to others there is none; a key revokes nothing."""
    await place.make(ANN)
    (key,) = place.shelf.keys
    if code:
        with pytest.raises(Problem) as caught:
            await place.revoke(who, key.id)
        assert caught.value.code == code
    else:
        await place.revoke(who, key.id)
    assert (place.shelf.keys[0].revoked_at is None) is bool(code)
    refused = ("turned_away", ("ann", "forbidden", "key.revoke"))
    assert (refused in place.jobs.asked) is (code == "forbidden")


async def test_revoking_again_changes_nothing(place: Desk) -> None:
    """A key is revoked once, at its first instant; an unknown one never."""
    await place.make()
    (key,) = place.shelf.keys
    await place.revoke(ANN, key.id)
    place.jobs.at += 1000
    await place.revoke(ANN, key.id)
    assert place.shelf.keys[0].revoked_at == NOON
    assert len(place.shelf.told) == 2
    with pytest.raises(Problem) as caught:
        await place.revoke(ANN, uuid(999))
    assert caught.value.code == "not_found"


async def test_keys_count_as_writes(place: Desk) -> None:
    """Making and revoking count against the window of writes, and are refused when it is full."""
    await place.make()
    assert place.shelf.usage.user.windows["write"].count == 1
    place.exhaust()
    with pytest.raises(Problem) as made:
        await place.make()
    with pytest.raises(Problem) as revoked:
        await place.revoke(ANN, place.shelf.keys[0].id)
    assert [caught.value.code for caught in (made, revoked)] == ["rate_limited"] * 2
    assert [key.revoked_at for key in place.shelf.keys] == [None]


async def test_one_key_too_many_is_refused(place: Desk) -> None:
    """As many live keys as the plan allows one maker may be made; one revoked makes room again."""
    for number in range(PLAN.keys):
        place.shelf.put(f"{number}", created_by="ann")
    with pytest.raises(Problem) as caught:
        await place.make()
    assert (caught.value.code, len(place.shelf.keys)) == ("key_limit", PLAN.keys)
    assert await place.make(BOSS, subject="ann")
    await place.revoke(ANN, place.shelf.keys[0].id)
    assert await place.make()


async def test_vanished_key_is_missing(place: Desk) -> None:
    """A key that goes between the look and the revocation is as if it had never been."""
    await place.make()
    (key,) = place.shelf.keys
    revoke = place.shelf.revoke_key

    async def too_late(*words: Any, **more: Any) -> Any:
        place.shelf.keys.clear()
        return await revoke(*words, **more)

    place.shelf.revoke_key = too_late  # type: ignore[method-assign] # the double's own
    with pytest.raises(Problem) as caught:
        await place.revoke(ANN, key.id)
    assert caught.value.code == "not_found"
