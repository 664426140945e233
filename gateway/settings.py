"""What an operator can set: every name, its default, its bounds.

One frozen struct a section of `safelight.yaml`; `configure` reads the file into them. Nothing is read,
opened or looked up here. Each setting is harmless when absent. What a tenant or a plan may see
differently is not a setting but policy (`policies/bundle.py`); what nobody changes is a constant where
it is used. Seconds and days are whole numbers.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from gateway.auth import Issuer
from gateway.secrets import Secret
from gateway.store.opening import Place
from policies import egress
from policies.bundle import Name
from policies.order import Bounds

Role = Literal["all", "api", "worker"]
"""What one `serve` process does."""

BUCKETS: Final = ("s3", "gs", "az")
"""Kinds of object storage. Their credentials and endpoints are in each cloud's own environment variables,
such as `AWS_ACCESS_KEY_ID`, `AWS_REGION` and `AWS_ENDPOINT`."""
STORES: Final = (
    "sqlite",
    *(f"{redis}{kind}" for redis in ("redis", "rediss") for kind in ("", "+cluster", "+sentinel")),
)
BLOBS: Final = ("file", *BUCKETS)
KEYLESS: Final = ("sandbox",)
"""Provider kinds that are asked without a key."""


def listening(host: str, port: int) -> str:
    """Return how the URLs of a socket begin: an IPv6 address stands in brackets (RFC 3986, 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _web_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _PRINTED.fullmatch(text) or "@" in parts.netloc or parts.query or parts.fragment:
        return "must be an address such as https://images.example.com, without user, query or fragment"
    return None


def _origin(text: str) -> str | None:
    good = _web_url(text) is None and urlsplit(text).path == "" and text == text.lower()
    return None if good else "must be an exact origin such as https://app.example.com, in small letters"


def _network(text: str) -> str | None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return "must be an IP address or a network such as 10.0.0.0/8"
    return None


def _allowed(text: str) -> str | None:
    if isinstance(egress.read_allowed((text,)), egress.Allowed):
        return None
    return "must be a host, host:port, an IP address, address:port, or a network such as 10.0.0.0/8"


def _store_url(text: str) -> str | None:
    scheme, _, rest = text.partition("://")
    if scheme not in STORES:
        return f"unknown store scheme; known: {', '.join(STORES)}"
    if scheme != "sqlite":
        form, words = _REDIS[scheme.partition("+")[2]]
        return None if form.fullmatch(rest) else f"must be {scheme}://{words}{_USER}"
    if not rest.removeprefix("/") or not rest.startswith("/") or "?" in rest or not _PRINTED.fullmatch(rest):
        return "must be sqlite:///FILE, or sqlite:////FOLDER/FILE for a place outside the working folder"
    return None


def _blobs_url(text: str) -> str | None:
    scheme, _, rest = text.partition("://")
    if scheme not in BLOBS:
        return f"unknown blob scheme; known: {', '.join(BLOBS)}"
    if scheme in BUCKETS:
        good = _BUCKET.fullmatch(rest) is not None
        return None if good else f"must be {scheme}://BUCKET or {scheme}://BUCKET/PREFIX"
    if not rest.startswith("/") or not _PRINTED.fullmatch(rest):
        return "must be file:///FOLDER, with the whole path"
    return None


_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}){0,8}/?")
_USER: Final = ", with USER@ before the host if need be; the password is a setting of its own"
_HOST: Final = r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_HOSTS: Final = rf"(?:[A-Za-z0-9._~-]{{1,128}}@)?{_HOST}(?:,{_HOST}){{0,31}}"
_REDIS: Final = {
    "": (
        re.compile(rf"(?:[A-Za-z0-9._~-]{{1,128}}@)?{_HOST}(?:/[0-9]{{1,4}})?"),
        "HOST:PORT/NUMBER",
    ),
    "cluster": (re.compile(rf"{_HOSTS}/?"), "HOST:PORT, or HOST:PORT,HOST:PORT for some of its nodes"),
    "sentinel": (
        re.compile(rf"{_HOSTS}/[A-Za-z0-9._-]{{1,128}}(?:/[0-9]{{1,4}})?"),
        "HOST:PORT,HOST:PORT/MASTER or …/MASTER/NUMBER, with the sentinels' hosts",
    ),
}
"""What stands behind the scheme, by what is behind its plus, and how that is said."""
_PRINTED: Final = re.compile(r"[!-~]+")

