"""How clients behave: each leads its order through to the end, over as many lives as it takes.

A client knows only what it was told. It notes each answer before it acts on it; an answer that did not
come is unknown, and is asked for again only under the same idempotency key, maybe of another process.
Nothing here looks into the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from tests.chaos.marks import now
from tests.fakes.pictures import png
from tests.fakes.server import Steer

if TYPE_CHECKING:
    from tests.chaos.book import Book
    from tests.chaos.life import Life
    from tests.chaos.orders import Order
    from tests.chaos.stage import Stage

PAUSE: Final = 0.02
WAIT_SECONDS: Final = 5
CALL_SECONDS: Final = 20.0
PATIENCE: Final = 8
"""Tries for a place in flight, at a tenant that has few."""
TYPE: Final = ("Content-Type",)
"""What aiohttp would say by itself of bytes, and nobody announced."""


class Told(Struct, frozen=True):
    """A complete answer."""

    status: int
    body: Any
    wait: float = PAUSE
    by: str = ""


class Unknown(Exception):  # noqa: N818 - an answer that did not come is no error of the client
    """Something may have been sent, and no whole answer came."""


class Client:
    """All clients of a run, over one session without kept connections."""

    def __init__(self, stage: Stage, http: aiohttp.ClientSession, book: Book) -> None:
        self._stage = stage
        self._http = http
        self._book = book
        self._tokens: dict[tuple[str, str], str] = {}
        self._turn = 0

    async def live(self, order: Order) -> None:
        """Lead one order through to its end, over as many lives of the gateway as it takes."""
        if order.trouble is not None:
            await self._prepare(order)
        upload = await self._bring(order) if order.edit else ""
        job = await self._submit(order, upload)
        if job is None:
            return
        if order.cancel == "when running":
            await self._until(order, job, running=True)
        if order.cancel:
            told = await self._insist(order, "POST", f"/v1/jobs/{job}/cancel", good=(200, 202, 404))
            self._book.say(order.n, "missing" if told.status == 404 else "canceled", job=job)
        ended = await self._until(order, job)
        if ended is None:
            self._book.say(order.n, "missing", job=job)
            return
        self._book.say(order.n, "ended", job=job, **_end(ended))
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
        outputs = told.body["outputs"] if order.looked_at else ()
        for output in outputs:
            for url in (output["url"], *output["variants"].values()):
                status, digest = await self._open(url)
                if status != 200 or (url == output["url"] and digest != output["sha256"]):
                    self._book.say(order.n, "surprise", job=job, detail=f"image {status}")
        if told.body["ended"]:
            self._book.say(order.n, "ended", job=job, images=len(outputs), **_end(told.body))

    async def _open(self, url: str) -> tuple[int, str]:
        """Open a picture by its link, at whoever is up; return status and hash."""
        async with self._http.get(self._here(url)) as answer:
            return answer.status, hashlib.sha256(await answer.read()).hexdigest()

    async def register(self, tenant: str, url: str) -> None:
        """Register a webhook that hears of all jobs of a tenant."""
        token = self._stage.token(tenant, "boss", roles=["tenant_admin"])
        wish = {"url": url, "scope": "tenant"}
        headers = {"authorization": f"Bearer {token}"}
        async with self._http.post(
            f"{self._stage.life.url}/v1/webhooks", json=wish, headers=headers
        ) as answer:
            if answer.status != 201:
                raise RuntimeError(f"no webhook was registered: {await answer.text()}")

    async def _prepare(self, order: Order) -> None:
        """Tell the order's upstream what will go wrong with it."""
        await self.steer(order.model, Steer(script=[] if order.trouble is None else [order.trouble]))

    async def steer(self, upstream: str, steer: Steer) -> None:
        """Tell an upstream what to do, once it is there."""
        url = f"{self._stage.fakes[upstream]}/_control"
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with self._http.post(url, data=msgspec.json.encode(steer)) as answer:
                    answer.raise_for_status()
                    return
            await asyncio.sleep(PAUSE)

    async def _bring(self, order: Order) -> str:
        """Bring the image an order begins from, as often as it takes; return its upload."""
        data = png(48, 32, order.prompt)
        wish = {"filename": order.prompt, "content_type": "image/png", "size": len(data)}
        told = await self._insist(order, "POST", "/v1/uploads", wish, good=(201,))
        while True:
            try:
                url = self._here(told.body["url"])
                async with self._http.put(url, data=data, skip_auto_headers=TYPE) as answer:
                    if answer.status in (200, 409):
                        return str(told.body["id"])
                    if answer.status != 503:
                        self._book.say(order.n, "surprise", detail=f"put {answer.status}")
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                await self._anyone()
            await asyncio.sleep(PAUSE)

    async def _submit(self, order: Order, upload: str) -> str | None:
        """Submit until there is an answer; without a key only until something may have been sent."""
        tries = 0
        while True:
            sent = now()
            try:
                told = await self._ask(order, "POST", "/v1/jobs", self._wish(order, upload))
            except Unknown:
                if order.keyed:
                    continue
                self._book.say(order.n, "unknown")
                return None
            if told is not None and told.status == 202:
                name = str(told.body["id"])
                self._book.say(order.n, "accepted", job=name, sent=sent, by=told.by)
                return name
            if limit := _limit(told):
                tries += 1
                if limit != "too_many_in_flight" or tries == PATIENCE:
                    self._book.say(order.n, "denied", detail=limit)
                    return None
                self._book.say(order.n, "crowded", detail=limit)
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
        if told is not None and told.status not in (402, 429, 503):
            self._book.say(order.n, "surprise", detail=f"{told.status} {told.body}"[:300])
            await asyncio.sleep(1)
        if told is None:
            await self._anyone()
        await asyncio.sleep(PAUSE if told is None else told.wait)

    async def _anyone(self) -> Life:
        """Wait until a process answers; return it."""
        gates = self._stage.gates
        while not (up := [gate for gate in gates if gate.up.is_set()]):
            waits = [asyncio.create_task(gate.up.wait()) for gate in gates]
            _, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in late:
                wait.cancel()
        self._turn += 1
        return up[self._turn % len(up)]

    def _here(self, url: str) -> str:
        """Return a link of one process as one of another that is up, if any is."""
        parts = urlsplit(url)
        gates = [gate for gate in self._stage.gates if gate.up.is_set()] or self._stage.gates
        return f"{gates[0].url}{parts.path}" + (f"?{parts.query}" if parts.query else "")

    async def _ask(self, order: Order, method: str, path: str, wish: Any = None) -> Told | None:
        """Ask once. None says that nothing was sent; raises `Unknown` where no whole answer came."""
        headers = {"authorization": f"Bearer {self._token(order)}"}
        if wish is not None and order.keyed:
            headers["idempotency-key"] = order.key + path
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        gate = await self._anyone()
        url = gate.url + path
        try:
            async with self._http.request(method, url, json=wish, headers=headers, timeout=timeout) as answer:
                data = await answer.read()
                wait = float(answer.headers.get("retry-after", PAUSE))
                body = _body(data)
                return Told(answer.status, body, min(wait, 1.0), gate.name)
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


def _end(job: dict[str, Any]) -> dict[str, Any]:
    """Return what a client notes of a job that is over."""
    over = datetime.datetime.fromisoformat(job["ended_at"])
    return {
        "state": job["state"],
        "detail": (job["error"] or {}).get("code", ""),
        "over": int(over.timestamp() * 1000),
        "charged": job["cost"]["charged"],
    }


def _body(data: bytes) -> Any:
    """Return what an answer says; one that is no JSON is a surprise to whoever looks into it."""
    try:
        return msgspec.json.decode(data) if data else None
    except msgspec.DecodeError:
        return {"code": repr(data)}


def _limit(told: Told | None) -> str:
    """Return the limit that stood in the way of a submit, if one did."""
    return str(told.body["code"]) if told is not None and told.status in (402, 429) else ""
