"""The dialects as documented are the dialects as spoken: the same fields, the same words, the same bounds.

That real answers have the documented form is shown by `test_clients.py`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec import structs

from gateway.api.calls import CALLS
from gateway.dialects import documents, gptimage2_ai, gptimage2_plus, openai_bodies
from gateway.dialects.documents import TOLD
from gateway.dialects.gptimage2_ai import GptImage2Ai
from gateway.dialects.gptimage2_plus import GptImage2Plus
from gateway.dialects.gptimage2_plus_webhooks import changed, registered
from gateway.dialects.openai import OpenAI
from gateway.dialects.openai_errors import IMPOSSIBLE
from gateway.dialects.zod import Body
from gateway.errors import Problem


def names(kind: Any) -> set[str]:
    """Return a struct's fields as they are spelled in JSON."""
    return {field.encode_name for field in structs.fields(kind)}


def schema(kind: Any) -> dict[str, Any]:
    """Return the fields of a struct as schemas."""
    _, found = msgspec.json.schema_components([kind], ref_template="{name}")
    properties: dict[str, Any] = found[kind.__name__]["properties"]
    return properties


def words(kind: Any) -> list[tuple[str, str]]:
    """Return every field with a choice of words, with each of the words."""
    found = schema(kind).items()
    return [(name, word) for name, field in found for word in _choice(field)]


def _choice(field: dict[str, Any]) -> list[str]:
    return [*field.get("enum", ()), *(word for one in field.get("anyOf", ()) for word in one.get("enum", ()))]


def test_ai_fields_are_those_read() -> None:
    """gptimage2.ai's request has the fields that are read, and needs the prompt alone."""
    assert names(documents.AiGenerateRequest) == gptimage2_ai.FIELDS
    assert set(dict(words(documents.AiGenerateRequest))) == {"mode"}
    assert {word for _, word in words(documents.AiGenerateRequest)} == set(gptimage2_ai.MODES)


def test_openai_fields_are_those_read() -> None:
    """OpenAI's requests have the fields that are read; what cannot be had is not offered."""
    own = openai_bodies.FIELDS - IMPOSSIBLE
    assert names(documents.OpenAIGenerateRequest) == own
    assert names(documents.OpenAIEditRequest) == own | {"images", "mask"}
    assert names(documents.OpenAIEditForm) == own | {"image", "mask"}


@pytest.mark.parametrize(("name", "word"), words(documents.OpenAIGenerateRequest))
def test_openai_words_are_read(name: str, word: str) -> None:
    """Each documented word of OpenAI's is taken, and an undocumented one is not."""
    openai_bodies.wish_of({"prompt": "a", name: word})
    with pytest.raises(Problem):
        openai_bodies.wish_of({"prompt": "a", name: f"{word}?"})


@pytest.mark.parametrize(("name", "word"), words(documents.PlusGenerateRequest))
def test_plus_words_are_read(name: str, word: str) -> None:
    """Each documented word of gptimage2.plus's is taken, and an undocumented one is not."""
    keys = {"inputImageKeys": ["up_1"]} if word == "edit" else {}
    for said, flawed in ((word, False), (f"{word}?", True)):
        body = Body({"prompt": "a", **keys, name: said})
        gptimage2_plus.request_of(body)
        assert bool(body.issues) == flawed


def test_plus_bounds_are_those_read() -> None:
    """The largest that gptimage2.plus's document offers is taken, and one more is not."""
    fields = schema(documents.PlusGenerateRequest)
    most = {
        "prompt": "a" * fields["prompt"]["maxLength"],
        "n": fields["n"]["maximum"],
        "type": "edit",
        "inputImageKeys": ["k" * 64] * fields["inputImageKeys"]["maxItems"],
    }
    body = Body(most)
    gptimage2_plus.request_of(body)
    assert body.issues == []
    for name in ("prompt", "n", "inputImageKeys"):
        value: Any = most[name]
        more = value + (1 if isinstance(value, int) else type(value)(["k"] if name != "prompt" else "a"))
        beyond = Body({**most, name: more})
        gptimage2_plus.request_of(beyond)
        assert [issue.path[0] for issue in beyond.issues] == [name]


def test_plus_webhooks_are_those_read() -> None:
    """A webhook's documented fields all reach the wish they are for."""
    asked = {"url": "https://a.example/", "events": ["x"], "label": "l", "scope": "tenant"}
    assert set(asked) == names(documents.PlusWebhookRequest)
    made = registered(Body(dict(asked)))
    assert (made.url, made.events, made.label, made.scope) == ("https://a.example/", ("x",), "l", "tenant")
    wish = {"url": "https://a.example/", "events": ["x"], "label": "l", "enabled": False}
    assert set(wish) == names(documents.PlusWebhookPatch)
    change = changed(Body(dict(wish)))
    assert (change.url, change.events, change.label, change.enabled) == (
        "https://a.example/",
        ("x",),
        "l",
        False,
    )


@pytest.mark.parametrize("name", sorted(TOLD))
def test_calls_tell_their_errors(name: str) -> None:
    """Every call can refuse who has no key, who comes too often, and when the store is away."""
    told = TOLD[name]
    assert {401, 403, 429, 500, 503} <= set(told.refusals)
    assert not set(told.answers) & set(told.refusals)
    assert (400 in told.refusals) == bool(told.bodies)


@pytest.mark.parametrize(
    ("speaker", "calls"),
    [
        (GptImage2Plus, ["createPlusGeneration"]),
        (GptImage2Ai, ["createAiJob"]),
        (OpenAI, ["createOpenAIImages", "editOpenAIImages"]),
    ],
)
async def test_refused_submits_are_documented(speaker: Any, calls: list[str]) -> None:
    """Whatever may keep our own submit from making a job has a documented status in every dialect."""
    parts: Any = SimpleNamespace(jobs=None, webhooks=None)
    told = {
        (await speaker(parts).problem(Problem(code), cast("Any", SimpleNamespace(caller=None)))).status
        for code in CALLS["createJob"].problems
    }
    assert [told - set(TOLD[call].refusals) for call in calls] == [set()] * len(calls)
