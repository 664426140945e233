"""Verbs as moves: what each reads, the rule it asks, what it writes.

`fold` runs a move over a draft and returns its answer; it may run more than once, each time from the
state as it is. It decides first and writes last, and nothing after its first write can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from gateway.store.backend import KEYS_KEPT_MS, Change, JobPut, KeyRow, Want
from gateway.store.contract import (
    Absent,
    Asked,
    Begun,
    Canceled,
    Claim,
    Conflict,
    Count,
    Decide,
    Denied,
    End,
    Ended,
    Erased,
    Gone,
    Granted,
    Key,
    Open,
    Recorded,
    Replayed,
    Stale,
    Submitted,
)
from policies import lifecycle, quota
from policies.model import Attempt, Deny, Job, JobState, Usage

if TYPE_CHECKING:
    from gateway.audit import Record
    from gateway.store.backend import Anchor
    from gateway.store.draft import Draft
    from gateway.store.format import Forms
    from policies.webhooks import Delivery

GRANTS: Final = ""
"""The subject under which grants keep their keys: no caller can have it."""
LOST: Final = frozenset({JobState.FAILED, JobState.BLOCKED, JobState.CANCELED})
"""Ends after which a repeat makes a job anew."""


class TenantMove(Protocol):
    """One call on its way into a tenant's commit."""

    tenant: str
    done: asyncio.Future[object]
    gate: bool

    def wants(self, want: Want) -> None:
        """Say what must be known before the fold."""
        ...

    def fold(self, draft: Draft) -> object:
        """Ask the rule, write into the draft, return the answer."""
        ...


class Move:
    """What all moves have: a tenant, somebody who waits, and perhaps a subject.

    `gate`: it is taken of a tenant that is closed too, once it is closed: what is to be closed yet is of a
    version below those lost, which are not used again.
    """

    gate = False

    def __init__(self, tenant: str, subject: str | None = None) -> None:
        self.tenant = tenant
        self.subject = subject
        self.done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def wants(self, want: Want) -> None:
        """Want the subject's figures."""
        if self.subject is not None:
            want.subjects.add(self.subject)


def bound_now(draft: Draft, subject: str, key: Key) -> KeyRow | None:
    """Return what a key is bound to, if it has not run out."""
    bound = draft.key(subject, key.text)
    return bound if bound is not None and draft.now - bound.at < KEYS_KEPT_MS else None


class SubmitMove(Move):
    """Bind the key, decide, hold, store."""

    def __init__(self, job: Job, decide: Decide, record: Record, key: Key | None) -> None:
        super().__init__(job.tenant, job.subject)
        self.job = job
        self.key = key
        self._decide = decide
        self._record = record

    def wants(self, want: Want) -> None:
        """Want the subject's figures, and a key that must be known before anything is decided."""
        super().wants(want)
        if self.key is not None and self.key.mode == "attach":
            want.keys.add((self.job.subject, self.key.text))

    def fold(self, draft: Draft) -> object:
        """Answer from the key if it is bound, else from the rule. A job that is there is not made again."""
        subject = self.job.subject
        before = self._before(draft, self.key) if self.key is not None else None
        if before is not None:
            return before
        usage = draft.usage(subject)
        made = draft.made(self.job.id)
        if made is not None:
            return Submitted(made, usage)
        answer = self._decide(usage, draft.now)
        if isinstance(answer, Deny):
            if self.key is not None:
                draft.need_key(subject, self.key.text)
            draft.say(subject, denied(self._record, answer))
            return Denied(answer, usage)
        job = lifecycle.accepted(self.job, draft.now, draft.user(subject).ref, answer.hold)
        draft.put(job, expect=0, due=draft.at)
        draft.post(subject, answer.usage, answer.entries, job.policy_version)
        if self.key is not None:
            over = self.key.mode != "once"
            draft.bind(subject, self.key.text, KeyRow(self.key.fingerprint, job.id, draft.now, over))
        draft.say(subject, self._record)
        return Submitted(job, answer.usage)

    def _before(self, draft: Draft, key: Key) -> object:
        """Return what the key answers by itself, as its mode says; None where a job is to be made."""
        subject = self.job.subject
        if key.mode == "renew":
            return None
        if key.mode == "attach":
            draft.need_key(subject, key.text)
        bound = bound_now(draft, subject, key)
        if bound is None:
            return None
        alike = bound.fingerprint == key.fingerprint
        if key.mode == "once" and not alike:
            return Conflict()
        if key.mode == "attach" and not (alike and draft.now - bound.at <= key.within_ms):
            return None
        job = draft.job(bound.job)
        if key.mode == "attach" and (job is None or job.state in LOST):
            return None
        return Replayed(job, draft.usage(subject)) if job else Erased()


