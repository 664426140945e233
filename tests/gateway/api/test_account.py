"""What a caller has: account, models, and the figures in headers."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.api.account import next_month
from gateway.api.limits import credits_field, rate_fields, seconds_up
from gateway.api.queries import instant_of
from gateway.api.views import time_text
from policies import quota
from policies.menu import LimitsOffer, ModelOffer, SizeOffer
from policies.model import Account, Usage, Window
from tests.fakes.jobs import NOON, PLAN
from tests.gateway.api.conftest import Site

LIMITS = LimitsOffer(4, 1000)
TERMS = quota.terms(PLAN, PLAN)


async def test_account_shows_what_is_left(site: Site) -> None:
    """Every limit is shown with what is left of it, at the level where less is left."""
    site.jobs.figures = Usage(
        tenant=Account(
            granted=100,
            charged=20,
            held=10,
            flight=9,
            month="2026-11",
            spent=30,
            windows={"submit": Window(NOON - 1000, 20)},
        ),
        user=Account(granted=None, flight=1, month="2026-11", spent=15, windows={"submit": Window(NOON, 5)}),
    )
    answer = await site.get("/v1/account")
    assert answer.json == {
        "tenant": "acme",
        "subject": "ann",
        "roles": ["user"],
        "plan": "free",
        "models": ["standard"],
        "limits": {
            "submit": {
                "limit": 60,
                "remaining": 55,
                "window_seconds": 3600,
                "resets_at": "2026-11-20T13:00:00.000Z",
            },
            "in_flight": {"limit": 2, "remaining": 1},
            "monthly_cap": {"limit": 100, "remaining": 70, "resets_at": "2026-12-01T00:00:00.000Z"},
            "streams": 2,
            "count": 4,
            "prompt": 1000,
        },
        "credits": {"granted": 100, "held": 10, "charged": 20, "available": 70},
        "month": {"month": "2026-11", "spent": 15, "tenant_spent": 30},
    }
    assert answer.headers["ratelimit"] == '"submit";r=55;t=3600'


async def test_own_budget_is_shown(site: Site) -> None:
    """A user's own budget counts where it is the smaller; limits that are passed show nothing left."""
    site.jobs.figures = Usage(
        Account(granted=100, month="2026-11", flight=20),
        Account(granted=7, held=2, month="2026-11", spent=300),
    )
    shown = (await site.get("/v1/account")).json
    assert shown["credits"] == {"granted": 7, "held": 2, "charged": 0, "available": 5}
    assert shown["limits"]["in_flight"] == {"limit": 10, "remaining": 0}
    assert shown["limits"]["monthly_cap"]["remaining"] == 0


async def test_models_are_openai_superset(site: Site) -> None:
    """The list is of the form OpenAI's clients read, with what is ours beside it."""
    size = SizeOffer("1024x1024", "1:1", "1K", {"low": 1})
    site.jobs.rows = (
        ModelOffer("standard", 5, ("generate",), (size,), ("low",), ("png",), ("auto",), {"low": 1}, LIMITS),
    )
    assert (await site.get("/v1/models")).json == {
        "object": "list",
        "data": [
            {
                "id": "standard",
                "object": "model",
                "created": 5,
                "owned_by": "safelight",
                "operations": ["generate"],
                "sizes": [{"size": "1024x1024", "ratio": "1:1", "tier": "1K", "prices": {"low": 1}}],
                "qualities": ["low"],
                "formats": ["png"],
                "backgrounds": ["auto"],
                "prices": {"low": 1},
                "limits": {"count": 4, "prompt": 1000, "inputs": 0, "mask": False},
            }
        ],
    }


async def test_model_is_read_alone(site: Site) -> None:
    """A model is read by its name as it stands in the list; one that is not in it is not there."""
    size = SizeOffer("1024x1024", "1:1", "1K", {"low": 1})
    row = ModelOffer("quick", 5, ("generate",), (size,), ("low",), ("png",), ("auto",), {"low": 1}, LIMITS)
    site.jobs.rows = (replace(row, id="standard"), row)
    listed = (await site.get("/v1/models")).json["data"]
    assert (await site.get("/v1/models/quick")).json == listed[1]
    for name in ("fine", "QUICK", "quick-1", "gpt-image-2"):
        missing = await site.get(f"/v1/models/{name}")
        assert (missing.status, missing.json["code"]) == (404, "not_found")


def test_rate_fields_show_smaller_level() -> None:
    """The user's counter is shown, unless the tenant has fewer calls left."""
    user = Account(windows={"submit": Window(NOON - 1, 10)})
    shown = dict(rate_fields(Usage(Account(), user), TERMS, NOON))
    assert shown[b"ratelimit"] == b'"submit";r=50;t=3600'
    assert shown[b"x-ratelimit-reset"] == b"%d" % seconds_up(NOON - 1 + quota.HOUR_MS)
    tenant = Account(windows={"submit": Window(NOON, 600)})
    shown = dict(rate_fields(Usage(tenant, user), TERMS, NOON))
    assert shown[b"ratelimit-policy"] == b'"submit";q=600;w=3600'
    assert shown[b"x-ratelimit-remaining"] == b"0"


@pytest.mark.parametrize(
    ("usage", "left"),
    [
        (Usage(Account(granted=50, month="2026-11"), Account(granted=None)), b"50"),
        (Usage(Account(granted=50, month="2026-11"), Account(granted=9)), b"9"),
        (Usage(Account(granted=50, month="2026-10"), Account(granted=None)), b"100"),
        (Usage(Account(granted=None, month="2026-11"), Account(granted=None)), b"0"),
    ],
)
def test_credits_are_as_of_now(usage: Usage, left: bytes) -> None:
    """The credits shown are those a submit would find: topped up, and the smaller of both levels'."""
    assert credits_field(usage, TERMS, NOON) == (b"safelight-credits-available", left)


@pytest.mark.parametrize(
    ("now", "following"),
    [
        ("2026-11-20T12:00:00Z", "2026-12-01T00:00:00.000Z"),
        ("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00.000Z"),
        ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00.000Z"),
    ],
)
def test_month_ends_in_utc(now: str, following: str) -> None:
    """Caps return when the next UTC calendar month begins."""
    instant = instant_of(now)
    assert instant is not None
    assert time_text(next_month(instant)) == following
