"""Webhook endpoints: changed by a rule over all of a tenant's, one at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.store.contract import Absent, Denied, Dropped, Kept
from policies.model import Deny, Reason
from policies.webhooks import Endpoint
from tests.contracts.beside import (
    NO_WRITES,
    TOLD,
    all_of,
    ended,
    endpoint,
    hooked,
    lines,
    putting,
    register,
    trials,
    writes,
)
from tests.contracts.rig import Rig, counting

if TYPE_CHECKING:
    from gateway.store.engine import Engine

FULL = Deny(Reason.FORBIDDEN, "There are five.", rule="limit.webhooks")


async def test_rule_sees_all_endpoints(rig: Rig, store: Engine) -> None:
    """Of sixty-four registrations at once as many succeed as the rule admits, each seeing those before."""

    async def add(fresh: Endpoint) -> object:
        def rule(there: tuple[Endpoint, ...], _now: int) -> Endpoint | Deny:
            return fresh if len(there) < 5 else FULL

        return await store.change_endpoint("acme", rule, counting(), TOLD, by="ann")

    answers = await asyncio.gather(*(add(endpoint(rig)) for _ in range(64)))
    assert Counter(type(answer) for answer in answers) == {Kept: 5, Denied: 59}
    assert len(await store.list_endpoints("acme")) == await writes(store) == 5
    denials = [line for line in await lines(store) if line.decision == "deny"]
    assert sum(line.count for line in denials) == 59
    assert {(line.code, line.rule) for line in denials} == {("forbidden", "limit.webhooks")}


async def test_endpoints_are_listed_oldest_first(rig: Rig, store: Engine) -> None:
    """A tenant's endpoints come in the order they were made, as they are now, after a restart too."""
    hooks = []
    for _ in range(3):
        hooks.append(await hooked(rig, store))
        rig.clock.forward(1)
    await hooked(rig, store, tenant="other")
    hooks[0] = replace(hooks[0], label="ours")
    assert await register(store, hooks[0]) == Kept(hooks[0], replayed=True)
    assert await store.list_endpoints("acme") == hooks
    await rig.shut(store)
    assert await (await rig.open()).list_endpoints("acme") == hooks


async def test_dropped_endpoint_takes_deliveries(rig: Rig, store: Engine) -> None:
    """With an endpoint go its deliveries and no other's; what ends afterwards is told to the rest."""
    one, two = await hooked(rig, store), await hooked(rig, store)
    await ended(rig, store)
    await trials(rig, store, one, 3)
    dropped = await store.change_endpoint("acme", putting(Dropped(one.id)), counting(), TOLD, by="ann")
    assert dropped == Dropped(one.id)
    assert await store.list_endpoints("acme") == [two]
    assert await all_of(store, one) == ()
    await ended(rig, store)
    assert len(await all_of(store, two)) == 2


async def test_absent_endpoints_cost_nothing(rig: Rig, store: Engine) -> None:
    """A rule that finds nothing, or drops what is not there, is answered so, uncounted and untold."""
    for rule in (putting(None), putting(Dropped(rig.uuid()))):
        assert await store.change_endpoint("acme", rule, counting(), TOLD, by="ann") == Absent()
    assert await writes(store) == len(await lines(store)) == 0


async def test_denied_change_leaves_endpoints(rig: Rig, store: Engine) -> None:
    """Above the window no endpoint is put or dropped, and the trail tells who tried."""
    hook = await hooked(rig, store)
    assert isinstance(await register(store, endpoint(rig), NO_WRITES), Denied)
    drop = putting(Dropped(hook.id))
    answer = await store.change_endpoint("acme", drop, counting(NO_WRITES), TOLD, by="ann")
    assert isinstance(answer, Denied)
    assert await store.list_endpoints("acme") == [hook]
    assert [(line.decision, line.count) for line in await lines(store)] == [
        ("allow", 1), ("deny", 1), ("deny", 1)
    ]  # fmt: skip
