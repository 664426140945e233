"""`safelight audit verify` and `safelight doctor`: the books, read beside a running server.

A tenant that is closed because the store lost some of it is told too, and opened again on an operator's word.

What is right is told in one line with its figures, so that a silent run is never taken for a good one;
what is wrong, each by itself. A job flagged for the operator is to be looked at and no fault of the books.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app import chain_of
from gateway.cli.screen import Screen
from gateway.cli.sources import Kept
from gateway.doctor import Broken, Finding, findings, verify_trail
from gateway.store.backend import Backend
from gateway.store.engine import Engine
from gateway.store.opening import How, open_backend, open_to_read


def run_verify(kept: Kept, screen: Screen) -> int:
    """Verify every tenant's trail, tell the outcome, and return the exit code."""
    return asyncio.run(_verify(kept, screen))


def run_doctor(kept: Kept, screen: Screen) -> int:
    """Recompute every figure, tell the outcome, and return the exit code."""
    return asyncio.run(_doctor(kept, screen))


def run_release(kept: Kept, tenant: str, by: str, screen: Screen) -> int:
    """Open a tenant that was closed because the store lost some of it; return the exit code."""
    return asyncio.run(_release(kept, tenant, by, screen))


async def _release(kept: Kept, tenant: str, by: str, screen: Screen) -> int:
    me = os.urandom(12).hex()
    backend = open_backend(kept.store, How(me))
    engine = Engine(backend, chain_of(kept.secret), lambda: os.urandom(12).hex())
    try:
        await engine.start()
        shut = await engine.reopen(tenant, by)
    finally:
        await engine.close()
    if shut is None:
        screen.cross(f"{tenant} is not closed")
        return 1
    screen.tick(f"{tenant} is open again; what was known above version {shut.found} is taken for lost")
    return 0


async def _verify(kept: Kept, screen: Screen) -> int:
    chain = chain_of(kept.secret)
    async with _opened(kept) as backend:
        trails = [await verify_trail(backend, chain, tenant) for tenant in await backend.tenants()]
    broken = [trail for trail in trails if isinstance(trail, Broken)]
    for trail in broken:
        screen.cross(f"{trail.tenant}, version {trail.version}: {trail.detail}")
    if broken:
        return 1
    links = sum(trail.links for trail in trails if not isinstance(trail, Broken))
    screen.tick(f"the trail holds: {_many(links, 'link')} of {_many(len(trails), 'tenant')}")
    return 0


async def _doctor(kept: Kept, screen: Screen) -> int:
    chain = chain_of(kept.secret)
    found: list[Finding] = []
    jobs = entries = links = 0
    async with _opened(kept) as backend:
        tenants = await backend.tenants()
        for tenant in tenants:
            of = await backend.examine(tenant)
            found += findings(tenant, of, chain)
            jobs, entries, links = jobs + len(of.jobs), entries + len(of.ledger), links + len(of.links)
    wrong = [finding for finding in found if finding.kind != "flag"]
    for finding in wrong:
        screen.cross(f"{finding.tenant}, {finding.of}: {finding.detail}")
        if finding.kind == "closed":
            screen.note(f"once it is looked at: safelight doctor --release {finding.tenant}")
    if not any(finding.kind == "difference" for finding in wrong):
        figures = ((jobs, "job"), (entries, "ledger entry"), (links, "trail link"))
        told = ", ".join(_many(count, word) for count, word in figures)
        screen.tick(f"the books balance: {_many(len(tenants), 'tenant')}, {told}")
    for flag in found:
        if flag.kind == "flag":
            screen.note(f"to look at: {flag.tenant}, {flag.of}: {flag.detail}")
    return 1 if wrong else 0


@asynccontextmanager
async def _opened(kept: Kept) -> AsyncIterator[Backend]:
    """Open the store to read, beside whoever writes."""
    backend = open_to_read(kept.store, me="examine")
    try:
        yield backend
    finally:
        await backend.close()


def _many(count: int, word: str) -> str:
    plural = word.removesuffix("y") + "ies" if word.endswith("y") else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"
