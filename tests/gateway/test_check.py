"""`safelight check`: one golden message a class of mistake, all of them at once, no secret shown."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.check import Report, check, not_kept, not_sqlite, not_writable, port_taken, run_check
from gateway.settings import BlobsSettings, Role
from tests.fakes.papers import Papers
from tests.fakes.redis import Redis, server

KINDS = ("openai", "gptimage2_plus", "gptimage2_ai", "sandbox")
CANARY = "canary-" + "5ec2e7" * 8
ENVIRON = {"SAFELIGHT_SECRET": CANARY, "OPENAI_API_KEY": f"sk-{CANARY}"}

SETTINGS = """\
secret: ["${env:SAFELIGHT_SECRET}"]
server: {host: 127.0.0.1, port: 0, public_url: "https://images.example.com"}
worker: {concurrency: 64}
store: {url: "sqlite:///TMP/safelight.db"}
blobs: {url: "file://TMP/blobs"}
auth:
  issuers:
    - {issuer: "https://login.example.com", audience: images, jwks_url: "https://login.example.com/keys"}
providers:
  main: {kind: openai, key: "${env:OPENAI_API_KEY}"}
policies: {path: "TMP/policies"}
"""
POLICY = """\
plans:
  free:
    {credits_per_month: 100, monthly_cap: 100, submit_per_hour: {user: 1, tenant: 2},
     in_flight: {user: 1, tenant: 2}, streams: 1, count: 1, prompt: 100, models: [standard],
     styles: [cinematic]}
tenants:
  "*": {plan: free}
models:
  standard:
    sizes: [{size: 1024x1024, ratio: "1:1", tier: 1K}]
    route: [{entry: main, model: gpt-image-2}]
prices:
  - {max_pixels: 1600000, low: 1, medium: 10, high: 40}
prompt_rules:
  - {id: demo.blocked, patterns: ["forbidden[ ]word"]}
styles:
  cinematic: {words: "wide screen"}
