"""What `safelight check` looks at: settings, policies and, with probes, the world they name.

Starts nothing and leaves nothing behind. All mistakes of one run are told together, sorted by place;
warnings are about what runs and may not be meant. The probes ask the same questions `serve` would stop
at: is the port free, can the folders be written, is the store's file one. They also run the operator's
patterns on hostile texts, which no reading can replace.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway import configure, policy, trials
from gateway.blobs import open_blobs
from gateway.documents import Mistake, why
from gateway.errors import Refusal
from gateway.jwks import FileKeys
from gateway.store.opening import How, Place, open_backend
from policies.model import Flaw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.configure import Read, ReadFile
    from gateway.settings import BlobsSettings, Role, Settings
    from policies.bundle import Bundle

FAILED: Final = 2
"""The exit code of a check that found mistakes."""


class Report(Struct, frozen=True):
    """What a check found, each list sorted by place."""

    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where `serve` would start, else 2."""
        return FAILED if self.mistakes else 0

    def lines(self) -> Iterator[str]:
        """Yield the report as people read it, mistakes first, a verdict last."""
        yield from map(str, self.mistakes)
        for warning in self.warnings:
            yield f"warning: {warning}"
        count = len(self.mistakes)
        yield "ok" if not count else f"{count} mistake{'s' if count > 1 else ''}"


def read_file(path: str) -> bytes:
    """Return a file's bytes; raises `OSError`."""
    return Path(path).read_bytes()


def check(
    path: str | None,
    environ: Mapping[str, str],
    kinds: Collection[str],
    *,
    role: Role = "all",
    probe: bool = True,
    read: ReadFile = read_file,
) -> Report:
    """Return what would keep `serve` from starting with these settings in this role.

    `kinds` are the provider kinds there are. Without `probe` files are read and nothing else is touched.
    """
    found = configure.read(path, environ, read, kinds, role)
    wrong = list(found.mistakes)
    if found.sound("policies"):
        tried = slow_patterns if probe and found.settings.policies.path else policy.untried
        bundle = policy.read_bundle(found.settings.policies.path, found.entries, kinds, tried=tried)
        wrong += bundle if isinstance(bundle, list) else []
    if probe:
        wrong += [found.document.mistake(flaw) for flaw in probed(found)]
    warned = [found.document.mistake(flaw) for flaw in _doubts(found.settings)] if not wrong else []
    return Report(tuple(sorted(set(wrong))), tuple(sorted(warned)))


def run_check(
    path: str | None,
    environ: Mapping[str, str],
    kinds: Collection[str],
    say: Callable[[str], None],
    *,
    role: Role = "all",
    probe: bool = True,
) -> int:
    """Check, say the report line by line, and return the exit code."""
    report = check(path, environ, kinds, role=role, probe=probe)
    for line in report.lines():
        say(line)
    return report.exit_code


def probed(found: Read) -> Iterator[Flaw]:
    """Yield what stands against sound settings on this machine."""
    settings = found.settings
    if found.sound("server") and (wrong := port_taken(settings.server.host, settings.server.port)):
        yield Flaw("/server/port", wrong)
    if found.sound("auth"):
        yield from _key_files(settings)
    if found.sound("store") and (wrong := not_a_store(settings.store.place)):
        yield Flaw("/store/url", wrong)
    if found.sound("blobs") and (wrong := not_kept(settings.blobs)):
        yield Flaw("/blobs/url", wrong)


def slow_patterns(bundle: Bundle) -> Iterator[Flaw]:
    """Yield the patterns of prompt rules that take too long on a hostile text, by their places."""
    patterns = {
        f"/prompt_rules/{i}/patterns/{j}": pattern
        for i, rule in enumerate(bundle.prompt_rules)
        for j, pattern in enumerate(rule.patterns)
    }
    most, length = int(trials.LIMIT_SECONDS * 1000), trials.LONGEST
    for pointer, is_slow in zip(patterns, trials.slow(list(patterns.values())), strict=True):
        if is_slow:
            yield Flaw(
                pointer,
                f"slow pattern: a search takes over {most} ms in a hostile text of {length} characters: "
                "bound its repeats, as in `.{0,40}`",
            )


def port_taken(host: str, port: int) -> str | None:
    """Say why nothing can listen there; None where it can. Port 0 is always free."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return f"nothing can listen on {host} port {port}: {why(error)}"
    return None


def not_writable(folder: Path) -> str | None:
    """Say why a folder cannot be written, or made where it is not there; None where it can."""
    try:
        if folder.exists():
            with tempfile.TemporaryFile(dir=folder):
                return None
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            return f"{above} is not a folder"
        return None if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written"
    except OSError as error:
        return f"{folder} cannot be written: {why(error)}"


def not_kept(blobs: BlobsSettings) -> str | None:
    """Say why blobs cannot be kept there. Of a bucket only whether it can be spoken to at all."""
    if blobs.folder is not None:
        return not_writable(blobs.folder)
    try:
        open_blobs(blobs.url)
    except Refusal as refusal:
        return str(refusal)
    return None


def not_a_store(place: Place) -> str | None:
    """Say why a store cannot be used; None where it can, or can be made."""
    if place.file is not None:
        return not_sqlite(place.file)
    return asyncio.run(_not_started(place))


async def _not_started(place: Place) -> str | None:
    try:
        backend = open_backend(place, How(me="check"))
        try:
            await backend.look()
        finally:
            await backend.close()
    except Refusal as refusal:
        return str(refusal)
    return None


def not_sqlite(path: Path) -> str | None:
    """Say why a path cannot be the store's file; None where it is one, or can be made."""
    try:
        if not path.exists():
            return not_writable(path.absolute().parent)
        with path.open("r+b") as file:
            head = file.read(16)
    except OSError as error:
        return f"{path} cannot be opened: {why(error)}"
    return None if head in (b"", b"SQLite format 3\0") else f"{path} is not a SQLite file"


def _key_files(settings: Settings) -> Iterator[Flaw]:
    for place, issuer in enumerate(settings.auth.issuers):
        if issuer.jwks_file is not None:
            try:
                FileKeys(Path(issuer.jwks_file), issuer.algorithms, now=lambda: 0)
            except Refusal as refusal:
                yield Flaw(f"/auth/issuers/{place}/jwks_file", str(refusal))


def _doubts(settings: Settings) -> Iterator[Flaw]:
    if settings.server.public_url is None:
        yield Flaw("/server/public_url", f"not set: links will begin with {settings.server.address}")
    if settings.store.place.file is None and settings.blobs.folder is not None:
        yield Flaw("/blobs/url", "a folder: each process that shares the store must find the same one there")
    if not settings.providers:
        yield Flaw("/providers", "none is set: no image can be made")
    for name, entry in settings.providers.items():
        if entry.base_url is not None and urlsplit(entry.base_url).scheme == "http":
            yield Flaw(f"/providers/{name}/base_url", "the key travels unencrypted")
