"""`safelight.yaml` and the environment to settings: what is read, what is refused, what is never shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from gateway.configure import OVERRIDES, load, read
from gateway.documents import Mistake
from gateway.secrets import Secret
from gateway.settings import BlobsSettings, Role, ServerSettings, Settings
from gateway.shapes import shape_of

KINDS = ("openai", "sandbox")
SECRET = "c0ffee" * 12


def loaded(
    text: str, environ: Mapping[str, str] | None = None, role: Role | None = None
) -> Settings | list[str]:
    """Return the settings of a text, or its mistakes as lines."""
    files = {"s.yaml": text.encode(), "/run/key": b" sk-file\n", "/run/empty": b"\n", "/run/bytes": b"\xff"}

    def read_file(path: str) -> bytes:
        try:
            return files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", path) from None

    found = load("s.yaml", environ or {}, read_file, KINDS, role)
    return found if isinstance(found, Settings) else [str(mistake) for mistake in found]


def settings(text: str, environ: Mapping[str, str] | None = None, role: Role | None = None) -> Settings:
    """Return the settings of a text without mistakes."""
    found = loaded(text, environ, role)
    assert isinstance(found, Settings), found
    return found


def test_no_file_means_defaults() -> None:
    """Without a file every setting has its default."""
    assert load(None, {}, Path.read_bytes, KINDS) == Settings()  # type: ignore[arg-type] # never called


@pytest.mark.parametrize("text", ["", "server:\nworker:\n", "{}"])
def test_empty_sections_mean_defaults(text: str) -> None:
    """A section with all of its lines commented out is as if it were absent."""
    assert settings(text) == Settings()


def test_documented_names_are_read() -> None:
    """Every name the manual gives is read into its place."""
    text = """
server: {host: 127.0.0.1, port: 9000, public_url: "https://images.example.com", cors_origins: ["https://a.example"],
         trusted_proxies: ["10.0.0.0/8"], grace_seconds: 1, max_wait_seconds: 2, sync_wait_seconds: 3}
worker: {concurrency: 0, drain_seconds: 150, attempt_seconds: 100, job_deadline_seconds: 900}
store: {url: "sqlite:////var/lib/safelight.db"}
blobs: {url: "file:///var/lib/blobs"}
auth:
  issuers:
    - {issuer: "https://login.example.com", audience: images, jwks_url: "https://login.example.com/keys",
       token_types: ["at+jwt"], claims: {tenant: org_id, subject: sub, roles: realm_access.roles, plan: plan}}
providers:
  main: {kind: openai, key: "${env:KEY}", base_url: "https://api.example.com/v1"}
  drawn: {kind: sandbox}
policies: {path: /etc/policies}
outbound: {allow: [upstream.internal, 10.1.2.3, "fd00::/8"]}
webhooks: {attempt_seconds: 15}
telemetry: {log_level: debug}
retention: {jobs_days: 7, trail_days: 30}
secret: ["${env:SECRET}", "${file:/run/key}"]
"""
    found = settings(text, {"KEY": "sk-1", "SECRET": SECRET})
    assert found.server.address == "https://images.example.com"
    assert (found.worker.concurrency, found.retention.jobs_days) == (0, 7)
    assert found.store.place.file == Path("/var/lib/safelight.db")
    assert found.blobs.folder == Path("/var/lib/blobs")
    assert BlobsSettings(url="s3://bucket/prefix").folder is None
    assert found.auth.issuers[0].claims.roles == "realm_access.roles"
    assert found.providers["main"].key == Secret("sk-1")
    assert found.secret == (Secret(SECRET), Secret("sk-file"))


def test_relative_store_and_open_address() -> None:
    """Three slashes name a file in the working folder; an address open to all is called by loopback."""
    found = settings("server: {port: 9000}")
    assert found.store.place.file == Path("safelight.db")
    assert found.server.address == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("host", "begins"),
    [
        ("0.0.0.0", "http://127.0.0.1:9"),
        ("::", "http://[::1]:9"),
        ("fd00::7", "http://[fd00::7]:9"),
        ("shop.local", "http://shop.local:9"),
    ],
)
def test_links_begin_where_it_listens(host: str, begins: str) -> None:
    """Without `public_url` links begin at the host that is listened on, or at this machine's own address."""
    assert ServerSettings(host=host, port=9).address == begins


