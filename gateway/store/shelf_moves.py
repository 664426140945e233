"""Moves of what lies beside the jobs: service keys, uploads, webhook endpoints, deliveries.

As in `moves.py`: a fold decides first and writes last, and may run more than once. Every call that is
counted is counted after it is known to change something, so that a replay or an absent thing costs
nothing. A lease of a delivery is worth one record: what was put or recorded meanwhile ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.store.backend import KeyRow, Want
from gateway.store.contract import (
    Absent,
    Conflict,
    Count,
    Denied,
    Dropped,
    Endpoints,
    Erased,
    Kept,
    Key,
    Notice,
    Stale,
    Told,
)
from gateway.store.moves import Move, bound_now, denied
from policies.model import Deny, ServiceKey, Upload, Usage
from policies.webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from gateway.audit import Record
    from gateway.store.draft import Draft


class _WriteMove(Move):
    """A caller's call that is counted and told of under their name."""

    def __init__(self, tenant: str, count: Count, record: Record, by: str) -> None:
        super().__init__(tenant, by)
        self.by = by
        self._count = count
        self._record = record

    def _counted(self, draft: Draft) -> Usage | Denied:
        """Return the usage with this call counted, or why it is not; asked before anything is written."""
        usage = draft.usage(self.by)
        counted = self._count(usage, draft.now)
        return self._denied(draft, counted) if isinstance(counted, Deny) else counted

    def _denied(self, draft: Draft, deny: Deny) -> Denied:
        usage = draft.usage(self.by)
        draft.say(self.by, denied(self._record, deny))
        return Denied(deny, usage)

    def _done(self, draft: Draft, counted: Usage) -> None:
        draft.post(self.by, counted)
        draft.say(self.by, self._record)


class PutKeyMove(_WriteMove):
    """Keep a new service key."""

    def __init__(self, key: ServiceKey, count: Count, record: Record, by: str) -> None:
        super().__init__(key.tenant, count, record, by)
        self.key = key

    def wants(self, want: Want) -> None:
        """Want to know whether it is there."""
        super().wants(want)
        want.docs.add(("key", self.key.id))

    def fold(self, draft: Draft) -> object:
        """Put it, once."""
        there = draft.doc("key", self.key.id)
        if isinstance(there, ServiceKey):
            return Kept(there, replayed=True)
        counted = self._counted(draft)
        if isinstance(counted, Denied):
            return counted
        draft.put_doc(self.key)
        self._done(draft, counted)
        return Kept(self.key)


class RevokeKeyMove(_WriteMove):
    """Revoke a service key, for ever."""

    def __init__(self, tenant: str, key: str, count: Count, record: Record, by: str) -> None:
        super().__init__(tenant, count, record, by)
        self.key = key

    def wants(self, want: Want) -> None:
        """Want the key."""
        super().wants(want)
        want.docs.add(("key", self.key))

    def fold(self, draft: Draft) -> object:
        """Set the instant; one that is set stays."""
        there = draft.doc("key", self.key)
        if not isinstance(there, ServiceKey):
            return Absent()
        if there.revoked_at is not None:
            return Kept(there, replayed=True)
        counted = self._counted(draft)
        if isinstance(counted, Denied):
            return counted
        revoked = replace(there, revoked_at=draft.now)
        draft.put_doc(revoked)
        self._done(draft, counted)
        return Kept(revoked)


class PutUploadMove(_WriteMove):
    """Keep what was declared of an upload, bound to its key if it brings one."""

    def __init__(self, upload: Upload, count: Count, record: Record, key: Key | None) -> None:
        super().__init__(upload.tenant, count, record, upload.subject)
        self.upload = upload
        self.key = key

    def wants(self, want: Want) -> None:
        """Want to know whether it is there."""
        super().wants(want)
        want.docs.add(("upload", self.upload.id))
        if self.key is not None:
            want.keys.add((self.by, self.key.text))

    def fold(self, draft: Draft) -> object:
        """Answer from the key if it is bound, from the upload if it is there, else put it."""
        if self.key is not None:
            draft.need_key(self.by, self.key.text)
        before = self._before(draft, self.key) if self.key is not None else None
        if before is not None:
            return before
        there = draft.doc("upload", self.upload.id)
        if isinstance(there, Upload):
            return Kept(self._extended(draft, there), replayed=True)
        counted = self._counted(draft)
        if isinstance(counted, Denied):
            return counted
        draft.put_doc(self.upload)
        self._bind(draft)
        self._done(draft, counted)
        return Kept(self.upload)

    def _before(self, draft: Draft, key: Key) -> object:
        bound = bound_now(draft, self.by, key)
        if bound is None:
            return None
        if bound.fingerprint != key.fingerprint:
            return Conflict()
        there = draft.doc("upload", bound.job)
        return Kept(there, replayed=True) if isinstance(there, Upload) else Erased()

    def _extended(self, draft: Draft, there: Upload) -> Upload:
        after = replace(there, expires_at=max(there.expires_at, self.upload.expires_at))
        if after != there:
            draft.put_doc(after)
        if self.key is not None:
            self._bind(draft)
            draft.wrote = True
        return after

    def _bind(self, draft: Draft) -> None:
        if self.key is not None:
            row = KeyRow(self.key.fingerprint, self.upload.id, draft.now)
            draft.bind(self.by, self.key.text, row)


