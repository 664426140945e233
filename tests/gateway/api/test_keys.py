"""Service keys over HTTP: the one answer that has the text, the pages, the refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies import ids
from policies.model import Principal, Role
from tests.fakes.jobs import uuid
from tests.gateway.api.conftest import Site

TEXT = "sk_" + "A" * 43
HOLDER = ("Authorization", f"Bearer {TEXT}")


async def make(site: Site, *headers: tuple[str, str], **asked: Any) -> Any:
    """Make a key and return how it was shown."""
    who = headers or (site.bearer(),)
    kind = ("Content-Type", "application/json")
    answer = await site.ask("POST", "/v1/keys", *who, kind, body=json.dumps(asked).encode())
    assert answer.status == 201, answer.json
    return answer.json


async def test_new_key_is_shown_whole(site: Site) -> None:
    """The answer to its making has the key and all that is known of it, and no cache may keep it."""
    asked = {"label": "ci", "prefix": "gimg", "scopes": ["images:read"], "expires_in_days": 1}
    answer = await site.post("/v1/keys", asked)
    assert answer.status == 201
    assert "no-store" in answer.headers["cache-control"]
    (kept,) = site.shelf.keys
    assert answer.json == {
        "id": ids.shown(kept.id, ids.KEY),
        "key": answer.json["key"],
        "hint": f"gimg_…{answer.json['key'][-4:]}",
        "label": "ci",
        "subject": "ann",
        "roles": ["user"],
        "plan": None,
        "scopes": ["images:read"],
        "created_at": "2026-11-20T12:00:00.000Z",
        "expires_at": "2026-11-21T12:00:00.000Z",
    }


async def test_listed_keys_are_without_text(site: Site) -> None:
    """A list shows what a key is known by, and when it was revoked; never the key or its hash."""
    made = await make(site)
    await site.ask("DELETE", f"/v1/keys/{made['id']}", site.bearer())
    answer = await site.get("/v1/keys")
    expected = {name: value for name, value in made.items() if name != "key"}
    assert answer.json == {
        "data": [{**expected, "revoked_at": "2026-11-20T12:00:00.000Z"}],
        "next": None,
    }
    assert made["key"] not in answer.body.decode()
    assert site.shelf.keys[0].hash not in answer.body.decode()


async def test_key_pages_stand_still(site: Site) -> None:
    """Pages go through all keys once, also when new ones are made meanwhile."""
    for number in range(5):
        site.shelf.put(f"{number}", label=str(number))
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await site.get(f"/v1/keys?limit=2{cursor}")).json
        seen += [key["label"] for key in page["data"]]
        site.shelf.put("new", label="new")
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ["4", "3", "2", "1", "0"]


async def test_key_cursors_are_their_owners(site: Site) -> None:
    """A cursor of one caller's list opens no other's."""
    for number in range(3):
        site.shelf.put(f"{number}")
    cursor = (await site.get("/v1/keys?limit=1")).json["next"]
    refused = await site.ask("GET", f"/v1/keys?cursor={cursor}", site.bearer("bob"))
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (400, "/query/cursor")
    assert (await site.ask("GET", f"/v1/keys?cursor={cursor}", site.admin)).status == 400


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"lable": "x"}, "/lable"),
        ({"label": "x" * 101}, "/label"),
        ({"label": "a\nb"}, "/label"),
        ({"subject": 1}, "/subject"),
        ({"roles": ["boss"]}, "/roles/0"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["images:all"]}, "/scopes/0"),
        ({"prefix": "Sk"}, "/prefix"),
        ({"prefix": "sk\n"}, "/prefix"),
        ({"expires_in_days": 0}, "/expires_in_days"),
        ({"expires_in_days": 3651}, "/expires_in_days"),
        ({"expires_in_days": 1.5}, "/expires_in_days"),
    ],
)
async def test_bad_key_wishes_are_placed(site: Site, asked: dict[str, Any], place: str) -> None:
    """A wish that cannot be read is refused with the place of its mistake, and no key is made."""
    answer = await site.post("/v1/keys", asked)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["errors"][0]["pointer"] == place
    assert site.shelf.keys == []


@pytest.mark.parametrize("asked", [{"subject": "bob"}, {"roles": ["tenant_admin"]}])
async def test_more_than_own_is_forbidden(site: Site, asked: dict[str, Any]) -> None:
    """Asking for more than one has is 403, for users; the tenant's admins may."""
    answer = await site.post("/v1/keys", asked)
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert (await make(site, site.admin, **asked))["key"]


