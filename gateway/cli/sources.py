"""Where a command's settings and policies come from: a settings file, or the data folder of `dev`.

Nothing is started here. What an operator wrote wrong is told as `safelight check` tells it, all of it at
once, as one `Mistaken`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway import configure
from gateway.check import Report, check, read_file
from gateway.errors import Refusal
from gateway.policy import PolicyFiles, read_bundle
from gateway.providers import KINDS
from gateway.secrets import Secret, load_or_create

if TYPE_CHECKING:
    from gateway.documents import Mistake
    from gateway.settings import Role, Settings
from gateway.store.opening import Place

FILE: Final = "safelight.yaml"
"""The settings file that is read without being named, where the working folder has one."""


class Mistaken(Refusal):
    """Settings or policies are wrong. The message is the report of `safelight check`, exit code 2."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(Report(mistakes).lines()))


class Kept(Struct, frozen=True):
    """What is needed to read what an installation has kept: where its store is, and its secrets."""

    store: Place
    secret: tuple[Secret, ...]


def settings_file(named: Path | None) -> str | None:
    """Return the settings file to read: the one named, else `safelight.yaml` here, else none."""
    if named is not None:
        return str(named)
    return FILE if Path(FILE).exists() else None


def settings_for(path: str | None, environ: Mapping[str, str], role: Role) -> tuple[Settings, PolicyFiles]:
    """Return the settings of `serve` and the policies they name; raises `Mistaken`."""
    report = check(path, environ, KINDS, role=role, probe=False)
    if report.mistakes:
        raise Mistaken(report.mistakes)
    settings = _loaded(path, environ, role)
    return settings, files_of(settings)


def files_of(settings: Settings) -> PolicyFiles:
    """Return the policies that settings name, read once; raises `Mistaken`."""
    entries = {name: entry.kind for name, entry in settings.providers.items()}
    bundle = read_bundle(settings.policies.path, entries, KINDS)
    if isinstance(bundle, list):
        raise Mistaken(tuple(bundle))
    return PolicyFiles(settings.policies.path, entries, KINDS, bundle)


def kept(config: Path | None, data: Path, environ: Mapping[str, str]) -> Kept:
    """Return where an installation keeps its store: by its settings file where named, else a data folder."""
    if config is None:
        return Kept(Place(f"sqlite:///{data / 'safelight.db'}"), (secret_in(data),))
    settings = _loaded(str(config), environ, None)
    if not settings.secret:
        raise Refusal(f"{config} sets no secret, and without it the trail cannot be verified")
    return Kept(settings.store.place, settings.secret)


def secret_in(data: Path) -> Secret:
    """Return the secret of a data folder, which `safelight dev` made."""
    path = data / "secret"
    if not path.exists():
        raise Refusal(f"{data} is not a data folder yet: `safelight dev` makes one, --data names another")
    return load_or_create(path)


def _loaded(path: str | None, environ: Mapping[str, str], role: Role | None) -> Settings:
    found = configure.load(path, environ, read_file, KINDS, role)
    if isinstance(found, list):
        raise Mistaken(tuple(found))
    return found
