"""What each adapter sends, field by field, and what it declares."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import KINDS, open_adapter
from gateway.providers.adapter import Input, Task
from gateway.providers.gptimage2_plus import GptImage2Plus
from gateway.providers.multipart import File, form
from gateway.wire import dump, load
from policies.routing import Capabilities
from tests.fakes.forms import Sent, read_form

TASK = Task(
    "main",
    "gpt-image-2",
    "a lighthouse, „Leuchtturm“",
    "task-1",
    size="1536x864",
    ratio="16:9",
    quality="high",
    count=3,
    format="webp",
    background="opaque",
    seed=7,
    style="cinematic",
    lighting="dusk",
    camera="35 mm",
    negative="people",
    user="u-1",
    limit_seconds=90.0,
)
SENT: dict[str, tuple[str, dict[str, Any], dict[str, str], float]] = {
    "openai": (
        "https://api.openai.com/v1/images/generations",
        {
            "model": "gpt-image-2",
            "prompt": TASK.prompt,
            "n": 3,
            "size": "1536x864",
            "quality": "high",
            "background": "opaque",
            "output_format": "webp",
            "safety_identifier": "u-1",
        },
        {"Content-Type": "application/json", "Accept": "application/json"},
        90.0,
    ),
    "gptimage2_plus": (
        "https://gptimage2.plus/api/v1/generate",
        {"prompt": TASK.prompt, "type": "text2img", "size": "1536x864", "quality": "high", "n": 3},
        {"Content-Type": "application/json", "Idempotency-Key": "task-1"},
        30.0,
    ),
    "gptimage2_ai": (
        "https://gptimage2.ai/api/generate",
        {
            "mode": "text-to-image",
            "prompt": TASK.prompt,
            "ratio": "16:9",
            "count": 3,
            "style": "cinematic",
            "lighting": "dusk",
            "camera": "35 mm",
            "negative": "people",
        },
        {"Content-Type": "application/json", "Idempotency-Key": "task-1"},
        30.0,
    ),
}


EDIT = msgspec.structs.replace(
    TASK,
    operation="edit",
    inputs=(
        Input("image/jpeg", b"\xff\xd8first", "https://img.example.com/0.jpg?sig=1", "uploads/1"),
        Input("image/png", b"\x89PNG\r\n--second", "https://img.example.com/1.png?sig=2", "uploads/2"),
    ),
)
MASK = Input("image/png", b"\x89PNGmask")


@pytest.mark.parametrize("kind", SENT)
def test_task_is_spelled_for_upstream(kind: str) -> None:
    """A task becomes exactly the documented fields; what an upstream does not have is not sent."""
    url, body, headers, seconds = SENT[kind]
    request = open_adapter(kind).build(TASK)
    assert (request.method, request.url, request.credential) == ("POST", url, "main")
    assert msgspec.json.decode(request.body) == body
    assert dict(request.headers) == headers
    assert request.seconds == seconds


@pytest.mark.parametrize("kind", SENT)
def test_absent_fields_are_not_sent(kind: str) -> None:
    """A field that was not asked for is absent, not null: upstreams refuse null."""
    request = open_adapter(kind).build(Task("main", "gpt-image-2", "a lighthouse", "task-1"))
    assert None not in msgspec.json.decode(request.body).values()


@pytest.mark.parametrize("mask", [None, MASK])
def test_openai_edits_are_forms(mask: Input | None) -> None:
    """An edit goes to its own path as a form: the documented fields, the pictures in order, the mask."""
    request = open_adapter("openai").build(msgspec.structs.replace(EDIT, mask=mask))
    plain = open_adapter("openai").build(TASK)
    assert request.url == "https://api.openai.com/v1/images/edits"
    assert (request.method, request.credential, request.seconds) == ("POST", "main", 90.0)
    headers = dict(request.headers)
    assert headers["Accept"] == "application/json"
    sent = read_form(headers["Content-Type"], request.body)
    assert sent is not None
    assert sent.fields == {name: str(value) for name, value in msgspec.json.decode(plain.body).items()}
    assert sent.files == [
        Sent("image[]", "image-0.jpeg", "image/jpeg", EDIT.inputs[0].data),
        Sent("image[]", "image-1.png", "image/png", EDIT.inputs[1].data),
        *([Sent("mask", "mask.png", "image/png", MASK.data)] if mask else []),
    ]


def test_plus_edits_name_uploads() -> None:
    """An edit names what was handed over before, in the caller's order, under the same key as ever."""
    request, plain = (open_adapter("gptimage2_plus").build(task) for task in (EDIT, TASK))
    body = msgspec.json.decode(request.body)
    assert body == msgspec.json.decode(plain.body) | {
        "type": "edit",
        "inputImageKeys": ["uploads/1", "uploads/2"],
    }
    assert (request.url, request.headers) == (plain.url, plain.headers)


def test_plus_inputs_are_announced() -> None:
    """Each input is announced with its type and size, under a key of its own that stays the same."""
    adapter = GptImage2Plus("https://images.corp.example/proxy")
    requests = [adapter.announce(EDIT, at) for at in (0, 1)]
    assert [msgspec.json.decode(request.body) for request in requests] == [
        {"filename": "image-0.jpeg", "contentType": "image/jpeg", "size": 7},
        {"filename": "image-1.png", "contentType": "image/png", "size": 14},
    ]
    assert [dict(request.headers)["Idempotency-Key"] for request in requests] == ["task-1-in0", "task-1-in1"]
    assert {(request.method, request.url, request.credential) for request in requests} == {
        ("POST", "https://images.corp.example/proxy/upload", "main")
    }
    assert adapter.announce(EDIT, 1) == requests[1]


