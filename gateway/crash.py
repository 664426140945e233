"""The points at which a process may die with the most to lose, by name.

Code that passes such a point calls a hook it was given; in production the hook does nothing. The crash
harness (`tests/chaos/serve.py`) gives one that kills the process there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Hook = Callable[[str], None]

POINTS: Final = (
    "accepted",  # the request passed every policy; nothing is written
    "held",  # job and hold are in a transaction that is not committed
    "job_stored",  # committed, and nobody has been told
    "claimed",  # a worker has the lease
    "input_stored",  # a job has its own copy of an input, no upstream was asked
    "attempt_recorded",  # the attempt is durable, nothing is sent
    "upstream_sent",  # the request is on its way or answered; the answer is not read
    "upstream_answered",  # the answer is in memory alone
    "output_stored",  # the image's bytes are in the blob store, the job does not know
    "recorded",  # the job has ended and settled
    "delivery_queued",  # with the end of a job it was written down who is told, and nobody was
    "delivery_sent",  # an endpoint was told, the answer is in memory alone
    "delivery_recorded",  # what came of a delivery is written down
    "audit_appended",  # a line of the trail that stands alone was written
    "lease_returned",  # the job was given back
)


def nowhere(_point: str) -> None:
    """Pass every point."""
