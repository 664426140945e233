"""What is stored stands for ever: each form is compared, byte for byte, with a file in `golden/`.

Ledger, trail, keys and ids of years ago must still be read, matched and verified by whatever comes. A
test here that fails is no reason to change its file: give the new form a format number beside the old.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gateway import audit, wire
from gateway.app import chain_of
from gateway.blobs import folder, is_key
from gateway.ids import uuid7
from gateway.policy import read_bundle
from gateway.providers import KINDS
from gateway.secrets import Keyring, Secret
from gateway.store.backend import Anchor, TenantDoc, anchored, encode_doc
from gateway.store.contract import LedgerRow, Shut
from gateway.store.format import Forms
from policies.bundle import Bundle
from policies.model import (
    Account,
    Attempt,
    Entry,
    Hold,
    InputRef,
    Job,
    JobError,
    JobRequest,
    JobState,
    Money,
    Output,
    Role,
    ServiceKey,
    Shaping,
    Shortfall,
    Step,
    Upload,
    Window,
)
from policies.webhooks import Delivery, Endpoint, Try

FORMS: Final = Forms()
GOLDEN: Final = Path(__file__).parent / "golden"
FOREVER: Final = (
    "{} no longer has the form in which it has been stored. These forms stand for ever: what is written "
    "could not be read, matched or verified. Undo the change, or give the new form a number of its own."
)
SECRET: Final = Secret("a secret of these tests, long enough to sign with")
AT: Final = 1_793_534_400_000
UUID: Final = "019a3f6d-c400-7001-8203-040506070809"

WHOLE_REQUEST: Final = JobRequest(
    prompt="a lighthouse at dusk, «été»", operation="edit", size="1024x1024", aspect_ratio="1:1",
    quality="high", count=4, inputs=(InputRef(upload="u1"), InputRef(url="https://example.com/a.png")),
    mask=InputRef(upload="u2"), style="editorial-photo", lighting="soft", camera="35mm", negative="text",
    seed=7, format="webp", background="opaque", model="standard", metadata={"b": "2", "a": "1"},
    on_unsupported="drop",
)  # fmt: skip
PICTURE: Final = Output(
    0, f"0123456789abcdef/{UUID}/0.png", "image/png", 1024, 768, 99, "ab" * 32, "7", {"thumb": "k"}
)
WHOLE_JOB: Final = Job(
    id=UUID, tenant="acme", subject="ann", request=WHOLE_REQUEST, version=3, state=JobState.SUCCEEDED,
    subject_ref="r" * 24, model="standard", size="1024x768", aspect_ratio="4:3",
    shaping=Shaping("a lighthouse", "editorial-photo", "like a report", "soft", "35mm", "text"),
    final_prompt="a lighthouse, soft", show_final_prompt=False, adjustments=("size",), price_each=10,
    hold=Hold(40, "2026-11"), charged=10, weight=4, slots=(2, 2), route=(Step("main", "openai", "m"),),
    attempts=(
        Attempt(0, 1, 0, AT, open=False, sent_key="sk", upstream_id="up_1", next=b"\x00\xff",
                outputs=(PICTURE,), code="upstream_failed", stage="output", cost=Money(5), flag="f"),
    ),
    outputs=(PICTURE,), shortfall=(Shortfall(1, "upstream_failed", 10),),
    error=JobError("upstream_failed", "It failed.", "upstream", True, "rule"),
    cancel_requested_at=AT, created_at=AT, started_at=AT + 1, ended_at=AT + 2,
    policy_version="p1_0123456789abcdef", provider="main", provider_cost=Money(7, "EUR"),
    operator_flag="paid_and_unusable",
)  # fmt: skip
WHOLE_ENDPOINT: Final = Endpoint(
    UUID, "acme", "ann", "https://example.com/hook", "sealed", "gptimage2_plus", ("generation.failed",),
    "tenant", "ours", "older", AT, 3, "failing", AT,
)  # fmt: skip
WHOLE_DELIVERY: Final = Delivery(
    UUID, "acme", "e1", "job.failed", "j1", "failed", (Try(AT, 500, None, 7), Try(AT, None, "timeout")),
    AT, AT,
)  # fmt: skip
WHOLE_KEY: Final = ServiceKey(
    UUID, "acme", "ann", "ab" * 32, "sl_…ab", "ours", (Role.USER, Role.TENANT_ADMIN), "pro",
    ("jobs:write",), "boss", AT, AT + 1, AT + 2,
)  # fmt: skip
WHOLE_UPLOAD: Final = Upload(UUID, "acme", "ann", "image/png", 99, "a.png", AT, AT + 1)
RECORDS: Final = (
    audit.Record(action="job.submit", at=AT, ref="r1", job=UUID, model="standard", credits=10,
                 prompt="ab" * 32, policy="p1_0123456789abcdef", role="user"),
    audit.Record(action="job.submit", decision="deny", at=AT, ref="r2", code="prompt_blocked",
                 rule="words.é", count=3),
)  # fmt: skip


def trail() -> dict[str, Any]:
    """Return the trail's forms: bytes, links from the genesis on, an anchor's seal, derived keys."""
    chain = audit.Chain({"k1": b"\x01" * 32})
    rows = audit.encode(RECORDS)
    first = chain.link(audit.genesis("acme"), rows)
    return {
        "rows": rows.decode(),
        "genesis": audit.genesis("acme"),
        "links": [first, chain.link(first, b"[]")],
        "anchor": chain.link(first, anchored(7, AT)),
        "derived": chain_of((SECRET,)).link("", b"[]"),
    }


def requests() -> list[list[str]]:
    """Return the fingerprints of an empty, a common and a whole request."""
    asked = [JobRequest(prompt="p"), JobRequest(prompt="p", size="1024x1024", model="fast"), WHOLE_REQUEST]
    return [[msgspec.json.encode(each, order="sorted").decode(), each.fingerprint()] for each in asked]


def documents() -> dict[str, Any]:
    """Return the stored forms of jobs, tenants, users, next requests and what lies beside the jobs."""
    return {name: msgspec.json.decode(text) for name, text in texts().items()}


def texts() -> dict[str, str]:
    """Return the documents as they are written; the next request, which is binary, as hex in JSON."""
    account = Account(100, 30, 20, 2, "2026-11", 50, {"submit": Window(AT, 3)})
    doc = TenantDoc(account, "k1.ab", AT, 1, Anchor(3, AT, "k1.aa", "k1.bb"), hooks=2)
    request = wire.WireRequest("POST", "https://api", (("a", "b"),), b"\x00", "main", 9.0, 1000)
    return {
        "job": FORMS.written(WHOLE_JOB)[1],
        "small job": FORMS.written(Job(UUID, "acme", "ann", JobRequest(prompt="p")))[1],
        "tenant": msgspec.json.encode(doc).decode(),
        "closed tenant": msgspec.json.encode(
            TenantDoc(shut=Shut(AT, "p", 9, "k1.ab", 3, "k1.aa", UUID))
        ).decode(),
        "new tenant": msgspec.json.encode(TenantDoc()).decode(),
        "user": msgspec.json.encode(Account(granted=None)).decode(),
        "next request": f'"{wire.dump(request).hex()}"',
        "endpoint": encode_doc(WHOLE_ENDPOINT),
        "delivery": encode_doc(WHOLE_DELIVERY),
        "service key": encode_doc(WHOLE_KEY),
        "upload": encode_doc(WHOLE_UPLOAD),
    }


def defaults() -> dict[str, Any]:
    """Return what a document means by a field it does not have."""
    small = FORMS.job(texts()["small job"])
    beside = (
        Endpoint(UUID, "acme", "ann", "https://example.com/hook", "sealed"),
        Delivery(UUID, "acme", "e1", "job.failed"),
        ServiceKey(UUID, "acme", "ann", "ab" * 32, "sl_…ab"),
        Upload(UUID, "acme", "ann", "image/png", 99),
    )
    kept = (small, TenantDoc(), Account(granted=None), audit.Record(action="a"), *beside)
    whole = {type(each).__name__: _whole(each) for each in kept}
    return msgspec.json.decode(msgspec.json.encode(whole), type=dict[str, Any])


def _whole(value: Any) -> dict[str, Any]:
    """Return all fields of a struct, those that are not written too."""
    return {
        name: _whole(each) if isinstance(each, Account) else msgspec.to_builtins(each)
        for name in value.__struct_fields__
        for each in [getattr(value, name)]
    }


def grown(now: Any, old: Any) -> bool:
    """Say whether a document has all that it had, as it was; it may have more."""
    if isinstance(now, dict) and isinstance(old, dict):
        return all(name in now and grown(now[name], each) for name, each in old.items())
    if isinstance(now, list) and isinstance(old, list):
        return len(now) == len(old) and all(map(grown, now, old))
    return bool(now == old)


def names() -> dict[str, str]:
    """Return an id, and where a job's blobs lie."""
    return {
        "id": uuid7(AT, bytes(range(10))),
        "blobs": folder(Keyring([SECRET]), "acme", UUID),
        "audit key": Keyring([SECRET]).key_id("audit"),
    }


