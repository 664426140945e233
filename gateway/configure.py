"""`safelight.yaml` and the environment to one `Settings`, or every mistake with file, line and column.

The file says it all; the environment may set the few names of `OVERRIDES` on top, and holds what
`${env:NAME}` refers to. Secrets come by reference alone, and only where a secret stands. What is sound
is read even where something else is not, so that one run lists the mistakes between sections too.
The world comes in as arguments: the environment, and a function that reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from gateway import documents
from gateway.auth import Issuer
from gateway.documents import Document, Mistake, Place, why
from gateway.secrets import SHORTEST, Secret
from gateway.settings import KEYLESS, ProviderSettings, Role, Settings
from gateway.shapes import UNKNOWN, below, mistakes, nearest
from policies.model import Flaw

if TYPE_CHECKING:
    from collections.abc import Iterator

ReadFile = Callable[[str], bytes]
Object = dict[str, Any]
T = TypeVar("T")

OVERRIDES: Final[Mapping[str, str]] = {
    "SAFELIGHT_SERVER_HOST": "/server/host",
    "SAFELIGHT_SERVER_PORT": "/server/port",
    "SAFELIGHT_SERVER_PUBLIC_URL": "/server/public_url",
    "SAFELIGHT_WORKER_CONCURRENCY": "/worker/concurrency",
    "SAFELIGHT_STORE_URL": "/store/url",
    "SAFELIGHT_BLOBS_URL": "/blobs/url",
    "SAFELIGHT_POLICIES_PATH": "/policies/path",
    "SAFELIGHT_TELEMETRY_LOG_LEVEL": "/telemetry/log_level",
}
"""Environment variables that stand above the file. An empty one counts as absent."""

_NUMBERS: Final = ("/server/port", "/worker/concurrency")
_REFERENCE: Final = re.compile(r"\$\{(env|file):([^{}]+)\}")


class Read(Struct, frozen=True):
    """What a file says. Sections that are not `sound` have their defaults in `settings`.

    `document` knows where things stand. `entries` maps the providers' names to their kinds, of all that
    name one, sound or not: routes are held against what the operator meant.
    """

    settings: Settings
    document: Document
    mistakes: tuple[Mistake, ...]
    entries: Mapping[str, str]
    unsound: frozenset[str]

    def sound(self, section: str) -> bool:
        """Whether a section was read as the operator wrote it."""
        return section not in self.unsound


def load(
    path: str | None,
    environ: Mapping[str, str],
    read_file: ReadFile,
    kinds: Collection[str],
    role: Role | None = None,
) -> Settings | list[Mistake]:
    """Return the settings, or every mistake, sorted by place. Arguments as of `read`."""
    found = read(path, environ, read_file, kinds, role)
    return sorted(found.mistakes) if found.mistakes else found.settings


def read(
    path: str | None,
    environ: Mapping[str, str],
    read_file: ReadFile,
    kinds: Collection[str],
    role: Role | None = None,
) -> Read:
    """Read a settings file as far as it can be read.

    No path means no file: defaults and environment. `read_file` raises `OSError` where it cannot.
    `kinds` are the provider kinds there are. With a `role` the settings must do for `serve`.
    """
    document = _document(path, read_file)
    if not isinstance(document.value, dict):
        wrong = document.mistakes or (document.mistake(Flaw("", "must be an object of sections")),)
        return Read(Settings(), document, wrong, {}, frozenset(Settings.__struct_fields__))
    value: Object = {name: part for name, part in document.value.items() if part is not None}
    _override(value, document.places, environ)
    secrets = _References(environ, read_file)
    flaws = _with_stray(value, mistakes(value, Settings, {Secret: secrets.wrong}))
    sound = _Sound(value, flaws, secrets)
    flaws += _providers(value, sound, kinds) + _issuers(value, sound) + _times(sound)
    flaws += _copies(sound) + _sealed(sound)
    if role is not None:
        flaws += _for_serve(value, sound, role)
    return Read(
        sound.settings(),
        document,
        (*document.mistakes, *(document.mistake(flaw) for flaw in flaws)),
        _kinds(value),
        frozenset(name for name in Settings.__struct_fields__ if not sound.at(f"/{name}")),
    )


def _document(path: str | None, read_file: ReadFile) -> Document:
    if path is None:
        return Document("settings", {}, {})
    try:
        return documents.read(read_file(path), path)
    except OSError as error:
        return Document(path, None, {}, (Mistake(Place(path), "", f"cannot be read: {why(error)}"),))


def _override(value: Object, places: dict[str, Place], environ: Mapping[str, str]) -> None:
    for name, pointer in OVERRIDES.items():
        _, section, key = pointer.split("/")
        part = value.setdefault(section, {}) if environ.get(name) else None
        if isinstance(part, dict):
            text = environ[name]
            part[key] = documents.plain(text) if pointer in _NUMBERS else text
            places[pointer] = Place(name)


class _References:
    """Looks up what secrets refer to; remembers it, so that each is read once."""

    def __init__(self, environ: Mapping[str, str], read_file: ReadFile) -> None:
        self._environ = environ
        self._read_file = read_file
        self._found: dict[str, Secret] = {}

    def wrong(self, text: str) -> str | None:
        """Say why a text is no reference to a secret, naming the reference and never a value."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            return "a secret is written as a reference, ${env:NAME} or ${file:/path}, never itself"
        if match[1] == "env":
            found = self._environ.get(match[2], "").strip()
            if not found:
                return f"{text} is not set in the environment"
        else:
            try:
                found = self._read_file(match[2]).decode().strip()
            except OSError as error:
                return f"{text} cannot be read: {why(error)}"
            except UnicodeDecodeError:
                return f"{text} is not UTF-8 text"
            if not found:
                return f"{text} is empty"
        self._found[text] = Secret(found)
        return None

    def build(self, kind: type, text: object) -> Secret:
        """Return the secret of a reference that was found right (the hook of `msgspec.convert`)."""
        assert kind is Secret  # noqa: S101 - no other type of the settings is unknown to msgspec
        return self._found[str(text)]


