"""Uploads: announced, put and forgotten as they should be; links by which bytes come, and their misuse."""

from __future__ import annotations

import hashlib

import pytest

from gateway.errors import Problem
from policies import ids
from policies.model import Principal
from tests.fakes.pictures import picture, png
from tests.journeys.bringing import announced, brought, edit, files, kept, put, row, ticket
from tests.journeys.conftest import Opening
from tests.journeys.stage import HOUR, MINUTE, SANDBOX, Stage
from tests.journeys.visitor import parsed

GOOD = png(40, 30)
IDLE = {"providers": SANDBOX, "concurrency": 0}


@pytest.fixture
async def here(opening: Opening) -> Stage:
    """A house that takes bytes itself, and makes no pictures."""
    return await opening(**IDLE)


# -- announcing ----------------------------------------------------------------------------------------


async def test_ticket_says_how_to_put(here: Stage) -> None:
    """A ticket names the method, headers and end of its address: five minutes, to the second."""
    here.clock.hold()
    ann = here.visit()
    shown = await ticket(ann, "webp", 7)
    assert (shown["method"], shown["headers"]) == ("PUT", {"Content-Type": "image/webp"})
    assert shown["url"].startswith(f"{here.url}/uploads/")
    assert f"?exp={here.clock() // 1000 + 301}&" in shown["url"]
    assert (await here.house.store.usage("acme", "ann")).user.windows["write"].count == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"size": 0}, "/size"),
        ({"size": 10_485_761}, "/size"),
        ({"size": "10"}, "/size"),
        ({"size": None}, "/size"),
        ({"content_type": "image/gif"}, "/content_type"),
        ({"content_type": "image/svg+xml"}, "/content_type"),
        ({"content_type": "image/png; a=b"}, "/content_type"),
        ({"content_type": "text/html"}, "/content_type"),
        ({"filename": ""}, "/filename"),
        ({"filename": "a" * 201}, "/filename"),
        ({"contentType": "image/png"}, "/contentType"),
    ],
)
async def test_bad_announcement_is_placed(here: Stage, change: dict[str, object], pointer: str) -> None:
    """What may not come is refused when it is announced, with the place of the mistake."""
    reply = await here.visit().post("/v1/uploads", announced("png", 9) | change)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert pointer in [flaw["pointer"] for flaw in reply.json["errors"]]


async def test_largest_image_may_come(here: Stage) -> None:
    """Ten mebibytes are let in, byte for byte."""
    data = bytes(10_485_760)
    place = await ticket(here.visit(), "png", len(data))
    assert (await put(place["url"], data, place["headers"])).status == 200
    found = await row(here, place["id"])
    assert found is not None
    assert await here.house.blobs.read(here.house.uploads.key(found)) == data


async def test_announcing_again_is_a_replay(here: Stage) -> None:
    """The same key and announcement are the same upload, at a fresh address; another one is refused."""
    ann, body = here.visit(), announced("png", len(GOOD))
    first = await ann.post("/v1/uploads", body, Idempotency_Key="k")
    here.clock.move(2 * MINUTE)
    again = await ann.post("/v1/uploads", body, Idempotency_Key="k")
    assert (first.status, again.status) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json["id"] == first.json["id"]
    assert again.json["url"] != first.json["url"]
    other = await ann.post("/v1/uploads", body | {"size": 9}, Idempotency_Key="k")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert (await ann.submit(key="k")).code == "idempotency_key_reused"
    here.clock.move(24 * HOUR)
    late = await here.visit().post("/v1/uploads", body, Idempotency_Key="k")
    assert (late.status, late.code) == (410, "upload_expired")


# -- putting -------------------------------------------------------------------------------------------


