"""Makes the golden stores: what a Safelight of some day left in SQLite and in Redis, to be read for ever.

`python -m tests.golden.make` writes a folder of `stores/`, named by the format it writes, and refuses where
it is there: a later format gets one of its own, and those before are read as long as they may be met.
SQLite's file is zipped; Redis' keys stand as the commands that write them, one a line, without what runs
out by itself.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from msgspec.structs import replace

from gateway.store.backend import SCHEMA
from gateway.store.contract import Begun, Denied, Dropped, Kept, Key, Recorded, Retention, Submitted
from gateway.store.redis_link import Link
from policies import quota
from policies.model import Usage
from tests.contracts.beside import (
    delivered,
    failing,
    hooked,
    lease,
    putting,
    register,
    service_key,
    trial,
    upload,
)
from tests.contracts.rig import (
    DAY,
    HOUR,
    OPEN_TERMS,
    SAID,
    WIDE,
    Rig,
    admitting,
    attempt,
    counting,
    ending,
    put,
    submit,
    take,
)
from tests.fakes.redis import server

STORES: Final = Path(__file__).parent / "stores"
KEPT: Final = Retention(10 * DAY, 10 * DAY)
READ: Final = {
    "string": ("SET", "GET"),
    "hash": ("HSET", "HGETALL"),
    "set": ("SADD", "SMEMBERS"),
    "zset": ("ZADD", "ZRANGE", "0", "-1", "WITHSCORES"),
    "stream": ("XADD", "XRANGE", "-", "+"),
}
"""By type of key: what writes it, and what reads all of it."""
NARROW: Final = quota.Terms(WIDE, quota.Limits(0, 0, 0), 10**9)
"""Terms nobody is admitted by."""
WORD: Final = "a golden lighthouse"


class Story:
    """A few days of two tenants. `named` are the ids of what is left at their end."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.named: dict[str, str] = {}

    async def tell(self) -> None:
        """Live through all of it, then close the store."""
        self.store = await self.rig.open()
        await self.store.start()
        await self._cut()
        await self._beside()
        await self._jobs()
        await self._told()
        await self.rig.close()

    async def _cut(self) -> None:
        """Have a trail that was cut, and the remains of a job."""
        await self._end("gone", 1)
        self.rig.clock.forward(11 * DAY)
        assert (await self.store.sweep(KEPT)).links

    async def _beside(self) -> None:
        store, rig = self.store, self.rig
        await store.grant("acme", None, giving("tenant"), "spring", SAID)
        await store.grant("acme", "ann", giving("user"), "ann's", SAID)
        key = service_key(rig, digest="d1g357")
        assert isinstance(await store.put_key(key, counting(), SAID, by="ann"), Kept)
        picture = upload(rig, expires_at=rig.clock.at + 90 * DAY)
        bound = Key("picture", "f" * 64)
        assert isinstance(await store.put_upload(picture, counting(), SAID, key=bound), Kept)
        own, whole = await hooked(rig, store), await hooked(rig, store, subject="boss", scope="tenant")
        self.named |= {"key": key.id, "upload": picture.id, "own": own.id, "whole": whole.id}
        self._hooks = own, whole

    async def _jobs(self) -> None:
        """Have a job of each state, one with a key, one under way upstream, one of another tenant."""
        store, rig = self.store, self.rig
        await self._end("succeeded", 2, count=3)
        await self._end("failed", 0)
        await self._end("other", 1, tenant="the other", subject="bob jones")
        canceled = await put(store, rig.job(prompt=WORD))
        await store.cancel("acme", canceled.id, counting(), SAID)
        running = await put(store, rig.job(prompt=WORD))
        (claim,) = await take(store)
        sent = attempt(deadline_at=rig.clock.at + HOUR, upstream_id="up_1", next=b"poll")
        assert isinstance(await store.begin_attempt(claim, sent), Begun)
        queued = rig.job(prompt=WORD, weight=4)
        assert isinstance(await submit(store, queued, "again"), Submitted)
        denied = await store.submit(rig.job(subject="eve"), admitting(queued, NARROW), SAID)
        assert isinstance(denied, Denied)
        self.named |= {"canceled": canceled.id, "running": running.id, "queued": queued.id}

    async def _end(self, name: str, made: int, **fields: Any) -> None:
        job = await put(self.store, self.rig.job(prompt=WORD, **fields))
        (claim,) = await take(self.store)
        await self.store.begin_attempt(claim, attempt(deadline_at=self.rig.clock.at + 60_000))
        assert isinstance(await self.store.record(claim, ending(made), SAID), Recorded)
        self.named[name] = job.id

    async def _told(self) -> None:
        """Have deliveries that arrived, that failed and come again, that are due, and that are hushed."""
        store, rig = self.store, self.rig
        first, second, *rest = await store.claim_deliveries(99, 1000)
        await store.record_delivery(first, delivered)
        await store.record_delivery(second, failing(HOUR))
        await store.release_deliveries(rest)
        hushed = await hooked(rig, store, subject="mute")
        silent = trial(rig, hushed)
        await store.put_delivery(silent, counting(), SAID, by="mute")
        await register(store, replace(hushed, disabled="gone"))
        dropped = await hooked(rig, store, subject="quiet")
        await store.put_delivery(trial(rig, dropped), counting(), SAID, by="quiet")
        (mine,) = await lease(store, busy=[hook.id for hook in self._hooks])
        await store.release_deliveries([mine])
        await store.change_endpoint(
            "acme", putting(Dropped(dropped.id)), counting(OPEN_TERMS), SAID, by="quiet"
        )
        self.named |= {"delivered": first.delivery.id, "again": second.delivery.id, "silent": silent.id}
        self.named["hushed"] = hushed.id


