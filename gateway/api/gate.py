"""Who may pass to a route: the one middleware between Litestar's routing and the handlers.

It decides on the *matched* route, never on a path: what a handler declares in its `opt` is what is
asked of the caller, and a handler that declares nothing is closed. `opt={"public": True}` opens one;
`opt={"action": Action.READ}` names what the caller must be allowed, `dialect` the client API that the
caller's plan must include. `produces` lists the media types an answer may have (JSON where none is named).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from gateway.api.exchange import exchange_of
from gateway.errors import Problem
from policies import access
from policies.access import Action
from policies.model import Deny

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.limits import ReadLimit
    from gateway.auth import Authenticator
    from gateway.callers import Callers

PUBLIC: Final[dict[str, Any]] = {"public": True}
JSON_ONLY: Final = ("application/json",)


def closed(action: Action, produces: tuple[str, ...] = JSON_ONLY) -> dict[str, Any]:
    """Return the `opt` of a route for callers who may do this."""
    return {"action": action, "produces": produces}


class Gate:
    """Lets those pass who may; knows each caller's token, tenant, plan, and reads a second."""

    def __init__(
        self, authenticator: Authenticator, callers: Callers, reads: ReadLimit, now: Callable[[], int]
    ) -> None:
        self._authenticator = authenticator
        self._callers = callers
        self._reads = reads
        self._now = now

    def around(self, app: Any) -> Any:
        """Return the application behind this gate."""

        async def gated(scope: Any, receive: Any, send: Any) -> None:
            opt = scope["route_handler"].opt
            if "public" not in opt and scope["method"] != "OPTIONS":
                await self.admit(scope, opt)
            await app(scope, receive, send)

        return gated

    async def admit(self, scope: Any, opt: dict[str, Any]) -> None:
        """Let the caller of a closed route pass, or raise `Problem`."""
        exchange = exchange_of(scope)
        token = exchange.fields.get(b"authorization")
        known = self._authenticator.known(token)
        principal = known if known is not None else await self._authenticator.verify(token)
        try:
            caller = self._callers.admit_caller(principal)
        except Problem as refused:
            await self._callers.turned_away(principal, refused.code, str(opt["action"]))
            raise
        exchange.caller = caller
        allowed = access.may(principal, opt["action"])
        if isinstance(allowed, Deny):
            await self._callers.turned_away(principal, str(allowed.reason), str(opt["action"]))
            raise Problem.of(allowed)
        if "dialect" in opt:
            spoken = access.may_speak(access.Plans(caller.tenant_plan, caller.user_plan), opt["dialect"])
            if isinstance(spoken, Deny):
                await self._callers.turned_away(principal, str(spoken.reason), str(opt["action"]))
                raise Problem.of(spoken)
        if scope["method"] == "GET":
            self._reads.take(principal.tenant, principal.subject, self._now())
        accept = exchange.fields.get(b"accept")
        if accept is not None and accept != b"*/*" and chosen(accept, opt["produces"]) is None:
            raise Problem("not_acceptable", f"Here is produced: {', '.join(opt['produces'])}.")


@functools.lru_cache(maxsize=512)
def chosen(accept: bytes, produces: tuple[str, ...]) -> str | None:
    """Return the producible media type an `Accept` value likes best, or None where it likes none.

    The most specific range that matches a type weighs it (RFC 9110, 12.5.1); of equals the first is
    chosen. A weight that cannot be read counts as none given.
    """
    ranges = [_range(part) for part in accept.decode("latin-1").lower().split(",")]
    best, weight = None, 0.0
    for kind in produces:
        fitting = [(specific, q) for name, q in ranges if (specific := _fit(name, kind)) is not None]
        q = max(fitting)[1] if fitting else 0.0
        if q > weight:
            best, weight = kind, q
    return best


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 1.0
    return name, 1.0


def _fit(name: str, kind: str) -> int | None:
    """Return how specifically a range names a media type, or None where it does not."""
    if name == kind:
        return 2
    if name == kind.partition("/")[0] + "/*":
        return 1
    return 0 if name == "*/*" else None
