"""Whatever is somebody's, asked for by somebody else: a foreign thing and one that never was look the same.

Every kind of id, link, token and cursor that a caller is ever given is used by a stranger of the same
tenant, by one of another tenant, and by that tenant's admin.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
from msgspec.structs import replace

from policies import ids
from policies.access import Action
from policies.bundle import Bundle, TenantRow
from policies.model import Role
from tests.fakes import openai
from tests.fakes.pictures import png
from tests.fakes.post import OK
from tests.fakes.raw_server import RawServer, says
from tests.journeys.bringing import brought
from tests.journeys.conftest import entry
from tests.journeys.stage import ADMIN, SANDBOX, Plot, Stage
from tests.journeys.visitor import Reply, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLUS: Final = "/api/account/webhooks"
NOBODY: Final = "01a1f8d4-d805-7100-a67c-81b83412be6f"
"""The id of nothing at all."""


EDIT: Final = '{"prompt": "a", "operation": "edit", '


class Try(NamedTuple):
    """One call on a thing of Ann's; `{}` is where its name stands."""

    kind: str
    method: str
    target: str
    body: str = ""


TRIES: Final = (
    *(Try("job", method, "/v1/jobs/{}" + end) for method, end in (
        ("GET", ""), ("HEAD", ""), ("GET", "?wait=0"), ("GET", "/events"), ("POST", "/cancel"),
        ("DELETE", ""),
    )),
    Try("job", "GET", "/api/v1/generations/{}"),
    Try("job", "GET", "/api/generate/{}"),
    Try("upload", "POST", "/v1/jobs", EDIT + '"inputs": [{"upload": "{}"}]}'),
    Try("upload", "POST", "/v1/jobs", EDIT + '"inputs": [{"url": "http://a"}], "mask": {"upload": "{}"}}'),
    Try("upload", "POST", "/v1/quote", EDIT + '"inputs": [{"upload": "{}"}]}'),
    Try("upload", "POST", "/api/v1/generate", '{"prompt": "a", "type": "edit", "inputImageKeys": ["{}"]}'),
    Try("upload", "GET", "/v1/jobs/{}"),
    Try("key", "DELETE", "/v1/keys/{}"),
    *(Try("webhook", method, "/v1/webhooks/{}" + end, body) for method, end, body in (
        ("GET", "", ""), ("PATCH", "", '{"enabled": false}'), ("DELETE", "", ""), ("POST", "/rotate", ""),
        ("POST", "/test", ""), ("GET", "/deliveries", ""),
    )),
    *(Try("plus", method, PLUS + "/{}" + end, body) for method, end, body in (
        ("PATCH", "", '{"enabled": false}'), ("DELETE", "", ""), ("POST", "/rotate", ""),
    )),
    Try("plus", "GET", "/v1/webhooks/{}"),
)  # fmt: skip
"""Every route that takes a name, and the fields that do."""


class Things(NamedTuple):
    """A house, and what Ann has there, by kind, as she was shown it."""

    stage: Stage
    names: dict[str, str]
    links: list[str]
    cursors: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def things(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Things]:
    """Ann has one of everything that has a name."""
    async with openai.fake() as upstream:
        async with (
            Stage(tmp_path_factory.mktemp("strangers"), Plot(providers=entry(upstream))).open() as stage,
            belongings(stage) as found,
        ):
            yield found
        assert stage.bugs == []


