"""The one committer of a process: takes all moves that wait, folds them, commits them together.

What is known of a tenant is kept between batches; it is a hint, and the version check of each commit
proves it. A refused change brings the state as it is and its moves are folded again from that. A move
is answered only after its commit is durable, and an answer that wrote nothing only after the version it
was given from was checked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import Fault, StoreBusy, StoreClosed, StoreUnavailable
from gateway.store.awake import Limit
from gateway.store.backend import Applied, Change, Failed, Loaded, TenantState, UserState, Want
from gateway.store.contract import Found, Stale
from gateway.store.draft import Draft, Missing, Scene, with_docs
from gateway.store.flight import Flight
from gateway.store.format import TooNew
from gateway.store.gate_moves import SYSTEM, ShutMove
from gateway.store.kept import Kept
from gateway.store.moves import AttemptMove
from gateway.store.rewind import Rewind
from policies.model import Account, Usage

if TYPE_CHECKING:
    from gateway.audit import Chain
    from gateway.store.backend import Backend
    from gateway.store.bell import Bell
    from gateway.store.flight import Hears, Patience
    from gateway.store.moves import TenantMove

ROUNDS: Final = 16
BATCH: Final = 512


class Committer:
    """Moves in, answers out. Runs as a task of the loop it is made on."""

    def __init__(
        self,
        backend: Backend,
        chain: Chain,
        bell: Bell,
        mint: Callable[[], str],
        hears: Hears,
        patience: Patience,
    ) -> None:
        self._backend = backend
        self._chain = chain
        self._bell = bell
        self._mint = mint
        self._hears = hears
        self._patience = patience
        self._kept = Kept()
        self._flight = Flight()
        self._waiting: list[TenantMove | AttemptMove] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._rewind = Rewind(backend, self._kept, self._arrived.set, self._settle, hears, patience)
        self._memory = self._rewind.memory
        self._task = asyncio.get_running_loop().create_task(self._run(), name="store committer")

    @property
    def alive(self) -> bool:
        """Whether moves are still taken."""
        return not self._closing and not self._task.done()

    async def account(self, tenant: str, subject: str) -> Usage:
        """Return both levels as they are: as known here where nobody else writes, else read."""
        if not self._backend.alone:
            (there,) = await self._backend.load([Want(tenant, subjects={subject}, figures=True)])
            return _usage(there.sound(), subject)
        await self._flight.over(tenant)
        scene = self._kept.scene(tenant)
        if subject not in scene.users:
            await self._load(
                {tenant: scene}, [Want(tenant, state=tenant not in self._kept, subjects={subject})]
            )
            if scene.state.version >= self._kept.version(tenant):
                self._kept.keep(tenant, scene)
        user = scene.users[subject]
        return Usage(scene.state.doc.account, user.account if user else Account(granted=None))

    async def found(self, tenant: str, job: str, reader: str) -> Found | None:
        """Return a job and its reader's usage, read in one go."""
        (there,) = await self._backend.load([Want(tenant, subjects={reader}, jobs={job}, figures=True)])
        known = there.sound().jobs[job]
        return None if known is None else Found(known, _usage(there, reader))

    async def send(self, move: TenantMove | AttemptMove) -> Any:
        """Queue a move and wait for its answer.

        A caller that goes away cancels the wait, not the move: it is folded and committed all the same,
        unless its batch breaks on a bug; then it is dropped whole, and nobody was told otherwise.
        """
        if not self.alive:
            raise StoreUnavailable("the store is closing")
        self._waiting.append(move)
        self._arrived.set()
        return await move.done

    async def close(self) -> None:
        """Commit what was accepted, then stop."""
        self._closing = True
        self._arrived.set()
        await self._task

    async def _run(self) -> None:
        try:
            while self._waiting or not self._closing:
                await self._arrived.wait()
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                if not self._waiting and not self._closing:
                    self._arrived.clear()
                await self._rewind.attend()
                if self._rewind.quiet:
                    self._give_up(batch, StoreUnavailable("the store was changed a moment ago"))
                elif batch:
                    await self._settle(batch)
        finally:
            self._give_up(self._waiting, StoreUnavailable("the committer stopped"))

    async def _settle(self, batch: Sequence[TenantMove | AttemptMove]) -> None:
        """Commit a batch, again and again until each move has its answer or is given up."""
        scenes: dict[str, Scene] = {}
        left = list(batch)
        fault: Fault = StoreBusy("the write was refused too often")
        try:
            await self._know(scenes, [move for move in left if not isinstance(move, AttemptMove)])
            until, lost = time.perf_counter() + self._patience.commit, 0
            while lost < ROUNDS and time.perf_counter() < until:
                left, counts = await self._round(scenes, left)
                if not left:
                    return
                lost += counts
        except TooNew as refused:
            await self._single_out([move for move in batch if not move.done.done()], refused)
            return
        except Fault as raised:
            fault = raised
        except Exception as bug:  # noqa: BLE001 - told to the calls it belongs to, below
            await self._single_out([move for move in batch if not move.done.done()], bug)
            return
        except BaseException:
            self._give_up(batch, StoreUnavailable("the committer stopped"))
            raise
        self._give_up(left, fault)

    def turned(self) -> None:
        """Take in that the store may not be the one that was written to."""
        self._rewind.turned()

    async def _single_out(self, moves: list[TenantMove | AttemptMove], bug: Exception) -> None:
        """Fail the one call that cannot be written and commit the others, after a batch that broke.

        What broke wrote nothing: a commit is whole or not at all, and what was applied has its answer.
        """
        for move in moves:
            self._kept.forget(move.tenant)
        if len(moves) == 1:
            _fail(moves[0], bug)
            return
        for move in moves:
            await self._settle([move])

    def _give_up(self, moves: Sequence[TenantMove | AttemptMove], fault: Fault) -> None:
        """Fail moves and forget what was known of their tenants."""
        for move in moves:
            self._kept.forget(move.tenant)
            _fail(move, fault)

    async def _know(self, scenes: dict[str, Scene], moves: list[TenantMove]) -> None:
        """Make a scene for each tenant of the moves, loading what is not kept, to be written to next."""
        wants: dict[str, Want] = {}
        for move in moves:
            want = wants.get(move.tenant)
            if want is None:
                want = wants[move.tenant] = Want(move.tenant, subjects=set(), jobs=set(), keys=set())
            move.wants(want)
        for tenant, want in wants.items():
            want.state = want.turn = tenant not in self._kept
            scenes[tenant] = scene = self._kept.scene(tenant)
            want.subjects -= scene.users.keys()
        lacking = [want for want in wants.values() if want.any]
        await self._load(scenes, lacking)

    async def _load(self, scenes: dict[str, Scene], wants: list[Want]) -> None:
        if not wants:
            return
        for want, loaded in zip(wants, await self._backend.load(wants), strict=True):
            scene = scenes[want.tenant]
            if loaded.fault is not None:
                scene.fault = loaded.fault
                continue
            self._rewind.meet(want.tenant, loaded)
            _learn(scene, loaded)
            for subject in want.subjects - loaded.users.keys():
                scene.users[subject] = None
            for job in want.jobs - loaded.jobs.keys():
                scene.jobs[job] = None
            for key in want.keys - loaded.keys.keys():
                scene.keys[key] = None

    async def _round(
        self, scenes: dict[str, Scene], left: list[TenantMove | AttemptMove]
    ) -> tuple[list[TenantMove | AttemptMove], bool]:
        """Fold what is left, commit once, answer what was applied; return what must go round again.

        And whether that counts: it does not where all that was refused only came in another's turn.
        """
        now = self._backend.clock()
        groups: dict[str, list[TenantMove]] = {}
        pending: list[_Pending] = []
        for move in left:
            if isinstance(move, AttemptMove):
                pending += self._attempted(move, now)
            else:
                groups.setdefault(move.tenant, []).append(move)
        again: list[TenantMove | AttemptMove] = []
        wants: list[Want] = []
        for tenant, moves in groups.items():
            fault = scenes[tenant].fault
            if fault is not None:
                self._give_up(list(moves), fault)
                continue
            folded, late, want = self._fold(tenant, scenes[tenant], moves, now)
            if folded.answers:
                pending.append(folded)
            again += late
            wants += [want] if late else []
        refused, counts = await self._commit(scenes, pending)
        await self._load(scenes, wants)
        return again + refused, counts or bool(again)

    def _fold(
        self, tenant: str, scene: Scene, moves: list[TenantMove], now: int
    ) -> tuple[_Pending, list[TenantMove], Want]:
        """Fold a tenant's moves into one change. A move that lacks something is left for the next round."""
        draft = Draft(tenant, scene, now, self._mint, self._backend.forms)
        answers: list[tuple[Any, object]] = []
        late: list[TenantMove] = []
        want = Want(tenant, state=False, subjects=set(), jobs=set(), keys=set())
        gone = tenant != SYSTEM and tenant in self._memory.gone
        shut = tenant != SYSTEM and scene.state.doc.shut is not None
        for move in moves:
            if (shut and not move.gate) or (gone and not isinstance(move, ShutMove)):
                _fail(move, StoreClosed("the tenant is closed"))
                continue
            try:
                answers.append((move, move.fold(draft)))
            except Missing as missing:
                missing.add(want)
                late.append(move)
            except Exception as bug:  # noqa: BLE001 - one call's bug is that call's answer, not its batch's
                _fail(move, bug)
        return _Pending(draft.seal(self._chain), answers), late, want

    async def _commit(
        self, scenes: dict[str, Scene], pending: list[_Pending]
    ) -> tuple[list[TenantMove | AttemptMove], bool]:
        """Commit once, answer what was applied; return what was refused, and whether that counts."""
        if not pending:
            return [], False
        self._flight = Flight(each.change.tenant for each in pending)
        try:
            return await self._commit_all(scenes, pending)
        finally:
            self._flight.land()

    async def _commit_all(
        self, scenes: dict[str, Scene], pending: list[_Pending]
    ) -> tuple[list[TenantMove | AttemptMove], bool]:
        began = time.perf_counter()
        try:
            async with Limit(self._patience.commit):
                outcomes = await self._backend.commit([each.change for each in pending])
        except TimeoutError:  # it may still be applied: what was known is forgotten, versions prove the rest
            raise StoreUnavailable("the commit took too long") from None
        took = time.perf_counter() - began
        again: list[TenantMove | AttemptMove] = []
        counts = False
        for each, outcome in zip(pending, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self._applied(scenes, each, shared=outcome.shared)
            elif isinstance(outcome, Failed):
                self._give_up([move for move, _answer in each.answers], outcome.why)
            else:
                self._rewind.meet(each.change.tenant, outcome.loaded)
                again += _refused(scenes, each, outcome.loaded, outcome.fenced)
                counts |= not outcome.barred
        self._hears.observe(sum(len(each.answers) for each in pending), took)
        return again, counts

    def _applied(self, scenes: dict[str, Scene], each: _Pending, *, shared: bool) -> None:
        change = each.change
        if change.state is not None:
            users: dict[str, UserState | None] = {
                name: UserState(user.ref, user.account) for name, user in change.users.items()
            }
            scene = scenes[change.tenant]
            scene.jobs |= {put.job.id: put.job for put in change.puts}
            scene.jobs |= {drop.job: None for drop in change.drops}
            scene.keys |= change.keys
            scene.users |= users
            scene.state = change.state
            if change.docs and scene.endpoints is not None:
                scene.endpoints = with_docs(scene.endpoints, change.docs)
            scene.docs, scene.deliveries = {}, {}  # who comes late reads them again
            if shared:
                self._kept.forget(change.tenant)
            else:
                self._kept.keep(change.tenant, scene)
            self._memory.keep(change.tenant, change.state)
        self._memory.put(change.puts)
        for move, answer in each.answers:
            _tell(move, answer)
        for put in change.puts:
            self._bell.ring(change.tenant, put.job.subject, put.job.id)
        if change.deliveries:
            self._hears.queued()

    def _attempted(self, move: AttemptMove, now: int) -> list[_Pending]:
        try:
            change = move.attempt(now, self._backend.forms)
        except Exception as bug:  # noqa: BLE001 - as in a fold: one call's bug is that call's answer
            _fail(move, bug)
            return []
        if isinstance(change, Stale):
            _tell(move, change)
            return []
        if change.begins and move.tenant in self._memory.gone:
            _fail(move, StoreClosed("the tenant is closed"))
            return []
        if move.job is not None:
            self._memory.hold(move.job)
        return [_Pending(change, [(move, move.answer(change))])]


def _usage(there: Loaded, subject: str) -> Usage:
    state, user = there.state or TenantState(), there.users.get(subject)
    return Usage(state.doc.account, user.account if user else Account(granted=None))


class _Pending:
    """A change on its way, and the answers that hold once it is applied."""

    __slots__ = ("answers", "change")

    def __init__(self, change: Change, answers: list[tuple[Any, object]]) -> None:
        self.change = change
        self.answers = answers


def _tell(move: TenantMove | AttemptMove, answer: object) -> None:
    """Answer a move, if anybody still waits for it."""
    if not move.done.done():
        move.done.set_result(answer)


def _fail(move: TenantMove | AttemptMove, error: Exception) -> None:
    if not move.done.done():
        move.done.set_exception(error)


def _refused(
    scenes: dict[str, Scene], each: _Pending, loaded: Loaded, fenced: frozenset[str]
) -> list[TenantMove | AttemptMove]:
    """Learn the state as it is; return the moves to fold again from it.

    Whatever was known of the tenant and is not in the refusal may be as old as its version was.
    """
    if each.change.expect is None:
        (move, _answer) = each.answers[0]
        job = loaded.jobs.get(move.claim.job.id)
        if fenced:
            _tell(move, Stale(job))
            return []
        if loaded.state is not None and loaded.state.doc.shut is not None:
            _fail(move, StoreClosed("the tenant is closed"))
            return []
        move.job = job
        return [move]
    scene = scenes[each.change.tenant]
    scene.users, scene.jobs = dict.fromkeys(each.change.users), {}
    scene.keys = dict.fromkeys(each.change.keys)
    scene.docs, scene.deliveries, scene.endpoints = {}, {}, None
    _learn(scene, loaded)
    scene.fenced |= {(put.job.id, put.fence or 0) for put in each.change.puts if put.job.id in fenced}
    scene.fenced |= {
        (put.delivery.id, put.fence or 0) for put in each.change.deliveries if put.delivery.id in fenced
    }
    return [move for move, _answer in each.answers]


def _learn(scene: Scene, loaded: Loaded) -> None:
    if loaded.state is not None:
        scene.state = loaded.state
    scene.users |= loaded.users
    scene.jobs |= loaded.jobs
    scene.keys |= loaded.keys
    scene.docs |= loaded.docs
    scene.deliveries |= loaded.deliveries
    if loaded.endpoints is not None:
        scene.endpoints = loaded.endpoints