class _Sound:
    """The parts of a value in which no mistake was found, as structs."""

    def __init__(self, value: Object, flaws: list[Flaw], secrets: _References) -> None:
        self._value = value
        self._bad = [flaw.pointer for flaw in flaws]
        self._secrets = secrets

    def at(self, pointer: str) -> bool:
        """Whether nothing at or below a place is wrong."""
        return not any(bad == pointer or bad.startswith(f"{pointer}/") for bad in self._bad)

    def providers(self) -> dict[str, ProviderSettings]:
        rows = _object(self._value.get("providers"))
        good = {name: row for name, row in rows.items() if self.at(below("/providers", name))}
        return self._convert(good, dict[str, ProviderSettings])

    def issuers(self) -> dict[int, Issuer]:
        rows = enumerate(_items(_object(self._value.get("auth")).get("issuers")))
        good = {place: row for place, row in rows if self.at(f"/auth/issuers/{place}")}
        return {place: self._convert(row, Issuer) for place, row in good.items()}

    def secrets(self) -> dict[int, Secret]:
        rows = enumerate(_items(self._value.get("secret")))
        return {place: self._convert(row, Secret) for place, row in rows if self.at(f"/secret/{place}")}

    def settings(self) -> Settings:
        """Return all sections that are sound; the others as if they were absent."""
        good = {name: part for name, part in self._value.items() if self.at(f"/{name}")}
        return self._convert(good, Settings)

    def _convert(self, value: object, kind: type[T]) -> T:
        return msgspec.convert(value, kind, dec_hook=self._secrets.build)


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _kinds(value: Object) -> dict[str, str]:
    rows = _object(value.get("providers"))
    kinds = {name: _object(row).get("kind") for name, row in rows.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, str)}


def _providers(value: Object, sound: _Sound, kinds: Collection[str]) -> list[Flaw]:
    flaws = []
    for name, kind in _kinds(value).items():
        if kind not in kinds:
            hint = nearest(kind, kinds) or f"; known: {', '.join(sorted(kinds))}"
            flaws.append(Flaw(f"{below('/providers', name)}/kind", f"unknown kind{hint}"))
    for name, entry in sound.providers().items():
        if entry.kind in kinds and entry.kind not in KEYLESS and entry.key is None:
            flaws.append(Flaw(f"{below('/providers', name)}/key", f"is required for kind {entry.kind}"))
    return flaws


