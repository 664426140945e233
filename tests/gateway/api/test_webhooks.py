"""The calls about webhooks, as a client meets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.api.bodies import Bodies
from gateway.store.contract import Notice
from policies import ids
from policies.model import Deny, JobState, Reason, Role
from policies.webhooks import EVENTS, ROTATION_MS, Delivery, Endpoint, Try
from tests.fakes.jobs import NOON, uuid

if TYPE_CHECKING:
    from tests.fakes.asgi import Answered
    from tests.gateway.api.conftest import Site

WISH = {"url": "https://a.example.org/hook", "label": "Production"}
DELIVERY = uuid(77)
SHOWN = ids.shown(DELIVERY, ids.DELIVERY)


async def made(site: Site, **more: Any) -> Any:
    """Register Ann's webhook."""
    answer = await site.post("/v1/webhooks", {**WISH, **more})
    assert answer.status == 201, answer.body
    return json.loads(answer.body)


async def patched(site: Site, name: str, value: Any) -> Answered:
    """Change Ann's webhook."""
    return await site.ask(
        "PATCH",
        f"/v1/webhooks/{name}",
        site.bearer(),
        ("Content-Type", "application/json"),
        body=json.dumps(value).encode(),
    )


def code(answer: Answered) -> tuple[int, str]:
    """Return a problem's status and code."""
    return answer.status, json.loads(answer.body)["code"]


async def test_registering_shows_the_secret(site: Site) -> None:
    """A new webhook is shown with its secret, whole, and no store in between keeps the answer."""
    answer = await site.post("/v1/webhooks", WISH)
    assert (answer.status, answer.headers["cache-control"]) == (201, "private, no-store")
    assert json.loads(answer.body) == {
        "id": ids.shown(site.hooks.endpoints[0].id, ids.ENDPOINT),
        "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "url": "https://a.example.org/hook",
        "events": list(EVENTS["native"]),
        "scope": "own",
        "label": "Production",
        "form": "native",
        "subject": "ann",
        "enabled": True,
        "disabled_reason": None,
        "failures": 0,
        "created_at": "2026-11-20T12:00:00.000Z",
        "previous_secret_expires_at": None,
    }


async def test_secret_is_shown_once(site: Site) -> None:
    """No other answer about a webhook has its secret, nor how it is sealed."""
    name = (await made(site))["id"]
    for target in ("/v1/webhooks", f"/v1/webhooks/{name}", f"/v1/webhooks/{name}/deliveries"):
        answer = await site.get(target)
        assert answer.status == 200
        assert b"whsec" not in answer.body
        assert b"s1." not in answer.body
    changed = await patched(site, name, {"label": "x"})
    assert b"secret" not in changed.body.replace(b"previous_secret_expires_at", b"")


@pytest.mark.parametrize(
    ("wish", "pointers"),
    [
        ({}, ["/url"]),
        ({**WISH, "url": "http://a.example.org/hook"}, ["/url"]),
        ({**WISH, "url": "https://169.254.169.254/"}, ["/url"]),
        ({**WISH, "url": "https://a.example.org/" + "a" * 2048}, ["/url"]),
        ({**WISH, "events": []}, ["/events"]),
        ({**WISH, "events": ["job.failed", "generation.failed"]}, ["/events/1"]),
        ({**WISH, "scope": "all", "secret": "mine"}, ["/scope", "/secret"]),
        ({**WISH, "label": "a" * 201}, ["/label"]),
    ],
)
async def test_bad_wishes_are_explained(site: Site, wish: Any, pointers: list[str]) -> None:
    """Every mistake of a registration is a 400 that points at it, and nothing is kept."""
    answer = await site.post("/v1/webhooks", wish)
    assert code(answer) == (400, "invalid_request")
    assert sorted(flaw["pointer"] for flaw in json.loads(answer.body)["errors"]) == pointers
    assert site.hooks.endpoints == []


async def test_webhooks_are_listed_in_pages(site: Site) -> None:
    """A caller's webhooks are listed newest first, page by page; an admin sees the tenant's."""
    names = [(await made(site))["id"] for _ in range(5)]
    seen: list[str] = []
    target = "/v1/webhooks?limit=2"
    while target:
        page = json.loads((await site.get(target)).body)
        seen += [one["id"] for one in page["data"]]
        target = page["next"] and f"/v1/webhooks?limit=2&cursor={page['next']}"
    assert seen == names[::-1]
    foreign = await site.ask("GET", "/v1/webhooks", site.bearer("bob"))
    assert json.loads(foreign.body) == {"data": [], "next": None}
    admins = json.loads((await site.ask("GET", "/v1/webhooks", site.admin)).body)
    assert len(admins["data"]) == 5


