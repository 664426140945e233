"""Forms with files, as OpenAI's SDKs, cURL and browsers write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.forms import MOST_PARTS, Part, is_form, read_form
from gateway.errors import Problem

KIND = "multipart/form-data; boundary=b-1"


def form(*parts: tuple[str, bytes], head: str = 'Content-Disposition: form-data; name="{}"') -> bytes:
    """Return the bytes of a form."""
    made = [b"--b-1\r\n" + head.format(name).encode() + b"\r\n\r\n" + data + b"\r\n" for name, data in parts]
    return b"".join(made) + b"--b-1--\r\n"


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z_\[\]]{1,20}", fullmatch=True), st.binary(max_size=99)), max_size=9
    )
)
def test_parts_come_as_sent(parts: list[tuple[str, bytes]]) -> None:
    """Every part is read with its name, byte for byte and in order, whatever its bytes are."""
    assert read_form(KIND, form(*parts)) == [Part(*part) for part in parts]


def test_files_are_parts_too() -> None:
    """A file's name and type are let be: what a part is, its bytes tell."""
    head = 'Content-Disposition: form-data; name="{}"; filename="a \\"b\\".png"\r\nContent-Type: image/png'
    assert read_form(KIND, form(("image[]", b"\x89PNG\r\n"), head=head)) == [Part("image[]", b"\x89PNG\r\n")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", form(("a", b"1"))),
        ("multipart/form-data; boundary=", form(("a", b"1"))),
        ("multipart/form-data; boundary=other", form(("a", b"1"))),
        (KIND, b""),
        (KIND, b"{}"),
        (KIND, form(("a", b"1"))[:-8]),
        (KIND, form(("a", b"1"), head="Content-Type: text/plain")),
        (KIND, form(("a", b"1"), head='Content-Disposition: attachment; name="{}"')),
        (KIND, form(("a", b"1"), head="Content-Disposition: form-data")),
        (KIND, form(("a", b"1"), head="X: " + "x" * 9000)),
        (KIND, form(*[("a", b"1")] * (MOST_PARTS + 1))),
    ],
)
def test_broken_forms_are_refused(kind: str, body: bytes) -> None:
    """What is not a whole form of the announced boundary is one problem, whatever is wrong with it."""
    with pytest.raises(Problem) as refused:
        read_form(kind, body)
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        (KIND, True),
        ("Multipart/Form-Data ; boundary=x", True),
        ("multipart/mixed; boundary=x", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_forms_are_told_by_type(kind: str, is_one: bool) -> None:  # noqa: FBT001 - a column
    """A form is what its Content-Type calls one, in any case."""
    assert is_form(kind) is is_one