"""


class Home:
    """A folder with good settings and policies, of which a test spoils some."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "policies").mkdir()
        self.write("safelight.yaml", SETTINGS)
        self.write("policies/all.yaml", POLICY)

    def write(self, name: str, text: str) -> None:
        """Write a file; `TMP` in it stands for this folder."""
        (self.path / name).write_text(text.replace("TMP", str(self.path)))

    def spoil(self, name: str, old: str, new: str) -> None:
        """Replace a text that stands in a file."""
        text = (self.path / name).read_text()
        assert old.replace("TMP", str(self.path)) in text
        self.write(name, text.replace(old.replace("TMP", str(self.path)), new))

    def report(self, role: Role = "all", *, probe: bool = True) -> Report:
        """Return the report on the folder as it stands."""
        return check(str(self.path / "safelight.yaml"), ENVIRON, KINDS, role=role, probe=probe)

    def told(self, role: Role = "all", *, probe: bool = True) -> list[str]:
        """Return the mistakes as lines without this folder's name."""
        report = self.report(role, probe=probe)
        return [str(mistake).replace(f"{self.path}/", "") for mistake in report.mistakes]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a folder without mistakes."""
    return Home(tmp_path)


def test_good_folder_passes(home: Home) -> None:
    """Sound settings and policies have no mistake and no warning, and checking leaves nothing behind."""
    before = sorted(home.path.rglob("*"))
    assert home.report() == Report(())
    assert sorted(home.path.rglob("*")) == before


_SETTINGS_GOLDEN = [
    (
        "unknown key",
        "concurrency: 64",
        "concurency: 64",
        ['safelight.yaml:3:10: worker.concurency: unknown key, did you mean "concurrency"?'],
    ),
    (
        "wrong type",
        "concurrency: 64",
        "concurrency: many",
        ["safelight.yaml:3:10: worker.concurrency: must be a whole number, not text"],
    ),
    (
        "out of range",
        "port: 0",
        "port: 70000",
        ["safelight.yaml:2:27: server.port: must be between 0 and 65535"],
    ),
    (
        "missing secret reference",
        "${env:OPENAI_API_KEY}",
        "${env:OPENAI_KEY}",
        ["safelight.yaml:10:24: providers.main.key: ${env:OPENAI_KEY} is not set in the environment"],
    ),
    (
        "unreadable secret file",
        "${env:OPENAI_API_KEY}",
        "${file:/x/y}",
        [
            (
                "safelight.yaml:10:24: providers.main.key: ${file:/x/y} cannot be read: "
                "no such file or directory"
            )
        ],
    ),
    (
        "duplicate YAML key",
        "worker: {concurrency: 64}",
        "worker: {concurrency: 64, concurrency: 65}",
        ["safelight.yaml:3:27: worker.concurrency: stands twice, first in line 3"],
    ),
    (
        "tab indentation",
        "worker: {concurrency: 64}",
        "worker:\n\tconcurrency: 64",
        ["safelight.yaml:4:1: a tab in the indentation: YAML indents by spaces"],
    ),
    (
        "two issuers alike",
        "providers:\n",
        "    - {issuer: 'https://login.example.com', audience: b, jwks_url: 'https://b.example/keys'}\nproviders:\n",
        ["safelight.yaml:9:8: auth.issuers[1].issuer: the same issuer as auth.issuers[0]"],
    ),
    (
        "issuer without keys",
        ', jwks_url: "https://login.example.com/keys"',
        "",
        ["safelight.yaml:8:7: auth.issuers[0]: has no keys: give `jwks_file` or `jwks_url`"],
    ),
    (
        "unreadable key file",
        'jwks_url: "https://login.example.com/keys"',
        "jwks_file: TMP/keys.json",
        [
            (
                "safelight.yaml:8:63: auth.issuers[0].jwks_file: keys.json: the key set cannot be read: "
                "No such file or directory"
            )
        ],
    ),
    (
        "bad URL",
        "https://images.example.com",
        "images.example.com",
        [
            (
                "safelight.yaml:2:36: server.public_url: must be an address such as "
                "https://images.example.com, without user, query or fragment"
            )
        ],
    ),
    (
        "blobs not writable",
        "file://TMP/blobs",
        "file://TMP/safelight.yaml/blobs",
        ["safelight.yaml:5:9: blobs.url: safelight.yaml is not a folder"],
    ),
    (
        "unknown store scheme",
        "sqlite://",
        "mysql://",
        [
            (
                "safelight.yaml:4:9: store.url: unknown store scheme; known: sqlite, redis, redis+cluster, "
                "redis+sentinel, rediss, rediss+cluster, rediss+sentinel"
            )
        ],
    ),
    (
        "store that is none",
        "TMP/safelight.db",
        "TMP/safelight.yaml",
        ["safelight.yaml:4:9: store.url: safelight.yaml is not a SQLite file"],
    ),
    (
        "no secret",
        'secret: ["${env:SAFELIGHT_SECRET}"]',
        "secret: []",
        [
            (
                "safelight.yaml:1:1: secret: no secret: "
                'set secret: ["${env:SAFELIGHT_SECRET}"], made with `openssl rand -hex 32`'
            )
        ],
    ),
    (
        "dev issuer under serve",
        'issuer: "https://login.example.com"',
        "issuer: urn:safelight:dev",
        ["safelight.yaml:8:8: auth.issuers[0].issuer: is the dev issuer, which only `safelight dev` has"],
    ),
    (
        "missing policy folder",
        "TMP/policies",
        "TMP/none",
        ["none: cannot be read: no such file or directory"],
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "lines"), [row[1:] for row in _SETTINGS_GOLDEN], ids=[row[0] for row in _SETTINGS_GOLDEN]
)
def test_settings_mistake_has_its_message(home: Home, old: str, new: str, lines: list[str]) -> None:
    """Each class of mistake in the settings gives exactly its golden message."""
    home.spoil("safelight.yaml", old, new)
    found = home.told()
    assert found == lines


_POLICY_GOLDEN = [
    (
        "route to an unknown provider",
        "entry: main",
        "entry: mian",
        '11:14: models.standard.route[0].entry: unknown provider entry "mian", did you mean "main"?',
    ),
    (
        "price missing for a routable combination",
        ", high: 40",
        "",
        '13:5: prices[0].high: no price for high, which model "standard" offers at 1024x1024',
    ),
    (
        "unknown plan",
        "{plan: free}",
        "{plan: fee}",
        '7:9: tenants.*.plan: unknown plan "fee", did you mean "free"?',
    ),
    (
        "unknown style",
        "styles: [cinematic]",
        "styles: [cinema]",
        '5:15: plans.free.styles[0]: unknown style "cinema", did you mean "cinematic"?',
    ),
    (
        "unsafe pattern",
        "forbidden[ ]word",
        "(a+)+$",
        (
            "15:35: prompt_rules[0].patterns[0]: unsafe pattern: it can be read in more than one way each "
            "round, as `(a+)+` can: time doubles with every letter"
        ),
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "line"), [row[1:] for row in _POLICY_GOLDEN], ids=[row[0] for row in _POLICY_GOLDEN]
)
def test_policy_mistake_has_its_message(home: Home, old: str, new: str, line: str) -> None:
    """Each class of mistake in the policies gives exactly its golden message."""
    home.spoil("policies/all.yaml", old, new)
    found = home.told()
    assert found == [f"policies/all.yaml:{line}"]


def test_slow_pattern_has_its_message(home: Home) -> None:
    """A pattern that reads well and is slow on the right text is told, only with probes; others are not."""
    home.spoil("policies/all.yaml", '["forbidden[ ]word"]', '["kid.*nude", "kid.{0,40}nude", "(a+)+$"]')
    slow, unsafe = home.told()
    assert slow == (
        "policies/all.yaml:15:35: prompt_rules[0].patterns[0]: slow pattern: a search takes over 50 ms in a "
        "hostile text of 32000 characters: bound its repeats, as in `.{0,40}`"
    )
    assert "patterns[2]: unsafe pattern" in unsafe
    assert home.told(probe=False) == [unsafe]


def test_unused_document_has_its_message(home: Home) -> None:
    """A document that adds nothing to the policies is a mistake."""
    home.write("policies/notes.yaml", "note: prices rise in May\n")
    names = "plans, tenants, models, prices, prompt_rules, styles, aliases"
    assert home.told() == [f"policies/notes.yaml: unused document: none of {names} stands in it"]


def test_taken_port_has_its_message(home: Home) -> None:
    """A port somebody listens on is a mistake, told only with probes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home.spoil("safelight.yaml", "port: 0", f"port: {port}")
        told = f"nothing can listen on 127.0.0.1 port {port}: address already in use"
        assert home.told() == [f"safelight.yaml:2:27: server.port: {told}"]
        assert home.told(probe=False) == []


