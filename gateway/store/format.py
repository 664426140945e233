"""In which form documents are written while two versions run side by side, and which can be read.

A version reads the form it writes by itself and the one before. What a store is written in is a number the
store holds. It goes up when its operator finishes an upgrade, once no process lives that could not read
what comes, and never down. Until then a newer version writes as the older one does: whoever does not know
a field drops it when they write the document again. Keys, rows and scripts may only be added to.

No document's form has changed yet. To change one: raise `SCHEMA`, give the struct its field, and let `lower`
take away what the form before does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import StoreUnavailable
from gateway.store.backend import SCHEMA, TenantDoc
from policies.model import Job

LIVE_MS: Final = 60_000
"""How long a process that was heard of is taken to live."""

STEPS: Final[Mapping[int, str]] = {}
"""What SQLite's tables need, in SQL, on the way to a form from the one before. Redis' keys only grow."""

Lower = Callable[[Job, int], Job]
"""Takes from a job what an older form does not have."""

_json = msgspec.json.Encoder()
_tenants = msgspec.json.Decoder(TenantDoc)


class TooNew(StoreUnavailable):
    """A later version wrote this, and it is left as it is. Other tenants are served."""


class Member(Struct, frozen=True):
    """A process at the store: the newest form it reads, when it was heard of, what its operator calls it."""

    me: str
    newest: int
    at: int
    name: str = ""


class Upgrade(Struct, frozen=True):
    """How a store stands: the form it is written in, the newest this version knows, and who is in the way."""

    form: int
    newest: int
    behind: tuple[Member, ...] = ()


def behind(members: Iterable[Member], newest: int, now: int) -> tuple[Member, ...]:
    """Return the processes that live and could not read the newest form."""
    return tuple(each for each in members if each.newest < newest and each.at > now - LIVE_MS)


class Forms:
    """How this version writes and reads. `writes` is the form in force: the store's, once that is known."""

    def __init__(
        self,
        newest: int = SCHEMA,
        job: type[Job] = Job,
        lower: Lower = lambda job, _form: job,
        steps: Mapping[int, str] = STEPS,
    ) -> None:
        self.newest = newest
        self.steps = steps
        self.oldest = max(newest - 1, 1)
        self.writes = newest
        self._lower = lower
        self._jobs = msgspec.json.Decoder(job)

    def unfit(self, form: int) -> str | None:
        """Say why a store of a form cannot be used by this version; None where it can."""
        if self.oldest <= form <= self.newest:
            return None
        known = f"schema {self.newest}" if self.oldest == self.newest else f"{self.oldest} and {self.newest}"
        which = "the version that wrote it" if form > self.newest else "the versions between, one by one"
        return f"schema {form}; this Safelight knows {known}. Start {which}, or restore a copy from before."

    def written(self, job: Job) -> tuple[Job, str]:
        """Return a job as it will be read again, and its stored text. No job goes back to an older form."""
        form = self.form_after(job.f)
        if form != self.newest:
            job = self._lower(job, form)
        if job.f != form:
            job = replace(job, f=form)
        return job, _json.encode(job).decode()

    def form_after(self, form: int) -> int:
        """Return the form of a document written anew: never older, though that is not heard of here yet."""
        return max(self.writes, form)

    def job(self, text: str | bytes) -> Job:
        """Return a stored job; raises `msgspec.DecodeError` where it cannot be read."""
        job = self._jobs.decode(text)
        if job.f > self.newest:
            raise msgspec.ValidationError(f"a job is stored in form {job.f}")
        return job

    def tenant(self, text: str | bytes) -> TenantDoc:
        """Return a tenant's stored document; raises `TooNew`."""
        doc = _tenants.decode(text)
        if doc.f > self.newest:
            raise TooNew(f"a tenant is stored in form {doc.f}; this Safelight reads up to {self.newest}")
        return doc
