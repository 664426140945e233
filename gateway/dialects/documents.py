"""The foreign APIs as documents show them: a struct for each body, and a row for each call by `operationId`.

Nothing is decoded or encoded by these: each dialect reads and writes in its own way, leniently where its
document is. Tests hold the two equal: fields by name, answers by reading real ones with these structs.
Unknown fields are passed over in all three APIs, so no request is closed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from policies.model import Background, Format, Quality

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Url = Annotated[str, Meta(extra_json_schema={"format": "uri"})]
File = Annotated[str, Meta(extra_json_schema={"format": "binary"})]
Key = Annotated[str, Meta(max_length=64)]
Note = Annotated[str, Meta(max_length=1000)]
EndUser = Annotated[str, Meta(max_length=512, description="Kept with the job, sent to nobody.")]

PLUS: Final = "gptimage2.plus"
AI: Final = "gptimage2.ai"
OPENAI: Final = "OpenAI"


# -- gptimage2.plus ----------------------------------------------------------------------------------


class PlusGenerateRequest(Struct, frozen=True, rename="camel"):
    """What is asked of a generation. `inputImageKeys` belong to the type edit, which needs one."""

    prompt: Annotated[str, Meta(min_length=1, max_length=4000)]
    type: Literal["text2img", "edit"] = "text2img"
    size: Literal["1024x1024", "1024x1536", "1536x1024"] = "1024x1024"
    quality: Quality = "medium"
    n: Annotated[int, Meta(ge=1, le=4)] = 1
    input_image_keys: Annotated[tuple[Key, ...], Meta(max_length=4)] = ()


class PlusAccepted(Struct, frozen=True, rename="camel"):
    """A generation that was taken in."""

    generation_id: str
    status: str


class PlusOutput(Struct, frozen=True):
    """One picture, as PNG and as WebP, in real pixels."""

    png: Url
    webp: Url
    width: int
    height: int


class PlusGeneration(Struct, frozen=True, rename="camel"):
    """A generation. `costCredits` are those held while it is open, and those charged once it ended."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "blocked"]
    type: str
    outputs: tuple[PlusOutput, ...]
    error: str | None
    cost_credits: int
    created_at: Time
    completed_at: Time | None


class PlusUploadRequest(Struct, frozen=True, rename="camel"):
    """An image that is to be brought: its name for people, its type, its bytes."""

    filename: Annotated[str, Meta(min_length=1, max_length=200)]
    content_type: Literal["image/png", "image/jpeg", "image/webp"]
    size: Annotated[int, Meta(ge=1, le=10 * 2**20)]


class PlusUpload(Struct, frozen=True):
    """Where to PUT the bytes within five minutes, and the key for `inputImageKeys`."""

    url: Url
    key: str


class PlusWebhookRequest(Struct, frozen=True):
    """What is asked of a webhook. Absent events are both."""

    url: Annotated[str, Meta(max_length=2048)]
    events: tuple[str, ...] | UnsetType = UNSET
    label: Annotated[str, Meta(max_length=200)] = ""
    scope: Literal["own", "tenant"] = "own"


class PlusWebhookPatch(Struct, frozen=True):
    """What is to be changed of a webhook; what is absent stays."""

    url: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    events: tuple[str, ...] | UnsetType = UNSET
    label: Annotated[str, Meta(max_length=200)] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class PlusWebhookSecret(Struct, frozen=True):
    """A webhook's secret, shown this once."""

    id: str
    secret: str


class PlusWebhook(Struct, frozen=True, rename="camel"):
    """A webhook. `failures` counts failed tries in a row."""

    id: str
    url: Url
    events: tuple[str, ...]
    label: str
    scope: str
    enabled: bool
    failures: int
    created_at: Time


class PlusWebhookList(Struct, frozen=True):
    """The caller's webhooks, newest first."""

    webhooks: tuple[PlusWebhook, ...]


class PlusIssue(Struct, frozen=True):
    """One mistake of a body: where, and what."""

    path: tuple[str | int, ...]
    message: str
    code: str


