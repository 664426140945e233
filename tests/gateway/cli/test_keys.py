"""`safelight key`: where it finds the keys, and what it says of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import KEY_ROLES, SCOPES
from gateway.cli.client import Client
from gateway.cli.keys import Page, Place, Server, Shown, desk_of, run_create, run_list, run_revoke
from gateway.cli.screen import Screen
from gateway.errors import Refusal
from policies.access import Action, KeyRequest
from policies.model import Role

KEY = Shown(
    id="key_1",
    hint="sk_…abcd",
    label="",
    subject="ci",
    roles=("user",),
    plan=None,
    scopes=None,
    created_at="2026-11-20T12:00:00.000Z",
    expires_at="2027-11-20T12:00:00.000Z",
)


class Clerk:
    """A desk with some keys."""

    def __init__(self, *keys: Shown) -> None:
        self.keys = keys
        self.revoked: list[str] = []

    def create(self, asked: KeyRequest) -> Shown:
        """Return the first key."""
        return self.keys[0]

    def all(self) -> Iterator[Shown]:
        """Return all."""
        yield from self.keys

    def revoke(self, name: str) -> None:
        """Note it."""
        self.revoked.append(name)


class Sayings(Client):
    """A client whose server says what a test wants, and notes what it is asked."""

    def __init__(self, *said: Any) -> None:
        super().__init__("http://127.0.0.1:1", "t")
        self.said = list(said)
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        """Return the next saying."""
        self.asked.append((method, path, body and json.loads(body)))
        return self.said.pop(0)


@pytest.fixture
def screens() -> tuple[Screen, io.StringIO, io.StringIO]:
    """A screen into two texts."""
    out, err = io.StringIO(), io.StringIO()
    return Screen(out, err), out, err


def test_words_are_the_policies() -> None:
    """Scopes and roles a key can be given are those there are; a platform admin's is none."""
    assert set(SCOPES) == set(Action)
    assert set(KEY_ROLES) == set(Role) - {Role.PLATFORM_ADMIN}


def test_key_is_alone_on_stdout(screens: tuple[Screen, io.StringIO, io.StringIO]) -> None:
    """The key is all of stdout, so that a shell can keep it; whose it is goes to stderr."""
    screen, out, err = screens
    made = Shown(**{**{f: getattr(KEY, f) for f in KEY.__struct_fields__}, "key": "sk_" + "A" * 43})
    run_create(Clerk(made), KeyRequest(), screen)
    assert out.getvalue() == "sk_" + "A" * 43 + "\n"
    assert err.getvalue().startswith("key_1  for ci; user; until 2027-11-20\n")


def test_list_tells_whose_keys(screens: tuple[Screen, io.StringIO, io.StringIO]) -> None:
    """A line a key: its id, its letters, whom it speaks for with what, and its end; nothing steers."""
    screen, out, err = screens
    full = Shown(
        **{f: getattr(KEY, f) for f in KEY.__struct_fields__}
        | {
            "plan": "pro",
            "scopes": ("audit",),
            "label": "\x1b[2J",
            "revoked_at": "2026-12-01T00:00:00.000Z",
        }
    )
    run_list(Clerk(KEY, full), screen)
    assert out.getvalue().splitlines() == [
        "key_1  sk_…abcd  for ci; user; until 2027-11-20",
        "key_1  sk_…abcd  for ci; user; plan pro; scopes audit; label '\\x1b[2J'; revoked 2026-12-01",
    ]
    run_list(Clerk(), screen)
    assert err.getvalue() == "The tenant has no service keys.\n"


def test_revoking_is_told_aside(screens: tuple[Screen, io.StringIO, io.StringIO]) -> None:
    """What was revoked is said on stderr."""
    screen, out, err = screens
    clerk = Clerk()
    run_revoke(clerk, "key_1", screen)
    assert (clerk.revoked, out.getvalue()) == (["key_1"], "")
    assert err.getvalue().startswith("key_1 is revoked")


def answer(value: Any) -> Any:
    """Return what a client gets for a value."""
    from gateway.cli.client import Answer

    return Answer(200, {}, json.dumps(value).encode())


def test_server_is_asked_over_http() -> None:
    """A server's keys are made, revoked, and read page by page to the end."""
    row = {f: getattr(KEY, f) for f in KEY.__struct_fields__ if f != "key"}
    client = Sayings(
        answer({**row, "key": "sk_x"}),
        answer({"data": [row, row], "next": "c1"}),
        answer({"data": [row], "next": None}),
        answer(None),
    )
    server = Server(client)
    assert server.create(KeyRequest(label="x", scopes=(Action.READ,))).key == "sk_x"
    assert len(list(server.all())) == 3
    server.revoke("key_1")
    assert [(method, path) for method, path, _ in client.asked] == [
        ("POST", "/v1/keys"),
        ("GET", "/v1/keys?limit=100"),
        ("GET", "/v1/keys?limit=100&cursor=c1"),
        ("DELETE", "/v1/keys/key_1"),
    ]
    assert client.asked[0][2]["scopes"] == ["images:read"]
    assert Page((), None).next is None


def test_named_server_needs_token(tmp_path: Path) -> None:
    """A server that is named is not asked without its token."""
    place = Place("acme", tmp_path, url="http://127.0.0.1:1")
    with pytest.raises(Refusal, match="--url needs a token"), desk_of(place, {}, io.BytesIO()):
        pass
