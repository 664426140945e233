"""A change as the script takes it: what it expects, and the commands that write it.

Pure: changes in, keys and plain lists out. What a change writes to one key goes in one command. Order
within a change: what was there and goes, what is put, what is dropped. A place in a list is the tenant's
version and a number below `PLACES`, so that lists go by the order of commits, whoever made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from gateway.store.backend import KEYS_KEPT_MS, Change, DeliveryPut, DocDrop, DocPut, JobPut, News
from gateway.store.redis_keys import Names, Room, ref
from policies.model import EXACT, Upload
from policies.order import PRIORITIES
from policies.quota import IDLE

if TYPE_CHECKING:
    from gateway.store.backend import JobDrop, Kind
    from gateway.store.contract import LedgerRow
    from policies.model import Priority

PLACES: Final = 65_536
MOST: Final = 2_000
"""Arguments of one command: a script's stack holds a few thousand."""
LEASES: Final = 500
"""Leases of one script."""
HOLDERS: Final[dict[Kind, str]] = {"endpoint": "ep", "key": "ky", "upload": "up"}
"""Which hash of a tenant holds documents of a kind."""

NEVER: Final = -1
"""Until when keys have run out that never do: those of grants, which are nobody's."""
DROPPED: Final = EXACT
"""Since when deliveries of a dropped endpoint are hushed: they are as if gone, and the sweep removes them."""

Check = list[Any]
Write = list[Any]
_json = msgspec.json.Encoder()


class Known(Struct, frozen=True):
    """What must be known of a stored job to drop it: whose it is, and its deliveries with their endpoints."""

    subject: str | None = None
    told: dict[str, str] = {}


class Heard(Struct, frozen=True, array_like=True):
    """What is published: which process tells, and its news. The script that commits writes it too."""

    by: str
    news: tuple[News, ...]


class Sheet:
    """The keys of one script, each once, with the type it must have."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.types: list[str] = []

    def __call__(self, key: str, kind: str) -> int:
        """Return the number of a key, from 1."""
        at = self.keys.get(key)
        if at is None:
            at = self.keys[key] = len(self.keys) + 1
            self.types.append(kind)
        return at


class Writes:
    """Commands gathered by key, in their order."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self.first: list[Write] = []
        self._many: dict[tuple[int, str], Write] = {}
        self._gone: dict[int, Write] = {}
        self._last: list[Write] = []

    def hset(self, key: str, *pairs: str | int) -> None:
        """Set fields of a hash."""
        at = self._sheet(key, "hash")
        made = self._many.get((at, ""))
        if made is None:
            self._many[at, ""] = ["HSET", at, *pairs]
        else:
            made += pairs

    def sadd(self, key: str, member: str) -> None:
        """Add to a set."""
        at = self._sheet(key, "set")
        self._many.setdefault((at, ""), ["SADD", at]).append(member)

    def zadd(self, key: str, score: int, member: str, how: str = "") -> None:
        """Give a member of a sorted set its score. `how`: XX only one that is there, LT only downwards."""
        at = self._sheet(key, "zset")
        made = self._many.get((at, how))
        if made is None:
            self._many[at, how] = ["ZADD", at, how, score, member] if how else ["ZADD", at, score, member]
        else:
            made += (score, member)

    def xadd(self, key: str, version: int, *pairs: str | int) -> None:
        """Add the entry of a version to a stream."""
        self.first.append(["XADD", self._sheet(key, "stream"), f"{version}-0", *pairs])

    def hdel(self, key: str, field: str) -> None:
        """Remove a field."""
        at = self._sheet(key, "hash")
        self._gone.setdefault(at, ["HDEL", at]).append(field)

    def zrem(self, key: str, member: str) -> None:
        """Remove a member of a sorted set."""
        at = self._sheet(key, "zset")
        self._gone.setdefault(at, ["ZREM", at]).append(member)

    def delete(self, key: str, kind: str) -> None:
        """Remove a key, last of all."""
        self._last.append(["DEL", self._sheet(key, kind)])

    def all(self) -> list[Write]:
        """Return the commands in their order, none with more than `MOST` values."""
        made: list[Write] = []
        for (_at, how), write in self._many.items():
            made += _parts(write, 3 if how else 2) if len(write) > MOST else (write,)
        for write in self._gone.values():
            made += _parts(write, 2) if len(write) > MOST else (write,)
        return [*self.first, *made, *self._last]


