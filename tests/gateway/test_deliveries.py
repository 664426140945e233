"""The deliverer: schedules under a moved clock, receivers of every kind, nobody held up by another."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.webhooks import WebhookPatch
from policies.webhooks import WAITS_MS, Form
from tests.fakes.post import FAILS, OK, PATIENCE, Post, caller, opened, receiving, sent
from tests.fakes.raw_server import Act, RawServer, Talk, hangs, resets, says, says_and_stays

if TYPE_CHECKING:
    from pathlib import Path


FORMS: Final[tuple[Form, ...]] = ("native", "gptimage2_plus")
GONE: Final = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
HOUR: Final = 3_600_000


async def drips(talk: Talk) -> None:
    """Answer a byte at a time, without an end."""
    await talk.request()
    await talk.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not await talk.gone(0.02):
        await talk.write(b".")


# -- taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_end_is_told_once(tmp_path: Path, form: Form) -> None:
    """The end of a job is sent, signed, to its subject's endpoint; what is taken is not sent again."""
    async with receiving(tmp_path, says(OK)) as (post, server):
        made = await post.endpoint(server, form)
        job = await post.ended()
        told = await post.tried(made, 1)
        assert (told.state, told.due_at, told.job) == ("delivered", None, job.id)
        await post.pass_time(100 * HOUR)
        await post.drain(PATIENCE)
        (one,) = sent(server)
        assert one.line == "POST /hook HTTP/1.1"
        assert job.id.encode() in one.body
        assert "cookie" not in one.headers
        assert post.lines("delivery")[0]["outcome"] == "delivered"


async def test_nobody_else_hears(tmp_path: Path) -> None:
    """An end is told to its subject's endpoints and to those of the whole tenant, and to no one else."""
    async with receiving(tmp_path, says(OK)) as (post, server):
        ann = await post.endpoint(server)
        bob = await post.endpoint(server, who=caller("bob"))
        everyone = await post.endpoint(server, who=caller("boss", admin=True), scope="tenant")
        other = await post.endpoint(server, who=caller(tenant="globex"))
        picky = await post.endpoint(server, events=("job.failed",))
        await post.ended()
        await post.tried(ann, 1)
        await post.tried(everyone, 1)
        assert [await post.told(made) for made in (bob, other, picky)] == [[], [], []]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 200_000,
    ],
)
async def test_any_2xx_is_taken(tmp_path: Path, answer: bytes) -> None:
    """A 2xx takes a delivery, however much comes after it: little of that is read."""
    async with receiving(tmp_path, says_and_stays(answer)) as (post, server):
        made = await post.endpoint(server)
        await post.ended()
        assert (await post.tried(made, 1)).state == "delivered"


# -- not taken -------------------------------------------------------------------------------------

