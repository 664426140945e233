"""`safelight migrate`: in which form the store is written, and the end of an upgrade.

Nothing is rewritten: from the end of an upgrade on each document gets the newest form when it is next
written. A SQLite file needs no end: whoever opens it to write brings it forward.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.cli.screen import Screen, printable
from gateway.errors import Fault, Refusal
from gateway.store.opening import open_to_read

if TYPE_CHECKING:
    from gateway.cli.sources import Kept
    from gateway.store.format import Upgrade


def run_migrate(kept: Kept, screen: Screen, *, finish: bool) -> int:
    """Tell how the store stands, or finish; return the exit code: 1 where an older process is in the way."""
    try:
        stands = asyncio.run(_asked(kept, finish=finish))
    except Fault as fault:
        raise Refusal(f"The store cannot be asked: {fault}.") from fault
    for each in stands.behind:
        name = printable(each.name or each.me)
        screen.cross(f"{name} lives and reads up to form {each.newest}: stop it first")
    if stands.form == stands.newest:
        screen.tick(f"the store is written in form {stands.form}, the newest this version knows")
    elif kept.store.file is not None:
        screen.note(
            f"the file has form {stands.form}: the next start copies it and brings it to {stands.newest}"
        )
    else:
        screen.note(f"the store is written in form {stands.form}; form {stands.newest} waits for --finish")
    return int(finish and bool(stands.behind))


async def _asked(kept: Kept, *, finish: bool) -> Upgrade:
    backend = open_to_read(kept.store, me="migrate")
    try:
        await backend.look()
        return await backend.upgrade(finish=finish)
    finally:
        await backend.close()
