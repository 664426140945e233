"""What OpenAI's dialect does by itself: how it writes pictures, and how long it thinks a client listens."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai import USAGE, listening, written

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_pictures_are_written_whole(pictures: list[bytes]) -> None:
    """An answer holds each picture in base64, in order, between what was decided and what was used."""
    shown = json.loads(written({"created": 7, "size": "1024x1024"}, pictures))
    assert list(shown) == ["created", "size", "data", "usage"]
    assert [base64.b64decode(each["b64_json"], validate=True) for each in shown["data"]] == pictures
    assert (shown["created"], shown["usage"]) == (7, USAGE)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"x-stainless-read-timeout": "2.0"}, 2.0),
        ({"x-stainless-timeout": "600"}, 600.0),
        ({"x-stainless-read-timeout": "2", "x-stainless-timeout": "9"}, 2.0),
        ({"x-stainless-read-timeout": "None", "x-stainless-timeout": "9"}, 9.0),
        ({"x-stainless-timeout": "0"}, None),
        ({"x-stainless-timeout": "-1"}, None),
        ({"x-stainless-timeout": "nan"}, None),
        ({"x-stainless-timeout": "inf"}, None),
        ({"x-stainless-timeout": "1e999"}, None),
        ({"x-stainless-timeout": "2,5"}, None),
        ({"x-stainless-timeout": "\xff"}, None),
    ],
)
def test_listening_is_what_is_said(fields: dict[str, str], seconds: float | None) -> None:
    """A client listens as long as its SDK's header says in sensible figures; nobody else says anything."""
    exchange = SimpleNamespace(fields={n.encode(): v.encode("latin-1") for n, v in fields.items()})
    assert listening(cast("Exchange", exchange)) == seconds