class PlusError(Struct, frozen=True):
    """What went wrong: a sentence, a code, and with 400 every mistake of the body."""

    error: str
    code: str
    issues: tuple[PlusIssue, ...] | UnsetType = UNSET


# -- gptimage2.ai ------------------------------------------------------------------------------------


class AiGenerateRequest(Struct, frozen=True, rename="camel"):
    """What is asked of a job. Without a mode it is image-to-image where there are `imageUrls`."""

    prompt: str
    mode: Literal["text-to-image", "image-to-image"] | UnsetType = UNSET
    ratio: Annotated[str, Meta(description="Such as 1:1, 3:2, 2:3, 16:9 or 9:16.")] | UnsetType = UNSET
    count: Annotated[int, Meta(description="Cut to 1 to 4.")] = 1
    image_urls: Annotated[tuple[Url, ...], Meta(max_length=4)] | UnsetType = UNSET
    style: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    lighting: Note | UnsetType = UNSET
    camera: Note | UnsetType = UNSET
    negative: Note | UnsetType = UNSET


class AiResult(Struct, frozen=True, rename="camel"):
    """One picture."""

    image_url: Url
    seed: str
    final_prompt: str


class AiBalance(Struct, frozen=True, rename="camel"):
    """What the caller may still spend."""

    paid_credits: int
    free_images_remaining: int
    total_images: int
    free_images_per_day: int


class AiJob(Struct, frozen=True, rename="camel"):
    """A job: its `results` once it succeeded, its `error`, a code, once it failed."""

    job_id: str
    status: Literal["pending", "running", "succeeded", "failed"]
    results: tuple[AiResult, ...] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    balance: AiBalance | UnsetType = UNSET


class AiError(Struct, frozen=True):
    """What went wrong: one code, and a sentence."""

    error: str
    message: str
    balance: AiBalance | UnsetType = UNSET


# -- OpenAI ------------------------------------------------------------------------------------------


class OpenAIGenerateRequest(Struct, frozen=True):
    """What is asked of pictures. `url` answers with links in place of the pictures themselves."""

    prompt: Annotated[str, Meta(min_length=1, max_length=32_000)]
    model: Annotated[str, Meta(max_length=64)] | None = None
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: Annotated[str, Meta(description="auto, or WIDTHxHEIGHT.")] | None = None
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = None
    background: Background | None = None
    output_format: Format | None = None
    response_format: Literal["b64_json", "url"] | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None


class OpenAIImageRef(Struct, frozen=True):
    """An image by its address, or in a data URL."""

    image_url: str


class OpenAIEditRequest(OpenAIGenerateRequest, frozen=True, kw_only=True):
    """What is asked of an edit, in JSON. A mask is transparent where the picture is to change."""

    images: Annotated[tuple[OpenAIImageRef, ...], Meta(min_length=1, max_length=16)]
    mask: OpenAIImageRef | None = None


class OpenAIEditForm(OpenAIGenerateRequest, frozen=True, kw_only=True):
    """What is asked of an edit, as a form with files. `image` may stand several times, or as `image[]`."""

    image: Annotated[tuple[File, ...], Meta(min_length=1, max_length=16)]
    mask: File | UnsetType = UNSET


class OpenAIImage(Struct, frozen=True):
    """One picture: in base64, or by link."""

    b64_json: str | UnsetType = UNSET
    url: Url | UnsetType = UNSET


class OpenAIUsage(Struct, frozen=True):
    """Tokens, of which there are none: what is charged here are credits."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, int]


class OpenAIImages(Struct, frozen=True):
    """The pictures that were made."""

    created: int
    background: str
    output_format: str
    quality: str
    size: str
    data: tuple[OpenAIImage, ...]
    usage: OpenAIUsage


class OpenAIErrorBody(Struct, frozen=True):
    """What went wrong, and at which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Struct, frozen=True):
    """An error as OpenAI's SDKs read one."""

    error: OpenAIErrorBody


# -- the calls ---------------------------------------------------------------------------------------

