"""What an operator is told of the place for images, over a folder and a real S3 server."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Final

import pytest

from gateway.blobs import FolderBlobs, probe
from gateway.cli.screen import Screen
from gateway.cli.sources import Mistaken
from gateway.cli.storage import Examination, run_blobs_check
from tests.fakes.storage import Storage

PAGE: Final = "https://app.example.com"
KEPT: Final = "written once, read and deleted"


def told(folder: Path, url: str, *origins: str, pages: str = "[]") -> tuple[int, str]:
    """Return exit code and words for a settings file with this place for images."""
    path = folder / "safelight.yaml"
    path.write_text(f"blobs: {{url: '{url}'}}\nserver: {{cors_origins: {pages}}}\n")
    out = io.StringIO()
    code = run_blobs_check(str(path), origins, {}, Screen(out))
    return code, out.getvalue()


@pytest.fixture
def name(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket nobody else uses, in an environment that opens it."""
    for variable, value in storage.environ.items():
        monkeypatch.setenv(variable, value)
    return storage.bucket(f"c{uuid.uuid4().hex}").removeprefix("s3://")


def test_folder_needs_no_addresses(tmp_path: Path) -> None:
    """A folder that can be written is good, and nothing is left in it."""
    code, words = told(tmp_path, f"file://{tmp_path}/blobs", PAGE)
    assert (code, words.count("✓"), words.count("✗")) == (0, 2, 0)
    assert KEPT in words
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_open_bucket_passes_whole(tmp_path: Path, storage: Storage, name: str) -> None:
    """A bucket with the right rules passes for every page that is named, and stays empty."""
    storage.allow(name, [PAGE, "https://other.example.com", "*"])
    code, words = told(tmp_path, f"s3://{name}/a", "https://other.example.com", pages=f"['{PAGE}']")
    assert (code, words.count("✓"), words.count("✗")) == (0, 6, 0)
    assert f"pages of {PAGE} may send images" in words
    assert "pages of https://other.example.com may send images" in words
    assert "Images travel unencrypted" in words
    assert storage.objects(name) == []


def test_missing_rules_are_named(tmp_path: Path, name: str) -> None:
    """A bucket without CORS rules serves, and what pages may not is told with the rules to set."""
    code, words = told(tmp_path, f"s3://{name}", PAGE)
    assert (code, words.count("✓"), words.count("✗")) == (2, 3, 2)
    assert "the preflight of a PUT was answered 403" in words
    assert f"allow PUT from {PAGE} with the header Content-Type" in " ".join(words.split())
    assert "allow GET from every origin (*)" in " ".join(words.split())


def test_rules_for_others_help_nobody(tmp_path: Path, storage: Storage, name: str) -> None:
    """Rules for another page, or for reading alone, are no rules for a page that sends."""
    storage.allow(name, ["https://other.example.com"])
    assert told(tmp_path, f"s3://{name}", PAGE)[1].count("✗") == 2
    storage.allow(name, ["*"], ["GET"])
    code, words = told(tmp_path, f"s3://{name}", PAGE)
    assert (code, words.count("✗")) == (2, 1)
    assert "pages may read the images they are sent on to" in words


def test_pages_are_asked_for(tmp_path: Path, name: str) -> None:
    """Without pages in the settings none is tried, and that is said."""
    code, words = told(tmp_path, f"s3://{name}")
    assert (code, words.count("✗")) == (0, 0)
    assert "--origin names one" in words


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "guessed", "the credentials may not do this (SignatureDoesNotMatch)"),
        ("AWS_ENDPOINT", "http://127.0.0.1:1", "no usable answer"),
        ("AWS_ENDPOINT", "minio:9000", "AWS_ENDPOINT must be a whole address"),
    ],
)
def test_wrong_environment_is_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    """What a storage refuses, or where there is none, is one sentence without a trace, and exit code 2."""
    monkeypatch.setenv(variable, value)
    code, said = told(tmp_path, f"s3://{name}")
    assert (code, words in " ".join(said.split()), said.count("✗")) == (2, True, 1)


def test_wrong_settings_come_first(tmp_path: Path) -> None:
    """A settings file that names no place is told as `safelight check` tells it."""
    with pytest.raises(Mistaken, match="unknown blob scheme"):
        told(tmp_path, "ftp://somewhere")


class Astray(FolderBlobs):
    """Blobs whose addresses lead elsewhere than they lie."""

    address = "http://127.0.0.1:1/x"

    async def put_url(self, key: str, _media_type: str, _size: int, _seconds: int) -> str | None:
        """Return where nobody takes it."""
        return self.address

    async def get_url(self, key: str, _seconds: int, *, attach: bool = False) -> str | None:
        """Return where nobody has it."""
        return self.address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:1/x", ["a signed PUT got no answer (unreachable)", "a signed GET got no answer"]),
        ("no address", ["no address that can be called"]),
    ],
)
async def test_addresses_astray_are_told(tmp_path: Path, address: str, words: list[str]) -> None:
    """Addresses that lead nowhere fail the check, though the server itself reaches the storage."""
    blobs, (_, key), out = Astray(tmp_path), probe(), io.StringIO()
    blobs.address = address
    assert await Examination(blobs, key, Screen(out)).run(()) == 2
    assert all(word in out.getvalue() for word in words)