@pytest.mark.parametrize(
    ("name", "value", "pointer", "expected"),
    [
        ("SAFELIGHT_SERVER_HOST", "0", "/server/host", "0"),
        ("SAFELIGHT_SERVER_PORT", "9001", "/server/port", 9001),
        ("SAFELIGHT_SERVER_PUBLIC_URL", "https://b.example", "/server/public_url", "https://b.example"),
        ("SAFELIGHT_WORKER_CONCURRENCY", "0", "/worker/concurrency", 0),
        ("SAFELIGHT_STORE_URL", "sqlite:///b.db", "/store/url", "sqlite:///b.db"),
        ("SAFELIGHT_BLOBS_URL", "file:///b", "/blobs/url", "file:///b"),
        ("SAFELIGHT_POLICIES_PATH", "/b", "/policies/path", "/b"),
        ("SAFELIGHT_TELEMETRY_LOG_LEVEL", "error", "/telemetry/log_level", "error"),
    ],
)
def test_environment_stands_above_the_file(name: str, value: str, pointer: str, expected: object) -> None:
    """Each override sets its name above the file; an empty one counts as absent."""
    _, section, key = pointer.split("/")
    assert OVERRIDES[name] == pointer
    assert getattr(getattr(settings("server: {port: 1}", {name: value}), section), key) == expected
    assert settings("server: {port: 1}", {name: ""}).server.port == 1