def test_ten_mistakes_give_ten_messages(home: Home) -> None:
    """Ten mistakes in one file are told in one run, in the file's order, and no secret with them."""
    home.write(
        "safelight.yaml",
        """\
secrets: ["${env:SAFELIGHT_SECRET}"]
secret: ["${env:NOT_SET}"]
server: {port: -1, port: 8080}
worker: {concurrency: "64", drain_seconds: 60}
store: {url: "mysql://root:canary-word@db/x"}
auth: {issuers: [{issuer: a, audience: b}]}
providers:
  main: {kind: opnai, key: canary-literal}
telemetry: {log_level: loud}
""",
    )
    found = home.told("worker")
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in found] == [
        "safelight.yaml:1:1 secrets",
        "safelight.yaml:2:10 secret[0]",
        "safelight.yaml:3:10 server.port",
        "safelight.yaml:3:20 server.port",
        "safelight.yaml:4:10 worker.concurrency",
        "safelight.yaml:5:9 store.url",
        "safelight.yaml:6:18 auth.issuers[0]",
        "safelight.yaml:8:10 providers.main.kind",
        "safelight.yaml:8:23 providers.main.key",
        "safelight.yaml:9:13 telemetry.log_level",
    ]
    assert "canary" not in "".join(found)


def test_settings_and_policies_are_told_together(home: Home) -> None:
    """A mistake in one file hides none in another."""
    home.spoil("safelight.yaml", "concurrency: 64", "concurency: 64")
    home.spoil("policies/all.yaml", "{plan: free}", "{plan: fee}")
    assert [line.partition(":")[0] for line in home.told()] == ["policies/all.yaml", "safelight.yaml"]


def test_role_beside_sqlite_is_told(home: Home) -> None:
    """A store of one process refuses to be shared."""
    assert home.told("api") == [
        "safelight.yaml:4:9: store.url: SQLite serves one process: it takes --role all, not api"
    ]


_REACHED = (
    "images.internal", "Images.Internal:8443", "10.0.0.9", "10.0.0.9:8080", "10.0.0.0/8", "fd00::1",
    "[fd00::1]:8080", "fd00::/8",
)  # fmt: skip


@pytest.mark.parametrize("entry", _REACHED)
def test_allowed_targets_pass(home: Home, entry: str) -> None:
    """What the judge of outgoing calls can be told to let pass can be written in the settings."""
    home.write("safelight.yaml", SETTINGS + f'outbound: {{allow: ["{entry}"]}}\n')
    assert home.told() == []


@pytest.mark.parametrize(
    "entry", ["", "a b", "host:", "host:0x50", "host:70000", "10.0.0.1/8", "https://host", "0x7f.1", "[::1"]
)
def test_other_targets_are_told(home: Home, entry: str) -> None:
    """An entry that the judge would not understand is a mistake at its place, before anything starts."""
    home.write("safelight.yaml", SETTINGS + f'outbound: {{allow: ["{entry}"]}}\n')
    known = "a host, host:port, an IP address, address:port, or a network such as 10.0.0.0/8"
    assert home.told() == [f"safelight.yaml:12:20: outbound.allow[0]: must be {known}"]


def test_doubts_are_warnings(home: Home) -> None:
    """What runs but may not be meant is told and does not fail the check."""
    home.spoil("safelight.yaml", ', public_url: "https://images.example.com"', "")
    home.spoil("safelight.yaml", "kind: openai,", "kind: openai, base_url: 'http://10.0.0.9/v1',")
    report = home.report()
    assert report.exit_code == 0
    assert [str(warning).rpartition("safelight.yaml")[2] for warning in report.warnings] == [
        ":2:1: server.public_url: not set: links will begin with http://127.0.0.1:0",
        ":10:24: providers.main.base_url: the key travels unencrypted",
    ]


