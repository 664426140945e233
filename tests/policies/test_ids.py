"""The two spellings of an id."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import ids
from policies.ids import parse, shown

UUID = "01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0"
PREFIXES = (ids.JOB, ids.KEY, ids.UPLOAD, ids.ENDPOINT, ids.DELIVERY)


@given(st.uuids(), st.sampled_from(PREFIXES))
def test_spelling_returns_to_uuid(number: uuid.UUID, prefix: str) -> None:
    """What is shown of an id names the same id, and so does its own text."""
    text = str(number)
    assert parse(shown(text, prefix), prefix) == text == parse(text, prefix)


@pytest.mark.parametrize("asked", PREFIXES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_says_what_is_named(asked: str, prefix: str) -> None:
    """The id of one kind of thing names nothing of another; without a prefix a job is meant."""
    assert (parse(shown(UUID, prefix), asked) == UUID) is (asked == prefix)
    assert shown(UUID) == shown(UUID, ids.JOB)


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
