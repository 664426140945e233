"""The use cases of webhooks over the real store: who sees what, how many, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.audit import decode
from gateway.errors import Problem
from gateway.webhooks import WebhookPatch, WebhookRequest
from tests.fakes.jobs import PLAN
from tests.fakes.post import Post, caller, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

PORT = 9


async def refused(call: Awaitable[object]) -> str:
    """Return the code of the problem that a call ends in."""
    with pytest.raises(Problem) as problem:
        await call
    return problem.value.code


async def actions(post: Post) -> list[tuple[str, str | None]]:
    """Return what the tenant's trail tells, oldest first: the action, and a code where there is one."""
    links = await post.engine.audit_page("acme", order="up", before=0)
    return [(record.action, record.code) for link in links for record in decode(link.rows)]


async def test_plan_is_exact_under_races(tmp_path: Path) -> None:
    """Of twenty registrations at once as many are kept as the plan allows, whoever comes first."""
    async with opened(tmp_path) as post:
        tries = [post.endpoint(PORT) for _ in range(20)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        refusals = [each.code for each in done if isinstance(each, Problem)]
        assert refusals == ["webhook_limit"] * (20 - PLAN.webhooks)
        assert len(await post.webhooks.list(caller())) == PLAN.webhooks
        assert (await actions(post)).count(("webhook.create", "webhook_limit")) >= 1
        await post.endpoint(PORT, who=caller("bob"))


async def test_forms_are_apart(tmp_path: Path) -> None:
    """Who names a form sees the endpoints of that form alone; who names none sees them all."""
    async with opened(tmp_path) as post:
        native = (await post.endpoint(PORT)).endpoint
        plus = (await post.endpoint(PORT, "gptimage2_plus")).endpoint
        assert plus.events == ("generation.succeeded", "generation.failed")
        assert await post.webhooks.list(caller(), "gptimage2_plus") == (plus,)
        assert await post.webhooks.list(caller()) == (plus, native)
        hooks = post.webhooks
        calls = [
            hooks.get(caller(), native.id, "gptimage2_plus"),
            hooks.update(caller(), native.id, WebhookPatch(label="x"), "gptimage2_plus"),
            hooks.rotate(caller(), native.id, "gptimage2_plus"),
            hooks.drop(caller(), native.id, "gptimage2_plus"),
            hooks.test(caller(), native.id, "gptimage2_plus"),
        ]
        assert [await refused(call) for call in calls] == ["not_found"] * 5


async def test_addresses_are_judged_alike(tmp_path: Path) -> None:
    """Every address that is not called from here is refused in the same words, when made and when changed."""
    async with opened(tmp_path, loopback=False) as post:
        texts = set()
        for url in ("https://10.0.0.1/", "https://localhost/", "http://a.example.org/", "nonsense"):
            with pytest.raises(Problem) as problem:
                await post.webhooks.create(caller(), WebhookRequest(url))
            (flaw,) = problem.value.flaws
            texts.add((problem.value.code, flaw.pointer, flaw.detail))
        assert len(texts) == 1
        assert await post.webhooks.list(caller()) == ()


async def test_trail_tells_each_change(tmp_path: Path) -> None:
    """Every change is one line of the trail, by whom, in the commit of the change."""
    async with opened(tmp_path) as post:
        name = (await post.endpoint(PORT)).endpoint.id
        await post.webhooks.update(caller(), name, WebhookPatch(enabled=True))
        await post.webhooks.rotate(caller(), name)
        told = await post.webhooks.test(caller(), name)
        await post.webhooks.redeliver(caller(), name, told.id)
        await post.webhooks.drop(caller("boss", admin=True), name)
        words = ["create", "update", "rotate", "test", "redeliver", "delete"]
        assert await actions(post) == [(f"webhook.{word}", None) for word in words]


async def test_lost_admin_loses_the_tenant(tmp_path: Path) -> None:
    """A subject who is an admin no more cannot touch what hears of the whole tenant."""
    async with opened(tmp_path) as post:
        name = (await post.endpoint(PORT, who=caller("boss", admin=True), scope="tenant")).endpoint.id
        assert await refused(post.webhooks.rotate(caller("boss"), name)) == "not_found"
        assert await refused(post.endpoint(PORT, scope="tenant")) == "forbidden"
        assert post.away == [("ann", "forbidden", "webhook.create")]


async def test_dropped_endpoint_forgets_all(tmp_path: Path) -> None:
    """With an endpoint its deliveries go, and it hears of nothing more."""
    async with opened(tmp_path) as post:
        made = await post.endpoint(PORT)
        await post.ended()
        (told,) = await post.told(made)
        await post.webhooks.drop(caller(), made.endpoint.id)
        await post.ended()
        assert await post.engine.get_delivery("acme", told.id) is None
        assert await post.told(made) == []
