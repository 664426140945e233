"""The Postman collection: what stands in it. That it runs is shown by `test_clients.py`."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from gateway.api.collection import ENDLESS, STORY, collection, operations
from gateway.api.samples import PICTURE, PICTURE_URL
from tests.gateway.api.conftest import URL, Site
from tests.gateway.api.documented import document_of, speakers


@pytest.fixture
async def document(site: Site) -> dict[str, Any]:
    """The document of a site that speaks all dialects."""
    return await document_of(site.rebuilt(speakers=speakers()))


@pytest.fixture
def requests(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every request of its collection, in order."""
    return [item for folder in collection(document)["item"] for item in folder["item"]]


def test_story_tells_every_call(document: dict[str, Any]) -> None:
    """Every call of the document is in the story but the one without an end, and nothing else is."""
    named = {operation["operationId"] for _, _, operation in operations(document)}
    assert {step.call for step in STORY} == named - {ENDLESS}


def test_folders_are_the_tags(document: dict[str, Any]) -> None:
    """Folders come in the order of the document's tags, each with what it is about."""
    found = collection(document)
    folders = [(folder["name"], folder["description"]) for folder in found["item"]]
    assert folders == [(tag["name"], tag["description"]) for tag in document["tags"]]
    assert found["auth"]["bearer"][0]["value"] == "{{apiKey}}"
    assert {"baseUrl": URL, "apiKey": ""}.items() <= {
        each["key"]: each["value"] for each in found["variable"]
    }.items()


def test_variables_are_kept_before_use(requests: list[dict[str, Any]]) -> None:
    """A request refers to nothing but what has a value from the start or an answer before it gave."""
    known = {"baseUrl", "apiKey", "webhookUrl", "$guid"}
    for item in requests:
        asked = json.dumps(item["request"])
        assert set(re.findall(r"\{\{([^}]+)\}\}", asked)) <= known, item["name"]
        script = "\n".join(item["event"][0]["script"]["exec"])
        known |= set(re.findall(r'collectionVariables\.set\("(\w+)"', script))


def test_paths_are_filled_in(requests: list[dict[str, Any]]) -> None:
    """Each name in a path has its value beside it, in Postman's spelling."""
    for item in requests:
        url = item["request"]["url"]
        if isinstance(url, dict):
            names = [part[1:] for part in url["path"] if part.startswith(":")]
            assert names == [each["key"] for each in url["variable"]], item["name"]
            assert "{" not in "".join(url["path"])


def test_posts_have_their_key(requests: list[dict[str, Any]]) -> None:
    """Every request that takes a key sends a fresh one, and signed links and probes have no bearer."""
    keyed = [item for item in requests if "Idempotency-Key" in json.dumps(item["request"]["header"])]
    assert all(item["request"]["method"] == "POST" for item in keyed)
    assert len(keyed) >= 10
    free = {item["name"] for item in requests if "auth" in item["request"]}
    assert {"Read an image by its link", "Send an upload's bytes"} <= free


async def test_plain_site_is_told_alone(site: Site) -> None:
    """Where no dialect is spoken the collection has no folder of one."""
    names = [folder["name"] for folder in collection(await document_of(site))["item"]]
    assert names == ["Jobs", "Uploads", "Account", "Keys", "Webhooks", "Operations"]


def test_sample_picture_is_text() -> None:
    """The sample picture is a whole WebP, in characters that a body as text leaves as they are."""
    data = PICTURE.encode()
    assert len(data) == len(PICTURE)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == ("WEBP", (320, 246))
    with Image.open(io.BytesIO(base64.b64decode(PICTURE_URL.partition(",")[2]))) as image:
        assert image.size == (320, 246)
