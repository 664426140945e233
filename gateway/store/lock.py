"""One file, one process.

The lock lies beside the file, so that other programs may read the file itself; it is held until it is
closed or the process dies, however it dies. No library of the store is known here.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import Refusal


def take(path: Path) -> int:
    """Take the file for this process, by whatever name, or refuse to start; return what to close."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise Refusal(
            f"{path} is in use by another Safelight process. SQLite serves one process; "
            "stop the other one, give this one its own --data folder, or use a redis:// store."
        ) from None
    return lock