_ANY: Final[Mapping[int, str]] = {
    401: "No key, or none that is good",
    403: "The plan or the key does not include this",
    429: "A limit is reached: `Retry-After` says until when",
    500: "A mistake of ours",
    503: "Unavailable for the moment",
}
_NAMED: Final[Mapping[int, str]] = {404: "There is none of this name"}
_BODY: Final[Mapping[int, str]] = {
    400: "The body has mistakes, or asks for what cannot be had",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not of a type that is read here",
}
_KEYED: Final[Mapping[int, str]] = {409: "The Idempotency-Key was used with another body"}
_MADE: Final[Mapping[int, str]] = {**_KEYED, 410: "What the Idempotency-Key made was deleted"}
_PAID: Final[Mapping[int, str]] = {
    402: "Too few credits, or the month's cap",
    422: "The prompt is blocked",
}
_WAITED: Final[Mapping[int, str]] = {
    404: "The model does not exist",
    502: "Nothing was made and nothing is charged",
    504: "Still being made: the same request again finds it",
}


class Told(NamedTuple):
    """What a call of another API takes and answers, its errors by status. `keyed`: it heeds a key."""

    tag: str
    answers: Mapping[int, type | None]
    error: type
    refusals: Mapping[int, str]
    bodies: Mapping[str, type] = {}
    keyed: bool = False


_JSON: Final = "application/json"
_SUBMIT: Final = {**_ANY, **_BODY, **_MADE, **_PAID}
_WRITE: Final = {**_ANY, **_BODY}
_FIND: Final = {**_ANY, **_NAMED}
_MAKE: Final = {**_ANY, **_BODY, **_MADE, **_WAITED}

TOLD: Final[Mapping[str, Told]] = {
    "createPlusGeneration": Told(
        PLUS, {202: PlusAccepted}, PlusError, _SUBMIT, {_JSON: PlusGenerateRequest}, keyed=True
    ),
    "createPlusUpload": Told(
        PLUS, {200: PlusUpload}, PlusError, {**_WRITE, **_KEYED}, {_JSON: PlusUploadRequest}, keyed=True
    ),
    "getPlusGeneration": Told(PLUS, {200: PlusGeneration}, PlusError, _FIND),
    "createPlusWebhook": Told(
        PLUS,
        {201: PlusWebhookSecret},
        PlusError,
        {**_WRITE, 409: "There are too many"},
        {_JSON: PlusWebhookRequest},
    ),
    "listPlusWebhooks": Told(PLUS, {200: PlusWebhookList}, PlusError, _ANY),
    "updatePlusWebhook": Told(
        PLUS, {200: PlusWebhook}, PlusError, {**_WRITE, **_NAMED}, {_JSON: PlusWebhookPatch}
    ),
    "deletePlusWebhook": Told(PLUS, {204: None}, PlusError, _FIND),
    "rotatePlusWebhook": Told(PLUS, {200: PlusWebhookSecret}, PlusError, _FIND),
    "createAiJob": Told(AI, {202: AiJob}, AiError, _SUBMIT, {_JSON: AiGenerateRequest}, keyed=True),
    "getAiJob": Told(AI, {200: AiJob, 202: AiJob}, AiError, _FIND),
    "createOpenAIImages": Told(
        OPENAI, {200: OpenAIImages}, OpenAIError, _MAKE, {_JSON: OpenAIGenerateRequest}, keyed=True
    ),
    "editOpenAIImages": Told(
        OPENAI,
        {200: OpenAIImages},
        OpenAIError,
        _MAKE,
        {_JSON: OpenAIEditRequest, "multipart/form-data": OpenAIEditForm},
        keyed=True,
    ),
}


def structs() -> tuple[Any, ...]:
    """Return every struct that a document of these calls refers to."""
    rows = TOLD.values()
    found = [kind for row in rows for kind in (*row.answers.values(), *row.bodies.values(), row.error)]
    return tuple(dict.fromkeys(kind for kind in found if kind is not None))
