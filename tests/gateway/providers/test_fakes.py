"""Adapters against their fakes, over real HTTP: what is built is taken, what is answered is understood."""

from __future__ import annotations

import asyncio
import io
import sys
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import pytest
from PIL import Image as Pillow

from gateway.providers import open_adapter
from gateway.providers.adapter import Failed, Finished, Image, Reading, Refused, Running, Task
from policies.retry import Failure, Phase
from tests.fakes import gptimage2_ai, gptimage2_plus, openai
from tests.fakes.behavior import Behavior, Call, Deed
from tests.fakes.client import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.providers.adapter import Adapter
    from tests.fakes.server import Fake

TASK = Task("main", "gpt-image-2", "a lighthouse at dusk", "task-1", limit_seconds=5.0)
ROOTS = {"openai": "/v1", "gptimage2_plus": "/api/v1", "gptimage2_ai": ""}
FAKES: dict[str, Callable[..., Fake]] = {
    "openai": openai.fake,
    "gptimage2_plus": gptimage2_plus.fake,
    "gptimage2_ai": gptimage2_ai.fake,
}
ASYNCHRONOUS = ["gptimage2_plus", "gptimage2_ai"]


def adapter_of(fake: Fake, kind: str) -> Adapter:
    """Return the adapter pointed at a fake."""
    return open_adapter(kind, fake.url + ROOTS[kind])


async def start(fake: Fake, kind: str, task: Task = TASK, key: str | None = None) -> Reading:
    """Make the paid call and read its answer."""
    adapter = adapter_of(fake, kind)
    phase = Phase.SUBMIT if adapter.capabilities.asynchronous else Phase.SYNC
    return adapter.read(await send(adapter.build(task), adapter, key or fake.key), phase, task)


async def follow(fake: Fake, kind: str, reading: Reading, task: Task = TASK) -> Reading:
    """Poll until something other than `Running` is read."""
    adapter = adapter_of(fake, kind)
    while isinstance(reading, Running):
        reading = adapter.read(await send(reading.next, adapter, fake.key), Phase.POLL, task)
    return reading


async def fetch(fake: Fake, kind: str, image: Image, task: Task = TASK) -> Reading:
    """Fetch an image that came as a link and read the answer."""
    adapter = adapter_of(fake, kind)
    assert image.fetch is not None
    return adapter.read(await send(image.fetch, adapter, fake.key), Phase.FETCH, task)


async def pixels(fake: Fake, kind: str, image: Image) -> tuple[str | None, tuple[int, int]]:
    """Return format and size of a delivered image, fetched where it is a link."""
    data = image.data
    if data is None:
        got = await fetch(fake, kind, image)
        assert isinstance(got, Finished)
        data = got.images[0].data
    with Pillow.open(io.BytesIO(data or b"")) as opened:
        opened.load()
        return opened.format, opened.size


@pytest.mark.parametrize("kind", FAKES)
async def test_images_of_asked_size_arrive(kind: str) -> None:
    """From submit to pixels, every provider makes as many images as asked, of the size asked, paid once."""
    task = msgspec.structs.replace(TASK, count=2)
    async with FAKES[kind]() as fake:
        done = await follow(fake, kind, await start(fake, kind, task), task)
        assert isinstance(done, Finished)
        shapes = [await pixels(fake, kind, image) for image in done.images]
    assert shapes == [("PNG", (1024, 1024))] * 2
    assert fake.paid == 1
    assert fake.paid_by_prompt == {TASK.prompt: 1}


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("openai", {"size": "1536x864", "format": "webp"}, ("WEBP", (1536, 864))),
        ("openai", {"size": "2048x2048", "format": "jpeg"}, ("JPEG", (2048, 2048))),
        ("gptimage2_plus", {"size": "1024x1536", "format": "webp"}, ("WEBP", (1024, 1536))),
        ("gptimage2_ai", {"ratio": "16:9", "style": "cinematic"}, ("PNG", (1536, 864))),
    ],
)
async def test_size_and_format_are_native(
    kind: str, changes: dict[str, str], expected: tuple[str, tuple[int, int]]
) -> None:
    """A size, a ratio and a format that an adapter declares are spelled so that the upstream takes them."""
    task = msgspec.structs.replace(TASK, **changes)
    async with FAKES[kind]() as fake:
        done = await follow(fake, kind, await start(fake, kind, task), task)
        assert isinstance(done, Finished)
        assert await pixels(fake, kind, done.images[0]) == expected


