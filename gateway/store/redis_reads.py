"""What is read of a tenant in Redis, and how replies become values. Sends nothing itself.

A load is a list of commands that travel together, the tenant's document first: what another process
commits between two of them leaves a document older than what is read after it, and its version then
refuses whatever is decided from the two. A stored text that cannot be read is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.store import shelf_rows
from gateway.store.backend import KeyRow, Loaded, TenantState, UserState, Want
from gateway.store.contract import JobFilter, LedgerRow, TrailLink
from gateway.store.redis_pack import DROPPED, HOLDERS
from policies.model import Account, Job
from policies.quota import IDLE, idle

if TYPE_CHECKING:
    from gateway.store.backend import Doc, Kind
    from gateway.store.reads import Reading
    from gateway.store.redis_keys import Room
    from gateway.store.redis_link import Command
    from gateway.store.redis_pack import Sheet
    from policies.webhooks import Delivery, Endpoint

_accounts = msgspec.json.Decoder(Account)
_ledger = msgspec.json.Decoder(tuple[LedgerRow, ...])

Replies = Iterator[Any]


def asked(room: Room, want: Want) -> list[Command]:
    """Return the commands of a load."""
    commands: list[Command] = [("HMGET", room.t, "v", "d")] if want.state else []
    if want.subjects:
        commands += [("HMGET", key, *sorted(want.subjects)) for key in _of_users(room, want)]
    commands += [("HGET", room.job(job), "d") for job in sorted(want.jobs)]
    commands += [("HMGET", room.key(*key)[0], "f", "j", "a") for key in sorted(want.keys)]
    commands += [("HGET", getattr(room, HOLDERS[kind]), name) for kind, name in sorted(want.docs)]
    if want.deliveries:
        commands += [("HGETALL", room.hu), ("HMGET", room.dl, *sorted(want.deliveries))]
    if want.endpoints:
        commands.append(("HGETALL", room.ep))
    return commands


def numbered(sheet: Sheet, room: Room, want: Want) -> list[list[Any]]:
    """Return the commands of a load as a script takes them, with the numbers of their keys."""
    return [[verb, sheet(str(key), "hash"), *rest] for verb, key, *rest in asked(room, want)]


def answered(want: Want, replies: Replies, reading: Reading) -> Loaded:
    """Return what the replies to `asked` hold."""
    loaded = Loaded(users={}, jobs={}, keys={})
    if want.state:
        loaded.state = state(next(replies), reading)
    if want.subjects:
        figures = next(replies)
        refs = [b""] * len(figures) if want.figures else next(replies)
        loaded.users = users(sorted(want.subjects), figures, refs)
    loaded.jobs = {job: job_of(reading, job, next(replies)) for job in sorted(want.jobs)}
    for key in sorted(want.keys):
        form, job, at = next(replies)
        if at is not None:
            loaded.keys[key] = KeyRow(form.decode(), job.decode(), int(at))
    loaded.docs = {(kind, name): doc(reading, kind, name, next(replies)) for kind, name in sorted(want.docs)}
    if want.deliveries:
        hushed = since(next(replies))
        found = zip(sorted(want.deliveries), next(replies), strict=True)
        loaded.deliveries = {name: delivery(reading, name, text, hushed) for name, text in found}
    if want.endpoints:
        loaded.endpoints = {each.id: each for each in endpoints(reading, next(replies))}
    return loaded


def _of_users(room: Room, want: Want) -> tuple[str, ...]:
    return (room.u,) if want.figures else (room.u, room.s)


def state(reply: list[bytes | None], reading: Reading) -> TenantState:
    """Return a tenant's document and version."""
    version, text = reply
    if version is None or text is None:
        return TenantState()
    return TenantState(int(version), reading.forms.tenant(text))


def users(
    subjects: Iterable[str], figures: Sequence[bytes | None], refs: Sequence[bytes | None]
) -> dict[str, UserState]:
    """Return the users that have a reference; those without figures are idle."""
    found = zip(subjects, figures, refs, strict=True)
    return {
        subject: UserState(name.decode(), IDLE if text is None else _accounts.decode(text))
        for subject, text, name in found
        if name is not None
    }


def job_of(reading: Reading, name: str, text: bytes | None) -> Job | None:
    """Return a job, None where it is not there or cannot be read."""
    return None if text is None else reading.job(name, _decoded(text))


def idle_users(reply: list[bytes], now: int) -> list[str]:
    """Return the users of a part of a hash whose figures tell nothing any more."""
    return [name for name, text in pairs(reply).items() if idle(_accounts.decode(text), now)]


def doc(reading: Reading, kind: Kind, name: str, text: bytes | None) -> Doc | None:
    """Return a document, None where it is not there or cannot be read."""
    found: Doc | None = None
    if text is not None:
        found = reading.value(shelf_rows.DECODERS[kind], name, _decoded(text))
    return found


def pairs(reply: list[bytes]) -> dict[str, bytes]:
    """Return the fields of a hash."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def since(reply: list[bytes]) -> dict[str, int]:
    """Return from which version on an endpoint's deliveries may be due."""
    return {name: int(version) for name, version in pairs(reply).items()}


def dropped(hushed: dict[str, int], endpoint: str) -> bool:
    """Say whether an endpoint was dropped: its deliveries are removed later, and not there until then."""
    return hushed.get(endpoint) == DROPPED


def delivery(reading: Reading, name: str, text: bytes | None, hushed: dict[str, int]) -> Delivery | None:
    """Return a delivery; one put before its endpoint was hushed is not due."""
    if text is None:
        return None
    version, _, rest = _decoded(text).partition(" ")
    found: Delivery | None = reading.value(shelf_rows.DELIVERY, name, rest)
    if found is None or dropped(hushed, found.endpoint):
        return None
    if int(version) < hushed.get(found.endpoint, 0):
        found = msgspec.structs.replace(found, due_at=None)
    return found


def endpoints(reading: Reading, reply: list[bytes]) -> list[Endpoint]:
    """Return endpoints, oldest first."""
    found = [reading.value(shelf_rows.ENDPOINT, name, _decoded(text)) for name, text in pairs(reply).items()]
    return sorted((each for each in found if each is not None), key=lambda each: (each.created_at, each.id))


def ledger(entries: list[Any], limit: int | None = None) -> list[LedgerRow]:
    """Return the rows of a stream's entries: whole versions, until there are `limit`."""
    found: list[LedgerRow] = []
    for _id, fields in entries:
        found += _ledger.decode(fields[1])
        if limit is not None and len(found) >= limit:
            break
    return found


def links(entries: list[Any]) -> list[TrailLink]:
    """Return the links of a trail's entries."""
    found = []
    for name, fields in entries:
        named = pairs(fields)
        version = int(name.partition(b"-")[0])
        found.append(TrailLink(version, int(named["a"]), named["h"].decode(), named["r"]))
    return found


def fits(job: Job, where: JobFilter) -> bool:
    """Say whether a job is one that is asked for."""
    request = job.request
    return (
        (where.subject is None or job.subject == where.subject)
        and (not where.states or job.state in where.states)
        and (where.operation is None or request.operation == where.operation)
        and (where.model is None or job.model == where.model)
        and (where.created_after is None or job.created_at > where.created_after)
        and (where.created_before is None or job.created_at < where.created_before)
        and all(request.metadata.get(key) == value for key, value in where.metadata.items())
    )


def _decoded(text: bytes) -> str:
    """Return stored bytes as text; what is no text cannot be read as anything else either."""
    return text.decode("utf-8", "replace")
