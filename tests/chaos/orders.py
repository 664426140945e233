"""What clients want: orders without end, the same for the same mix.

An order says all that its client will do, and what goes wrong at its upstream meanwhile. Who reads the
books later makes the same orders again.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from tests.chaos.stage import FAKES, TENANTS, TIGHT
from tests.chaos.troubles import busy, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.behavior import Behavior

SUBJECTS: Final = 12
EACH_TIGHT: Final = 7
"""Of so many orders one is for a tenant whose limits are tight."""
TOGETHER: Final = 6
"""Orders of one such tenant that come one after the other: places in flight are soon taken."""


class Mix(Struct, frozen=True):
    """What orders are made from. `trouble` is the share of orders with a fault of their upstream.

    `busy`: the only fault is that it has no time now.
    """

    seed: int
    trouble: float = 0.0
    busy: bool = False


class Order(Struct, frozen=True):
    """One client's wish, with what it does afterwards."""

    n: int
    tenant: str
    subject: str
    model: str
    count: int
    keyed: bool
    cancel: Literal["", "at once", "when running"]
    delete: bool
    replay: bool
    edit: bool = False
    trouble: Behavior | None = None

    @property
    def prompt(self) -> str:
        """A prompt no other order has, by which upstreams' books can be compared."""
        return f"order {self.n:05d}: a lighthouse"

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"order-{self.n:05d}"

    @property
    def looked_at(self) -> bool:
        """Whether its client opens every image in the end, copies too."""
        return self.n % 5 == 0


def orders(mix: Mix) -> Iterator[Order]:
    """Yield orders without end."""
    dice = random.Random(mix.seed)
    n = 0
    while True:
        n += 1
        order = _wide(dice, n)
        if dice.random() < mix.trouble:
            way = busy(order.prompt) if mix.busy else trouble(dice, order.model, order.prompt)
            order = replace(order, trouble=way)
        yield _tight(order) if n % EACH_TIGHT == 0 else order


def _wide(dice: random.Random, n: int) -> Order:
    keyed = dice.random() < 0.8
    return Order(
        n=n,
        tenant=TENANTS[n % len(TENANTS)],
        subject=f"user-{dice.randrange(SUBJECTS)}",
        model=dice.choice(list(FAKES)),
        count=dice.choice((1, 1, 1, 1, 1, 2, 2, 5)),
        keyed=keyed,
        cancel=dice.choice(("", "", "", "", "", "", "at once", "when running")),
        delete=dice.random() < 0.15,
        replay=keyed and dice.random() < 0.25,
        edit=dice.random() < 0.2,
    )


def _tight(order: Order) -> Order:
    """Return the order as one of a tenant with a tight limit: only calls that the limit is about."""
    number = order.n // EACH_TIGHT
    tenant = list(TIGHT)[number // TOGETHER % len(TIGHT)]
    subject = f"user-{number % 5}"
    return replace(order, tenant=tenant, subject=subject, cancel="", delete=False, replay=False, edit=False)


def by_number(mix: Mix, count: int) -> dict[int, Order]:
    """Return the first orders of a mix by their number."""
    source = orders(mix)
    return {order.n: order for order in (next(source) for _ in range(count))}