def test_wrong_override_names_its_variable() -> None:
    """A mistake in the environment stands at the variable, not in the file."""
    assert loaded("server: {port: 1}", {"SAFELIGHT_SERVER_PORT": "tcp://10.0.0.1:80"}) == [
        "SAFELIGHT_SERVER_PORT: server.port: must be a whole number, not text"
    ]
    assert loaded("server: [1]", {"SAFELIGHT_SERVER_PORT": "80"}) == [
        "s.yaml:1:1: server: must be an object, not a list"
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[1]", ["s.yaml:1:1: must be an object of sections"]),
        (
            "worker: {drain_seconds: 60}",
            ["must be more than worker.attempt_seconds (120): a stop cuts no paid call"],
        ),
        ("worker: {queue_depth: 0}", ["worker.queue_depth: must be between 1 and 10000000"]),
        ("worker: {job_deadline_seconds: 60}", ["must not be less than worker.attempt_seconds (120)"]),
        ("worker: {drain_seconds: x}", ["must be a whole number, not text"]),
        ("providers: {a: {kind: openai}}", ["s.yaml:1:13: providers.a.key: is required for kind openai"]),
        ("providers: {a: {kind: opnai}}", ['a.kind: unknown kind, did you mean "openai"?']),
        ("providers: {a: {kind: zzz}}", ["a.kind: unknown kind; known: openai, sandbox"]),
        ("providers: {a b: {kind: sandbox}}", ["providers.a b: as a name must have the form"]),
        ("server: {host: '${env:HOST}'}", ["server.host: a reference stands for secrets alone"]),
        ("outbound: {allow: ['${env:HOST}']}", ["outbound.allow[0]: a reference stands for secrets alone"]),
        ("server: {cors_origins: ['*']}", ["must be an exact origin"]),
        ("server: {cors_origins: ['null', 'https://A.example', 'https://a.example/']}", ["exact origin"] * 3),
        ("server: {trusted_proxies: [proxy, 10.0.0.1/8]}", ["must be an IP address or a network"] * 2),
        ("outbound: {allow: [a b, '', 'https://x']}", ["must be a host, host:port"] * 3),
        ("store: {url: 'sqlite://host/x'}", ["must be sqlite:///FILE"]),
        ("store: {url: 'sqlite:///'}", ["must be sqlite:///FILE"]),
        ("store: {url: 'redis://'}", ["must be redis://HOST:PORT/NUMBER"]),
        ("store: {url: 'rediss://h:6379/0?ssl_cert_reqs=none'}", ["must be rediss://HOST:PORT/NUMBER"]),
        ("store: {url: 'redis://u:hush@h/0'}", ["the password is a setting of its own"]),
        ("store: {url: 'redis://h/x'}", ["must be redis://HOST:PORT/NUMBER"]),
        ("store: {url: 'redis://h', password: hush}", ["store.password"]),
        (
            "store: {url: 'redis+cluster://h:1,'}",
            ["must be redis+cluster://HOST:PORT, or HOST:PORT,HOST:PORT"],
        ),
        ("store: {url: 'rediss+cluster://h:1/0'}", ["must be rediss+cluster://HOST:PORT"]),
        ("store: {url: 'redis+sentinel://h:1,g:1'}", ["must be redis+sentinel://HOST:PORT,HOST:PORT/MASTER"]),
        ("store: {url: 'redis+sentinel://h/m/x'}", ["with the sentinels' hosts"]),
        ("store: {url: 'redis+other://h'}", ["unknown store scheme"]),
        ("store: {url: 'redis+sentinel://h/m', sentinel_password: hush}", ["store.sentinel_password"]),
        ("store: {replicas: 1}", ["store.replicas: SQLite has none"]),
        ("store: {url: 'redis://h', replicas: -1}", ["store.replicas"]),
        (
            "store: {url: 'redis+cluster://h', accept_loss: false}",
            ["store.replicas: 0: when a replica takes over"],
        ),
        ("store: {url: 'rediss+sentinel://h/m'}", ["store.replicas: 0: when a replica takes over"]),
        ("store: {url: 'redis://h', ca_file: /ca}", ["store.ca_file: only a rediss:// store has use for it"]),
        ("store: {cert_file: /c}", ["store.cert_file: only a rediss:// store has use for it"]),
        ("store: {url: 'rediss://h', key_file: /k}", ["store.key_file: is the key of cert_file"]),
        ("blobs: {url: 'file://rel'}", ["must be file:///FOLDER"]),
        ("blobs: {url: 'ftp://bucket'}", ["unknown blob scheme; known: file, s3, gs, az"]),
        ("blobs: {url: 's3://'}", ["must be s3://BUCKET or s3://BUCKET/PREFIX"]),
        ("blobs: {url: 'gs://b/../c'}", ["must be gs://BUCKET or gs://BUCKET/PREFIX"]),
        ("blobs: {url: 's3://key:word@bucket'}", ["must be s3://BUCKET or s3://BUCKET/PREFIX"]),
        ("blobs: {url: 'az://Bucket?x'}", ["must be az://BUCKET or az://BUCKET/PREFIX"]),
        ("secret: '${env:A}'", ["secret: must be a list, not text"]),
        ("secret: ['${env:NONE}']", ["secret[0]: ${env:NONE} is not set in the environment"]),
        ("secret: ['${file:/run/none}']", ["${file:/run/none} cannot be read: no such file or directory"]),
        ("secret: ['${file:/run/empty}']", ["secret[0]: ${file:/run/empty} is empty"]),
        ("secret: ['${file:/run/bytes}']", ["secret[0]: ${file:/run/bytes} is not UTF-8 text"]),
        ("secret: ['${vault:x}']", ["a secret is written as a reference, ${env:NAME} or ${file:/path}"]),
    ],
)
def test_each_wrong_setting_is_told(text: str, lines: list[str]) -> None:
    """Each mistake is told once, in the words an operator can act on."""
    found = loaded(text)
    assert isinstance(found, list)
    assert len(found) == len(lines)
    assert all(line in mistake for line, mistake in zip(lines, found, strict=True)), found


@pytest.mark.parametrize(
    "url",
    [
        "images",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "https://x?q",
        "https://x#f",
        "https://x:99999",
        "https://[",
        "https://x y",
    ],
)
def test_bad_urls_are_told(url: str) -> None:
    """An address that links cannot begin with is refused, whatever is wrong with it."""
    found = loaded(f"server: {{public_url: {url!r}}}")
    assert isinstance(found, list)
    assert "must be an address such as https://images.example.com" in found[0]


