"""The nouns every other file speaks in: who calls, what is asked, what a job is.

Values only. All are frozen msgspec structs: changed by `msgspec.structs.replace`, compared by value.
Instants are integer milliseconds since 1970 UTC (`_at`), durations say their unit in the name, money is
integer credits. Integers are bounded to what SQLite, Lua and JavaScript all hold exactly (2^53 - 1).
A `Job` is stored for ever in the form written here; its `f` is the format number.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

EXACT: Final = 2**53 - 1
Credits = Annotated[int, Meta(ge=0, le=EXACT)]
Millis = Annotated[int, Meta(ge=0, le=EXACT)]

_canonical = msgspec.json.Encoder(order="sorted")


class Role(enum.StrEnum):
    """What a caller is to the tenant, weakest first."""

    USER = "user"
    TENANT_ADMIN = "tenant_admin"
    PLATFORM_ADMIN = "platform_admin"


class Principal(Struct, frozen=True, cache_hash=True):
    """Who calls: proven by `auth`, mapped by `access`. `scopes` is None where a token has none."""

    tenant: str
    subject: str
    roles: frozenset[Role] = frozenset({Role.USER})
    plan: str | None = None
    scopes: frozenset[str] | None = None
    issuer: str = ""
    expires_at: Millis = EXACT

    @property
    def is_admin(self) -> bool:
        """Whether the caller sees the whole tenant."""
        return Role.TENANT_ADMIN in self.roles


class Reason(enum.StrEnum):
    """Why something was denied: the word the API, the trail and the metrics all use."""

    FORBIDDEN = "forbidden"
    PLAN_REQUIRED = "plan_required"
    TENANT_SUSPENDED = "tenant_suspended"
    INSUFFICIENT_CREDITS = "insufficient_credits"
    MONTHLY_CAP_REACHED = "monthly_cap_reached"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_IN_FLIGHT = "too_many_in_flight"
    TOO_MANY_STREAMS = "too_many_streams"
    PROMPT_BLOCKED = "prompt_blocked"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_OPTION = "unsupported_option"
    UNPRICED = "unpriced"
    NO_PROVIDER_AVAILABLE = "no_provider_available"
    REFERENCE_REJECTED = "reference_rejected"
    UPLOAD_EXPIRED = "upload_expired"
    UPLOAD_INCOMPLETE = "upload_incomplete"
    WEBHOOK_LIMIT = "webhook_limit"
    KEY_LIMIT = "key_limit"
    PAUSED = "paused"
    QUEUE_FULL = "queue_full"
    NOT_FOUND = "not_found"


class Flaw(Struct, frozen=True):
    """One mistake in a request: where (a JSON pointer) and what."""

    pointer: str
    detail: str


class Allow(Struct, frozen=True):
    """Yes, with nothing to add."""


class Deny(Struct, frozen=True):
    """No, and why. `retry_after_ms` is set where waiting helps; `rule` is a public id."""

    reason: Reason
    detail: str
    retry_after_ms: Millis | None = None
    rule: str | None = None
    flaws: tuple[Flaw, ...] = ()


ALLOW: Final = Allow()


class JobState(enum.StrEnum):
    """Where a job stands; `lifecycle` has the moves."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