class _CallMove(Move):
    """A caller's call on a job: counted against and told of whoever calls, the job's owner or an admin."""

    def __init__(self, tenant: str, job: str, count: Count, record: Record, by: str | None) -> None:
        super().__init__(tenant, by)
        self.job = job
        self._count = count
        self._record = record

    def wants(self, want: Want) -> None:
        """Want the job, and the caller's figures."""
        super().wants(want)
        want.jobs.add(self.job)

    def _counted(self, draft: Draft, job: Job) -> Usage | Denied:
        """Return the usage with this call counted. All that is missing is asked for before any write."""
        draft.user(job.subject)
        usage = draft.usage(self._by(job))
        counted = self._count(usage, draft.now)
        if isinstance(counted, Deny):
            draft.say(self._by(job), denied(self._record, counted))
            return Denied(counted, usage)
        return counted

    def _by(self, job: Job) -> str:
        return self.subject or job.subject


class CancelMove(_CallMove):
    """End a queued job; ask for the end of a running one. `queued`: its end is to be told somebody."""

    queued = False

    def fold(self, draft: Draft) -> object:
        """Move by the job's state as it is."""
        job = draft.job(self.job)
        if job is None:
            return Absent()
        if job.state.ended:
            return Ended(job)
        if job.cancel_requested_at is not None:
            return Asked(job)
        counted = self._counted(draft, job)
        return counted if isinstance(counted, Denied) else self._cancel(draft, job, counted)

    def _cancel(self, draft: Draft, job: Job, counted: Usage) -> object:
        by = self._by(job)
        if job.state is JobState.QUEUED:
            ended = lifecycle.canceled(job, draft.now)
            news = draft.news_of(ended)
            draft.put(ended, expect=job.version, due="drop")
            draft.post(by, counted)
            posted = quota.settle(draft.usage(job.subject), ended, 0)
            draft.post(job.subject, posted.usage, posted.entries, job.policy_version)
            draft.say(by, replace(self._record, job=job.id, code=str(ended.state)))
            self.queued = _tell(draft, news)
            return Canceled(ended)
        asked = lifecycle.cancel_asked(job, draft.now)
        draft.put(asked, expect=job.version)
        draft.post(by, counted)
        draft.say(by, replace(self._record, job=job.id))
        return Asked(asked)


class EraseMove(_CallMove):
    """Forget an ended job."""

    def fold(self, draft: Draft) -> object:
        """Drop the job if it is over."""
        job = draft.job(self.job)
        if job is None:
            return Absent()
        if not job.state.ended:
            return Open()
        counted = self._counted(draft, job)
        if isinstance(counted, Denied):
            return counted
        draft.drop(job)
        draft.post(self._by(job), counted)
        draft.say(self._by(job), replace(self._record, job=job.id))
        return Gone(job)


class RecordMove(Move):
    """End a leased job and settle its hold. `queued`: its end is to be told somebody."""

    queued = False

    def __init__(self, claim: Claim, end: End, record: Record) -> None:
        super().__init__(claim.job.tenant, claim.job.subject)
        self.claim = claim
        self._end = end
        self._record = record

    def fold(self, draft: Draft) -> object:
        """End the job as it is now; only a lost lease or an ended job is final."""
        job = draft.job(self.claim.job.id, self.claim.job)
        if job is None or job.state.ended or (job.id, self.claim.fence) in draft.scene.fenced:
            return Stale(job)
        try:
            ended = self._end(job, draft.now)
        except Exception:
            draft.job(job.id)  # what was claimed may be old: ask for the job as it is, and decide again
            raise
        posted = quota.settle(draft.usage(job.subject), ended, ended.charged, ended.provider_cost)
        news = draft.news_of(ended)
        draft.put(ended, expect=job.version, due="drop", fence=self.claim.fence)
        draft.post(job.subject, posted.usage, posted.entries, job.policy_version)
        code = ended.error.code if ended.error else str(ended.state)
        draft.say(
            job.subject,
            replace(self._record, job=job.id, code=code, credits=ended.charged, policy=job.policy_version),
        )
        self.queued = _tell(draft, news)
        return Recorded(ended)


