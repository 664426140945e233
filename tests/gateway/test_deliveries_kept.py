"""The deliverer's stops and troubles: nothing is lost, nothing leaves unsigned, no secret is written down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.secrets import Keyring, Secret
from policies.webhooks import ROTATION_MS
from tests.fakes.post import FAILS, OK, PATIENCE, RING, Hasty, caller, opened, receiving, sent
from tests.fakes.raw_server import Act, RawServer, Talk, hangs, says

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.engine import Engine


class Sick:
    """A store that can be told to fail at a verb; it counts how often it was asked to write a try down."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.troubles: dict[str, list[Exception]] = {}
        self.troubled = asyncio.Event()

    def __getattr__(self, verb: str) -> Any:
        return self._fail(verb) if self.troubles.get(verb) else getattr(self.engine, verb)

    def _fail(self, verb: str) -> Any:
        async def fail(*_: Any, **__: Any) -> Any:
            self.troubled.set()
            raise self.troubles[verb].pop(0)

        return fail


async def test_drain_lets_tries_finish(tmp_path: Path) -> None:
    """A try under way when the process stops has the drain's time, and is written down; no other begins."""
    async with RawServer(_late(0.2)) as server, opened(tmp_path) as post:
        post.deliverer.start()
        made = await post.endpoint(server)
        await post.ended()
        await server.heard.wait()
        post.lifetime.begin_drain()
        await post.ended()
        await post.deliverer.drain(PATIENCE)
        one, other = await post.told(made)
        assert (one.state, other.tries) == ("delivered", ())


def _late(seconds: float) -> Act:
    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.gone(seconds)
        await talk.write(OK)

    return act


async def test_cut_tries_are_given_back(tmp_path: Path) -> None:
    """What outlasts the drain is cut and due again at once, untried, for the next process to send."""
    async with RawServer(hangs, says(OK)) as server:
        async with opened(tmp_path) as post:
            post.deliverer.start()
            made = await post.endpoint(server)
            await post.ended()
            await server.heard.wait()
            await post.drain(0.01)
            assert len(post.deliverer) == 0
            assert (await post.told(made))[0].tries == ()
        async with opened(tmp_path) as post:
            post.deliverer.start()
            assert (await post.tried(made, 1)).state == "delivered"
    assert len({one.id for one in sent(server)}) == 1


async def test_unstarted_deliverer_stops(tmp_path: Path) -> None:
    """A process that delivers nothing has nothing to drain."""
    async with opened(tmp_path) as post:
        await post.drain(PATIENCE)
        assert len(post.deliverer) == 0


async def test_deaths_send_it_again(tmp_path: Path) -> None:
    """A process that dies after the send and before the record sends it again under the same id."""

    def die(point: str) -> None:
        if point == "delivery_sent":
            raise asyncio.CancelledError

    async with RawServer(says(OK)) as server:
        async with opened(tmp_path, crash=die) as post:
            post.deliverer.start()
            made = await post.endpoint(server)
            await post.ended()
            await server.heard.wait()
            async with asyncio.timeout(PATIENCE):
                while len(post.deliverer):  # noqa: ASYNC110 - a deliverer tells nobody that it idles
                    await asyncio.sleep(0)
        async with opened(tmp_path) as post:
            post.deliverer.start()
            assert (await post.tried(made, 1)).state == "delivered"
    first, second = sent(server)
    assert first.id == second.id


async def test_dropped_endpoint_is_no_trouble(tmp_path: Path) -> None:
    """A try whose endpoint is deleted while it is under way comes to nothing, and is told of as lost."""
    async with RawServer(_late(0.2)) as server, opened(tmp_path) as post:
        post.deliverer.start()
        made = await post.endpoint(server)
        await post.ended()
        await server.heard.wait()
        await post.webhooks.drop(caller(), made.endpoint.id)
        assert await post.told(made) == []
        await post.drain(PATIENCE)
        assert [line["outcome"] for line in post.lines("delivery")] == ["lost"]