async def test_webhook_is_changed_and_switched(site: Site) -> None:
    """What is named is changed and all else stays; switching on again begins the count anew."""
    name = (await made(site))["id"]
    answer = await patched(site, name, {"events": ["job.failed"], "enabled": False})
    shown = json.loads(answer.body)
    assert (answer.status, shown["events"], shown["label"]) == (200, ["job.failed"], "Production")
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "asked")
    site.hooks.patch(failures=7)
    shown = json.loads((await patched(site, name, {"enabled": True})).body)
    assert (shown["enabled"], shown["disabled_reason"], shown["failures"]) == (True, None, 0)
    site.hooks.patch(failures=7)
    shown = json.loads((await patched(site, name, {"url": "https://b.example.org/"})).body)
    assert (shown["url"], shown["failures"]) == ("https://b.example.org/", 0)
    assert code(await patched(site, name, {"url": "ftp://b.example.org/"})) == (400, "invalid_request")
    assert code(await patched(site, name, {"events": ["x"]})) == (400, "invalid_request")


async def test_rotation_shows_both_lives(site: Site) -> None:
    """A rotation shows the new secret once, and until when the one before is good."""
    name = (await made(site))["id"]
    answer = await site.post(f"/v1/webhooks/{name}/rotate")
    shown = json.loads(answer.body)
    assert (answer.status, shown["secret"][:6]) == (200, "whsec_")
    assert shown["previous_secret_expires_at"] == "2026-11-21T12:00:00.000Z"
    assert site.hooks.endpoints[0].former_until == NOON + ROTATION_MS


async def test_deleted_webhook_is_gone(site: Site) -> None:
    """A deleted webhook is like one that never was."""
    name = (await made(site))["id"]
    answer = await site.ask("DELETE", f"/v1/webhooks/{name}", site.bearer())
    assert (answer.status, answer.body) == (204, b"")
    assert code(await site.get(f"/v1/webhooks/{name}")) == (404, "not_found")


async def test_deliveries_are_shown_with_tries(site: Site) -> None:
    """A delivery is shown with its event, its job, each try and when the next one is, page by page."""
    name = (await made(site))["id"]
    endpoint = site.hooks.endpoints[0].id
    tries = (Try(NOON, 500, None, 40), Try(NOON + 5_000, None, "timeout", 15_000))
    site.hooks.deliveries = [
        Delivery(uuid(5), "acme", endpoint, "job.failed", uuid(1), "delivered", created_at=NOON),
        Delivery(DELIVERY, "acme", endpoint, "job.failed", uuid(1), "pending", tries, NOON, NOON + 60_000),
    ]
    page = json.loads((await site.get(f"/v1/webhooks/{name}/deliveries?limit=1")).body)
    assert page["data"] == [
        {
            "id": SHOWN,
            "event": "job.failed",
            "job": ids.shown(uuid(1)),
            "state": "pending",
            "tries": [
                {"at": "2026-11-20T12:00:00.000Z", "status": 500, "cut": None, "duration_ms": 40},
                {"at": "2026-11-20T12:00:05.000Z", "status": None, "cut": "timeout", "duration_ms": 15_000},
            ],
            "created_at": "2026-11-20T12:00:00.000Z",
            "next_try_at": "2026-11-20T12:01:00.000Z",
        }
    ]
    rest = json.loads((await site.get(f"/v1/webhooks/{name}/deliveries?cursor={page['next']}")).body)
    assert ([one["next_try_at"] for one in rest["data"]], rest["next"]) == ([None], None)
    answer = await site.post(f"/v1/webhooks/{name}/deliveries/{SHOWN}/redeliver")
    assert (answer.status, json.loads(answer.body)["next_try_at"]) == (202, "2026-11-20T12:00:00.000Z")


async def test_test_is_accepted(site: Site) -> None:
    """A test is a delivery that is due now and tells of no job."""
    name = (await made(site))["id"]
    answer = await site.post(f"/v1/webhooks/{name}/test")
    shown = json.loads(answer.body)
    assert (answer.status, shown["event"], shown["job"], shown["tries"]) == (202, "webhook.test", None, [])


@pytest.mark.parametrize("call", ["test", f"deliveries/{SHOWN}/redeliver"])
async def test_disabled_webhook_is_not_sent(site: Site, call: str) -> None:
    """What is disabled is sent nothing on request: the answer says to enable it first."""
    name = (await made(site))["id"]
    await patched(site, name, {"enabled": False})
    assert code(await site.post(f"/v1/webhooks/{name}/{call}")) == (409, "webhook_disabled")