async def test_plans_are_not_given_away(site: Site) -> None:
    """Not even a tenant's admin makes a key of a plan the tenant did not buy."""
    for who in (site.bearer(), site.admin):
        kind = ("Content-Type", "application/json")
        answer = await site.ask("POST", "/v1/keys", who, kind, body=b'{"plan": "max"}')
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert site.shelf.keys == []


async def test_holder_is_known_everywhere(site: Site) -> None:
    """Who comes with a key is its subject, as their token would say."""
    site.shelf.put(TEXT, roles=(Role.USER, Role.TENANT_ADMIN))
    account = (await site.ask("GET", "/v1/account", HOLDER)).json
    assert (account["tenant"], account["subject"], account["roles"]) == (
        "acme",
        "ann",
        ["tenant_admin", "user"],
    )
    assert site.shelf.looked == 1


async def test_keys_make_no_keys(site: Site) -> None:
    """Who comes with a key may list, and neither make nor revoke; both attempts are told to the trail."""
    site.shelf.put(TEXT, roles=(Role.USER, Role.TENANT_ADMIN))
    one = f"/v1/keys/{ids.shown(site.shelf.keys[0].id, ids.KEY)}"
    kind = ("Content-Type", "application/json")
    assert (await site.ask("GET", "/v1/keys", HOLDER)).status == 200
    assert (await site.ask("POST", "/v1/keys", HOLDER, kind, body=b"{}")).json["code"] == "forbidden"
    assert (await site.ask("DELETE", one, HOLDER)).json["code"] == "forbidden"
    told = [words for name, words in site.jobs.asked if name == "turned_away"]
    assert told == [("ann", "forbidden", "key.create"), ("ann", "forbidden", "key.revoke")]


async def test_scoped_key_is_bound(site: Site) -> None:
    """A key's scopes bind it as a token's do."""
    site.shelf.put(TEXT, scopes=("images:read",))
    assert (await site.ask("GET", "/v1/jobs", HOLDER)).status == 200
    kind = ("Content-Type", "application/json")
    assert (await site.ask("POST", "/v1/jobs", HOLDER, kind, body=b'{"prompt": "a"}')).status == 403


async def test_revoked_key_is_refused(site: Site) -> None:
    """The request after a revocation is 401, in the words any unknown bearer is told."""
    made = await make(site)
    holder = ("Authorization", f"Bearer {made['key']}")
    assert (await site.ask("GET", "/v1/jobs", holder)).status == 200
    assert (await site.ask("DELETE", f"/v1/keys/{made['id']}", site.bearer())).status == 204
    refused = await site.ask("GET", "/v1/jobs", holder)
    unknown = await site.ask("GET", "/v1/jobs", ("Authorization", f"Bearer {made['key'][:-1]}A"))
    assert refused.status == unknown.status == 401
    assert refused.json["detail"] == unknown.json["detail"] == "The bearer token is not accepted here."


@pytest.mark.parametrize("name", ["x", ids.shown(uuid(1)), uuid(1), ids.shown(uuid(1), ids.KEY)])
async def test_unknown_keys_are_missing(site: Site, name: str) -> None:
    """What names no key of the caller's is 404, malformed or foreign."""
    answer = await site.ask("DELETE", f"/v1/keys/{name}", site.bearer())
    assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_stream_ends_with_key(site: Site) -> None:
    """A stream that was opened with a key tells nothing more once that is revoked."""
    site.shelf.put(TEXT)
    site.jobs.put(1)
    stream = site.open("GET", f"/v1/jobs/{uuid(1)}/events", [HOLDER])
    assert (await stream.event() or ("", {}))[0] == "1"
    caller = site.jobs.admit_caller(Principal("acme", "ann"))
    await site.keys.revoke(caller, site.shelf.keys[0].id)
    site.jobs.put(1, model="quick")
    answer = await stream.done()
    assert answer.body.endswith(b": the token has expired\n\n")
    assert b"quick" not in answer.body
