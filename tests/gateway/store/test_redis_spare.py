"""A Cluster one of whose primaries is replaced: by a replica that has everything, or that lacks the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway import doctor
from gateway.store.engine import Engine
from gateway.store.flight import Patience
from gateway.store.redis_keys import Names, shard_of
from tests.contracts.rig import put
from tests.fakes.spare import Spare
from tests.gateway.store.processes import Processes, answered, backend


@pytest.fixture(scope="module")
def spare() -> Iterator[Spare]:
    """Three primaries and a replica of the first. A test leaves all four running."""
    with Spare() as made:
        yield made


@pytest.fixture
async def many(spare: Spare) -> AsyncIterator[Processes]:
    """An empty store there, and engines to be opened on it."""
    made = Processes(spare.url)
    made.patience = Patience(settle=1.0)
    yield made
    await made.close()
    spare.heal()


def tenants_on(cluster: Spare, many: Processes, node: int, count: int) -> list[str]:
    """Return tenants whose shards are on a node, each in a shard of its own."""
    found: dict[int, str] = {}
    for number in range(1000):
        name = f"t{number}"
        if cluster.home(cluster.slot(Names(many.prefix).shard(name).at)) == node:
            found.setdefault(shard_of(name), name)
        if len(found) == count:
            return list(found.values())
    raise AssertionError(f"node {node} has too few shards")


async def everybody(many: Processes, engines: list[Engine], tenants: list[str]) -> set[tuple[str, str]]:
    """Submit by each process to each tenant, until there are answers."""
    asked = [(engine, tenant) for engine in engines for tenant in tenants]
    answers = await asyncio.gather(*(answered(many, *each) for each in asked))
    return {(tenant, answer) for (_engine, tenant), answer in zip(asked, answers, strict=True)}


async def test_node_that_lost_closes_its_tenants(spare: Spare, many: Processes) -> None:
    """A replica that has everything takes over from a node, and nobody is closed; then one that lacks some.

    Nobody admits anything to a tenant that lost some, be it a process that knew nothing of what was lost and
    still has connections from when that node was the primary before. Tenants of the same node that lost
    nothing go on, and so do those of the others.
    """
    engines = [await many.process() for _ in range(3)]
    there = tenants_on(spare, many, 0, 4)
    losing, others = there[:2], [name for node in (1, 2) for name in tenants_on(spare, many, node, 1)]
    tenants = [*there, *others]
    assert await everybody(many, engines, tenants) == {(tenant, "in") for tenant in tenants}
    await asyncio.to_thread(spare.level)
    await asyncio.to_thread(spare.fail_over)
    assert await everybody(many, engines, tenants) == {(tenant, "in") for tenant in tenants}
    assert await doctor.examine(engines[1].backend, many.chain) == []
    await asyncio.to_thread(spare.part)
    for tenant in (*losing, *others):
        await asyncio.gather(*(put(engines[n % 2], many.job(tenant)) for n in range(20)))
    for engine in engines:
        await backend(engine).sample()
    await asyncio.to_thread(spare.fail_over)
    found = await everybody(many, engines[::-1], tenants)
    assert found == {(tenant, "closed" if tenant in losing else "in") for tenant in tenants}
    flights = [(await engines[2].usage(tenant, "ann")).tenant.flight for tenant in tenants]
    assert flights == [6, 6, 9, 9, 29, 29]
    told = Counter((one.tenant, one.kind) for one in await doctor.examine(engines[2].backend, many.chain))
    assert told == {("_", "closed"): 1} | {(tenant, "closed"): 1 for tenant in losing}
    for tenant in ("_", *losing):
        assert await engines[0].reopen(tenant, "operator") is not None
    for tenant in losing:
        await put(engines[1], many.job(tenant))
    assert await doctor.examine(engines[0].backend, many.chain) == []


async def test_idle_process_closes_what_it_knew(spare: Spare, many: Processes) -> None:
    """A process that does nothing at the time finds out too, and closes what it alone knew of."""
    many.patience = Patience()  # as in production: it must be enough
    knows, other = await many.process(), await many.process()
    (lost,) = tenants_on(spare, many, 0, 1)
    await put(other, many.job(lost))
    await asyncio.to_thread(spare.part)
    await put(knows, many.job(lost))
    await asyncio.to_thread(spare.die)
    assert await answered(many, other, lost) == "closed"
    assert (await other.usage(lost, "ann")).tenant.flight == 1
