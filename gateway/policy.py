"""Policy documents from a folder to one `Bundle`, or every mistake; read again when they change.

The bundle may be spread over as many `*.yaml` files as one likes; a top-level name stands in one of
them. A file that adds nothing is a mistake, not a silence: it was meant to. What the documents mean is
said by `policies/bundle.py`; this file knows folders, and which bundle is the current one. A change is
swapped in whole or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

import policies
from gateway import documents
from gateway.documents import Mistake, Place, dotted, place_in, why
from gateway.shapes import UNKNOWN, below, mistakes
from policies import bundle as rules
from policies.bundle import Bundle
from policies.model import Flaw

Folder = Mapping[str, bytes]
"""File names (those of folders end in a slash) and contents."""

Trial = Callable[[Bundle], Iterable[Flaw]]
"""Puts a bundle to the test, and tells what was found where."""

PRESETS: Final = Path(policies.__file__).parent / "presets"
KNOWN: Final = Bundle.__struct_fields__


def untried(_bundle: Bundle) -> Iterable[Flaw]:
    """Find nothing: what is read to be served was checked before."""
    return ()


def read_folder(path: str) -> Folder:
    """Return a folder's files but hidden ones (where a mounted ConfigMap keeps its versions)."""
    names = sorted(entry for entry in Path(path).iterdir() if not entry.name.startswith("."))
    return {f"{e.name}/" if e.is_dir() else e.name: b"" if e.is_dir() else e.read_bytes() for e in names}


def read_bundle(
    path: str | None,
    entries: Mapping[str, str],
    kinds: Collection[str],
    read: Callable[[str], Folder] = read_folder,
    tried: Trial = untried,
) -> Bundle | list[Mistake]:
    """Return the bundle in a folder (None: the presets), or every mistake, sorted by place.

    `entries` maps the configured providers' names to their kinds, `kinds` are the provider kinds there
    are: routes are held against both. `tried` adds what shows only when a bundle is put to the test.
    """
    folder = str(PRESETS) if path is None else path
    files = _files(folder, read)
    return [files] if isinstance(files, Mistake) else judge(folder, files, entries, kinds, tried)


def _files(folder: str, read: Callable[[str], Folder]) -> Folder | Mistake:
    try:
        return read(folder)
    except OSError as error:
        return Mistake(Place(folder), "", f"cannot be read: {why(error)}")


def judge(
    folder: str,
    files: Folder,
    entries: Mapping[str, str],
    kinds: Collection[str],
    tried: Trial = untried,
) -> Bundle | list[Mistake]:
    """Return the bundle that files hold together, or every mistake, sorted by place."""
    whole = _Whole()
    for name, data in files.items():
        whole.add(f"{folder.rstrip('/')}/{name}", data)
    flaws = mistakes(whole.value, Bundle)
    odd = {flaw.pointer for flaw in flaws if flaw.detail.startswith(UNKNOWN)}
    found: Bundle | None = None
    if len(odd) == len(flaws):  # names nobody knows do not keep the rest from being understood
        found = msgspec.convert(_without(whole.value, odd), Bundle)
        flaws += [Flaw(wrong.pointer, wrong.sentence) for wrong in rules.mistakes(found, entries, kinds)]
        known = {flaw.pointer for flaw in flaws}
        flaws += [flaw for flaw in tried(found) if flaw.pointer not in known]
    told = whole.mistakes + [whole.place(flaw, folder) for flaw in flaws]
    return sorted(set(told)) if found is None or told else found


class PolicyFiles:
    """The bundle in force. `poll` looks for a change; whoever asks `current` gets a whole bundle."""

    def __init__(
        self,
        path: str | None,
        entries: Mapping[str, str],
        kinds: Collection[str],
        first: Bundle,
        read: Callable[[str], Folder] = read_folder,
    ) -> None:
        self._folder = str(PRESETS) if path is None else path
        self._entries = entries
        self._kinds = kinds
        self._read = read
        self._bundle = first
        self._seen: Folder | Mistake | None = None

    def current(self) -> Bundle:
        """Return the bundle in force."""
        return self._bundle

    async def poll(self) -> Bundle | list[Mistake] | None:
        """Look once: the new bundle after a change, its mistakes where it was not taken, else None.

        A bad change is told once and leaves the bundle in force as it was.
        """
        return await asyncio.to_thread(self._look)

    def _look(self) -> Bundle | list[Mistake] | None:
        files = _files(self._folder, self._read)
        if files == self._seen:
            return None
        self._seen = files
        found = [files] if isinstance(files, Mistake) else self._judge(files)
        if found == self._bundle:
            return None
        if isinstance(found, Bundle):
            self._bundle = found
        return found

    def _judge(self, files: Folder) -> Bundle | list[Mistake]:
        return judge(self._folder, files, self._entries, self._kinds)


class _Whole:
    """The documents' values joined at their top level."""

    def __init__(self) -> None:
        self.value: dict[str, object] = {}
        self.places: dict[str, Place] = {}
        self.mistakes: list[Mistake] = []

    def add(self, source: str, data: bytes) -> None:
        if not source.endswith(".yaml"):
            self._say(Place(source), "", "unused document: policies are read from files named *.yaml")
            return
        document = documents.read(data, source)
        self.mistakes += document.mistakes
        if document.value is None:
            return
        if not isinstance(document.value, dict) or not any(name in KNOWN for name in document.value):
            self._say(Place(source), "", f"unused document: none of {', '.join(KNOWN)} stands in it")
            return
        for name, part in document.value.items():
            pointer = f"/{name}"
            if name in self.value:
                first = self.places[pointer].source
                self._say(document.place(pointer), name, f"stands in two documents, first in {first}")
                continue
            self.value[name] = part
            for at, place in document.places.items():
                if at == pointer or at.startswith(f"{pointer}/"):
                    self.places[at] = place

    def place(self, flaw: Flaw, folder: str) -> Mistake:
        """Return a flaw of the joined value as a mistake of the file it stands in."""
        place = place_in(self.places, flaw.pointer) or Place(folder)
        return Mistake(place, dotted(flaw.pointer), flaw.detail)

    def _say(self, place: Place, name: str, sentence: str) -> None:
        self.mistakes.append(Mistake(place, name, sentence))


def _without(value: object, odd: set[str], at: str = "") -> object:
    """Return a value without the members at some pointers."""
    if isinstance(value, list):
        return [_without(item, odd, below(at, place)) for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    members = ((name, member, below(at, name)) for name, member in value.items())
    return {name: _without(member, odd, where) for name, member, where in members if where not in odd}
