"""Every API under bodies, forms and headers that no polite client sends, and receivers that are no better.

Always an error in the words of the API it was sent to, with an id, and with what is left of the limits where
the caller is known; never a 5xx, and no bug in the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.strict import MOST_PARTS
from policies.bundle import Bundle
from tests.fakes import openai
from tests.fakes.pictures import bomb, holed, png
from tests.fakes.raw_server import Act, RawServer, Talk
from tests.journeys.conftest import entry
from tests.journeys.stage import HOUR, SANDBOX, Plot, Stage
from tests.journeys.visitor import Reply, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
FIELDS: Final[Mapping[str, str]] = {
    "/v1/jobs": "prompt operation size aspect_ratio quality count inputs mask style seed model metadata",
    "/v1/quote": "prompt operation size aspect_ratio quality inputs mask lighting format on_unsupported",
    "/v1/uploads": "filename content_type size",
    "/v1/keys": "label subject roles plan scopes prefix expires_in_days",
    "/v1/webhooks": "url events scope label",
    "/api/v1/generate": "prompt type size quality n inputImageKeys",
    "/api/v1/upload": "filename contentType size",
    "/api/account/webhooks": "url events scope label",
    "/api/generate": "prompt mode ratio count imageUrls style lighting camera negative",
    GENERATIONS: "prompt model n size quality background output_format response_format user stream",
    EDITS: "prompt model n size quality images mask user partial_images",
}
"""The calls that read a body, and what each knows in it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One house under all attacks of this file. Nobody waits for a job longer than a moment."""
    async with openai.fake() as upstream:
        plot = Plot(providers=entry(upstream), server={"sync_wait_seconds": 5})
        async with Stage(tmp_path_factory.mktemp("calls"), plot).open() as stage:
            yield stage
        assert stage.bugs == []


@pytest_asyncio.fixture(loop_scope="module")
async def ann(house: Stage) -> AsyncIterator[Visitor]:
    """Ann, an hour later than in the test before."""
    house.clock.move(HOUR)
    yield house.visit(plan="max")
    assert house.bugs == []


def spoken(path: str, reply: Reply) -> str:
    """Return an error's code, once the error was found to be of the API it was sent to."""
    assert 400 <= reply.status < 500, reply
    body, kind = reply.json, reply.headers["content-type"]
    if path.startswith("/v1/images"):
        assert (kind, sorted(body)) == ("application/json", ["error"]), reply
        assert sorted(body["error"]) == ["code", "message", "param", "type"]
        assert reply.headers["x-should-retry"] in ("true", "false")
        code = body["error"]["code"]
    elif path.startswith("/api/"):
        plus = "code" in body
        assert (kind, isinstance(body["error"], str), plus) == (
            "application/json",
            True,
            path != "/api/generate",
        )
        assert plus or isinstance(body["message"], str)
        code = body["code"] if plus else body["error"]
    else:
        assert (kind, body["request_id"]) == ("application/problem+json", reply.headers["x-request-id"])
        code = body["code"]
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"])
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= reply.headers.keys()
    return str(code)