async def test_first_whole_put_stays(here: Stage) -> None:
    """What arrives whole first is kept and named by its hash; a second is refused, and changes nothing."""
    place = await ticket(here.visit(), "png", len(GOOD))
    first = await put(place["url"], GOOD, place["headers"])
    assert first.headers["etag"] == f'"{hashlib.sha256(GOOD).hexdigest()}"'
    second = await put(place["url"], GOOD[::-1])
    assert (first.status, second.status, second.code) == (200, 409, "upload_complete")
    found = await row(here, place["id"])
    assert found is not None
    assert await here.house.blobs.read(here.house.uploads.key(found)) == GOOD


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 200, ""),
        ({"Content-Type": "image/png"}, 200, ""),
        ({"Content-Type": "IMAGE/PNG"}, 200, ""),
        ({"Content-Type": "image/jpeg"}, 400, "invalid_request"),
        ({"Content-Type": "image/png; charset=x"}, 400, "invalid_request"),
        ({"Content-Type": "text/html"}, 400, "invalid_request"),
        ({"Content-Length": "{less}"}, 400, "invalid_request"),
        ({"Content-Length": "{more}"}, 400, "invalid_request"),
        ({"Content-Length": "0"}, 400, "invalid_request"),
        ({"Content-Length": "99999999"}, 413, "payload_too_large"),
        ({"Content-Length": "", "Transfer-Encoding": "chunked"}, 400, "invalid_request"),
    ],
)
async def test_put_says_what_was_announced(
    here: Stage, headers: dict[str, str], status: int, code: str
) -> None:
    """Length and type of a PUT are those of the announcement; the type may be left out."""
    place = await ticket(here.visit(), "png", len(GOOD))
    sizes = {"less": len(GOOD) - 1, "more": len(GOOD) + 1}
    told = {name: value.format(**sizes) for name, value in headers.items()}
    reply = await put(place["url"], GOOD, told)
    assert (reply.status, reply.code) == (status, code)
    assert await files(here, place["id"]) == (["png"] if status == 200 else [])


async def test_altered_address_lets_nothing_in(here: Stage) -> None:
    """Whatever letter of an address is another one, or if its parts come in another way, it is invalid."""
    place = await ticket(here.visit(), "png", len(GOOD))
    path, _, query = place["url"].removeprefix(here.url).partition("?")
    spelled = [
        path.replace("/uploads/", "/uploads//") + f"?{query}",
        path.replace("0.png", "0.jpg") + f"?{query}",
        path.replace("0.png", "1.png") + f"?{query}",
        path.replace("0.png", "%30.png") + f"?{query}",
        path,
        f"{path}?{query}&size=9",
        f"{path}?{query}&more=1",
        f"{path}?{query}&more=",
        f"{path}?{query}&size=",
        f"{path}?{query}".replace("of=", "of=%36"),
        f"{path}?{query.upper()}",
        f"{path}?exp=&size=&of=&sig=",
        "/uploads/../safelight.db?" + query,
    ]
    for at in range(0, len(query), 7):
        other = "1" if query[at] == "0" else "0"
        spelled.append(f"{path}?{query[:at]}{other}{query[at + 1 :]}")
    for target in spelled:
        reply = await put(here.url + target, GOOD)
        assert (reply.status, reply.code) == (403, "link_invalid"), target
    read = await here.stranger().get(f"{path}?{query}".replace("/uploads/", "/files/"))
    assert (read.status, read.code) == (403, "link_invalid")
    assert await files(here, place["id"]) == []


async def test_address_runs_out(here: Stage) -> None:
    """After five minutes the address is gone, and the upload announced again has another."""
    place = await ticket(here.visit(), "png", len(GOOD))
    here.clock.move(5 * MINUTE + 1_000)
    late = await put(place["url"], GOOD)
    assert (late.status, late.code) == (410, "link_expired")


async def test_broken_put_may_be_repeated(here: Stage) -> None:
    """Half a body leaves nothing, and whoever holds the address may send it again."""
    place = await ticket(here.visit(), "png", len(GOOD))
    holder = here.stranger()
    async with await holder.dial() as line:
        target = place["url"].removeprefix(here.url)
        line.write(holder.request("PUT", target, {"Content-Length": str(len(GOOD))}) + GOOD[:20])
        await here.stranger().get("/livez")
    assert (await put(place["url"], GOOD)).status == 200
    left = here.folder / "blobs" / ".unfinished"
    for _ in range(50):
        if not list(left.iterdir()):
            break
        await here.stranger().get("/livez")
    assert list(left.iterdir()) == []


