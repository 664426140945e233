"""Other people's APIs on our routes: each dialect's calls behind the same edge and the same gate.

A dialect says in data which calls it has; here they become Litestar's. Nothing is translated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.connection import Request
from litestar.handlers import HTTPRouteHandler

from gateway.api.exchange import Answer, exchange_of
from gateway.api.gate import closed

if TYPE_CHECKING:
    from gateway.dialects.speech import Call, Serve, Speaker


def mount(speaker: Speaker) -> list[HTTPRouteHandler]:
    """Return the handlers of a dialect, open to callers whose plan includes it."""
    return [_route(call, speaker) for call in speaker.calls()]


def speaks(speaker: Speaker, path: str) -> bool:
    """Say whether a path is one of a dialect's."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in speaker.prefixes)


def _route(call: Call, speaker: Speaker) -> HTTPRouteHandler:
    path = call.path.replace("}", ":str}")
    opt = {**closed(call.action), "dialect": speaker.dialect}
    route = HTTPRouteHandler(
        path, http_method=call.method, operation_id=call.operation, status_code=200, opt=opt
    )
    return route(_served(call.serve))


def _served(serve: Serve) -> Any:
    async def served(request: Request[Any, Any, Any]) -> Answer:
        return await serve(exchange_of(request.scope), request.path_params)

    served.__doc__ = serve.__doc__  # documents are made of it
    return served