def giving(level: Literal["tenant", "user"]) -> Callable[[Usage, int], quota.Posted]:
    """Return the rule that gives 500 credits."""
    return lambda usage, now: quota.grant(usage, now, 500, level)


async def sqlite(folder: Path) -> dict[str, str]:
    """Write the story to a zipped file; return what is named in it."""
    with tempfile.TemporaryDirectory() as place:
        story = Story(Rig("sqlite", Path(place)))
        await story.tell()
        data = (Path(place) / "safelight.db").read_bytes()
    (folder / "safelight.db.gz").write_bytes(gzip.compress(data, mtime=0))
    return story.named


async def redis(folder: Path) -> dict[str, str]:
    """Write the story as commands, whose keys have no prefix; return what is named in it."""
    with tempfile.TemporaryDirectory() as place:
        story = Story(Rig("redis", Path(place)))
        await story.tell()
        commands = await commands_of(server().url, f"{Path(place).name}:")
    lines = [json.dumps(command, ensure_ascii=False) for command in commands]
    (folder / "redis.jsonl").write_text("\n".join(lines) + "\n")
    return story.named


async def commands_of(url: str, prefix: str) -> list[list[str]]:
    """Return the commands that write all lasting keys of a prefix, in the order of their names."""
    link = Link(url)
    (names,) = await link.ask([("KEYS", f"{prefix}*")])
    lives = await link.ask([("PTTL", name) for name in names])
    lasting = sorted(name for name, left in zip(names, lives, strict=True) if left == -1)
    found = [await _written(link, name, name.decode().removeprefix(prefix)) for name in lasting]
    await link.close()
    return [command for commands in found for command in commands]


async def _written(link: Link, name: bytes, key: str) -> list[list[str]]:
    (kind,) = await link.ask([("TYPE", name)])
    verb, *read = READ[kind.decode()]
    (found,) = await link.ask([(read[0], name, *read[1:])])
    if verb == "SET":
        return [[verb, key, found.decode()]]
    if verb == "XADD":
        return [[verb, key, at.decode(), *(word.decode() for word in pairs)] for at, pairs in found]
    words = [word.decode() for word in found]
    if verb == "ZADD":
        words[::2], words[1::2] = words[1::2], words[::2]
    return [[verb, key, *(sorted(words) if verb == "SADD" else words)]]


def main() -> None:
    """Write both stores, and the names of what is in them."""
    folder = STORES / str(SCHEMA)
    folder.mkdir(parents=True)
    named = {"sqlite": asyncio.run(sqlite(folder)), "redis": asyncio.run(redis(folder))}
    (folder / "named.json").write_text(json.dumps(named, indent=1) + "\n")


if __name__ == "__main__":
    main()