Text = Annotated[str, Meta(min_length=1, max_length=2048)]
WebUrl = Annotated[str, Meta(max_length=2048, extra={"check": _web_url})]
Origin = Annotated[str, Meta(max_length=255, extra={"check": _origin})]
Network = Annotated[str, Meta(max_length=64, extra={"check": _network})]
Reach = Annotated[str, Meta(max_length=259, extra={"check": _allowed})]
StoreUrl = Annotated[str, Meta(max_length=2048, extra={"check": _store_url})]
BlobsUrl = Annotated[str, Meta(max_length=2048, extra={"check": _blobs_url})]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how it listens.

    Every link is built from `public_url`, never from a request. `grace_seconds` is how long open
    requests may finish at a stop; the two waits are the most a `?wait=` and a synchronous dialect hold.
    `playground` serves a page at `/` on which a user tries it all with a token of theirs.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "0.0.0.0"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    public_url: WebUrl | None = None
    cors_origins: Annotated[tuple[Origin, ...], Meta(max_length=100)] = ()
    trusted_proxies: Annotated[tuple[Network, ...], Meta(max_length=100)] = ()
    grace_seconds: Annotated[int, Meta(ge=0, le=3600)] = 25
    max_wait_seconds: Annotated[int, Meta(ge=0, le=120)] = 25
    sync_wait_seconds: Annotated[int, Meta(ge=1, le=600)] = 110
    playground: bool = False

    @property
    def address(self) -> str:
        """The address links begin with, without a slash at its end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return (self.public_url or listening(host, self.port)).rstrip("/")


class WorkerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How jobs are made. `concurrency` 0 makes none here.

    `attempt_seconds` bounds one call that makes an image and is shorter than `drain_seconds`, so that a
    stop lets paid calls finish. A job not made within `job_deadline_seconds` fails and is refunded. New
    jobs are answered `queue_full` while `queue_depth` wait, of all tenants, or the first has waited for half
    of that deadline; what waits with the priority batch does not count against interactive jobs.
    """

    concurrency: Annotated[int, Meta(ge=0, le=10_000)] = 64
    attempt_seconds: Annotated[int, Meta(ge=1, le=3600)] = 120
    drain_seconds: Annotated[int, Meta(ge=0, le=3600)] = 150
    job_deadline_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 900
    queue_depth: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000

    @property
    def bounds(self) -> Bounds:
        """How long the queue may get, and how old."""
        return Bounds.of(self.queue_depth, self.job_deadline_seconds)


class StoreSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where jobs, credits and the trail are kept.

    `password` is a Redis' own, or its user's, at every node; `sentinel_password` is that of the sentinels.
    Nothing is answered before so many `replicas` of a Redis have it. Where one may take over, 0 loses what
    it had not got yet: only who says so by `accept_loss` may have that. `ca_file` names the issuers whose
    certificates are taken for a Redis'; without it this host's do. Where Redis asks for a certificate of ours
    it is in `cert_file`, its key in `key_file` or behind it. All in PEM.
    """

    url: StoreUrl = "sqlite:///safelight.db"
    password: Secret | None = None
    sentinel_password: Secret | None = None
    replicas: Annotated[int, Meta(ge=0, le=5)] = 0
    accept_loss: bool = False
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None

    @property
    def place(self) -> Place:
        """Where that is, for whoever opens it."""
        secrets = (self.password, self.sentinel_password)
        own, theirs = (None if secret is None else secret.reveal for secret in secrets)
        return Place(self.url, own, theirs, self.replicas, self.ca_file, self.cert_file, self.key_file)


class BlobsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where images are kept."""

    url: BlobsUrl = "file:///var/lib/safelight/blobs"

    @property
    def folder(self) -> Path | None:
        """The folder of a `file:` URL; None for object storage."""
        scheme, _, rest = self.url.partition("://")
        return Path(rest) if scheme == "file" else None


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are accepted."""

    issuers: Annotated[tuple[Issuer, ...], Meta(max_length=100)] = ()


class ProviderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One key at one upstream. Routes of the policies name entries, or `kind:` and the kind."""

    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    key: Secret | None = None
    base_url: WebUrl | None = None


class PoliciesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder of policy documents; None means the presets that ship."""

    path: Text | None = None


class OutboundSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts, addresses and networks that may be called although they are not public, at any port or one."""

    allow: Annotated[tuple[Reach, ...], Meta(max_length=1000)] = ()


class WebhooksSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How deliveries are sent. The gptimage2.plus form's own figures are its document's.

    One try takes at most `attempt_seconds`. An endpoint is disabled by `disable_after` failed tries in a
    row, counted over all its deliveries.
    """

    attempt_seconds: Annotated[int, Meta(ge=1, le=60)] = 15
    disable_after: Annotated[int, Meta(ge=1, le=10_000)] = 20


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is written to the log."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"


class RetentionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How long ended jobs with their images, and rows of the trail, are kept."""

    jobs_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    trail_days: Annotated[int, Meta(ge=1, le=36_500)] = 400


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of `safelight.yaml`. The first of `secret` signs, all verify."""

    server: ServerSettings = ServerSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()
    blobs: BlobsSettings = BlobsSettings()
    auth: AuthSettings = AuthSettings()
    providers: Annotated[dict[Name, ProviderSettings], Meta(max_length=1000)] = {}
    policies: PoliciesSettings = PoliciesSettings()
    outbound: OutboundSettings = OutboundSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    retention: RetentionSettings = RetentionSettings()
    secret: Annotated[tuple[Secret, ...], Meta(max_length=10)] = ()
