"""Gets ready what an edit begins from: images read, judged, cleaned and kept once, before anything is paid.

What a caller brought may go at any time, and a URL may answer otherwise tomorrow. So a job first makes
copies of its own, without what a camera wrote beside the picture; whatever dies after that goes on from
the very same bytes. Adapters say in which form they take them (`Capabilities.inputs`, `mask`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from gateway.blobs import folder, folders, media_type
from gateway.crash import Hook, nowhere
from gateway.images import NotAnImage
from gateway.providers.adapter import Input
from gateway.wire import Cut, Wire, WireFailure, WireRequest, WireResponse
from policies import retry

if TYPE_CHECKING:
    from gateway.blobs import Blobs, Links
    from gateway.images import Studio
    from gateway.runs import Run
    from gateway.secrets import Keyring
    from gateway.store.contract import Store
    from policies.model import Job, Source, Upload
    from policies.routing import Capabilities

MOST_BYTES: Final = 10_485_760
"""What callers may bring, and what the upstreams we know take."""
ENDS: Final[Mapping[str, str]] = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
"""The types an input may have, and how the keys of each end."""
FIRST: Final = 1000
"""The number of a job's first input among its blobs: above every output's index."""
MASK: Final = 1999
FETCH_SECONDS: Final = 30.0
FETCH_TRIES: Final = 3
LINK_SECONDS: Final = 900
_ACCEPT: Final = (("Accept", ", ".join(ENDS)),)
_HOPELESS: Final = frozenset({Cut.JUDGED, Cut.TOO_LARGE})


def upload_key(ring: Keyring, upload: Upload) -> str:
    """Return where an upload's bytes are put."""
    return f"{folder(ring, upload.tenant, upload.id)}/0.{ENDS[upload.media_type]}"


async def find_upload(blobs: Blobs, ring: Keyring, upload: Upload) -> tuple[str, int] | None:
    """Return where an upload's bytes are and how many; None where there are none.

    They were put where the secret of that day said, which may not be the first of today.
    """
    for place in folders(ring, upload.tenant, upload.id):
        key = f"{place}/0.{ENDS[upload.media_type]}"
        size = await blobs.size(key)
        if size is not None:
            return key, size
    return None


class Prepared(Struct, frozen=True):
    """A job's own copies of its inputs, by key. Their bytes are read when they are sent."""

    keys: tuple[str, ...]
    mask: str | None = None


class Inputs:
    """Where a job's inputs come from. `fetch` gets a stranger's URL, judged."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        studio: Studio,
        ring: Keyring,
        links: Links,
        fetch: Callable[[WireRequest], Awaitable[Wire]],
        crash: Hook = nowhere,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._studio = studio
        self._ring = ring
        self._links = links
        self._fetch = fetch
        self._crash = crash

    async def prepare(self, run: Run) -> Prepared | None:
        """Return the job's copies of its inputs; None where one cannot be read: then none is kept."""
        job = run.job
        place = folder(self._ring, job.tenant, job.id)
        wanted = [(f"{place}/{FIRST + at}", source) for at, source in enumerate(job.sources)]
        if job.mask is not None:
            wanted.append((f"{place}/{MASK}", job.mask))
        keys = []
        for stem, source in wanted:
            key = await self._found(stem) or await self._made(run, stem, source)
            if key is None:
                if not job.attempts:
                    await self._blobs.delete(place)
                return None
            keys.append(key)
        return Prepared(tuple(keys[: len(job.sources)]), keys[-1] if job.mask is not None else None)

    async def load(
        self, prepared: Prepared, can: Capabilities, now: int
    ) -> tuple[tuple[Input, ...], Input | None] | None:
        """Return inputs and mask in the form an adapter takes; None where a copy is gone."""
        if can.inputs == "url":
            return tuple([await self._linked(key, now) for key in prepared.keys]), None
        inputs = []
        for key in prepared.keys:
            data = await self._blobs.read(key)
            if data is None:
                return None
            inputs.append(Input(media_type(key), data))
        if prepared.mask is None or can.mask is None:
            return tuple(inputs), None
        drawn = await self._blobs.read(prepared.mask)
        first = await self._studio.inspect(inputs[0].data)
        if drawn is None or isinstance(first, NotAnImage):
            return None
        turned = await self._studio.mask(drawn, (first.width, first.height), can.mask)
        return tuple(inputs), Input("image/png", turned)

    async def _linked(self, key: str, now: int) -> Input:
        url = await self._blobs.get_url(key, LINK_SECONDS) or self._links.make(key, now)
        return Input(media_type(key), url=url)

    async def _found(self, stem: str) -> str | None:
        """Return the key of a copy that was made before a crash: its bytes are the ones to go on with."""
        for end in ENDS.values():
            if await self._blobs.size(f"{stem}.{end}") is not None:
                return f"{stem}.{end}"
        return None

    async def _made(self, run: Run, stem: str, source: Source) -> str | None:
        """Make a copy and return its key; None for what is no image to be used."""
        data = await (self._brought(run.job, source) if source.url is None else self._got(run, source.url))
        if data is None:
            return None
        try:
            copy = await self._studio.clean(data)
            if len(copy) > MOST_BYTES:  # encoded once more it grew
                copy = await self._studio.webp(copy)
        except ValueError:
            return None
        found = await self._studio.inspect(copy)
        if isinstance(found, NotAnImage):
            return None
        key = f"{stem}.{found.ext}"
        await self._blobs.put(key, copy)
        self._crash("input_stored")
        return key

    async def _brought(self, job: Job, source: Source) -> bytes | None:
        """Return an upload's bytes; None where they are no longer those that were pinned."""
        upload = await self._store.get_upload(job.tenant, source.upload or "")
        found = None if upload is None else await find_upload(self._blobs, self._ring, upload)
        data = None if found is None else await self._blobs.read(found[0])
        same = data is not None and hashlib.sha256(data).hexdigest() == source.sha256
        return data if same else None

    async def _got(self, run: Run, url: str) -> bytes | None:
        """Fetch a URL; one that does not answer for now is asked again."""
        for tries in range(1, FETCH_TRIES + 1):
            seconds = min(FETCH_SECONDS, run.left_ms() / 1000)
            answer = await self._fetch(
                WireRequest("GET", url, _ACCEPT, seconds=seconds, max_bytes=MOST_BYTES)
            )
            if isinstance(answer, WireResponse) and answer.status == 200:
                return answer.body
            if tries == FETCH_TRIES or not _passing(answer):
                return None
            await run.pause(retry.backoff_ms(tries, run.parts.chance()))
        return None


def _passing(answer: Wire) -> bool:
    """Say whether what went wrong may be over soon."""
    if isinstance(answer, WireFailure):
        return answer.cut not in _HOPELESS
    return answer.status == 429 or answer.status >= 500
