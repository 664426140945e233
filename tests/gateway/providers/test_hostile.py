"""Reading is total: whatever an upstream sends, an adapter returns a `Reading` and raises nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import KINDS, open_adapter
from gateway.providers.adapter import Failed, Finished, Handed, Input, Reading, Running, Task
from gateway.providers.gptimage2_plus import GptImage2Plus
from gateway.wire import Cut, WireFailure, WireResponse
from policies.retry import Phase
from tests.gateway.providers.test_wire import CASES, task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.model import Format

REAL = ["openai", "gptimage2_plus", "gptimage2_ai"]
FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
# fmt: off
NAMES = [
    "data", "b64_json", "url", "usage", "input_tokens", "output_tokens", "input_tokens_details",
    "image_tokens", "error", "code", "type", "moderation_details", "moderation_stage", "generationId", "id",
    "status", "outputs", "png", "webp", "jobId", "results", "imageUrl", "seed", "key",
]
WORDS = [
    "queued", "pending", "running", "succeeded", "failed", "blocked", "moderation_blocked", "gen_1",
    "output", "AAAA", "data:,", "https://h.example/a.png",
]
# fmt: on
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=12)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=20,
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-remaining", "content-type"]),
    st.sampled_from(["", "0", "7", "-1", "1e9", "٣", "9" * 30]) | st.text(max_size=5),
)
statuses = st.sampled_from([200, 202, 400, 404, 409, 422, 429, 500]) | st.integers(100, 599)
tasks = st.tuples(st.integers(1, 10), st.sampled_from(FORMATS)).map(
    lambda drawn: Task("main", "gpt-image-2", "a lighthouse", "task-1", count=drawn[0], format=drawn[1])
)
adapters = st.sampled_from([open_adapter(kind) for kind in REAL])
phases = st.sampled_from(Phase)


def check(reading: Reading, task: Task, base_url: str) -> None:
    """Check what holds for every reading: its type, its bounds, and who may see the key."""
    assert isinstance(reading, get_args(Reading))
    if isinstance(reading, Running):
        assert reading.next.url.startswith(base_url + "/")
        assert urlsplit(reading.next.url).query == ""
        assert 0 < reading.after_ms <= 60_000
    if isinstance(reading, Finished):
        assert 1 <= len(reading.images) <= task.count
        fetches = [image.fetch for image in reading.images if image.fetch is not None]
        assert all(fetch.credential is None for fetch in fetches)
        assert all((image.data is None) != (image.fetch is None) for image in reading.images)


@given(adapters, phases, statuses, headers, trees, tasks)
def test_any_json_is_read(
    adapter: Any, phase: Phase, status: int, named: dict[str, str], tree: object, task: Task
) -> None:
    """Any JSON with any status and headers gets a reading that keeps the bounds."""
    answer = WireResponse(status, named, json.dumps(tree).encode())
    check(adapter.read(answer, phase, task), task, adapter.base_url)


@given(adapters, phases, statuses, st.binary(max_size=200), tasks)
def test_any_bytes_are_read(adapter: Any, phase: Phase, status: int, body: bytes, task: Task) -> None:
    """Any bytes with any status get a reading."""
    check(adapter.read(WireResponse(status, {}, body), phase, task), task, adapter.base_url)


@given(statuses, headers, st.binary(max_size=200) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_any_word_on_inputs_is_read(status: int, named: dict[str, str], body: bytes) -> None:
    """Whatever is said of an input, its bytes go to a web address without the key, or nowhere."""
    given_input = Input("image/webp", b"pixels")
    task = Task("main", "gpt-image-2", "a lighthouse", "task-1", "edit", inputs=(given_input,))
    found = GptImage2Plus().handed(WireResponse(status, named, body), task, 0)
    assert isinstance(found, Handed | Failed)
    if isinstance(found, Handed):
        assert found.put.url.startswith(("https://", "http://"))
        assert (found.put.method, found.put.credential, found.put.body) == ("PUT", None, b"pixels")
        assert 0 < len(found.name) <= 512


@given(st.sampled_from([case for case in CASES if not case.stem.startswith("upload_")]), st.data())
def test_one_foreign_value_is_survived(path: Any, data: st.DataObject) -> None:
    """A documented answer with any one value replaced by any other still gets a reading."""
    case = json.loads(path.read_text())
    body = case["answer"].get("body")
    places = list(_places(body))
    if places:
        holder, name = data.draw(st.sampled_from(places))
        holder[name] = data.draw(trees)
    adapter, task = open_adapter(path.parent.name), task_of(case["task"])
    answer = WireResponse(case["answer"].get("status", 200), {}, json.dumps(body).encode())
    check(adapter.read(answer, Phase(case["phase"]), task), task, adapter.base_url)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a JSON value as its holder and name."""
    each: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in list(each):
        yield value, name
        yield from _places(inner)


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize(
    "body",
    [
        b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 50_000,
        b'{"status":' + b"9" * 100_000 + b"}",
        b'{"data":[' + b"{}," * 200_000 + b"{}]}",
        b'{"status":"running","jobId":"' + b"a" * 1_000_000 + b'"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
    ],
    ids=["deep", "open", "nested", "digits", "wide", "long", "bom", "utf16"],
)
def test_great_bodies_are_read(kind: str, body: bytes) -> None:
    """Depth, length and width that would stop a careless reader are malformed, and nothing worse."""
    task = Task("main", "gpt-image-2", "a lighthouse", "task-1")
    for phase in Phase:
        check(open_adapter(kind).read(WireResponse(200, {}, body), phase, task), task, "")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("cut", Cut)
def test_every_cut_is_read(kind: str, cut: Cut) -> None:
    """No answer at all is an answer too, in every phase and for every provider of the catalogue."""
    task = Task("main", "gpt-image-2", "a lighthouse", "task-1")
    for phase in Phase:
        assert isinstance(open_adapter(kind).read(WireFailure(cut), phase, task), get_args(Reading))
