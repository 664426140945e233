"""OpenAI's bodies in our schema: each field, each default, and what is refused by which name."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.forms import Part
from gateway.dialects.openai_bodies import (
    Wish,
    data_of,
    edited,
    from_form,
    from_object,
    wish_of,
)
from gateway.errors import Problem
from policies.model import InputRef, JobRequest

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


def asked(**fields: Any) -> Wish:
    """Return what a body with a prompt and these fields asks for."""
    return wish_of({"prompt": "a lighthouse", **fields})


def refused(call: Any, *args: Any) -> tuple[str, str]:
    """Return code and place of the problem that a call ends with."""
    with pytest.raises(Problem) as problem:
        call(*args)
    return problem.value.code, problem.value.flaws[0].pointer


def test_prompt_alone_is_enough() -> None:
    """Everything but the prompt has a default: one medium PNG of the plan's first model, in base64."""
    assert asked() == Wish(JobRequest(prompt="a lighthouse"))


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"model": "gpt-image-2"}, {"model": "gpt-image-2"}),
        ({"model": ""}, {}),
        ({"n": 10}, {"count": 10}),
        ({"size": "1536x1024"}, {"size": "1536x1024"}),
        ({"size": "auto"}, {}),
        ({"quality": "low"}, {"quality": "low"}),
        ({"quality": "high"}, {"quality": "high"}),
        ({"quality": "auto"}, {"quality": "medium"}),
        ({"quality": "standard"}, {"quality": "medium"}),
        ({"quality": "hd"}, {"quality": "high"}),
        ({"background": "transparent"}, {"background": "transparent"}),
        ({"output_format": "webp"}, {"format": "webp"}),
        ({"user": "u-7"}, {"metadata": {"user": "u-7"}}),
        ({"safety_identifier": "h", "user": ""}, {"metadata": {"safety_identifier": "h"}}),
        ({"stream": False, "partial_images": 0, "moderation": None}, {}),
        (dict.fromkeys(("model", "n", "size", "quality", "user", "response_format", "style")), {}),
    ],
)
def test_fields_become_ours(fields: dict[str, Any], changed: dict[str, Any]) -> None:
    """Each field means one of ours; null and absent are the same, and neither is named as unused."""
    assert asked(**fields) == Wish(JobRequest(prompt="a lighthouse", **changed))


@pytest.mark.parametrize(("word", "links"), [("url", True), ("b64_json", False), (None, False)])
def test_pictures_come_as_asked(word: str | None, links: bool) -> None:  # noqa: FBT001 - a column
    """Links are for those who ask for them, and make no other request of it."""
    assert asked(response_format=word) == Wish(JobRequest(prompt="a lighthouse"), links=links)


@pytest.mark.parametrize(
    "name", ["moderation", "style", "output_compression", "input_fidelity", "svg", "new"]
)
def test_unknown_fields_are_named(name: str) -> None:
    """What we have nothing for is passed over, and said so."""
    assert asked(**{name: "low"}) == Wish(JobRequest(prompt="a lighthouse"), ignored=(name,))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"prompt": None}, "/prompt"),
        ({"prompt": " \n"}, "/prompt"),
        ({"prompt": 7}, "/prompt"),
        ({"prompt": "x" * 32_001}, "/prompt"),
        ({"n": 0}, "/n"),
        ({"n": 11}, "/n"),
        ({"n": "2"}, "/n"),
        ({"n": True}, "/n"),
        ({"n": 1.5}, "/n"),
        ({"size": "huge"}, "/size"),
        ({"size": "0x0"}, "/size"),
        ({"size": 1024}, "/size"),
        ({"quality": "max"}, "/quality"),
        ({"quality": 1}, "/quality"),
        ({"background": "pink"}, "/background"),
        ({"output_format": "gif"}, "/output_format"),
        ({"response_format": "blob"}, "/response_format"),
        ({"user": "x" * 513}, "/user"),
        ({"safety_identifier": ["a"]}, "/safety_identifier"),
        ({"model": 7}, "/model"),
        ({"stream": True}, "/stream"),
        ({"partial_images": 2}, "/partial_images"),
        ({"stream": True, "n": 99}, "/stream"),
    ],
)
def test_mistakes_name_their_field(fields: dict[str, Any], place: str) -> None:
    """A value that is none of a field's is refused by the field's name in this API."""
    assert refused(wish_of, {"prompt": "a lighthouse", **fields}) == ("invalid_request", place)


@pytest.mark.parametrize("name", ["GPT-Image-2", "ft:gpt-image-2:acme", "a b", "x" * 65])
def test_strange_models_are_unknown(name: str) -> None:
    """A name that no model could have is a model that is not there, and no mistake of form."""
    assert refused(wish_of, {"prompt": "a", "model": name}) == ("unsupported_option", "/model")


