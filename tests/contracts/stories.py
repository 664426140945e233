"""A history that is told of as well: webhooks hear of ends, and what is said stands on the trail.

Adds to `histories.py` what lies beside the money, against the model's other half (`hooks.py`), and three
faults of the kind that stores have: a lease that fences nobody, a key that is not written, a refund that
is given twice.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from gateway import doctor
from gateway.audit import Record
from gateway.store.backend import Change
from gateway.store.contract import Dropped, Kept, Notice, Retention, Told
from policies.model import Entry
from policies.webhooks import Delivery, Endpoint
from tests.contracts import hooks
from tests.contracts.beside import delivered, endpoint, failing, lines, putting, trial
from tests.contracts.histories import KEPT, TERMS, Faulty, History, repost, same, word
from tests.contracts.model import DAY
from tests.contracts.rig import SAID, counting

KEPT_ALL: Final = replace(KEPT, deliveries_ms=5 * DAY)
TRIES: Final[dict[str, Told]] = {
    "delivered": delivered,
    "failed": failing(hooks.WAIT),
    "gone": failing(hooks.WAIT, why="gone"),
}
SPOKEN: Final = "config.reload"


class Story(History):
    """Two tenants of one store whose webhooks and trail are looked at too."""

    kept: Retention = KEPT_ALL

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hooks: list[Endpoint] = []
        self.notices: list[Notice] = []

    async def register(self, tenant: int, subject: str) -> None:
        """Put a new endpoint."""
        await self._put(endpoint(self.rig, self.tenants[tenant], subject), new=True)

    async def enable(self, which: int) -> None:
        """Switch an endpoint on again, whatever it was."""
        if self.hooks:
            hook = self.hooks[which % len(self.hooks)]
            await self._put(hook, new=hook.id not in self.model.hooks.endpoints)

    async def _put(self, hook: Endpoint, *, new: bool) -> None:
        got = await self.store.change_endpoint(
            hook.tenant, putting(hook), counting(TERMS), SAID, by=hook.subject
        )
        want = "Kept" if self._may_write(hook) else "rate_limited"
        same("endpoint", word(got), want)
        if isinstance(got, Kept):
            same("replayed", got.replayed, not new)
            self.model.hooks.put(hook.id, hook.tenant, hook.subject)
            self.hooks += [hook] if hook not in self.hooks else []
        await self.compare(hook.tenant)

    def _may_write(self, hook: Endpoint) -> bool:
        return self.model.written({"tenant": hook.tenant, "subject": hook.subject}, self.rig.clock.at)

    async def unregister(self, which: int) -> None:
        """Drop an endpoint, perhaps one that is gone."""
        if not self.hooks:
            return
        hook = self.hooks[which % len(self.hooks)]
        rule = putting(Dropped(hook.id))
        got = await self.store.change_endpoint(hook.tenant, rule, counting(TERMS), SAID, by=hook.subject)
        known = hook.id in self.model.hooks.endpoints
        may = known and self._may_write(hook)
        want = self.model.hooks.drop(hook.id) if may or not known else "rate_limited"
        same("unregister", word(got), want)
        await self.compare(hook.tenant)

    async def send_again(self, which: int) -> None:
        """Ask for a delivery once more, or for a test where there was none."""
        if not self.hooks:
            return
        hook = self.hooks[which % len(self.hooks)]
        page = await self.store.list_deliveries(hook.tenant, hook.id, before=None, limit=10)
        asked = trial(self.rig, hook)
        if page.deliveries:
            asked = replace(page.deliveries[-1], state="pending", due_at=self.rig.clock.at)
        got = await self.store.put_delivery(asked, counting(TERMS), SAID, by=hook.subject)
        if hook.id not in self.model.hooks.endpoints:
            want = "Absent"
        else:
            want = "Kept" if self._may_write(hook) else "rate_limited"
        same("send again", word(got), want)
        if want == "Kept":
            self.model.hooks.queue(self.rig.clock.at, (hook.id, asked.job or asked.id))
        await self.compare(hook.tenant)

    async def record(self, which: int, how: str) -> None:
        """End a job under a lease; where there is none yet, take one."""
        if not self.claims:
            await self.claim()
        await super().record(which, how)

    async def lease(self) -> None:
        """Lease all deliveries that are due."""
        notices = await self.store.claim_deliveries(1000, hooks.LEASE, each=1000)
        same("lease", {known(each) for each in notices}, self.model.hooks.claim(self.rig.clock.at))
        for notice in notices:
            self.model.hooks.deliveries[known(notice)]["fence"] = notice.fence
        self.notices += notices

    async def tell(self, which: int, how: str) -> None:
        """Write down a try under a lease, perhaps a lost one or a second time."""
        if not self.notices:
            await self.lease()
        if self.notices:
            notice = self.notices[which % len(self.notices)]
            got = await self.store.record_delivery(notice, TRIES[how])
            want = self.model.hooks.tell(self.rig.clock.at, known(notice), notice.fence, how)
            same("tell", word(got), want)
            await self.compare(notice.delivery.tenant)

    async def say(self, tenant: int, subject: str, text: str) -> None:
        """Tell the trail."""
        name = self.tenants[tenant]
        await self.store.append_audit(name, subject, Record(action=SPOKEN, code=text))
        self.model.hooks.said.append((name, self.rig.clock.at, text))
        await self.compare(name)

    async def wait(self, ms: int) -> None:
        """Let time pass."""
        self.rig.clock.forward(ms)

    async def sweep(self) -> None:
        """Remove what is past its time."""
        self.model.hooks.sweep(self.rig.clock.at, self.kept.deliveries_ms, self.kept.trail_ms)
        await super().sweep()

    async def compare(self, tenant: str) -> None:
        """Compare what lies beside the money as well."""
        await super().compare(tenant)
        plain = self.model.hooks
        there = {hook.id: hook for hook in await self.store.list_endpoints(tenant)}
        mine = {name: hook for name, hook in plain.endpoints.items() if hook["tenant"] == tenant}
        got = {name: (hook.failures, hook.disabled is not None) for name, hook in there.items()}
        same("endpoints", got, {name: (hook["failures"], hook["disabled"]) for name, hook in mine.items()})
        for name in mine:
            page = await self.store.list_deliveries(tenant, name, before=None, limit=1000)
            told = [
                (each.job or each.id, each.state, len(each.tries), each.due_at) for each in page.deliveries
            ]
            same("deliveries", told, plain.of(name))

    async def finish(self) -> None:
        """End all that is open; then the books balance and the trails hold, with all that was said."""
        await super().finish()
        for tenant in self.model.tenants:
            spoken = [line.code for line in await lines(self.store, tenant) if line.action == SPOKEN]
            same("said", spoken, self.model.hooks.lines(tenant))
            verdict = await doctor.verify_trail(self.store.backend, self.rig.chain, tenant)
            same("trail", word(verdict), "Verified")
        same("doctor", await doctor.examine(self.store.backend, self.rig.chain), [])


def _plain(told: Delivery) -> tuple[str, str, int, int | None]:
    return told.job or told.id, told.state, len(told.tries), told.due_at


def known(notice: Notice) -> tuple[str, str]:
    """Return what the model calls a delivery."""
    return notice.endpoint.id, notice.delivery.job or notice.delivery.id


class FencesNobody(Faulty):
    """Whoever had a lease may change its job."""

    def spoil(self, change: Change) -> None:
        """Write as if no lease were needed."""
        change.puts = [replace(put, fence=None) for put in change.puts]


class ForgetsKeys(Faulty):
    """Idempotency keys are not written."""

    def spoil(self, change: Change) -> None:
        """Bind nothing."""
        change.keys = {}


class RefundsTwice(Faulty):
    """What comes back of a hold comes back again."""

    def spoil(self, change: Change) -> None:
        """Give back once more what was not charged."""
        repost(
            change, lambda entry: Entry("settle", entry.month, entry.job, charged=entry.held + entry.charged)
        )
