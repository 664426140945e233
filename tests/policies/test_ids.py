"""The two spellings of a job's id."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.ids import parse, shown

UUID = "01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0"


@given(st.uuids())
def test_spelling_returns_to_uuid(number: uuid.UUID) -> None:
    """What is shown of an id names the same id, and so does its own text."""
    text = str(number)
    assert parse(shown(text)) == text == parse(text)


@given(st.uuids(), st.uuids())
def test_spelling_keeps_order(one: uuid.UUID, other: uuid.UUID) -> None:
    """Ids sort alike in both spellings, so time order survives."""
    assert (shown(str(one)) < shown(str(other))) == (str(one) < str(other))


def test_shown_is_crockford() -> None:
    """The extremes are written as ULIDs are."""
    assert shown(str(uuid.UUID(int=0))) == "job_" + "0" * 26
    assert shown(str(uuid.UUID(int=2**128 - 1))) == "job_7" + "Z" * 25
    assert shown(str(uuid.UUID(int=33))) == "job_" + "0" * 24 + "11"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        UUID.upper(),
        UUID.replace("-", ""),
        f"{{{UUID}}}",
        UUID + "\n",
        shown(UUID)[:-1],
        shown(UUID) + "0",
        shown(UUID).lower(),
        "job_8" + "0" * 25,
        "job_0" + "I" * 25,
        "job_0" + "U" * 25,
        "job_0" + "é" * 25,
        "job_0" + "\ud800" * 25,
        "JOB_" + shown(UUID)[4:],
    ],
)
def test_other_spellings_name_nothing(text: str) -> None:
    """A second spelling of the same bits is not accepted, and malformed text is no error."""
    assert parse(text) is None
