"""Reads of one moment: sent together, answered apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.contract import JobFilter
from gateway.store.redis_keys import Names
from gateway.store.redis_link import Command
from gateway.store.redis_together import Together
from policies.model import Job
from tests.contracts.rig import put, rounds
from tests.fakes.redis import server
from tests.gateway.store.processes import Counting, Processes


@pytest.fixture
async def many() -> AsyncIterator[Processes]:
    """An empty Redis, and engines to be opened on it."""
    made = Processes()
    yield made
    await made.close()


class Post:
    """Replies to a command with its second word; `held` keeps all replies back."""

    def __init__(self) -> None:
        self.sent: list[list[Command]] = []
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, commands: Sequence[Command]) -> list[Any]:
        """Take commands; one that asks for a fault gets it, one that asks for a bug raises it."""
        self.sent.append(list(commands))
        await self.held.wait()
        if ("GET", "bug") in commands:
            raise ZeroDivisionError
        return [StoreUnavailable("none") if word == "fault" else word for _get, word in commands]


async def test_reads_of_a_moment_share() -> None:
    """What many ask in one turn of the loop goes out together; each gets the replies to their own."""
    post = Post()
    together = Together(post)
    asks = [[("GET", f"{n}"), ("GET", f"{n}b")][: 1 + n % 2] for n in range(5)]
    answers = await asyncio.gather(*(together.ask(ask) for ask in asks))
    assert answers == [[word for _get, word in ask] for ask in asks]
    assert [len(each) for each in post.sent] == [7]
    assert await asyncio.gather(*(together.ask(asks[1]) for _ in range(9))) == [answers[1]] * 9
    assert post.sent.pop() == asks[1]
    assert await together.ask([("GET", "late")]) == ["late"]
    assert len(post.sent) == 2


async def test_faults_are_their_callers() -> None:
    """An error among the replies, and what cannot be sent at all, fail their own caller alone."""
    together = Together(Post())
    words = ("a", "fault", "\ud800", "b")
    answers = await asyncio.gather(*(together.ask([("GET", word)]) for word in words), return_exceptions=True)
    assert [answers[0], answers[3]] == [["a"], ["b"]]
    assert [type(answer) for answer in answers[1:3]] == [StoreUnavailable, UnicodeEncodeError]


async def test_bugs_reach_all_callers() -> None:
    """Where the sending itself breaks nobody waits for ever, and the next reads are sent."""
    together = Together(Post())
    both = (together.ask([("GET", "bug")]), together.ask([("GET", "a")]))
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 2
    assert await together.ask([("GET", "a")]) == ["a"]


async def test_leavers_cost_nobody() -> None:
    """A caller who goes away while replies are awaited takes nobody's along."""
    post = Post()
    together = Together(post)
    post.held.clear()
    asks = [asyncio.create_task(together.ask([("GET", word)])) for word in ("a", "b", "fault")]
    await rounds()
    asks[0].cancel()
    asks[2].cancel()
    post.held.set()
    assert await asks[1] == ["b"]
    assert [ask.cancelled() for ask in asks] == [True, False, True]


async def test_polls_share_their_exchange(many: Processes) -> None:
    """Many polls at once, of many tenants, are one exchange; each finds its job and its reader's usage."""
    link = Counting(many.url)
    store = await many.process(link=link)
    jobs: list[Job] = [await put(store, many.job(f"t{n}")) for n in range(20)]
    sent, calls = link.sent, link.calls
    found = await asyncio.gather(*(store.get_job(job.tenant, job.id, "ann") for job in jobs))
    assert [each and (each.job, each.usage.user.held) for each in found] == [(job, 10) for job in jobs]
    assert (link.calls - calls, link.sent - sent) == (1, 3 * len(jobs) + 1)
    assert await store.get_job("t0", jobs[1].id, "ann") is None


async def test_odd_neighbor_spoils_no_poll(many: Processes) -> None:
    """Where a tenant's users are something else its polls fail, and others' of that moment do not."""
    store = await many.process()
    jobs = [await put(store, many.job(f"t{n}")) for n in range(3)]
    server().say("DEL", Names(many.prefix).room("t1").u)
    server().say("SET", Names(many.prefix).room("t1").u, "x")
    answers = await asyncio.gather(
        *(store.get_job(job.tenant, job.id, "ann") for job in jobs), return_exceptions=True
    )
    assert isinstance(answers[1], StoreUnavailable)
    assert [type(answer).__name__ for answer in answers] == ["Found", "StoreUnavailable", "Found"]


async def test_new_jobs_know_their_place(many: Processes) -> None:
    """The commit that puts jobs says how many stand before each in its line: no read asks again."""
    link = Counting(many.url)
    one, other = await many.process(link=link), await many.process()
    await put(other, many.job())
    jobs = [many.job(priority="batch" if n == 2 else "interactive") for n in range(4)]
    await asyncio.gather(*(put(one, job) for job in jobs))
    sent = link.sent
    assert [await one.position("acme", job) for job in jobs] == [1, 2, 0, 3]
    assert link.sent == sent
    await put(one, many.job("else"))
    assert [await one.position("acme", job) for job in jobs] == [1, 2, 0, 3]
    assert link.sent > sent + len(jobs)


async def test_places_outlive_the_next_commit(many: Processes) -> None:
    """Who is answered while the next commit is on its way already knows its place without a read too."""
    link = Counting(many.url)
    store = await many.process(link=link)
    await put(store, many.job())
    sent = link.sent

    async def placed(job: Job) -> int:
        return await store.position("acme", await put(store, job))

    first = asyncio.create_task(placed(many.job()))
    await rounds(3)
    second = asyncio.create_task(placed(many.job()))
    assert [await first, await second] == [1, 2]
    assert link.sent - sent == 2


async def test_rare_jobs_are_looked_for_together(many: Processes) -> None:
    """A page of few jobs among which hardly any fits is looked for by the hundred, not one by one."""
    link = Counting(many.url)
    store = await many.process(link=link)
    await asyncio.gather(*(put(store, many.job()) for _ in range(150)))
    calls = link.calls
    page = await store.list_jobs("acme", JobFilter(model="none"), before=None, limit=1)
    assert (page.jobs, page.next) == ((), None)
    assert link.calls - calls <= 6
    everything = await store.list_jobs("acme", JobFilter(), before=None, limit=1)
    assert (len(everything.jobs), everything.next is None) == (1, False)
