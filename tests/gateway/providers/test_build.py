"""What each adapter sends, field by field, and what it declares."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.providers import KINDS, open_adapter
from gateway.providers.adapter import Task
from gateway.wire import dump, load
from policies.routing import Capabilities

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


def test_ratios_stand_for_sizes() -> None:
    """gptimage2.ai names no pixels: it offers five ratios and one quality."""
    offered = open_adapter("gptimage2_ai").capabilities
    assert offered.sizes is None
    assert offered.ratios == frozenset({"1:1", "16:9", "9:16", "4:3", "3:4"})
    assert offered.qualities == {"medium"}
