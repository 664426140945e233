"""The nouns: what is refused as a request, what a job says of itself, what a fingerprint depends on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.model import (
    ALLOW,
    EXACT,
    Account,
    Allow,
    Attempt,
    Hold,
    Job,
    JobRequest,
    JobState,
    Money,
    Output,
    Principal,
    Role,
)

PICTURE = Output(0, "k", "image/png", 1, 1, 1, "0")


def decode(**fields: Any) -> JobRequest:
    """Return the request a body makes."""
    return msgspec.json.decode(msgspec.json.encode({"prompt": "p", **fields}), type=JobRequest)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("prompt", ["x", "x" * 32_000], ["", "x" * 32_001, 1, None]),
        ("operation", ["generate", "edit"], ["vary"]),
        ("size", ["1024x1024", "16x16", None], ["1024", "0x9", "01x10", "1024X1024", "1024x1024 "]),
        ("aspect_ratio", ["1:1", "16:9", "21:9"], ["16x9", "0:1", "160:9"]),
        ("quality", ["low", "medium", "high"], ["best"]),
        ("count", [1, 10], [0, 11, 1.5, "1", True]),
        ("inputs", [[], [{"url": "https://a"}], [{"upload": "u"}] * 16], [[{}] * 17, [{"path": "/"}]]),
        ("mask", [{"upload": "u"}, None], [{"url": "x" * 2049}]),
        ("style", ["editorial-photo"], ["Editorial", ""]),
        ("lighting", ["soft", "x" * 1000], ["", "x" * 1001]),
        ("seed", [0, 2**32 - 1, None], [-1, 2**32]),
        ("format", ["png", "webp", "jpeg"], ["gif"]),
        ("background", ["auto", "transparent", "opaque"], ["none"]),
        ("model", ["standard", "a.b_c-9"], ["-x", "X", "x" * 65]),
        ("metadata", [{}, {"a.b-C_1": "x"}], [{"a b": "x"}, {"a": "x" * 513}, {"a": 1}]),
        ("on_unsupported", ["refuse", "drop"], ["ignore"]),
    ],
)
def test_request_fields_are_bounded(field: str, good: list[Any], bad: list[Any]) -> None:
    """Each field takes what the schema says, up to its edge, and nothing else."""
    for value in good:
        decode(**{field: value})
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            decode(**{field: value})


def test_unknown_field_is_refused() -> None:
    """A field that is not of the schema is refused, not passed over."""
    with pytest.raises(msgspec.ValidationError, match="stlye"):
        decode(stlye="cinematic")
    with pytest.raises(msgspec.ValidationError):
        decode(metadata={str(number): "x" for number in range(17)})


def test_defaults_count_as_written() -> None:
    """A default left out and one written out are the same request; an absent size or model is its own."""
    assert decode().fingerprint() == decode(count=1, quality="medium", metadata={}).fingerprint()
    prints = {
        decode().fingerprint(),
        decode(size="1024x1024").fingerprint(),
        decode(model="fast").fingerprint(),
    }
    assert len(prints) == 3


@given(st.permutations(["a", "b", "c"]), st.dictionaries(st.sampled_from("abc"), st.text(max_size=9)))
def test_order_does_not_count(order: list[str], metadata: dict[str, str]) -> None:
    """The order of keys does not change a fingerprint; any change of value does."""
    turned = {name: metadata[name] for name in order if name in metadata}
    assert decode(metadata=metadata).fingerprint() == decode(metadata=turned).fingerprint()
    other = {**metadata, "a": metadata.get("a", "") + "x"}
    assert decode(metadata=metadata).fingerprint() != decode(metadata=other).fingerprint()


@pytest.mark.parametrize(
    ("state", "charged", "held", "refunded"),
    [
        (JobState.QUEUED, 0, 40, 0),
        (JobState.RUNNING, 0, 40, 0),
        (JobState.SUCCEEDED, 30, 0, 10),
        (JobState.FAILED, 0, 0, 40),
        (JobState.BLOCKED, 0, 0, 40),
        (JobState.CANCELED, 0, 0, 40),
    ],
)
def test_job_accounts_for_hold(state: JobState, charged: int, held: int, refunded: int) -> None:
    """A job's hold is held while it is open, and charged or returned once it has ended."""
    request = JobRequest(prompt="p", count=4)
    job = Job("j", "t", "s", request, state=state, hold=Hold(40, "2026-11"), charged=charged, price_each=10)
    assert (job.quoted, job.held, job.refunded) == (40, held, refunded)
    assert state.ended == (held == 0)


@pytest.mark.parametrize(
    ("granted", "charged", "held", "available"), [(100, 30, 20, 50), (0, 0, 0, 0), (None, 30, 20, None)]
)
def test_available_is_what_remains(
    granted: int | None, charged: int, held: int, available: int | None
) -> None:
    """Available is granted less charged and held; a level without a budget has none to tell."""
    assert Account(granted, charged, held).available == available


@pytest.mark.parametrize(
    ("roles", "admin"),
    [
        ({Role.USER}, False),
        ({Role.TENANT_ADMIN}, True),
        ({Role.USER, Role.TENANT_ADMIN}, True),
        ({Role.PLATFORM_ADMIN}, False),
    ],
)
def test_tenant_admins_see_tenant(roles: set[Role], *, admin: bool) -> None:
    """Only a tenant's admin sees the whole tenant: the platform's own role is another matter."""
    assert Principal("t", "s", frozenset(roles)).is_admin == admin


def test_slot_needs_no_other() -> None:
    """A slot is done when its attempt holds images or a code, not while it is open."""
    attempt = Attempt(0, 1, 0, 9)
    assert not attempt.done
    assert replace(attempt, code="upstream_failed").done
    assert replace(attempt, outputs=(PICTURE,)).done


@pytest.mark.parametrize("number", [-1, EXACT + 1])
def test_integers_are_exact_everywhere(number: int) -> None:
    """A figure that a script or a browser would round is not read."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"micros": number}, Money)


def test_allow_adds_nothing() -> None:
    """There is one way to say yes."""
    assert Allow() == ALLOW