@asynccontextmanager
async def belongings(stage: Stage) -> AsyncIterator[Things]:
    """Have Ann make it all."""
    ann = stage.visit()
    async with RawServer(says(OK)) as receiver:
        hook = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
        webhook = (await ann.post("/v1/webhooks", hook)).json
        plus = (await ann.post(PLUS, hook)).json
        jobs = [await ann.made(), await ann.made()]
        plain = (await ann.post("/v1/images/generations", {"prompt": "a", "response_format": "url"})).json
        key = (await ann.post("/v1/keys", {})).json
        await ann.post("/v1/keys", {})
        for _ in range(2):
            await ann.post(f"/v1/webhooks/{webhook['id']}/test")
        listed = f"/v1/webhooks/{webhook['id']}/deliveries"
        delivery = (await ann.get(listed)).json["data"][0]
        names = {
            "job": jobs[0]["id"],
            "upload": await brought(ann, png(64, 64)),
            "key": key["id"],
            "webhook": webhook["id"],
            "plus": plus["id"],
            "delivery": delivery["id"],
        }
        pages = ("/v1/jobs", "/v1/keys", "/v1/webhooks", listed)
        cursors = {page: (await ann.get(f"{page}?limit=1")).json["next"] for page in pages}
        links = [jobs[0]["outputs"][0]["url"], plain["data"][0]["url"]]
        yield Things(stage, names, [link.removeprefix(stage.url) for link in links], cursors)


def strangers(stage: Stage) -> dict[str, Visitor]:
    """Return who may not see what is Ann's."""
    return {"bob": stage.visit("bob"), "zoe": stage.visit("ann", "globex"), "boss": stage.admin("globex")}


