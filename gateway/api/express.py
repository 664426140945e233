"""The two calls that nearly all traffic is, from the edge to their handlers with nothing between.

Litestar would find the same handlers behind the same gate; its route, request and response objects cost a
tenth of a submit. What is not exactly one of the two goes its way, and is answered there as it always was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.api.gate import closed
from policies.access import Action

if TYPE_CHECKING:
    from gateway.api.exchange import Exchange
    from gateway.api.gate import Gate
    from gateway.api.jobs import JobCalls

JOBS: Final = "/v1/jobs"
JOB: Final = "/v1/jobs/"


class Asked(NamedTuple):
    """What the two handlers look at of a request."""

    scope: Any
    path_params: dict[str, str]


class Express:
    """Serves submits and polls."""

    def __init__(self, gate: Gate, calls: JobCalls) -> None:
        self._gate = gate
        self._calls = calls
        self._read = closed(Action.READ)
        self._write = closed(Action.WRITE)

    async def serve(self, exchange: Exchange) -> bool:
        """Serve a request; False leaves it untouched, for others to route."""
        scope: Any = exchange.scope
        path, method = scope["path"], scope["method"]
        if scope.get("root_path"):
            return False
        if method == "POST" and path == JOBS:
            scope["path_template"] = JOBS
            await self._gate.admit(scope, self._write)
            asked: Any = Asked(scope, {})
            answer = await self._calls.submit(asked)
        elif method == "GET" and len(path) > len(JOB) and path.startswith(JOB) and path.count("/") == 3:
            scope["path_template"] = JOB + "{job_id}"
            await self._gate.admit(scope, self._read)
            asked = Asked(scope, {"job_id": path[len(JOB) :]})
            answer = await self._calls.get(asked)
        else:
            return False
        await exchange.answer(answer.status, answer.measured(), answer.body)
        return True
