"""Policy folders: how documents join, what is refused, and how a change is taken or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.documents import Mistake
from gateway.policy import PolicyFiles, judge, read_bundle, read_folder
from policies.bundle import Bundle

KINDS = ("openai", "sandbox")
ENTRIES = {"main": "openai"}

PLANS = """\
plans:
  free:
    {credits_per_month: 100, monthly_cap: 100, submit_per_hour: {user: 1, tenant: 2},
     in_flight: {user: 1, tenant: 2}, streams: 1, count: 1, prompt: 100, models: [standard]}
"""
TENANTS = 'tenants: {"*": {plan: free}}\n'
MODELS = """\
models:
  standard:
    sizes: [{size: 1024x1024, ratio: "1:1", tier: 1K}]
    route: [{entry: main, model: gpt-image-2}]
"""
PRICES = "prices: [{max_pixels: 1600000, low: 1, medium: 10, high: 40}]\n"
FILES: Mapping[str, str] = {"plans.yaml": PLANS + TENANTS, "models.yaml": MODELS, "prices.yaml": PRICES}


def folder(**changed: str | None) -> dict[str, bytes]:
    """Return the good folder with some of its files written otherwise, or not at all (None)."""
    texts = {**FILES, **{f"{name}.yaml": text for name, text in changed.items()}}
    return {name: text.encode() for name, text in texts.items() if text is not None}


def told(files: Mapping[str, bytes]) -> list[str]:
    """Return the mistakes in a folder as lines."""
    found = judge("p", files, ENTRIES, KINDS)
    assert isinstance(found, list)
    return [str(mistake) for mistake in found]


def good(files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle of a folder without mistakes."""
    found = judge("p", files, ENTRIES, KINDS)
    assert isinstance(found, Bundle), found
    return found


def test_documents_join_at_the_top() -> None:
    """The bundle is the same however its names are spread over files."""
    together = "".join(FILES.values())
    assert good(folder()) == good({"all.yaml": together.encode()})


def test_presets_that_ship_are_sound() -> None:
    """Without a folder the presets are read, and they have no mistake."""
    found = read_bundle(None, {}, ("openai", "gptimage2_plus", "gptimage2_ai", "sandbox"))
    assert isinstance(found, Bundle), [str(mistake) for mistake in found]
    assert {"free", "pro", "max"} <= set(found.plans)


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (folder(more=TENANTS), ["p/more.yaml:1:1: tenants: stands in two documents, first in p/plans.yaml"]),
        (folder(prices=None), ["p: prices: is required"]),
        (folder(prices="price: []\n"), ["p: prices: is required", "p/prices.yaml: unused document: none of"]),
        (folder(extra=""), ["p/extra.yaml: unused document: none of plans, tenants, models"]),
        (folder(extra="- 1"), ["p/extra.yaml: unused document: none of plans, tenants, models"]),
        (
            folder(plans=PLANS.replace("count: 1", "count: 1, priority: bulk") + TENANTS),
            ['free.priority: must be one of "batch", "interactive"'],
        ),
        (folder() | {"README.md": b""}, ["p/README.md: unused document: policies are read from files named"]),
        (folder() | {"old/": b""}, ["p/old/: unused document"]),
        (folder(prices="prices: [\n"), ["p: prices: is required", "p/prices.yaml:2:1: is not YAML"]),
        (folder(prices=PRICES + "a: 1"), ["p/prices.yaml:2:1: a: unknown key"]),
        (
            folder(prices=PRICES.replace("high: 40", "high: 40, high: 4")),
            ["prices.yaml:1:62: prices[0].high: stands"],
        ),
        (
            folder(prices=PRICES.replace("40", "x")),
            ["p/prices.yaml:1:52: prices[0].high: must be a whole number"],
        ),
        (
            folder(models=MODELS.replace("main", "mian")),
            ["p/models.yaml:4:14: models.standard.route[0].entry: "],
        ),
    ],
)
def test_each_mistake_names_its_file(files: dict[str, bytes], lines: list[str]) -> None:
    """Each mistake is told at the document, line and column it stands in."""
    found = told(files)
    assert len(found) == len(lines), found
    assert all(line in mistake for line, mistake in zip(lines, found, strict=True)), found


def test_unknown_keys_hide_no_other_mistake() -> None:
    """What is wrong between documents is told beside names nobody knows."""
    files = folder(
        plans=PLANS.replace("streams: 1", "streams: 1, steams: 2") + 'tenants: {"*": {plan: fre}}\n'
    )
    assert len(told(files)) == 2


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    """What a mounted ConfigMap or an editor leaves beside the documents is not read."""
    for name, data in folder().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "..data").mkdir()
    (tmp_path / ".plans.yaml.swp").write_bytes(b"\xff")
    (tmp_path / "old").mkdir()
    assert set(read_folder(str(tmp_path))) == {*FILES, "old/"}


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """A folder that is not there is a mistake, never the presets."""
    found = read_bundle(str(tmp_path / "none"), ENTRIES, KINDS)
    assert isinstance(found, list)
    assert str(found[0]) == f"{tmp_path}/none: cannot be read: no such file or directory"


class Disk:
    """A folder that a test rewrites."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] | None = folder()

    def read(self, path: str) -> dict[str, bytes]:
        """Return what stands there now."""
        if self.files is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return dict(self.files)


async def test_change_is_swapped_whole() -> None:
    """A good change comes into force at the next look and is told once."""
    disk = Disk()
    first = good(folder())
    watched = PolicyFiles("p", ENTRIES, KINDS, first, disk.read)
    assert await watched.poll() is None
    disk.files = folder(prices=PRICES.replace("40", "41"))
    changed = await watched.poll()
    assert isinstance(changed, Bundle)
    assert watched.current() is changed
    assert changed.version() != first.version()
    assert await watched.poll() is None


async def test_bad_change_is_not_taken() -> None:
    """A bad change leaves the old bundle in force; mending it needs no restart."""
    disk = Disk()
    first = good(folder())
    watched = PolicyFiles("p", ENTRIES, KINDS, first, disk.read)
    disk.files = folder(prices="prices: []")
    told_now = await watched.poll()
    assert isinstance(told_now, list)
    assert isinstance(told_now[0], Mistake)
    assert await watched.poll() is None
    assert watched.current() is first
    disk.files = None
    gone = await watched.poll()
    assert isinstance(gone, list)
    assert str(gone[0]) == "p: cannot be read: no such file or directory"
    disk.files = folder()
    assert await watched.poll() is None
    assert watched.current() is first


async def test_rewritten_words_change_nothing() -> None:
    """Comments and order are no change of policy."""
    disk = Disk()
    watched = PolicyFiles("p", ENTRIES, KINDS, good(folder()), disk.read)
    disk.files = folder(prices="# dearer soon\n" + PRICES)
    assert await watched.poll() is None
