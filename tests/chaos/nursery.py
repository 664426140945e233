"""Makes lives of the gateway quickly: a process that has imported everything and forks.

A killed process must be started again some hundreds of times, and importing takes longer than living. Each
line on stdin is a crash point (or nothing) and begins one life; `gone <status>` on stdout says how it
ended. The child is a process like any other: it opens its files, sockets and threads itself.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos import serve

if TYPE_CHECKING:
    from collections.abc import Callable


def lead(life: Callable[[], None], spec: str) -> None:
    """Be the child: live, then leave without the parent's clean-up."""
    os.environ["SAFELIGHT_CRASH_AT"] = spec
    status = 0
    try:
        life()
    except BaseException:  # noqa: BLE001 - the last stop of a process
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(life: Callable[[], None]) -> None:
    """Begin a life for each line, one after the other. Negative statuses are signals."""
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            lead(life, line.strip())
        sys.stdout.write(f"born {child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"gone {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    words: Any = sys.argv[1:]
    main(lambda: serve.main(Path(words[0]), words[1], words[2]))