class DropUploadMove(Move):
    """Forget an upload; `before`: only one that expired until then."""

    def __init__(self, tenant: str, upload: str, before: int | None = None) -> None:
        super().__init__(tenant)
        self.upload = upload
        self._before = before

    def wants(self, want: Want) -> None:
        """Want the upload as it is."""
        want.docs.add(("upload", self.upload))

    def fold(self, draft: Draft) -> object:
        """Drop it; return whether it was there to be dropped."""
        there = draft.doc("upload", self.upload)
        if not isinstance(there, Upload) or (self._before is not None and there.expires_at > self._before):
            return False
        draft.drop_doc("upload", self.upload)
        return True


class ChangeEndpointMove(_WriteMove):
    """Put or drop an endpoint by a rule over all of the tenant's."""

    def __init__(self, tenant: str, change: Endpoints, count: Count, record: Record, by: str) -> None:
        super().__init__(tenant, count, record, by)
        self._change = change

    def wants(self, want: Want) -> None:
        """Want all endpoints."""
        super().wants(want)
        want.endpoints = True

    def fold(self, draft: Draft) -> object:
        """Ask the rule; one that is disabled by it is told nothing more."""
        endpoints = draft.endpoints()
        after = self._change(tuple(endpoints.values()), draft.now)
        if isinstance(after, Deny):
            return self._denied(draft, after)
        if after is None or (isinstance(after, Dropped) and after.id not in endpoints):
            return Absent()
        counted = self._counted(draft)
        if isinstance(counted, Denied):
            return counted
        if isinstance(after, Dropped):
            draft.drop_doc("endpoint", after.id)
        else:
            draft.put_doc(after)
        self._done(draft, counted)
        if isinstance(after, Dropped):
            return after
        if after.disabled is not None:
            draft.hush(after.id)
        return Kept(after, replayed=after.id in endpoints)


class PutDeliveryMove(_WriteMove):
    """Make a delivery due: a test, or one of before again."""

    def __init__(self, delivery: Delivery, count: Count, record: Record, by: str) -> None:
        super().__init__(delivery.tenant, count, record, by)
        self.delivery = delivery

    def wants(self, want: Want) -> None:
        """Want the delivery and the endpoints."""
        super().wants(want)
        want.deliveries.add(self.delivery.id)
        want.endpoints = True

    def fold(self, draft: Draft) -> object:
        """Put it. To a disabled endpoint it is kept, and not due."""
        there = draft.delivery(self.delivery.id)
        after = self.delivery
        if there is not None:
            after = replace(there, state=after.state, due_at=after.due_at)
        endpoint = draft.endpoints().get(after.endpoint)
        if endpoint is None:
            return Absent()
        counted = self._counted(draft)
        if isinstance(counted, Denied):
            return counted
        after = _due(after, endpoint)
        draft.queue(after, fresh=there is None)
        self._done(draft, counted)
        return Kept(after, replayed=there is not None)


class RecordDeliveryMove(Move):
    """Write down what came of a try, for the delivery and its endpoint.

    Of a closed tenant too, as what came of its attempts is: it moves no money, and what is not written down
    is sent again.
    """

    gate = True

    def __init__(self, notice: Notice, told: Told, record: Record | None) -> None:
        super().__init__(notice.delivery.tenant)
        self.notice = notice
        self._told = told
        self._record = record

    def wants(self, want: Want) -> None:
        """Want the delivery and the endpoints."""
        want.deliveries.add(self.notice.delivery.id)
        want.endpoints = True

    def fold(self, draft: Draft) -> object:
        """Write both as the rule says, while the lease holds; tell of an endpoint that this disables."""
        name, fence = self.notice.delivery.id, self.notice.fence
        there = draft.delivery(name)
        if there is None or draft.told(name) or (name, fence) in draft.scene.fenced:
            return Stale()
        endpoint = draft.endpoints().get(there.endpoint)
        if endpoint is None:
            return Stale()
        after, told = self._told(there, endpoint, draft.now)
        silenced = told.disabled is not None and endpoint.disabled is None
        if silenced and self._record is not None:
            draft.user(told.subject)  # all that is missing is asked for before any write
        after = _due(after, told)
        draft.queue(after, fresh=False, fence=fence)
        if told != endpoint:
            draft.put_doc(told)
        if silenced:
            self._silence(draft, told)
        return Kept(after)

    def _silence(self, draft: Draft, endpoint: Endpoint) -> None:
        draft.hush(endpoint.id)
        if self._record is not None:
            draft.say(endpoint.subject, replace(self._record, code=endpoint.disabled))


def _due(delivery: Delivery, endpoint: Endpoint) -> Delivery:
    """Return a delivery as it is due: never to an endpoint that is disabled."""
    return delivery if endpoint.disabled is None else replace(delivery, due_at=None)