@pytest.mark.parametrize("verb", ["claim_deliveries", "deliveries_due", "record_delivery"])
@pytest.mark.parametrize("times", [1, 5])
async def test_store_troubles_lose_nothing(tmp_path: Path, verb: str, times: int) -> None:
    """A store that fails for a moment is told of, and what was due is delivered all the same."""
    stores: list[Sick] = []

    def around(engine: Engine) -> Any:
        stores.append(Sick(engine))
        return stores[0]

    async with receiving(tmp_path, says(OK), around=around, lifetime=Hasty()) as (post, server):
        stores[0].troubles[verb] = [StoreUnavailable("gone") for _ in range(times)]
        made = await post.endpoint(server)
        await post.ended()
        async with asyncio.timeout(PATIENCE):
            while not (await post.told(made))[0].tries:
                await post.pass_time(1_000)
        assert (await post.told(made))[0].state == "delivered"
        assert (len(post.lines("fault")) > 0) == (verb != "record_delivery" or times == 5)


async def test_bug_stops_no_other(tmp_path: Path) -> None:
    """A notice that cannot be rendered is told of and put off; all others are sent."""

    def render(notice: Any, _now: int) -> bytes:
        if notice.delivery.job is None:
            raise RuntimeError("a bug")
        return b"{}"

    async with receiving(tmp_path, says(OK), render=render) as (post, server):
        made = await post.endpoint(server)
        await post.webhooks.test(caller(), made.endpoint.id)
        await post.ended()
        assert (await post.tried(made, 1, 1)).state == "delivered"
        assert (await post.told(made))[0].tries == ()
        assert [line["kind"] for line in post.lines("bug")] == ["delivery try"]


async def test_unreadable_secret_is_not_sent(tmp_path: Path) -> None:
    """Where no live secret of the house opens an endpoint's, nothing goes out and an alarm is told."""
    async with RawServer(says(OK)) as server:
        async with opened(tmp_path) as post:
            made = await post.endpoint(server)
            await post.ended()
        async with opened(tmp_path, ring=Keyring([Secret("q" * 32)])) as post:
            post.deliverer.start()
            async with asyncio.timeout(PATIENCE):
                while not post.alarms():  # noqa: ASYNC110 - an alarm rings for people alone
                    await asyncio.sleep(0)
            assert post.alarms() == ["webhook_secret_unreadable"]
            assert (server.connections, (await post.told(made))[0].tries) == (0, ())


async def test_rotation_reaches_the_wire(tmp_path: Path) -> None:
    """What is sent through a rotation has both signatures, and a day later the new one alone."""
    async with receiving(tmp_path, says(OK)) as (post, server):
        made = await post.endpoint(server)
        await post.webhooks.rotate(caller(), made.endpoint.id)
        await post.ended()
        await post.tried(made, 1)
        await post.pass_time(ROTATION_MS)
        await post.ended()
        await post.tried(made, 1, 1)
        counts = [one.headers["webhook-signature"].count("v1,") for one in sent(server)]
        assert counts == [2, 1]


async def test_secrets_stay_sealed(tmp_path: Path) -> None:
    """A secret is in no line of the log, no row of the trail and no byte of the store."""
    async with receiving(tmp_path, says(FAILS), says(OK)) as (post, server):
        made = await post.endpoint(server)
        new = await post.webhooks.rotate(caller(), made.endpoint.id)
        await post.ended()
        await post.tried(made, 1)
        await post.pass_time(10_000)
        await post.tried(made, 2)
        post.telemetry.close()
        written = post.sink.getvalue()
        for link in await post.engine.audit_page("acme"):
            written += link.rows
    written += b"".join(path.read_bytes() for path in _files(tmp_path))
    for secret in (made.secret, new.secret):
        assert secret.encode() not in written
        assert secret.removeprefix("whsec_").encode() not in written
    assert b"/hook" in written
    assert RING.open("webhooks", new.endpoint.secret) is None


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())