@pytest.mark.parametrize("kind", ["openai", "gptimage2_plus"])
async def test_every_declared_size_is_taken(kind: str) -> None:
    """An adapter declares no size that its upstream's documented rules refuse."""
    async with FAKES[kind]() as fake:
        for size in sorted(adapter_of(fake, kind).capabilities.sizes or ()):
            reading = await start(fake, kind, msgspec.structs.replace(TASK, size=size, key=size))
            assert isinstance(reading, (Finished, Running)), size


@pytest.mark.parametrize("kind", FAKES)
async def test_wrong_key_is_denied_unpaid(kind: str) -> None:
    """Each fake demands its key, and the adapter reads the refusal as the operator's to mend."""
    async with FAKES[kind]() as fake:
        assert await start(fake, kind, key="another") == Failed(Failure.DENIED)
    assert (fake.paid, fake.calls[0].outcome, fake.calls[0].key) == (0, "wrong_key", "another")


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Failed(Failure.INVALID)),
        (402, Failed(Failure.DENIED)),
        (403, Failed(Failure.DENIED)),
        (429, Failed(Failure.RATE_LIMITED, 1000)),
        (500, Failed(Failure.OVERLOADED)),
        (502, Failed(Failure.UNKNOWN)),
        (503, Failed(Failure.OVERLOADED)),
        (504, Failed(Failure.UNKNOWN)),
        (529, Failed(Failure.OVERLOADED)),
    ],
)
async def test_error_statuses_mean_the_same(kind: str, status: int, expected: Failed) -> None:
    """A status whose body says nothing special means the same at every provider, and nothing is paid."""
    async with FAKES[kind](script=[Behavior("status", status=status)]) as fake:
        assert await start(fake, kind) == expected
    assert fake.paid == 0


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize(
    ("deed", "expected", "paid"),
    [
        ("reset_before", Failure.UNKNOWN, 0),
        ("reset_after", Failure.UNKNOWN, 1),
        ("half", Failure.UNKNOWN, 1),
        ("hang", Failure.UNKNOWN, 1),
        ("drip", Failure.UNKNOWN, 1),
        ("malformed", Failure.MALFORMED, 1),
        ("not_json", Failure.MALFORMED, 1),
        ("deep", Failure.MALFORMED, 1),
        ("wrong_type", Failure.MALFORMED, 1),
        ("huge", Failure.MALFORMED, 1),
    ],
)
async def test_spoiled_answers_are_read(kind: str, deed: Deed, expected: Failure, paid: int) -> None:
    """An answer that is cut off may have been paid for; one that is whole and senseless is malformed."""
    limit = 0.2 if deed in {"hang", "drip"} else 5.0
    script = [Behavior(deed, seconds=0.1, size=2**22)]
    async with FAKES[kind](script=script) as fake:
        task = msgspec.structs.replace(TASK, limit_seconds=limit)
        assert await start(fake, kind, task) == Failed(expected)
    assert fake.paid == paid


@pytest.mark.parametrize("kind", FAKES)
async def test_refusal_is_not_paid(kind: str) -> None:
    """A content refusal at submit is read as one, and the upstream has made nothing."""
    async with FAKES[kind](script=[Behavior("refusal")]) as fake:
        assert await start(fake, kind) == Refused("input")
    assert fake.paid == 0


@pytest.mark.parametrize("kind", ASYNCHRONOUS)
@pytest.mark.parametrize(
    ("deed", "expected"), [("refusal", Refused("input")), ("failed", Failed(Failure.LOST))]
)
async def test_accepted_jobs_may_end_badly(kind: str, deed: Deed, expected: Reading) -> None:
    """A job that was accepted and then refused or lost is told by a poll, whatever the HTTP status."""
    async with FAKES[kind](script=[Behavior(deed, on="poll")]) as fake:
        assert await follow(fake, kind, await start(fake, kind)) == expected


