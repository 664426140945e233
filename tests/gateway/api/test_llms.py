"""The brief for language models: its form, its size, and that nothing is missing from it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.api.collection import operations
from gateway.api.llms import llms
from gateway.errors import CATALOGUE
from tests.gateway.api.conftest import URL, Site
from tests.gateway.api.documented import document_of, speakers

MOST = 16_000


@pytest.fixture
async def document(site: Site) -> dict[str, Any]:
    """The document of a site that speaks all dialects."""
    return await document_of(site.rebuilt(speakers=speakers()))


def test_brief_has_its_form(document: dict[str, Any]) -> None:
    """A title, a quoted sentence, then sections of which each is a list of links (llmstxt.org)."""
    text = llms(document)
    title, sentence, *_ = text.split("\n\n")
    assert (title, sentence[:2]) == ("# Safelight", "> ")
    for section in text.split("\n## ")[1:]:
        _, *lines = section.strip().splitlines()
        assert all(re.match(r"- \[[^]]+\]\(https://[^ )]+\): \S", line) for line in lines if line), section


def test_brief_is_whole_and_brief(document: dict[str, Any]) -> None:
    """Every call but the operators' and every code of an error is named, in less than 16 kB."""
    text = llms(document)
    for path, method, operation in operations(document):
        assert (f"[{method} {path}]" in text) == (operation["tags"] != ["Operations"])
    assert all(code in text for code in CATALOGUE)
    assert f"{URL}/problems/CODE" in text
    assert len(text.encode()) < MOST
    longer = {
        **document,
        "servers": [{"url": "https://images.a-company-of-a-long-name.example.com/api/images"}],
    }
    assert len(llms(longer).encode()) < MOST


def test_bodies_are_told_in_brief(document: dict[str, Any]) -> None:
    """A body's fields have their types; what may be left out is marked."""
    text = llms(document)
    assert '{prompt: string, operation?: "edit" | "generate", size?: string' in text
    assert "inputs?: {upload?, url?}[]" in text
    assert 'roles?: ("platform_admin" | "tenant_admin" | "user")[]' in text
    assert "Query: wait, after." in text
