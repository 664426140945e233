"""The desk of service keys on a store that no server has."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.cli.inprocess import Inprocess
from gateway.cli.keys import Desk, Place, desk_of
from gateway.errors import Problem, Refusal
from gateway.secrets import load_or_create
from policies.access import KeyRequest
from tests.fakes.tokens import jwks, signer

ENVIRON = {"SAFELIGHT_SECRET": "a secret of the tests, long enough to be one"}
SETTINGS = """\
secret: ["${{env:SAFELIGHT_SECRET}}"]
auth: {{issuers: [{{issuer: "https://login.example.com", audience: images, jwks_file: "{folder}/keys"}}]}}
store: {{url: "sqlite:///{folder}/safelight.db"}}
blobs: {{url: "file://{folder}/blobs"}}
providers: {{sandbox: {{kind: sandbox}}}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that was used before."""
    load_or_create(tmp_path / "secret")
    return tmp_path


def place(data: Path, tenant: str = "acme", config: Path | None = None) -> Place:
    """Return where a tenant's keys are."""
    return Place(tenant, data, config)


def test_keys_are_kept_on_store(data: Path) -> None:
    """What one command makes, the next lists and revokes, newest first and by tenant."""
    with desk_of(place(data), {}, io.BytesIO()) as desk:
        first = desk.create(KeyRequest(subject="ci", label="one"))
        second = desk.create(KeyRequest(subject="ci", label="two"))
    assert first.key.startswith("sk_")
    assert first.key != second.key
    with desk_of(place(data), {}, io.BytesIO()) as desk:
        desk.revoke(first.id)
        kept = list(desk.all())
    assert [(key.label, key.key, key.revoked_at is None) for key in kept] == [
        ("two", "", True),
        ("one", "", False),
    ]
    with desk_of(place(data, "other"), {}, io.BytesIO()) as desk:
        assert list(desk.all()) == []
        for name in (first.id, "key_1"):
            with pytest.raises(Problem, match="not_found"):
                desk.revoke(name)


def test_settings_file_names_store(data: Path) -> None:
    """With a settings file its store and its policies count."""
    config = data / "safelight.yaml"
    config.write_text(SETTINGS.format(folder=data / "served"))
    (data / "served").mkdir()
    (data / "served/keys").write_bytes(jwks(signer()))
    with desk_of(place(data, config=config), ENVIRON, io.BytesIO()) as desk:
        assert desk.create(KeyRequest(subject="ci")).plan is None
        with pytest.raises(Problem, match="invalid_request"):
            desk.create(KeyRequest(subject="ci", plan="gold"))
    assert (data / "served/safelight.db").exists()
    assert not (data / "safelight.db").exists()


def test_held_store_says_what_helps(data: Path) -> None:
    """A store that a server holds is left alone; the refusal names the two options that help."""
    with (
        Inprocess(data, {"SAFELIGHT_WORKER_CONCURRENCY": "0"}, io.BytesIO()),
        pytest.raises(Refusal, match=r"Name it by --url, with a --token of the tenant's admin, or stop it"),
    ):
        enter(place(data))


@pytest.mark.parametrize(("tenant", "words"), [("a b", "is not a tenant's name"), ("*", "is not a tenant's")])
def test_odd_tenants_are_refused(data: Path, tenant: str, words: str) -> None:
    """What no token could name is no tenant here either, and the store is let go of."""
    with pytest.raises(Refusal, match=words):
        enter(place(data, tenant))
    assert enter(place(data)) is not None


def test_no_folder_is_made(tmp_path: Path) -> None:
    """A folder that no server used yet is refused, not made: it is a wrong turn more likely than a wish."""
    with pytest.raises(Refusal, match="is not a data folder yet"):
        enter(place(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def enter(where: Place) -> Desk:
    """Open a desk and leave it."""
    with desk_of(where, {}, io.BytesIO()) as desk:
        return desk
