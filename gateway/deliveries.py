"""The deliverer: claims due deliveries, signs and sends each, writes down what came of it.

At least once: a delivery is leased, sent, and only then recorded, so a death in between sends it again
under the same id. Many endpoints are served side by side, and none holds up another: one with a delivery
under way gives no second claim, and one that fails is left alone for a while, then tried by one delivery.
A stop is a drain: no new claims, tries under way get their time. When and whether again is asked of
`policies/webhooks.py`; how a notice is spelled, of `notices.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from gateway import notices
from gateway.audit import Record
from gateway.crash import Hook, nowhere
from gateway.errors import Fault
from gateway.store.contract import Leases, Notice, Stale
from gateway.wire import Wire, WireFailure, WireRequest
from policies import ids, webhooks
from policies.egress import Place, read_place
from policies.webhooks import Answered, Delivery, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.lifetime import Lifetime
    from gateway.secrets import Keyring
    from gateway.store.contract import Store
    from gateway.telemetry import Telemetry

CONCURRENCY: Final = 32
EACH: Final = 4
"""Deliveries to one endpoint at once."""
MARGIN_MS: Final = Leases().delivery_margin_ms
"""How much longer than a try its lease is: for rendering it, and for writing down what came of it."""
IDLE_SECONDS: Final = 1.0
FAULT_SECONDS: Final = 1.0
BUG_MS: Final = 60_000
INSIST_TRIES: Final = 5
"""How often it is tried to write down what came of a try: what is not written is sent again."""


class Parts(Struct, frozen=True):
    """What deliveries are made with.

    `send` is the sender, `render` returns the body of a notice as it is at an instant, `chance` a number in
    [0, 1), `ticks` seconds that never go back.
    """

    store: Store
    send: Callable[[WireRequest], Awaitable[Wire]]
    render: Callable[[Notice, int], bytes]
    ring: Keyring
    lifetime: Lifetime
    now: Callable[[], int]
    chance: Callable[[], float]
    attempt_seconds: int
    disable_after: int
    crash: Hook = nowhere
    margin_ms: int = MARGIN_MS
    ticks: Callable[[], float] = time.monotonic


class _Told:
    """The rule by which a try is written down; it keeps what it said last, which is what was written.

    `outcome` is what became of the delivery, in the words of the log; `disabled` why its endpoint is off
    by this try.
    """

    def __init__(self, answered: Answered, chance: float, disable_after: int) -> None:
        self._answered = answered
        self._chance = chance
        self._disable_after = disable_after
        self.outcome = "lost"
        self.disabled: str | None = None

    def __call__(self, delivery: Delivery, endpoint: Endpoint, now: int) -> tuple[Delivery, Endpoint]:
        """Return both after the try."""
        after, told = webhooks.tried(
            delivery,
            endpoint,
            self._answered,
            now,
            chance=self._chance,
            disable_after=self._disable_after,
        )
        self.disabled = told.disabled if endpoint.disabled is None else None
        self.outcome = "again" if after.state == "pending" else after.state
        if self.disabled is not None:
            self.outcome = "disabled"
        return after, told


class Deliverer:
    """Makes up to `concurrency` deliveries at once."""

    def __init__(self, parts: Parts, telemetry: Telemetry, concurrency: int = CONCURRENCY) -> None:
        self._parts = parts
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._lease_ms = parts.attempt_seconds * 1000 + parts.margin_ms
        self._running: dict[asyncio.Task[None], Notice] = {}
        self._resting: dict[str, int] = {}
        self._freed = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> None:
        """Begin to claim."""
        self._claiming = asyncio.get_running_loop().create_task(self._claim(), name="deliverer claims")

    async def drain(self, seconds: float) -> None:
        """Wait for tries under way, at most so long; then cut them and give their deliveries back.

        Canceling this does not leave them running: it cuts them at once.
        """
        if self._claiming is None:
            return
        try:
            await asyncio.wait((self._claiming,))
            if self._running:
                await asyncio.wait(self._running, timeout=seconds)
        finally:
            await self._cut(self._claiming)

    async def _cut(self, claiming: asyncio.Task[None]) -> None:
        cut = dict(self._running)
        for task in (*cut, claiming):
            task.cancel()
        await asyncio.wait((*cut, claiming))
        if cut:
            await self._release(cut.values(), 0)

    # -- claims ------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        while not self._parts.lifetime.draining:
            if not await self._told("claim", self._claim_once()):
                await self._parts.lifetime.pause(FAULT_SECONDS)

    async def _told(self, kind: str, step: Awaitable[None]) -> bool:
        """Do one step of what must go on; trouble is told, and the answer is no."""
        try:
            await step
        except Fault as fault:
            self._telemetry.event("fault", level="warning", code=fault.code, kind=f"delivery {kind}")
        except Exception as bug:  # noqa: BLE001 - a deliverer that stops unseen is worse; the bug is told
            self._telemetry.bug(bug, kind=f"delivery {kind}")
        else:
            return True
        return False

    async def _claim_once(self) -> None:
        """Take what fits; wait where there is no room or nothing due."""
        self._freed.clear()
        room = self._concurrency - len(self._running)
        claimed: Sequence[Notice] = ()
        if room:
            claimed = await self._parts.store.claim_deliveries(
                room, self._lease_ms, busy=self._busy(), each=EACH
            )
        left = [notice for notice in claimed if not self._begin(notice)]
        if left:
            longest = max(notice.endpoint.failures for notice in left)
            await self._release(left, webhooks.rest_ms(longest + 1))
        if not claimed:
            await self._idle(look=room > 0)

    def _busy(self) -> list[str]:
        """Return the endpoints nothing is claimed for: those with a try under way, and those at rest."""
        now = self._parts.now()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        return sorted({*self._resting, *(notice.endpoint.id for notice in self._running.values())})

    def _begin(self, notice: Notice) -> bool:
        """Begin a try, unless its endpoint has failed last and one is under way to look how it is now."""
        name = notice.endpoint.id
        if notice.endpoint.failures and any(one.endpoint.id == name for one in self._running.values()):
            return False
        task = asyncio.get_running_loop().create_task(
            self._run(notice), name=f"delivery {notice.delivery.id}"
        )
        self._running[task] = notice
        task.add_done_callback(self._forget)
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._freed.set()

    async def _idle(self, *, look: bool) -> None:
        """Wait until there may be something due and room for it, or the process stops."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._parts.lifetime.stopping.wait()),
            asyncio.ensure_future(self._freed.wait()),
        ]
        if look:
            seconds = IDLE_SECONDS * (0.75 + self._parts.chance() / 2)
            waits.append(asyncio.ensure_future(self._parts.store.deliveries_due(seconds)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for wait in waits:
                wait.cancel()

    async def _release(self, left: Iterable[Notice], after_ms: int) -> None:
        """Return leases; one that cannot be returned runs out by itself."""
        await self._told("release", self._parts.store.release_deliveries(list(left), after_ms))

    # -- one delivery ------------------------------------------------------------------------------

    async def _run(self, notice: Notice) -> None:
        """Make one try; whatever ends it without a record gives the lease back."""
        if not await self._told("try", self._try(notice)):
            await self._release([notice], BUG_MS)

    async def _try(self, notice: Notice) -> None:
        parts = self._parts
        now = parts.now()
        secrets = notices.unseal(parts.ring, notice.endpoint, now)
        if not secrets:
            self._rest(notice.endpoint.id, webhooks.LONGEST_REST_MS)
            self._telemetry.alarm("webhook_secret_unreadable", **_names(notice))
            await self._release([notice], webhooks.LONGEST_REST_MS)
            return
        began = parts.ticks()
        body = parts.render(notice, now)
        wire = await parts.send(notices.build(notice, secrets, body, now, parts.attempt_seconds))
        parts.crash("delivery_sent")
        seconds = parts.ticks() - began
        answered = notices.read(wire, now, now + int(seconds * 1000))
        told = _Told(answered, parts.chance(), parts.disable_after)
        if answered.taken:
            self._resting.pop(notice.endpoint.id, None)
        else:
            self._rest(notice.endpoint.id, webhooks.rest_ms(notice.endpoint.failures + 1))
        stale = await self._record(notice, told)
        self._tell(notice, wire, answered, "lost" if stale else told.outcome, seconds)
        if told.disabled is not None and not stale:
            self._telemetry.alarm("webhook_disabled", reason=told.disabled, **_names(notice))

    def _rest(self, endpoint: str, millis: int) -> None:
        self._resting[endpoint] = self._parts.now() + millis

    async def _record(self, notice: Notice, told: _Told) -> bool:
        """Write a try down, more than once where the store does not take it; return whether it came late."""
        for left in reversed(range(INSIST_TRIES)):
            try:
                answer = await self._parts.store.record_delivery(notice, told, Record("webhook.disable"))
            except Fault:
                if not left:
                    raise
                await self._parts.lifetime.pause(FAULT_SECONDS)
            else:
                return isinstance(answer, Stale)
        raise AssertionError  # pragma: no cover - the last turn returns or raises

    def _tell(self, notice: Notice, wire: Wire, answered: Answered, outcome: str, seconds: float) -> None:
        place = read_place(notice.endpoint.url)
        self._telemetry.delivery(
            form=notice.endpoint.form,
            outcome=outcome,
            seconds=seconds,
            status=answered.tried.status,
            cut=str(wire.cut) if isinstance(wire, WireFailure) else None,
            n=len(notice.delivery.tries) + 1,
            kind=notice.delivery.event,
            job=notice.delivery.job,
            host=place.host if isinstance(place, Place) else None,
            retry_after_ms=answered.retry_after_ms,
            **_names(notice),
        )


def _names(notice: Notice) -> dict[str, Any]:
    """Return what a line of the log says of whose delivery it is."""
    return {
        "tenant": notice.delivery.tenant,
        "endpoint": ids.shown(notice.endpoint.id, ids.ENDPOINT),
        "delivery": ids.shown(notice.delivery.id, ids.DELIVERY),
    }
