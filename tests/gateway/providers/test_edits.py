"""Edits against the fakes, over real HTTP: the pictures arrive as they are, paid once, without the key."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web
from PIL import Image as Pillow

from gateway.images import mask
from gateway.providers.adapter import Failed, Finished, Handed, Input, Reading, Refused, Running, Task
from gateway.providers.gptimage2_plus import GptImage2Plus
from policies.model import Money
from policies.retry import Failure
from tests.fakes import gptimage2_ai, gptimage2_plus, openai
from tests.fakes.behavior import Behavior, Deed
from tests.fakes.client import send
from tests.fakes.pictures import picture
from tests.fakes.server import Edit
from tests.gateway.providers.test_fakes import FAKES, ROOTS, follow, pixels, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.wire import Wire
    from tests.fakes.server import Fake

PICTURES = (picture("png", 320, 240, "a"), picture("jpeg", 64, 64, "b"), picture("webp", 32, 48, "c"))
TYPES = ("image/png", "image/jpeg", "image/webp")
INPUTS = tuple(map(Input, TYPES, PICTURES))
TASK = Task("main", "gpt-image-2", "make it night", "task-1", "edit", limit_seconds=5.0, inputs=INPUTS)


def hole(size: tuple[int, int] = (320, 240)) -> Input:
    """Return a mask as OpenAI takes it."""
    out = io.BytesIO()
    Pillow.new("L", (8, 8), 255).save(out, "PNG")
    return Input("image/png", mask(out.getvalue(), size, "clear"))


@pytest.fixture
async def shown() -> AsyncIterator[Callable[[int], str]]:
    """Return where the pictures are served, by index; what has none is a 404."""

    async def serve(request: web.Request) -> web.Response:
        at = int(request.match_info["at"])
        found = at < len(PICTURES)
        return web.Response(body=PICTURES[at] if found else b"", status=200 if found else 404)

    app = web.Application()
    app.router.add_get("/{at}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield lambda at: f"http://127.0.0.1:{runner.addresses[0][1]}/{at}?sig=1"
    await runner.cleanup()


async def announced(fake: Fake, task: Task, at: int) -> Handed | Failed:
    """Announce one input and read the answer."""
    adapter = GptImage2Plus(fake.url + ROOTS["gptimage2_plus"])
    return adapter.handed(await send(adapter.announce(task, at), adapter, fake.key), task, at)


async def put(fake: Fake, handed: Handed | Failed) -> Wire:
    """Bring one input to where the answer says."""
    assert isinstance(handed, Handed)
    return await send(handed.put, GptImage2Plus(fake.url), fake.key)


async def hand_over(fake: Fake, task: Task) -> Task:
    """Return the task with its inputs handed over."""
    named = []
    for at, each in enumerate(task.inputs):
        handed = await announced(fake, task, at)
        answer = await put(fake, handed)
        assert getattr(answer, "status", None) == 200
        assert isinstance(handed, Handed)
        named.append(msgspec.structs.replace(each, name=handed.name))
    return msgspec.structs.replace(task, inputs=tuple(named))


async def ready(fake: Fake, kind: str, shown: Callable[[int], str], task: Task = TASK) -> Task:
    """Return the task as the adapter's capabilities ask for it."""
    if kind == "gptimage2_plus":
        return await hand_over(fake, task)
    links = (msgspec.structs.replace(each, url=shown(at)) for at, each in enumerate(task.inputs))
    return msgspec.structs.replace(task, inputs=tuple(links))


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize("count", [1, 3])
async def test_pictures_arrive_as_they_are(kind: str, count: int, shown: Callable[[int], str]) -> None:
    """From inputs to pixels: the upstream has each picture byte for byte and in order, and is paid once."""
    async with FAKES[kind]() as fake:
        task = await ready(fake, kind, shown, msgspec.structs.replace(TASK, inputs=INPUTS[:count]))
        done = await follow(fake, kind, await start(fake, kind, task), task)
        assert isinstance(done, Finished)
        assert await pixels(fake, kind, done.images[0]) == ("PNG", (1024, 1024))
    assert fake.edits == [Edit(TASK.prompt, PICTURES[:count])]
    assert fake.paid_by_prompt == {TASK.prompt: 1}
    assert [len(call.inputs) for call in fake.seen("create")] == [count]
    assert {call.key for call in fake.seen("put")} <= {None}