async def sent(who: Visitor, path: str, kind: str, body: bytes, **headers: str) -> Reply:
    """POST bytes as a type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    length = {"Content-Type": kind, "Content-Length": str(len(body))}
    return await who.ask("POST", path, {**length, **named}, body)


# -- JSON ------------------------------------------------------------------------------------------------

WORDS: Final = st.sampled_from((
    "", " ", "\0", "a", "a\r\nX: y", "\u202e", "e\u0301", "1024x1024", "1024x1024\n", "99999x1", "16:9",
    "high", "edit", "text2img", "image-to-image", "image/png", "standard", "quick", "fine", "dall-e-3",
    "https://[::1]/", "https://a:b@c.example/", "http://127.0.0.1:9/", "data:image/png;base64,AAAA", "data:",
    "tenant", "platform_admin", "tenant_admin", "max", "job.succeeded", "generation.failed", "${env:HOME}",
    "up_01KGQX5V0M0000000000000000", "x" * 300, "x" * 5000, "x" * 40_000,
))  # fmt: skip
NUMBERS: Final = st.sampled_from([0, 1, -1, 4, 17, 1.5, -0.0, 1e300, 2**53, 2**64, -(10**30)])
VALUES: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=20),
    lambda below: (
        st.lists(below, max_size=18) | st.dictionaries(WORDS | st.just("upload"), below, max_size=3)
    ),
    max_leaves=20,
)
GOOD: Final = {"prompt": "a cat", "filename": "a", "content_type": "image/png", "contentType": "image/png"}


@pytest.mark.parametrize("path", FIELDS)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_any_values_are_told_of(house: Stage, path: str, data: st.DataObject) -> None:
    """Whatever values stand in a body's fields, it is taken, or refused in the words of its API."""
    house.clock.move(HOUR)
    names = FIELDS[path].split()
    odd = data.draw(
        st.dictionaries(st.sampled_from([*names, *names, "__proto__", "prompt "]), VALUES, max_size=3)
    )
    body = {name: value for name, value in GOOD.items() if name in names} | odd
    text = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    reply = await sent(house.visit(plan="max"), path, "application/json", text)
    if reply.status >= 300:
        spoken(path, reply)


TEXTS: Final = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "half": b'{"prompt": "a"',
    "a mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"prompt": "\xff"}',
    "half a pair": b'{"prompt": "\\ud800"}',
    "a zero": b'{"prompt": "a\0b"}',
    "twice": b'{"prompt": "a", "prompt": "b"}',
    "NaN": b'{"prompt": "a", "n": NaN}',
    "too many digits": b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}",
    "beyond floats": b'{"prompt": "a", "n": 1e999}',
    "deep": b'{"a":' * 5000,
    "many parts": b'{"prompt": "a", "x": [' + b"[]," * MOST_PARTS + b"0]}",
}


@pytest.mark.parametrize("path", FIELDS)
async def test_crooked_texts_are_refused(ann: Visitor, path: str) -> None:
    """What is no JSON, or JSON that two readers read differently, is 400 in the words of its API."""
    for name, text in TEXTS.items():
        reply = await sent(ann, path, "application/json", text)
        assert (reply.status, name) == (400, name)
        spoken(path, reply)


@pytest.mark.parametrize(
    "kind",
    ["", ";", "text/plain", "application/json; charset=utf-16", "application/json; a=b", "multipart/mixed"],
)
@pytest.mark.parametrize("path", FIELDS)
async def test_other_types_are_415(ann: Visitor, path: str, kind: str) -> None:
    """A body of another type than the call reads is 415 in the words of its API."""
    reply = await sent(ann, path, kind, b'{"prompt": "a"}')
    assert reply.status == 415
    spoken(path, reply)


# -- headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["1", "01", "9" * 5000])
async def test_any_count_is_a_repeat(ann: Visitor, count: str) -> None:
    """However an SDK writes which repeat a request is, it finds the job its first one made."""
    body = {"prompt": f"repeat {len(count)} {count[:2]}", "response_format": "url"}
    first = await ann.post(GENERATIONS, body)
    again = await ann.post(GENERATIONS, body, x_stainless_retry_count=count)
    assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json["data"] == first.json["data"]


@pytest.mark.parametrize("key", ["", '""', '"a', "a b", "é", "k" * 256, '"a";p=1'])
@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/uploads", "/api/v1/generate", "/api/v1/upload", "/api/generate", GENERATIONS]
)
async def test_crooked_keys_are_refused(ann: Visitor, path: str, key: str) -> None:
    """A key that is none makes nothing, in no API: the caller relies on it."""
    body = {**GOOD, "size": 100} if "upload" in path else {"prompt": "a"}
    known = {name: value for name, value in body.items() if name in FIELDS[path].split()}
    reply = await ann.post(path, known, Idempotency_Key=key)
    assert reply.status == 400
    spoken(path, reply)