def test_ai_edits_name_links() -> None:
    """An edit says its mode and where the pictures are; all else is as it was."""
    request, plain = (open_adapter("gptimage2_ai").build(task) for task in (EDIT, TASK))
    assert msgspec.json.decode(request.body) == msgspec.json.decode(plain.body) | {
        "mode": "image-to-image",
        "imageUrls": ["https://img.example.com/0.jpg?sig=1", "https://img.example.com/1.png?sig=2"],
    }


@given(
    st.dictionaries(st.sampled_from(["prompt", "model", "n"]), st.none() | st.integers() | st.text()),
    st.lists(st.binary(max_size=99) | st.just(b"\r\n--"), max_size=3),
)
def test_forms_carry_any_bytes(fields: dict[str, object], datas: list[bytes]) -> None:
    """Whatever values and files hold, a parser that is not ours finds exactly them."""
    files = [File("image[]", f"image-{at}.png", "image/png", data) for at, data in enumerate(datas)]
    media_type, body = form(list(fields.items()), files)
    assert form(list(fields.items()), files) == (media_type, body)
    sent = read_form(media_type, body)
    if not files and set(fields.values()) <= {None}:
        return
    assert sent is not None
    kept = {name: str(value) for name, value in fields.items() if value is not None}
    assert sent.fields == {name: text.encode("utf-8", "replace").decode() for name, text in kept.items()}
    assert [tuple(each) for each in sent.files] == [tuple(each) for each in files]


def test_boundaries_cannot_be_written() -> None:
    """A boundary follows from all that a form holds, so no part can hold it but by chance."""
    boundary = form([], [File("a", "a", "image/png", b"one")])[0].partition("boundary=")[2]
    other, body = form([], [File("a", "a", "image/png", f"--{boundary}--\r\n".encode())])
    assert boundary not in other
    sent = read_form(other, body)
    assert sent is not None
    assert boundary.encode() in sent.files[0].data


def test_unknown_style_is_not_sent() -> None:
    """A slug that gptimage2.ai does not document goes into the prompt, never into its style field."""
    adapter = open_adapter("gptimage2_ai")
    request = adapter.build(msgspec.structs.replace(TASK, style="watercolor"))
    assert "style" not in msgspec.json.decode(request.body)
    assert adapter.capabilities.takes("watercolor") == {"lighting", "camera", "negative"}
    assert adapter.capabilities.takes("cinematic") == {"style", "lighting", "camera", "negative"}


def test_any_style_is_native_without_list() -> None:
    """An adapter that takes styles and lists none takes every slug."""
    assert Capabilities(native=frozenset({"style"})).takes("watercolor") == {"style"}


@pytest.mark.parametrize("kind", SENT)
@pytest.mark.parametrize("slash", ["", "/"])
def test_base_url_is_configurable(kind: str, slash: str) -> None:
    """An operator's base URL replaces the vendor's, with or without a slash at its end."""
    adapter = open_adapter(kind, "https://images.corp.example/proxy" + slash)
    assert adapter.base_url == "https://images.corp.example/proxy"
    assert adapter.build(TASK).url.startswith("https://images.corp.example/proxy/")


@pytest.mark.parametrize("kind", SENT)
def test_key_goes_as_bearer(kind: str) -> None:
    """The key travels in one header, to the base URL's own host and to no other."""
    adapter = open_adapter(kind)
    assert adapter.authorize("secret") == ("Authorization", "Bearer secret")
    assert adapter.hosts == ()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_catalogue_names_its_adapters(kind: str) -> None:
    """The name under which a kind is configured is the name the adapter bears."""
    assert open_adapter(kind).kind == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_build_holds_no_secret(kind: str) -> None:
    """A request names the credential it needs and can be stored as it is."""
    request = open_adapter(kind).build(TASK)
    assert "authorization" not in {name.lower() for name, _ in request.headers}
    assert load(dump(request)) == request


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("openai", {"max_count": 10, "max_prompt": 32_000, "asynchronous": False, "idempotent": False}),
        ("gptimage2_plus", {"max_count": 4, "max_prompt": 4000, "asynchronous": True, "idempotent": True}),
        ("gptimage2_ai", {"max_count": 4, "max_prompt": 32_000, "asynchronous": True, "idempotent": False}),
    ],
)
def test_capabilities_follow_the_documents(kind: str, expected: dict[str, object]) -> None:
    """Bounds are those of the documents, and only a documented idempotency key counts as one."""
    declared = msgspec.structs.asdict(open_adapter(kind).capabilities)
    assert {name: declared[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "inputs", "most", "mask"),
    [
        ("openai", "bytes", 16, "clear"),
        ("gptimage2_plus", "upload", 4, None),
        ("gptimage2_ai", "url", 4, None),
        ("sandbox", "bytes", 16, "white"),
    ],
)
def test_edits_are_declared(kind: str, inputs: str, most: int, mask: str | None) -> None:
    """Every kind makes edits, and says in which form it takes pictures, how many, and which mask."""
    can = open_adapter(kind).capabilities
    assert can.operations == {"generate", "edit"}
    assert (can.inputs, can.max_inputs, can.mask) == (inputs, most, mask)
    assert (can.inputs == "upload") == hasattr(open_adapter(kind), "announce")


def test_ratios_stand_for_sizes() -> None:
    """gptimage2.ai names no pixels: it offers five ratios and one quality."""
    offered = open_adapter("gptimage2_ai").capabilities
    assert offered.sizes is None
    assert offered.ratios == frozenset({"1:1", "16:9", "9:16", "4:3", "3:4"})
    assert offered.qualities == {"medium"}