async def test_mask_arrives_with_holes() -> None:
    """OpenAI has the mask beside the pictures, and the inputs' tokens are in the cost."""
    task = msgspec.structs.replace(TASK, mask=hole())
    async with openai.fake() as fake:
        done = await start(fake, "openai", task)
    assert fake.edits == [Edit(TASK.prompt, PICTURES, hole().data)]
    assert isinstance(done, Finished)
    assert done.cost == Money(4 * 5 + 3 * openai.IN_TOKENS * 8 + openai.OUT_TOKENS["medium"] * 30)


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": hole((320, 241))},
        {"mask": INPUTS[0]},
        {"mask": INPUTS[1]},
        {"inputs": ()},
        {"inputs": INPUTS[:1] * 17},
        {"inputs": (Input("image/png", b"no picture"),)},
        {"size": "512x512"},
    ],
    ids=["another size", "no holes", "no png", "none", "too many", "no picture", "no such size"],
)
async def test_openai_refuses_misfits(changes: dict[str, Any]) -> None:
    """The fake holds the documented rules of edits, so that one spelled wrongly fails here first."""
    async with openai.fake() as fake:
        task = msgspec.structs.replace(TASK, **changes)
        assert await start(fake, "openai", task) == Failed(Failure.INVALID)
    assert (fake.paid, fake.edits) == (0, [])


@pytest.mark.parametrize("kind", FAKES)
@pytest.mark.parametrize(
    ("deed", "expected", "paid"),
    [
        ("refusal", Refused("input"), 0),
        ("status", Failed(Failure.OVERLOADED), 0),
        ("reset_before", Failed(Failure.UNKNOWN), 0),
        ("reset_after", Failed(Failure.UNKNOWN), 1),
        ("half", Failed(Failure.UNKNOWN), 1),
        ("hang", Failed(Failure.UNKNOWN), 1),
        ("malformed", Failed(Failure.MALFORMED), 1),
        ("not_json", Failed(Failure.MALFORMED), 1),
    ],
)
async def test_trouble_means_the_same(
    kind: str, deed: Deed, expected: Reading, paid: int, shown: Callable[[int], str]
) -> None:
    """What goes wrong with an edit means what it means with a generation."""
    async with FAKES[kind](script=[Behavior(deed)]) as fake:
        limit = 0.3 if deed == "hang" else 5.0
        task = await ready(fake, kind, shown, msgspec.structs.replace(TASK, limit_seconds=limit))
        assert await start(fake, kind, task) == expected
    assert (fake.paid, len(fake.edits)) == (paid, paid)


async def test_lost_edit_is_found_again() -> None:
    """gptimage2.plus: an edit whose answer was lost is found under its key, unpaid, with its inputs kept."""
    async with gptimage2_plus.fake(script=[Behavior("reset_after")]) as fake:
        task = await hand_over(fake, TASK)
        assert await start(fake, "gptimage2_plus", task) == Failed(Failure.UNKNOWN)
        assert isinstance(await start(fake, "gptimage2_plus", task), Running)
    assert (fake.paid, len(fake.edits)) == (1, 1)


