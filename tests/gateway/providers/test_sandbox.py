"""The sandbox: an adapter and its upstream on one wire, pictures for words, and trouble on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.images import NotAnImage, Picture, Studio, draw, inspect, retouch
from gateway.providers.adapter import Failed, Finished, Image, Input, Reading, Refused, Task
from gateway.providers.sandbox import HOST, Sandbox, SandboxUpstream
from gateway.wire import WireRequest, WireResponse
from policies.retry import Failure, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

ADAPTER = Sandbox()


def _task(prompt: str = "a lighthouse", **fields: Any) -> Task:
    return Task("sandbox", "sandbox", prompt, "task-1", **({"size": "1280x960", "format": "jpeg"} | fields))


@pytest.fixture
def studio() -> Iterator[Studio]:
    """Return a studio of one thread."""
    studio = Studio(threads=1)
    yield studio
    studio.close()


class Ear:
    """A pause that only notes how long it was to be."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note a wait."""
        self.heard.append(seconds)


async def _ask(studio: Studio, task: Task, *, marks: bool = True) -> Reading:
    answer = await SandboxUpstream(studio, marks=marks).answer(ADAPTER.build(task))
    return ADAPTER.read(answer, Phase.SYNC, task)


def _images(reading: Reading) -> tuple[Image, ...]:
    assert isinstance(reading, Finished)
    return reading.images


async def test_words_become_pictures(studio: Studio) -> None:
    """A task comes back as as many pictures as it asks for, in its size and format, all different."""
    images = _images(await _ask(studio, _task(count=2)))
    assert [inspect(image.data or b"") for image in images] == [Picture("image/jpeg", 1280, 960, "jpg")] * 2
    assert images[0].data != images[1].data


async def test_given_seed_counts_on(studio: Studio) -> None:
    """A given seed is the first image's, the next has the next, and it wraps at 32 bits."""
    images = _images(await _ask(studio, _task(count=2, seed=2**32 - 1)))
    assert [image.seed for image in images] == ["4294967295", "0"]


async def test_told_seed_draws_the_same(studio: Studio) -> None:
    """An image without a given seed tells the one that draws it again."""
    first = _images(await _ask(studio, _task()))[0]
    again = _images(await _ask(studio, _task(seed=int(first.seed or 0))))[0]
    assert first == again
    assert _images(await _ask(studio, _task("a boat")))[0].seed != first.seed


@pytest.mark.parametrize(
    ("mark", "reading"),
    [
        ("[[fail]]", Failed(Failure.OVERLOADED)),
        ("[[busy]]", Failed(Failure.RATE_LIMITED, 1000)),
        ("[[refuse]]", Refused("input")),
        ("[[slow 3]] [[fail]]", Failed(Failure.OVERLOADED)),
    ],
)
async def test_marks_ask_for_trouble(studio: Studio, mark: str, reading: Reading) -> None:
    """In dev a mark in the prompt brings about the ending it names."""
    upstream = SandboxUpstream(studio, marks=True, pause=Ear())
    task = _task(f"a boat {mark}")
    assert ADAPTER.read(await upstream.answer(ADAPTER.build(task)), Phase.SYNC, task) == reading


@pytest.mark.parametrize(
    ("mark", "seconds"),
    [("[[slow 5]]", [5.0]), ("[[slow]]", [1.0]), ("[[slow 999]]", [60.0]), ("slow 5", [])],
)
async def test_slow_mark_waits(studio: Studio, mark: str, seconds: list[float]) -> None:
    """The slow mark waits as long as it says, a second if it says nothing, a minute at most."""
    ear = Ear()
    task = _task(f"a boat {mark}")
    await SandboxUpstream(studio, marks=True, pause=ear).answer(ADAPTER.build(task))
    assert ear.heard == seconds


@pytest.mark.parametrize(("mark", "count"), [("[[partial 2]]", 2), ("[[partial]]", 1), ("[[partial 9]]", 3)])
async def test_partial_mark_delivers_less(studio: Studio, mark: str, count: int) -> None:
    """The partial mark delivers no more images than it names, nor more than were asked for."""
    assert len(_images(await _ask(studio, _task(f"{mark} boat", count=3)))) == count


async def test_partial_zero_makes_nothing(studio: Studio) -> None:
    """An answer without images is one that makes no sense."""
    assert await _ask(studio, _task("boat [[partial 0]]")) == Failed(Failure.MALFORMED)


async def test_garbage_mark_is_no_image(studio: Studio) -> None:
    """The garbage mark delivers bytes that do not decode."""
    image = _images(await _ask(studio, _task("boat [[garbage]]")))[0]
    assert isinstance(inspect(image.data or b""), NotAnImage)