CALLS = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "/rotate"),
    ("POST", "/test"),
    ("GET", "/deliveries"),
    ("POST", f"/deliveries/{SHOWN}/redeliver"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("who", ["bob", "boss of another", "nobody's"])
async def test_foreign_webhooks_are_unknown(site: Site, method: str, path: str, who: str) -> None:
    """Every call about another's webhook, another tenant's, or none at all is the same 404."""
    name = (await made(site))["id"] if who != "nobody's" else "we_nonsense"
    bearers = {
        "bob": site.bearer("bob"),
        "boss of another": site.bearer(tenant="globex", roles=frozenset({Role.TENANT_ADMIN})),
        "nobody's": site.bearer(),
    }
    answer = await site.ask(
        method,
        f"/v1/webhooks/{name}{path}",
        bearers[who],
        *([("Content-Type", "application/json")] if method == "PATCH" else []),
        body=b"{}" if method == "PATCH" else None,
    )
    assert code(answer) == (404, "not_found")


@pytest.mark.parametrize("delivery", ["dl_nonsense", SHOWN])
async def test_unknown_deliveries_are_unknown(site: Site, delivery: str) -> None:
    """A delivery that is not this webhook's is a 404, however it is spelled."""
    name = (await made(site))["id"]
    site.hooks.deliveries = [Delivery(DELIVERY, "acme", "another", "job.failed")]
    answer = await site.post(f"/v1/webhooks/{name}/deliveries/{delivery}/redeliver")
    assert code(answer) == (404, "not_found")


async def test_tenant_scope_is_for_admins(site: Site) -> None:
    """Only an admin hears of the whole tenant; a user who asks is refused, and the trail is told."""
    wish = json.dumps({**WISH, "scope": "tenant"}).encode()
    header = ("Content-Type", "application/json")
    assert code(await site.ask("POST", "/v1/webhooks", site.bearer(), header, body=wish))[1] == "forbidden"
    assert site.jobs.asked == [("turned_away", ("ann", "forbidden", "webhook.create"))]
    answer = await site.ask("POST", "/v1/webhooks", site.admin, header, body=wish)
    assert json.loads(answer.body)["scope"] == "tenant"


async def test_scope_of_tokens_counts(site: Site) -> None:
    """A token with scopes needs the one for webhooks; the others are of no use here."""
    other = site.bearer(scopes=frozenset({"images:read", "images:write"}))
    assert code(await site.ask("GET", "/v1/webhooks", other)) == (403, "forbidden")
    fitting = site.bearer(scopes=frozenset({"webhooks"}))
    assert (await site.ask("GET", "/v1/webhooks", fitting)).status == 200


@pytest.mark.parametrize("call", ["", "/rotate", "/test"])
async def test_calls_count_as_writes(site: Site, call: str) -> None:
    """What changes something counts against the window of writes, and is refused when that is full."""
    name = (await made(site))["id"]
    site.hooks.full = Deny(Reason.RATE_LIMITED, "", 5_000, "limit.write")
    answer = await (site.post(f"/v1/webhooks/{name}{call}") if call else site.post("/v1/webhooks", WISH))
    assert code(answer) == (429, "rate_limited")


def notice(site: Site, form: Any, state: JobState | None) -> Notice:
    """Return a delivery of the end of Ann's job, or of a test."""
    event = "webhook.test" if state is None else "job.succeeded"
    to = Endpoint(uuid(9), "acme", "ann", "https://a.example.org", "s", form)
    job = None if state is None else site.jobs.put(1, state=state, ended_at=NOON)
    return Notice(Delivery(DELIVERY, "acme", uuid(9), event, created_at=NOON), to, job, 1)


async def test_body_shows_the_job(site: Site) -> None:
    """Our form's body is an event around the job, byte for byte as reading it answers."""
    told = notice(site, "native", JobState.SUCCEEDED)
    body = Bodies(site.views, lambda *_: None).render(told, site.jobs.now())
    answer = await site.get(f"/v1/jobs/{ids.shown(uuid(1))}")
    start = b'{"type":"job.succeeded","api_version":"v1","timestamp":"2026-11-20T12:00:00.000Z","data":'
    assert body == start + answer.body + b"}"


async def test_other_form_has_its_spelling(site: Site) -> None:
    """The other form's body is what its dialect says, with links of this instant or for good."""
    told = notice(site, "gptimage2_plus", JobState.SUCCEEDED)

    def spell(event: str, job: Any, link: Any) -> object:
        return [event, job.id, link(job, "k/1.png")]

    body = json.loads(Bodies(site.views, spell).render(told, NOON))
    assert body == ["job.succeeded", uuid(1), site.views.link("k/1.png", NOON, lasting=False)]


@pytest.mark.parametrize("form", ["native", "gptimage2_plus"])
async def test_test_names_the_webhook(site: Site, form: str) -> None:
    """A test's body names the webhook and no job, in either form."""
    body = json.loads(Bodies(site.views, lambda *_: None).render(notice(site, form, None), NOON))
    assert body["data"] == {"webhook": ids.shown(uuid(9), ids.ENDPOINT)}
    assert "webhook.test" in (body.get("type"), body.get("event"))
