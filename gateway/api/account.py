"""What a caller has and may ask for: account and models.

Figures are those of this moment, as a submit would be measured by them: this UTC month, topped up. Both
levels are asked; what is shown as left is the smaller of the two.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from litestar import get
from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.api.exchange import Answer, exchange_of, json_answer
from gateway.api.gate import closed
from gateway.api.limits import standing
from gateway.api.queries import Query
from gateway.api.views import Time, time_text
from gateway.errors import Problem
from policies import quota
from policies.access import Action
from policies.menu import LimitsOffer, ModelOffer, SizeOffer
from policies.model import Account, Background, Format, Operation, Quality, Usage
from policies.quota import HOUR_MS

if TYPE_CHECKING:
    from gateway.callers import Caller
    from gateway.jobs import Jobs

_EPOCH: Final = datetime.date(1970, 1, 1)


class WindowView(Struct, frozen=True):
    """Calls in a window that begins with the first counted one."""

    limit: int
    remaining: int
    window_seconds: int
    resets_at: Time


class CapView(Struct, frozen=True):
    """Credits of this calendar month (UTC)."""

    limit: int
    remaining: int
    resets_at: Time


class FlightView(Struct, frozen=True):
    """Jobs queued or running at once."""

    limit: int
    remaining: int


class LimitsView(Struct, frozen=True):
    """Every limit and what is left of it, at the level where less is left.

    `streams` are counted by each server process for itself.
    """

    submit: WindowView
    in_flight: FlightView
    monthly_cap: CapView
    streams: int
    count: int
    prompt: int


class CreditsView(Struct, frozen=True):
    """The tenant's credits, or the caller's own where they have a budget."""

    granted: int
    held: int
    charged: int
    available: int


class MonthView(Struct, frozen=True):
    """What was charged or is held this calendar month (UTC), by this caller and by the whole tenant."""

    month: str
    spent: int
    tenant_spent: int


class AccountView(Struct, frozen=True):
    """Who calls, on which plan, and what is left."""

    tenant: str
    subject: str
    roles: tuple[str, ...]
    plan: str | None
    models: tuple[str, ...]
    limits: LimitsView
    credits: CreditsView
    month: MonthView


class ModelView(Struct, frozen=True):
    """A model, by the alias it is asked for. `prices` are credits an image of the first size, the default."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["safelight"]
    operations: tuple[Operation, ...]
    sizes: tuple[SizeOffer, ...]
    qualities: tuple[Quality, ...]
    formats: tuple[Format, ...]
    backgrounds: tuple[Background, ...]
    prices: dict[Quality, int]
    limits: LimitsOffer


class ModelList(Struct, frozen=True):
    """The models a caller may ask for: a superset of OpenAI's list."""

    object: Literal["list"]
    data: tuple[ModelView, ...]


class AccountCalls:
    """The routes about the caller."""

    def __init__(self, jobs: Jobs, plan_of: Callable[[Caller], str | None]) -> None:
        self._jobs = jobs
        self._plan_of = plan_of

    def routes(self) -> list[HTTPRouteHandler]:
        """Return the handlers."""
        read = closed(Action.READ)
        return [
            get("/v1/account", operation_id="getAccount", opt=read)(self.account),
            get("/v1/models", operation_id="listModels", opt=read)(self.models),
            get("/v1/models/{model:str}", operation_id="getModel", opt=read)(self.model),
        ]

    async def account(self, request: Request[Any, Any, Any]) -> Answer:
        """Read the account.

        The plan, every limit with what is left of it, the credits, and this calendar month (UTC).
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        who = exchange.who
        exchange.usage = usage = await self._jobs.usage(who)
        return json_answer(
            AccountView(
                tenant=who.principal.tenant,
                subject=who.principal.subject,
                roles=tuple(sorted(who.principal.roles)),
                plan=self._plan_of(who),
                models=who.user_plan.models,
                limits=limits_view(usage, who, self._jobs.now()),
                credits=_credits(usage),
                month=MonthView(quota.month_of(self._jobs.now()), usage.user.spent, usage.tenant.spent),
            )
        )

    async def models(self, request: Request[Any, Any, Any]) -> Answer:
        """List models.

        What this caller may ask for, with sizes, qualities, formats, and prices in credits an image.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        offers = await self._jobs.models(exchange.who)
        return json_answer(ModelList("list", tuple(_model(offer) for offer in offers)))

    async def model(self, request: Request[Any, Any, Any]) -> Answer:
        """Read a model.

        As it stands in the list: what this caller may ask of it, and at what price.
        """
        exchange = exchange_of(request.scope)
        Query(request.scope).close()
        asked = request.path_params["model"]
        for offer in await self._jobs.models(exchange.who):
            if offer.id == asked:
                return json_answer(_model(offer))
        raise Problem("not_found")


def _model(offer: ModelOffer) -> ModelView:
    return ModelView(
        id=offer.id,
        object="model",
        created=offer.created,
        owned_by="safelight",
        operations=offer.operations,
        sizes=offer.sizes,
        qualities=offer.qualities,
        formats=offer.formats,
        backgrounds=offer.backgrounds,
        prices=offer.prices,
        limits=offer.limits,
    )


def limits_view(usage: Usage, who: Caller, now: int) -> LimitsView:
    """Return what is left of every limit of a caller."""
    terms, stand = who.terms, standing(usage, who.terms, now)
    usage = quota.as_of(usage, now, terms)
    flight = min(
        (terms.user.in_flight - usage.user.flight, terms.user.in_flight),
        (terms.tenant.in_flight - usage.tenant.flight, terms.tenant.in_flight),
    )
    cap = min(
        (terms.user.monthly_cap - usage.user.spent, terms.user.monthly_cap),
        (terms.tenant.monthly_cap - usage.tenant.spent, terms.tenant.monthly_cap),
    )
    return LimitsView(
        submit=WindowView(stand.limit, stand.remaining, HOUR_MS // 1000, time_text(stand.reset_at)),
        in_flight=FlightView(flight[1], max(0, flight[0])),
        monthly_cap=CapView(cap[1], max(0, cap[0]), time_text(next_month(now))),
        streams=who.user_plan.streams,
        count=who.user_plan.count,
        prompt=who.user_plan.prompt,
    )


def next_month(now: int) -> int:
    """Return the instant at which the UTC calendar month after this one begins."""
    year, month = (int(part) for part in quota.month_of(now).split("-"))
    first = datetime.date(year + month // 12, month % 12 + 1, 1)
    return (first - _EPOCH).days * quota.DAY_MS


def _credits(usage: Usage) -> CreditsView:
    """Return the figures of the level where less is available."""
    levels = [level for level in (usage.user, usage.tenant) if level.available is not None]
    level = min(levels, key=lambda level: level.available or 0, default=Account())
    return CreditsView(level.granted or 0, level.held, level.charged, level.available or 0)
