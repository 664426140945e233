"""Inputs of edits: announced, put, looked at, and pinned to a job.

An upload is a row that says what is to come, and later a blob that is what came. Nobody looks at the
bytes before a job asks for them: then they are judged once, whole, and what is refused is not kept. A job
is bound to what it saw by hash. URLs are judged here and fetched by the worker (`inputs.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from gateway.audit import Record
from gateway.blobs import Arrival, folders
from gateway.errors import Problem
from gateway.images import NotAnImage
from gateway.images.endings import ends
from gateway.inputs import ENDS, MOST_BYTES, find_upload, upload_key
from gateway.manners import Pinned
from gateway.store.contract import Conflict, Denied, Erased, JobFilter, Key
from policies import ids, quota
from policies.egress import PUBLIC
from policies.model import Deny, Flaw, JobState, Reason, Source, Upload

if TYPE_CHECKING:
    from gateway.blobs import Blobs, Doors
    from gateway.callers import Caller
    from gateway.images import Studio
    from gateway.secrets import Keyring
    from gateway.store.contract import Store
    from policies.model import InputRef, Job, JobRequest, MediaType

URL_SECONDS: Final = 300
USABLE_MS: Final = quota.DAY_MS
AT_ONCE: Final = 4
"""Uploads whose bytes are in memory to be judged; each may be ten million bytes and forty million pixels."""
MOST_KNOWN: Final = 20_000
OPEN: Final = frozenset(state for state in JobState if not state.ended)
LISTED: Final = 100
"""Open jobs that are read at a time."""


class Ticket(Struct, frozen=True):
    """An upload that may come: where to put it, with which headers, until when."""

    upload: Upload
    url: str
    headers: dict[str, str]
    expires_at: int
    replayed: bool = False


class UploadParts(Struct, frozen=True):
    """What uploads work with. `judge` says whether a URL may be called; `mint` returns a new id."""

    store: Store
    blobs: Blobs
    doors: Doors
    ring: Keyring
    studio: Studio
    judge: Callable[[str], Awaitable[bool]]
    mint: Callable[[], str]
    now: Callable[[], int]


class Uploads:
    """The use cases of uploads."""

    def __init__(self, parts: UploadParts) -> None:
        self._p = parts
        self._store = parts.store
        self._blobs = parts.blobs
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._known: dict[str, str] = {}
        """The hashes of uploads that were judged good."""

    # -- bringing ------------------------------------------------------------------------------------

    async def create(
        self, who: Caller, filename: str, media_type: MediaType, size: int, key: str | None = None
    ) -> Ticket:
        """Announce an upload of 1 to `MOST_BYTES` bytes; a repeat under its key has a fresh address."""
        now = self._p.now()
        upload = Upload(
            id=self._p.mint(),
            tenant=who.principal.tenant,
            subject=who.principal.subject,
            media_type=media_type,
            bytes=size,
            filename=filename,
            created_at=now,
            expires_at=now + USABLE_MS,
        )
        kept, replayed = await self._put(who, upload, None if key is None else Key(key, _fingerprint(upload)))
        if kept.expires_at <= now:
            raise Problem("upload_expired")
        place = self.key(kept)
        url = await self._blobs.put_url(place, kept.media_type, kept.bytes, URL_SECONDS)
        until = (now // 1000 + 1 + URL_SECONDS) * 1000  # links end with a second
        return Ticket(
            upload=kept,
            url=url or self._p.doors.make(Arrival(kept.tenant, place, kept.bytes), until),
            headers={"Content-Type": kept.media_type, **self._blobs.put_headers},
            expires_at=until,
            replayed=replayed,
        )

    def door(self, key: str, parts: Mapping[str, str]) -> Arrival | Literal["invalid", "expired"]:
        """Return what a link to put bytes by, as it came, lets in."""
        return self._p.doors.check(key, parts, self._p.now())

    async def receive(self, arrival: Arrival, pieces: AsyncIterable[bytes]) -> str:
        """Keep what a door let in and return its hash; the first that is whole stays.

        An upload that was refused or deleted meanwhile has no place any more, and nothing stays there.
        """
        digest = await self._blobs.take(arrival.key, pieces)
        if digest is None:
            raise Problem("upload_complete")
        place = arrival.key.rpartition("/")[0]
        if await self._store.get_upload(arrival.tenant, place.rpartition("/")[2]) is None:
            await self._blobs.delete(place)
            raise Problem("not_found")
        return digest

    async def keep(self, who: Caller, data: bytes) -> Upload:
        """Keep an image that came inside a request; the same bytes of the same caller are the same upload.

        Raises `Problem` where they are not one image of at most `MOST_BYTES`: then nothing is kept.
        """
        found, digest = await self._look(data) if len(data) <= MOST_BYTES else ("has too many bytes", "")
        if found not in ENDS:
            raise Problem("reference_rejected", f"An input {found}.")
        principal, now = who.principal, self._p.now()
        name = f"{principal.tenant}\0{principal.subject}\0{digest}".encode()
        upload = Upload(
            id=_uuid(hashlib.sha256(name).digest()),
            tenant=principal.tenant,
            subject=principal.subject,
            media_type=found,
            bytes=len(data),
            created_at=now,
            expires_at=now + USABLE_MS,
        )
        kept, _ = await self._put(who, upload, None)
        await self._blobs.put(self.key(kept), data)
        self._remember(kept.id, digest)
        return kept

    async def _put(self, who: Caller, upload: Upload, key: Key | None) -> tuple[Upload, bool]:
        record = Record(action="upload.create")
        answer = await self._store.put_upload(upload, quota.write(who.terms), record, key=key)
        match answer:
            case Denied(deny, _):
                raise Problem.of(deny)
            case Conflict():
                raise Problem("idempotency_key_reused")
            case Erased():
                raise Problem("upload_expired")
            case _:
                assert isinstance(answer.value, Upload)  # noqa: S101 - what was put is what is kept
                return answer.value, answer.replayed

    def key(self, upload: Upload) -> str:
        """Return where an upload's bytes are."""
        return upload_key(self._p.ring, upload)

    # -- pinning -------------------------------------------------------------------------------------

    async def pin(self, who: Caller, request: JobRequest) -> Pinned | Deny:
        """Return the inputs of an edit, judged; or which one cannot be used, and why.

        Uploads are read whole and decoded, URLs looked up and not fetched. An upload that is refused is
        dropped with its bytes.
        """
        refs = _refs(request)
        uploads = await self._mine(who, refs)
        if isinstance(uploads, Deny):
            return uploads
        sources: list[Source] = []
        for place, ref in refs:
            source = await self._source(place, ref, uploads.get(place))
            if isinstance(source, Deny):
                return source
            sources.append(source)
        mask = sources.pop() if request.mask is not None else None
        return Pinned(tuple(sources), mask)

    async def look(self, who: Caller, request: JobRequest) -> Deny | None:
        """Return why the inputs of an edit cannot be used, as far as that is seen without their bytes."""
        refs = _refs(request)
        uploads = await self._mine(who, refs)
        if isinstance(uploads, Deny):
            return uploads
        for place, ref in refs:
            upload = uploads.get(place)
            seen = await self._barred(place, ref) if upload is None else self._late(place, upload)
            if seen is not None:
                return seen
        return None

    async def _mine(self, who: Caller, refs: list[tuple[str, InputRef]]) -> dict[str, Upload] | Deny:
        """Return the caller's uploads by place; every reference to another one is a flaw."""
        found: dict[str, Upload] = {}
        flaws: list[Flaw] = []
        for place, ref in refs:
            if ref.upload is None:
                if place == "/mask" or ref.url is None:
                    flaws.append(Flaw(place, "names no upload"))
                continue
            name = ids.parse(ref.upload, ids.UPLOAD)
            upload = name and await self._store.get_upload(who.principal.tenant, name)
            if upload and upload.subject == who.principal.subject:
                found[place] = upload
            else:
                flaws.append(Flaw(f"{place}/upload", "is not an upload of yours"))
        if flaws:
            return Deny(Reason.INVALID_REQUEST, "An input is not there to be used.", flaws=tuple(flaws))
        return found

    async def _source(self, place: str, ref: InputRef, upload: Upload | None) -> Source | Deny:
        if upload is not None:
            return self._late(place, upload) or await self._pinned(f"{place}/upload", upload)
        return await self._barred(place, ref) or Source(url=ref.url)

    async def _barred(self, place: str, ref: InputRef) -> Deny | None:
        """Return the refusal of a URL that is not called from here."""
        if await self._p.judge(ref.url or ""):
            return None
        return Deny(Reason.REFERENCE_REJECTED, PUBLIC, flaws=(Flaw(f"{place}/url", PUBLIC),))

    def _late(self, place: str, upload: Upload) -> Deny | None:
        """Return the refusal of an upload that is past its time."""
        if upload.expires_at > self._p.now():
            return None
        what = "is too old to be used; upload it again"
        return _deny(Reason.UPLOAD_EXPIRED, f"{place}/upload", what)

    async def _pinned(self, place: str, upload: Upload) -> Source | Deny:
        """Return an upload as it is now, by hash, or why it is not to be used."""
        lying = await find_upload(self._blobs, self._p.ring, upload)
        if lying is None:
            return _deny(Reason.UPLOAD_INCOMPLETE, place, "has no bytes yet; PUT them to its URL")
        if upload.id in self._known and lying[1] == upload.bytes:
            return Source(upload.id, self._known[upload.id])
        wrong, digest = await self._judged(upload, *lying)
        if wrong is not None:
            await self._drop(upload.tenant, upload.id)
            return _deny(Reason.REFERENCE_REJECTED, place, wrong)
        self._remember(upload.id, digest)
        return Source(upload.id, digest)

    async def _judged(self, upload: Upload, key: str, size: int) -> tuple[str | None, str]:
        """Return what is wrong with an upload's bytes, if anything, and their hash."""
        if size != upload.bytes:
            return f"was declared {upload.bytes} bytes long and is {size}", ""
        async with self._turns:
            data = await self._blobs.read(key) or b""
            found, digest = await self._look(data)
        if found not in ENDS:
            return found, digest
        if found != upload.media_type:
            return f"was declared {upload.media_type} and is {found}", digest
        return None, digest

    async def _look(self, data: bytes) -> tuple[str, str]:
        """Return the media type of an image, or what is wrong with it; and the hash of the bytes."""
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        found = await self._p.studio.inspect(data)
        if isinstance(found, NotAnImage):
            return f"is no image that can be used: {found.reason.partition(':')[0]}", digest
        if not await asyncio.to_thread(ends, data):
            return "has something behind the image's end", digest
        return found.media_type, digest

    def _remember(self, upload: str, digest: str) -> None:
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[upload] = digest

    # -- forgetting ----------------------------------------------------------------------------------

    async def forget(self, job: Job) -> None:
        """Drop the uploads a job was made from, but for those an open job of its subject begins from too.

        They go with that one, or when their day is over.
        """
        brought = _brought(job)
        kept = await self._wanted(job) if brought else set()
        for upload in brought - kept:
            await self._drop(job.tenant, upload)

    async def _wanted(self, job: Job) -> set[str]:
        """Return the uploads that open jobs of a job's subject begin from: nobody else may use them."""
        where = JobFilter(subject=job.subject, states=OPEN, operation="edit")
        found: set[str] = set()
        before: int | None = None
        while True:
            page = await self._store.list_jobs(job.tenant, where, before=before, limit=LISTED)
            found.update(*(_brought(other) for other in page.jobs))
            before = page.next
            if before is None:
                return found

    async def _drop(self, tenant: str, upload: str) -> None:
        """Drop an upload and its bytes; those that cannot be deleted now go with the next sweep.

        Those of one that was kept again meanwhile stay, unless that falls between the look and the deletion:
        then the upload is as one whose bytes have not come.
        """
        self._known.pop(upload, None)
        await self._store.drop_upload(tenant, upload)
        if await self._store.get_upload(tenant, upload) is not None:
            return
        for place in folders(self._p.ring, tenant, upload):
            await self._blobs.delete(place)


def _refs(request: JobRequest) -> list[tuple[str, InputRef]]:
    """Return what an edit begins from, each with its place in the request; the mask comes last."""
    refs = [(f"/inputs/{at}", ref) for at, ref in enumerate(request.inputs)]
    return refs if request.mask is None else [*refs, ("/mask", request.mask)]


def _brought(job: Job) -> set[str]:
    """Return the uploads a job was made from."""
    return {source.upload for source in (*job.sources, job.mask) if source and source.upload}


def _deny(reason: Reason, place: str, what: str) -> Deny:
    return Deny(reason, f"{place} {what}.", flaws=(Flaw(place, what),))


def _fingerprint(upload: Upload) -> str:
    """Return what tells one announcement from another under the same key; no job has such a one."""
    said = msgspec.json.encode(("upload", upload.filename, upload.media_type, upload.bytes))
    return hashlib.sha256(b"\x01" + said).hexdigest()


def _uuid(digest: bytes) -> str:
    """Return a UUID (RFC 9562 §5.8) made of the first bytes of a hash."""
    number = int.from_bytes(digest[:16], "big") & ~(0xF << 76 | 0x3 << 62) | 8 << 76 | 2 << 62
    return str(uuid.UUID(int=number))
