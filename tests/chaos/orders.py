"""What clients ask for, how they behave, and what they note: the first of the three books.

A client knows only what it was told. It notes each answer before it acts on it; an answer that did not
come is unknown, and is asked for again only under the same idempotency key. Nothing here looks into the
gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import msgspec
from msgspec import Struct

from tests.chaos.stage import FAKES, TENANTS
from tests.fakes.pictures import png

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.stage import Stage

PAUSE = 0.02
WAIT_SECONDS = 5
CALL_SECONDS = 10.0
TYPE = ("Content-Type",)
"""What aiohttp would say by itself of bytes, and nobody announced."""

Word = Literal[
    "accepted",  # 202 with a job: now it may not be lost
    "unknown",  # no answer came to a submit without a key, so it is not repeated
    "canceled",  # the cancel was answered
    "ended",  # the job is over, and how
    "deleted",  # the delete was answered
    "replayed",  # the key was sent again after all was over, and answered with a job
    "erased",  # the same, and the job had been deleted
    "missing",  # a job that was acknowledged is not there
    "surprise",  # an answer no client should get
]


class Order(Struct, frozen=True):
    """One client's wish, with what it does afterwards."""

    n: int
    tenant: str
    subject: str
    model: str
    count: int
    keyed: bool
    cancel: Literal["", "at once", "when running"]
    delete: bool
    replay: bool
    edit: bool = False

    @property
    def prompt(self) -> str:
        """A prompt no other order has, by which upstreams' books can be compared."""
        return f"order {self.n:05d}: a lighthouse"

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"order-{self.n:05d}"


class Said(Struct, frozen=True, omit_defaults=True):
    """One line of the clients' book."""

    at: int
    order: int
    said: Word
    job: str = ""
    state: str = ""
    detail: str = ""
    images: int = 0


def orders(seed: int) -> Iterator[Order]:
    """Yield orders without end, the same for the same seed."""
    dice = random.Random(seed)
    n = 0
    while True:
        n += 1
        keyed = dice.random() < 0.8
        yield Order(
            n=n,
            tenant=TENANTS[n % len(TENANTS)],
            subject=f"user-{dice.randrange(4)}",
            model=dice.choice(list(FAKES)),
            count=dice.choice((1, 1, 1, 1, 1, 2, 2, 5)),
            keyed=keyed,
            cancel=dice.choice(("", "", "", "", "", "", "at once", "when running")),
            delete=dice.random() < 0.15,
            replay=keyed and dice.random() < 0.25,
            edit=dice.random() < 0.3,
        )


def by_number(seed: int, count: int) -> dict[int, Order]:
    """Return the first orders of a seed by their number."""
    source = orders(seed)
    return {order.n: order for order in (next(source) for _ in range(count))}


