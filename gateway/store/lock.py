"""One file, one process.

The lock lies beside the file, so that other programs may read the file itself; it is held until it is
closed or the process dies, however it dies. No library of the store is known here.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import Refusal


class InUse(Refusal):
    """Another process has the file at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is in use by another Safelight process. SQLite serves one process; "
            "stop the other one, give this one its own --data folder, or use a redis:// store."
        )
        self.path = path


def take(path: Path) -> int:
    """Take the file for this process, by whatever name, or refuse to start; return what to close."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InUse(path) from None
    return lock