def entry() -> dict[str, list[str]]:
    """Return what an entry of the ledger is made of."""
    return {each.__name__: list(each.__struct_fields__) for each in (LedgerRow, Entry, Money)}


@pytest.mark.parametrize("form", [documents, defaults])
def test_documents_only_grow(form: Any) -> None:
    """A document keeps each field it had, under its name, and what a missing one means; others may come."""
    golden = GOLDEN / f"{form.__name__}.json"
    assert grown(form(), msgspec.json.decode(golden.read_bytes())), FOREVER.format(golden.stem)
    assert not grown({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})


@pytest.mark.parametrize("form", [trail, requests, names, entry])
def test_stored_form_stands(form: Any) -> None:
    """Each stored form is what it was when it was first written."""
    golden = GOLDEN / f"{form.__name__ if form is not trail else 'audit'}.json"
    assert form() == msgspec.json.decode(golden.read_bytes()), FOREVER.format(golden.stem)


def test_tables_only_grow() -> None:
    """The tables have the columns with which they were first made, in their order and of their types."""
    store = Path(__file__).parents[2] / "gateway" / "store"
    text = "".join((store / name).read_text("utf-8") for name in ("schema.sql", "additions.sql"))
    bare = re.sub(r"--[^\n]*", "", text)
    tables = [" ".join(text.split()) for text in re.findall(r"CREATE TABLE.*?;", bare, re.DOTALL)]
    assert tables == (GOLDEN / "tables.sql").read_text("utf-8").splitlines(), FOREVER.format("the schema")


def test_stored_job_reads_back() -> None:
    """What was stored as a job is that job again, and what an older form lacks has its default."""
    stored = msgspec.json.decode((GOLDEN / "documents.json").read_bytes())
    assert FORMS.job(msgspec.json.encode(stored["job"])) == WHOLE_JOB
    assert FORMS.job(msgspec.json.encode(stored["small job"])).f == 1, FOREVER.format("a format number")
    assert wire.load(bytes.fromhex(stored["next request"])).credential == "main"


def test_names_have_their_form() -> None:
    """Ids are UUIDs of version 7, policy versions name their hash, blob keys hide their tenant."""
    form = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(form, uuid7(AT, b"\xff" * 10)), FOREVER.format("an id")
    assert uuid7(AT, b"\xff" * 10) < uuid7(AT + 1, bytes(10))
    bundle = read_bundle(None, {}, KINDS)
    assert isinstance(bundle, Bundle)
    assert re.fullmatch("p1_[0-9a-f]{16}", bundle.version()), FOREVER.format("a policy's version")
    assert is_key(f"{names()['blobs']}/0.png"), FOREVER.format("a blob's key")