class Book:
    """The clients' book: a file, each line on it before its client goes on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def say(self, order: int, said: Word, **more: Any) -> None:
        """Write a line."""
        line = Said(time.time_ns() // 1_000_000, order, said, **more)
        self._file.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_book(path: Path) -> list[Said]:
    """Return what clients noted."""
    return [msgspec.json.decode(line, type=Said) for line in path.read_bytes().splitlines()]


class Told(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: Any
    wait: float = PAUSE


class Unknown(Exception):  # noqa: N818 - an answer that did not come is no error of the client
    """Something may have been sent, and no whole answer came."""


class Client:
    """All clients of a run, over one session without kept connections."""

    def __init__(self, stage: Stage, http: aiohttp.ClientSession, book: Book) -> None:
        self._stage = stage
        self._http = http
        self._book = book
        self._tokens: dict[tuple[str, str], str] = {}

    async def live(self, order: Order) -> None:
        """Lead one order through to its end, over as many lives of the gateway as it takes."""
        upload = await self._bring(order) if order.edit else ""
        job = await self._submit(order, upload)
        if job is None:
            return
        if order.cancel == "when running":
            await self._until(order, job, running=True)
        if order.cancel:
            await self._insist(order, "POST", f"/v1/jobs/{job}/cancel")
            self._book.say(order.n, "canceled", job=job)
        ended = await self._until(order, job)
        if ended is None:
            self._book.say(order.n, "missing", job=job)
            return
        self._book.say(
            order.n, "ended", job=job, state=ended["state"], detail=(ended["error"] or {}).get("code", "")
        )
        if order.delete:
            await self._insist(order, "DELETE", f"/v1/jobs/{job}", good=(204, 404))
            self._book.say(order.n, "deleted", job=job)
        if order.replay:
            await self._replay(order, upload)

    async def look(self, order: Order, job: str) -> None:
        """Read an ended job once more and open every image it delivered."""
        told = await self._insist(order, "GET", f"/v1/jobs/{job}", good=(200, 404))
        if told.status == 404:
            self._book.say(order.n, "missing", job=job)
            return
        for output in told.body["outputs"]:
            for url in (output["url"], *output["variants"].values()):
                async with self._http.get(url) as answer:
                    data = await answer.read()
                    digest = hashlib.sha256(data).hexdigest()
                    if answer.status != 200 or (url == output["url"] and digest != output["sha256"]):
                        self._book.say(order.n, "surprise", job=job, detail=f"image {answer.status}")
        code = (told.body["error"] or {}).get("code", "")
        images = len(told.body["outputs"])
        self._book.say(order.n, "ended", job=job, state=told.body["state"], detail=code, images=images)

    async def register(self, tenant: str, url: str) -> None:
        """Register a webhook that hears of all jobs of a tenant."""
        token = self._stage.token(tenant, "boss", roles=["tenant_admin"])
        wish = {"url": url, "scope": "tenant"}
        headers = {"authorization": f"Bearer {token}"}
        async with self._http.post(f"{self._stage.url}/v1/webhooks", json=wish, headers=headers) as answer:
            if answer.status != 201:
                raise RuntimeError(f"no webhook was registered: {await answer.text()}")

    async def _bring(self, order: Order) -> str:
        """Bring the image an order begins from, as often as it takes; return its upload."""
        data = png(48, 32, order.prompt)
        wish = {"filename": order.prompt, "content_type": "image/png", "size": len(data)}
        told = await self._insist(order, "POST", "/v1/uploads", wish, good=(201,))
        while True:
            try:
                async with self._http.put(told.body["url"], data=data, skip_auto_headers=TYPE) as answer:
                    if answer.status in (200, 409):
                        return str(told.body["id"])
                    if answer.status != 503:
                        self._book.say(order.n, "surprise", detail=f"put {answer.status}")
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                await self._stage.up.wait()
            await asyncio.sleep(PAUSE)

    async def _submit(self, order: Order, upload: str) -> str | None:
        """Submit until there is an answer; without a key only until something may have been sent."""
        while True:
            try:
                told = await self._ask(order, "POST", "/v1/jobs", self._wish(order, upload))
            except Unknown:
                if order.keyed:
                    continue
                self._book.say(order.n, "unknown")
                return None
            if told is not None and told.status == 202:
                self._book.say(order.n, "accepted", job=told.body["id"])
                return str(told.body["id"])
            await self._after(order, told)

    async def _replay(self, order: Order, upload: str) -> None:
        told = await self._insist(order, "POST", "/v1/jobs", self._wish(order, upload), good=(202, 410))
        if told.status == 410:
            self._book.say(order.n, "erased")
        else:
            self._book.say(order.n, "replayed", job=told.body["id"])

    async def _until(self, order: Order, job: str, *, running: bool = False) -> dict[str, Any] | None:
        """Wait until the job has ended, or only until it runs; None where it is not there."""
        after = "&after=1" if running else ""
        while True:
            told = await self._insist(
                order, "GET", f"/v1/jobs/{job}?wait={WAIT_SECONDS}{after}", good=(200, 404)
            )
            if told.status == 404:
                return None
            if told.body["ended"] or (running and told.body["state"] != "queued"):
                return dict(told.body)

    async def _insist(
        self, order: Order, method: str, path: str, wish: Any = None, good: tuple[int, ...] = (200, 202)
    ) -> Told:
        """Ask what may be asked twice until there is a good answer."""
        while True:
            try:
                told = await self._ask(order, method, path, wish)
            except Unknown:
                continue
            if told is not None and told.status in good:
                return told
            await self._after(order, told)

    async def _after(self, order: Order, told: Told | None) -> None:
        """Wait before the next try; note an answer that no client should get."""
        if told is not None and told.status not in (429, 503):
            self._book.say(order.n, "surprise", detail=f"{told.status} {told.body}"[:300])
            await asyncio.sleep(1)
        if told is None:
            await self._stage.up.wait()
        await asyncio.sleep(PAUSE if told is None else told.wait)

    async def _ask(self, order: Order, method: str, path: str, wish: Any = None) -> Told | None:
        """Ask once. None says that nothing was sent; raises `Unknown` where no whole answer came."""
        headers = {"authorization": f"Bearer {self._token(order)}"}
        if wish is not None and order.keyed:
            headers["idempotency-key"] = order.key + path
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        url = self._stage.url + path
        try:
            async with self._http.request(method, url, json=wish, headers=headers, timeout=timeout) as answer:
                data = await answer.read()
                wait = float(answer.headers.get("retry-after", PAUSE))
                return Told(answer.status, msgspec.json.decode(data) if data else None, min(wait, 1.0))
        except aiohttp.ClientConnectorError:
            return None
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise Unknown from error

    def _wish(self, order: Order, upload: str) -> dict[str, Any]:
        wish: dict[str, Any] = {"prompt": order.prompt, "model": order.model, "count": order.count}
        return wish | ({"operation": "edit", "inputs": [{"upload": upload}]} if upload else {})

    def _token(self, order: Order) -> str:
        name = (order.tenant, order.subject)
        if name not in self._tokens:
            self._tokens[name] = self._stage.token(*name)
        return self._tokens[name]
