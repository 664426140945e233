"""Two processes that serve and one that works, on one Redis: together they are one Safelight."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.command import Running, run, running
from tests.fakes.redis import Redis
from tests.fakes.tokens import AUDIENCE, ISSUER, signer, token
from tests.journeys.visitor import Visitor

SECRET = "a secret of forty characters, or so, here"
PASSWORD = "a-canary-of-a-password"
IN_FLIGHT = 5
"""Of a user of the plan `pro`."""
TENANT_IN_FLIGHT = 10
"""Of a tenant of the plan `free`, which is the one of tenants nobody named."""
ENVIRON = {"SAFELIGHT_SECRET": SECRET, "REDIS_PASSWORD": PASSWORD}


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis with a user who may do what Safelight does, and no more."""
    with Redis() as made:
        rules = ("~safelight:*", "&safelight:*", "+@all", "-@admin", "-@dangerous", "+info")
        made.say("ACL", "SETUSER", "safelight", "on", f">{PASSWORD}", *rules)
        yield made


class Company:
    """A folder with settings, and the processes that run by them."""

    def __init__(self, folder: Path, redis: Redis, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._signer = signer("ES256")
        (folder / "keys.json").write_text(json.dumps({"keys": [self._signer.jwk]}))
        url = f"redis://safelight@127.0.0.1:{redis.port}/0"
        (folder / "safelight.yaml").write_text(
            'secret: ["${env:SAFELIGHT_SECRET}"]\n'
            "server: {host: 127.0.0.1, port: 0, grace_seconds: 1}\n"
            f'store: {{url: "{url}", password: "${{env:REDIS_PASSWORD}}"}}\n'
            f'blobs: {{url: "file://{folder}/blobs"}}\n'
            f"auth: {{issuers: [{{issuer: '{ISSUER}', audience: {AUDIENCE}, jwks_file: '{folder}/keys.json',"
            " claims: {tenant: tenant, subject: sub, plan: plan}}]}\n"
            "providers: {here: {kind: sandbox}}\n"
        )

    def serve(self, role: str) -> Running:
        """Start a process in a role."""
        words = ("serve", "--role", role)
        last = '"event":"start"'
        return self._stack.enter_context(running(*words, cwd=self.folder, last=last, **ENVIRON))

    def visit(self, process: Running, subject: str = "ann") -> Visitor:
        """Return a client of a process."""
        now = int(time.time())
        signed = token(self._signer, {"sub": subject, "plan": "pro", "iat": now, "exp": now + 3600})
        port = json.loads(process.lines[-1])["port"]
        return Visitor(f"http://127.0.0.1:{port}", [], signed.decode())


@pytest.fixture
def company(tmp_path: Path, redis: Redis) -> Iterator[Company]:
    """An installation without a process yet."""
    with ExitStack() as stack:
        yield Company(tmp_path, redis, stack)


async def test_processes_are_one_safelight(company: Company) -> None:
    """What one process takes in another shows, a third makes, and the books of all three balance."""
    first, second = company.serve("api"), company.serve("api")
    one, two = company.visit(first), company.visit(second)
    job = (await one.submit(key="k1")).json
    assert (await two.submit(key="k1")).json["id"] == job["id"]
    answers = await asyncio.gather(*(each.submit(key=f"m{n}") for n, each in enumerate((one, two) * 5)))
    assert Counter(reply.status for reply in answers) == {202: IN_FLIGHT - 1, 429: 11 - IN_FLIGHT}
    names = {job["id"], *(reply.json["id"] for reply in answers if reply.status == 202)}
    async with two.stream("/v1/events") as line:
        worker = company.serve("worker")
        ended: set[str] = set()
        while ended != names:
            event = await line.event()
            assert event is not None
            ended |= {event.job["id"]} if event.job["ended"] else set()
    shown = [(await each.get(f"/v1/jobs/{job['id']}")).json for each in (one, two)]
    assert [each["state"] for each in shown] == ["succeeded"] * 2
    assert shown[0]["outputs"][0]["sha256"] == shown[1]["outputs"][0]["sha256"]
    for process in (first, second, worker):
        assert process.end() == 0
        assert PASSWORD not in "".join(process.lines)
    for words in (("doctor",), ("audit", "verify")):
        done = run(*words, "--config", "safelight.yaml", cwd=company.folder, **ENVIRON)
        assert (done.returncode, "1 tenant" in done.stdout) == (0, True), done.stdout + done.stderr


async def test_crowd_fills_tenant_exactly(company: Company) -> None:
    """Of 256 jobs that 64 clients at each of two processes ask for, as many are taken as may be in flight."""
    clients = [
        company.visit(each, f"u{n}")
        for each in (company.serve("api"), company.serve("api"))
        for n in range(64)
    ]

    async def twice(client: Visitor) -> list[str]:
        return [(await client.submit(quality="low")).code for _ in range(2)]

    answers = await asyncio.gather(*map(twice, clients))
    codes = Counter(code for each in answers for code in each)
    assert codes == {"": TENANT_IN_FLIGHT, "too_many_in_flight": 256 - TENANT_IN_FLIGHT}


async def test_killed_worker_loses_no_job(company: Company) -> None:
    """A job that comes after its worker was killed is made by the next one, and who waits hears of it."""
    one = company.visit(company.serve("api"))
    company.serve("worker").end(signal.SIGKILL)
    job = await one.job()
    waiting = asyncio.create_task(one.ended(job))
    company.serve("worker")
    assert (await waiting)["state"] == "succeeded"


def test_check_asks_the_redis(company: Company, redis: Redis) -> None:
    """`check` says what stands against the Redis it is given, and `serve` refuses to start for the same."""
    assert run("check", cwd=company.folder, **ENVIRON).returncode == 0
    redis.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    told = run("check", cwd=company.folder, **ENVIRON)
    assert (told.returncode, "Set `maxmemory-policy noeviction`" in told.stdout) == (2, True)
    refused = run("serve", "--role", "api", cwd=company.folder, **ENVIRON)
    assert refused.returncode != 0
    assert "Set `maxmemory-policy noeviction`" in refused.stderr
    assert PASSWORD not in refused.stdout + refused.stderr + told.stdout + told.stderr
