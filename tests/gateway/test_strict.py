"""JSON comes in strictly: what is refused, with which words, and that nothing makes it fall over."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from gateway.strict import DEPTH, MOST_PARTS, Flawed, decode_json, read_object, too_deep
from policies.model import EXACT, JobRequest


def parse_json(data: bytes, depth: int = DEPTH) -> object | Flawed:
    """Read bytes as any JSON at all."""
    return decode_json(data, object, depth)


def told(answer: object) -> dict[str, str]:
    """Return a refusal's flaws by pointer."""
    assert isinstance(answer, Flawed)
    return {flaw.pointer: flaw.detail for flaw in answer.flaws}


def test_good_body_becomes_its_struct() -> None:
    """A body that spells the type is returned as its value."""
    body = b'{"prompt": "a lighthouse\\nat dusk", "count": 2, "metadata": {"order": "17"}}'
    expected = JobRequest(prompt="a lighthouse\nat dusk", count=2, metadata={"order": "17"})
    assert decode_json(body, JobRequest) == expected


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        (b"", "", "is empty (line 1, column 1)"),
        (b" \n ", "", "is empty (line 2, column 2)"),
        (b"{", "", "is not JSON: Expecting property name"),
        (b'{"prompt": "a",}', "", "is not JSON: "),
        (b'{"prompt": "a"} x', "", "is not JSON: Extra data"),
        (b"\xef\xbb\xbf{}", "", "is not JSON"),
        (b'{"prompt": "\xff"}', "", "is not UTF-8 (byte 12)"),
        (b'{"prompt": "\xed\xa0\x80"}', "", "is not UTF-8"),
        (b'{"prompt": "a\nb"}', "", "is not JSON: Invalid control character"),
        (b'{"prompt": NaN}', "", "NaN is not a JSON value"),
        (b'{"prompt": -Infinity}', "", "-Infinity is not a JSON value"),
        (b'{"prompt": "a", "prompt": "b"}', "/prompt", "stands twice"),
        (b'{"prompt": "a", "metadata": {"k": "1", "k": "1"}}', "/metadata/k", "stands twice"),
        (b'{"prompt": "\\ud800x"}', "/prompt", "holds half a surrogate pair"),
        (b'{"prompt": "x\\udc00"}', "/prompt", "holds half a surrogate pair"),
        (b'{"prompt": "a", "\\ud800": 1}', "/\\ud800", "unknown key"),
        (b'{"prompt": "a", "size": "1024x1024\\n"}', "/size", "must have the form"),
        (b'{"prompt": "a", "size": "1024x1024\\u000A"}', "/size", "must have the form"),
        (b'{"prompt": "a", "seed": 10000000000000000000000}', "/seed", "must be between 0 and 4294967295"),
        (b'{"prompt": "a", "seed": 1e999}', "/seed", "must be a whole number or null"),
        (b'{"prompt": "a", "count": 1.0}', "/count", "must be a whole number, not a decimal number"),
        (b'{"prompt": "a", "count": true}', "/count", "must be a whole number, not true or false"),
        (b"[]", "", "must be an object, not a list"),
        (b"null", "", "must be an object, not null"),
        (b"7" * 5000, "", "must be an object, not a whole number"),
    ],
)
def test_bad_body_is_told_where(body: bytes, pointer: str, detail: str) -> None:
    """Each kind of mistake is refused at its place with a plain sentence."""
    flaws = told(decode_json(body, JobRequest))
    assert detail in flaws[pointer]


def test_all_mistakes_are_told_at_once() -> None:
    """A body with many mistakes gets one flaw for each of them."""
    body = {
        "promt": "",
        "operation": "generat",
        "count": 11,
        "inputs": [{"url": 1}, {"u": 2}, 3],
        "metadata": {"a b": "", "c": 1},
        "quality": None,
    }
    assert told(decode_json(msgspec.json.encode(body), JobRequest)) == {
        "/promt": 'unknown key, did you mean "prompt"?',
        "/prompt": "is required",
        "/operation": 'must be one of "edit", "generate", did you mean "generate"?',
        "/count": "must be between 1 and 10",
        "/inputs/0/url": "must be text or null, not a whole number",
        "/inputs/1/u": "unknown key",
        "/inputs/2": "must be an object, not a whole number",
        "/metadata/a b": "as a name must have the form ^[A-Za-z0-9_.-]{1,64}$",
        "/metadata/c": "must be text, not a whole number",
        "/quality": 'must be one of "high", "low", "medium", not null',
    }


def test_values_are_never_told_back() -> None:
    """No sentence repeats what a client sent as a value."""
    body = b'{"prompt": ["canary-one"], "size": "canary-two", "quality": "canary-three"}'
    assert "canary" not in str(decode_json(body, JobRequest))


@pytest.mark.parametrize("body", [b"[" * 40_000, b'{"a":' * 40_000])
def test_deep_bodies_never_recurse(body: bytes) -> None:
    """Nesting beyond the cap is refused before anything parses it."""
    assert told(parse_json(body)) == {"": f"is nested deeper than {DEPTH} levels"}