def test_shared_store_wants_shared_blobs(home: Home) -> None:
    """Beside a store that processes share a folder of images is told of: it must be one for all."""
    home.spoil("safelight.yaml", "sqlite:///TMP/safelight.db", server().url)
    report = home.report("api")
    assert report.exit_code == 0
    assert [line for line in report.lines() if "must find the same one there" in line]


def test_unreachable_store_has_its_message(home: Home) -> None:
    """A Redis that does not answer is told at its place; without probes it is not asked."""
    home.spoil("safelight.yaml", "sqlite:///TMP/safelight.db", "redis://127.0.0.1:1/0")
    assert home.told() == ["safelight.yaml:4:9: store.url: The store cannot be used: redis: ConnectionError."]
    assert home.told(probe=False) == []


def test_untrusted_store_has_its_message(home: Home) -> None:
    """A Redis whose certificate nobody here vouches for is told at its place, and so is a missing file."""
    place = "safelight.yaml:4:9: store.url: "
    with Papers() as papers, Redis(papers=papers) as running:
        home.spoil("safelight.yaml", '"sqlite:///TMP/safelight.db"', f'"{running.url}"')
        (told,) = home.told()
        assert told.startswith(f"{place}The store cannot be used: redis: its certificate is not trusted (")
        home.spoil("safelight.yaml", f'"{running.url}"', f'"{running.url}", ca_file: /none')
        missing = "store.ca_file: /none cannot be read: No such file or directory."
        assert home.told() == [f"{place}{missing}"]
        home.spoil("safelight.yaml", "/none", papers.ca)
        assert home.told() == []


def test_no_provider_is_a_warning(home: Home) -> None:
    """A gateway without a provider starts, and says that it makes nothing."""
    home.spoil("safelight.yaml", 'providers:\n  main: {kind: openai, key: "${env:OPENAI_API_KEY}"}\n', "")
    home.spoil("policies/all.yaml", "entry: main", "entry: 'kind:openai'")
    assert [line for line in home.report().lines() if "no image can be made" in line]
    assert home.report().exit_code == 0


def test_command_says_lines_and_code(home: Home) -> None:
    """The command's pieces: lines for people, 0 or 2 for scripts, a verdict last."""
    said: list[str] = []
    path = str(home.path / "safelight.yaml")
    assert run_check(path, ENVIRON, KINDS, said.append) == 0
    assert run_check(path, {}, KINDS, said.append, probe=False) == 2
    assert [line.rpartition("/")[2] for line in said] == [
        "ok",
        "safelight.yaml:1:10: secret[0]: ${env:SAFELIGHT_SECRET} is not set in the environment",
        "safelight.yaml:10:24: providers.main.key: ${env:OPENAI_API_KEY} is not set in the environment",
        "2 mistakes",
    ]
    assert list(Report(home_mistakes := check("/none", {}, KINDS).mistakes).lines()) == [
        "/none: cannot be read: no such file or directory",
        "1 mistake",
    ]
    assert len(home_mistakes) == 1


def test_probes_answer_for_each_place(tmp_path: Path) -> None:
    """Folders and files that can be made pass; those that cannot are told by what stands in the way."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    (tmp_path / "empty.db").touch()
    (tmp_path / "real.db").write_bytes(b"SQLite format 3\0 and more")
    assert not_writable(tmp_path) is None
    assert not_writable(tmp_path / "a" / "b") is None
    assert not_writable(file) == f"{file} cannot be written: not a directory"
    assert not_sqlite(tmp_path / "empty.db") is None
    assert not_sqlite(tmp_path / "real.db") is None
    assert not_sqlite(tmp_path / "new" / "x.db") is None
    assert not_sqlite(tmp_path) == f"{tmp_path} cannot be opened: is a directory"
    assert not_sqlite(file / "x.db") == f"{file} cannot be written: not a directory"
    assert not_sqlite(tmp_path / ("x" * 300)) is not None


def test_port_probe_knows_names(tmp_path: Path) -> None:
    """A host that is none of this machine's is told; any free port passes."""
    assert port_taken("127.0.0.1", 0) is None
    assert port_taken("localhost", 0) is None
    assert "nothing can listen" in str(port_taken("192.0.2.1", 0))


def test_bucket_is_described_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bucket only its description is looked at; a variable that is wrong is named, not quoted."""
    bucket = BlobsSettings(url="s3://pictures")
    assert not_kept(bucket) is None
    monkeypatch.setenv("AWS_ENDPOINT", "minio:9000")
    told = not_kept(bucket) or ""
    assert "AWS_ENDPOINT must be a whole address" in told
    assert "minio" not in told