def test_unreadable_settings_file_is_told() -> None:
    """A path that cannot be read is a mistake, not a start with defaults."""

    def read_file(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    assert [str(m) for m in read("s.yaml", {}, read_file, KINDS).mistakes] == [
        "s.yaml: cannot be read: permission denied"
    ]


def test_sound_parts_survive_wrong_ones() -> None:
    """One wrong section leaves the others as they are written, and routes see every entry that is named."""
    text = b"server: {prot: 1}\nworker: {concurrency: 3}\nproviders: {a: {kind: opnai}, b: {kind: 3}, c: 4}\n"
    found = read("s.yaml", {}, lambda _: text, KINDS)
    assert found.settings.worker.concurrency == 3
    assert (found.sound("worker"), found.sound("server")) == (True, False)
    assert found.entries == {"a": "opnai"}


def test_serve_asks_for_what_dev_brings() -> None:
    """Only with a role are a secret, an issuer and a store that suits it asked for."""
    assert settings("") == Settings()
    found = loaded("secret: ['${env:SHORT}']\n", {"SHORT": "tiny"}, "worker")
    assert found == [
        "s.yaml:1:1: auth.issuers: none: `serve` needs one at least, whose tokens it accepts",
        "s.yaml:1:1: store.url: SQLite serves one process: it takes --role all, not worker",
        "s.yaml:1:10: secret[0]: is shorter than 32 bytes: use `openssl rand -hex 32`",
    ]


def test_secrets_never_show() -> None:
    """Neither settings nor mistakes show a secret, however it was written."""
    text = (
        "secret: [plain-canary, '${env:A}']\nproviders: {a: {kind: sandbox, key: sk-canary, x: '${env:A}'}}"
    )
    found = loaded(text, {"A": "env-canary"})
    assert "canary" not in str(found)
    sound = settings("secret: ['${env:A}']", {"A": "env-canary"})
    assert "canary" not in f"{sound} {sound!r}"
    with pytest.raises(TypeError):
        msgspec.json.encode(sound)


def test_mistakes_come_sorted() -> None:
    """Mistakes are told in the order of the file."""
    found = load("s.yaml", {}, lambda _: b"a: 1\nserver: {x: 1, port: -1}\nb: 2\n", KINDS)
    assert isinstance(found, list)
    assert all(isinstance(mistake, Mistake) for mistake in found)
    assert [(m.place.line, m.place.column) for m in found] == [(1, 1), (2, 10), (2, 16), (3, 1)]


def test_every_integer_is_bounded() -> None:
    """No setting accepts a number of any size."""
    text = str(shape_of(Settings))
    assert "IntType(gt=None, ge=None" not in text
    assert "le=None, multiple_of" not in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6379/3",
        "rediss://safelight@r.example.com:6380/0",
        "redis://[fd00::1]:6379",
        "redis+cluster://cache-0:6379,cache-1:6379",
        "rediss+cluster://safelight@[fd00::1]:6379",
        "redis+sentinel://watch-0:26379,watch-1/images",
        "rediss+sentinel://safelight@watch/images/3",
    ],
)
def test_redis_urls_are_taken(url: str) -> None:
    """A Redis is named by host, port, number and user; its password comes by reference and is not shown."""
    text = f'store: {{url: "{url}", password: "${{env:REDIS_PASSWORD}}", replicas: 1}}\n'
    found = settings(text, {"REDIS_PASSWORD": "hushhush"})
    place = found.store.place
    assert (place.url, place.file, place.replicas) == (url, None, 1)
    assert place.password is not None
    assert place.password() == "hushhush"
    assert "hush" not in f"{place} {found}"


def test_files_for_tls_are_named() -> None:
    """Who may issue a Redis' certificate, and ours, are files that the place of the store names."""
    files = "ca_file: /ca, cert_file: /cert, key_file: /key"
    place = settings(f"store: {{url: 'rediss://h', {files}}}").store.place
    assert (place.ca_file, place.cert_file, place.key_file) == ("/ca", "/cert", "/key")


def test_loss_may_be_accepted() -> None:
    """Who says so may have a store that forgets what it confirmed when a replica takes over."""
    assert settings("store: {url: 'redis+sentinel://h/m', accept_loss: true}").store.accept_loss
