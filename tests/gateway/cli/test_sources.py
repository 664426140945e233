"""Where a command finds its settings, its policies and what was kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.cli.sources import Kept, Mistaken, files_of, kept, settings_file
from gateway.errors import Refusal
from gateway.secrets import Secret, load_or_create
from gateway.settings import PoliciesSettings, Settings
from gateway.store.opening import Place


def test_settings_file_is_found_here(tmp_path: Path) -> None:
    """A file that is named is read; without a name the one that lies here; else none."""
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert settings_file(None) is None
        (tmp_path / "safelight.yaml").touch()
        assert settings_file(None) == "safelight.yaml"
        assert settings_file(Path("other.yaml")) == "other.yaml"
    finally:
        os.chdir(before)


def test_store_is_named_by_settings(tmp_path: Path) -> None:
    """A settings file says where the store is and which secrets verify it; a data folder stands for both."""
    (tmp_path / "s.yaml").write_text('secret: ["${env:A}", "${env:B}"]\nstore: {url: "sqlite:////x/y.db"}\n')
    environ = {"A": "a" * 32, "B": "b" * 32}
    named = kept(tmp_path / "s.yaml", tmp_path, environ)
    assert named == Kept(Place("sqlite:////x/y.db"), (Secret("a" * 32), Secret("b" * 32)))
    secret = load_or_create(tmp_path / "secret")
    assert kept(None, tmp_path, {}) == Kept(Place(f"sqlite:///{tmp_path}/safelight.db"), (secret,))


def test_unusable_sources_are_refused(tmp_path: Path) -> None:
    """A file with mistakes, one without a secret and a folder that is none are told apart."""
    (tmp_path / "bare.yaml").write_text("")
    with pytest.raises(Mistaken, match=r"no\.yaml: cannot be read"):
        kept(tmp_path / "no.yaml", tmp_path, {})
    with pytest.raises(Refusal, match="sets no secret"):
        kept(tmp_path / "bare.yaml", tmp_path, {})
    with pytest.raises(Refusal, match="is not a data folder yet"):
        kept(None, tmp_path, {})


def test_policies_are_read_whole(tmp_path: Path) -> None:
    """The presets are read where no folder is named; a folder with mistakes is no bundle."""
    assert "pro" in files_of(Settings()).current().plans
    (tmp_path / "all.yaml").write_text("plan: {}\n")
    settings = replace(Settings(), policies=PoliciesSettings(path=str(tmp_path)))
    with pytest.raises(Mistaken, match=r"all\.yaml"):
        files_of(settings)