async def test_marks_are_not_drawn(studio: Studio) -> None:
    """A prompt with a mark draws the picture of its other words."""
    marked = _images(await _ask(studio, _task("a boat [[partial 1]] at sea", seed=1)))[0]
    assert marked == _images(await _ask(studio, _task("a boat at sea", seed=1)))[0]


async def test_marks_are_text_elsewhere(studio: Studio) -> None:
    """Outside dev a mark is words like any others."""
    images = _images(await _ask(studio, _task("a boat [[refuse]] [[fail]]", seed=1), marks=False))
    assert images != _images(await _ask(studio, _task("a boat", seed=1), marks=False))


BOAT, FOX = (draw(words, (320, 240), 1) for words in ("a boat", "a fox"))


async def test_edits_begin_from_inputs(studio: Studio) -> None:
    """An edit is drawn on its inputs, inside its mask, once for each image, each with its own seed."""
    boat, fox = Input("image/png", BOAT), Input("image/png", FOX)
    task = _task("at night", operation="edit", inputs=(boat, fox), mask=fox, count=2, seed=5)
    images = _images(await _ask(studio, task))
    assert [image.seed for image in images] == ["5", "6"]
    assert [image.data for image in images] == [
        retouch("at night", [BOAT, FOX], FOX, (1280, 960), seed, "auto", "jpeg") for seed in (5, 6)
    ]
    bare = msgspec.structs.replace(task, mask=None)
    assert _images(await _ask(studio, bare)) != images


async def test_marks_work_on_edits(studio: Studio) -> None:
    """Trouble may be asked for in an edit's prompt too."""
    task = _task("at night [[refuse]]", operation="edit", inputs=(Input("image/png", BOAT),))
    assert await _ask(studio, task) == Refused("input")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (Input("image/png", b"no picture"),)},
        {"inputs": (Input("image/png", BOAT), Input("image/png", BOAT[:99]))},
        {"inputs": (Input("image/png", BOAT),), "mask": Input("image/png", b"")},
    ],
)
async def test_ruined_inputs_are_refused(studio: Studio, change: dict[str, Any]) -> None:
    """An input or mask that does not decode is told in a whole answer, and nothing is drawn."""
    assert await _ask(studio, _task(operation="edit", **change)) == Failed(Failure.INVALID)


def test_requests_carry_no_key() -> None:
    """A request goes to the host that no resolver finds, without a credential, bounded by its task."""
    request = ADAPTER.build(_task(limit_seconds=9.0))
    assert (request.method, request.url) == ("POST", f"https://{HOST}/v1/draw")
    assert (request.credential, request.seconds) == (None, 9.0)
    assert ADAPTER.authorize("k") == ("Authorization", "Bearer k")


@pytest.mark.parametrize(
    "change", [{"size": "9999x9999"}, {"count": 11}, {"count": 0}, {"more": 1}, {"prompt": 7}]
)
async def test_strange_requests_are_refused(studio: Studio, change: dict[str, object]) -> None:
    """The upstream draws only what its adapter declares."""
    body = msgspec.json.decode(ADAPTER.build(_task()).body) | change
    request = WireRequest("POST", f"https://{HOST}/v1/draw", body=msgspec.json.encode(body))
    answer = await SandboxUpstream(studio, marks=False).answer(request)
    assert ADAPTER.read(answer, Phase.SYNC, _task()) == Failed(Failure.INVALID)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"images":7}',
        b'{"images":[]}',
        b'{"images":[7,{},{"b64":"%%"}]}',
        b'{"refused":1}',
    ],
)
def test_senseless_answers_are_malformed(body: bytes) -> None:
    """A whole answer without an image or a refusal makes no sense."""
    assert ADAPTER.read(WireResponse(200, {}, body), Phase.SYNC, _task()) == Failed(Failure.MALFORMED)


def test_no_more_images_than_asked() -> None:
    """What was not asked for is left aside."""
    answer = WireResponse(200, {}, b'{"images":[{"b64":"YQ==","seed":1},{"b64":"Yg=="},{"b64":"Yw=="}]}')
    expected = Finished((Image(data=b"a", seed="1"), Image(data=b"b")))
    assert ADAPTER.read(answer, Phase.SYNC, _task(count=2)) == expected


@given(st.binary(max_size=80), st.sampled_from(Phase), st.integers(100, 599))
def test_any_answer_is_read(body: bytes, phase: Phase, status: int) -> None:
    """Reading is total, and what is not JSON never is a picture."""
    assert isinstance(ADAPTER.read(WireResponse(status, {}, body), phase, _task()), Failed)