async def test_dead_store_refuses_in_words(tmp_path: Path) -> None:
    """A balance that cannot be read just then is left out of the refusal it would stand in."""

    def poor(bundle: Bundle) -> Bundle:
        pro = replace(bundle.plans["pro"], credits_per_month=5)
        return replace(bundle, plans={**bundle.plans, "pro": pro})

    balances = []
    async with Stage(tmp_path, Plot(providers=SANDBOX, bundle=poor)).open() as stage:
        for stage.sick.verb in ("", "usage"):
            reply = await stage.visit().post("/api/generate", {"prompt": "a"})
            assert (reply.status, reply.json["error"]) == (402, "insufficient_credits")
            balances.append("balance" in reply.json)
        assert (balances, stage.bugs) == ([True, False], [])


# -- forms -----------------------------------------------------------------------------------------------

FORM: Final = "multipart/form-data; boundary=BB"
IMAGE: Final = png(64, 64)


def part(name: str | None, data: bytes, *, file: str | None = "a.png", more: bytes = b"") -> bytes:
    """Return one part of a form."""
    named = b"" if name is None else b'; name="%s"' % name.encode()
    filed = b"" if file is None else b'; filename="%s"' % file.encode()
    return b"--BB\r\nContent-Disposition: form-data%s%s\r\n%s\r\n%s\r\n" % (named, filed, more, data)


PROMPT: Final = part("prompt", b"make it blue", file=None)
PICTURE: Final = part("image", IMAGE)
END: Final = b"--BB--\r\n"
FORMS: Final[Mapping[str, tuple[str, bytes, int]]] = {
    "plain": (FORM, PROMPT + PICTURE + END, 200),
    "quoted boundary": ('Multipart/Form-Data; Boundary="BB"', PROMPT + PICTURE + END, 200),
    "no file name": (FORM, PROMPT + part("image", IMAGE, file=None) + END, 200),
    "a way out": (FORM, PROMPT + part("image", IMAGE, file="../../etc/passwd%0D%0AX: y") + END, 200),
    "another charset": (
        FORM + "; charset=utf-16",
        PROMPT + part("_charset_", b"utf-16") + PICTURE + END,
        200,
    ),
    "no boundary": ("multipart/form-data", PROMPT + PICTURE + END, 400),
    "another boundary": ("multipart/form-data; boundary=CC", PROMPT + PICTURE + END, 400),
    "endless boundary": (f"multipart/form-data; boundary={'B' * 3000}", PROMPT + PICTURE + END, 400),
    "no end": (FORM, PROMPT + PICTURE, 400),
    "half a part": (FORM, (PROMPT + PICTURE)[:-90], 400),
    "nothing": (FORM, b"", 400),
    "a thousand parts": (FORM, PROMPT + part("a", b"") * 1000 + PICTURE + END, 400),
    "too many images": (FORM, PROMPT + PICTURE * 17 + END, 400),
    "a form inside": (FORM, PROMPT + part("image", PICTURE + END) + END, 400),
    "boundary in an image": (FORM, PROMPT + part("image", IMAGE[:30] + b"\r\n--BB\r\n" + IMAGE) + END, 400),
    "bare line feeds": (FORM, (PROMPT + PICTURE + END).replace(b"\r\n", b"\n"), 400),
    "no name": (FORM, PROMPT + part(None, IMAGE) + PICTURE + END, 400),
    "a lying length": (FORM, PROMPT + part("image", IMAGE, more=b"Content-Length: 3\r\n") + END, 400),
    "twenty headers": (FORM, PROMPT + part("image", IMAGE, more=b"X: y\r\n" * 20) + END, 400),
    "a bomb": (FORM, PROMPT + part("image", bomb()) + END, 400),
    "a bomb as mask": (FORM, PROMPT + PICTURE + part("mask", bomb()) + END, 400),
    "two masks": (FORM, PROMPT + PICTURE + part("mask", holed(64, 64)) * 2 + END, 400),
    "text as image": (FORM, PROMPT + part("image", b"<svg/>", file="a.txt") + END, 400),
    "a tail": (FORM, PROMPT + part("image", IMAGE + b"<script>") + END, 400),
    "eleven megabytes": (FORM, PROMPT + part("image", IMAGE + b"\0" * 11_000_000) + END, 400),
    "prompt of bytes": (FORM, part("prompt", b"\xff") + PICTURE + END, 400),
    "count of digits": (FORM, PROMPT + PICTURE + part("n", b"9" * 6000, file=None) + END, 400),
}