async def test_slow_put_is_cut(opening: Opening) -> None:
    """A body that does not come in time is given up, later than a small one would be."""
    stage = await opening(**IDLE, body_seconds=0.05)
    place = await ticket(stage.visit(), "png", len(GOOD))
    holder = stage.stranger()
    async with await holder.dial() as line:
        target = place["url"].removeprefix(stage.url)
        line.write(holder.request("PUT", target, {"Content-Length": str(len(GOOD))}) + GOOD[:20])
        reply = parsed(await line.rest())
    assert (reply.status, reply.code) == (408, "request_timeout")
    assert await files(stage, place["id"]) == []


async def test_dropped_upload_takes_no_bytes(here: Stage) -> None:
    """Bytes that come for an upload that was dropped meanwhile are not kept."""
    place = await ticket(here.visit(), "png", len(GOOD))
    await here.house.store.drop_upload("acme", ids.parse(place["id"], ids.UPLOAD) or "")
    reply = await put(place["url"], GOOD)
    assert (reply.status, reply.code) == (404, "not_found")
    assert await files(here, place["id"]) == []


async def test_pages_may_put(opening: Opening) -> None:
    """A page of an allowed origin may put and read the hash; other pages are told nothing."""
    stage = await opening(**IDLE, dev=False, server={"cors_origins": ("https://app.example.com",)})
    key = "0123456789abcdef/01932c07-209e-7d3a-8f4e-5b6c7d8e9fa0/0.png"
    asking = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    for origin, let in (("https://app.example.com", True), ("https://evil.example", False)):
        said = await stage.stranger().ask("OPTIONS", f"/uploads/{key}", {"Origin": origin, **asking})
        assert ("PUT" in said.headers.get("access-control-allow-methods", "")) is let
        assert ("content-type" in said.headers.get("access-control-allow-headers", "")) is let
        done = await put(f"{stage.url}/uploads/{key}?sig=1", b"x", {"Origin": origin})
        assert (done.headers.get("access-control-allow-origin") == origin) is let
        assert ("ETag" in done.headers.get("access-control-expose-headers", "")) is let


async def test_only_puts_are_taken(here: Stage) -> None:
    """An address to put to is of no other use, and announcing needs a token."""
    place = (await ticket(here.visit(), "png", 9))["url"].removeprefix(here.url)
    for method in ("GET", "POST", "DELETE"):
        reply = await here.stranger().ask(method, place)
        assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, PUT")
    assert (await here.stranger().post("/v1/uploads", announced("png", 9))).status == 401
    reader = here.visit(scopes=frozenset({"images:read"}))
    assert (await reader.post("/v1/uploads", announced("png", 9))).code == "forbidden"


# -- quoting -------------------------------------------------------------------------------------------


async def test_quote_judges_inputs(here: Stage) -> None:
    """A quote refuses what its submit refuses, a barred URL or an upload past its day, in the same words."""
    old = {"upload": await brought(here.visit(), GOOD)}
    here.clock.move(24 * HOUR)
    ann = here.visit()
    for given, code in (({"url": "https://10.0.0.1/a.png"}, "reference_rejected"), (old, "upload_expired")):
        body: dict[str, object] = {"prompt": "a", "operation": "edit", "inputs": [given]}
        quoted, refused = await ann.post("/v1/quote", body), await ann.post("/v1/jobs", body)
        assert (quoted.status, quoted.json["allowed"], refused.code) == (200, False, code)
        assert [quoted.json[name] for name in ("code", "detail")] == [code, refused.json["detail"]]
    body = {"prompt": "a", "operation": "edit", "inputs": [{"upload": "up_1"}], "mask": {"upload": "up_2"}}
    crooked, refused = await ann.post("/v1/quote", body), await ann.post("/v1/jobs", body)
    assert (crooked.status, crooked.json["errors"]) == (400, refused.json["errors"])