def part(**texts: str) -> list[Part]:
    """Return fields of a form."""
    return [Part(name, text.encode()) for name, text in texts.items()]


@pytest.mark.parametrize(
    "names", [("image",), ("image[]", "image[]"), ("image[0]", "image[1]"), ("image",) * 16]
)
def test_forms_bring_images_in_order(names: tuple[str, ...]) -> None:
    """One image or many, as each SDK spells them, come in the order they stand in."""
    images = [Part(name, b"%d" % at) for at, name in enumerate(names)]
    brought = from_form([*part(prompt="a hat"), *images, Part("mask", b"m")])
    assert brought.images == tuple(b"%d" % at for at in range(len(names)))
    assert (brought.mask, brought.wish) == (b"m", Wish(JobRequest(prompt="a hat")))


def test_form_texts_mean_values() -> None:
    """A form's texts are what JSON would have said: numbers, flags, and nothing where nothing stands."""
    texts = part(prompt="a hat", n="3", stream="false", partial_images="0", user="", model="", extra="1")
    wish = from_form([Part("image", b"1"), *texts]).wish
    assert wish == Wish(JobRequest(prompt="a hat", count=3), ignored=("extra",))
    bare = part(prompt="a hat", n="", size="", quality="", output_format="", stream="")
    assert from_form([Part("image", b"1"), *bare]).wish == Wish(JobRequest(prompt="a hat"))


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ([], "/image"),
        ([Part("image", b"1")] * 17, "/image"),
        ([Part("image", b"1"), *part(n="two")], "/n"),
        ([Part("image", b"1"), *part(n="-1")], "/n"),
        ([Part("image", b"1"), *part(stream="true")], "/stream"),
        ([Part("image", b"1"), Part("markup", b"1")], "/markup"),
        ([Part("image", b"1"), Part("mask", b"1"), Part("mask", b"1")], "/mask"),
        ([Part("image", b"1"), *part(size="auto"), *part(size="auto")], "/size"),
        ([Part("image", b"1"), Part("user", b"\xff")], "/user"),
    ],
)
def test_form_mistakes_name_their_field(parts: list[Part], place: str) -> None:
    """A form is held to the same rules, and to naming each thing once."""
    assert refused(from_form, [*part(prompt="a hat"), *parts]) == ("invalid_request", place)


def test_objects_bring_links() -> None:
    """In JSON images are named by URL, data URLs among them."""
    images = [{"image_url": "https://a.example.com/1.png"}, {"image_url": PNG}]
    brought = from_object({"prompt": "a hat", "images": images, "mask": {"image_url": PNG}})
    assert (brought.images, brought.mask) == (("https://a.example.com/1.png", PNG), PNG)
    assert brought.wish == Wish(JobRequest(prompt="a hat"))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, "/image"),
        ({"images": []}, "/image"),
        ({"images": "https://a.example.com/1.png"}, "/images"),
        ({"images": [{"file_id": "file-1"}]}, "/images"),
        ({"images": ["https://a.example.com/1.png"]}, "/images"),
        ({"images": [{"image_url": ""}]}, "/images"),
        ({"images": [{"image_url": "https://a.example.com/" + "x" * 2048}]}, "/images"),
        ({"images": [{"image_url": PNG}], "mask": {"file_id": "file-1"}}, "/mask"),
        ({"images": [{"image_url": PNG}], "markup": {"image_url": PNG}}, "/markup"),
    ],
)
def test_object_mistakes_name_their_field(fields: dict[str, Any], place: str) -> None:
    """What names no image of the web is refused, as what nobody could take is."""
    assert refused(from_object, {"prompt": "a hat", **fields}) == ("invalid_request", place)


@given(st.binary(max_size=99))
def test_data_urls_hold_bytes(data: bytes) -> None:
    """A data URL is read back to the bytes it was made of."""
    assert data_of("data:image/webp;base64," + base64.b64encode(data).decode(), "image") == data


@pytest.mark.parametrize(
    "url",
    [
        "data:,x",
        "data:text/plain;base64,eA==",
        "data:image/png;base64,?",
        "data:image/png;base64,eA",
        "data:image/png;base64,é",
    ],
)
def test_other_data_urls_are_refused(url: str) -> None:
    """What is not an image in base64, written as RFC 4648 does, is no image."""
    assert refused(data_of, url, "mask") == ("invalid_request", "/mask")


def test_edits_have_inputs() -> None:
    """A request becomes an edit with its inputs and nothing else changed."""
    images, hole = [InputRef(upload="1"), InputRef(url="https://a.example.com/1.png")], InputRef(upload="2")
    assert edited(JobRequest(prompt="a", count=2), images, hole) == JobRequest(
        prompt="a", count=2, operation="edit", inputs=tuple(images), mask=hole
    )
