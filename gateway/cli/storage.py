"""`safelight blobs check`: can images be kept where the settings say, and do those reach them who must?

Does once what the house and its clients will do: write, write again, read and delete; a signed PUT and a
signed GET over the network; what a browser asks before a page of another origin may do either. What fails
is told with what to set. The object that is written lies where no tenant's can, and is removed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gateway import configure
from gateway.blobs import BlobsUnavailable, open_blobs, probe
from gateway.check import FAILED, read_file
from gateway.cli.sources import Mistaken
from gateway.errors import Refusal
from gateway.outbound import Outbound
from gateway.providers import KINDS
from gateway.wire import WireRequest, WireResponse
from policies.egress import Allowed, Barred, read_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.blobs import Blobs
    from gateway.cli.screen import Screen
    from gateway.wire import Wire

DATA: Final = b"safelight blobs check"
TYPE: Final = ("Content-Type", "image/png")
LIFE_SECONDS: Final = 60
CALL_SECONDS: Final = 15.0
MOST_BYTES: Final = 64 * 1024


def run_blobs_check(
    path: str | None, origins: tuple[str, ...], environ: Mapping[str, str], screen: Screen
) -> int:
    """Check what a settings file names, for pages of these origins besides its own; return the exit code."""
    found = configure.read(path, environ, read_file, KINDS)
    if not (found.sound("blobs") and found.sound("server")):
        raise Mistaken(found.mistakes)
    pages = dict.fromkeys((*found.settings.server.cors_origins, *origins))
    return asyncio.run(_run(found.settings.blobs.url, tuple(pages), screen))


async def _run(url: str, origins: Sequence[str], screen: Screen) -> int:
    try:
        blobs = open_blobs(url)
        await blobs.check()
    except Refusal as refusal:
        screen.cross(str(refusal))
        return FAILED
    screen.tick(f"{url}: written once, read and deleted")
    place, key = probe()
    try:
        return await Examination(blobs, key, screen).run(origins)
    except BlobsUnavailable as error:
        screen.cross(f"{url}: {error}")
        return FAILED
    finally:
        with suppress(BlobsUnavailable):  # told of above, if it matters
            await blobs.delete(place)
        await blobs.close()


class Examination:
    """One look at the addresses of a place for blobs, by an object that its caller removes."""

    def __init__(self, blobs: Blobs, key: str, screen: Screen) -> None:
        self._blobs = blobs
        self._key = key
        self._screen = screen
        self._good = True

    async def run(self, origins: Sequence[str]) -> int:
        """Try what clients do and tell how it went; return the exit code."""
        put = await self._blobs.put_url(self._key, TYPE[1], len(DATA), LIFE_SECONDS)
        get = await self._blobs.get_url(self._key, LIFE_SECONDS)
        if put is None or get is None:
            self._screen.tick("clients send and fetch images through this server: a folder has no addresses")
            return 0
        where = read_place(put)
        if isinstance(where, Barred):
            self._wrong("the storage has no address that can be called", "Look at the endpoint that is set.")
            return FAILED
        outbound = Outbound({}, Allowed(sockets=frozenset({(where.host, where.port)})))
        try:
            await self._signed(outbound, put, get)
            await self._pages(outbound, put, get, origins)
        finally:
            await outbound.close()
        if where.scheme == "http":
            self._screen.note("Images travel unencrypted: the endpoint begins with http.")
        return 0 if self._good else FAILED

    async def _signed(self, outbound: Outbound, put: str, get: str) -> None:
        """Put and get the object as clients will."""
        hint = "Addresses begin with the endpoint that is set: clients must reach it. Its region counts too."
        headers = (TYPE, *self._blobs.put_headers.items())
        answer = await _ask(outbound, WireRequest("PUT", put, headers, DATA))
        kept = await self._blobs.read(self._key)
        if not _is_good(answer) or kept != DATA:
            self._wrong(f"a signed PUT {_told(answer)}", hint)
            await self._blobs.put(self._key, DATA)
        else:
            self._screen.tick("a signed PUT is taken")
        answer = await _ask(outbound, WireRequest("GET", get))
        if isinstance(answer, WireResponse) and (answer.status, answer.body) == (200, DATA):
            self._screen.tick("a signed GET is served")
        else:
            self._wrong(f"a signed GET {_told(answer)}", hint)

    async def _pages(self, outbound: Outbound, put: str, get: str, origins: Sequence[str]) -> None:
        """Ask what browsers ask before a page of another origin may put, and may read what it gets."""
        if not origins:
            self._screen.note("server.cors_origins is empty, so no page was tried; --origin names one.")
            return
        for origin in origins:
            answer = await _ask(outbound, _preflight(put, origin, ("content-type", *self._blobs.put_headers)))
            if _admits(answer, origin):
                self._screen.tick(f"pages of {origin} may send images")
            else:
                self._wrong(
                    f"pages of {origin} may not send images: the preflight of a PUT {_told(answer)}",
                    f"In the bucket's CORS rules, allow PUT from {origin} with the header Content-Type.",
                )
        answer = await _ask(outbound, WireRequest("GET", get, (("Origin", "null"),)))
        if isinstance(answer, WireResponse) and _opens(answer, "null"):
            self._screen.tick("pages may read the images they are sent on to")
        else:
            self._wrong(
                "pages may show images but not read them",
                "In the bucket's CORS rules, allow GET from every origin (*): a page that is redirected is "
                "named to nobody, and the address is the permission.",
            )

    def _wrong(self, what: str, to_do: str) -> None:
        self._good = False
        self._screen.cross(what)
        self._screen.note(to_do)


async def _ask(outbound: Outbound, request: WireRequest) -> Wire:
    return await outbound.send(replace(request, seconds=CALL_SECONDS, max_bytes=MOST_BYTES))


def _preflight(url: str, origin: str, names: Sequence[str]) -> WireRequest:
    asked = ("Access-Control-Request-Headers", ",".join(names))
    return WireRequest("OPTIONS", url, (("Origin", origin), ("Access-Control-Request-Method", "PUT"), asked))


def _is_good(answer: Wire) -> bool:
    return isinstance(answer, WireResponse) and 200 <= answer.status < 300


def _opens(answer: WireResponse, origin: str) -> bool:
    return answer.headers.get("access-control-allow-origin") in ("*", origin)


def _admits(answer: Wire, origin: str) -> bool:
    """Say whether a preflight's answer lets a page put an image with its type."""
    if not isinstance(answer, WireResponse) or not _is_good(answer) or not _opens(answer, origin):
        return False
    methods, names = (
        {word.strip().lower() for word in answer.headers.get(f"access-control-allow-{of}", "").split(",")}
        for of in ("methods", "headers")
    )
    return bool(methods & {"*", "put"}) and bool(names & {"*", "content-type"})


def _told(answer: Wire) -> str:
    """Say how a call ended, without the storage's own text."""
    if isinstance(answer, WireResponse):
        return f"was answered {answer.status}"
    return f"got no answer ({answer.cut})"