@pytest.mark.parametrize("kind", FAKES)
async def test_fewer_images_are_delivered(kind: str) -> None:
    """Two images of the four asked for are two images, not a failure."""
    on = "poll" if kind in ASYNCHRONOUS else "create"
    task = msgspec.structs.replace(TASK, count=4)
    async with FAKES[kind](script=[msgspec.convert({"do": "fewer", "on": on, "count": 2}, Behavior)]) as fake:
        done = await follow(fake, kind, await start(fake, kind, task), task)
    assert isinstance(done, Finished)
    assert len(done.images) == 2


@pytest.mark.parametrize("kind", FAKES)
async def test_no_images_is_malformed(kind: str) -> None:
    """Success with an empty list is a whole answer that makes no sense."""
    on = "poll" if kind in ASYNCHRONOUS else "create"
    async with FAKES[kind](script=[msgspec.convert({"do": "fewer", "on": on}, Behavior)]) as fake:
        reading = await follow(fake, kind, await start(fake, kind))
    assert reading == Failed(Failure.MALFORMED)


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize("status", [403, 404, 410])
async def test_run_out_links_are_told(kind: str, status: int) -> None:
    """403, 404 and 410 from storage mean that the link has run out, and a fresh poll may help."""
    script = [Behavior("links"), Behavior("status", on="image", status=status)]
    async with FAKES[kind](script=script) as fake:
        done = await follow(fake, kind, await start(fake, kind))
        assert isinstance(done, Finished)
        assert await fetch(fake, kind, done.images[0]) == Failed(Failure.EXPIRED)


@pytest.mark.parametrize("kind", FAKES)
async def test_keys_stay_off_image_links(kind: str) -> None:
    """A link that an upstream names is fetched without the key; the fake refuses a request that has it."""
    async with FAKES[kind](script=[Behavior("links")]) as fake:
        done = await follow(fake, kind, await start(fake, kind))
        assert isinstance(done, Finished)
        await fetch(fake, kind, done.images[0])
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {fake.key}"}) as session:
            assert done.images[0].fetch is not None
            async with session.get(done.images[0].fetch.url) as leaked:
                assert leaked.status == 400
    assert [call.outcome for call in fake.seen("image")] == ["fetched", "key_leaked"]


@pytest.mark.parametrize("deed", ["no_image", "truncated", "bomb"])
@pytest.mark.parametrize("kind", FAKES)
async def test_ruined_images_are_handed_on(kind: str, deed: Deed) -> None:
    """Adapters do not judge pixels: bytes that are no image reach the room that does, and that can tell."""
    on = "image" if kind in ASYNCHRONOUS else "create"
    async with FAKES[kind](script=[msgspec.convert({"do": deed, "on": on}, Behavior)]) as fake:
        done = await follow(fake, kind, await start(fake, kind))
        assert isinstance(done, Finished)
        with pytest.raises((OSError, Pillow.DecompressionBombError)):
            await pixels(fake, kind, done.images[0])


async def test_same_key_is_paid_once() -> None:
    """gptimage2.plus: a submit whose answer was lost finds its generation when sent again, unpaid."""
    async with gptimage2_plus.fake(script=[Behavior("reset_after")]) as fake:
        assert await start(fake, "gptimage2_plus") == Failed(Failure.UNKNOWN)
        again = await start(fake, "gptimage2_plus")
        done = await follow(fake, "gptimage2_plus", again)
    assert isinstance(done, Finished)
    assert [call.outcome for call in fake.seen("create")] == ["reset_after", "replayed"]
    assert [call.idempotency_key for call in fake.seen("create")] == [TASK.key, TASK.key]
    assert fake.paid == 1


@pytest.mark.parametrize("kind", ["openai", "gptimage2_ai"])
async def test_others_pay_twice(kind: str) -> None:
    """Without a real idempotency key the same request is paid again: the fakes do not flatter us."""
    async with FAKES[kind]() as fake:
        await start(fake, kind)
        await start(fake, kind)
        assert adapter_of(fake, kind).capabilities.idempotent is False
    assert fake.paid == 2