async def asked(who: Visitor, call: Try, name: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return all that is said to a call but what differs between any two requests."""
    reply = await who.ask(
        call.method, call.target.replace("{}", name), body=call.body.replace("{}", name).encode()
    )
    ours = reply.headers["x-request-id"].encode()
    headers = {n: v for n, v in reply.headers.items() if n not in ("x-request-id", "date")}
    return reply.status, reply.body.replace(ours, b"-"), sorted(headers.items())


@pytest.mark.parametrize("call", TRIES, ids=lambda call: f"{call.method} {call.target} {call.kind}")
async def test_foreign_is_as_unknown(things: Things, call: Try) -> None:
    """A thing of Ann's and one that never was are told of in the same bytes, in either spelling."""
    things.stage.clock.hold()
    prefix = things.names[call.kind].partition("_")[0] + "_"
    inside = ids.parse(things.names[call.kind], prefix)
    assert inside is not None
    for who in strangers(things.stage).values():
        for foreign, unknown in ((things.names[call.kind], ids.shown(NOBODY, prefix)), (inside, NOBODY)):
            there, absent = await asked(who, call, foreign), await asked(who, call, unknown)
            assert there == absent
            assert there[0] in (400, 404)


async def test_nothing_of_anns_was_touched(things: Things) -> None:
    """After every stranger tried every call, all that is Ann's is as it was."""
    ann = things.stage.visit()
    paths = [f"/v1/jobs/{things.names['job']}", "/v1/keys", "/v1/webhooks", PLUS]
    before = [(await ann.get(path)).json for path in paths]
    for who in strangers(things.stage).values():
        for call in TRIES:
            await asked(who, call, things.names[call.kind])
    after = [(await things.stage.visit().get(path)).json for path in paths]
    assert after == before


async def test_deliveries_stay_with_their_webhook(things: Things) -> None:
    """A delivery of Ann's is sent again through no webhook but hers, as one that never was is not."""
    for who in strangers(things.stage).values():
        mine = (await who.post("/v1/webhooks", {"url": "http://127.0.0.1:9/mine"})).json["id"]
        call = Try("delivery", "POST", f"/v1/webhooks/{mine}/deliveries/{{}}/redeliver")
        there = await asked(who, call, things.names["delivery"])
        assert there == await asked(who, call, ids.shown(NOBODY, ids.DELIVERY))
        assert there[0] == 404


async def test_cursors_open_only_their_list(things: Things) -> None:
    """A cursor of Ann's goes on with nobody else's list, nor with another of hers."""
    ann, boss = things.stage.visit(), things.stage.admin()
    cursors = [things.cursors[page] for page in ("/v1/jobs", "/v1/keys")]
    for page, cursor in zip(("/v1/jobs", "/v1/keys"), cursors, strict=True):
        assert (await ann.get(f"{page}?cursor={cursor}")).status == 200
        for who in (*strangers(things.stage).values(), boss):
            assert (await who.get(f"{page}?cursor={cursor}")).code == "invalid_request"
    for page, cursor in zip(("/v1/webhooks", "/v1/jobs"), cursors, strict=True):
        assert (await ann.get(f"{page}?cursor={cursor}")).code == "invalid_request"


# -- who may do what ---------------------------------------------------------------------------------


class Door(NamedTuple):
    """A route that asks who calls: what for, and whose API it is."""

    method: str
    path: str
    action: Action
    dialect: str


def doors(stage: Stage) -> list[Door]:
    """Return every closed route."""
    app: Any = stage.house.api.app
    return [
        Door(
            method,
            re.sub(r"\{[a-z_]+:[a-z]+\}", "x", route.path),
            one.opt["action"],
            one.opt.get("dialect", ""),
        )
        for route in app.routes
        for one in getattr(route, "route_handlers", ())
        if "action" in one.opt
        for method in sorted(one.http_methods - {"OPTIONS"})
    ]


def code_of(reply: Reply) -> str:
    """Return an error's code, whoever's spelling it has."""
    body = reply.json
    error = body["error"] if isinstance(body.get("error"), dict) else body
    return str(error.get("code") or error["error"])


async def knocked(who: Visitor, door: Door) -> tuple[int, str]:
    """Return what is said at a door to one who takes no answer it makes: who may pass is told 406."""
    reply = await who.ask(door.method, door.path, {"Accept": "application/x-nothing"})
    return reply.status, code_of(reply)


PASSED: Final = (406, "not_acceptable")


@pytest.mark.parametrize("scope", list(Action))
async def test_scopes_open_their_own_doors(things: Things, scope: Action) -> None:
    """A token with one scope passes where that is asked for and is forbidden everywhere else."""
    who = things.stage.visit("eve", "scoped", scopes=frozenset({scope}), roles=ADMIN)
    found = doors(things.stage)
    assert {door.dialect for door in found} == {"", "gptimage2_plus", "gptimage2_ai", "openai"}
    for door in found:
        things.stage.clock.move(1000)
        assert await knocked(who, door) == (PASSED if door.action == scope else (403, "forbidden")), door


async def test_plans_open_their_own_apis(things: Things) -> None:
    """A plan without the other APIs has its own callers refused there, in their words, and nowhere else."""
    who = things.stage.visit("eve", "frugal", plan="free", roles=ADMIN)
    for door in doors(things.stage):
        things.stage.clock.move(1000)
        assert await knocked(who, door) == ((403, "plan_required") if door.dialect else PASSED), door


async def test_suspended_and_planless_pass_nowhere(tmp_path: Path) -> None:
    """Who is suspended, and whose key is of a plan that is no more, is refused at every door."""

    def before(bundle: Bundle) -> Bundle:
        return replace(bundle, plans={**bundle.plans, "brief": bundle.plans["max"]})

    def after(bundle: Bundle) -> Bundle:
        return replace(bundle, tenants={**bundle.tenants, "late": TenantRow("pro", suspended=True)})

    async with Stage(tmp_path, Plot(providers=SANDBOX, bundle=before)).open() as stage:
        operator = stage.visit("boss", roles=frozenset(Role))
        key = (await operator.post("/v1/keys", {"plan": "brief"})).json["key"]
        assert (await Visitor(stage.url, stage.tape, key).get("/v1/account")).json["plan"] == "brief"
    async with Stage(tmp_path, Plot(providers=SANDBOX, bundle=after)).open() as stage:
        for door in doors(stage):
            assert await knocked(Visitor(stage.url, stage.tape, key), door) == (403, "forbidden"), door
            assert await knocked(stage.visit(tenant="late"), door) == (403, "tenant_suspended"), door
        assert stage.bugs == []