def _parts(write: Write, head: int) -> Iterator[Write]:
    return ([*write[:head], *write[at : at + MOST]] for at in range(head, len(write), MOST))


class Packer:
    """Packs the changes of one script."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.sheet = Sheet()

    def group(self, changes: Sequence[Change], known: dict[str, Known]) -> list[Any]:
        """Return the group of one tenant, from its changes and what is known of the jobs they drop."""
        room = self._names.room(changes[0].tenant)
        return [self.sheet(room.t, "hash"), [self._change(room, change, known) for change in changes]]

    def asking(self, tenant: str) -> list[Any]:
        """Return a group that writes nothing and asks for a turn: no tenant is of the version it expects."""
        doc = self.sheet(self._names.room(tenant).t, "hash")
        return [doc, [([["v", doc, -1, 1]], [], "", 1, [])]]

    def _change(
        self, room: Room, change: Change, known: dict[str, Known]
    ) -> tuple[list[Check], list[Write], str, int, list[int]]:
        checks = list(self._checks(room, change, known))
        writes = Writes(self.sheet)
        if change.state is not None:
            self._figures(room, change, writes)
            self._beside(room, change, writes)
        for at, put in enumerate(change.puts):
            self._put(room, put, _place(change, at), writes)
        for drop in change.drops:
            self._drop(room, change, drop, known[drop.job], writes)
        lines = [self.sheet(room.waits(line), "zset") for line in joined(change)]
        return checks, writes.all(), self._news(change), -1 if change.expect is None else 0, lines

    def _checks(self, room: Room, change: Change, known: dict[str, Known]) -> Iterator[Check]:
        sheet = self.sheet
        if change.expect is not None:
            yield ["v", sheet(room.t, "hash"), change.expect, 1, change.story]
        if change.begins:
            yield ["o", sheet(room.t, "hash")]
        for (subject, key), row in change.keys.items():
            if not row.over:
                over = change.now - KEYS_KEPT_MS if subject else NEVER
                yield ["k", sheet(room.key(subject, key)[0], "hash"), over]
        yield from self._job_checks(room, change, known)
        for told in change.deliveries:
            name = told.delivery.id
            yield ["e", sheet(room.dl, "hash"), name, int(not told.fresh)]
            if told.fence is not None:
                yield ["f", sheet(room.df, "hash"), name, told.fence, name]
        if change.ledger:
            yield ["x", sheet(room.led, "stream"), change.ledger[0].version]
        if change.link is not None:
            yield ["x", sheet(room.aud, "stream"), change.link.version]

    def _job_checks(self, room: Room, change: Change, known: dict[str, Known]) -> Iterator[Check]:
        sheet, fences = self.sheet, self._names.shards[room.shard].fence
        for put in change.puts:
            name = put.job.id
            yield ["v", sheet(room.job(name), "hash"), put.expect, 0]
            if put.fence is not None:
                yield ["f", sheet(fences, "hash"), ref(name, room.tenant), put.fence, name]
        for drop in change.drops:
            yield ["v", sheet(room.job(drop.job), "hash"), drop.expect, 0]
            yield ["n", sheet(room.of_job(drop.job), "hash"), len(known[drop.job].told)]

    def _figures(self, room: Room, change: Change, writes: Writes) -> None:
        """Write figures, references, keys, ledger and trail."""
        state, shard = change.state, self._names.shards[room.shard]
        assert state is not None  # noqa: S101 - for the type checker
        writes.hset(room.t, "v", state.version, "d", _text(state.doc))
        if change.gate:
            writes.hset(room.t, "shut", int(state.doc.shut is not None))
        if change.expect == 0:
            writes.sadd(shard.tenants, room.tenant)
        for subject, user in change.users.items():
            if user.account == IDLE:
                writes.hdel(room.u, subject)
            else:
                writes.hset(room.u, subject, _text(user.account))
            if user.fresh:
                writes.hset(room.s, subject, user.ref)
        for (subject, key), row in change.keys.items():
            at, name = room.key(subject, key)
            writes.hset(at, "f", row.fingerprint, "j", row.job, "a", row.at)
            if subject:  # a grant's key is never forgotten
                writes.zadd(shard.kx, row.at, ref(name, room.tenant))
        if change.ledger:
            _bound(change.ledger)
            writes.xadd(room.led, state.version, "r", _text(change.ledger))
        if (link := change.link) is not None:
            writes.xadd(room.aud, link.version, "a", link.at, "h", link.head, "r", link.rows.decode())
            writes.zadd(shard.ax, link.at, room.tenant, "NX")

    def _put(self, room: Room, put: JobPut, place: int, writes: Writes) -> None:
        """Write a job, its places in lists and its place in the queue."""
        job, shard = put.job, self._names.shards[room.shard]
        name = ref(job.id, room.tenant)
        writes.hset(room.job(job.id), "v", job.version, "d", put.doc, "u", job.subject)
        if put.expect == 0:
            for key in (room.ix, room.by(job.subject), room.open, room.waits(job.priority)):
                writes.zadd(key, place, job.id)
        if isinstance(put.due, int):
            how = "" if put.expect == 0 else "XX"
            writes.zadd(room.queue(job.priority), put.due, job.id, how)
            writes.zadd(shard.line(job.priority), put.due, name, how)
            writes.zadd(shard.turns(job.priority), put.due, room.tenant, "LT")
            if put.expect == 0:
                writes.hset(shard.weight, room.tenant, job.weight)
        elif put.due == "drop":
            writes.zrem(room.queue(job.priority), job.id)
            writes.zrem(shard.line(job.priority), name)
            writes.hdel(shard.fence, name)
        if job.state != "queued":
            writes.zrem(room.waits(job.priority), job.id)
        if job.ended_at is not None:
            writes.zrem(room.open, job.id)
            writes.zadd(shard.end, job.ended_at, name)

    def _drop(self, room: Room, change: Change, drop: JobDrop, known: Known, writes: Writes) -> None:
        """Remove a job with all its places and deliveries; write down what it leaves."""
        shard, name = self._names.shards[room.shard], ref(drop.job, room.tenant)
        subject = next((put.job.subject for put in change.puts if put.job.id == drop.job), known.subject)
        for key in (room.ix, room.by(subject or ""), room.open):
            writes.zrem(key, drop.job)
        for priority in PRIORITIES:
            writes.zrem(room.queue(priority), drop.job)
            writes.zrem(room.waits(priority), drop.job)
            writes.zrem(shard.line(priority), name)
        writes.zrem(shard.end, name)
        writes.hdel(shard.fence, name)
        for delivery, endpoint in known.told.items():
            forget(room, self._names, delivery, endpoint, writes)
        writes.delete(room.job(drop.job), "hash")
        writes.delete(room.of_job(drop.job), "hash")
        self._leave(room, drop.job, drop.places, change.now, writes)

    def _leave(self, room: Room, name: str, places: tuple[str, ...], now: int, writes: Writes) -> None:
        shard = self._names.shards[room.shard]
        writes.zadd(shard.gone, now, ref(name, room.tenant))
        writes.hset(shard.places, ref(name, room.tenant), _text(places))

    def _beside(self, room: Room, change: Change, writes: Writes) -> None:
        """Write documents and deliveries: first what goes, then what is put."""
        for endpoint in change.hushed:
            self._silence(room, endpoint, writes)
            writes.hset(room.hu, endpoint, change.state.version if change.state else 0)
        for doc in change.docs:
            if isinstance(doc, DocDrop):
                self._drop_doc(room, doc, change.now, writes)
            else:
                self._put_doc(room, doc, writes)
        for at, put in enumerate(change.deliveries):
            self._tell(room, put, _place(change, at), writes)

    def _silence(self, room: Room, endpoint: str, writes: Writes) -> None:
        turns = self._names.shards[room.shard].dturn
        writes.first.append(["UNLINK", self.sheet(room.pending(endpoint), "zset")])  # long: freed aside
        writes.first.append(["ZREM", self.sheet(turns, "zset"), ref(endpoint, room.tenant)])

    def _put_doc(self, room: Room, put: DocPut, writes: Writes) -> None:
        writes.hset(getattr(room, HOLDERS[put.kind]), put.id, put.doc)
        if isinstance(put.value, Upload):
            shard, name = self._names.shards[room.shard], ref(put.id, room.tenant)
            writes.zadd(shard.upx, put.value.expires_at, name)
            writes.zrem(shard.gone, name)  # it was dropped before, and its place is its own again
            writes.hdel(shard.places, name)

    def _drop_doc(self, room: Room, drop: DocDrop, now: int, writes: Writes) -> None:
        shard = self._names.shards[room.shard]
        writes.hdel(getattr(room, HOLDERS[drop.kind]), drop.id)
        if drop.kind == "upload":
            writes.zrem(shard.upx, ref(drop.id, room.tenant))
            self._leave(room, drop.id, (), now, writes)
        elif drop.kind == "endpoint":
            self._silence(room, drop.id, writes)
            writes.hset(room.hu, drop.id, DROPPED)
            writes.zadd(shard.dgone, now, ref(drop.id, room.tenant))

    def _tell(self, room: Room, put: DeliveryPut, place: int, writes: Writes) -> None:
        """Write a delivery with the version it is put by: one hushed later is not due."""
        told, shard = put.delivery, self._names.shards[room.shard]
        writes.hset(room.dl, told.id, f"{place // PLACES} {put.doc}")
        if put.fresh:
            writes.zadd(room.told(told.endpoint), place, told.id)
            writes.zadd(shard.dlx, told.created_at, ref(told.id, ref(told.endpoint, room.tenant)))
            if told.job is not None:
                writes.hset(room.of_job(told.job), told.id, told.endpoint)
        else:
            writes.first.append(["HINCRBY", self.sheet(room.df, "hash"), told.id, 1])
        if put.due is None:
            writes.zrem(room.pending(told.endpoint), told.id)
        else:
            writes.zadd(room.pending(told.endpoint), put.due, told.id)
            writes.zadd(shard.dturn, put.due, ref(told.endpoint, room.tenant), "LT")

    def _news(self, change: Change) -> str:
        jobs = tuple((put.job.subject, put.job.id) for put in change.puts)
        lines = {put.job.priority for put in change.puts if put.expect == 0}
        if not jobs and not change.deliveries:
            return ""
        return _text(News(change.tenant, jobs, bool(lines), bool(change.deliveries), "batch" in lines))


def joined(change: Change) -> dict[Priority, list[str]]:
    """Return the jobs a change puts into lines, in their order, by line."""
    lines: dict[Priority, list[str]] = {}
    for put in change.puts:
        if put.expect == 0 and put.job.state == "queued":
            lines.setdefault(put.job.priority, []).append(put.job.id)
    return lines


def _bound(ledger: Sequence[LedgerRow]) -> None:
    """Refuse figures that not every part of the store holds exactly; raises `OverflowError`."""
    for row in ledger:
        entry = row.entry
        if max(abs(entry.granted), abs(entry.held), abs(entry.charged)) > EXACT:
            raise OverflowError("a ledger entry is beyond what is held exactly")


def told_to_others(me: str, news: News) -> str:
    """Return news as they are published."""
    return _text(Heard(me, (news,)))


def forget(room: Room, names: Names, delivery: str, endpoint: str, writes: Writes) -> None:
    """Remove a delivery from all that names it but its job's list."""
    writes.hdel(room.dl, delivery)
    writes.hdel(room.df, delivery)
    writes.zrem(room.told(endpoint), delivery)
    writes.zrem(room.pending(endpoint), delivery)
    writes.zrem(names.shards[room.shard].dlx, ref(delivery, ref(endpoint, room.tenant)))


def _place(change: Change, at: int) -> int:
    version = change.state.version if change.state is not None else 0
    return version * PLACES + at


def _text(value: object) -> str:
    return _json.encode(value).decode()