class GrantMove(Move):
    """Give credits once per key."""

    def __init__(
        self,
        tenant: str,
        subject: str | None,
        post: Callable[[Usage, int], quota.Posted],
        key: str,
        record: Record,
    ) -> None:
        super().__init__(tenant, subject or GRANTS)
        self.key = key
        self._post = post
        self._record = record

    def wants(self, want: Want) -> None:
        """Want the user's figures and the key."""
        super().wants(want)
        want.keys.add((GRANTS, self.key))

    def fold(self, draft: Draft) -> object:
        """Post the grant unless the key is bound. A grant's key is never forgotten."""
        subject = self.subject or GRANTS
        draft.need_key(GRANTS, self.key)
        if draft.key(GRANTS, self.key) is not None:
            return Granted(draft.usage(subject), replayed=True)
        posted = self._post(draft.usage(subject), draft.now)
        draft.post(subject, posted.usage, posted.entries)
        draft.bind(GRANTS, self.key, KeyRow("", "", draft.now))
        draft.say(subject, self._record)
        return Granted(posted.usage)


class CountMove(Move):
    """Count a call against its window."""

    def __init__(self, tenant: str, subject: str, count: Count) -> None:
        super().__init__(tenant, subject)
        self._count = count

    def fold(self, draft: Draft) -> object:
        """Count, or deny with nothing written."""
        subject = self.subject or ""
        counted = self._count(draft.usage(subject), draft.now)
        if not isinstance(counted, Deny):
            draft.post(subject, counted)
        return counted


class SayMove(Move):
    """Tell the trail something that changed nothing else."""

    def __init__(self, tenant: str, subject: str, record: Record) -> None:
        super().__init__(tenant, subject)
        self._record = record

    def fold(self, draft: Draft) -> object:
        """Add the line."""
        draft.say(self.subject, self._record)
        return None


class DropMove(Move):
    """Remove an ended job that is past its time."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.tenant)
        self.job = job

    def wants(self, want: Want) -> None:
        """Want the job as it is."""
        want.jobs.add(self.job.id)

    def fold(self, draft: Draft) -> object:
        """Drop the job if it is still there and over."""
        job = draft.job(self.job.id)
        if job is None or not job.state.ended:
            return None
        draft.drop(job)
        return job


class RestMove(Move):
    """Forget figures of users that tell nothing any more. The references that stand for them stay."""

    def __init__(self, tenant: str, subjects: Iterable[str]) -> None:
        super().__init__(tenant)
        self._subjects = sorted(subjects)

    def wants(self, want: Want) -> None:
        """Want their figures as they are."""
        want.subjects.update(self._subjects)

    def fold(self, draft: Draft) -> object:
        """Forget those that are idle now; return how many."""
        idle = [subject for subject in self._subjects if quota.idle(draft.user(subject).account, draft.now)]
        for subject in idle:
            draft.rest(subject)
        return len(idle)


class AnchorMove(Move):
    """Remember where a trail that is about to be cut will begin."""

    def __init__(self, tenant: str, anchor: Anchor) -> None:
        super().__init__(tenant)
        self._anchor = anchor

    def fold(self, draft: Draft) -> object:
        """Set the anchor; it never moves back."""
        if draft.tenant_doc.anchor is None or draft.tenant_doc.anchor.version < self._anchor.version:
            draft.tenant_doc = replace(draft.tenant_doc, anchor=self._anchor)
            draft.wrote = True
        return None


class AttemptMove:
    """Change one leased job and nothing else: no money, no trail, no tenant version."""

    begins = False

    def __init__(
        self, claim: Claim, change: Callable[[Job, int], Job], due: Callable[[Job, int], int]
    ) -> None:
        self.tenant = claim.job.tenant
        self.claim = claim
        self.job: Job | None = claim.job
        self.due = due
        self.done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._change = change

    def attempt(self, now: int, forms: Forms) -> Change | Stale:
        """Return the change, from the job as last known; `Stale` where there is nothing to change."""
        if self.job is None or self.job.state.ended:
            return Stale(self.job)
        job, text = forms.written(self._change(self.job, now))
        put = JobPut(job, text, self.job.version, self.claim.fence, self.due(job, now))
        return Change(tenant=self.tenant, now=now, puts=[put], begins=self.begins)

    def answer(self, change: Change) -> Begun:
        """Return what the caller is told once the change is durable."""
        return Begun(change.puts[0].job)


class BeginMove(AttemptMove):
    """Write an attempt down. Refused where the tenant is closed."""

    begins = True

    def __init__(self, claim: Claim, attempt: Attempt, due: Callable[[Job, int], int]) -> None:
        super().__init__(claim, lambda job, now: lifecycle.began(job, attempt, now), due)


def _tell(draft: Draft, news: Sequence[Delivery]) -> bool:
    """Write down, with a job's end, who is to be told of it."""
    for each in news:
        draft.queue(each)
    return bool(news)


def denied(record: Record, deny: Deny) -> Record:
    """Return the line that tells of a call's denial."""
    return replace(record, decision="deny", job=None, code=str(deny.reason), rule=deny.rule, credits=0)
