"""The use cases of a caller: submit, wait, list, cancel, delete, quote, and what is left.

Gather values, ask a policy, match on the answer, act. Nothing here knows HTTP; what cannot go on is a
`Problem`. Foreign and unknown jobs are the same 404.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from gateway.audit import Record
from gateway.blobs import places
from gateway.callers import CALLERS_KEPT, MINUTE_MS, Caller, Rulebook
from gateway.crash import Hook, nowhere
from gateway.errors import Problem, StoreUnavailable
from gateway.following import Following
from gateway.manners import NATIVE, Manner, Pinned, Pins
from gateway.store.contract import (
    Absent,
    Asked,
    Canceled,
    Conflict,
    Denied,
    Ended,
    Erased,
    Found,
    Gone,
    JobFilter,
    Key,
    Open,
    Page,
    Remains,
    Replayed,
    Submitted,
    Watch,
)
from policies import access, aliases, menu, order, pricing, prompts, quota
from policies.bundle import Bundle
from policies.model import Deny, Job, JobRequest, JobState, Priority, Reason, Usage
from policies.routing import Resolved

if TYPE_CHECKING:
    from gateway.blobs import Blobs
    from gateway.secrets import Keyring
    from gateway.store.contract import Store
    from policies.quota import Admitted

POSITION_KEPT_MS: Final = 1_000
QUOTES_PER_MINUTE: Final = 60


Full = Callable[[Priority], Deny | None]
"""Says why no new job of a line is taken now, if none is."""


class Accepted(Struct, frozen=True):
    """A job that is in the store. `replayed`: it was before."""

    job: Job
    usage: Usage
    replayed: bool = False


class Quoted(Struct, frozen=True):
    """What a submit would answer now, with nothing spent."""

    allowed: bool
    code: str | None = None
    detail: str | None = None
    rule: str | None = None
    retry_after_ms: int | None = None
    price: int | None = None
    final_prompt: str | None = None
    adjustments: tuple[str, ...] = ()
    model: str | None = None
    size: str | None = None


class _Prepared(Struct, frozen=True):
    """A request every policy but the quota has said yes to."""

    resolved: Resolved
    price: pricing.Quote
    adjustments: tuple[str, ...]
    pinned: Pinned = Pinned()


class Jobs:
    """The use cases. `rulebook` returns the bundle in force; `mint` a new job id (UUIDv7 text)."""

    def __init__(  # noqa: PLR0913 - a use case names its collaborators
        self,
        store: Store,
        rulebook: Callable[[], Rulebook],
        ring: Keyring,
        blobs: Blobs,
        mint: Callable[[], str],
        now: Callable[[], int],
        crash: Hook = nowhere,
        *,
        pins: Pins,
        full: Full = lambda _priority: None,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.now = now
        self._full = full
        self._chance = chance
        self._pins = pins
        self._crash = crash
        self._store = store
        self._rulebook = rulebook
        self._ring = ring
        self._blobs = blobs
        self._mint = mint
        self._positions: dict[tuple[str, str], tuple[int, int]] = {}
        self._quotes: dict[tuple[str, str], tuple[int, int]] = {}

    # -- submit ------------------------------------------------------------------------------------

    async def submit(
        self, who: Caller, request: JobRequest, key: str | None, manner: Manner = NATIVE
    ) -> Accepted:
        """Admit a job, or return the one its key made before; raises `Problem` for every other answer."""
        book = self._rulebook()
        asked = _named(request, book.bundle) if manner.aliases else request
        prepared = self._prepare(who, asked, book, manner.tier)
        if request.operation == "edit" and isinstance(prepared, _Prepared):
            prepared = await self._pin(who, request, prepared)
        job = self._job(who, request, prepared, book, manner)
        bound = _key(request, key, manner)
        if isinstance(prepared, Deny):
            if bound is None and prepared.reason is Reason.INVALID_REQUEST:
                raise Problem.of(prepared)
            decide = _denying(prepared)
        else:
            decide = quota.admission(job.id, prepared.price.total, who.terms, self._full(job.priority))
            self._crash("accepted")
        answer = await self._store.submit(job, decide, self._line("job.submit", job), key=bound)
        match answer:
            case Submitted(job, usage):
                return Accepted(job, usage)
            case Replayed(job, usage):
                return Accepted(job, usage, replayed=True)
            case Conflict():
                raise Problem("idempotency_key_reused")
            case Erased():
                raise Problem("job_erased")
            case Denied(deny, _):
                raise Problem.of(deny)

    async def _pin(self, who: Caller, request: JobRequest, prepared: _Prepared) -> _Prepared | Deny:
        pinned = await self._pins.pin(who, request)
        return pinned if isinstance(pinned, Deny) else replace(prepared, pinned=pinned)

    def _prepare(
        self, who: Caller, request: JobRequest, book: Rulebook, tier: Literal["1K", "2K"] | None = None
    ) -> _Prepared | Deny:
        """Ask prompts, routing and pricing, in this order."""
        judged = prompts.judge_request(request, who.user_plan.prompt, book.rules)
        if isinstance(judged, Deny):
            return judged
        resolved = book.router.resolve(judged.request, who.user_plan, tier)
        if isinstance(resolved, Deny):
            return resolved
        price = pricing.quote(book.bundle.prices, resolved.size, resolved.quality, request.count)
        if isinstance(price, Deny):
            return price
        return _Prepared(resolved, price, (*judged.adjustments, *resolved.adjustments))

    def _job(
        self,
        who: Caller,
        request: JobRequest,
        prepared: _Prepared | Deny,
        book: Rulebook,
        manner: Manner,
    ) -> Job:
        principal = who.principal
        if isinstance(prepared, Deny):
            return Job(
                self._mint(), principal.tenant, principal.subject, request, policy_version=book.version
            )
        resolved = prepared.resolved
        shaping = prompts.shaping(resolved.request, book.bundle.styles)
        return Job(
            id=self._mint(),
            tenant=principal.tenant,
            subject=principal.subject,
            request=resolved.request,
            model=resolved.model,
            size=resolved.size,
            aspect_ratio=resolved.ratio,
            shaping=shaping,
            final_prompt=prompts.shape(shaping, frozenset()),
            show_final_prompt=who.user_plan.final_prompt,
            adjustments=prepared.adjustments,
            price_each=prepared.price.each,
            weight=who.tenant_plan.queue_weight,
            priority=order.priority(who.tenant_plan, who.user_plan),
            slots=resolved.slots,
            route=resolved.steps,
            policy_version=book.version,
            dialect=manner.dialect,
            links=who.user_plan.links or manner.links or "signed",
            variants=manner.variants,
            sources=prepared.pinned.sources,
            mask=prepared.pinned.mask,
        )

    def _line(self, action: str, job: Job) -> Record:
        """Return the trail's line for a submit: the prompt only as a keyed hash."""
        return Record(
            action=action,
            job=job.id,
            model=job.model or None,
            credits=job.quoted,
            prompt=self._ring.sign("prompts", job.request.prompt.encode())[:16].hex(),
            policy=job.policy_version,
        )

    async def quote(self, who: Caller, request: JobRequest) -> Quoted:
        """Say what a submit would answer, and spend nothing. Sixty a minute for each process.

        Of an edit's inputs all is asked but their bytes, which are looked at when a job begins from them.
        """
        self._count_quote(who)
        prepared = self._prepare(who, request, self._rulebook())
        if request.operation == "edit" and isinstance(prepared, _Prepared):
            prepared = await self._pins.look(who, request) or prepared
        if isinstance(prepared, Deny):
            if prepared.reason is Reason.INVALID_REQUEST:
                raise Problem.of(prepared)
            return _refused(prepared)
        usage = await self._store.usage(who.principal.tenant, who.principal.subject)
        resolved, price = prepared.resolved, prepared.price
        full = self._full(order.priority(who.tenant_plan, who.user_plan))
        admitted = quota.admission("", price.total, who.terms, full)(usage, self.now())
        denied = admitted if isinstance(admitted, Deny) else None
        shaping = prompts.shaping(resolved.request, self._rulebook().bundle.styles)
        return Quoted(
            allowed=denied is None,
            code=None if denied is None else str(denied.reason),
            detail=None if denied is None else denied.detail,
            rule=None if denied is None else denied.rule,
            retry_after_ms=None if denied is None else denied.retry_after_ms,
            price=price.total,
            final_prompt=prompts.shape(shaping, frozenset()) if who.user_plan.final_prompt else None,
            adjustments=prepared.adjustments,
            model=resolved.model,
            size=resolved.size,
        )

    def _count_quote(self, who: Caller) -> None:
        name = (who.principal.tenant, who.principal.subject)
        now = self.now()
        start, count = self._quotes.get(name, (now, 0))
        if now >= start + MINUTE_MS:
            start, count = now, 0
        if count >= QUOTES_PER_MINUTE:
            raise Problem(
                "rate_limited",
                "Sixty quotes a minute, counted by each process for itself.",
                retry_after_ms=start + MINUTE_MS - now,
                rule="limit.quote",
            )
        if len(self._quotes) >= CALLERS_KEPT:
            self._quotes.clear()
        self._quotes[name] = (start, count + 1)

    # -- read --------------------------------------------------------------------------------------

    async def get(self, who: Caller, job_id: str) -> Found:
        """Return a job the caller may see, and the caller's usage."""
        found = await self._store.get_job(who.principal.tenant, job_id, who.principal.subject)
        return self._seen(who, found)

    def follow(self, who: Caller, job_id: str) -> Following:
        """Subscribe to a job, which the caller may see or not: that is for `get` to say."""
        store, tenant = self._store, who.principal.tenant
        watch = store.watch(tenant, job=job_id)
        return Following(watch, lambda: store.wait_job(tenant, job_id, 0, 0.0), self._chance)

    async def wait(self, who: Caller, job_id: str, after: int | None, seconds: float) -> Found:
        """Return the job when it has ended (`after` None) or is past a version, or when time is up."""
        version = 2**53 if after is None else after
        with self.follow(who, job_id) as following:
            found = await self.get(who, job_id)
            job = await following.until(
                lambda job: job.state.ended or job.version > version, found.job, seconds
            )
        if job is found.job:
            return found
        usage = await self._store.usage(who.principal.tenant, who.principal.subject)
        return self._seen(who, Found(job, usage) if job else None)

    async def list(self, who: Caller, where: JobFilter, before: int | None, limit: int) -> Page:
        """Return the caller's jobs, or the tenant's for its admins, newest first."""
        if not who.principal.is_admin:
            where = replace(where, subject=who.principal.subject)
        return await self._store.list_jobs(who.principal.tenant, where, before=before, limit=limit)

    async def position(self, who: Caller, job: Job) -> int | None:
        """Return how many of the tenant's queued jobs come first; None once it runs. A second old at most.

        A job that has just come stands behind all: one count a second serves all of a tenant's new jobs.
        None too where the store cannot tell: no answer about a job that is there fails for its place.
        """
        if job.state is not JobState.QUEUED:
            return None
        now = self.now()
        fresh = job.version == 1 and now - job.created_at < POSITION_KEPT_MS
        name = (job.tenant, "" if fresh else job.id)
        kept = self._positions.get(name)
        if kept is None or now - kept[0] >= POSITION_KEPT_MS:
            if len(self._positions) >= CALLERS_KEPT:
                self._positions.clear()
            try:
                place = await self._store.position(who.principal.tenant, job)
            except StoreUnavailable:
                return None
            kept = self._positions[name] = (now, place)
        return kept[1]

    def watch(self, who: Caller) -> Watch:
        """Subscribe to changes of the caller's own jobs."""
        return self._store.watch(who.principal.tenant, who.principal.subject)

    async def usage(self, who: Caller) -> Usage:
        """Return both levels as they count now: this month's, topped up."""
        usage = await self._store.usage(who.principal.tenant, who.principal.subject)
        return quota.as_of(usage, self.now(), who.terms)

    async def models(self, who: Caller) -> tuple[menu.ModelOffer, ...]:
        """Return what the caller may ask for, with prices."""
        book = self._rulebook()
        return menu.offered(book.bundle, book.router, who.user_plan)

    def price(self, who: Caller) -> int | None:
        """Return credits for one medium image of the caller's default size; None where it has no price."""
        bundle = self._rulebook().bundle
        size = bundle.models[who.user_plan.models[0]].sizes[0].size
        price = pricing.quote(bundle.prices, size, "medium", 1)
        return None if isinstance(price, Deny) else price.each

    # -- change ------------------------------------------------------------------------------------

    async def cancel(self, who: Caller, job_id: str) -> tuple[Job, bool]:
        """End a queued job or ask for a running one's end; True means it still runs."""
        await self.get(who, job_id)
        answer = await self._store.cancel(
            who.principal.tenant,
            job_id,
            quota.write(who.terms),
            Record(action="job.cancel"),
            by=who.principal.subject,
        )
        match answer:
            case Asked(job):
                return job, True
            case Canceled(job) | Ended(job):
                return job, False
            case Absent():
                raise Problem("not_found")
            case Denied(deny, _):
                raise Problem.of(deny)

    async def erase(self, who: Caller, job_id: str) -> None:
        """Forget an ended job: its prompt, inputs and images. Its key answers `job_erased` from now on.

        Images that cannot be deleted now, or that a crash leaves, go with the next sweep. Uploads it was
        made from go too, but for those that another open job begins from.
        """
        await self.get(who, job_id)
        answer = await self._store.erase(
            who.principal.tenant,
            job_id,
            quota.write(who.terms),
            Record(action="job.erase"),
            by=who.principal.subject,
        )
        match answer:
            case Gone(job):
                await self._pins.forget(job)
                for place in places(self._ring, Remains.of(job)):
                    await self._blobs.delete(place)
            case Open():
                raise Problem("job_open")
            case Absent():
                raise Problem("not_found")
            case Denied(deny, _):
                raise Problem.of(deny)

    def _seen(self, who: Caller, found: Found | None) -> Found:
        if found is None or isinstance(
            access.may_see(who.principal, found.job.tenant, found.job.subject), Deny
        ):
            _missing()
        return found


def _key(request: JobRequest, key: str | None, manner: Manner) -> Key | None:
    """Return what a submit's repeats are known by: its key, or for some dialects what it asks for.

    No client can send the latter's text: it begins with a control character.
    """
    print_ = request.fingerprint()
    if manner.tier is not None:
        print_ = hashlib.sha256(f"{manner.tier}\0{print_}".encode()).hexdigest()
    if key is not None:
        return Key(key, print_)
    if manner.repeat is not None:
        return Key(f"\x01{manner.dialect}\x01{print_}", print_, manner.repeat, manner.within_ms)
    return None


def _named(request: JobRequest, bundle: Bundle) -> JobRequest:
    """Return the request with our own name of its model. Its fingerprint stays that of what was asked."""
    return request if request.model is None else replace(request, model=aliases.meant(request.model, bundle))


def _missing() -> NoReturn:
    raise Problem("not_found")


def _refused(deny: Deny) -> Quoted:
    return Quoted(
        allowed=False,
        code=str(deny.reason),
        detail=deny.detail,
        rule=deny.rule,
        retry_after_ms=deny.retry_after_ms,
    )


def _denying(deny: Deny) -> Callable[[Usage, int], Admitted | Deny]:
    return lambda _usage, _now: deny