@pytest.mark.parametrize("name", FORMS)
async def test_crooked_forms_are_refused(house: Stage, ann: Visitor, name: str) -> None:
    """A form is read as it is written or refused whole, and nothing of what is refused is made."""
    kind, body, status = FORMS[name]
    before = (await ann.get("/v1/jobs?limit=1")).json["data"]
    reply = await sent(ann, EDITS, kind, body)
    assert reply.status == status, reply
    if status >= 300:
        spoken(EDITS, reply)
        assert (await ann.get("/v1/jobs?limit=1")).json["data"] == before


# -- receivers -------------------------------------------------------------------------------------------

EMPTY: Final = b"Content-Length: 0\r\n\r\n"
ANSWERS: Final[Mapping[str, tuple[bytes, str]]] = {
    "a huge header": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2_000_000 + b"\r\n" + EMPTY, "pending"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + EMPTY, "pending"),
    "a huge body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000, "delivered"),
    "a wait of digits": (b"HTTP/1.1 503 No\r\nRetry-After: " + b"9" * 6000 + b"\r\n" + EMPTY, "pending"),
    "a wait for ever": (
        b"HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 99999 23:59:59 GMT\r\n" + EMPTY,
        "pending",
    ),
    "a way inside": (b"HTTP/1.1 307 No\r\nLocation: http://169.254.169.254/\r\n" + EMPTY, "pending"),
    "a huge chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", "pending"),
    "another protocol": (b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "pending"),
    "no such status": (b"HTTP/1.1 9999 No\r\n" + EMPTY, "pending"),
    "noise": (b"\0\1\2", "pending"),
}


def answers(data: bytes) -> Act:
    """Answer with bytes as they are, and leave."""

    async def act(talk: Talk) -> None:
        await talk.request()
        await talk.write(data)
        talk.writer.close()

    return act


@pytest.mark.parametrize("name", ANSWERS)
async def test_hostile_receivers_are_borne(house: Stage, ann: Visitor, name: str) -> None:
    """What a receiver answers is a success by its status, or a failure to be tried again."""
    data, state = ANSWERS[name]
    async with RawServer(answers(data)) as receiver:
        hook = (await ann.post("/v1/webhooks", {"url": f"http://127.0.0.1:{receiver.port}/"})).json["id"]
        await ann.post(f"/v1/webhooks/{hook}/test")
        told: Any = {"tries": ()}
        while not told["tries"]:
            (told,) = (await ann.get(f"/v1/webhooks/{hook}/deliveries")).json["data"]
            house.clock.move(50)
        assert told["state"] == state
        assert len(receiver.requests) == 1
    assert (await ann.ask("DELETE", f"/v1/webhooks/{hook}")).status == 204


async def test_bodies_have_room_or_wait(ann: Visitor) -> None:
    """A caller whose edits are being read in a hundred megabytes is told to send the next one soon."""
    head = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(64 * 2**20)}
    begun = ann.request("POST", "/v1/images/edits", head)
    async with await ann.dial() as one, await ann.dial() as two, await ann.dial() as third:
        for line in (one, two):
            line.write(begun)
            await ann.get("/livez")
        third.write(begun)
        refused = await third.whole()
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert (refused.json["error"]["code"], refused.headers["x-should-retry"]) == (
        "rate_limit_exceeded",
        "true",
    )
