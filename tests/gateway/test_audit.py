"""What a trail record holds, and how links follow from one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import Chain, Record, decode, encode, genesis

CHAIN = Chain({"new": b"n" * 32, "old": b"o" * 32})
WORDS = st.text(max_size=20).filter(lambda text: text.isprintable())
RECORDS = st.lists(
    st.builds(
        Record,
        action=WORDS,
        decision=st.sampled_from(["allow", "deny"]),
        at=st.integers(0, 2**53 - 1),
        ref=WORDS,
        rule=st.none() | WORDS,
        credits=st.integers(0, 2**53 - 1),
        count=st.integers(1, 999),
    ),
    max_size=5,
)


@given(RECORDS)
def test_records_read_back(records: list[Record]) -> None:
    """What was written is read again as it was, and is written the same again."""
    data = encode(records)
    assert decode(data) == tuple(records)
    assert encode(decode(data)) == data


def test_encoding_is_canonical() -> None:
    """Keys are sorted, text is UTF-8, nothing is spaced, the format number is always there."""
    assert (
        encode([Record(action="job.é", rule="b", at=1)])
        == '[{"action":"job.é","at":1,"f":1,"rule":"b"}]'.encode()
    )


def test_nothing_but_refs_names_people() -> None:
    """A record has no place for a subject, a prompt's text or metadata."""
    assert set(Record.__struct_fields__) == {
        "action", "decision", "f", "at", "ref", "job", "code", "rule",
        "model", "credits", "count", "prompt", "policy", "role", "tenant",
    }  # fmt: skip


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_chain_follows_its_links(commits: list[bytes]) -> None:
    """Each link holds after the one before it, and after no other."""
    head = genesis("acme")
    for rows in commits:
        link = CHAIN.link(head, rows)
        assert CHAIN.holds(head, rows, link)
        assert not CHAIN.holds(head, rows + b" ", link)
        assert not CHAIN.holds(link, rows, link)
        assert not CHAIN.holds(genesis("other"), rows, link)
        head = link


def test_old_keys_still_verify() -> None:
    """The first key seals; the others verify what they sealed; an unknown key does not."""
    old = Chain({"old": b"o" * 32}).link("", b"[]")
    assert CHAIN.link("", b"[]").startswith("new.")
    assert CHAIN.holds("", b"[]", old)
    assert not CHAIN.holds("", b"[]", "new." + old.partition(".")[2])
    assert not Chain({"new": b"n" * 32}).holds("", b"[]", old)


@pytest.mark.parametrize("head", ["", ".", "new", "new.", "old." + "0" * 64, "old.é"])
def test_odd_heads_do_not_hold(head: str) -> None:
    """A head that is no link is refused, whatever it looks like."""
    assert not CHAIN.holds("", b"[]", head)
