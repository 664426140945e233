"""What a process knows was written, beyond what it keeps to work with: it tells a store that went back.

A store that loses what it had confirmed (a replica is promoted that was behind, a host fails between two
writes of its log) shows a tenant as it was before. Whoever decides from that admits twice what was admitted
once. So a process remembers how far it saw each tenant, and each job it holds, and compares whatever it
reads to decide from. Only what the committer saw counts: its reads are in order. Pure but for its memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from gateway.store.backend import Loaded, TenantState, Want
from gateway.store.contract import Shut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.backend import JobPut
    from policies.model import Job

TENANTS: Final = 16_384
JOBS: Final = 16_384
"""How many are remembered; the longest untouched goes first."""


class _Seen(NamedTuple):
    """How far a tenant was seen: one version has one head and one instant, unless there are two stories."""

    version: int
    head: str
    last_now: int


class Memory:
    """What was seen of tenants and jobs. `gone` are tenants found behind it that are not closed yet."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._tenants: dict[str, _Seen] = {}
        self._jobs: dict[tuple[str, str], int] = {}
        self.gone: dict[str, Shut] = {}

    def keep(self, tenant: str, state: TenantState) -> None:
        """Remember a tenant as it was written, or read."""
        self._tenants.pop(tenant, None)
        self._tenants[tenant] = _seen(state)
        if len(self._tenants) > TENANTS:
            del self._tenants[next(iter(self._tenants))]

    def hold(self, job: Job) -> None:
        """Remember a job this process holds."""
        name = job.tenant, job.id
        self._jobs[name] = max(self._jobs.pop(name, 0), job.version)
        if len(self._jobs) > JOBS:
            del self._jobs[next(iter(self._jobs))]

    def put(self, puts: Sequence[JobPut]) -> None:
        """Remember leased jobs as they were written; forget those that have ended."""
        for put in puts:
            if put.job.state.ended:
                self.let_go(put.job.tenant, put.job.id)
            elif put.fence is not None:
                self.hold(put.job)

    def let_go(self, tenant: str, job: str) -> None:
        """Forget a job that has ended."""
        self._jobs.pop((tenant, job), None)

    def meet(self, tenant: str, there: Loaded) -> bool:
        """Take in what was read of a tenant; return whether it is behind what was seen."""
        shut = self._behind(tenant, there)
        if shut is not None:
            before = self.gone.get(tenant, shut)
            if before.version <= shut.version:
                self.gone[tenant] = replace(shut, lost=before.lost)
        elif there.state is not None:
            self.keep(tenant, there.state)
        return shut is not None

    def lack(self, tenant: str, lost: int) -> None:
        """Take in that the store lacks bytes of somebody's: it stands with the house's own tenant."""
        self.gone[tenant] = replace(self.gone.get(tenant, Shut(0, self._me)), lost=lost)

    def closed(self, tenant: str) -> None:
        """Take in that a tenant was closed for what was seen of it."""
        self.gone.pop(tenant, None)
        for name in [name for name in self._jobs if name[0] == tenant]:
            del self._jobs[name]

    def wants(self) -> list[Want]:
        """Return what to read so that all that was seen is compared."""
        wants = {tenant: Want(tenant, subjects=set(), jobs=set(), keys=set()) for tenant in self._tenants}
        for tenant, job in self._jobs:
            if tenant not in wants:
                wants[tenant] = Want(tenant, subjects=set(), jobs=set(), keys=set())
            wants[tenant].jobs.add(job)
        return list(wants.values())

    def _behind(self, tenant: str, there: Loaded) -> Shut | None:
        """Return the mark of a tenant that is behind. A job that is not there any more proves nothing."""
        known = self._tenants.get(tenant, _Seen(0, "", 0))
        state = there.state
        found = known if state is None else _seen(state)
        lost = found.version < known.version or (found.version == known.version and found != known)
        jobs = (job for job in there.jobs.values() if job is not None)
        older = [job.id for job in jobs if job.version < self._jobs.get((tenant, job.id), 0)]
        if not lost and not older:
            return None
        return Shut(
            0, self._me, known.version, known.head, found.version, found.head, older[0] if older else None
        )


def _seen(state: TenantState) -> _Seen:
    return _Seen(state.version, state.doc.head, state.doc.last_now)