def _issuers(value: Object, sound: _Sound) -> list[Flaw]:
    flaws = []
    first: dict[str, int] = {}
    for place, row in enumerate(_items(_object(value.get("auth")).get("issuers"))):
        name = _object(row).get("issuer")
        if isinstance(name, str) and first.setdefault(name, place) != place:
            flaws.append(
                Flaw(f"/auth/issuers/{place}/issuer", f"the same issuer as auth.issuers[{first[name]}]")
            )
    for place, issuer in sound.issuers().items():
        flaws += [Flaw(f"/auth/issuers/{place}{flaw.pointer}", flaw.detail) for flaw in issuer.flaws()]
    return flaws


def _times(sound: _Sound) -> list[Flaw]:
    if not sound.at("/worker"):
        return []
    worker = sound.settings().worker
    attempt = f"worker.attempt_seconds ({worker.attempt_seconds})"
    flaws = []
    if worker.drain_seconds <= worker.attempt_seconds:
        flaws.append(Flaw("/worker/drain_seconds", f"must be more than {attempt}: a stop cuts no paid call"))
    if worker.job_deadline_seconds < worker.attempt_seconds:
        flaws.append(Flaw("/worker/job_deadline_seconds", f"must not be less than {attempt}"))
    return flaws


def _sealed(sound: _Sound) -> list[Flaw]:
    """Refuse files for TLS where there is none, and a key that stands alone."""
    if not sound.at("/store"):
        return []
    store = sound.settings().store
    files = {"ca_file": store.ca_file, "cert_file": store.cert_file, "key_file": store.key_file}
    if not store.url.startswith("rediss"):
        return [
            Flaw(f"/store/{name}", "only a rediss:// store has use for it") for name in files if files[name]
        ]
    if store.key_file and not store.cert_file:
        return [Flaw("/store/key_file", "is the key of cert_file, which is not set")]
    return []


def _copies(sound: _Sound) -> list[Flaw]:
    """Refuse a store that forgets what it confirmed when a replica takes over, unless that is wanted."""
    if not sound.at("/store"):
        return []
    store = sound.settings().store
    scheme = store.url.partition("://")[0]
    if store.replicas and scheme == "sqlite":
        return [Flaw("/store/replicas", "SQLite has none: leave it out")]
    if "+" in scheme and not store.replicas and not store.accept_loss:
        cure = "set how many must have a write before it counts, or accept_loss: true"
        return [Flaw("/store/replicas", f"0: when a replica takes over, what it had not got is lost: {cure}")]
    return []


def _for_serve(value: Object, sound: _Sound, role: Role) -> list[Flaw]:
    """Return what `serve` asks for and `dev` brings itself."""
    flaws = []
    if not _items(value.get("secret")) and sound.at("/secret"):
        cure = 'set secret: ["${env:SAFELIGHT_SECRET}"], made with `openssl rand -hex 32`'
        flaws.append(Flaw("/secret", f"no secret: {cure}"))
    for place, secret in sound.secrets().items():
        if len(secret.reveal().encode()) < SHORTEST:
            flaws.append(
                Flaw(f"/secret/{place}", f"is shorter than {SHORTEST} bytes: use `openssl rand -hex 32`")
            )
    rows = _items(_object(value.get("auth")).get("issuers"))
    if not rows and sound.at("/auth"):
        flaws.append(Flaw("/auth/issuers", "none: `serve` needs one at least, whose tokens it accepts"))
    if role != "all" and sound.settings().store.url.startswith("sqlite:") and sound.at("/store"):
        flaws.append(Flaw("/store/url", f"SQLite serves one process: it takes --role all, not {role}"))
    return flaws


def _with_stray(value: Object, flaws: list[Flaw]) -> list[Flaw]:
    """Return flaws and references where no secret stands, which would be taken for the text itself.

    What stands under an unknown name is told once; elsewhere the reference is what to tell.
    """
    lost = tuple(f"{flaw.pointer}/" for flaw in flaws if flaw.detail.startswith(UNKNOWN))
    stray = {at: Flaw(at, STRAY) for at in _references(value, "") if not f"{at}/".startswith(lost)}
    return [flaw for flaw in flaws if flaw.pointer not in stray] + list(stray.values())


def _references(value: object, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _references(member, below(at, name))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            yield from _references(member, below(at, place))
    elif isinstance(value, str) and _REFERENCE.fullmatch(value) and not _SECRET_PLACES.fullmatch(at):
        yield at


STRAY: Final = "a reference stands for secrets alone: secret, providers' key, the store's password"
_SECRET_PLACES: Final = re.compile(r"/secret(/[0-9]+)?|/providers/[^/]+/key|/store/password")