async def test_documented_limits_bite() -> None:
    """gptimage2.plus: the allowance is told on every answer, and what is above it is 429 with a wait."""
    async with gptimage2_plus.fake(hourly=2, polls=9) as fake:
        running = await start(fake, "gptimage2_plus")
        assert isinstance(running, Running)
        adapter = adapter_of(fake, "gptimage2_plus")
        polls = [
            adapter.read(await send(running.next, adapter, fake.key), Phase.POLL, TASK) for _ in range(2)
        ]
    assert isinstance(polls[0], Running)
    assert polls[1] == Failed(Failure.RATE_LIMITED, 1000)


async def test_jobs_in_flight_are_limited() -> None:
    """gptimage2.plus: a job above the open ones allowed is refused unpaid."""
    async with gptimage2_plus.fake(flight=1) as fake:
        await start(fake, "gptimage2_plus")
        other = msgspec.structs.replace(TASK, key="task-2")
        assert await start(fake, "gptimage2_plus", other) == Failed(Failure.RATE_LIMITED, 1000)
    assert fake.paid == 1


async def test_empty_balance_is_denied() -> None:
    """gptimage2.ai: a balance too small for the images is the operator's to mend."""
    async with gptimage2_ai.fake(balance=5) as fake:
        assert await start(fake, "gptimage2_ai") == Failed(Failure.DENIED)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "gpt-image-1"}, Failure.DENIED),
        ({"size": "512x512"}, Failure.INVALID),
        ({"background": "transparent", "format": "jpeg"}, Failure.INVALID),
        ({"count": 11}, Failure.INVALID),
        ({"prompt": ""}, Failure.INVALID),
    ],
)
async def test_openai_refuses_what_it_cannot_make(changes: dict[str, str | int], expected: Failure) -> None:
    """The fake holds the documented rules, so that a request spelled wrongly fails here first."""
    async with openai.fake() as fake:
        assert await start(fake, "openai", msgspec.structs.replace(TASK, **changes)) == Failed(expected)
    assert fake.paid == 0


async def test_script_matches_by_prompt() -> None:
    """A behavior with `match` waits for its request and leaves others alone; `times` counts it out."""
    script = [Behavior("status", status=503, match="storm", times=2)]
    async with openai.fake(script=script) as fake:
        storm = msgspec.structs.replace(TASK, prompt="a storm")
        readings = [await start(fake, "openai", task) for task in (TASK, storm, storm, storm)]
    assert [isinstance(reading, Finished) for reading in readings] == [True, False, False, True]


async def test_fake_serves_as_a_process(tmp_path: Path) -> None:
    """As a process a fake is steered by `/_control` and leaves a line for every call in its log."""
    log = tmp_path / "calls.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.gptimage2_ai", "--log", str(log), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[1]
        adapter = open_adapter("gptimage2_ai", url)
        steer = {"script": [Behavior("status", status=503)], "delay": 0.0, "forget": True}
        async with aiohttp.ClientSession() as session:
            await session.post(f"{url}/_control", data=msgspec.json.encode(steer))
            for _ in range(2):
                await send(adapter.build(TASK), adapter, gptimage2_ai.KEY)
            async with session.get(f"{url}/_control") as answer:
                told = await answer.json()
    finally:
        process.terminate()
        await process.wait()
    calls = [msgspec.json.decode(line, type=Call) for line in log.read_bytes().splitlines()]
    assert told["paid"] == 1
    assert [(call.outcome, call.paid, call.idempotency_key) for call in calls] == [
        ("status_503", 0, TASK.key),
        ("accepted", 1, TASK.key),
    ]


async def test_fake_refuses_while_away() -> None:
    """A fake that is away refuses connections, lets those go that it has, and is back at the same address."""
    async with openai.fake() as fake, aiohttp.ClientSession() as session:
        async with session.get(f"{fake.url}/_control") as answer:
            assert "Connection" not in answer.headers
        leaving = asyncio.create_task(fake.leave(0.5))
        async with asyncio.timeout(5):
            while True:
                async with session.get(f"{fake.url}/other") as answer:
                    if answer.headers.get("Connection") == "close":
                        break
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{fake.url}/_control")
        await leaving
        async with session.get(f"{fake.url}/_control") as answer:
            assert answer.status == 200