@pytest.mark.parametrize("part", [b"0,", b"[],", b'{"a":0},', b'"",'])
def test_too_many_parts_are_not_read(part: bytes) -> None:
    """A body of more parts than a request can need is refused before anything parses it."""
    body = b"[" + part * MOST_PARTS + b"0]"
    assert told(parse_json(body)) == {"": f"has more than {MOST_PARTS} commas and brackets"}
    prompt = "[," * (MOST_PARTS // 2)
    assert parse_json(msgspec.json.encode(prompt)) == prompt


def test_depth_is_counted_outside_strings() -> None:
    """Exactly the cap passes, one more does not, and brackets in texts do not count."""
    assert parse_json(b"[" * DEPTH + b"]" * DEPTH) == json.loads("[" * DEPTH + "]" * DEPTH)
    assert told(parse_json(b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1))) == {
        "": f"is nested deeper than {DEPTH} levels"
    }
    assert parse_json(msgspec.json.encode(['"[' * 200])) == ['"[' * 200]
    assert parse_json(b"[" + b"[]," * 100 + b"[]]") == [[]] * 101


@pytest.mark.parametrize("opening", [b'"' + b'\\"' * 200_000, b'"\\\\' * 200_001, b'"a' * 200_001])
def test_depth_scan_is_linear(opening: bytes) -> None:
    """Brackets in a text that never ends do not count, and finding that out takes one pass."""
    assert not too_deep(opening + b"[" * 40)


@pytest.mark.parametrize("number", [EXACT, -EXACT, 0])
def test_exact_integers_pass_anywhere(number: int) -> None:
    """Integers that every part of the system holds exactly pass, in untyped places too."""
    assert parse_json(b'{"a": [%d]}' % number) == {"a": [number]}


@pytest.mark.parametrize("number", [b"9007199254740992", b"-9007199254740992", b"1" * 400])
def test_inexact_integers_are_refused_anywhere(number: bytes) -> None:
    """Larger integers are refused even where the type says nothing."""
    assert told(parse_json(b'{"a": [%s]}' % number)) == {
        "/a/0": "must be between -9007199254740991 and 9007199254740991"
    }


def test_flaws_are_capped() -> None:
    """A hostile body with thousands of mistakes gets a hundred flaws, names cut short."""
    body = msgspec.json.encode({f"{n}{'x' * 90}": n for n in range(3000)})
    answer = decode_json(body, JobRequest)
    assert isinstance(answer, Flawed)
    assert len(answer.flaws) == 100
    assert max(len(flaw.pointer) for flaw in answer.flaws) <= 66


def test_struct_rules_of_its_own_count() -> None:
    """What only the struct's own constructor refuses is still told as a flaw."""

    class Pair(Struct):
        low: Annotated[int, Meta(ge=0, le=9)]

        def __post_init__(self) -> None:
            if self.low == 3:
                raise ValueError("three is taken")

    assert told(decode_json(b'{"low": 3}', Pair))[""].startswith("cannot be read: three is taken")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(value=_JSON)
def test_any_json_is_a_value_or_flaws(value: Any) -> None:
    """Whatever JSON comes, the answer is a value or at least one flaw, and flaws can be sent."""
    answer = decode_json(json.dumps(value).encode("utf-8", "surrogatepass"), JobRequest)
    if isinstance(answer, Flawed):
        assert answer.flaws
        msgspec.json.encode(answer)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_flaws(data: bytes) -> None:
    """Whatever bytes come, nothing is raised."""
    answer = parse_json(data)
    assert not isinstance(answer, Flawed) or answer.flaws


@given(value=_JSON)
def test_accepted_values_equal_the_plain_reading(value: Any) -> None:
    """What is accepted means what every other JSON reader takes it for."""
    text = json.dumps(value)
    answer = parse_json(text.encode("utf-8", "surrogatepass"))
    if not isinstance(answer, Flawed):
        assert answer == json.loads(text)


def test_good_body_costs_microseconds() -> None:
    """Strictness runs no Python function per value of a good body: only one per object and number."""
    body = msgspec.json.encode({"prompt": "a", "metadata": {f"k{n}": "v" for n in range(16)}, "count": 2})
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        answer = decode_json(body, JobRequest)
    finally:
        sys.setprofile(None)
    assert isinstance(answer, JobRequest)
    assert len(calls) <= 10


@given(
    st.binary(max_size=40)
    | st.from_regex(rb'\{("a"|"b"):([1-9]|\{\}|"\\\\ud800"|NaN)(,"a":1)?\}', fullmatch=True)
)
def test_objects_are_read_as_strictly(data: bytes) -> None:
    """What is read without an explanation is what is read with one, if that is an object."""
    told = parse_json(data, 2)
    assert read_object(data, 2) == (told if isinstance(told, dict) else None)


@pytest.mark.parametrize("item", [b"0", b"{}", b"[]", b'""', b'{"url":1}'])
def test_huge_bodies_get_one_flaw(item: bytes) -> None:
    """Of a body with very many parts only the first mistake is told: listing all would stop the process."""
    body = b'{"prompt":"a","inputs":[' + b",".join([item] * 20_000) + b"]}"
    (flaw,) = told(decode_json(body, JobRequest)).items()
    assert flaw[0] == ""
    assert flaw[1].startswith("has too many parts to list its mistakes; the first: ")
    assert "/inputs" in told(decode_json(body.replace(item + b",", b"", 19_900), JobRequest))


def test_deep_objects_are_not_read() -> None:
    """An object nested deeper than allowed is not read."""
    assert read_object(b'{"a":{}}', 2) == {"a": {}}
    assert read_object(b'{"a":{}}', 1) is None
