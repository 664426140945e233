"""What a change expects of the store, held against what is there.

A back end gathers what is stored of all that a batch touches, in whatever way is cheap for it, and asks
here which changes may be written. Nothing here reads or writes: a change is good whole or not at all.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.store.backend import KEYS_KEPT_MS, Change, Want


class Stored(NamedTuple):
    """What is stored of all that a commit touches. What is absent is not in it."""

    tenants: dict[str, tuple[int, str]]
    jobs: dict[tuple[str, str], int]
    fences: dict[tuple[str, str], int]
    keys: dict[tuple[str, str, str], int]
    deliveries: dict[tuple[str, str], int]
    shut: frozenset[str] = frozenset()


def verdict(change: Change, stored: Stored, taken: set[tuple[str, str]]) -> frozenset[str] | None:
    """Return None for a change that may be written, else whose lease is lost (maybe nobody's)."""
    tenant = change.tenant
    version, doc = stored.tenants.get(tenant, (0, change.story))
    if change.expect is not None and (version != change.expect or change.story not in doc):
        return frozenset()
    if change.begins and tenant in stored.shut:
        return frozenset()
    for (subject, key), row in change.keys.items():
        at = stored.keys.get((tenant, subject, key))
        if at is not None and not row.over and (not subject or change.now - at < KEYS_KEPT_MS):
            return frozenset()  # a grant's key, which is nobody's, never runs out
    leased = [put for put in change.puts if put.fence is not None]
    lost = frozenset(put.job.id for put in leased if stored.fences.get((tenant, put.job.id)) != put.fence)
    expect = [(put.job.id, put.expect) for put in change.puts] + [(d.job, d.expect) for d in change.drops]
    stale = any((tenant, job) in taken or stored.jobs.get((tenant, job), 0) != v for job, v in expect)
    if change.deliveries:
        known = [(put, stored.deliveries.get((tenant, put.delivery.id))) for put in change.deliveries]
        lost |= {put.delivery.id for put, fence in known if put.fence is not None and fence != put.fence}
        stale |= any((fence is None) is not put.fresh for put, fence in known)
    return lost if lost or stale else None


def touched(change: Change) -> Want:
    """Return what a refused change's moves will want to know."""
    return Want(
        change.tenant,
        state=change.expect is not None or change.begins,
        subjects=set(change.users),
        jobs={put.job.id for put in change.puts} | {drop.job for drop in change.drops},
        keys=set(change.keys),
        docs={(each.kind, each.id) for each in change.docs},
        deliveries={put.delivery.id for put in change.deliveries},
        endpoints=bool(change.docs or change.deliveries),
    )