Dialect = Literal["native", "openai", "gptimage2_plus", "gptimage2_ai"]
"""A client API a job may be asked for in: our own, or one of those others speak."""
Operation = Literal["generate", "edit"]
Priority = Literal["interactive", "batch"]
"""Which line a job waits in: somebody waits for it, or it can wait itself."""
Quality = Literal["low", "medium", "high"]
Format = Literal["png", "webp", "jpeg"]
MediaType = Literal["image/png", "image/jpeg", "image/webp"]
"""The types of images that callers may bring."""
Background = Literal["auto", "transparent", "opaque"]
Size = Annotated[str, Meta(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]
Ratio = Annotated[str, Meta(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$")]
Alias = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}$")]
Hint = Annotated[str, Meta(min_length=1, max_length=1000)]
MetaKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetaValue = Annotated[str, Meta(max_length=512)]


class InputRef(Struct, frozen=True, forbid_unknown_fields=True):
    """An image the caller brings: exactly one of the two is set."""

    upload: Annotated[str, Meta(max_length=64)] | None = None
    url: Annotated[str, Meta(max_length=2048)] | None = None


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller may ask: the body of a submit, and the one schema every dialect translates to."""

    prompt: Annotated[str, Meta(min_length=1, max_length=32_000, description="What the picture shows.")]
    operation: Operation = "generate"
    size: Size | None = None
    aspect_ratio: Ratio | None = None
    quality: Quality = "medium"
    count: Annotated[int, Meta(ge=1, le=10)] = 1
    inputs: Annotated[tuple[InputRef, ...], Meta(max_length=16)] = ()
    mask: InputRef | None = None
    style: Slug | None = None
    lighting: Hint | None = None
    camera: Hint | None = None
    negative: Hint | None = None
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    format: Format = "png"
    background: Background = "auto"
    model: Alias | None = None
    metadata: Annotated[dict[MetaKey, MetaValue], Meta(max_length=16)] = {}
    on_unsupported: Literal["refuse", "drop"] = "refuse"

    def fingerprint(self) -> str:
        """Hex SHA-256 over a format byte and the canonical JSON: same request, same fingerprint.

        Schema defaults count as written; an absent model or size stays absent, so that a change of
        plan or policy between two sends does not turn a replay into a conflict.
        """
        return hashlib.sha256(b"\x01" + _canonical.encode(self)).hexdigest()


class Money(Struct, frozen=True):
    """What an upstream asks of the operator: millionths of a currency's unit."""

    micros: Credits
    currency: str = "USD"


class Output(Struct, frozen=True):
    """One delivered image. `key` and `variants` name blobs; links are made when the job is shown."""

    index: int
    key: str
    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: str | None = None
    variants: dict[str, str] = {}


class Shortfall(Struct, frozen=True):
    """One image asked for and not delivered, and what came back for it."""

    index: int
    code: str
    refunded: Credits


class JobError(Struct, frozen=True):
    """Why a job ended without a picture. `retryable`: a new submit may work, and nothing is owed."""

    code: str
    detail: str
    stage: Literal["input", "upstream", "output"]
    retryable: bool
    rule: str | None = None


class Hold(Struct, frozen=True):
    """Credits set aside for a job, and the month (`YYYY-MM`) whose cap they count against."""

    amount: Credits
    month: str


class Step(Struct, frozen=True):
    """One way to make a job: a provider entry of the settings and that provider's model."""

    entry: str
    kind: str
    model: str


class Attempt(Struct, frozen=True):
    """One call to an upstream, written down before it is sent.

    `n` counts the attempts of a slot. `sent_key` is the idempotency key given to a provider that takes
    one. `next` is the encoded request that asks for the result, once the upstream named its own id.
    A slot is done when its last attempt holds outputs or a code; `flag` is for the operator. `handed` are
    the upstream's names for inputs it was given before.
    """

    slot: int
    n: int
    step: int
    deadline_at: Millis
    open: bool = True
    sent_key: str | None = None
    upstream_id: str | None = None
    next: bytes | None = None
    outputs: tuple[Output, ...] = ()
    code: str | None = None
    stage: Literal["input", "upstream", "output"] = "upstream"
    cost: Money | None = None
    flag: str | None = None
    handed: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the slot this attempt belongs to needs no other."""
        return bool(self.outputs) or self.code is not None


class Shaping(Struct, frozen=True):
    """The judged words a provider gets: natively where it has the field, else appended."""

    prompt: str
    style: str | None = None
    style_words: str | None = None
    lighting: str | None = None
    camera: str | None = None
    negative: str | None = None


class Source(Struct, frozen=True, omit_defaults=True):
    """An image a job begins from, as it stood at submit: an upload's bytes by hash, or a URL to be fetched.

    `upload` is the upload's UUID text. An upload whose bytes no longer have this hash is not used.
    """

    upload: str | None = None
    sha256: str | None = None
    url: str | None = None


class Job(Struct, frozen=True, omit_defaults=True):
    """A job as it is stored. What clients see is rendered from it by `api`.

    `slots` says how many images each upstream call makes; an output's index counts through them.
    `operator_flag` marks an outcome the operator must look at (unknown outcomes, paid and thrown away).
    `dialect` is the API it was asked for in, `links` how long its links live, `variants` what is made of
    each output besides the thumbnail. `sources` and `mask` are the inputs of an edit, in order. `priority`
    is the line it waits in, decided at submit.
    """

    id: str
    tenant: str
    subject: str
    request: JobRequest
    f: int = 1
    version: int = 0
    state: JobState = JobState.QUEUED
    subject_ref: str = ""
    model: str = ""
    size: str = ""
    aspect_ratio: str = ""
    shaping: Shaping | None = None
    final_prompt: str = ""
    show_final_prompt: bool = True
    adjustments: tuple[str, ...] = ()
    price_each: Credits = 0
    hold: Hold = Hold(0, "")
    charged: Credits = 0
    weight: int = 1
    slots: tuple[int, ...] = (1,)
    route: tuple[Step, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    outputs: tuple[Output, ...] = ()
    shortfall: tuple[Shortfall, ...] = ()
    error: JobError | None = None
    cancel_requested_at: Millis | None = None
    created_at: Millis = 0
    started_at: Millis | None = None
    ended_at: Millis | None = None
    policy_version: str = ""
    provider: str | None = None
    provider_cost: Money | None = None
    operator_flag: str | None = None
    dialect: Dialect = "native"
    links: Literal["signed", "durable"] = "signed"
    variants: tuple[Literal["webp"], ...] = ()
    sources: tuple[Source, ...] = ()
    mask: Source | None = None
    priority: Priority = "interactive"

    @property
    def quoted(self) -> int:
        """Credits for all images asked for."""
        return self.price_each * self.request.count

    @property
    def held(self) -> int:
        """Credits still set aside."""
        return 0 if self.state.ended else self.hold.amount

    @property
    def refunded(self) -> int:
        """Credits of the hold that came back."""
        return self.hold.amount - self.charged if self.state.ended else 0


class Window(Struct, frozen=True):
    """A fixed window that began with its first counted call."""

    start_at: Millis = 0
    count: int = 0


class Account(Struct, frozen=True, omit_defaults=True):
    """The figures of one level (a tenant, or one user of it).

    `granted` None means the level has no budget of its own. `spent` is what the month's cap counts:
    charged and held in `month`. `windows` holds the rate windows by counter name.
    """

    granted: int | None = 0
    charged: int = 0
    held: int = 0
    flight: int = 0
    month: str = ""
    spent: int = 0
    windows: dict[str, Window] = {}

    @property
    def available(self) -> int | None:
        """Credits that may still be held; None where the level is without a budget."""
        return None if self.granted is None else self.granted - self.charged - self.held


class Usage(Struct, frozen=True):
    """Both levels a caller is measured by."""

    tenant: Account = Account()
    user: Account = Account(granted=None)


class Entry(Struct, frozen=True):
    """One line of the ledger: what changed, for whom, by which job. Written with the change itself."""

    kind: Literal["plan", "grant", "hold", "settle", "carry"]
    month: str
    job: str | None = None
    level: Literal["tenant", "user", "both"] = "both"
    granted: int = 0
    held: int = 0
    charged: int = 0
    flight: int = 0
    provider_cost: Money | None = None


class Upload(Struct, frozen=True, omit_defaults=True):
    """An image a caller brings by a PUT: what was declared of it. Its bytes are a blob of its own folder.

    `id` is a UUID's text. It may be used until `expires_at`, by its subject alone.
    """

    id: str
    tenant: str
    subject: str
    media_type: str
    bytes: int
    filename: str = ""
    created_at: Millis = 0
    expires_at: Millis = 0
    f: int = 1


class ServiceKey(Struct, frozen=True, omit_defaults=True):
    """A long-lived bearer key of a backend or script. Only its hash (hex SHA-256) is kept.

    It speaks as `subject`, with these roles, plan and scopes. `hint` is the prefix and last letters, for
    people to know it by. `revoked_at` is set for ever.
    """

    id: str
    tenant: str
    subject: str
    hash: str
    hint: str
    label: str = ""
    roles: tuple[Role, ...] = (Role.USER,)
    plan: str | None = None
    scopes: tuple[str, ...] | None = None
    created_by: str = ""
    created_at: Millis = 0
    expires_at: Millis = EXACT
    revoked_at: Millis | None = None
    f: int = 1