async def test_quote_looks_at_no_bytes(here: Stage) -> None:
    """An upload that is announced and not put yet is quoted as one that is there."""
    ann = here.visit()
    place = await ticket(ann, "png", len(GOOD))
    body = {"prompt": "a", "operation": "edit", "inputs": [{"upload": place["id"]}]}
    assert (await ann.post("/v1/quote", body)).json["allowed"] is True
    assert (await ann.post("/v1/jobs", body)).code == "upload_incomplete"


# -- forgetting ----------------------------------------------------------------------------------------


async def test_deleted_job_takes_its_uploads(here: Stage) -> None:
    """With a job go the uploads it was made from, and nobody else's."""
    ann = here.visit()
    used, mask, other = [await brought(ann, png(40, 30, seed)) for seed in "abc"]
    job = (await edit(ann, used, mask={"upload": mask})).json
    await ann.post(f"/v1/jobs/{job['id']}/cancel")
    assert (await ann.ask("DELETE", f"/v1/jobs/{job['id']}")).status == 204
    assert [await files(here, name) for name in (used, mask, other)] == [[], [], ["png"]]
    assert [await row(here, name) for name in (used, mask)] == [None, None]


async def test_wanted_upload_outlives_a_job(here: Stage) -> None:
    """An upload that another open job begins from stays until that one is deleted."""
    ann = here.visit()
    shared, mask, own = [await brought(ann, png(40, 30, seed)) for seed in "abc"]
    first = (await edit(ann, own, mask={"upload": shared})).json["id"]
    second = (await edit(ann, shared, mask={"upload": mask})).json["id"]
    for job, left in ((first, [[], ["png"], ["png"]]), (second, [[], [], []])):
        await ann.post(f"/v1/jobs/{job}/cancel")
        assert (await ann.ask("DELETE", f"/v1/jobs/{job}")).status == 204
        assert [await files(here, name) for name in (own, shared, mask)] == left


async def test_ended_job_keeps_no_upload(here: Stage) -> None:
    """An upload goes with its job although one that is over, kept and not deleted, was made from it too."""
    ann = here.visit()
    shared = await brought(ann, GOOD)
    jobs = [(await edit(ann, shared)).json["id"] for _ in range(2)]
    for job in jobs:
        await ann.post(f"/v1/jobs/{job}/cancel")
    assert (await ann.ask("DELETE", f"/v1/jobs/{jobs[0]}")).status == 204
    assert await files(here, shared) == []


# -- inside a request ----------------------------------------------------------------------------------


async def test_kept_bytes_have_one_name(here: Stage) -> None:
    """The same bytes of the same caller are the same upload, counted once; another caller's are another."""
    house = here.house
    ann, ben = (house.callers.admit_caller(Principal("acme", subject)) for subject in ("ann", "ben"))
    first = await house.uploads.keep(ann, GOOD)
    here.clock.move(30 * MINUTE)
    again = await house.uploads.keep(ann, GOOD)
    assert again.id == first.id
    assert again.expires_at >= first.expires_at + 30 * MINUTE
    assert (await house.uploads.keep(ben, GOOD)).id != first.id
    assert (await house.uploads.keep(ann, picture("webp", 40, 30))).media_type == "image/webp"
    usage = await house.store.usage("acme", "ann")
    assert usage.user.windows["write"].count == 2
    assert (await edit(here.visit(), ids.shown(first.id, ids.UPLOAD))).status == 202


@pytest.mark.parametrize("data", [b"", b"no image", GOOD + b"more", bytes(10_485_761)], ids=range(4))
async def test_kept_bytes_are_judged(here: Stage, data: bytes) -> None:
    """Bytes that are no image are refused at once, and nothing is kept of them."""
    ann = here.house.callers.admit_caller(Principal("acme", "ann"))
    with pytest.raises(Problem) as raised:
        await here.house.uploads.keep(ann, data)
    assert raised.value.code == "reference_rejected"
    assert kept(here) == []