@pytest.mark.parametrize(
    ("deed", "expected"),
    [
        ({"do": "reset_after"}, Failure.UNREACHABLE),
        ({"do": "half"}, Failure.UNREACHABLE),
        ({"do": "malformed"}, Failure.UNREACHABLE),
        ({"do": "status", "status": 429}, Failure.RATE_LIMITED),
        ({"do": "status", "status": 401}, Failure.DENIED),
        ({"do": "status", "status": 503}, Failure.OVERLOADED),
        ({"do": "status", "status": 400}, Failure.INVALID),
    ],
)
async def test_announcing_may_be_repeated(deed: dict[str, Any], expected: Failure) -> None:
    """Trouble with an announcement is none of paid work; asked again it names the same place."""
    script = [msgspec.convert({"on": "upload", **deed}, Behavior)]
    async with gptimage2_plus.fake(script=script) as fake:
        found = await announced(fake, TASK, 0)
        assert isinstance(found, Failed)
        assert found.kind is expected
        again, same = await announced(fake, TASK, 0), await announced(fake, TASK, 0)
        assert isinstance(again, Handed)
        assert again == same
    assert fake.paid == 0


async def test_uploads_are_what_was_announced() -> None:
    """Storage takes the announced bytes in time and no others, and never a key."""
    async with gptimage2_plus.fake() as fake:
        handed = await announced(fake, TASK, 0)
        assert isinstance(handed, Handed)
        other = msgspec.structs.replace(handed.put, body=b"other")
        leaked = msgspec.structs.replace(handed.put, credential="main")
        unsigned = msgspec.structs.replace(handed.put, url=handed.put.url.partition("?")[0])
        answers = [
            await put(fake, msgspec.structs.replace(handed, put=request))
            for request in (other, leaked, unsigned, handed.put)
        ]
    assert [getattr(answer, "status", None) for answer in answers] == [403, 400, 403, 200]
    assert [call.outcome for call in fake.seen("put")] == ["put_denied", "key_leaked", "put_denied", "put"]


async def test_late_uploads_are_refused() -> None:
    """An address is good for five minutes; an edit of what was never put is refused unpaid."""
    async with gptimage2_plus.fake(upload_seconds=0.0) as fake:
        handed = await announced(fake, TASK, 0)
        assert isinstance(handed, Handed)
        assert getattr(await put(fake, handed), "status", None) == 403
        named = (msgspec.structs.replace(INPUTS[0], name=handed.name),)
        task = msgspec.structs.replace(TASK, inputs=named)
        assert await start(fake, "gptimage2_plus", task) == Failed(Failure.INVALID)
    assert fake.paid == 0


@pytest.mark.parametrize("operation", ["generate", "edit"])
async def test_plus_wants_type_and_keys(operation: str) -> None:
    """gptimage2.plus: an edit without pictures is refused, and pictures without an edit too."""
    async with gptimage2_plus.fake() as fake:
        task = await hand_over(fake, TASK) if operation == "generate" else TASK
        inputs = task.inputs if operation == "generate" else ()
        task = msgspec.structs.replace(task, operation=operation, inputs=inputs)
        assert await start(fake, "gptimage2_plus", task) == Failed(Failure.INVALID)
    assert fake.paid == 0


@pytest.mark.parametrize("at", [3, None])
async def test_ai_fetches_its_links(at: int | None, shown: Callable[[int], str]) -> None:
    """gptimage2.ai: a link that leads to no picture is refused before anything is paid."""
    url = "http://127.0.0.1:1/nobody" if at is None else shown(at)
    inputs = (Input("image/png", url=shown(0)), Input("image/png", url=url))
    async with gptimage2_ai.fake() as fake:
        task = msgspec.structs.replace(TASK, inputs=inputs)
        assert await start(fake, "gptimage2_ai", task) == Failed(Failure.INVALID)
    assert (fake.paid, fake.edits) == (0, [])


async def test_edits_run_side_by_side(shown: Callable[[int], str]) -> None:
    """Several edits at once keep their own pictures."""
    async with gptimage2_ai.fake(polls=0) as fake:
        tasks = [
            msgspec.structs.replace(TASK, prompt=f"edit {at}", inputs=(Input("image/png", url=shown(at)),))
            for at in range(3)
        ]
        await asyncio.gather(*(start(fake, "gptimage2_ai", task) for task in tasks))
    assert sorted(fake.edits, key=lambda edit: edit.prompt) == [
        Edit(f"edit {at}", (PICTURES[at],)) for at in range(3)
    ]