RECEIVERS: Final[list[tuple[str, Act, int | None, str | None]]] = [
    ("500", says(FAILS), 500, None),
    ("redirects", says(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), 302, None),
    ("resets", resets, None, "reset"),
    ("hangs", hangs, None, "timeout"),
    ("drips", drips, None, "timeout"),
    ("half", says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"), None, "half"),
    ("no HTTP", says(b"hello\r\n\r\n"), None, "half"),
]


@pytest.mark.parametrize(("name", "act", "status", "cut"), RECEIVERS, ids=lambda row: str(row)[:9])
async def test_untaken_is_tried_again(
    tmp_path: Path, name: str, act: Act, status: int | None, cut: str | None
) -> None:
    """Whatever is not a whole 2xx in time is tried again: same id, same body, a new instant, no redirect."""
    async with receiving(tmp_path, act, says(OK), attempt_seconds=1) as (post, server):
        made = await post.endpoint(server)
        await post.ended()
        told = await post.tried(made, 1)
        assert (told.tries[0].status, told.tries[0].cut, told.state) == (status, cut, "pending")
        await post.pass_time(10_000)
        assert (await post.tried(made, 2)).state == "delivered"
        first, second = sent(server)
        assert first.line == second.line == "POST /hook HTTP/1.1"
        assert (first.id, first.body) == (second.id, second.body)
        assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 10
        assert (await post.seen(made)).failures == 0


async def test_nobody_listens_is_tried_again(tmp_path: Path) -> None:
    """An endpoint that is not there now may be later."""
    async with RawServer(hangs) as server:
        port = server.port
    async with opened(tmp_path) as post:
        post.deliverer.start()
        made = await post.endpoint(port)
        await post.ended()
        told = await post.tried(made, 1)
        assert (told.state, told.tries[0].cut) == ("pending", "unreachable")


async def test_address_is_judged_at_send(tmp_path: Path) -> None:
    """An address that was good when it was saved is judged again at each try, and the reason stays inside."""
    async with RawServer(says(OK)) as server:
        async with opened(tmp_path) as post:
            made = await post.endpoint(server)
            await post.ended()
        async with opened(tmp_path, loopback=False) as post:
            post.deliverer.start()
            assert (await post.tried(made, 1)).tries[0].cut == "unreachable"
            await post.drain(PATIENCE)
            assert (server.connections, post.lines("delivery")[0]["cut"]) == (0, "judged")


@pytest.mark.parametrize("form", FORMS)
async def test_schedule_runs_its_course(tmp_path: Path, form: Form) -> None:
    """A delivery that is never taken is sent at each wait of its schedule, not before, then given up."""
    waits = WAITS_MS[form]
    async with receiving(tmp_path, says(FAILS), disable_after=100) as (post, server):
        made = await post.endpoint(server, form)
        await post.ended()
        told = await post.tried(made, 1)
        for n, wait in enumerate(waits, start=1):
            assert told.due_at is not None
            left = told.due_at - post.clock()
            assert wait - 5_000 < left <= wait
            await post.pass_time(left)
            told = await post.tried(made, n + 1)
        assert (told.state, told.due_at, len(server.requests)) == ("failed", None, len(waits) + 1)
        assert len({one.id for one in sent(server)}) == 1
        stamps = [one.headers.get("webhook-timestamp") for one in sent(server)]
        assert len(set(stamps)) == (len(stamps) if form == "native" else 1)


async def test_receiver_may_ask_for_time(tmp_path: Path) -> None:
    """A Retry-After puts the next try off."""
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"
    async with receiving(tmp_path, says(busy)) as (post, server):
        made = await post.endpoint(server)
        await post.ended()
        told = await post.tried(made, 1)
        assert told.due_at is not None
        assert 595_000 < told.due_at - post.clock() <= 600_000


# -- disabled --------------------------------------------------------------------------------------


async def fails_until_disabled(post: Post, made: Any, count: int) -> None:
    """End jobs and let the time pass until an endpoint is disabled."""
    for _ in range(count):
        await post.ended()
    async with asyncio.timeout(PATIENCE):
        while (await post.seen(made)).disabled is None:
            await post.pass_time(1_000)
            await asyncio.sleep(0)


@pytest.mark.parametrize(("form", "most"), [("native", 3), ("gptimage2_plus", 8)])
async def test_failing_endpoint_is_disabled(tmp_path: Path, form: Form, most: int) -> None:
    """A run of failed tries over all deliveries disables; operator and trail are told, and all is kept."""
    async with receiving(tmp_path, says(FAILS), disable_after=3) as (post, server):
        made = await post.endpoint(server, form)
        await fails_until_disabled(post, made, 12)
        await post.drain(PATIENCE)
        there = await post.told(made)
        assert (await post.seen(made)).disabled == "failing"
        assert len(there) == 12
        assert {(one.state, one.due_at) for one in there if one.tries} == {("pending", None)}
        assert most <= len(server.requests) <= most + 3
        assert post.alarms() == ["webhook_disabled"]
        (link, *_) = await post.engine.audit_page("acme", limit=1)
        assert b'"action":"webhook.disable"' in link.rows
        assert b'"code":"failing"' in link.rows


async def test_gone_is_disabled_at_once(tmp_path: Path) -> None:
    """One 410 disables an endpoint."""
    async with receiving(tmp_path, says(GONE)) as (post, server):
        made = await post.endpoint(server)
        await post.ended()
        told = await post.tried(made, 1)
        assert (told.state, told.due_at) == ("pending", None)
        assert (await post.seen(made)).disabled == "gone"


async def test_enabled_again_sends_nothing_old(tmp_path: Path) -> None:
    """After it is enabled an endpoint hears what ends from then on; what it missed is sent when asked for."""
    async with receiving(tmp_path, says(GONE), says(OK)) as (post, server):
        made = await post.endpoint(server)
        missed = await post.ended()
        old = await post.tried(made, 1)
        await post.ended()
        await post.webhooks.update(caller(), made.endpoint.id, WebhookPatch(enabled=True))
        await post.pass_time(30 * HOUR)
        fresh = await post.ended()
        assert (await post.tried(made, 1, 1)).job == fresh.id
        assert len(server.requests) == 2
        again = await post.webhooks.redeliver(caller(), made.endpoint.id, old.id)
        assert (again.id, again.state, len(again.tries)) == (old.id, "pending", 1)
        assert (await post.tried(made, 2)).state == "delivered"
        first, _, third = sent(server)
        assert first.id == third.id
        assert missed.id.encode() in third.body


async def test_delivered_can_be_sent_again(tmp_path: Path) -> None:
    """A delivery that was taken is sent again when asked for, under its id."""
    async with receiving(tmp_path, says(OK)) as (post, server):
        made = await post.endpoint(server)
        await post.ended()
        told = await post.tried(made, 1)
        await post.webhooks.redeliver(caller(), made.endpoint.id, told.id)
        assert (await post.tried(made, 2)).state == "delivered"
        assert len({one.id for one in sent(server)}) == 1


async def test_tests_are_delivered(tmp_path: Path) -> None:
    """A test is an event like any other, and tells of no job."""
    async with receiving(tmp_path, says(OK)) as (post, server):
        made = await post.endpoint(server)
        asked = await post.webhooks.test(caller(), made.endpoint.id)
        told = await post.tried(made, 1)
        assert (told.id, told.event, told.job, told.state) == (asked.id, "webhook.test", None, "delivered")


# -- side by side ----------------------------------------------------------------------------------


async def test_poisoned_endpoint_delays_nobody(tmp_path: Path) -> None:
    """Fifty endpoints are told at once although one with many deliveries hangs on each of them."""
    async with RawServer(hangs) as poison, receiving(tmp_path, says(OK)) as (post, server):
        bad = await post.endpoint(poison, who=caller("mallory"))
        for _ in range(40):
            await post.ended("mallory")
        good = [await post.endpoint(server, who=caller(f"user-{n}")) for n in range(50)]
        await poison.heard.wait()
        began = time.monotonic()
        for n in range(50):
            await post.ended(f"user-{n}")
        for made in good:
            assert (await post.tried(made, 1)).state == "delivered"
        assert time.monotonic() - began < 5
        assert poison.connections <= 4
        assert all(not told.tries for told in await post.told(bad))


async def test_burst_spends_few_tries(tmp_path: Path) -> None:
    """A hundred ends while a receiver is down for a moment cost it a few tries, not its being enabled."""
    async with receiving(tmp_path, *[says(FAILS)] * 6, says(OK)) as (post, server):
        made = await post.endpoint(server)
        for _ in range(100):
            await post.ended()
        await post.tried(made, 1)
        assert (await post.seen(made)).failures <= 5
        async with asyncio.timeout(PATIENCE):
            while any(told.state != "delivered" for told in await post.told(made)):
                await post.pass_time(500)
        assert len(server.requests) <= 106


async def test_concurrency_is_bounded(tmp_path: Path) -> None:
    """A deliverer never has more tries under way than it may, and takes the next when one is over."""
    async with RawServer(hangs) as slow, opened(tmp_path, concurrency=2, attempt_seconds=1) as post:
        made = [await post.endpoint(slow, who=caller(f"user-{n}")) for n in range(4)]
        for n in range(4):
            await post.ended(f"user-{n}")
        post.deliverer.start()
        most = 0
        async with asyncio.timeout(PATIENCE):
            while not all([(await post.told(one))[0].tries for one in made]):
                most = max(most, len(post.deliverer))
                await asyncio.sleep(0)
        assert most == 2
